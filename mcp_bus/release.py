"""How a step of a plan becomes a task: its text filled in, with what the steps before it brought."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import draft, find, refs, sealed, wire
from mcp_bus.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from mcp_bus.model import DAY, Body
from mcp_bus.plan import Node, Progress, Stage, Why

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.model import Result, Task
    from mcp_bus.operate import Operator
    from mcp_bus.plan import Plan, Step

# Results put into one task in all.
INLINE_ALL = 64 * 1024
# What was written and cannot be read again would be in the way for ever.
MAX_TASK = wire.MAX_FILE
# Files named in one task in all; the results have the rest.
MAX_FILES = 100
# A task that is posted to be won is due after this long, and taken back before.
HELD = 365 * DAY


def release(
    bus: Operator, plan: Plan, step: Step, before: Node, made: Progress, *, is_held: bool = False
) -> tuple[Node, bool]:
    """Post a step as a task (rule C2), unless its condition does not hold or it cannot be posted.

    Args:
        before: how it stood: the run that comes, and what was wrong with the last one.
        is_held: whether the task is to be won, and not to be done (rule G7): posted so that nobody can claim it.

    Returns:
        How the step stands, and whether the task had been posted before, so that it may have ended already.
    """
    now, run, is_signed = bus.source.now(), before.run, sealed.is_signed(bus, step.channel)
    why = sealed.closed(bus, step) or (sealed.wrong(bus, plan) if is_signed else "")
    if why:
        return Node(Stage.FAILED, run, why=why[:500], ended=now), False
    asked = [*step.after, *(item.step for item in refs.references(step.body))]
    asked += [refs.condition(step.when).of.step] if step.when else []
    results = {name: _result(bus, plan, made.nodes[name], name) for name in dict.fromkeys(asked)}
    texts = {name: result.content for name, result in results.items() if result is not None}
    if step.when and not refs.holds(step.when, texts):
        lacks = refs.lacks(refs.condition(step.when).of, texts)
        why = f"{Why.CONDITION}: not so: {step.when}{f' ({lacks})' if lacks else ''}"
        return Node(Stage.SKIPPED, run, why=why, ended=now), False
    inputs, room, files = list[dict[str, Any]](), INLINE_ALL, MAX_FILES
    whole = {item.step for item in refs.references(step.body) if not item.path}
    for name, result in results.items():
        # Why a step failed is in its progress, which nobody signed, and this task says in its owner's name.
        node = made.nodes[name]._replace(why="") if is_signed else made.nodes[name]
        inputs.append(_input(bus, name, node, result, (room, files)))
        room -= len(inputs[-1].get("result", ""))
        files -= len(inputs[-1].get("artifacts", ()))
        inputs[-1] |= {"in_body": True} if name in whole and "result" in inputs[-1] else {}
    if before.why and not is_signed:
        inputs.append({"step": step.name, "stage": str(Stage.FAILED), "why": before.why})
    shown = {item["step"]: item.get("result") or _elsewhere(item) for item in inputs}
    large = {name: shown[name] for name, text in texts.items() if len(text.encode(errors="replace")) > refs.INLINE}
    try:
        text = draft.check_size(refs.fill(step.body, texts, large), "body")
        task, is_known = _post(bus, plan, step, run, _Made(text, tuple(inputs), HELD if is_held else 0, is_signed))
    except (InvalidRequest, NotAllowed) as error:
        return Node(Stage.FAILED, run, why=f"it could not be posted: {error}", ended=now), False
    return Node(Stage.RELEASED, run, task.id, released=task.created), is_known


class _Made(NamedTuple):
    """What a task is given besides what its step says.

    Attributes:
        held: for how long nobody can claim it, in milliseconds.
        is_signed: whether it may be signed: its plan is.
    """

    content: str
    inputs: tuple[Mapping[str, Any], ...]
    held: int
    is_signed: bool


def _post(bus: Operator, plan: Plan, step: Step, run: int, filled: _Made) -> tuple[Body, bool]:
    bus.store.declare(step.channel)
    policy = bus.store.policy(step.channel)
    if sealed.is_signed(bus, step.channel) != filled.is_signed:  # It was made just now, also by this very post.
        msg = f"{step.channel!r} became signed meanwhile"
        raise Conflict(msg, hint="repeat the call")
    if policy.kind != "queue":
        msg = f"{step.channel!r} is a {policy.kind}"
        raise InvalidRequest(msg)
    now = bus.source.now()
    made = Body(
        id=bus.ids.next(),
        channel=step.channel,
        content=filled.content,
        sender=bus.sender()._replace(agent=plan.owner),
        created=now,
        not_before=now + filled.held if filled.held else 0,
        title=step.title or f"{step.name}: {plan.goal}"[: draft.MAX_TITLE],
        thread=plan.id,
        priority=step.priority,
        max_attempts=step.max_attempts,
        backoff_s=step.backoff_s,
        requires=step.requires,
        key=draft.key_of(f"\x01{plan.id}", f"{step.name} {run}"),  # No agent is called so.
        plan=plan.id,
        node=step.name,
        depth=plan.depth,
        inputs=filled.inputs,
        result_schema=step.result_schema,
        claims=step.claims,
    )
    if len(wire.dump_body(made)) > MAX_TASK:
        msg = "what came before it is more than a task can hold"
        raise InvalidRequest(msg)
    kept = bus.put(made)
    return kept, kept.id != made.id


def _result(bus: Operator, plan: Plan, node: Node, name: str) -> Result | None:
    if node.stage is not Stage.DONE:
        return None
    task = task_of(bus, plan, plan.by_name[name], node)
    return task.result if task is not None else None


def _input(bus: Operator, name: str, node: Node, result: Result | None, left: tuple[int, int]) -> dict[str, Any]:
    """Return what a step brought: its result, or where that is with size and hash, or why there is none.

    Args:
        left: how many characters, and how many files, its task can still take.
    """
    room, files = left
    made: dict[str, Any] = {"step": name, "stage": str(node.stage)}
    if result is None:
        return made | {"why": node.why or "its result is gone"}
    data = result.content.encode()
    made |= {"task": result.id, "by": result.sender.agent, "size": len(data)}
    made |= {"sha256": hashlib.sha256(data).hexdigest()}
    if result.artifacts:
        made["artifacts"] = [item._asdict() for item in result.artifacts[: max(0, files)]]
    if len(data) <= refs.INLINE and len(data) <= room:
        return made | {"result": result.content}
    task = bus.whole(result.id)
    return made | {"path": f"channels/{task.channel}/responses/{result.id}.json"}


def _elsewhere(item: Mapping[str, Any]) -> str:
    about = f"{item.get('size', 0)} bytes, sha256 {item.get('sha256')}"
    return f"(the result of {item['step']}: {about}; it is the field `result` of {item.get('path')} in the bus)"


def task_of(bus: Operator, plan: Plan, step: Step, node: Node) -> Task | None:
    """Return the task of a step, or the one that took its place; None if it is gone, or is not of this step."""
    try:
        task = find.latest(bus, node.task)
    except NotFound:
        return None
    return task if sealed.is_of(plan, step, task) else None
