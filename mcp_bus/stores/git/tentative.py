"""Claims made while the remote did not answer, where the operator allows that: kept on this host until a push decides.

    <bus>/tentative/<task>.<revision>.json      the slot the task was in, and the one that its claimant put it in

Of the processes of this host one gets a task, for the first revision is created once.  Hosts do not know of one another
meanwhile: whoever's push comes first has the task, and the other one has lost a lease, as with any that ran out.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import names
from mcp_bus.errors import Conflict, CorruptRecord, NotFound
from mcp_bus.model import DAY, Outcome, State

if TYPE_CHECKING:
    from mcp_bus.model import Attempt, Result, Slot
    from mcp_bus.stores.beside import Record, Records

KIND = "tentative"
# Claims that turned out to be somebody else's: whoever made one is told so, not that it never was.
LOST = "tentative.lost"

REMEMBERED = DAY


class Claimed(NamedTuple):
    """A claim that nobody but this host knows of: from which slot to which, and the revision of its file."""

    revision: int
    old: Slot
    new: Slot

    def is_over(self, now: int) -> bool:
        """Tell whether its lease has ended."""
        return self.new.lease is None or self.new.lease.expires <= now

    @property
    def token(self) -> str:
        """The token it was made under."""
        return self.new.lease.token if self.new.lease is not None else ""


class Tentative:
    """The claims of one host that wait for the remote."""

    def __init__(self, records: Records) -> None:
        """Keep them among this host's own records."""
        self._records = records

    def all(self) -> dict[str, Claimed]:
        """Return what is claimed, by task."""
        found = {name: _claimed(record) for name, record in self._records.all(KIND).items()}
        return {name: claim for name, claim in found.items() if claim is not None}

    def keep(self, old: Slot, new: Slot) -> None:
        """Keep a claim, or its renewal; on this disk for good when it returns.

        Raises:
            Conflict: another process of this host was faster.
        """
        known = self.all().get(old.id)
        first = known.old if known is not None and old.state is State.LEASED else old
        after = known.revision if known is not None and known.new == old else 0
        self._records.write(KIND, old.id, _data(first, new), after=after, durable=True)

    def is_move(self, old: Slot, new: Slot | None, entry: Attempt | Result | None) -> bool:
        """Tell whether a move is one of a claim that may be made without the remote: taken, renewed, given back."""
        if new is None:
            return False
        if new.lease is not None and new.state is State.LEASED:
            return (old.state is State.READY and entry is None) or self._is_mine(old)
        return getattr(entry, "outcome", None) is Outcome.RELEASED and self._is_mine(old)

    def _is_mine(self, slot: Slot) -> bool:
        known = self.all().get(slot.id)
        return known is not None and known.new == slot

    def drop(self, task_id: str) -> None:
        """Forget a claim: a push has taken it, or it was given back."""
        self._records.remove(KIND, task_id)

    def sent(self, task_id: str, pushed: Claimed) -> None:
        """Forget a claim that a push has taken; what it was renewed to meanwhile goes on from there."""
        known = self.all().get(task_id)
        if known is None or known.revision == pushed.revision:
            self.drop(task_id)
            return
        data = _data(pushed.new, known.new)
        with suppress(Conflict):  # It was renewed once more: that one says where it began, and is told as pushed.
            self._records.write(KIND, task_id, data, after=known.revision, durable=True)

    def lose(self, task_id: str, claim: Claimed) -> None:
        """Forget a claim that somebody else was faster with, or that ran out; only that it was made is remembered."""
        with suppress(Conflict):  # Another process of this host notes the same.
            known = self._records.read(LOST, task_id)
            after = known.revision if known is not None else 0
            self._records.write(LOST, task_id, {"token": claim.token}, after=after, durable=False)
        self.drop(task_id)

    def lost(self) -> frozenset[str]:
        """Return the tokens of claims that were lost."""
        return frozenset(str(record.data.get("token")) for record in self._records.all(LOST).values())

    def mend(self, now: int) -> None:
        """Forget claims that were lost long ago: nobody works on them any more."""
        for name, record in self._records.all(LOST).items():
            if abs(now - record.touched) > REMEMBERED:
                self._records.remove(LOST, name)


def _data(old: Slot, new: Slot) -> dict[str, Any]:
    return {"channel": old.channel, "from": list(names.place(old)), "to": list(names.place(new))}


def _claimed(record: Record) -> Claimed | None:
    """Return what a file says; None if it is not a claim."""
    data = record.data
    with suppress(KeyError, TypeError, ValueError, NotFound, CorruptRecord):
        old, new = (names.parse(str(data["channel"]), *map(str, data[name])) for name in ("from", "to"))
        if old is not None and new is not None and old.id == new.id:
            return Claimed(record.revision, old, new)
    return None
