"""Plans with steps on signed channels: signed by their owner, for whoever moves one on signs its steps in that name.

A plan's record and its progress can be written by anyone who can write the bus.  Without this, whoever has the
owner's key would sign whatever somebody else wrote into them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import planfile, wire
from mcp_bus.errors import Conflict, InvalidRequest, UnknownKey, Unverified
from mcp_bus.model import PLANS
from mcp_bus.stores.base import Claim

if TYPE_CHECKING:
    from mcp_bus.model import Task
    from mcp_bus.operate import Operator
    from mcp_bus.plan import Plan, Step

# The kind of record that a plan's signature is.
SEALS = "plans.signed"


def is_signed(bus: Operator, channel: str) -> bool:
    """Tell whether what is posted on a channel is signed, as far as this user knows or remembers."""
    return bus.store.guarded(channel).signed


def closed(bus: Operator, step: Step) -> str:
    """Return why a step may not be posted as one: its channel is encrypted, and plans are not; empty if it may.

    Raises:
        CorruptRecord, Untrusted: what its channel is cannot be told.
    """
    known = bus.store.guarded(step.channel)
    if known.to:
        return f"the step {step.name!r} is for {step.channel!r}, which is encrypted, and plans are plain text"
    if known.doubt is not None:
        raise known.doubt
    return ""


def check(bus: Operator, plan: Plan) -> None:
    """Refuse a plan before anything of it is written down.

    Raises:
        InvalidRequest: a step is for an encrypted channel.
        CorruptRecord, Untrusted: what a step's channel is cannot be told.
    """
    why = next(filter(None, (closed(bus, step) for step in plan.steps)), "")
    if why:
        raise InvalidRequest(why, hint="post what is secret as a task of its own, without a plan")


def write(bus: Operator, plan: Plan) -> None:
    """Write a new plan down, after its signature if a step of it is for a signed channel.

    Raises:
        Conflict: it is there already.
        NoKey: its owner has no key here.
    """
    data, records, guard = planfile.dump(plan), bus.store.records, bus.store.guard
    if guard is not None and any(is_signed(bus, step.channel) for step in plan.steps):
        if records.read(PLANS, plan.id) is not None:
            msg = f"the plan {plan.id!r} was posted before"
            raise Conflict(msg)
        known = records.read(SEALS, plan.id)  # Of a post that was cut off here.
        seal = guard.seal(_claim(plan), wire.dumps(dict(data))).decode()
        records.write(SEALS, plan.id, {"jws": seal}, after=known.revision if known else 0, durable=True)
    records.write(PLANS, plan.id, data, after=0, durable=True)


def wrong(bus: Operator, plan: Plan) -> str:
    """Return why a plan's steps may not be signed in its owner's name; empty if they may.

    Raises:
        UnknownKey: nobody here knows the owner's key; others may.
    """
    record, seal = bus.store.records.read(PLANS, plan.id), bus.store.records.read(SEALS, plan.id)
    found = seal.data.get("jws") if seal is not None else None
    if record is None or bus.store.guard is None or not isinstance(found, str) or planfile.load(record.data) != plan:
        return "the plan is not signed by its owner"
    try:
        bus.store.guard.check(_claim(plan), wire.dumps(dict(record.data)), found.encode(errors="replace"))
    except UnknownKey:
        raise
    except Unverified as error:
        return f"the plan is not signed by its owner: {error}"
    return ""


def is_of(plan: Plan, step: Step, task: Task) -> bool:
    """Tell whether a task is the one of a step: progress, which anyone may have written, may name any.

    The task itself says so, with a proof where its channel is signed.  An encrypted one never is: what is opened of it
    would be written down in plain text.
    """
    body, result = task.body, task.result
    is_said = (body.plan, body.node, task.channel) == (plan.id, step.name, step.channel)
    is_proven = task.proof is None or bool(task.proof.body)
    return is_said and is_proven and body.encrypted is None and (result is None or result.encrypted is None)


def _claim(plan: Plan) -> Claim:
    return Claim("plan", plan.id, PLANS, plan.owner, plan.owner, plan.created)
