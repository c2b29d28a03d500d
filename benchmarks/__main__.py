"""Measure the bus, and the same load on other queues: `python -m benchmarks`.

Everything that is compared runs in turn within one run, so that the ratios hold where the machine is
noisy; the absolute figures do not travel.  Exit code 0 also when a goal is missed: the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import calls, cycle, floor, place, planning, remote, startup, table
from mcp_bus.stores import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (10, 10_000, 100_000)
QUICK_SIZES = (10, 2_000)
PARTS = ("cycle", "crowd", "server", "verbs", "calls", "plans", "git")


def main() -> int:
    """Run what was asked for, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer rounds, never 100,000 waiting")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--dir", type=Path, help="where to put what is measured; a disk, not memory")
    parser.add_argument("--abq", type=Path, help="the folder that has abq's Python package, to compare verbs with")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"{unknown[0]!r} is not one of {', '.join(PARTS)}")
    disk = _disk(options.dir)
    kind = probe.kind_of(disk)
    if kind in probe.VOLATILE:
        print(f"benchmarks: {disk} is {kind}, which is memory: name a folder on a disk with --dir", file=sys.stderr)
        return 2
    report = table.Report(_machine(kind))
    with _scratch(disk) as root:
        for part in parts:
            start = time.monotonic()
            _PARTS[part](root, report, options)
            cycle.progress(f"{part}: {time.monotonic() - start:.0f} s")
    print(report.json() if options.json else report.text())
    return 0


def _disk(named: Path | None) -> Path:
    """Return where to work: what was named, or the first usual place that is not memory."""
    places = [named] if named else [Path(tempfile.gettempdir()), Path.home(), Path.cwd()]
    return next((each for each in places if probe.kind_of(each) not in probe.VOLATILE), places[0])


def _machine(kind: str) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {"Date": time.strftime("%Y-%m-%d"), "file system": kind, "cores": str(cores), "load": load, "on": python}


@contextlib.contextmanager
def _scratch(disk: Path) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mcp-bus-bench-", dir=disk))
    try:
        yield root
    finally:
        start = time.monotonic()
        place.remove(root)
        cycle.progress(f"removed what was measured: {time.monotonic() - start:.0f} s")


def _cycle(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    tapes = {durable: floor.record(root / f"tape-{durable}", durable=durable) for durable in (False, True)}
    sizes, rounds = (QUICK_SIZES, 3) if options.quick else (SIZES, 9)
    done = [(size, cycle.alone(root, size, rounds=rounds, tapes=tapes)) for size in sizes]
    cycle.tables(done, tapes, report)


def _crowd(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    tasks, rounds = ({False: 800, True: 120}, 1) if options.quick else ({False: 2000, True: 400}, 3)
    report.add(*cycle.crowded(cycle.crowd(root, tasks, rounds=rounds)))


def _server(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    starts, idle_s = (3, 2.0) if options.quick else (15, 10.5)
    report.add(*startup.servers(root, starts=starts, idle_s=idle_s))


def _verbs(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    report.add(*startup.verbs(root, runs=4 if options.quick else 21, abq=options.abq))


def _calls(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    many, rounds = (40, 2) if options.quick else (200, 5)
    report.add(*calls.measure(root, calls=many, rounds=rounds))


def _plans(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    report.add(*planning.measure(root / "plans", rounds=1 if options.quick else 3))


def _remote(root: Path, report: table.Report, options: argparse.Namespace) -> None:
    report.add(*remote.measure(root / "git", rounds=10 if options.quick else 60))


_PARTS: dict[str, Callable[[Path, table.Report, argparse.Namespace], None]] = {
    "cycle": _cycle,
    "crowd": _crowd,
    "server": _server,
    "verbs": _verbs,
    "calls": _calls,
    "plans": _plans,
    "git": _remote,
}

if __name__ == "__main__":
    sys.exit(main())
