"""The floor: the system calls of a task's cycle, in the bus's own order, and nothing else.

They are not written down here but recorded from the bus itself, so that the floor cannot be of
another protocol than the bus.  What is played again is everything that changes the task's files or
reads them; left out are the journal (for people), looking at the clock, random numbers and listing
folders, for which the bus has to find its own time.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from benchmarks.peers import RESULT, Queue, text
from mcp_bus import Bus, open_bus
from mcp_bus.stores.file import BATCH, FileStore
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.modes import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mcp_bus.stores.fsops import Found

CHANNEL = "work"
VERBS = ("post", "claim", "ack")
_ID = re.compile(r"req_[0-9a-f]{32}")
_OURS = re.compile(r"req_|result\.")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class Call(NamedTuple):
    """A recorded call: what, on which names, in which folders; `{+1}` in a name is the next task's id."""

    what: str
    names: tuple[str, ...]
    folders: tuple[str, ...]
    data: bytes = b""
    sync: bool = False


class Recorder(Fs):
    """A file system that remembers what was asked of it; the calls inside a call do not count."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.calls: list[Call] = []
        self._folders: dict[int, str] = {}
        self._real = Fs()

    def open_dir(self, name: str, at: int | None) -> int:
        """Remember which folder a descriptor stands for."""
        made = self._real.open_dir(name, at)
        self._folders[made] = "" if at is None else f"{self._folders[at]}/{name}".lstrip("/")
        return made

    def create(self, name: str, at: int, data: bytes, *, sync: bool) -> None:
        """Remember a file and what is in it."""
        self._note("create", (name,), (at,), data, sync=sync)
        self._real.create(name, at, data, sync=sync)

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Remember a second name."""
        self._note("link", (src, dst), (src_at, dst_at))
        self._real.link(src, src_at, dst, dst_at)

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Remember a move."""
        self._note("rename", (src, dst), (src_at, dst_at))
        self._real.rename(src, src_at, dst, dst_at)

    def unlink(self, name: str, at: int) -> None:
        """Remember a removal."""
        self._note("unlink", (name,), (at,))
        self._real.unlink(name, at)

    def stat(self, name: str, at: int) -> os.stat_result | None:
        """Remember a look."""
        self._note("stat", (name,), (at,))
        return self._real.stat(name, at)

    def read(self, name: str, at: int, limit: int) -> Found:
        """Remember a file that was read."""
        self._note("read", (name,), (at,))
        return self._real.read(name, at, limit)

    def fsync(self, fd: int) -> None:
        """Remember a folder made durable."""
        if fd in self._folders:
            self._note("fsync", (), (fd,))
        self._real.fsync(fd)

    def _note(
        self, what: str, names: tuple[str, ...], at: tuple[int, ...], data: bytes = b"", *, sync: bool = False
    ) -> None:
        if all(_OURS.match(name) for name in names):
            self.calls.append(Call(what, names, tuple(self._folders[fd] for fd in at), data, sync))


class Tape(NamedTuple):
    """What the bus did in so many cycles: for each, the calls of its three verbs; and the folders used."""

    cycles: list[tuple[list[Call], ...]]
    folders: tuple[str, ...]

    def syncs(self) -> float:
        """Return how many fsyncs a cycle has."""
        calls = [call for cycle in self.cycles for verb in cycle for call in verb]
        return sum(call.sync or call.what == "fsync" for call in calls) / len(self.cycles)

    def calls(self) -> float:
        """Return how many calls a cycle has, those inside a create or a read counted."""
        inside = {"create": 3, "read": 4}
        calls = [call for cycle in self.cycles for verb in cycle for call in verb]
        return sum(inside.get(call.what, 1) + call.sync for call in calls) / len(self.cycles)


def record(root: Path, *, durable: bool) -> Tape:
    """Let the bus work, and write down what it asks of the file system: `BATCH` cycles, one task waiting."""
    with open_bus(root, agent="bench", durability="none") as first:
        first.post(CHANNEL, text(0))
        who, source = first.identity, first.source
    fs, seen = Recorder(), list[tuple[list[Call], ...]]()
    with Bus(FileStore(root, fs=fs, source=source, durable=durable, who=who.holder), who, source) as bus:
        for number in range(2 * BATCH):
            verbs = []
            for step in _steps(bus, number):
                fs.calls = []
                step()
                verbs.append(fs.calls)
            seen.append(tuple(verbs))
    return _tape(seen[BATCH:])


def _steps(bus: Bus, number: int) -> Iterable[Callable[[], object]]:
    def ack() -> None:
        bus.ack(bus.held()[0], RESULT)

    return partial(bus.post, CHANNEL, text(number)), partial(bus.claim, [CHANNEL]), ack


def _tape(seen: list[tuple[list[Call], ...]]) -> Tape:
    """Replace ids by their distance from the cycle's own task: posted in `post`, claimed elsewhere."""
    claimed = [_ID.search(next(call.names[0] for call in cycle[1] if call.what == "rename")) for cycle in seen]
    posted = [_ID.search(cycle[0][0].names[0]) for cycle in seen]
    order = {found[0]: at for at, found in enumerate(claimed) if found}
    cycles, folders = [], set[str]()
    for at, cycle in enumerate(seen):
        verbs = []
        for verb, calls in enumerate(cycle):
            own = {found[0]: at for found in [posted[at]] if found} if verb == 0 else order
            made = [_generic(call, own, at) for call in calls]
            # A sweep, and what was left from before the tape, are no part of a cycle.
            verbs.append([call for call in made if call is not None])
        folders |= {folder for verb_calls in verbs for call in verb_calls for folder in call.folders}
        cycles.append(tuple(verbs))
    return Tape(cycles, tuple(sorted(folders)))


