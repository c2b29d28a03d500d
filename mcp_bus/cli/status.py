"""status: the bus at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus import find as finding
from mcp_bus.cli import aside, bars, fields, pages
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, clean, one_line
from mcp_bus.errors import CorruptRecord
from mcp_bus.find import short
from mcp_bus.lifecycle import is_expired
from mcp_bus.model import Outcome, State
from mcp_bus.names import HUMAN, REASON, inbox, is_inbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.find import ChannelView
    from mcp_bus.model import Slot, Task

# Tasks in work, overdue and dead ones that are listed.
FEW = 10


def declare(_parser: Parser) -> None:
    """Take no options but those of every verb."""


def status(call: Call) -> int:
    """Show the bus at a glance."""
    with call.bus() as bus:
        views = [view for view in finding.channels(bus.store) if view.policy.kind == "queue"]
        made = _status(call, bus, views)
        now = bus.source.now()
    if call.out.as_json:
        call.out.json(made)
        return OK
    _page(call.out, made, now)
    bars.show(call.out, views)
    _dead_letter(call.out, made)
    return OK


def _status(call: Call, bus: Bus, views: Sequence[ChannelView]) -> dict[str, Any]:
    now, store = bus.source.now(), bus.store
    leases = sorted((slot for view in views for slot in store.scan(view.name, State.LEASED)), key=_holder)
    dead = [slot for view in views for slot in store.scan(view.name, State.DEAD)]
    agents: dict[str, int] = {}
    for slot in leases:
        agents[_holder(slot)] = agents.get(_holder(slot), 0) + 1
    over = [(slot.id, slot.lease.expires + store.leeway) for slot in leases if slot.lease and slot.lease.expires <= now]
    age = store.manifest_age(now)
    return {
        "bus": str(call.config.path),
        "origin": call.config.origins["bus"],
        "agent": bus.identity.agent,
        "filesystem": filesystem(call),
        "channels": len(views),
        "counts": {str(state): sum(view.counts[state] for view in views) for state in pages.ORDER},
        "working": agents,
        "leases": [_leased(task) for task in pages.read(bus, iter(leases[:FEW]))],
        "overdue": [name for name, _ in over],
        "respected": [{"id": name, "until": fields.stamp(until)} for name, until in over if until > now],
        "dead": [_dead(task) for task in pages.read(bus, iter(dead[:FEW]))],
        "agents": sorted({seen.presence.agent for seen in bus.roster.all() if seen.is_live}),
        "for_the_human": _unread(bus, [inbox(HUMAN)]),
        "for_agents": _unread(bus, [name for name in store.channels() if is_inbox(name) and name != inbox(HUMAN)]),
        "rejected": _aside(call, bus, "rejected"),
        "quarantine": _aside(call, bus, "quarantine"),
        "last_sweep": fields.stamp(now - age) if age < now else None,
    }


def _unread(bus: Bus, boxes: Sequence[str]) -> dict[str, int]:
    """Return how many messages of inboxes are not acked, and of those how many are urgent, and were shown."""
    now = bus.source.now()
    waiting = (slot for box in boxes for slot in bus.store.scan(box, State.READY))
    new = [slot for slot in waiting if not is_expired(slot, now=now)]
    shown = [slot for box in boxes for slot in bus.store.scan(box, State.LEASED)]
    urgent = sum(slot.priority > 0 for slot in (*new, *shown))
    return {"unread": len(new), "shown": len(shown), "urgent": urgent}


def _holder(slot: Slot) -> str:
    return slot.lease.holder if slot.lease else "-"


def _leased(task: Task) -> dict[str, Any]:
    slot = task.slot
    said = [line for line in task.history if line.outcome is Outcome.PROGRESS and line.attempt == slot.attempt]
    return {
        "id": task.id,
        "channel": task.channel,
        "title": fields.heading(task),
        "holder": _holder(slot),
        "attempt": slot.attempt,
        "expires": fields.stamp(slot.lease.expires) if slot.lease else None,
        "progress": {"note": said[-1].note, "at": fields.stamp(said[-1].at)} if said else None,
    }


def _dead(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "channel": task.channel,
        "state": fields.state(task),
        "title": fields.heading(task),
        "why": pages.why(task),
    }


def _aside(call: Call, bus: Bus, folder: str) -> dict[str, Any]:
    found = aside.of(call, bus, folder)
    return {"count": found.files, "path": found.path, "look": found.look}


def filesystem(call: Call) -> dict[str, Any]:
    """Return what was found out about the file system when the bus was made."""
    from mcp_bus import wire

    try:
        found = wire.loads((call.config.path / "bus.json").read_bytes()).get("filesystem")
    except (OSError, CorruptRecord):
        return {}
    return found if isinstance(found, dict) else {}


def _page(out: Out, made: dict[str, Any], now: int) -> None:
    disk, counts = made["filesystem"], made["counts"]
    warning = f"; {one_line(str(disk['warning']))}" if disk.get("warning") else ""
    out.line(f"bus       {clean(made['bus'])}")
    out.line(f"disk      {one_line(str(disk.get('type', 'unknown')))}{warning}")
    out.line(f"you are   {one_line(made['agent'], 160)}")
    told = "  ".join(f"{number} {out.state(state)}" for state, number in counts.items() if number)
    out.line(f"tasks     {told or 'none'}, on {made['channels']} channel{'' if made['channels'] == 1 else 's'}")
    _working(out, made, now)
    _overdue(out, made, now)
    if made["agents"]:
        few = ", ".join(one_line(name, 60) for name in made["agents"][:FEW])
        out.line(f"agents    {len(made['agents'])} there: {few}")
    if said := _waiting(made["for_the_human"]):
        out.line(out.paint(f"inbox     {said} for the human: `mcp-bus --agent {HUMAN} inbox`", "bold"))
    if said := _waiting(made["for_agents"]):
        out.line(f"mail      {said} for agents: `mcp-bus agents --all` says for whom")
    last = made["last_sweep"]
    out.line(f"swept     {_ago(last, now) if last else 'never'}")
    _kept(out, made)


def _overdue(out: Out, made: dict[str, Any], now: int) -> None:
    """Tell of leases that ran out, and when a bus that several hosts share takes them back."""
    later = {item["id"]: item["until"] for item in made["respected"]}
    if names := ", ".join([short(name) for name in made["overdue"] if name not in later][:FEW]):
        out.line(f"overdue   the lease of {names} ran out; the next claim or sweep brings them back")
    for name, until in list(later.items())[:FEW]:
        when = ago(_ms(until), now)
        out.line(
            f"overdue   the lease of {short(name)} ran out; it is taken back {when}, because clocks of hosts differ"
        )


def _dead_letter(out: Out, made: dict[str, Any]) -> None:
    count = made["counts"][State.DEAD]
    if not count:
        return
    out.line()
    many = "task needs" if count == 1 else "tasks need"
    out.line(out.paint(f"{count} {many} a person: `mcp-bus show ID`, then retry or discard", "bold"))
    out.table(
        ("ID", "CHANNEL", "STATE", "TITLE", "WHY"),
        [
            (short(item["id"]), item["channel"], item["state"], one_line(item["title"], 60), one_line(item["why"]))
            for item in made["dead"]
        ],
    )


def _waiting(of: dict[str, int]) -> str:
    """Say how many messages wait; empty if none does."""
    count = of["unread"] + of["shown"]
    more = f", {of['urgent']} urgent" if of["urgent"] else ""
    more += f", {of['shown']} shown and not acked" if of["shown"] else ""
    return f"{count} message{' waits' if count == 1 else 's wait'}{more}," if count else ""


def _working(out: Out, made: dict[str, Any], now: int) -> None:
    for number, item in enumerate(made["leases"]):
        said = item["progress"]
        word = f": {one_line(said['note'], 80)} ({_ago(said['at'], now)})" if said else ""
        title = f' "{one_line(item["title"], 40)}"' if item["title"] else ""
        end = f", lease {pages.end(_ms(item['expires']), now)}" if item["expires"] else ""
        what = f"has {short(item['id'])} on {one_line(item['channel'], 64)}{title}{end}{word}"
        out.line(f"{'' if number else 'working':<10}{one_line(item['holder'], 80)} {what}")
    more = made["counts"][State.LEASED] - len(made["leases"])
    if more > 0 and made["leases"]:
        out.line(f"{'':<10}and {more} more: `mcp-bus find --state leased`")


def _kept(out: Out, made: dict[str, Any]) -> None:
    """Tell of what was put aside for a person, and how to look at it."""
    late, foreign = made["rejected"], made["quarantine"]
    if late["count"]:
        many = (
            "result that came after its lease was" if late["count"] == 1 else "results that came after their lease was"
        )
        out.line(f"rejected  {late['count']} {many} lost; each is a file in {clean(late['path'])}")
        _how(out, late)
    if foreign["count"]:
        many = "file that is" if foreign["count"] == 1 else "files that are"
        out.line(f"put aside {foreign['count']} {many} no message; in {clean(foreign['path'])}, why: *{REASON}")
        _how(out, foreign)


def _how(out: Out, found: dict[str, Any]) -> None:
    """Say how to look where `ls` and `cat` do not get to."""
    if found["look"].startswith("git "):
        out.line(f"{'':<10}next: {clean(found['look'])}")


def _ms(text: str) -> int:
    from mcp_bus.wire import unstamp

    return unstamp(text)


def _ago(text: str, now: int) -> str:
    return ago(_ms(text), now)


VERBS = {"status": Verb(declare, status, "mcp-bus status --json")}
