"""How much may wait on a channel: its rules `max_waiting` and `max_waiting_by_sender`.

What waits is counted by names alone, and only where a rule asks for it.  Of posters that come at the same moment each
may see the last free place: what waits is then more than the rule says, by one for each of them and never more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.errors import Conflict, CorruptRecord, Overloaded
from mcp_bus.model import WAITING

if TYPE_CHECKING:
    from mcp_bus.model import Body, Policy, Slot
    from mcp_bus.stores.base import Store

# Waiting tasks, the newest, that are looked into to count those of one sender.
LOOKED = 1000
HINT = "wait until some are taken, then repeat the call"


class Quotas:
    """Counts for one session, which remembers senders so that no body is read twice."""

    def __init__(self, store: Store) -> None:
        """Count what waits in `store`."""
        self._store = store
        self._senders: dict[str, str] = {}

    def check(self, body: Body, policy: Policy) -> None:
        """Refuse a task for which there is no room; one that was posted before under its key is none more.

        Steps of plans and edited retries are not refused: they carry on what was posted before.

        Raises:
            Overloaded: says how many wait.
        """
        if policy.kind != "queue" or body.plan or body.retry_of:
            return
        waiting = [slot for state in WAITING for slot in self._store.scan(body.channel, state)]
        why = _full(body, policy, len(waiting)) or self._of_sender(body, policy, waiting)
        if why and not (body.key and self._store.has_key(body.key)):
            raise Overloaded(why, hint=HINT)

    def _of_sender(self, body: Body, policy: Policy, waiting: list[Slot]) -> str:
        most, agent = policy.max_waiting_by_sender, body.sender.agent
        if not most or len(waiting) < most:
            return ""
        looked = sorted(waiting, key=lambda slot: slot.id)[-LOOKED:]
        self._senders = {slot.id: self._sender(slot) for slot in looked}
        count = sum(sender == agent for sender in self._senders.values())
        if count < most:
            return ""
        said = f"{_many(count, f' of {agent!r}')} on {body.channel!r}"
        return f"{said}, and its rule max_waiting_by_sender is {most}"

    def _sender(self, slot: Slot) -> str:
        """Return who posted a waiting task; nobody where it moved, or cannot be read."""
        known = self._senders.get(slot.id, "")
        if not known:
            try:
                task = self._store.get(slot.id, at=slot)
            except (Conflict, CorruptRecord):
                return ""
            known = task.body.sender.agent if task is not None else ""
        return known


def _full(body: Body, policy: Policy, count: int) -> str:
    if not policy.max_waiting or count < policy.max_waiting:
        return ""
    return f"{_many(count)} on {body.channel!r}, and its rule max_waiting is {policy.max_waiting}"


def _many(count: int, whose: str = "") -> str:
    return f"1 task{whose} waits" if count == 1 else f"{count} tasks{whose} wait"
