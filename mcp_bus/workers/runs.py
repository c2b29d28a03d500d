"""What a command leaves behind: `runs/<task>.a<attempt>.<word>/` with what it was asked, wrote and made.

For people, and for the result's artifacts.  Each run has a folder of its own, so that none can hand in what another
wrote: an attempt that was given back runs again under its number, and two handlers may be given one message.
Nothing is read of a run that is over, and all of it may be deleted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import BusError, CorruptRecord, StoreUnavailable
from mcp_bus.model import DAY, MAX_CONTENT
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.modes import PRIVATE, of
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from mcp_bus.bus import Bus
    from mcp_bus.clock import Source
    from mcp_bus.model import Body

FOLDER = "runs"
PROMPT, LOG, RESULT, REFUSED, FILES = "prompt.md", "output.log", "result", "result.refused", "files"
# Of what a command writes, this much is kept; the end of it is kept in memory to say why it failed.
MAX_LOG = 10 * 1024 * 1024
TAIL = 2000
KEPT = 30 * DAY
# Files that a command made which are named in its result; and how many names, how deep, are looked at for them.
MAX_FILES = 40
MAX_LOOKED = 10_000
MAX_DEEP = 16


def root_of(bus: Bus, root: Path, body: Body) -> Path:
    """Return below what the run of a message is kept: the bus, or this user's private folder.

    That is where it is encrypted, and where others may write what is on the bus: they could swap a folder of it, and
    with it the file to which a command writes its result.

    Args:
        root: where the bus is.
    """
    guard = bus.store.guard
    if guard is None or not (body.encrypted is not None or _is_shared(root)):
        return root
    with Fs().folder(guard.private):
        return guard.private


def tidy(bus: Bus, root: Path) -> None:
    """Make sure that runs can be kept, and remove those that are long over, also those of encrypted messages.

    Raises:
        StoreUnavailable: they cannot.
    """
    guard, places = bus.store.guard, [root]
    if guard is not None and _is_shared(root):
        with Fs().folder(guard.private):
            places = [guard.private]
    elif guard is not None and (guard.private / FOLDER).is_dir():
        places.append(guard.private)
    for place in places:
        with Runs(place, bus.source) as old:
            old.check()
            old.forget()


def _is_shared(root: Path) -> bool:
    with suppress(OSError):  # It is gone, which whoever opens it says.
        return of(root.stat()).is_shared
    return False


class Place(NamedTuple):
    """Where one run's files are."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the command wrote."""
        return self.folder / LOG

    @property
    def result(self) -> Path:
        """Where the command may write its result."""
        return self.folder / RESULT

    @property
    def files(self) -> Path:
        """Where the command may put files that belong to its result."""
        return self.folder / FILES


class Made(NamedTuple):
    """Files that a command made: the paths of some, sorted; their bytes together; how many more there are at least."""

    paths: tuple[str, ...]
    size: int
    left: int


