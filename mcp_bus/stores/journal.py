"""The journal: a line for each transition, for people.  Never read to decide, never a reason to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord
from mcp_bus.identity.process import host
from mcp_bus.model import day_of
from mcp_bus.wire import stamp

if TYPE_CHECKING:
    from mcp_bus.clock import Source
    from mcp_bus.model import Slot
    from mcp_bus.stores.tree import Tree


class Journal:
    """Appends to `journal/<host>-<day>.jsonl`, one write a line, so that processes share a file."""

    def __init__(self, tree: Tree, source: Source, who: str) -> None:
        """Write as `who`, a holder's name (letters, digits and a few marks: it needs no escaping)."""
        self._tree = tree
        self._source = source
        self._who = who
        self._open = (-1.0, -1)
        self._host = "".join(c for c in host() if c.isalnum() or c in "-_") or "host"

    def move(self, what: str, old: Slot | None, new: Slot | None, now: int) -> None:
        """Write down that a task moved from `old` to `new`; None stands for not being on the bus.

        Args:
            now: when the move began: sorted by it, what led to a move comes before it.
        """
        slot = new or old
        if slot is None:
            return
        came, went = (old.state if old else ""), (new.state if new else "pruned")
        line = (
            f'{{"at":"{stamp(now)}","event":"{what}","id":"{slot.id}","channel":"{slot.channel}",'
            f'"from":"{came}","to":"{went}","attempt":{slot.attempt},"by":"{self._who}"}}\n'
        )
        try:
            self._tree.fs.write(self._file(now), line.encode())
        except (OSError, CorruptRecord):
            return

    def _file(self, now: int) -> int:
        """Return the day's file; opened anew each second, for it may be deleted at any time."""
        until, fd = self._open
        if self._source.monotonic() >= until:
            self.close()
            self._tree.live("journal")  # Notices that the folder was removed, so that it is made again.
            fd = self._tree.fs.open_append(f"{self._host}-{day_of(now)}.jsonl", self._tree.fd("journal", make=True))
            self._open = (self._source.monotonic() + 1, fd)
        return fd

    def close(self) -> None:
        """Close the file."""
        _, fd = self._open
        if fd >= 0:
            self._open = (-1.0, -1)
            self._tree.fs.close(fd)
