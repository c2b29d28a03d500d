"""Nested work: what the worker of a task posts as its children has to end before the task can.

The children of a task are a record of their own, written before a child is posted: one that was not posted after all
has ended.  Depth is bounded, so that work which posts work comes to an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import BusError, Conflict, CorruptRecord, InvalidRequest, NotFound
from mcp_bus.find import latest, short
from mcp_bus.model import ENDED, State
from mcp_bus.operate import TRIES

if TYPE_CHECKING:
    from mcp_bus.model import Task
    from mcp_bus.operate import Operator
    from mcp_bus.stores.beside import Record

KIND = "children"
MAX_DEPTH = 8
MAX_CHILDREN = 200
SHOWN = 5


def parent_of(bus: Operator, name: str) -> Task:
    """Return a task that may have children: one that is being worked on, by this agent, and not nested too deeply.

    Raises:
        InvalidRequest: it may not.
    """
    parent = bus.sound(name)
    holder = parent.slot.lease.holder if parent.slot.lease and parent.state is State.LEASED else ""
    if not names.is_of(holder, bus.identity.agent):
        msg = f"{parent.id!r} is not held by {bus.identity.agent!r}, so nothing can be posted for it"
        raise InvalidRequest(msg, hint="claim it first, or post without a parent")
    if parent.body.depth >= MAX_DEPTH:
        msg = f"{parent.id!r} is nested {parent.body.depth} deep; {MAX_DEPTH} is the limit"
        raise InvalidRequest(msg, hint="do the work here, or give it back with what is left to do")
    return parent


def add(bus: Operator, parent: str, child: str) -> None:
    """Note a child of a task, before it is posted.

    Raises:
        InvalidRequest: it has too many.
    """
    for _ in range(TRIES):
        record = bus.store.records.read(KIND, parent)
        known = _ids(record)
        if child in known:
            return
        if len(known) >= MAX_CHILDREN:
            msg = f"{parent!r} has {MAX_CHILDREN} children"
            raise InvalidRequest(msg, hint="post fewer, larger ones")
        try:
            data = {"ids": [*known, child]}
            bus.store.records.write(KIND, parent, data, after=record.revision if record else 0, durable=True)
        except Conflict:
            continue
        return
    msg = f"the children of {parent!r} are being written by others all the time"
    raise Conflict(msg, hint="repeat the call")


def still_open(bus: Operator, parent: str) -> list[str]:
    """Return the children of a task that have not ended."""
    return [name for name in _ids(bus.store.records.read(KIND, parent)) if not _is_over(bus, name)]


def _ids(record: Record | None) -> list[str]:
    """Return what a record names; of one that is none, nothing."""
    ids = record.data.get("ids") if record is not None else None
    return [name for name in ids if isinstance(name, str)] if isinstance(ids, list) else []


def _is_over(bus: Operator, name: str) -> bool:
    from mcp_bus import plans  # noqa: PLC0415  what plans need is not for who has none

    try:
        if name.startswith("plan_"):
            return bool(plans.progress(bus, name)[1].over)
        task = latest(bus, name)
    except (NotFound, CorruptRecord):
        return True  # Its posting was cut off before it began; or it was edited, and is not moved on any more.
    except BusError:
        return False
    return task.state in ENDED and task.question is None


def forget(bus: Operator, parent: str) -> None:
    """Remove the record of a task that has ended; nobody asks for it any more."""
    if bus.store.records.read(KIND, parent) is not None:
        bus.store.records.remove(KIND, parent)


def check_ended(bus: Operator, parent: str) -> None:
    """Refuse to finish a task before its children.

    Raises:
        Conflict: names those that have not ended.
    """
    left = still_open(bus, parent)
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        msg = f"{len(left)} that were posted for {parent!r} have not ended: {', '.join(map(short, left[:SHOWN]))}{more}"
        raise Conflict(msg, hint="wait for them, or cancel them; then submit again")
