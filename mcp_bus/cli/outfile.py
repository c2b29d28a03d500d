"""A file for an answer: written beside its place, and there when it is whole."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mcp_bus.cli.output import Unwritten
from mcp_bus.errors import InvalidRequest
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What is written at once.
PART = 1 << 16


class Outfile:
    """Takes lines while entered; the file appears, or takes the place of an older one, when all went well.

    Raises:
        InvalidRequest: there is no such folder, something that is no file has the name, or it is inside the bus.
    """

    def __init__(self, path: Path, *, bus: Path, mark: str) -> None:
        """Look at the place; nothing is made yet.

        Args:
            bus: the bus directory, in which no file of others belongs.
            mark: what tells this writer's temporary file from others.
        """
        self._path = path
        folder = os.path.realpath(path.parent)
        if Path(folder).is_relative_to(bus.resolve()):
            self._refuse("it is inside the bus", "write it somewhere else; all in a bus is the bus's own")
        self._fs, self._draft, self._parts, self._size = Fs(), f".mcp-bus-export.{mark}", list[bytes](), 0
        self._fd = -1
        try:
            self._at = self._fs.open_dir(folder, None)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse("there is no such folder", "make it first, or name another")
        try:
            self._check()
        except BaseException:
            os.close(self._at)
            raise

    def _refuse(self, why: str, hint: str) -> NoReturn:
        msg = f"cannot write {str(self._path)[:200]!r}: {why}"
        raise InvalidRequest(msg, hint=hint)

    def _check(self) -> None:
        """Refuse a place that something else than a file has."""
        name = self._path.name
        about = self._fs.stat(name, self._at) if name not in ("", "..") else os.fstat(self._at)
        if about is None or stat.S_ISREG(about.st_mode):
            return
        kinds = {stat.S_IFDIR: "it is a directory", stat.S_IFLNK: "it is a symlink, which is not followed"}
        why = kinds.get(stat.S_IFMT(about.st_mode), "it is no regular file")
        self._refuse(why, "name a file, or leave --output out and redirect stdout")

    def __enter__(self) -> Callable[[str], None]:
        """Begin the temporary file; return what takes a line without its end."""
        try:
            with self._words():
                self._fd = self._fs.open_new(self._draft, self._at)
        except BaseException:
            os.close(self._at)
            raise
        return self._line

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Say of an error of the medium what could not be written."""
        try:
            yield
        except OSError as error:
            msg = f"{str(self._path)[:200]!r} could not be written: {error.strerror or error}"
            raise Unwritten(
                msg, hint="look at that, then repeat the call; what was there before is still there"
            ) from None

    def _line(self, text: str) -> None:
        # What JSON and clean text cannot have, half a surrogate pair, is no reason to lose the rest.
        data = text.encode(errors="backslashreplace") + b"\n"
        self._parts.append(data)
        self._size += len(data)
        if self._size >= PART:
            self._write()

    def _write(self) -> None:
        rest = memoryview(b"".join(self._parts))
        self._parts, self._size = [], 0
        with self._words():
            while rest:
                rest = rest[self._fs.write(self._fd, rest) :]

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Give the file its name, or remove it when something went wrong."""
        try:
            if kind is None:
                self._write()
                self._check()  # Whoever put something else there meanwhile keeps it.
                with self._words():
                    self._fs.fsync(self._fd)
                    self._fs.rename(self._draft, self._at, self._path.name, self._at)
        finally:
            with suppress(OSError):
                self._fs.unlink(self._draft, self._at)
            os.close(self._fd)
            os.close(self._at)
