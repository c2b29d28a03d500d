"""Every system call that changes a bus, and the careful way to read from one.

`Fs` is the seam: tests record its calls, make them fail, or kill the process at one of them.
Everything is relative to an open directory (`at`), never to a path that someone could swap for a
symlink in between.
"""

import contextlib
import errno
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import CorruptRecord, Unreadable
from mcp_bus.stores import acls
from mcp_bus.stores.modes import PRIVATE, Modes, is_mine, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # there is no such module there, and no F_FULLFSYNC

# O_NONBLOCK so that a FIFO someone left in a folder cannot hang who reads, or appends.
_QUIET = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_READ = os.O_RDONLY | os.O_CLOEXEC | _QUIET
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | _QUIET
_DIR = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# What holds a thing without opening it; elsewhere it is opened, if that can be.
_PATH: int = getattr(os, "O_PATH", 0)
_HOLD = (_PATH or _READ) | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
# On macOS fsync stops at the drive's cache.  Not run there.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)

LET_IN = "it is left where it is; `mcp-bus fsck` lists all such files, and --repair mends those that you own"


def quoted(name: object) -> str:
    """Return a file's name, quoted, as people may see it: that of a claim has the token in it, its holder's secret."""
    return repr(re.sub(r"\.[0-9a-f]{4,32}(?=(\.[0-9]{1,15}\.json|\.json|_request\.json)\Z)", ".…", str(name)))


class Found(NamedTuple):
    """A file's bytes, with the inode and link count they were read from."""

    data: bytes
    inode: int
    links: int


def _through(held: int) -> int | str:
    """Return what leads to a thing that is held: the kernel takes a descriptor of `O_PATH` for no open file."""
    return f"/proc/self/fd/{held}" if _PATH else held


