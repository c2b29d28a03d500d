"""Hosts that meet at a bare repository, each with a clone of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.model import Identity
from mcp_bus.stores.git.opening import Means, opened
from mcp_bus.stores.git.place import BRANCH, Address
from mcp_bus.stores.git.store import GitStore

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.stores.git.repo import Repo


def git(*words: str, where: Path | str | None = None) -> str:
    """Run git as a person would; return what it says."""
    done = subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, text=True)
    return done.stdout


def bare(path: Path) -> str:
    """Make an empty repository; return its address."""
    git("init", "--quiet", "--bare", str(path))
    return str(path)


def store_on(
    place: Path,
    remote: str,
    *,
    source: Source | None = None,
    who: str = "-",
    tentative: bool = False,
    branch: str = BRANCH,
) -> GitStore:
    """Open the bus of a remote as a host whose directory for it is `place`; it always asks the remote."""
    means = Means(os.environ, 1e-6, is_tentative=tentative)
    return opened(place, Address(remote, branch), means, source=source or System(), who=who)


def bus_on(
    place: Path, remote: str, agent: str = "ann", *, source: Source | None = None, tentative: bool = False
) -> Bus:
    """Open the bus as an agent on that host."""
    source = source or System()
    who = Identity(agent, "00000001", f"{agent}~00000001", pid=os.getpid())
    return Bus(store_on(place, remote, source=source, who=who.holder, tentative=tentative), who, source)


class Hosts:
    """Hosts by name, each a directory below `place`, that meet at one remote."""

    def __init__(self, place: Path, remote: str) -> None:
        self.place, self.remote = place, remote
        self._open = list[Bus]()

    def bus(self, host: str, agent: str = "ann", *, source: Source | None = None) -> Bus:
        """Open the bus there as an agent."""
        self._open.append(bus_on(self.place / host, self.remote, agent, source=source))
        return self._open[-1]

    def close(self) -> None:
        for bus in self._open:
            bus.close()


def store_of(bus: Bus) -> GitStore:
    """Return what a bus is kept in."""
    assert isinstance(bus.store, GitStore)
    return bus.store


def die(*_: object) -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_push(repo: Repo, number: int, *, late: bool) -> None:
    """Let this process be killed at its push of that number, counted from 0: before it, or once the remote has it."""
    real, left = repo.push, [number]

    def push(commit: str, expected: str) -> None:
        left[0] -= 1
        if left[0] < 0 and not late:
            die()
        real(commit, expected)
        if left[0] < 0:
            die()

    repo.push = push  # type: ignore[method-assign]  # as a test does
