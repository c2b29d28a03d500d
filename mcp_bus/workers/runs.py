"""What a command leaves behind: `runs/<task>.a<attempt>/` with what it was asked, wrote and made.

For people, and for the result's artifacts.  Nothing here is read to decide, and all of it may be deleted.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import BusError, CorruptRecord
from mcp_bus.model import DAY, MAX_CONTENT
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from mcp_bus.clock import Source

FOLDER = "runs"
PROMPT, LOG, RESULT, FILES = "prompt.md", "output.log", "result", "files"
# Of what a command writes, this much is kept; the end of it is kept in memory to say why it failed.
MAX_LOG = 10 * 1024 * 1024
TAIL = 2000
KEPT = 30 * DAY
# Files that a command made which are named in its result.
MAX_FILES = 40


class Place(NamedTuple):
    """Where one attempt's files are."""

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


class Runs:
    """The runs on one bus, as one thread writes them."""

    def __init__(self, root: Path, source: Source) -> None:
        """Open the bus at `root`."""
        self._tree = Tree(root, Fs(), source)
        self._tree.sync = False
        self._source = source

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the bus's folders."""
        self._tree.close()

    def begin(self, task_id: str, attempt: int, prompt: bytes) -> tuple[Place, Log]:
        """Make the folder of an attempt, and open its log; what an earlier run of the same attempt left stays."""
        name = f"{task_id}.a{attempt}"
        with self._tree.words():
            at = self._tree.fd(f"{FOLDER}/{name}", make=True)
            self._tree.fd(f"{FOLDER}/{name}/{FILES}", make=True)
            with suppress(FileExistsError):
                self._tree.fs.create(PROMPT, at, prompt, sync=False)
            log = Log(self._tree.fs.open_append(LOG, at))
        return Place(self._tree.root / FOLDER / name), log

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


def made(place: Place) -> tuple[list[str], int]:
    """Return the paths of the regular files that a command made, sorted, and how many are not among them."""
    found: list[str] = []
    with suppress(OSError, BusError):
        for folder, _, names in os.walk(place.files):
            found += [path for name in names if os.path.isfile(path := os.path.join(folder, name))]  # noqa: PTH113, PTH118  os.walk gives strings
    found = sorted(path for path in found if not os.path.islink(path))  # noqa: PTH114  as above
    return found[:MAX_FILES], max(0, len(found) - MAX_FILES)
