"""The private folder: what this user's programs keep beside no bus, and believe only if nobody else could write it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.errors import ADVICE, CorruptRecord, StoreUnavailable, Untrusted
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_FILE = 16_384
_READ = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_ME = os.geteuid() if hasattr(os, "geteuid") else -1


class Vault:
    """A folder of small JSON documents, each a fact of its own, so that no writer undoes another.

    Every method raises `Untrusted` when something in it belongs to somebody else, may be read or written by
    others, or is not what belongs there; and `StoreUnavailable` when the disk fails.
    """

    def __init__(self, root: Path) -> None:
        """Keep documents below `root`, which need not be there yet."""
        self.root = root
        self._fs = Fs()

    def read(self, folder: str, name: str) -> dict[str, Any] | None:
        """Return a document, or None if there is none."""
        with self._at(folder) as at:
            if at is None:
                return None
            try:
                fd = os.open(name, _READ, dir_fd=at)
            except FileNotFoundError:
                return None
            try:
                self._check(os.fstat(fd), f"{folder}/{name}", stat.S_ISREG, 0o077)
                data = os.read(fd, MAX_FILE + 1)
            finally:
                os.close(fd)
        try:
            return wire.loads(data[: MAX_FILE + 1] if len(data) <= MAX_FILE else b"")
        except CorruptRecord as error:
            path = f"{folder}/{name}"
            raise self._wrong(path, f"is damaged: {error}") from None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; none if it is missing."""
        with self._at(folder) as at:
            return sorted(name for name in self._fs.names(at) if not name.endswith(".new")) if at is not None else []

    def has(self, folder: str, name: str = "") -> bool:
        """Tell whether something has a name."""
        with self._at(folder) as at:
            return at is not None and (not name or self._fs.stat(name, at) is not None)

    def write(self, folder: str, name: str, data: Mapping[str, Any], *, is_new: bool = False) -> bool:
        """Write a document, whole or not at all, and durably; False if it is to be new and is not."""
        draft = f".{name}.{os.getpid()}.new"
        with self._at(folder, make=True) as at:
            assert at is not None
            with suppress(FileNotFoundError):
                self._fs.unlink(draft, at)  # Left by a process of that number that was killed here.
            self._fs.create(draft, at, wire.dumps(dict(data)), sync=True)
            if not is_new:
                self._fs.rename(draft, at, name, at)
            else:
                try:
                    self._fs.link(draft, at, name, at)
                except FileExistsError:
                    return False
                finally:
                    self._fs.unlink(draft, at)
            self._fs.fsync(at)
        return True

    def mark(self, folder: str, name: str) -> None:
        """Note a name; whether a power cut takes it back is left open."""
        with self._at(folder, make=True) as at, suppress(FileExistsError):
            assert at is not None
            self._fs.close(self._fs.open_new(name, at))

    def remove(self, folder: str, name: str) -> None:
        """Remove a document or a folder, if it is there."""
        with self._at(folder) as at:
            about = None if at is None else self._fs.stat(name, at)
            if at is None or about is None:
                return
            if stat.S_ISDIR(about.st_mode):
                self._fs.rmtree(name, at)
            else:
                self._fs.unlink(name, at)

    @contextmanager
    def _at(self, folder: str, *, make: bool = False) -> Iterator[int | None]:
        """Open a folder, step by step from the root; None if it is missing."""
        fds = list[int]()
        try:
            yield self._walk(folder, fds, make=make)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise self._wrong(folder, "is a link, or not what belongs there") from None
            msg = f"the private folder {str(self.root)!r} cannot be used: {error.strerror}"
            hint = ADVICE.get(error.errno or 0, "look at that, then repeat the call")
            raise StoreUnavailable(msg, hint=hint) from error
        finally:
            for fd in fds:
                os.close(fd)

    def _walk(self, folder: str, fds: list[int], *, make: bool) -> int | None:
        if make:
            with self._fs.folder(self.root):
                pass
        for part in (str(self.root), *folder.split("/")):
            above = fds[-1] if fds else None
            try:
                fds.append(self._fs.open_dir(part, above))
            except FileNotFoundError:
                if not make or above is None:
                    return None
                with suppress(FileExistsError):
                    self._fs.mkdir(part, above)
                self._fs.fsync(above)
                fds.append(self._fs.open_dir(part, above))
            self._check(os.fstat(fds[-1]), part if above is None else folder, stat.S_ISDIR, 0o022)
        return fds[-1]

    def _check(self, about: os.stat_result, name: str, is_kind: Any, others: int) -> None:  # noqa: ANN401  of `stat`
        if not is_kind(about.st_mode):
            raise self._wrong(name, "is not what belongs there")
        if about.st_uid != _ME and _ME >= 0:
            raise self._wrong(name, f"belongs to user {about.st_uid}")
        if about.st_mode & others:
            import shlex  # noqa: PLC0415  nearly no process gets here

            msg = f"{str(self.root / name)!r} has mode {stat.S_IMODE(about.st_mode):o}: others may get at it"
            mend = f"`chmod -R go= {shlex.quote(str(self.root))}`"
            raise Untrusted(msg, hint=f"find out who did that; then {mend}, and make keys anew that others have read")

    def _wrong(self, name: str, why: str) -> Untrusted:
        msg = f"{str(self.root / name)!r} {why}"
        return Untrusted(msg, hint="find out who did that; then remove it, and make its key anew or trust it again")