def _generic(call: Call, order: dict[str, int], at: int) -> Call | None:
    names = []
    for name in call.names:
        found = _ID.search(name)
        if found is None:
            names.append(name)
        elif found[0] in order:
            names.append(f"{name[: found.start()]}{{{order[found[0]] - at:+d}}}{name[found.end() :]}")
        else:
            return None
    return call._replace(names=tuple(names))


class Floor(Queue):
    """Plays a tape, as if it were a queue."""

    name: ClassVar[str] = "floor: the bare system calls"

    def __init__(self, root: Path, tape: Tape, counters: dict[str, int]) -> None:
        """Make the folders that the tape uses; who shares the folder shares the counters."""
        super().__init__(root)
        self._tape = tape
        self._at: dict[str, int] = {}
        for folder in tape.folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            self._at[folder] = os.open(root / folder, _FOLDER)
        self._next = counters
        self._ready: list[list[list[Callable[[], object]]]] = []
        self._now: list[list[Callable[[], object]]] = []

    def fill(self, numbers: Iterable[int]) -> None:
        """Post without the tape's fsyncs."""
        for _ in numbers:
            at = self._next["post"]
            self._next["post"] += 1
            for call in self._tape.cycles[at % BATCH][0]:
                if call.what != "fsync":
                    self._bound(call._replace(sync=False), at)()

    def prepare(self, cycles: int) -> None:
        """Bind names and folders, so that nothing is left but to call."""
        self._ready = []
        for ahead in range(cycles):
            post, claim = self._next["post"] + ahead, self._next["claim"] + ahead
            bases = (post, claim, claim)
            verbs = self._tape.cycles[claim % BATCH]
            self._ready.append([[self._bound(c, base) for c in v] for v, base in zip(verbs, bases, strict=True)])
        self._ready.reverse()

    def _bound(self, call: Call, base: int) -> Callable[[], object]:
        names = [re.sub(r"\{([+-]\d+)\}", lambda m: f"req_{max(base + int(m[1]), 0):032x}", n) for n in call.names]
        at = [self._at[folder] for folder in call.folders]
        makers: dict[str, Callable[[], Callable[[], object]]] = {
            "create": lambda: partial(_create, names[0], at[0], call.data, call.sync),
            "read": lambda: partial(_read, names[0], at[0]),
            "stat": lambda: partial(os.stat, names[0], dir_fd=at[0], follow_symlinks=False),
            "fsync": lambda: partial(os.fsync, at[0]),
            "unlink": lambda: partial(os.unlink, names[0], dir_fd=at[0]),
            "link": lambda: partial(os.link, *names, src_dir_fd=at[0], dst_dir_fd=at[1], follow_symlinks=False),
            "rename": lambda: partial(os.rename, *names, src_dir_fd=at[0], dst_dir_fd=at[1]),
        }
        return makers[call.what]()

    def post(self, number: int) -> None:  # noqa: ARG002  a tape has its own
        """Play the calls of a post."""
        self._now = self._ready.pop()
        for call in self._now[0]:
            call()
        self._next["post"] += 1

    def claim(self) -> tuple[int, int]:
        """Play the calls of a claim."""
        for call in self._now[1]:
            call()
        return self._next["claim"], 0

    def ack(self, handle: int) -> None:  # noqa: ARG002  a tape has its own
        """Play the calls of an ack."""
        for call in self._now[2]:
            call()
        self._next["claim"] += 1

    def waiting(self) -> int:
        """Count what lies where tasks wait."""
        return len(os.listdir(self._at[f"channels/{CHANNEL}/requests"]))  # noqa: PTH208  an open folder has no path

    def close(self) -> None:
        """Close the folders."""
        for fd in self._at.values():
            os.close(fd)


class DurableFloor(Floor):
    """The same, with the fsyncs."""

    name: ClassVar[str] = "floor: the same, with its fsyncs"
    is_durable: ClassVar[bool] = True


def _create(name: str, at: int, data: bytes, sync: bool) -> None:  # noqa: FBT001  bound by position
    fd = os.open(name, _NEW, PRIVATE.file, dir_fd=at)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


def _read(name: str, at: int) -> None:
    fd = os.open(name, _READ, dir_fd=at)
    size = os.fstat(fd).st_size
    os.read(fd, size + 1)
    os.close(fd)
