"""What the task of a plan's step has come to, and whether that counts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import lifecycle
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest
from mcp_bus.find import unsound
from mcp_bus.model import WAITING, Attempt, Outcome, State
from mcp_bus.plan import CANCELLED, Node, Stage, Why
from mcp_bus.release import task_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.crew import Crew
    from mcp_bus.model import Task
    from mcp_bus.operate import Operator
    from mcp_bus.plan import Plan, Step

    Verify = Callable[[Step, Task], str]

TIMED_OUT = "timed out: not done within"


class Look(NamedTuple):
    """One look at a plan, by whoever moves it on."""

    bus: Operator
    plan: Plan
    verify: Verify | None
    crew: Crew


def settled(look: Look, step: Step, node: Node, stopped: str) -> Node:
    """Return how a released step stands, by its task and its check."""
    return _verified(look, step, _absorbed(look, step, node, stopped), stopped)


def _absorbed(look: Look, step: Step, node: Node, stopped: str) -> Node:
    """Return how a released step stands by its task; a task that waits in vain is taken back."""
    bus = look.bus
    try:
        task = task_of(bus, look.plan, step, node)
    except CorruptRecord as error:
        return node._replace(stage=Stage.FAILED, why=f"its task cannot be read: {error}"[:500], ended=bus.source.now())
    if task is None:
        return node._replace(stage=Stage.FAILED, why="its task is gone, or is not this step's", ended=bus.source.now())
    if task.state in (State.READY, State.SCHEDULED, State.LEASED):
        why = _in_vain(look, step, node, task, stopped)
        if not why:
            return node._replace(task=task.id)
        task = _taken_back(bus, task, why)
    made = ended(node, task)
    if made.stage is Stage.RELEASED and task.state is State.DEAD:  # Blocked: it waits for a person, but not for ever.
        why = _in_vain(look, step, node, task, stopped)
        stage = Stage.SKIPPED if why.startswith(Why.STOPPED) else Stage.FAILED
        made = made._replace(stage=stage, why=why, ended=bus.source.now()) if why else made
    return made


def _verified(look: Look, step: Step, node: Node, stopped: str) -> Node:
    """Hold a done step that has a check back until it was run; what does not pass is done anew, within its attempts."""
    if node.stage is not Stage.DONE or not step.verify:
        return node
    task = task_of(look.bus, look.plan, step, node)
    if stopped:
        return node._replace(stage=Stage.FAILED, why="its check was not run before the plan was stopped")
    why, wrong = "its check was not run yet", ""
    if look.verify is not None and task is not None:
        try:
            why, wrong = "", look.verify(step, task)
        except InvalidRequest as error:  # It says nothing of the result, nor of the other steps.
            why = str(error)
    if why:
        return node._replace(stage=Stage.RELEASED, why=why[:500], by="", ended=0)
    if not wrong:
        return node._replace(why="")
    if node.run >= step.max_attempts:
        return node._replace(stage=Stage.FAILED, why=wrong[:500])
    return Node(Stage.WAITING, node.run + 1, why=f"the last result: {wrong}"[:500])


def ended(node: Node, task: Task) -> Node:
    """Return how a step stands by its task: settled, or not if a person is to answer, or it is worked on."""
    last = task.history[-1] if task.history else None
    done = node._replace(task=task.id, attempts=task.slot.attempt)
    if task.state is State.DONE and task.result is not None:
        done = done._replace(stage=Stage.DONE, by=task.result.sender.agent, ended=task.result.at)
        if task.result.status == "error":
            done = done._replace(stage=Stage.FAILED, why=f"answered with an error: {task.result.error}"[:500])
        return done
    if task.question is not None:
        return done
    if why := unsound(task):
        return done._replace(stage=Stage.FAILED, why=why[:500], ended=last.at if last else task.body.created)
    if task.state not in (State.DEAD, State.CANCELLED, State.EXPIRED) or last is None:
        return done
    stage = Stage.SKIPPED if last.outcome is Outcome.SKIPPED else Stage.FAILED
    if task.state is State.CANCELLED and last.outcome is Outcome.EXPIRED:  # Its step's own time was up.
        return done._replace(stage=stage, why=last.note[:500], ended=last.at)
    why = last.note if stage is Stage.SKIPPED else f"{last.outcome}: {last.note}" if last.note else str(last.outcome)
    return done._replace(stage=stage, why=why[:500], by=last.by if stage is Stage.FAILED else "", ended=last.at)


def _in_vain(look: Look, step: Step, node: Node, task: Task, stopped: str) -> str:
    """Return why a task that has not ended should be taken back; empty if it should not."""
    now, is_waiting, grace = look.bus.source.now(), task.state in WAITING, int(look.plan.grace_s * 1000)
    if stopped and (is_waiting or stopped.startswith(CANCELLED) or task.state is State.DEAD):
        return f"{Why.STOPPED}: {stopped}"
    if step.timeout_s and now >= node.released + int(step.timeout_s * 1000):
        who = f", by {task.slot.lease.holder} who had it" if task.slot.lease else ""
        return f"{TIMED_OUT} {step.timeout_s:g} s{who}"
    if task.state is not State.READY or not step.requires or look.crew.at < node.released + grace:
        return ""
    if look.crew.is_able(step.requires, grace):
        return ""
    last = next((line for line in reversed(task.history) if line.outcome in (Outcome.FAILED, Outcome.LAPSED)), None)
    before = f"; its last attempt {last.outcome}: {last.note[:200]}" if last is not None else ""
    return f"{Why.ABSENT}: no live worker can do {', '.join(step.requires)}{before}"


def _taken_back(bus: Operator, task: Task, why: str) -> Task:
    """End a task that is not to be done any more, if it has not moved; return it as it is now (rule C4)."""
    is_skip = why.startswith((Why.ABSENT, Why.STOPPED))
    line = Attempt(
        task.slot.attempt,
        Outcome.SKIPPED if is_skip else Outcome.EXPIRED,
        bus.source.now(),
        bus.identity.agent,
        why,
        task.slot.lease.token if task.slot.lease else "",
    )
    with suppress(Conflict):
        bus.store.swap(task.slot, lifecycle.cancel(task.slot, now=bus.source.now()), line)
    return bus.whole(task.id)
