"""Plans for models: posting one, waiting for it, and what a worker is told of what came before its step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from mcp_bus import conductor, plans, report
from mcp_bus.crew import Crew
from mcp_bus.errors import BusError, InvalidRequest, NotFound
from mcp_bus.find import short
from mcp_bus.model import Artifact
from mcp_bus.plain import duration
from mcp_bus.plan import SETTLED, Stage, outcome
from mcp_bus.server.words import MAX_ANSWER, Ways, quoted, room, said

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.plan import Plan
    from mcp_bus.report import Row
    from mcp_bus.server import args
    from mcp_bus.server.call import Call

# Steps that an answer lists; characters of a schema, and of each input, that a worker is shown.
MAX_STEPS = 60
MAX_SCHEMA = 1500
MAX_INPUT = 1200
MAX_FILES = 5


async def post_plan(call: Call, given: args.PostPlan) -> str:
    """Post a plan."""
    data: dict[str, Any] = {"goal": given.goal, "steps": [step.model_dump(exclude_unset=True) for step in given.steps]}
    if given.grace_s is not None:
        data["grace_s"] = given.grace_s
    if given.channel:
        data["channel"] = given.channel
    made = conductor.post(call.bus, data, key=given.key, parent=given.parent)
    return _posted(call.bus, made, call.ways)


def _posted(bus: Bus, made: Plan, ways: Ways) -> str:
    progress = plans.progress(bus, made.id)[1]
    lines = [f"plan {short(made.id)} {report.line(made, progress)}"]
    crew = Crew(bus)
    absent = sorted({word for step in made.steps for word in step.requires if not crew.is_able((word,))})
    if absent:
        lines.append(
            f"no live worker can do {said(', '.join(absent), 200)} now; a step waits {made.grace_s:g} s for one, "
            "then it is skipped"
        )
    following = ways.first(f'await_results(tasks=["{short(made.id)}"])', "go on with your own work")
    return "\n".join([*lines, f"next: {following}"])


def find(bus: Bus, name: str) -> str:
    """Return the id of the plan that a name stands for; empty if it is none."""
    try:
        return plans.resolve(bus, name)
    except NotFound:
        return ""


async def wait(call: Call, plan_id: str, wait_s: float) -> str:
    """Wait until a plan is over, moving it on meanwhile."""
    start = anyio.current_time()
    made = plans.read(call.bus, plan_id)

    def look() -> bool | None:
        call.session.tend()
        progress = conductor.advance(call.session.bus(), plan_id)[1]
        return True if progress.over else None

    async def progress(_: float) -> None:
        known = plans.progress(call.session.bus(), plan_id)[1]
        done = sum(node.stage in SETTLED for node in known.nodes.values())
        await call.progress(done, len(made.steps), report.line(made, known))

    channels = sorted({step.channel for step in made.steps})
    await call.session.waker.wait_for(call.session.bus, look, channels=channels, wait_s=wait_s, progress=progress)
    return shown(call.session.bus(), plan_id, call.ways, waited_s=anyio.current_time() - start)


def shown(bus: Bus, plan_id: str, ways: Ways, *, waited_s: float | None = None) -> str:
    """Answer with how a plan stands; when it is over, with what its last steps brought."""
    made, progress = conductor.advance(bus, plan_id)
    rows = report.rows(bus, made, progress)
    waited = "" if waited_s is None else f", waited {waited_s:.0f} s"
    lines = [f"plan {short(made.id)} {report.line(made, progress)}{waited}", f"goal: {said(made.goal, 200)}"]
    lines += [_step(row) for row in rows[:MAX_STEPS]]
    lines += [f"and {len(rows) - MAX_STEPS} more steps"] if len(rows) > MAX_STEPS else []
    absent = report.missing(made, progress)
    lines += [f"no worker could do: {said(', '.join(absent), 200)}"] if absent else []
    name = short(made.id)
    if not progress.over:
        blocked = next((row for row in rows if row.stage == "blocked"), None)
        wish = f'await_results(tasks=["{name}"])'
        if blocked:
            wish = f'control_task(task="{short(blocked.node.task)}", action="retry", note="the answer")'
        return "\n".join([*lines, f"next: {ways.first(wish, 'go on; it moves by itself')}"])
    lines += _brought(bus, made, rows, ways, "\n".join(lines))
    good = outcome(made, progress) == "done"
    retry = f'control_task(task="{name}", action="retry") tries again what failed, or use what there is'
    following = "use the results" if good else ways.first(retry, "use what there is")
    return "\n".join([*lines, f"next: {following}"])


def _step(row: Row) -> str:
    words = [f"- {row.step.name} {row.stage}"]
    words += [f"task {short(row.node.task)}"] if row.node.task else []
    words += [f"by {said(row.who, 60)}"] if row.who else []
    words += [f"attempt {row.node.attempts}"] if row.node.attempts > 1 else []
    words += [duration(row.took)] if row.took >= 1000 else []
    words += [f"after {', '.join(row.step.after[:6])}"] if row.step.after and row.stage == "waiting" else []
    words += [said(row.why, 100)] if row.why and row.stage != "leased" else []
    return ", ".join(words)


def _brought(bus: Bus, made: Plan, rows: list[Row], ways: Ways, told: str) -> list[str]:
    """Show the results of done steps that no other step comes after."""
    needed = {need for row in rows for need in row.step.after}
    last = [row for row in rows if row.node.stage is Stage.DONE and row.step.name not in needed]
    share = max(200, (MAX_ANSWER - 1000 - len(told)) // max(1, len(last)))
    lines: list[str] = []
    for row in last:
        try:
            task = report.brought(bus, made, row.step, row.node)
        except BusError:
            continue
        text = task.result.content if task.result else ""
        block = quoted(text, bus.source.token(6), limit=share, more=ways.rest(task.id))
        if len(told) + sum(len(item) + 1 for item in lines) + len(block) > MAX_ANSWER - 600:
            return [*lines, "results that do not fit here: get_task shows each"]
        lines += [f"result of {row.step.name}:", block]
    return lines


def controlled(bus: Bus, plan_id: str, action: str, note: str, ways: Ways) -> str:
    """Answer `control_task` for a plan.

    Raises:
        InvalidRequest: a plan has no such action.
    """
    if action == "cancel":
        conductor.cancel(bus, plan_id, note)
    elif action == "retry":
        conductor.retry(bus, plan_id)
    else:
        msg = f"a plan has no action {action!r}"
        raise InvalidRequest(msg, hint="cancel it, or retry what failed; its tasks have the other actions")
    return shown(bus, plan_id, ways)


# --- for workers ------------------------------------------------------------------------------------


def contract(task: Task, mark: str) -> list[str]:
    """Say what a result must be, to whoever claimed a task."""
    body, lines = task.body, list[str]()
    if body.result_schema is not None:
        text = json.dumps(body.result_schema, ensure_ascii=False, separators=(",", ":"))
        more = ", and a result that does not meet it comes back with what is wrong"
        lines += ["the result must be JSON that meets this schema:", quoted(text, mark, limit=MAX_SCHEMA, more=more)]
    if body.claims:
        lines.append(
            'the result has a list "claims", each with "text" and "label": FACT (with "evidence", a list of ids), '
            "INFERENCE, ASSUMPTION or UNKNOWN"
        )
    return lines


def inputs(task: Task, mark: str, ways: Ways, lines: list[str]) -> list[str]:
    """Say what the steps before a task brought, as far as its text does not already."""
    made: list[str] = []
    for item in task.body.inputs:
        name, text, source = (item.get(key) for key in ("step", "result", "task"))
        head = f"input {said(str(name), 60)}, {said(str(item.get('stage')), 20)}"
        if isinstance(item.get("by"), str):
            head += f" by {said(item['by'], 60)}"
        if isinstance(text, str) and item.get("in_body") is True:
            made.append(f"{head}: in the text below")
        elif isinstance(text, str):
            more = ways.rest(str(source)) if isinstance(source, str) else ""
            left = max(200, min(MAX_INPUT, room([*lines, *made]) // 3))
            made += [f"{head}:", quoted(text, mark, limit=left, more=more)]
        elif isinstance(source, str):
            look = ways.first(f'get_task(task="{short(source)}") shows it; ', "")
            made.append(f"{head}: {item.get('size')} bytes, {look}file {said(str(item.get('path')), 200)}")
        else:
            made.append(f"{head}: {said(str(item.get('why')), 200)}")
        files = item.get("artifacts")
        for file in files[:MAX_FILES] if isinstance(files, list) else ():
            path, size, digest = (str(file.get(key)) if isinstance(file, dict) else "" for key in Artifact._fields)
            made.append(f"file of it: {said(path, 200)}, {said(size, 20)} bytes, sha256 {said(digest, 64)}")
    return made
