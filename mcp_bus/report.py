"""What became of a plan: each step with who, how long and why; and a document of what was done."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import access, plans, wire
from mcp_bus.crew import Crew
from mcp_bus.errors import BusError, NotFound
from mcp_bus.find import short
from mcp_bus.model import Outcome, State
from mcp_bus.plain import clean, cut
from mcp_bus.plan import (
    NEW,
    SETTLED,
    Node,
    Plan,
    Progress,
    Stage,
    Step,
    counts,
    critical_path,
    is_absent,
    is_chosen,
    ordered,
    outcome,
)
from mcp_bus.release import task_of

if TYPE_CHECKING:
    from mcp_bus.model import Task
    from mcp_bus.operate import Operator

WHY = 600


class Row(NamedTuple):
    """A step as it stands.

    Attributes:
        stage: where it is; of a released one also how its task is: `ready`, `leased`, `scheduled`, `blocked`.
        who: who did it, or has it.
        why: of what did not get done, or waits for a person; harmless text.
        took: milliseconds from its release until it was settled, or until now.
        is_critical: whether it is on the chain of steps that took longest.
    """

    step: Step
    node: Node
    stage: str
    who: str
    why: str
    took: int
    is_critical: bool


def rows(bus: Operator, plan: Plan, progress: Progress) -> list[Row]:
    """Return every step, each after those it waits for."""
    crew, critical = Crew(bus), set(critical_path(plan, progress, bus.source.now()))
    made = [
        _row(bus, plan, step, progress.nodes.get(step.name, NEW), step.name in critical) for step in ordered(plan.steps)
    ]
    return [
        row._replace(why=cut(clean(f"no live worker can do {', '.join(row.step.requires)}"), WHY))
        if row.stage == "ready" and row.step.requires and not row.why and not crew.is_able(row.step.requires)
        else row
        for row in made
    ]


def _row(bus: Operator, plan: Plan, step: Step, node: Node, is_critical: bool) -> Row:  # noqa: FBT001  a column
    stage, who, why, attempts = str(node.stage), node.by, node.why, node.attempts
    if node.stage is Stage.RELEASED:
        stage, who, why, attempts = _released(bus, plan, step, node)
    if why:
        why = access.barred(bus, step.channel, plan.owner) or why
    took = max(0, (node.ended or bus.source.now()) - node.released) if node.released else 0
    is_critical = is_critical and node.released > 0
    shown = node._replace(attempts=attempts)
    return Row(step, shown, stage, clean(who), cut(clean(why), WHY), took, is_critical)


def _released(bus: Operator, plan: Plan, step: Step, node: Node) -> tuple[str, str, str, int]:
    try:
        task = brought(bus, plan, step, node)
    except BusError as error:
        return "released", "", str(error), node.attempts
    last = task.history[-1] if task.history else None
    if task.question is not None:
        return "blocked", task.question.by, task.question.note, task.slot.attempt
    if task.state is State.DONE:  # Just now; or it waits for its check, which is then said.
        stage = "unverified" if node.why else "released"
        return stage, task.result.sender.agent if task.result else "", node.why, task.slot.attempt
    who = task.slot.lease.holder if task.slot.lease and task.state is State.LEASED else ""
    why = last.note if last is not None else ""
    if why and last is not None and last.outcome is not Outcome.PROGRESS:  # What was, not what is.
        why = f"attempt {last.attempt} {last.outcome}: {why}"
    return str(task.state), who, why, task.slot.attempt


def brought(bus: Operator, plan: Plan, step: Step, node: Node) -> Task:
    """Return the task of a step as this session may see it.

    Raises:
        BusError: it cannot be read, or is not of this step, whatever the plan's progress says.
    """
    task = task_of(bus, plan, step, node)
    if task is None:
        msg = f"the task of {step.name!r} is gone, or is not this step's"
        raise NotFound(msg)
    return access.shown(bus, task)


def fields(bus: Operator, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return a plan and how it stands as JSON data."""
    made = rows(bus, plan, progress)
    return {
        "id": plan.id,
        "short": short(plan.id),
        "goal": plan.goal,
        "owner": plan.owner,
        "created": wire.stamp(plan.created),
        "state": outcome(plan, progress),
        "why": progress.stopped or None,
        "over": wire.stamp(progress.over) if progress.over else None,
        "counts": counts(plan, progress),
        "parent": plan.parent or None,
        "critical_path": [row.step.name for row in made if row.is_critical],
        "missing": missing(plan, progress),
        "steps": [_fields(row) for row in made],
    }


