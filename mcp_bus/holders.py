"""Who holds leases, also where no session says that it is there: a shell that claims and submits in two calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import names
from mcp_bus.find import public
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mcp_bus.presence import Seen
    from mcp_bus.stores.base import Store

UNSEEN = "no live session seen"


class Holding(NamedTuple):
    """What one holder has in work.

    Attributes:
        holder: its word, as it is in the names of its leases.
        agent: whose session it is; empty where the word does not tell.
        tasks: how many it holds.
        until: when the last of its leases ends unless it is renewed.
    """

    holder: str
    agent: str
    tasks: int
    until: int


def holdings(store: Store, agents: Iterable[str]) -> dict[str, Holding]:
    """Return every holder of a lease, by its word; a lease that ran out and did not come back yet is one too.

    Args:
        agents: names that a word may be made of.
    """
    known, made = sorted(set(agents)), dict[str, Holding]()
    for channel in public(store):
        for slot in store.scan(channel, State.LEASED):
            if slot.lease is not None:
                word = slot.lease.holder
                before = made.get(word) or Holding(word, _agent(word, known), 0, 0)
                made[word] = before._replace(tasks=before.tasks + 1, until=max(before.until, slot.lease.expires))
    return dict(sorted(made.items()))


def unseen(holding: Iterable[Holding], seen: Sequence[Seen]) -> list[Holding]:
    """Return the holders of whom no session is remembered, live or over."""
    remembered = {item.presence.holder for item in seen}
    return [item for item in holding if item.holder not in remembered]


def _agent(word: str, known: Sequence[str]) -> str:
    """Return whose session a holder is: the agent it spells out, else the one of the known ones that it stands for."""
    spelt = word.rpartition("~")[0]
    if spelt and names.is_of(word, spelt):
        return spelt
    return next((agent for agent in known if names.is_of(word, agent)), "")