class Fs:
    """The real file system.  A method is one system call, but for `folder`, `create`, `read`, `append`, `fit`.

    Attributes:
        modes: how files and folders are made; a `Tree` sets it to what its bus is.
    """

    modes: Modes = PRIVATE

    def open_new(self, name: str, at: int) -> int:
        """Open a file that must not exist yet."""
        return os.open(name, _NEW, self.modes.file, dir_fd=at)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write what fits; the caller goes on with the rest."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Make a file's content, or a directory's names, durable."""
        if _FULL_SYNC is not None:
            fcntl.fcntl(fd, _FULL_SYNC)
        else:
            os.fsync(fd)

    def sync(self) -> None:
        """Make all that was written so far durable, whoever wrote it."""
        os.sync()

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Give a file another name; fails if the name is taken, as rename would not."""
        os.link(src, dst, src_dir_fd=src_at, dst_dir_fd=dst_at, follow_symlinks=False)

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Move a name; fails if it has moved on, which makes it a compare-and-swap."""
        os.rename(src, dst, src_dir_fd=src_at, dst_dir_fd=dst_at)

    def touch(self, name: str, at: int, now: int) -> None:
        """Set a file's time of last change, in milliseconds; to the file system's time if another user owns it."""
        try:
            os.utime(name, ns=(now * 1_000_000, now * 1_000_000), dir_fd=at, follow_symlinks=False)
        except PermissionError:  # Only an owner may choose a time; who may write may say that it is now.
            os.utime(name, dir_fd=at, follow_symlinks=False)

    def hold(self, name: str, at: int) -> int:
        """Hold a thing itself, to judge it and to change what was judged: its name may lead elsewhere by then."""
        return os.open(name, _HOLD, dir_fd=at)

    def chmod(self, held: int, mode: int) -> None:
        """Set who may do what with what is held; the caller has seen that it is no symlink."""
        os.chmod(_through(held), mode)  # noqa: PTH101  a Path takes no descriptor

    def chown(self, held: int, group: int) -> None:
        """Give what is held to a group."""
        os.chown(_through(held), -1, group)

    def fchmod(self, fd: int, mode: int) -> None:
        """Set who may do what with what is open."""
        os.fchmod(fd, mode)

    def fchown(self, fd: int, group: int) -> None:
        """Give what is open to a group."""
        os.fchown(fd, -1, group)

    def fit(self, fd: int) -> None:
        """Give what is open, on a shared bus, the group and mode it lacks there; what another user owns is left."""
        if not self.modes.is_shared:
            return
        about = self.fstat(fd)
        if self.modes.fits(about) or not is_mine(about):
            return
        with contextlib.suppress(PermissionError):  # An owner who has left the group; `fsck` tells of it.
            if about.st_gid != self.modes.group:
                self.fchown(fd, self.modes.group)
            self.fchmod(fd, self.modes.mended(about))

    def fit_held(self, held: int, modes: Modes) -> None:
        """Give what is held the group and mode that it should have."""
        about = os.fstat(held)
        if modes.is_shared and about.st_gid != modes.group:
            self.chown(held, modes.group)
        self.chmod(held, modes.mended(about))

    def unlink(self, name: str, at: int) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=at)

    def mkdir(self, name: str, at: int) -> None:
        """Make a folder, of which the umask takes what it likes: on a shared bus who opens it must `fit` it."""
        os.mkdir(name, self.modes.folder & 0o777, dir_fd=at)  # The setgid bit comes from the folder above.

    def mkfifo(self, name: str, at: int) -> None:
        """Make a named pipe, of which the umask takes what it likes."""
        os.mkfifo(name, self.modes.file, dir_fd=at)

    def rmdir(self, name: str, at: int) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=at)

    def rmtree(self, name: str, at: int) -> None:
        """Remove a folder and all that is in it; what a symlink in it points at stays."""
        import shutil  # noqa: PLC0415  9 ms that no verb should pay

        shutil.rmtree(name, dir_fd=at)

    def open_dir(self, name: str, at: int | None) -> int:
        """Open a folder itself, never what a symlink points at."""
        return os.open(name, _DIR, dir_fd=at)

    def close_dir(self, at: int) -> None:
        """Give back what `open_dir` opened."""
        os.close(at)

    def fstat(self, fd: int) -> os.stat_result:
        """Return what is open."""
        return os.fstat(fd)

    def may_write(self, at: int) -> bool:
        """Tell whether names in an open folder may be changed; a test of the rights writes nothing."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=at)

    def leads_to(self, path: "Path", at: int) -> bool:
        """Tell whether a path leads to the folder that is open."""
        return os.path.samestat(path.stat(), os.fstat(at))

    @contextlib.contextmanager
    def folder(self, path: "Path") -> "Iterator[int]":
        """Open a folder by its path, made if it is missing, as are those above it, which may be links; it may not."""
        try:
            at = self.open_dir(str(path), None)
        except FileNotFoundError:
            with self.folder(path.parent.resolve()) as above:
                with contextlib.suppress(FileExistsError):
                    self.mkdir(path.name, above)
                at = self.open_dir(path.name, above)
        try:
            yield at
        finally:
            self.close_dir(at)

    def create(self, name: str, at: int, data: bytes, *, sync: bool) -> None:
        """Write a new file whole, and make its content durable if `sync`.

        A failed write or fsync removes the name again and is not tried a second time: after a
        failed fsync the page cache may claim to be clean while the disk is not.
        """
        fd = self.open_new(name, at)
        try:
            if self.modes.is_shared:  # Before it has a name that others look at; the umask may have taken their rights.
                self.fchmod(fd, self.modes.file)
            rest = memoryview(data)
            while rest:
                rest = rest[self.write(fd, rest) :]
            if sync:
                self.fsync(fd)
        except BaseException:
            self._drop(fd, name, at)
            raise
        self.close(fd)

    def _drop(self, fd: int, name: str, at: int) -> None:
        with contextlib.suppress(OSError):
            self.close(fd)
        with contextlib.suppress(OSError):
            self.unlink(name, at)

    def sync_name(self, name: str, at: int) -> None:
        """Make the content of an existing file durable."""
        fd = os.open(name, _READ, dir_fd=at)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def open_append(self, name: str, at: int) -> int:
        """Open a shared file for lines at its end; one `write` a line keeps lines of others apart.

        Raises:
            CorruptRecord: it is something else (FIFO, symlink, folder), or has a second name, which may be outside.
        """
        if self.modes.is_shared:
            self._begin(name, at)
        try:
            fd = os.open(name, _APPEND, self.modes.file, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
                what = f"{name!r} is a symlink, a folder or a socket, and nothing is appended to it"
                raise CorruptRecord(what) from None
            raise
        is_ours = False
        try:
            about = os.fstat(fd)
            is_ours = stat.S_ISREG(about.st_mode) and about.st_nlink <= 1
            if is_ours:
                self.fit(fd)
        finally:
            if not is_ours:
                os.close(fd)
        if not is_ours:
            what = f"{name!r} is not a file with this name alone, and nothing is appended to it"
            raise CorruptRecord(what)
        return fd

    def _begin(self, name: str, at: int) -> None:
        """Make a shared file, if it is missing, that has its mode before it has its name: others append to it.

        Who is killed in between leaves a draft, which may be a second name of the file; who comes next removes it.
        """
        about = self.stat(name, at)
        if about is not None and about.st_nlink == 1:
            return
        if about is None:
            draft = f".{name}.{os.urandom(4).hex()}"
            self.create(draft, at, b"", sync=False)
            with contextlib.suppress(FileExistsError, FileNotFoundError):  # Somebody else's is there by now.
                self.link(draft, at, name, at)
        for left in self.names(at):
            if left.startswith(f".{name}."):
                with contextlib.suppress(FileNotFoundError):
                    self.unlink(left, at)

    def append(self, name: str, at: int, data: bytes, *, sync: bool = False) -> None:
        """Add one line to a shared file; a line that does not fit whole is an error."""
        fd = self.open_append(name, at)
        try:
            if self.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            if sync:
                self.fsync(fd)
        finally:
            self.close(fd)

    def read(self, name: str, at: int, limit: int) -> Found:
        """Read a regular file of at most `limit` bytes.

        Raises:
            CorruptRecord: it is something else (FIFO, symlink, folder), or larger.
            Unreadable: this user may not read it.
            FileNotFoundError: there is no such name.
        """
        try:
            fd = os.open(name, _READ, dir_fd=at)
        except PermissionError:
            raise self.closed(name, at) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                what = f"{name!r} is a symlink or a socket"
                raise CorruptRecord(what) from None
            raise
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                what = f"{name!r} is not a regular file"
                raise CorruptRecord(what)
            if about.st_size > limit:
                what = f"{name!r} has {about.st_size} bytes, the limit is {limit}"
                raise CorruptRecord(what)
            data = os.read(fd, about.st_size + 1)
            while len(data) < about.st_size:
                more = os.read(fd, limit + 1 - len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(fd)
        if len(data) > limit:
            what = f"{name!r} grew over the limit of {limit} bytes while it was read"
            raise CorruptRecord(what)
        return Found(data, about.st_ino, about.st_nlink)

    def closed(self, name: str, at: int) -> Unreadable:
        """Return what to say of a file that this user may not read, or not link: who owns it, and what lets them in."""
        about = self.stat(name, at)
        has_acl = self.modes.is_shared and acls.has(at, name)
        said = told(about, self.modes, has_acl=has_acl) if about is not None else "it is gone by now"
        return Unreadable(f"{quoted(name)} may not be read or linked by this user; {said}", hint=LET_IN)

    def names(self, fd: int) -> list[str]:
        """List a folder.  A hint only: a rename at the same moment can hide or double a name."""
        return os.listdir(fd)

    def stat(self, name: str, at: int) -> os.stat_result | None:
        """Return what a name itself is (no symlink followed), or None."""
        try:
            return os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return None
