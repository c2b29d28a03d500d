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

from mcp_bus.identity import process
from mcp_bus.skills.filters import DRAFT, SKILL, Unfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mcp_bus.skills.decide import Files
    from mcp_bus.skills.here import Skill
    from mcp_bus.stores.fsops import Fs


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
            OSError: something is in the way, or the disk fails; what was written until then stays.
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
                self._drop(top, path)
            changed = [path for path, blob in wanted.files.items() if mine.get(path) != blob]
            for path in sorted(changed, key=lambda path: (path == SKILL, path)):
                self._put(top, path, wanted)

    def _put(self, top: int, path: str, wanted: Wanted) -> None:
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
                self._fs.rename(draft, at, name, at)
            except BaseException:
                with suppress(OSError):
                    self._fs.unlink(draft, at)
                raise
            self._fs.fsync(at)

    def _drop(self, top: int, path: str) -> None:
        """Remove a file, and the folders that were there for it alone."""
        *above, name = path.split("/")
        with suppress(FileNotFoundError), self._walk(top, above) as at:
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
