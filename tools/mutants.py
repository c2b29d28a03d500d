"""Plant known faults one at a time and see the tests find each: `python -m tools.mutants [--only WORD] [--jobs N]`.

A suite that cannot fail proves nothing.  Each fault of `mutants.toml` is planted in a copy of the tree, and the tests
that it names must then fail: not for want of a module or a test, and not by running for ever, which proves no less
but says less.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.repository import files

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tools" / "mutants.toml"
LIMIT_S = 600
SHOWN = 5
FAILED = 1  # pytest's exit code when tests ran and some failed; any other is trouble of another kind.


class Mutant(NamedTuple):
    """A fault: where, what is written there instead, and which tests must find it."""

    name: str
    promise: str
    file: str
    before: str
    after: str
    tests: list[str]


class Verdict(NamedTuple):
    """What became of a fault; `by` is the first test that failed, or why the gate cannot tell."""

    mutant: Mutant
    is_caught: bool
    by: str
    seconds: float


def load() -> list[Mutant]:
    """Return all faults, in the order of the file."""
    return [Mutant(**item) for item in tomllib.loads(LIST.read_text("utf-8"))["mutant"]]


def planted(mutant: Mutant, text: str) -> str:
    """Return a file with the fault in it.

    Raises:
        ValueError: what it replaces does not stand there exactly once.
    """
    count = text.count(mutant.before)
    if count != 1:
        msg = f"out of date: what it replaces stands {count} times in {mutant.file}"
        raise ValueError(msg)
    return text.replace(mutant.before, mutant.after)


def copied(folder: Path) -> Path:
    """Copy what git tracks into a folder."""
    for name in files(ROOT):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


def run(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copied tree until one fails."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    return subprocess.run(
        words, cwd=tree, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )


def judge(mutant: Mutant) -> Verdict:
    """Plant a fault in a copy of the tree and run its tests there."""
    began = time.monotonic()
    try:
        text = planted(mutant, (ROOT / mutant.file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        return Verdict(mutant, is_caught=False, by=str(error), seconds=0.0)
    with tempfile.TemporaryDirectory(prefix="mutant-", dir=os.environ.get("TMPDIR")) as folder:
        tree = copied(Path(folder))
        (tree / mutant.file).write_text(text, "utf-8")
        try:
            done = run(tree, mutant.tests)
        except subprocess.TimeoutExpired:
            return Verdict(mutant, is_caught=False, by=f"no end within {LIMIT_S} s", seconds=time.monotonic() - began)
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode == FAILED and failed:
        return Verdict(mutant, is_caught=True, by=failed[0], seconds=time.monotonic() - began)
    by = "SURVIVED" if done.returncode == 0 else f"pytest ended with {done.returncode}: {done.stdout[-300:]}"
    return Verdict(mutant, is_caught=False, by=by, seconds=time.monotonic() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutants", description="Plant known faults; the tests must find each."
    )
    parser.add_argument("--only", default="", metavar="WORD", help="the faults whose name or promise has this in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="how many at a time")
    return parser.parse_args()


def main() -> int:
    """Judge every fault, print a line for each, and return 0 if all were caught."""
    options = _options()
    known = load()
    chosen = [mutant for mutant in known if options.only in mutant.name or options.only == mutant.promise]
    if not chosen:
        print(f"no fault has {options.only!r} in its name or as its promise, of {len(known)}; the first of them:")
        print("\n".join(f"  {mutant.promise:<4} {mutant.name}" for mutant in known[:SHOWN]))
        return 1
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        caught = 0
        for verdict in pool.map(judge, chosen):
            caught += verdict.is_caught
            mark = "caught  " if verdict.is_caught else "NOT     "
            print(f"{mark} {verdict.mutant.promise:<4} {verdict.mutant.name} ({verdict.seconds:.0f} s)", flush=True)
            print(f"          {verdict.by}", flush=True)
    print(f"{caught} caught of {len(chosen)}")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
