"""A bus as files that are nowhere but in a commit's tree, and what was done to them since.

A `FileStore` works on it as on a disk, by the same calls in the same order.  A folder is there while something is in
it: git has none that are empty, so one that is made begins with a file that nobody is shown.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.fsops import Found, Fs
from mcp_bus.stores.git.nodes import KEEP, File, Folder, Nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mcp_bus.stores.git.stream import Change

_ME = os.geteuid() if hasattr(os, "geteuid") else 0


class TreeFs(Fs):
    """What a `FileStore` asks of a medium, answered from a tree."""

    def __init__(self, read: Callable[[str, int], bytes], now: Callable[[], int]) -> None:
        """Begin with an empty tree.

        Args:
            read: returns the bytes of an object, of which there may be so many; 0: any number.
            now: the time, in milliseconds.
        """
        self._now = now
        self._nodes = Nodes(read, now)
        self._fds: dict[int, Folder] = {}
        self._files: dict[int, tuple[File, str]] = {}
        self._next = count(1_000_000)

    def load(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """See `Nodes.load`."""
        self._nodes.load(entries)

    def changes(self) -> list[Change]:
        """See `Nodes.changes`."""
        return self._nodes.changes()

    @property
    def moves(self) -> int:
        """See `Nodes.moves`."""
        return self._nodes.moves

    def settle(self, algorithm: str) -> None:
        """See `Nodes.settle`."""
        self._nodes.settle(algorithm)

    def undo(self) -> None:
        """See `Nodes.undo`."""
        self._nodes.undo()

    # --- names --------------------------------------------------------------------------------------

    def _folder(self, at: int) -> Folder:
        folder = self._fds.get(at)
        if folder is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return folder

    def _look(self, name: str, at: int) -> File | Folder:
        found = self._folder(at).entries.get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found

    def _put(self, name: str, at: int, file: File) -> None:
        folder = self._folder(at)
        if folder.is_gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        self._nodes.mark(folder, name)
        folder.entries[name] = file
        folder.at = self._now()
        file.names += 1

    def _take(self, name: str, at: int) -> File:
        folder, found = self._folder(at), self._look(name, at)
        if isinstance(found, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        self._nodes.mark(folder, name)
        del folder.entries[name]
        folder.at = self._now()
        found.names -= 1
        return found

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """See `Fs.link`."""
        found = self._look(src, src_at)
        if isinstance(found, Folder):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), src)
        if dst in self._folder(dst_at).entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), src, None, dst)
        self._put(dst, dst_at, found)

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """See `Fs.rename`."""
        found, there = self._look(src, src_at), self._folder(dst_at).entries.get(dst)
        if found is there:
            return
        if isinstance(found, Folder):
            self._move(found, src, src_at, dst, dst_at)
            return
        if isinstance(there, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), src, None, dst)
        if there is not None:
            self._take(dst, dst_at)
        self._put(dst, dst_at, self._take(src, src_at))

    def _move(self, found: Folder, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Move a folder, file by file: what is put aside may be one."""
        self.mkdir(dst, dst_at)
        from_at, to_at = self.open_dir(src, src_at), self.open_dir(dst, dst_at)
        for name in list(found.entries):
            self.rename(name, from_at, name, to_at)
        self.rmdir(src, src_at)
        self.close_dir(from_at)
        self.close_dir(to_at)

    def unlink(self, name: str, at: int) -> None:
        """See `Fs.unlink`."""
        self._take(name, at)

    def touch(self, name: str, at: int, now: int) -> None:
        """See `Fs.touch`; known to this process alone."""
        found = self._look(name, at)
        if isinstance(found, File):
            found.at = now

    def names(self, fd: int) -> list[str]:
        """See `Fs.names`."""
        return [name for name in self._folder(fd).entries if name != KEEP]

    def stat(self, name: str, at: int) -> os.stat_result | None:
        """See `Fs.stat`."""
        folder = self._folder(at)
        found = folder if name == "." else folder.entries.get(name)
        return None if found is None else self._about(found)

    def _about(self, found: File | Folder) -> os.stat_result:
        if isinstance(found, Folder):
            mode, names, size = stat.S_IFDIR | 0o700, 0 if found.is_gone else 2, 0
        else:
            mode, names, size = found.mode, found.names, len(found.data or b"")
        times = {
            f"st_{which}time{unit}": found.at * 10**6 if unit else found.at / 1000
            for which in "amc"
            for unit in ("", "_ns")
        }
        whole = found.at // 1000
        return os.stat_result((mode, found.ino, 0, names, _ME, 0, size, whole, whole, whole), times)

    # --- files --------------------------------------------------------------------------------------

    def read(self, name: str, at: int, limit: int) -> Found:
        """See `Fs.read`."""
        found = self._look(name, at)
        if isinstance(found, Folder) or not stat.S_ISREG(found.mode):
            what = f"{name!r} is not a regular file"
            raise CorruptRecord(what)
        try:
            data = self._nodes.data(found, limit)
        except CorruptRecord as error:
            what = f"{name!r}: {error}"
            raise CorruptRecord(what) from None
        if len(data) > limit:
            what = f"{name!r} has {len(data)} bytes, the limit is {limit}"
            raise CorruptRecord(what)
        return Found(data, found.ino, found.names)

    def create(self, name: str, at: int, data: bytes, *, sync: bool) -> None:
        """See `Fs.create`."""
        del sync  # What counts is what the remote has.
        if name in self._folder(at).entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        self._put(name, at, File(data, "", stat.S_IFREG | 0o600, self._now()))

    def append(self, name: str, at: int, data: bytes, *, sync: bool = False) -> None:
        """See `Fs.append`."""
        there = self._folder(at).entries.get(name)
        if there is None:
            self.create(name, at, data, sync=sync)
            return
        if isinstance(there, Folder) or not stat.S_ISREG(there.mode):
            what = f"{name!r} is not a file with this name alone, and nothing is appended to it"
            raise CorruptRecord(what)
        whole = self._nodes.data(self._take(name, at)) + data
        self.create(name, at, whole, sync=sync)

    def open_new(self, name: str, at: int) -> int:
        """See `Fs.open_new`."""
        self.create(name, at, b"", sync=False)
        return self._open(name, at)

    def open_append(self, name: str, at: int) -> int:
        """See `Fs.open_append`."""
        self.append(name, at, b"")
        return self._open(name, at)

    def _open(self, name: str, at: int) -> int:
        found, fd = self._look(name, at), next(self._next)
        assert isinstance(found, File)
        self._files[fd] = (found, name)
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """See `Fs.write`."""
        file, _ = self._files[fd]
        file.data, file.oid = self._nodes.data(file) + bytes(data), ""
        return len(data)

    def close(self, fd: int) -> None:
        """See `Fs.close`."""
        self._files.pop(fd, None)

    # --- folders ------------------------------------------------------------------------------------

    def mkdir(self, name: str, at: int) -> None:
        """See `Fs.mkdir`."""
        folder = self._folder(at)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        inner = folder.entries[name] = Folder(f"{folder.path}/{name}".lstrip("/"), self._now())
        opened = self.open_dir(name, at)
        self.create(KEEP, opened, b"", sync=False)
        self.close_dir(opened)
        folder.at = inner.at

    def rmdir(self, name: str, at: int) -> None:
        """See `Fs.rmdir`."""
        found = self._look(name, at)
        if not isinstance(found, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        if found.entries.keys() - {KEEP}:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        if KEEP in found.entries:
            opened = self.open_dir(name, at)
            self.unlink(KEEP, opened)
            self.close_dir(opened)
        found.is_gone = True
        del self._folder(at).entries[name]

    def rmtree(self, name: str, at: int) -> None:
        """See `Fs.rmtree`."""
        opened = self.open_dir(name, at)
        for inner, found in list(self._fds[opened].entries.items()):
            if isinstance(found, Folder):
                self.rmtree(inner, opened)
            else:
                self.unlink(inner, opened)
        self.close_dir(opened)
        self.rmdir(name, at)

    def open_dir(self, name: str, at: int | None) -> int:
        """See `Fs.open_dir`."""
        found = self._nodes.root if at is None else self._look(name, at)
        if not isinstance(found, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        fd = next(self._next)
        self._fds[fd] = found
        return fd

    def close_dir(self, at: int) -> None:
        """See `Fs.close_dir`."""
        self._fds.pop(at, None)

    def fstat(self, fd: int) -> os.stat_result:
        """See `Fs.fstat`."""
        return self._about(self._folder(fd))

    def may_write(self, at: int) -> bool:
        """See `Fs.may_write`: it is the remote that lets somebody write, or does not."""
        del at
        return True

    def leads_to(self, path: Path, at: int) -> bool:
        """See `Fs.leads_to`: there is one tree."""
        del path
        return self._folder(at) is self._nodes.root

    def fsync(self, fd: int) -> None:
        """See `Fs.fsync`: the push is what makes anything last."""

    def sync(self) -> None:
        """See `Fs.sync`."""

    def sync_name(self, name: str, at: int) -> None:
        """See `Fs.sync_name`."""

    def fit(self, fd: int) -> None:
        """See `Fs.fit`: a tree has no owners."""
