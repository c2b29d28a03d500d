"""How soon a waiting process sees a rename, and what the waiting costs: `python -m benchmarks.wakeup`.

Each candidate waits in a process of its own on a directory of its own.  This process renames a
file into one directory after another, in a new random order every round and after random pauses,
so that all candidates share one run.  The name says when the rename began; the waiter, once told,
lists the directory and reports how long ago that was.

A start is what a waiting command pays in a fresh interpreter that has imported what the core
imports anyway: the import, and everything until the wait could begin.  Linux only (/proc).
"""

from __future__ import annotations

import dataclasses  # noqa: F401  A start is counted on top of what the core imports anyway.
import enum  # noqa: F401  so too
import importlib.util
import json
import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    import subprocess

Block = Callable[[], object]  # Returns when it was told, or when its turn to look has come.

_ROOT: Final = Path(__file__).resolve().parents[1]
_MASK: Final = 0x80 | 0x100 | 0x08  # MOVED_TO, CREATE, CLOSE_WRITE
_LOST_AFTER: Final = 10.0
# Pauses as long as a period meet polling at every phase; shorter ones would favour some.
_PAUSE: Final = 0.05
_PERIODS: Final = {"polling, 500 ms": 0.5}
_FLOOR: Final = "system calls through ctypes"


def _ours() -> Any:  # noqa: ANN401  a module loaded by its path
    """Load the module without its package, which would bring imports of its own."""
    spec = importlib.util.spec_from_file_location("notify", _ROOT / "mcp_bus" / "notify.py")
    if spec is None or spec.loader is None:
        raise ImportError(name="notify")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _hint(directory: Path) -> Block:
    hint = _ours().Hint([directory])
    return partial(hint.wait, 3600)


def _hint_anyio(directory: Path) -> Block:
    anyio, asyncio = importlib.import_module("anyio"), importlib.import_module("asyncio")
    hint, loop = _ours().Hint([directory]), asyncio.new_event_loop()

    async def told() -> None:
        await anyio.wait_readable(hint.fileno())
        hint.drain()

    return lambda: loop.run_until_complete(told())


def _ctypes(directory: Path) -> Block:
    ctypes = importlib.import_module("ctypes")
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    libc.inotify_add_watch(fd, os.fsencode(directory), _MASK)
    return partial(os.read, fd, 65_536)


def _inotify_simple(directory: Path) -> Block:
    watcher = importlib.import_module("inotify_simple").INotify()
    watcher.add_watch(directory, _MASK)
    block: Block = watcher.read
    return block


def _asyncinotify(directory: Path) -> Block:
    library = importlib.import_module("asyncinotify")
    watcher = library.Inotify()
    watcher.add_watch(directory, library.Mask(_MASK))
    block: Block = watcher.sync_get
    return block


def _watchdog(directory: Path) -> Block:
    threading = importlib.import_module("threading")
    told = threading.Event()
    handler = importlib.import_module("watchdog.events").FileSystemEventHandler()
    handler.on_any_event = lambda _: told.set()
    observer = importlib.import_module("watchdog.observers").Observer()
    observer.schedule(handler, str(directory))
    observer.start()

    def block() -> None:
        told.wait()
        told.clear()

    return block


def _watchfiles(directory: Path, **options: int) -> Block:
    library = importlib.import_module("watchfiles")
    # Not through `watch`: its generator arms only when first asked, which is too late here.
    # The defaults of `watch`: debounce 1600 ms, step 50 ms.
    watcher = library._rust_notify.RustNotify([str(directory)], False, False, 0, True, False)  # noqa: FBT003, SLF001  positional, private
    debounce, step = options.get("debounce", 1600), options.get("step", 50)
    return lambda: watcher.watch(debounce, step, 3_600_000, None)


def _polling(_directory: Path, seconds: float) -> Block:
    pause = importlib.import_module("threading").Event()
    return partial(pause.wait, seconds)


# Name: (the module that has to be installed, how to arm it).
CANDIDATES: Final[dict[str, tuple[str, Callable[[Path], Block]]]] = {
    _FLOOR: ("ctypes", _ctypes),
    "mcp_bus.notify": ("ctypes", _hint),
    "mcp_bus.notify in anyio": ("anyio", _hint_anyio),
    "inotify-simple": ("inotify_simple", _inotify_simple),
    "asyncinotify": ("asyncinotify", _asyncinotify),
    "watchdog": ("watchdog", _watchdog),
    "watchfiles, defaults": ("watchfiles", _watchfiles),
    "watchfiles, 1 ms steps": ("watchfiles", partial(_watchfiles, debounce=1, step=1)),
    "polling, 50 ms": ("threading", partial(_polling, seconds=0.05)),
    "polling, 500 ms": ("threading", partial(_polling, seconds=0.5)),
}


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def wait_for_ever(name: str, directory: Path) -> None:
    """Be the waiting process: one line about the start, then one line of nanoseconds a file."""
    memory, start = _resident_mb(), time.perf_counter()
    block = CANDIDATES[name][1](directory)
    took = (time.perf_counter() - start) * 1000
    print(json.dumps({"ms": took, "mb": _resident_mb() - memory}), flush=True)
    while True:
        block()
        for entry in os.listdir(directory):  # noqa: PTH208  as the file store does it
            print(time.monotonic_ns() - int(entry), flush=True)
            (directory / entry).unlink()


