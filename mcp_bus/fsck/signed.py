"""What is wrong with signatures on signed channels, as far as this user's keys and trust can tell.

Without keys, or what checking needs, it is only told which signatures are not there, and that no other was checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import lifecycle, wire
from mcp_bus.errors import CorruptRecord, NoKey, StoreUnavailable, UnknownKey, Unreadable, Untrusted
from mcp_bus.fsck.kinds import Anomaly
from mcp_bus.model import Slot, State
from mcp_bus.stores.publish import responses
from mcp_bus.stores.rules import Rules
from mcp_bus.stores.seals import Seals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mcp_bus.fsck.survey import Spot, Surveyor
    from mcp_bus.stores.base import Guard


class Ends(NamedTuple):
    """Whether a result ends its task, None if that cannot be told; and why it does not, or cannot."""

    is_so: bool | None
    why: str = ""


class Signatures:
    """The signatures of one bus, as they are asked about in one look at it.

    Attributes:
        unchecked: why none was checked, where there are signed channels; empty if they were.
    """

    def __init__(self, surveyor: Surveyor) -> None:
        """Check with the keys and the trust that `surveyor` was given; nothing is read yet."""
        self._surveyor = surveyor
        rules = Rules(surveyor.tree, surveyor.source)
        self._why = ""
        self._seals = Seals(surveyor.tree, surveyor.source, rules.policy, self._guard())
        rules.holds = self._seals.ruled
        self.unchecked = ""

    def _guard(self) -> Guard | None:
        """Return this user's guard of the bus; None, and why, if there is none."""
        tree, keys = self._surveyor.tree, self._surveyor.keys
        if keys is None:
            self._why = "this user has no private folder with keys in it"
            return None
        try:
            said = wire.loads(tree.fs.read("bus.json", tree.fd(), 65536).data)
        except (CorruptRecord, OSError):
            self._why = "bus.json, which names the bus that they are for, cannot be read"
            return None
        return keys(str(said.get("id")))

    def anomalies(self, spots: Iterable[Spot]) -> Iterator[Anomaly]:
        """Judge the signatures of all tasks that have a place."""
        for spot in spots:
            try:
                found = list(self._task(spot))
            except (NoKey, StoreUnavailable, Untrusted) as error:
                self._why, self._seals.guard = str(error), None
                found = list(self._task(spot))
            yield from found

    def _task(self, spot: Spot) -> Iterator[Anomaly]:
        slot, seals = spot.slot, self._seals
        if slot.state in (State.CANCELLED, State.EXPIRED):
            return  # Nobody acts on it; brought back, it is judged again.
        is_signed = seals.guarded(slot.channel).signed if seals.guard is None else seals.needs(slot.channel, slot.id)
        if not is_signed:
            return
        self.unchecked = self._why
        yield from self._body(spot)
        if slot.state is State.DONE:
            yield from self._result(spot)

    def _body(self, spot: Spot) -> Iterator[Anomaly]:
        """Judge a message as who would hand it out does, in the place where it is."""
        slot, seals, data = spot.slot, self._seals, self._surveyor.data(spot.folder, spot.name)
        if data is None:
            return  # It moved.
        if missing := seals.missing(slot.id):
            yield Anomaly("not-signed", spot.path, slot.id, missing)
        elif seals.guard is not None:
            try:
                # One whose time is up is ended by a sweep, and not handed out: so is its signature, which is no news.
                is_over = lifecycle.is_expired(slot, now=self._surveyor.now())
                seals.body(wire.load_body(data), data, None if is_over else slot)
            except CorruptRecord as error:
                yield from _told("unverified", spot.path, slot.id, error)

    def ends(self, task_id: str, channel: str) -> Ends:
        """Tell whether the result that is in its place ends a task, which on a signed channel its signature says."""
        slot, seals, folder = Slot(task_id, channel, State.DONE), self._seals, responses(channel)
        is_signed = seals.guarded(channel).signed if seals.guard is None else seals.needs(channel, task_id)
        data = self._surveyor.data(folder, f"{task_id}.json") if is_signed else None
        if data is None:
            return Ends(is_so=not is_signed)
        if missing := seals.missing(task_id, data):
            return Ends(is_so=False, why=missing)
        if seals.guard is None:
            return Ends(is_so=None, why=self._why)
        try:
            seals.result(slot, wire.load_result(data), data)
        except (UnknownKey, Unreadable, NoKey, StoreUnavailable, Untrusted) as error:
            return Ends(is_so=None, why=str(error))
        except CorruptRecord as error:
            return Ends(is_so=False, why=str(error))
        return Ends(is_so=True)

    def _result(self, spot: Spot) -> Iterator[Anomaly]:
        slot, seals, folder, name = spot.slot, self._seals, responses(spot.slot.channel), f"{spot.slot.id}.json"
        data = self._surveyor.data(folder, name)
        try:
            result = wire.load_result(data) if data is not None else None
        except CorruptRecord:
            return  # That it is no result was told.
        if data is None or result is None or result.id != slot.id:
            return
        if missing := seals.missing(slot.id, data):
            yield Anomaly("result-unverified", f"{folder}/{name}", slot.id, missing)
        elif seals.guard is not None:
            try:
                seals.result(slot, result, data)
            except CorruptRecord as error:
                yield from _told("result-unverified", f"{folder}/{name}", slot.id, error)


def _told(kind: str, path: str, task_id: str, error: CorruptRecord) -> Iterator[Anomaly]:
    """Return what does not hold; of an unknown key others may know better, and a mode is told of elsewhere."""
    if not isinstance(error, Unreadable):
        yield Anomaly("unknown-key" if isinstance(error, UnknownKey) else kind, path, task_id, str(error))
