"""Plans as records: what was planned, written once, and how far it is, replaced by compare-and-swap."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from mcp_bus import planfile, wire
from mcp_bus.errors import CorruptRecord, NotFound
from mcp_bus.find import short
from mcp_bus.model import PLANS, PROGRESS
from mcp_bus.plan import NEW, SETTLED, Node, Plan, Progress, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.operate import Operator


def resolve(bus: Operator, text: object) -> str:
    """Return the full id of a plan, from any beginning or end of it that only one has.

    Raises:
        NotFound: there is none, or several.
    """
    known = bus.store.records.names(PLANS)
    word = str(text)
    found = [name for name in known if name == word]
    if not found and len(word) >= 3:
        begins = (word, f"plan_{word}")
        found = [n for n in known if n.startswith(begins) or n.endswith(word) or short(n).startswith(word)]
    if len(found) != 1:
        what = f"{len(found)} plans begin or end with" if found else "there is no plan"
        msg = f"{what} {word[:60]!r}"
        raise NotFound(msg, hint="`plan list` shows them; any beginning or end of an id will do that only one has")
    return found[0]


def read(bus: Operator, plan_id: str) -> Plan:
    """Return a plan by its full id.

    Raises:
        NotFound: there is none.
        CorruptRecord: what is there is no plan.
    """
    return load(bus, plan_id)[0]


def load(bus: Operator, plan_id: str) -> tuple[Plan, str]:
    """Return a plan and the sha256 of its record, in hex; raises as `read` does."""
    record = bus.store.records.read(PLANS, plan_id)
    if record is None:
        msg = f"there is no plan {plan_id!r}"
        raise NotFound(msg, hint="`plan list` shows them")
    plan = planfile.load(record.data)
    if plan.id != plan_id:
        msg = f"the plan {plan_id!r} says that it is {plan.id[:60]!r}"
        raise CorruptRecord(msg)
    return plan, hashlib.sha256(wire.dumps(dict(record.data))).hexdigest()


def progress(bus: Operator, plan_id: str) -> tuple[Plan, Progress]:
    """Return a plan, and how far it is by the last word of whoever moved it on.

    Raises:
        NotFound: there is no such plan.
        CorruptRecord: it was edited after it was posted, or is none.
    """
    plan, digest = load(bus, plan_id)
    return plan, standing(bus, plan, digest)[0]


def standing(bus: Operator, plan: Plan, digest: str) -> tuple[Progress, int]:
    """Return how far a plan is, and the revision that says so; 0 for none yet.

    Raises:
        CorruptRecord: the plan was edited after it was posted, or nobody could have posted it.
    """
    record = bus.store.records.read(PROGRESS, plan.id)
    if record is None:
        planfile.check(plan)  # Whoever wrote the first progress had done so.
        return Progress(), 0
    if record.data.get("plan_sha256") != digest:
        msg = f"the plan {plan.id!r} was edited after it was posted, and is not moved on"
        raise CorruptRecord(msg, hint="put the old text back, or cancel what it posted and post the new one as a plan")
    try:
        nodes = {name: _node(record.data["nodes"][name]) for name in plan.by_name if name in record.data["nodes"]}
        made = Progress(nodes, str(record.data["stopped"]), int(record.data["over"]))
        if made.over and any(made.stage(step.name) not in SETTLED for step in plan.steps):
            msg = "it is over, and not all of its steps are"
            raise ValueError(msg)  # noqa: TRY301  one place says what is no progress
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        msg = f"the progress of {plan.id!r} is none: {error}"
        raise CorruptRecord(msg, hint="remove it, and it is found again from the tasks") from None
    return made, record.revision


def over_since(bus: Operator) -> dict[str, int]:
    """Return when plans were over, by their progress alone; 0 for those that are not."""
    found = {name: record.data.get("over") for name, record in bus.store.records.all(PROGRESS).items()}
    return {name: over if type(over) is int else 0 for name, over in found.items()}


def _node(item: Mapping[str, Any]) -> Node:
    made = Node(**{**item, "stage": Stage(item["stage"])})
    if any(type(value) is not type(default) for value, default in zip(made[1:], NEW[1:], strict=True)):
        msg = f"{made} is no step"
        raise TypeError(msg)
    return made


def save(bus: Operator, plan: Plan, made: Progress, digest: str, after: int) -> None:
    """Write down how far a plan is.

    Raises:
        Conflict: someone else did meanwhile.
    """
    nodes = {
        name: {field: value for field, value in node._asdict().items() if value or field == "run"}
        for name, node in made.nodes.items()
    }
    data = {"plan_sha256": digest, "stopped": made.stopped, "over": made.over, "nodes": nodes}
    bus.store.records.write(PROGRESS, plan.id, data, after=after, durable=True)
