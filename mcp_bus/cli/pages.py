"""Tasks as people read them.  Everything others wrote is made harmless here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mcp_bus import access
from mcp_bus.cli import fields
from mcp_bus.cli.output import ago, duration, one_line, quote
from mcp_bus.errors import BusError, Conflict, CorruptRecord, NotFound
from mcp_bus.find import LOST, is_lost, short
from mcp_bus.model import WAITING, Artifact, Outcome, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.cli.output import Out
    from mcp_bus.model import Attempt, Slot, Task

# States as they matter to someone who looks.
ORDER = (State.LEASED, State.READY, State.SCHEDULED, State.DEAD, State.DONE, State.CANCELLED, State.EXPIRED)


def read(bus: Bus, slots: Iterator[Slot]) -> Iterator[Task]:
    """Read the tasks of a listing that can be read and are still in the state they were listed in."""
    for slot in slots:
        try:
            found = bus.store.get(slot.id)
        except (Conflict, CorruptRecord, NotFound):
            continue
        if found is not None and found.state is slot.state:
            yield access.shown(bus, found)


def holder(task: Task) -> str:
    """Return who holds a task, or nothing."""
    lease = task.slot.lease
    return one_line(lease.holder, 80) if lease and task.state is State.LEASED else ""


def budget(bus: Bus, task: Task) -> int:
    """Return how many attempts a task may have."""
    slot = task.slot
    return slot.budget or task.body.max_attempts or bus.store.policy(task.channel).max_attempts


def event(line: Attempt, now: int) -> str:
    """Return a line of history."""
    note = f": {one_line(line.note)}" if line.note else ""
    became = f" (lives on as {short(line.successor)})" if line.successor else ""
    return f"{ago(line.at, now):>9}  attempt {line.attempt} {line.outcome} by {one_line(line.by, 80)}{note}{became}"


def before(bus: Bus, task: Task) -> tuple[Attempt, ...]:
    """Return what became of earlier attempts at a claimed task, also at the one it replaces."""
    slot = task.slot
    lines: list[Attempt] = []
    olds = [task.body.retry_of] if task.body.retry_of else []
    if slot.attempt > 1 or slot.releases or slot.budget:
        olds.append(task.id)
    for old in olds:
        try:
            lines += bus.get(old).history
        except BusError:
            continue  # Pruned, or unreadable: the task itself is here.
    return tuple(lines)


def claimed(out: Out, bus: Bus, task: Task, again: str) -> None:
    """Show a task to whoever is to do it, and how to go on."""
    now, lease, name = bus.source.now(), task.lease, short(task.id)
    head = f"task {name}  token {lease.token}  on {task.channel}"
    out.line(f"{out.paint(head, 'bold')}  attempt {task.slot.attempt} of {budget(bus, task)}")
    out.line(f"lease   {duration(lease.expires - now)}, until {fields.stamp(lease.expires)}")
    for line in _about(task, now):
        out.line(line)
    for entry in task.history:
        out.line(f"before  {event(entry, now).strip()}")
    out.line()
    for line in quote(task.body.content):
        out.line(line)
    for line in _contract(task):
        out.line(line)
    out.line()
    ticket = f"{name} --token {lease.token}"
    out.line(f'next    {again} submit {ticket} --done "RESULT"')
    out.line('        or --failed "REASON", --release, --blocked "QUESTION" in place of --done')
    out.line(f"next    {again} heartbeat {ticket}   # if it takes longer")


def _contract(task: Task) -> Iterator[str]:
    """Yield what the steps before a task brought, and what its result must be."""
    body = task.body
    if body.inputs or body.result_schema is not None or body.claims:
        yield ""
    for item in body.inputs:
        words = [f"input   {one_line(str(item.get('step')), 60)} {one_line(str(item.get('stage')), 20)}"]
        words += [f"by {one_line(str(item['by']), 60)}"] if item.get("by") else []
        where = item.get("path") or item.get("why")
        words += [one_line(str(where), 200)] if where else []
        yield "  ".join(words)
        text = item.get("result")
        if isinstance(text, str) and item.get("in_body") is not True:
            yield from quote(text)
        files = item.get("artifacts")
        for file in files if isinstance(files, list) else ():
            path, size, digest = (str(file.get(key)) if isinstance(file, dict) else "" for key in Artifact._fields)
            yield f"file    {one_line(path, 300)}  {one_line(size, 20)} bytes  sha256 {one_line(digest, 64)}"
    if body.result_schema is not None:
        yield f"result  JSON that meets {one_line(json.dumps(body.result_schema, ensure_ascii=False), 1000)}"
    if body.claims:
        yield 'result  has "claims", each with "text" and "label"; a FACT has "evidence", a list of ids'


def _about(task: Task, now: int) -> Iterator[str]:
    body = task.body
    posted = f", {ago(body.created, now)}" if body.created else ""  # Other programs do not always say when.
    yield f"from    {one_line(body.sender.agent, 160)}{posted}"
    yield from _standing(task)
    if body.title:
        yield f"title   {one_line(body.title)}"
    if body.type != "task":
        yield f"type    {one_line(access.kind(body.type))}"
    if body.thread:
        yield f"thread  {one_line(body.thread)}"
    if body.reply_to:
        yield f"reply   to {one_line(body.reply_to)}"
    if body.plan:
        yield f"plan    {one_line(short(body.plan))}, step {one_line(body.node, 60)}"
    if body.requires:
        yield f"needs   {one_line(', '.join(body.requires))}"
    if body.retry_of:
        yield f"instead of {one_line(body.retry_of)}"


def _standing(task: Task) -> Iterator[str]:
    """Yield whose signature a task has, what is wrong with it, or why it is not shown."""
    if task.verified:
        yield f"verified: {one_line(task.verified, 200)}"
    if task.doubt:
        yield f"NOT VERIFIED: {one_line(task.doubt, 400)}"
    if is_lost(task):
        yield f"LOST: {LOST}"
    if task.hidden:
        yield f"not shown: {one_line(task.hidden, 400)}"


def shown(out: Out, bus: Bus, task: Task) -> None:
    """Show all of a task."""
    now, slot, state = bus.source.now(), task.slot, fields.state(task)
    head = f"task {short(task.id)}  on {task.channel}"
    out.line(f"{out.paint(head, 'bold')}  {out.state(state)}")
    out.line(f"id      {task.id}")
    priority = f", priority {slot.priority}" if slot.priority else ""
    out.line(f"attempt {slot.attempt} of {budget(bus, task)}{priority}")
    if holder(task):
        out.line(f"holder  {holder(task)}, lease {end(task.lease.expires, now)}")
    if slot.not_before:
        out.line(f"ready   {ago(slot.not_before, now)}")
    if slot.deadline and task.state in WAITING:
        late = (
            "was due {}; the next claim or sweep ends it" if slot.deadline <= now else "{}, if nobody takes it before"
        )
        out.line(f"expires {late.format(ago(slot.deadline, now))}")
    for line in _about(task, now):
        out.line(line)
    # What a rule hides is not there at all; what is encrypted says so in its place.
    text = task.body.content or (f"({task.hidden})" if task.hidden else "")
    for line in ("", "body", *quote(text)):
        out.line(line)
    if task.history:
        out.line()
        out.line("history")
    for entry in task.history:
        out.line("  " + event(entry, now))
    if task.result is not None:
        out.line()
        result(out, task, now)


def end(expires: int, now: int) -> str:
    """Return when a lease ends or ended: `ends in 4 min`, `ran out 1 s ago`."""
    return f"ends {ago(expires, now)}" if expires > now else f"ran out {ago(expires, now)}"


def amount(name: str, value: float) -> str:
    """Return what something took: `512 output tokens`, `$0.0200`."""
    return f"${value:.4f}" if name == "cost_usd" else f"{value:,.0f} {one_line(name.replace('_', ' '), 60)}"


def result(out: Out, task: Task, now: int) -> None:
    """Show what a worker answered."""
    found = task.result
    if found is None:
        return
    out.line(f"result  {one_line(found.status)} by {one_line(found.sender.agent, 160)}, {ago(found.at, now)}")
    if task.proof is not None:
        out.line(f"verified: {one_line(task.proof.result, 200)}")
    if found.error:
        out.line(f"error   {one_line(found.error, 1000)}")
    for line in quote(found.content):
        out.line(line)
    if found.usage:
        out.line(f"took    {', '.join(amount(name, value) for name, value in found.usage.items())}")
    for file in found.artifacts:
        out.line(f"file    {one_line(file.path, 300)}  {file.size} bytes  sha256 {file.sha256}")


def why(task: Task) -> str:
    """Return why a task is where it is: the note of its last line of history.

    That a lease lapsed says little, so what a worker said before is added.
    """
    said = [line for line in task.history if line.outcome is not Outcome.PROGRESS]
    if not said:
        return ""
    told = (Outcome.FAILED, Outcome.BLOCKED)
    before = next((line.note for line in reversed(said) if line.outcome in told and line.note), "")
    if said[-1].outcome is Outcome.LAPSED and before:
        return f"{said[-1].note}; before that: {before}"
    return said[-1].note


def last_word(task: Task) -> str:
    """Return `why` as one line."""
    return one_line(why(task))
