"""What a worker leaves when it dies: commands that run on, tasks that it held; and being told that it died."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mcp_bus import find, lifecycle
from mcp_bus.errors import Conflict
from mcp_bus.model import Attempt, Outcome, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Slot


class Ends:
    """Descriptors that can be read once processes have ended, where there are such."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Watch processes by their ids, none of which was waited for yet."""
        self._pids = pids
        self.fds: list[int] = []
        self.are_told = True

    def __enter__(self) -> Self:
        """Begin to watch."""
        for pid in self._pids:
            try:
                self.fds.append(os.pidfd_open(pid))
            except (AttributeError, OSError):
                self.are_told = False
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


def end(mark: str) -> list[int]:
    """Kill the process groups of those whose environment has a variable, `NAME=value`; return their leaders.

    Nobody is found where environments cannot be read (all but Linux).
    """
    groups = sorted({group for pid in _pids() if (group := _marked(pid, mark.encode())) > 0} - {os.getpgrp()})
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    return groups


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return []


def _marked(pid: int, mark: bytes) -> int:
    """Return the process group of a process that has a variable in its environment; 0 for one that has not."""
    with suppress(OSError):
        if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return os.getpgid(pid)
    return 0


def give_back(bus: Bus, holder: str, why: str) -> int:
    """Take back what a session held whose process has certainly ended, its attempts counted; return how many tasks."""
    count = 0
    for slot in _held(bus, holder):
        with suppress(Conflict):
            task = bus.store.get(slot.id, at=slot)
            if task is not None and slot.lease is not None:
                now, policy = bus.source.now(), bus.store.policy(slot.channel)
                line = Attempt(slot.attempt, Outcome.LAPSED, now, bus.identity.agent, why, slot.lease.token)
                bus.store.swap(slot, lifecycle.fail(slot, task.body, policy, now=now), line)
                count += 1
    return count


def _held(bus: Bus, holder: str) -> Iterator[Slot]:
    for channel in find.queues(bus.store):
        leased = list(bus.store.scan(channel, State.LEASED))
        yield from (slot for slot in leased if slot.lease is not None and slot.lease.holder == holder)
