"""A commit's tree in memory, and what was changed of it since.

Two names that lead to the same bytes are two names of one file, as links are on a disk: git keeps a file's bytes once,
and so it was when they were pushed.
"""

from __future__ import annotations

import hashlib
import stat
from itertools import count
from typing import TYPE_CHECKING

from mcp_bus.stores.git.stream import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Git has no empty folders: this name keeps one, and nobody who lists a folder is shown it.
KEEP = ".gitkeep"
# What was pushed is whole, and nobody is still writing it.
SETTLED_MS = 60_000
# What only this host's processes need: never in a commit.
LOCAL = frozenset({"boots", "journal", "logs", "manifest.json", "outputs", "pipes", "runs", "staged", "tmp"})
_REGULAR = ("100644", "100664", "100755")
_NUMBERS = count(2)


class File:
    """A file: its bytes, once they were read, and how many names it has."""

    __slots__ = ("at", "data", "ino", "mode", "names", "oid")

    def __init__(self, data: bytes | None, oid: str, mode: int, at: int) -> None:
        """Begin without a name."""
        self.data, self.oid, self.mode, self.at = data, oid, mode, at
        self.names, self.ino = 0, next(_NUMBERS)


class Folder:
    """A folder: what is in it, by name."""

    __slots__ = ("at", "entries", "ino", "is_gone", "path")

    def __init__(self, path: str, at: int) -> None:
        """Begin empty."""
        self.entries: dict[str, File | Folder] = {}
        self.path, self.at, self.is_gone, self.ino = path, at, False, next(_NUMBERS)


class Nodes:
    """All that is in a tree, by name, and what was changed since it was loaded."""

    def __init__(self, read: Callable[[str, int], bytes], now: Callable[[], int]) -> None:
        """Begin with an empty tree.

        Args:
            read: returns the bytes of an object, of which there may be so many; 0: any number.
            now: the time, in milliseconds.
        """
        self._read = read
        self._now = now
        self._known: dict[str, File] = {}
        # Files that lost a name, since that was last looked at.
        self._left = list[File]()
        # Paths that were changed, and what was there before.
        self._before: dict[str, File | None] = {}
        # How many names were changed, for who wants to know whether something was.
        self.moves = 0
        self.root = Folder("", now())
        for name in ("journal", "staged", "tmp"):  # Of this process alone, and as good as in the tree.
            self.root.entries[name] = Folder(name, now())

    def load(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """Take over what a commit has, or what differs in it: mode, object and path; mode `000000` removes."""
        at = self._now() - SETTLED_MS
        for mode, oid, path in entries:
            if path.partition("/")[0] in LOCAL:
                continue  # Somebody else's doing: it would be in the way of what is kept here.
            if mode == "000000":
                self._unset(path)
            else:
                self._set(path, self._file(mode, oid, at), at)
        self._before.clear()
        self._forget()

    def _forget(self) -> None:
        """Let go of files that have no name any more: what has a commit's bytes can be read again."""
        for file in self._left:
            if not file.names and self._known.get(file.oid) is file:
                del self._known[file.oid]
        self._left.clear()

    def _file(self, mode: str, oid: str, at: int) -> File:
        if mode not in _REGULAR:  # A link or a submodule: seen, as something that is no file, and never followed.
            return File(b"", oid, stat.S_IFLNK | 0o777, at)
        known = self._known.get(oid)
        if known is None:
            known = self._known[oid] = File(None, oid, stat.S_IFREG | 0o600, at)
        return known

    def changes(self) -> list[Change]:
        """Return what was changed, for a commit."""
        made = list[Change]()
        for path, before in sorted(self._before.items()):
            now = self._at(path)
            if path.partition("/")[0] in LOCAL or now is before or isinstance(now, Folder):
                continue
            if now is None:
                made.append(Change(path, None))
            elif before is None or now.oid != before.oid or not now.oid:
                is_there = bool(now.oid) and stat.S_ISREG(now.mode)  # Then nobody has to read it.
                made.append(Change(path, None, oid=now.oid) if is_there else Change(path, self.data(now)))
        return made

    def settle(self, algorithm: str) -> None:
        """Take what was changed for what is committed."""
        for path in self._before:
            file = self._at(path)
            if isinstance(file, File) and not file.oid and file.data is not None:
                file.oid = hashlib.new(algorithm, b"blob %d\0" % len(file.data) + file.data).hexdigest()
                self._known.setdefault(file.oid, file)
        self._left += [file for file in self._before.values() if file is not None]
        self._before.clear()
        self._forget()

    def undo(self) -> None:
        """Take back what was changed."""
        for path, file in self._before.items():
            if path.partition("/")[0] in LOCAL:
                continue
            if file is None:
                self._unset(path)
            else:
                self._set(path, file, file.at)
        self._before.clear()

    def _at(self, path: str) -> File | Folder | None:
        found: File | Folder | None = self.root
        for part in path.split("/"):
            found = found.entries.get(part) if isinstance(found, Folder) else None
        return found

    def _set(self, path: str, file: File, at: int) -> None:
        *above, name = path.split("/")
        folder = self.root
        for part in above:
            inner = folder.entries.get(part)
            if not isinstance(inner, Folder):  # A file that became a folder.
                if inner is not None:
                    inner.names -= 1
                    self._left.append(inner)
                inner = folder.entries[part] = Folder(f"{folder.path}/{part}".lstrip("/"), at)
            folder = inner
        old = folder.entries.get(name)
        if isinstance(old, File):
            old.names -= 1
            self._left.append(old)
        folder.entries[name] = file
        file.names += 1

    def _unset(self, path: str) -> None:
        """Remove a file, and the folders that were there for it alone."""
        *above, name = path.split("/")
        trail, folder = list[tuple[Folder, str]](), self.root
        for part in above:
            inner = folder.entries.get(part)
            if not isinstance(inner, Folder):
                return
            trail.append((folder, part))
            folder = inner
        old = folder.entries.get(name)
        if not isinstance(old, File):
            return
        old.names -= 1
        self._left.append(old)
        del folder.entries[name]
        for outer, part in reversed(trail):
            inner = outer.entries[part]
            if not isinstance(inner, Folder) or inner.entries:
                break
            inner.is_gone = True
            del outer.entries[part]

    def data(self, file: File, limit: int = 0) -> bytes:
        """Return a file's bytes; read once.

        Raises:
            CorruptRecord: they were not read before, and are more than `limit`, if there is one.
        """
        if file.data is None:
            file.data = self._read(file.oid, limit)
        return file.data

    def mark(self, folder: Folder, name: str) -> None:
        """Note what has a name before it is changed."""
        path = f"{folder.path}/{name}".lstrip("/")
        self.moves += path.partition("/")[0] not in LOCAL
        if path not in self._before:
            found = folder.entries.get(name)
            self._before[path] = found if isinstance(found, File) else None
