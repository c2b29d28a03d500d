"""Time, chance and the medium, as tests want them: virtual, repeatable, recorded."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mcp_bus.bus import Bus
from mcp_bus.model import Identity
from mcp_bus.names import holder
from mcp_bus.recovery import sweep
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.visibility import Measured

if TYPE_CHECKING:
    from mcp_bus.stores.base import Store

# How a client of the SDK is told which protocol to speak.
ERAS = ("auto", "legacy")
# Later than any file that a test writes, so that what is on disk has settled by this clock.
START = 4_000_000_000_000
# What two processes find that see each other at once, for tests that are not about that: it takes a fifth of a second.
AT_ONCE = Measured({"listing": [0.001], "rename": [0.001], "removal": [0.001]})


class VirtualSource:
    """A clock that stands still until it is told otherwise, and chance that repeats itself."""

    def __init__(self, start: int = START, seed: int = 0) -> None:
        self.time = start
        self.running = 0.0
        self._chance = random.Random(seed)  # noqa: S311  tests need repeatable chance

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.running

    def token(self, size: int) -> str:
        return self._chance.randbytes(size).hex()

    def advance(self, seconds: float) -> None:
        """Let time pass for everyone who reads this clock."""
        self.time += int(seconds * 1000)
        self.running += max(0.0, seconds)

    def refresh(self) -> None:
        """Let only the monotonic clock pass, so that what was remembered for a moment is read again."""
        self.running += 1_000.0


def who(agent: str = "ann", session: str = "00000001") -> Identity:
    """Return a session of an agent."""
    return Identity(agent, session, holder(agent, session), "", "here", 7)


def bus_on(store: Store, source: VirtualSource, agent: str = "ann", session: str = "00000001") -> Bus:
    """Open a store as one session of an agent."""
    return Bus(store, who(agent, session), source)


class RecordingFs(Fs):
    """The real file system, and what was asked of it: `calls` holds lines such as `rename tmp/a -> tasks/a`.

    Paths are told by the descriptors that were opened through it, relative to the first folder.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._paths: dict[int, str] = {}

    def path(self, name: str, at: int | None) -> str:
        base = "" if at is None else self._paths.get(at, "?")
        return f"{base}/{name}" if base else name

    def open_dir(self, name: str, at: int | None) -> int:
        fd = super().open_dir(name, at)
        self._paths[fd] = "" if at is None else self.path(name, at)
        return fd

    def open_new(self, name: str, at: int) -> int:
        fd = super().open_new(name, at)
        self._paths[fd] = self.path(name, at)
        self.calls.append(f"create {self._paths[fd]}")
        return fd

    def open_append(self, name: str, at: int) -> int:
        fd = super().open_append(name, at)
        self._paths[fd] = self.path(name, at)
        return fd

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.calls.append(f"fsync {self._paths.get(fd, '?')}")

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        super().link(src, src_at, dst, dst_at)
        self.calls.append(f"link {self.path(src, src_at)} -> {self.path(dst, dst_at)}")

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        super().rename(src, src_at, dst, dst_at)
        self.calls.append(f"rename {self.path(src, src_at)} -> {self.path(dst, dst_at)}")

    def unlink(self, name: str, at: int) -> None:
        super().unlink(name, at)
        self.calls.append(f"unlink {self.path(name, at)}")

    def sync_name(self, name: str, at: int) -> None:
        before = len(self.calls)
        super().sync_name(name, at)
        self.calls[before:] = [f"sync_name {self.path(name, at)}"]


def swept(bus: Bus) -> list[str]:
    """Sweep, and return what was done to tasks; by the virtual clock every journal is old."""
    return [line for line in sweep(bus) if "journal" not in line]