class Runs:
    """The runs on one bus, as one thread writes them."""

    def __init__(self, root: Path, source: Source) -> None:
        """Open the bus at `root`."""
        self._tree = Tree(root, Fs(), source)
        self._tree.sync = False
        self._modes, self._tree.fs.modes = self._tree.fs.modes, PRIVATE
        self._source = source

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the bus's folders."""
        self._tree.close()

    def check(self) -> None:
        """Make sure that runs can be kept.

        Raises:
            StoreUnavailable: they cannot.
        """
        with self._tree.words():
            self._all()

    def _all(self) -> int:
        """Return the folder of all runs, made if it is missing; all that is below it is its user's alone."""
        self._tree.fs.modes = self._modes
        try:
            return self._tree.fd(FOLDER, make=True)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            msg = f"{str(self._tree.root / FOLDER)!r} is no folder, so that commands have no place to write"
            raise StoreUnavailable(msg, hint="move it away") from None
        finally:
            self._tree.fs.modes = PRIVATE

    def begin(self, task_id: str, attempt: int, prompt: bytes) -> tuple[Place, Log]:
        """Make the folder of a run, and open its log.

        Raises:
            StoreUnavailable: that cannot be done.
        """
        name = f"{task_id}.a{attempt}.{self._source.token(4)}"
        with self._tree.words():
            self._tree.fs.mkdir(name, self._all())
            at = self._tree.fd(f"{FOLDER}/{name}")
            self._tree.fd(f"{FOLDER}/{name}/{FILES}", make=True)
            self._tree.fs.create(PROMPT, at, prompt, sync=False)
            log = Log(self._tree.fs.open_append(LOG, at))
        return Place(self._tree.root / FOLDER / name), log

    def set_aside(self, place: Place) -> None:
        """Move away what a command wrote as its result, so that what is written next is known from it."""
        with self._tree.words(), suppress(FileNotFoundError):
            at = self._tree.fd(f"{FOLDER}/{place.folder.name}")
            self._tree.fs.rename(RESULT, at, REFUSED, at)

    def keep(self, place: Place, text: str) -> str:
        """Write down a result that cannot be submitted yet, if its command did not; return where it is."""
        with suppress(OSError, BusError):  # A full disk: what was printed is in the log.
            at = self._tree.fd(f"{FOLDER}/{place.folder.name}")
            with suppress(FileExistsError):
                self._tree.fs.create(RESULT, at, text.encode(), sync=False)
            return str(place.result)
        return str(place.log)

    def answer(self, place: Place) -> str | None:
        """Return what a command wrote as its result; None if it wrote none.

        Raises:
            CorruptRecord: it is no text, or too long.
        """
        with self._tree.words():
            try:
                data = self._tree.fs.read(RESULT, self._tree.fd(f"{FOLDER}/{place.folder.name}"), MAX_CONTENT).data
            except FileNotFoundError:
                return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            msg = "the result file is not UTF-8 text"
            raise CorruptRecord(msg) from None

    def made(self, place: Place) -> Made:
        """Return the regular files that a command made, nothing that a symlink points at among them."""
        found = list[tuple[str, int]]()
        for path, entry in islice(self._below(place), MAX_LOOKED):
            with suppress(OSError):
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode):
                    found.append((path, about.st_size))
        found.sort()
        named = found[:MAX_FILES]
        return Made(tuple(path for path, _ in named), sum(size for _, size in named), len(found) - len(named))

    def _below(self, place: Place) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Return all that is in a run's folder of files, with its path, the nearest first."""
        folders = deque([""])
        while folders:
            inside = folders.popleft()
            for entry in self._listed(f"{FOLDER}/{place.folder.name}/{FILES}{inside}"):
                if entry.is_dir(follow_symlinks=False) and inside.count("/") < MAX_DEEP:
                    folders.append(f"{inside}/{entry.name}")
                yield f"{place.files}{inside}/{entry.name}", entry

    def _listed(self, folder: str) -> list[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(self._tree.fd(folder)) as entries:
            return list(islice(entries, MAX_LOOKED))
        return []

    def forget(self) -> int:
        """Remove what is left of attempts that are long over; return of how many."""
        count, old = 0, self._source.now() - KEPT
        for name in self._tree.names(FOLDER):
            at = self._tree.live(FOLDER)
            found = self._tree.fs.stat(name, at) if at is not None else None
            if at is not None and found is not None and found.st_mtime * 1000 < old:
                with suppress(OSError):
                    self._tree.fs.rmtree(name, at)
                    count += 1
        return count


class Log:
    """A file that takes what a command writes, up to a limit; and the end of all of it."""

    def __init__(self, fd: int) -> None:
        """Write to a descriptor, and close it in the end."""
        self._fd = fd
        self._left = MAX_LOG
        self._tail = bytearray()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        """Take what a command wrote.  That the disk is full is no reason to stop it."""
        self._tail += data
        del self._tail[:-TAIL]
        part = data[: self._left]
        self._left -= len(part)
        if part and not self._left:
            part += f"\n[more than {MAX_LOG} bytes: the rest is not kept]\n".encode()
        with suppress(OSError):
            while part:
                part = part[os.write(self._fd, part) :]

    @property
    def tail(self) -> str:
        """The end of what was written, as text."""
        return self._tail.decode(errors="replace")
