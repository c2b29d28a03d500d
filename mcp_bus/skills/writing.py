"""Writing a skill on this host: file by file, each whole or not at all, inside its folder and through no link.

What is in the folder and not shared (caches, logs, secrets) stays.  `SKILL.md`, by which clients find a skill, comes
last; a skill that is new appears at once.  Who is killed in between has a part of each version, and goes on next time.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import CorruptRecord
from mcp_bus.identity import process
from mcp_bus.skills.decide import Blob
from mcp_bus.skills.filters import DRAFT, MAX_FILE, SKILL, Unfit
from mcp_bus.skills.here import oid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mcp_bus.skills.decide import Files
    from mcp_bus.skills.here import Skill
    from mcp_bus.stores.fsops import Fs


class Changed(Exception):
    """A file is not what it was when it was looked at; it stays as it is."""


class Wanted(NamedTuple):
    """A skill as it is to be: its files, and their bytes."""

    files: Files
    data: Mapping[str, bytes]


class Writer:
    """Writes skills, and keeps what it takes away."""

    def __init__(self, fs: Fs, kept: Path, stamp: str) -> None:
        """Keep what is taken away in the folder `kept`, made if it is missing, under names that end in `stamp`."""
        self._fs, self._kept, self._stamp = fs, kept, stamp

    def take(self, source: Path, name: str, wanted: Wanted, mine: Files) -> None:
        """Make a skill what it is to be.

        Args:
            source: the folder of skills that it is in, or is to be.
            mine: what is there now; empty for nothing.

        Raises:
            Changed: a file is another one than in `mine`; what was written until then stays.
            OSError: something is in the way, or the disk fails; the same.
        """
        with self._fs.folder(source) as at:
            self._tidy(at)
            if mine:
                self._change(at, name, wanted, mine)
            else:
                self._make(at, name, wanted)
            self._fs.fsync(at)

    def _make(self, at: int, name: str, wanted: Wanted) -> None:
        draft = _draft()
        self._fs.mkdir(draft, at)
        try:
            self._change(at, draft, wanted, {})
            self._fs.rename(draft, at, name, at)  # Fails if anything but an empty folder has come there.
        except BaseException:
            with suppress(OSError):
                self._fs.rmtree(draft, at)
            raise

    def _change(self, at: int, name: str, wanted: Wanted, mine: Files) -> None:
        with self._opened(at, name) as top:
            for path in sorted(mine.keys() - wanted.files.keys(), reverse=True):
                self._drop(top, path, mine[path])
            changed = [path for path, blob in wanted.files.items() if mine.get(path) != blob]
            for path in sorted(changed, key=lambda path: (path == SKILL, path)):
                self._put(top, path, wanted, mine.get(path))

    def _put(self, top: int, path: str, wanted: Wanted, was: Blob | None) -> None:
        *above, name = path.split("/")
        with self._walk(top, above, make=True) as at:
            self._tidy(at)
            about, draft = self._fs.stat(name, at), _draft()
            self._fs.create(draft, at, wanted.data[path], sync=True)
            try:
                held = self._fs.hold(draft, at)
                mode = (about.st_mode & 0o666) | 0o600 if about is not None else 0o600
                try:
                    self._fs.chmod(held, mode | ((mode & 0o444) >> 2) if wanted.files[path].is_executable else mode)
                finally:
                    self._fs.close(held)
                self._check(name, at, was)  # As late as can be: people type while this is written.
                self._fs.rename(draft, at, name, at)
            except BaseException:
                with suppress(OSError):
                    self._fs.unlink(draft, at)
                raise
            self._fs.fsync(at)

    def _check(self, name: str, at: int, was: Blob | None) -> None:
        """Look whether a file is what it was; a folder is none, and in the way of what comes.

        Raises:
            Changed: it is not.
        """
        about = self._fs.stat(name, at)
        if about is not None and stat.S_ISDIR(about.st_mode):
            return
        now = None
        with suppress(FileNotFoundError, CorruptRecord):
            data = self._fs.read(name, at, MAX_FILE).data
            algorithm = "sha256" if was is not None and len(was.oid) == 64 else "sha1"
            now = Blob(oid(data, algorithm), about is not None and bool(about.st_mode & stat.S_IXUSR))
        if now != was or (now is None and about is not None):
            msg = f"{name!r} was changed here meanwhile"
            raise Changed(msg)

    def _drop(self, top: int, path: str, was: Blob) -> None:
        """Remove a file, and the folders that were there for it alone."""
        *above, name = path.split("/")
        with suppress(FileNotFoundError), self._walk(top, above) as at:
            self._check(name, at, was)
            self._fs.unlink(name, at)
        while above:
            *above, name = above
            try:
                with self._walk(top, above) as at:
                    self._fs.rmdir(name, at)
            except OSError:
                return

    def remove(self, source: Path, name: str) -> Path:
        """Move a skill, with all that is in its folder, to where what is taken away is kept; return that place.

        Raises:
            Unfit: it cannot be moved there; it stays.
        """
        place = self._kept / f"{name}-{self._stamp}"
        with self._fs.folder(source) as at, self._fs.folder(self._kept) as kept:
            number = 1
            while self._fs.stat(place.name, kept) is not None:  # One of another folder of skills.
                number += 1
                place = self._kept / f"{name}-{self._stamp}-{number}"
            try:
                self._fs.rename(name, at, place.name, kept)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                msg = f"removed in the repository, and on another file system than {str(self._kept)!r}: remove it here"
                raise Unfit(msg) from None
            self._fs.fsync(kept)
            self._fs.fsync(at)
        return place

    def keep(self, skill: Skill) -> Path:
        """Keep a copy of what is shared of a skill; return its place."""
        whole = Wanted(skill.files, skill.data)
        name, number = f"{skill.name}-{self._stamp}", 1
        while (self._kept / name).exists():
            number += 1
            name = f"{skill.name}-{self._stamp}-{number}"
        self.take(self._kept, name, whole, {})
        return self._kept / name

    # --- folders ------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, at: int, name: str) -> Iterator[int]:
        inner = self._fs.open_dir(name, at)
        try:
            yield inner
        finally:
            self._fs.close_dir(inner)

    @contextmanager
    def _walk(self, top: int, parts: Iterable[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder below another one, step by step and through no link."""
        fds = [top]
        try:
            for part in parts:
                if make and self._fs.stat(part, fds[-1]) is None:
                    self._fs.mkdir(part, fds[-1])
                fds.append(self._fs.open_dir(part, fds[-1]))
            yield fds[-1]
        finally:
            for fd in fds[1:]:
                self._fs.close_dir(fd)

    def _tidy(self, at: int) -> None:
        """Remove drafts whose processes are gone."""
        for name in self._fs.names(at):
            pid = name.removeprefix(DRAFT).partition("-")[0]
            about = self._fs.stat(name, at) if name.startswith(DRAFT) else None
            if about is None or (pid.isdecimal() and process.is_running(int(pid[:10]), 0)):
                continue
            with suppress(FileNotFoundError):
                (self._fs.rmtree if stat.S_ISDIR(about.st_mode) else self._fs.unlink)(name, at)


def _draft() -> str:
    return f"{DRAFT}{os.getpid()}-{os.urandom(4).hex()}"
