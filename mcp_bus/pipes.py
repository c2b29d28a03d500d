"""Named pipes: bytes streamed from one agent to another, while both are there.  Nothing is kept.

A task waits for whoever comes; a pipe wants both ends now.  Each end is opened without blocking, and waits for the
other for so long and no longer; a full pipe holds its writer back; a writer that ends is the end of what is read.

P-1  A pipe is a FIFO `pipes/<name>` in the bus, made by who opens it first, for users of the bus on this machine only.
P-2  Bytes that were written and not read when an end goes away are lost.  A writer is told how many it had handed over.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcp_bus.errors import BusError, InvalidRequest, NotFound, StoreUnavailable
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.modes import is_mine
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.clock import Source

FOLDER = "pipes"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
CHUNK = 64 * 1024
# Bytes that a pipe takes whole or not at all.
PART = 4096
# How often a writer looks whether a reader has come: opening a FIFO for reading tells nobody.
LOOK_S = 0.05


class NobodyThere(BusError):
    """The other end of a pipe did not come, or went away."""

    code = "nobody_there"
    retryable = True


class ReadingEnd:
    """The reading end of a pipe, held open between looks.  Never waits: `fd` becomes readable when it is time to look.

    Attributes:
        was_met: whether a writer was there.
        is_over: whether there was one and there is none any more: nothing more comes.
    """

    def __init__(self, fd: int) -> None:
        """Own an open descriptor."""
        self.fd = fd
        self.was_met = False
        self.is_over = False
        self._poll = select.poll()
        self._poll.register(fd, 0)

    def take(self, size: int) -> bytes:
        """Return what is there now, at most so many bytes; empty when there is nothing, or nothing more."""
        data = _taken(self.fd, size)
        if data == b"":  # No writer: it went away, or none has come yet, which only a hang-up tells apart.
            self.was_met = self.was_met or bool(self._poll.poll(0))
            self.is_over = self.was_met
        else:
            self.was_met = True
        return data or b""


class WritingEnd:
    """The writing end of a pipe, held open between looks.  Never waits: `fd` becomes writable when there is room."""

    def __init__(self, fd: int) -> None:
        """Own an open descriptor."""
        self.fd = fd

    def put(self, data: bytes) -> bool:
        """Hand over at most `PART` bytes, all of them or none; return whether there was room.

        Raises:
            BrokenPipeError: the reader went away.
        """
        assert len(data) <= PART
        try:
            os.write(self.fd, data)
        except BlockingIOError:
            return False
        return True


class Pipes:
    """The pipes of one bus."""

    def __init__(self, root: Path, source: Source) -> None:
        """Look into the bus at `root`."""
        self._root = root
        self._source = source

    @contextmanager
    def _tree(self) -> Iterator[Tree]:
        tree = Tree(self._root, Fs(), self._source)
        tree.sync = False
        try:
            with tree.words():
                yield tree
        finally:
            tree.close()

    def make(self, name: str) -> bool:
        """Make a pipe, unless it is there; return whether it is new.

        Raises:
            InvalidRequest: that is no name for one, or something else has it.
            StoreUnavailable: this system or file system has no FIFOs.
        """
        _check(name)
        if not hasattr(os, "mkfifo"):
            msg = "this system has no named pipes"
            raise StoreUnavailable(msg, hint="hand the result over as a task, or as a file")
        with self._tree() as tree:
            at = tree.fd(FOLDER, make=True)
            is_new = True
            try:
                tree.fs.mkfifo(name, at)
            except FileExistsError:
                is_new = False
            found = tree.fs.stat(name, at)
            if found is not None and not stat.S_ISFIFO(found.st_mode):
                msg = f"{name!r} in pipes/ is no pipe"
                raise InvalidRequest(msg, hint="remove it, or choose another name") from None
            if found is not None and not tree.fs.modes.fits(found) and is_mine(found):
                _fit(tree.fs, name, at)
        return is_new

    def names(self) -> list[str]:
        """Return the names of all pipes, sorted."""
        with self._tree() as tree:
            at = tree.live(FOLDER)
            found = tree.names(FOLDER) if at is not None else []
            kinds = {name: tree.fs.stat(name, at) for name in found} if at is not None else {}
        return sorted(name for name, kind in kinds.items() if kind is not None and stat.S_ISFIFO(kind.st_mode))

    def remove(self, name: str) -> None:
        """Remove a pipe; ends that are open go on with one another.

        Raises:
            NotFound: there is none.
        """
        _check(name)
        if name not in self.names():
            msg = f"there is no pipe {name!r}"
            raise NotFound(msg, hint="`mcp-bus pipe list` shows them")
        with self._tree() as tree:
            tree.drop(FOLDER, name)

    def _open(self, name: str, flags: int) -> int:
        with self._tree() as tree:
            fd = os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree.fd(FOLDER))
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        msg = f"{name!r} in pipes/ is no pipe"
        raise InvalidRequest(msg, hint="remove it, or choose another name")

    def reading(self, name: str) -> ReadingEnd:
        """Open the reading end of a pipe, made if it is new."""
        self.make(name)
        return ReadingEnd(self._open(name, os.O_RDONLY))

    def writing(self, name: str) -> WritingEnd | None:
        """Open the writing end of a pipe that is there; None while nobody reads it."""
        try:
            return WritingEnd(self._open(name, os.O_WRONLY))
        except StoreUnavailable as error:
            if getattr(error.__cause__, "errno", None) != errno.ENXIO:
                raise
        return None

    def has(self, name: str, fd: int) -> bool:
        """Tell whether a pipe's name still leads to the one that is open: it may have been removed and made anew."""
        with self._tree() as tree:
            at = tree.live(FOLDER)
            found, own = None if at is None else tree.fs.stat(name, at), os.fstat(fd)
        return found is not None and (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, name: str, *, open_s: float = 30.0, idle_s: float = 300.0) -> Iterator[bytes]:
        """Return what a writer writes, as it comes, until it ends.

        Args:
            open_s: how long to wait for a writer to come.
            idle_s: how long to wait for more while it is there and writes nothing.

        Raises:
            NobodyThere: no writer came, or it fell silent for too long.
        """
        self.make(name)
        fd = self._open(name, os.O_RDONLY)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(open_s * 1000):
                msg = f"nobody writes to {name!r}: waited {open_s:g} s"
                raise NobodyThere(msg, hint=f"start the other end: mcp-bus pipe write {name}")
            while True:
                data = _taken(fd)
                if data == b"":
                    return
                if data is not None:
                    yield data
                elif not poll.poll(idle_s * 1000):
                    msg = f"the writer of {name!r} is there and wrote nothing for {idle_s:g} s"
                    raise NobodyThere(msg, hint="look at what it does; --idle waits longer")
        finally:
            os.close(fd)

    # --- writing ------------------------------------------------------------------------------------------

    def write(self, name: str, parts: Iterator[bytes], *, open_s: float = 30.0, idle_s: float = 300.0) -> int:
        """Write to whoever reads; return how many bytes were handed over.

        Args:
            parts: what to write; taken only as fast as it is read.
            open_s: how long to wait for a reader to come.
            idle_s: how long to wait for room while it is there and reads nothing.

        Raises:
            NobodyThere: no reader came, or it went away or fell silent; says how much was handed over.
        """
        self.make(name)
        fd, done = self._with_reader(name, open_s), 0
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    count = self._put(name, fd, rest, idle_s, done)
                    rest, done = rest[count:], done + count
        finally:
            os.close(fd)
        return done

    def _with_reader(self, name: str, open_s: float) -> int:
        """Open the writing end once somebody reads."""
        end = self._source.monotonic() + open_s
        while True:
            if (opened := self.writing(name)) is not None:
                return opened.fd
            left = end - self._source.monotonic()
            if left <= 0:
                msg = f"nobody reads {name!r}: waited {open_s:g} s, and nothing was written"
                raise NobodyThere(msg, hint=f"start the other end: mcp-bus pipe read {name}")
            select.select([], [], [], min(LOOK_S, left))

    def _put(self, name: str, fd: int, data: memoryview, idle_s: float, done: int) -> int:
        try:
            return os.write(fd, data[:CHUNK])
        except BrokenPipeError:
            msg = f"the reader of {name!r} went away; {done} bytes were handed over, and not all may have been read"
            raise NobodyThere(msg, hint="start both ends anew; a task would have waited") from None
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if poll.poll(idle_s * 1000):
                return 0
            msg = f"the reader of {name!r} is there and read nothing for {idle_s:g} s; {done} bytes were handed over"
            raise NobodyThere(msg, hint="look at what it does; --idle waits longer") from None


def _check(name: str) -> None:
    if not NAME.match(name):
        msg = f"{name[:60]!r} is no name for a pipe"
        raise InvalidRequest(msg, hint="1 to 64 of a-z 0-9 . _ -")


def _fit(fs: Fs, name: str, at: int) -> None:
    """Give a pipe of this user its group and mode; opened, a writer would see a reader that reads nothing."""
    held = fs.hold(name, at)
    try:
        about = os.fstat(held)
        if stat.S_ISFIFO(about.st_mode) and about.st_nlink == 1 and is_mine(about):
            fs.fit_held(held, fs.modes)
    finally:
        fs.close(held)


def _taken(fd: int, size: int = CHUNK) -> bytes | None:
    """Return what can be read now; empty at the end, None when there is nothing yet."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
