"""Which workers are there for what a step requires, as far as one observer can tell."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mcp_bus import bidding, names, routing
from mcp_bus.find import public
from mcp_bus.model import State
from mcp_bus.presence import SILENT, Roster

if TYPE_CHECKING:
    from mcp_bus.operate import Operator
    from mcp_bus.presence import Seen


class Crew:
    """The sessions on a bus at one moment; read once, when first asked for."""

    def __init__(self, bus: Operator) -> None:
        """Look at a bus."""
        self._bus = bus

    @cached_property
    def at(self) -> int:
        """When it was read, in milliseconds: what came later it does not know of."""
        return self._bus.source.now()

    @cached_property
    def _seen(self) -> list[Seen]:
        assert self.at
        return Roster(self._bus.store, self._bus.identity, self._bus.source).all()

    @cached_property
    def _holders(self) -> set[str]:
        """Who holds a lease that runs."""
        store, now = self._bus.store, self._bus.source.now()
        leases = (slot.lease for channel in public(store) for slot in store.scan(channel, State.LEASED))
        return {lease.holder for lease in leases if lease is not None and lease.expires > now}

    def is_able(self, requires: tuple[str, ...], grace: int = 0) -> bool:
        """Tell whether a worker that is able to do something is there, gave a sign of life lately, or is at work.

        Args:
            grace: what is lately, in milliseconds.
        """
        able = [
            seen
            for seen in self._seen
            if not routing.missing(requires, {*seen.presence.capabilities, bidding.capability(seen.presence.agent)})
        ]
        now = self.at
        if any(seen.is_live or abs(now - seen.presence.beat) < grace or self._may_wake(seen) for seen in able):
            return True
        agents = {seen.presence.agent for seen in able}
        return any(names.is_of(holder, agent) for agent in agents for holder in (self._holders if agents else ()))

    def _may_wake(self, seen: Seen) -> bool:
        """Tell whether a silent session is to be given time to speak up: this machine may have slept, and it with it.

        The wall clock cannot tell that from silence.  So a process that runs here counts until this observer has
        seen it silent for long enough by a clock that stands still while the machine sleeps.
        """
        if not seen.is_here:
            return False
        now, holder, beat = self._bus.source.monotonic(), seen.presence.holder, seen.presence.beat
        known = self._bus.silences.get(holder)
        if known is None or known[0] != beat:  # It has spoken since, or was never seen silent.
            known = self._bus.silences[holder] = (beat, now)
        return now - known[1] < SILENT / 1000
