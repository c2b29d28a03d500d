"""Tasks that could not be read where their names are: put aside once it is sure that they are wrong, left if closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import Conflict, CorruptRecord, UnknownKey, Unreadable, Unverified
from mcp_bus.stores import foreign

if TYPE_CHECKING:
    from mcp_bus.clock import Source
    from mcp_bus.model import Slot, Task
    from mcp_bus.stores.reader import Reader
    from mcp_bus.stores.tree import Tree


class Suspects:
    """Reads tasks at their places, and remembers which could not be."""

    def __init__(self, tree: Tree, reader: Reader, source: Source) -> None:
        """Read through `reader`."""
        self._tree = tree
        self._reader = reader
        self._source = source
        self._known: dict[Slot, str] = {}

    def read(self, at: Slot) -> Task:
        """Return the task that has a place; see `Reader.read_at`.

        Raises:
            Unreadable: this user may not read it; it stays where it is, for those who may.
            UnknownKey: so does what is signed by who is unknown here.
            CorruptRecord: it is wrong, and was put aside, or is as soon as it has settled.
        """
        try:
            return self._reader.read_at(at)
        except UnknownKey:  # Others may know whose it is: it stays where it is, for them.
            raise
        except Unverified as error:
            # At once: its signature comes before it, so that nobody is about to bring that.
            place = names.place(at)
            folder = f"channels/{at.channel}/{place.folder}"
            foreign.quarantine(self._tree, folder, place.name, str(error), self._source.now())
            raise
        except Unreadable as error:
            if at not in self._known:
                import logging  # noqa: PLC0415  milliseconds, and nearly no process gets here

                logging.getLogger(__name__).warning("passed over %s: %s", at.id, error)
            self._known[at] = str(error)
            raise
        except CorruptRecord as error:
            # Put aside at once if it has settled: whoever comes once, to claim, may be all who ever come.
            if not foreign.suspect(self._tree, at, str(error), self._source.now()):
                self._known[at] = str(error)
            raise

    def mend(self, now: int) -> list[str]:
        """Put aside what is still wrong; return a line for each, and for each that is still closed."""
        done = list[str]()
        for slot in list(self._known):
            try:
                why = self._still_wrong(slot)
            except Unreadable as error:
                self._known[slot] = str(error)
                done.append(f"left {slot.id} where it is: {error}")
                continue
            if why and foreign.suspect(self._tree, slot, why, now):
                done.append(f"quarantined {slot.id}: {why}")
        return done

    def _still_wrong(self, slot: Slot) -> str:
        """Look again at a suspect: whoever was writing it may have come to the end meanwhile."""
        del self._known[slot]
        try:
            self._reader.read_at(slot)
        except Unreadable:
            raise
        except (Conflict, UnknownKey):
            return ""
        except CorruptRecord as error:
            return str(error)
        return ""
