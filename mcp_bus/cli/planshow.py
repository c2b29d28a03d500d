"""What `plan` shows: a plan with its steps, a list of plans, and the document of what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, duration, one_line
from mcp_bus.errors import BusError
from mcp_bus.find import short
from mcp_bus.model import PLANS

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.plan import Node, Plan, Progress

# Steps that only a person can move on: by an answer, or by having their check run.
PERSONS = ("blocked", "unverified")


def shown(call: Call, bus: Bus, made: Plan, progress: Progress) -> None:
    """Show a plan with its steps, in the format that was asked for, and what to do next."""
    from mcp_bus import picture, report
    from mcp_bus.plan import is_missing

    out, form = call.out, call.args.format
    if out.as_json or form == "json":
        out.json(report.fields(bus, made, progress))
        return
    found = report.rows(bus, made, progress)
    if form != "table":
        out.line(picture.draw(form, made.goal, found))
        return
    out.line(f"{out.paint(short(made.id), 'bold')}  {report.line(made, progress)}  {one_line(made.goal, 100)}")
    out.line()
    cells = [
        (
            row.step.name, row.stage, one_line(row.who, 40), _tries(row.node),
            duration(row.took) if row.node.released else "", ", ".join(row.step.after),
        )
        for row in found
    ]  # fmt: skip
    out.table(("STEP", "STATE", "WHO", "TRIES", "TOOK", "AFTER"), cells)
    told = [f"{row.step.name} {row.stage}: {one_line(row.why, report.WHY)}" for row in found if row.why]
    for text in ["", *told] if told else []:
        out.line(text)
    critical = [row.step.name for row in found if row.is_critical]
    if len(critical) > 1:
        out.note(f"took longest: {' -> '.join(critical)}")
    absent = report.missing(made, progress)
    if absent:
        out.note(f"no worker can do: {', '.join(absent)}")
    for row in found:
        if row.stage == "blocked":
            out.note(f"{row.step.name} waits for a person: {call.again()} retry {short(row.node.task)} --note ANSWER")
    if any(row.stage == "unverified" for row in found):
        out.note(f"{call.again()} plan resume {short(made.id)} --allow-verify runs the checks that are waited for")
    if progress.over and any(is_missing(row.node) for row in found):
        out.note(f"{call.again()} plan retry {short(made.id)} tries again what failed")


def _tries(node: Node) -> str:
    """Return how often a step was tried, and in which run if it was not the first."""
    tries = str(node.attempts or "")
    return f"{tries} run {node.run}".strip() if node.run > 1 else tries


def listed(call: Call) -> int:
    """List plans, the latest first."""
    from mcp_bus import plans
    from mcp_bus.plan import counts

    with call.bus() as bus:
        found: list[tuple[Plan, Progress]] = []
        for name in reversed(bus.store.records.names(PLANS)):
            try:
                found.append(plans.progress(bus, name))
            except BusError as error:
                call.out.warn(f"mcp-bus: {name}: {one_line(str(error))}")
        found.sort(key=lambda item: -item[0].created)
        now = bus.source.now()
        entries = [_entry(bus, *item) for item in found]
    if call.out.as_json:
        call.out.json({"plans": entries})
    elif found:
        rows = [
            (
                short(made.id), entry["state"], f"{counts(made, progress)['done']}/{len(made.steps)}",
                str(entry["blocked"] or ""), ago(made.created, now), one_line(made.owner, 40), one_line(made.goal, 100),
            )
            for (made, progress), entry in zip(found, entries, strict=True)
        ]  # fmt: skip
        call.out.table(("PLAN", "STATE", "DONE", "BLOCKED", "POSTED", "BY", "GOAL"), rows)
    else:
        call.out.note("no plans yet; mcp-bus plan run plan.yaml")
    return OK


def _entry(bus: Bus, made: Plan, progress: Progress) -> dict[str, Any]:
    from mcp_bus.cli.fields import stamp
    from mcp_bus.plan import counts, outcome
    from mcp_bus.report import rows

    blocked = 0 if progress.over else sum(row.stage in PERSONS for row in rows(bus, made, progress))
    return {
        "id": made.id,
        "short": short(made.id),
        "goal": made.goal,
        "owner": made.owner,
        "created": stamp(made.created),
        "state": outcome(made, progress),
        "counts": counts(made, progress),
        "blocked": blocked,
    }


def reported(call: Call) -> int:
    """Print the document of what a plan brought."""
    from mcp_bus import plans, report
    from mcp_bus.conductor import advance

    with call.bus() as bus:
        made, progress = advance(bus, plans.resolve(bus, call.args.target))
        text = report.synthesis(bus, made, progress)
    call.out.json({"id": made.id, "report": text}) if call.out.as_json else call.out.line(text.rstrip("\n"))
    return OK
