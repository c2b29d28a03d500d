"""What a verb costs on a bus at a git remote, beside `git add`, `git commit` and `git push` of a file of that size."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

from benchmarks import table
from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.model import Identity
from mcp_bus.stores.git.opening import Means, opened
from mcp_bus.stores.git.place import Address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY = "x" * 300
GOAL = 1.3
# As long as nobody else pushes nothing is asked for: what is measured is the commit and its push.
FRESH_S = 3600.0


def _git(*words: str, where: Path | None = None) -> None:
    subprocess.run(["git", *words], cwd=where, check=True, capture_output=True)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _bus(root: Path, remote: Path) -> Bus:
    source = System()
    who = Identity("ann", "00000001", "ann~00000001", pid=os.getpid())
    store = opened(root / "host", Address(str(remote)), Means(os.environ, FRESH_S), source=source, who=who.holder)
    store.create()
    return Bus(store, who, source)


def _plain(root: Path) -> Callable[[], None]:
    """Return what commits and pushes one more file, in a repository of its own."""
    remote, there = root / "plain.git", root / "plain"
    _git("init", "--quiet", "--bare", str(remote))
    _git("init", "--quiet", "-b", "main", str(there))
    for name, value in (("user.name", "x"), ("user.email", "x@x"), ("core.fsync", "all"), ("gc.auto", "0")):
        _git("config", name, value, where=there)
    _git("remote", "add", "origin", str(remote), where=there)
    numbers = iter(range(10**6))

    def commits() -> None:
        number = next(numbers)
        (there / f"{number}.json").write_text(BODY)
        _git("add", "-A", where=there)
        _git("commit", "--quiet", "-m", f"file {number}", where=there)
        _git("push", "--quiet", "origin", "main", where=there)

    return commits


def measure(root: Path, *, rounds: int) -> tuple[table.Table, list[table.Goal]]:
    """Measure post, claim and ack, each in turn with a commit and push of git's own.

    Returns:
        Medians in milliseconds, and the goal for each ratio.
    """
    root.mkdir()
    remote = root / "remote.git"
    _git("init", "--quiet", "--bare", str(remote))
    bus, commits = _bus(root, remote), _plain(root)
    took: dict[str, list[float]] = {"git add, commit, push": [], "post": [], "claim": [], "ack with a result": []}
    bus.post("work", BODY)
    commits()
    for _ in range(rounds):
        took["git add, commit, push"].append(_timed(commits))
        took["post"].append(_timed(lambda: bus.post("work", BODY)))
        held = list[Any]()
        took["claim"].append(_timed(lambda held=held: held.append(bus.claim(["work"]))))  # type: ignore[misc]  # a default in a lambda
        took["ack with a result"].append(_timed(lambda held=held: bus.ack(held[0], BODY)))  # type: ignore[misc]  # as above
    bus.close()
    medians = {name: statistics.median(values) for name, values in took.items()}
    base = medians["git add, commit, push"]
    rows = [(name, f"{value:.1f}", f"{value / base:.2f}") for name, value in medians.items()]
    note = f"{rounds} rounds; a bare repository on the same disk; git's own commits with core.fsync=all, as the bus's"
    made = table.Table("A bus at a git remote", ("", "ms", "of git's own"), rows, (note,))
    return made, [table.Goal(f"{name}, of git's own", GOAL, medians[name] / base) for name in [*medians][1:]]