class Waiter:
    """One candidate's process, seen from here."""

    def __init__(self, name: str, directory: Path) -> None:
        """Start it, and return when it is waiting."""
        import subprocess  # noqa: PLC0415  would hide what candidates import

        directory.mkdir(exist_ok=True)
        self.directory = directory
        # Compiled code is kept, for all alike and whatever the environment says (-E).
        python = [sys.executable, "-E", "-X", f"pycache_prefix={directory.parent / 'compiled'}"]
        command = [*python, "-m", "benchmarks.wakeup", "--waiter", name, str(directory)]
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)
        self.start: dict[str, float] = json.loads(self._line() or "{}")

    def _line(self) -> bytes:
        stream = self._process.stdout
        ready = stream and select.select([stream], [], [], _LOST_AFTER)[0]
        return stream.readline() if stream and ready else b""

    def rename_into(self, draft: Path) -> float | None:
        """Rename `draft` into the directory.  Milliseconds until it was seen, or None."""
        draft.touch()
        draft.rename(self.directory / str(time.monotonic_ns()))
        line = self._line()
        return int(line) / 1e6 if line else None

    def cpu_seconds(self) -> float:
        """Say how long all its threads have run, to the nanosecond."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def _measure(names: list[str], options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    import random  # noqa: PLC0415  would hide what candidates import
    import statistics  # noqa: PLC0415  only the parent needs it

    chance = random.Random(options.seed)
    starts: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(options.starts + 1):
        for name in chance.sample(names, len(names)):
            waiter = Waiter(name, scratch / name)
            if turn:  # The first one compiles.
                starts[name].append(waiter.start)
            waiter.stop()

    waiters = {name: Waiter(name, scratch / name) for name in names}
    delays: dict[str, list[float]] = {name: [] for name in names}
    try:
        time.sleep(0.5)  # What a start leaves running is not idleness.
        before = {name: waiters[name].cpu_seconds() for name in names}
        time.sleep(options.idle)
        idle = {name: (waiters[name].cpu_seconds() - before[name]) / options.idle for name in names}
        for _ in range(options.rounds):
            for name in chance.sample(names, len(names)):
                time.sleep(chance.uniform(0, _PERIODS.get(name, _PAUSE)))
                delay = waiters[name].rename_into(scratch / "draft")
                delays[name].append(_LOST_AFTER * 1000 if delay is None else delay)
    finally:
        for waiter in waiters.values():
            waiter.stop()

    rows = {}
    for name in names:
        cuts = statistics.quantiles(delays[name], n=100, method="inclusive")
        rows[name] = {
            "p50": cuts[49],
            "p95": cuts[94],
            "p99": cuts[98],
            "idle": idle[name] * 100,
            "start": statistics.median(start["ms"] for start in starts[name]),
            "memory": statistics.median(start["mb"] for start in starts[name]),
        }
    return rows


def _print(rows: dict[str, dict[str, float]]) -> None:
    floor = rows[_FLOOR]
    print("| candidate | p50 ms | p95 ms | p99 ms | p50 / floor | idle CPU % | start ms | start / floor | RSS + MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        delays = f"{row['p50']:.2f} | {row['p95']:.2f} | {row['p99']:.2f} | {row['p50'] / floor['p50']:.1f}"
        start = f"{row['start']:.1f} | {row['start'] / floor['start']:.1f} | {row['memory']:.1f}"
        print(f"| {name} | {delays} | {row['idle']:.3f} | {start} |")


def main() -> None:
    """Compare what is installed, and print one table."""
    import argparse  # noqa: PLC0415  would hide what candidates import
    import tempfile  # noqa: PLC0415  only the parent needs it

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100, help="renames for each candidate")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds in which nothing happens")
    parser.add_argument("--starts", type=int, default=11, help="fresh interpreters for each candidate")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    installed = [name for name, (module, _) in CANDIDATES.items() if importlib.util.find_spec(module)]
    with tempfile.TemporaryDirectory() as scratch:
        _print(_measure(installed, options, Path(scratch)))
    for name in CANDIDATES:
        if name not in installed:
            print(f"skipped, not installed: {name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--waiter"]:
        wait_for_ever(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
