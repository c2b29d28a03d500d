"""What supervised workers say: `logs/workers/<name>.log` in the bus, and the one before it."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.clock import Source

FOLDER = "logs/workers"
# A log that is larger than this when its worker starts is put aside; the one before it goes.
MAX_LOG = 10 * 1024 * 1024
# More than this is not read, whatever a worker wrote since it started.
MOST = 512 * 1024 * 1024


@contextmanager
def opened(root: Path, name: str, source: Source) -> Iterator[int]:
    """Open a worker's log for writing at its end."""
    tree = Tree(root, Fs(), source)
    tree.sync = False
    try:
        with tree.words():
            at = tree.fd(FOLDER, make=True)
            found = tree.fs.stat(f"{name}.log", at)
            if found is not None and found.st_size > MAX_LOG:
                tree.fs.rename(f"{name}.log", at, f"{name}.1.log", at)
            fd = tree.fs.open_append(f"{name}.log", at)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        tree.close()


class Reading:
    """A worker's log as somebody reads it, from a place near its end."""

    def __init__(self, root: Path, name: str, source: Source, *, lines: int) -> None:
        """Begin `lines` lines before the end.

        Raises:
            FileNotFoundError: there is none.
            CorruptRecord: what is there is no log.
        """
        self._tree = Tree(root, Fs(), source)
        self._name = f"{name}.log"
        self._at = 0
        self._first = self._last_lines(lines)

    def _last_lines(self, lines: int) -> bytes:
        found = self._tree.fs.read(self._name, self._tree.fd(FOLDER), MOST).data
        self._at = len(found)
        parts = found.splitlines(keepends=True)
        return b"".join(parts[max(0, len(parts) - lines) :])

    def more(self) -> bytes:
        """Return what was written since the last call; at first, the last lines."""
        if self._first:
            data, self._first = self._first, b""
            return data
        with suppress(FileNotFoundError, CorruptRecord):
            found = self._tree.fs.read(self._name, self._tree.fd(FOLDER), MOST).data
            self._at = 0 if len(found) < self._at else self._at  # It was begun anew.
            data, self._at = found[self._at :], len(found)
            return data
        return b""

    def close(self) -> None:
        """Close the folders."""
        self._tree.close()
