"""What a disk may look like after the power failed: computed from a recorded trace of system calls.

Two models of a file system, for a cut after any call:

journalled   names change in the order they were changed in, and any tail may be missing that no
             fsync came after (ext4, XFS: an fsync of anything commits what came before it)
pessimistic  each change of names since the last fsync of one of its folders may be missing or
             there, whatever became of the others; only a change of a name that an earlier change
             made needs that one, and a rename is never half there (POSIX leaves even less out)

In both the content of a file is certain only once the file was synced; the pessimistic one loses it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import chain, product
from typing import TYPE_CHECKING

from tests.tally import DISKS, tried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.crash.victim import Op

NAMING = frozenset({"create", "append", "link", "rename", "unlink", "mkdir", "rmdir"})
# Derived, or for people: nothing reads them back to decide.
IGNORED = ("journal", "boots", "manifest.json")
ALL_OF = 2**9


def folder(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass
class Disk:
    """Names and contents; two names of one inode share its number."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})

    @classmethod
    def of(cls, root: Path) -> Disk:
        """Read a directory."""
        made = cls()
        for path in root.rglob("*"):
            where, about = path.relative_to(root), path.stat()
            if where.parts[0] in IGNORED:
                continue
            if path.is_dir():
                made.folders.add(str(where))
            else:
                made.names[str(where)] = about.st_ino
                made.contents[about.st_ino] = path.read_bytes()
        return made

    def copy(self) -> Disk:
        return Disk(dict(self.names), dict(self.contents), set(self.folders))

    def key(self) -> object:
        """Return a value that is equal for equal disks, but for how inodes are numbered."""
        byte = {inode: min(p for p, i in self.names.items() if i == inode) for inode in set(self.names.values())}
        return (
            tuple(sorted((path, byte[inode], self.contents[inode]) for path, inode in self.names.items())),
            tuple(sorted(self.folders)),
        )

    def apply(self, number: int, op: Op) -> None:
        """Change names as one call did; what is missing for it is left out."""
        if op.call in {"create", "append"} and op.path not in self.names:
            # Inodes of the trace have negative numbers, by the call that made them.
            self.names[op.path] = -1 - number
            self.contents.setdefault(-1 - number, b"")
        elif op.call in {"link", "rename"} and op.path in self.names:
            self.names[op.to] = self.names[op.path]
            if op.call == "rename" and op.path != op.to:
                del self.names[op.path]
        elif op.call == "unlink":
            self.names.pop(op.path, None)
        elif op.call == "mkdir":
            self.folders.add(op.path)
        elif op.call == "rmdir":
            self.folders.discard(op.path)

    def write_to(self, root: Path) -> Path:
        """Make a directory of it."""
        tried(DISKS)
        for path in sorted(self.folders):
            (root / path).mkdir(parents=True, exist_ok=True)
        made: dict[int, Path] = {}
        for path, inode in self.names.items():
            if folder(path) not in self.folders:
                continue  # The folder was lost with all that was in it.
            if inode in made:
                (root / path).hardlink_to(made[inode])
            else:
                (root / path).write_bytes(self.contents[inode])
                made[inode] = root / path
        return root


class Trace:
    """The calls between a durable start and a cut, as far as they can be lost."""

    def __init__(self, start: Disk, ops: Sequence[Op]) -> None:
        self._start = start
        self.ops = [op if op.path.split("/")[0] not in IGNORED else op._replace(call="-") for op in ops]
        self._inodes, self._written = self._contents()

    def _contents(self) -> tuple[dict[int, int], list[tuple[int, int, bytes, bool]]]:
        """Return the inode each naming call is about, and each write: call, inode, bytes, whether it is a sync."""
        now, about, written = self._start.copy(), dict[int, int](), list[tuple[int, int, bytes, bool]]()
        for number, op in enumerate(self.ops):
            if op.call in {"link", "rename"}:
                about[number] = now.names[op.path]
            if op.call in {"write", "fsync"} and op.path in now.names:
                written.append((number, now.names[op.path], op.data, op.call == "fsync"))
            if op.call in NAMING:
                now.apply(number, op)
            if op.call in {"create", "append"}:
                about[number] = now.names[op.path]
        return about, written

    def _disk(self, kept: Iterable[int], cut: int, *, unsynced: bool) -> Disk:
        """Return the disk with some changes of names, and contents up to a cut."""
        disk = self._start.copy()
        for number in sorted(kept):
            op = self.ops[number]
            if op.call in {"link", "rename"}:
                # The inode has this name now, even if the change that gave it an earlier one was lost.
                disk.names[op.to] = self._inodes[number]
                disk.contents.setdefault(self._inodes[number], b"")
                if op.call == "rename" and op.path != op.to:
                    disk.names.pop(op.path, None)
            else:
                disk.apply(number, op)
        ends = {inode: number for number, inode, _, is_sync in self._written if is_sync and number < cut}
        for number, inode, data, is_sync in self._written:
            if not is_sync and number < (cut if unsynced else ends.get(inode, 0)):
                disk.contents[inode] = disk.contents.get(inode, b"") + data
        return disk

    def _naming(self, cut: int) -> list[int]:
        return [number for number in range(cut) if self.ops[number].call in NAMING]

    def last_sync(self, cut: int) -> int:
        """Return how many calls a cut after `cut` calls cannot undo in a journalled file system."""
        return max((n + 1 for n in range(cut) if self.ops[n].call == "fsync"), default=0)

    def journalled(self) -> Iterator[tuple[int, Disk]]:
        """Give each prefix, with the contents that were not synced and without."""
        for kept in range(len(self.ops) + 1):
            for unsynced in (True, False):
                yield kept, self._disk(self._naming(kept), kept, unsynced=unsynced)

    def pessimistic(self, *, limit: int = ALL_OF, cuts: Sequence[int] = ()) -> Iterator[tuple[int, Disk]]:
        """Give each disk that a cut after each call may leave; a random selection where they are too many."""
        chance = random.Random(7)  # noqa: S311  repeatable, not secret
        for cut in cuts or range(len(self.ops) + 1):
            durable = self._durable(cut)
            open_ = [number for number in self._naming(cut) if number not in durable]
            choices: Iterable[tuple[bool, ...]] = product((False, True), repeat=len(open_))
            if 2 ** len(open_) > limit:
                choices = (tuple(chance.random() < 0.5 for _ in open_) for _ in range(limit))
            seen = set()
            for choice in choices:
                kept = self._closed(durable | {number for number, yes in zip(open_, choice, strict=True) if yes})
                if kept not in seen:
                    seen.add(kept)
                    yield cut, self._disk(kept, cut, unsynced=False)

    def _durable(self, cut: int) -> frozenset[int]:
        synced = {op.path: n for n, op in enumerate(self.ops[:cut]) if op.call == "fsync"}
        made = {n for n in self._naming(cut) if any(synced.get(folder(p), -1) > n for p in self._paths(n))}
        return frozenset(chain(made, *(self._needs(number) for number in made)))

    def _paths(self, number: int) -> list[str]:
        op = self.ops[number]
        return [op.path, op.to] if op.call == "rename" else [op.to or op.path]

    def _needs(self, number: int) -> set[int]:
        """Return the earlier changes of the same names, and what those need."""
        found, paths = set[int](), set(self._paths(number))
        for earlier in reversed(self._naming(number)):
            if paths & set(self._paths(earlier)):
                found.add(earlier)
                paths |= set(self._paths(earlier))
        return found

    def _closed(self, kept: frozenset[int]) -> frozenset[int]:
        """Leave out changes that need one which is missing."""
        return frozenset(number for number in kept if self._needs(number) <= kept)
