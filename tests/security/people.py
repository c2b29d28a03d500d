"""Real users of one machine: two who share a group, and one outside; each acts in a child that gave up root."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus import fsck
from mcp_bus.clock import System
from mcp_bus.fsck import Means
from tests.crash.victim import Steps, ended, fork, open_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus

GROUP = 71_100
# What commands wrote, and drafts, which nobody reads as messages.
LOOSE = ("tmp",)
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become two users and an outsider"
)


class Person(NamedTuple):
    """A user, and the groups they are in."""

    name: str
    uid: int
    groups: tuple[int, ...]

    def start(self, do: Callable[[], object], umask: int = 0o022) -> int:
        """Do something as this user, in a child; return its pid."""

        def act() -> object:
            os.setgroups(self.groups)
            os.setgid(self.uid)  # Their primary group is theirs alone, as on Debian.
            os.setuid(self.uid)
            os.umask(umask)
            return do()

        return fork(act)

    def does(self, do: Callable[[], object], umask: int = 0o022) -> None:
        """Do something as this user, to its end."""
        code = ended(self.start(do, umask))
        assert code == 0, f"{self.name} ended with {code}; what went wrong is on stderr"


ALICE, BOB, EVE = Person("alice", 71_001, (GROUP,)), Person("bob", 71_002, (GROUP,)), Person("eve", 71_003, ())


def acting(root: Path, agent: str, offset: int = 0) -> Bus:
    """Open a bus as an agent of whoever this process is."""
    return open_at(root, Steps(), agent=agent, offset=offset, durable=False)


def filled(root: Path) -> None:
    """Post three tasks as alice."""
    with acting(root, "alice") as bus:
        bus.create_channel("work", retention_days=1)
        bus.create_channel("other")
        for number in range(3):
            bus.post("work", f"task {number}")


def work(bus: Bus, *channels: str) -> list[str]:
    """Claim and finish all that can be claimed; return what it said."""
    got = list[str]()
    while (task := bus.claim(channels)) is not None:
        got.append(task.body.content)
        bus.ack(task, "done")
    return got


def mended(root: Path) -> fsck.Report:
    """Repair a bus as whoever this process is."""
    return fsck.repair(root, Means(Steps(), System(), lambda _looked: None))


def wrong(root: Path, *, group: int | None, loose: tuple[str, ...] = LOOSE) -> list[str]:
    """Return what has another mode or group than it should have, everything on the bus looked at."""
    folder, file = (0o700, 0o600) if group is None else (0o2770, 0o660)
    found = list[str]()
    for path in (root, *sorted(root.rglob("*"))):
        about = path.lstat()
        wanted = folder if stat.S_ISDIR(about.st_mode) else file
        parts = path.relative_to(root).parts
        is_loose = len(parts) > 1 and parts[0] in loose
        if not is_loose and (stat.S_IMODE(about.st_mode) != wanted or about.st_gid != (group or about.st_gid)):
            found.append(f"{'/'.join(parts) or '.'}: {stat.S_IMODE(about.st_mode):o} of group {about.st_gid}")
    return found