def _fields(row: Row) -> dict[str, Any]:
    step, node = row.step, row.node
    return {
        "name": step.name,
        "state": row.stage,
        "after": list(step.after),
        "requires": list(step.requires),
        "task": node.task or None,
        "run": node.run,
        "attempts": node.attempts,
        "who": row.who or None,
        "why": row.why or None,
        "released": wire.stamp(node.released) if node.released else None,
        "ended": wire.stamp(node.ended) if node.ended else None,
        "took_s": round(row.took / 1000, 3),
    }


def missing(plan: Plan, progress: Progress) -> list[str]:
    """Return the capabilities that no worker had: what to build next."""
    skipped = (step for step in plan.steps if is_absent(progress.nodes.get(step.name, NEW)))
    return sorted({clean(word) for step in skipped for word in step.requires})


def synthesis(bus: Operator, plan: Plan, progress: Progress) -> str:
    """Return a document in Markdown: what was done, step by step, and the gaps by name.

    Results are text of others; lines of theirs stand in blocks that they cannot end.
    """
    made = rows(bus, plan, progress)
    done = [row for row in made if row.node.stage is Stage.DONE]
    chosen = [row for row in made if is_chosen(row.node)]
    gaps = [row for row in made if row.node.stage is not Stage.DONE and row not in chosen]
    lines = [f"# {heading(plan.goal)}", "", f"{outcome(plan, progress)}: {len(done)} of {len(made)} steps done."]
    if gaps:
        lines += ["", "## Gaps", ""]
        lines += [f"- **{row.step.name}** {row.stage}{f': {span(row.why)}' if row.why else ''}" for row in gaps]
    absent = missing(plan, progress)
    if absent:
        lines += ["", f"No worker could do: {', '.join(map(span, absent))}."]
    if chosen:
        lines += ["", f"Left out by choice: {', '.join(row.step.name for row in chosen)}."]
    for row in done:
        who = f"By {span(row.who)}, task {span(short(row.node.task))}."
        lines += ["", f"## {row.step.name}", "", who, "", *_block(bus, plan, row)]
    return "\n".join(lines) + "\n"


def heading(text: str) -> str:
    """Return a line of others, such as a goal, without what Markdown would make something of."""
    return re.sub(r"([\\`*_\[\]<>!#|&()~@$:])", r"\\\1", clean(text)).replace("www.", "www\\.")


def span(text: str) -> str:
    """Return words of others as Markdown that shows them as they are: nothing in a span of code is a link, or acts."""
    inner = clean(text).replace("`", "'")
    return f"`{inner}`"


def fenced(text: str) -> list[str]:
    """Return text of others as the lines of a block that it cannot end."""
    text = clean(text, multiline=True)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence, text, fence]


def _block(bus: Operator, plan: Plan, row: Row) -> list[str]:
    try:
        task = brought(bus, plan, row.step, row.node)
    except BusError as error:
        return [f"(its result cannot be read: {clean(str(error))})"]
    files = [
        f"- {span(item.path)}, {item.size} bytes, sha256 {span(item.sha256)}"
        for item in (task.result.artifacts if task.result else ())
    ]
    text = task.result.content if task.result else ""
    return [*fenced(text), *(["", "Files:", "", *files] if files else [])]


def line(plan: Plan, progress: Progress) -> str:
    """Return how a plan stands in a line: `running: 3 of 8 steps done, 2 released, 1 skipped`."""
    number = counts(plan, progress)
    rest = [f"{number[stage]} {stage}" for stage in Stage if stage is not Stage.DONE and number[stage]]
    return ", ".join([f"{outcome(plan, progress)}: {number[Stage.DONE]} of {len(plan.steps)} steps done", *rest])


def moved(bus: Operator, task: Task) -> str:
    """Say what the end of a task did to its plan; empty for none."""
    try:
        made, progress = plans.progress(bus, task.body.plan)
    except BusError:
        return ""
    freed = [
        name
        for name, node in progress.nodes.items()
        if node.stage is Stage.RELEASED and task.body.node in made.by_name[name].after
    ]
    released = f"; released: {', '.join(freed[:8])}" if freed else ""
    return f"plan {short(made.id)} {line(made, progress)}{released}"


def is_settled(row: Row) -> bool:
    """Tell whether a step will not change by itself."""
    return row.node.stage in SETTLED
