"""What a session looked at and left to others: not looked at again for a while, for a key may come meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord, UnknownKey, Unreadable

if TYPE_CHECKING:
    from mcp_bus.clock import Source
    from mcp_bus.model import Slot

# For so long; and so many are kept before those whose time has passed are dropped.
CLOSED_S = 10.0
ROOM = 20_000
# Refused tasks that are remembered until somebody is told.
REFUSED = 1000


class Passed:
    """Ids, each with the reason and until when; as many as wait, so that each is looked at once in that time."""

    def __init__(self, source: Source) -> None:
        """Go by the clock of `source`."""
        self._source = source
        self._until: dict[str, tuple[float, str, str]] = {}
        self._room = ROOM
        self._refused: dict[Slot, str] = {}

    def add(self, task_id: str, why: str, hint: str = "") -> None:
        """Pass a task over from now on; `hint` is what would change that."""
        if len(self._until) >= self._room:
            now = self._source.monotonic()
            self._until = {name: told for name, told in self._until.items() if told[0] > now}
            self._room = max(ROOM, 2 * len(self._until))
        self._until[task_id] = (self._source.monotonic() + CLOSED_S, why, hint)

    def __contains__(self, task_id: str) -> bool:
        """Tell whether a task is passed over still."""
        told = self._until.get(task_id)
        return told is not None and told[0] > self._source.monotonic()

    def wrong(self, slot: Slot, error: CorruptRecord) -> None:
        """Note that a task could not be read: others may know its key, or be let in; else the store puts it aside."""
        if isinstance(error, UnknownKey):
            self.add(slot.id, str(error), error.hint)
        elif not isinstance(error, Unreadable) and len(self._refused) < REFUSED:
            self._refused[slot] = str(error)

    def refused(self) -> dict[Slot, str]:
        """Return why tasks were refused, in the order they were; of each it is told once."""
        told, self._refused = self._refused, {}
        return told

    def whys(self) -> str:
        """Return why things are passed over, for people; empty if none are."""
        now = self._source.monotonic()
        return "; ".join(sorted({why for until, why, _ in self._until.values() if until > now}))

    def hint(self) -> str:
        """Return what would let something be read that is passed over; empty if nothing is known to."""
        now = self._source.monotonic()
        return next((hint for until, _, hint in self._until.values() if hint and until > now), "")
