"""show, find, ls, status: verbs that only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus import find as finding
from mcp_bus.cli import fields, pages
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, clean, one_line
from mcp_bus.errors import Conflict, CorruptRecord, NotFound
from mcp_bus.find import short
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.find import ChannelView
    from mcp_bus.model import Slot, Task

# As they matter to someone who looks.
ORDER = (State.LEASED, State.READY, State.SCHEDULED, State.DEAD, State.DONE, State.CANCELLED, State.EXPIRED)
ALIVE = ORDER[:4]
MANY = 20
# Names of agents, and dead tasks, that `status` lists.
FEW = 10


def declare_show(parser: Parser) -> None:
    """Declare the options of `show`."""
    parser.add_argument("id", metavar="ID", help="the task")


def show(call: Call) -> int:
    """Show all of a task."""
    with call.bus() as bus:
        task = bus.get(call.args.id)
        if call.out.as_json:
            call.out.json(fields.full(task))
        else:
            pages.shown(call.out, bus, task)
    return OK


def declare_find(parser: Parser) -> None:
    """Declare the options of `find`."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="all must occur in title, body, thread or sender")
    parser.add_argument("--state", default="", metavar="STATE", help=", ".join(State))
    parser.add_argument("--channel", default="", metavar="NAME", help="only there")
    parser.add_argument("--limit", type=int, default=MANY, metavar="N", help=f"at most so many ({MANY})")
    parser.add_argument("--after", default="", metavar="ID", help="go on after this task")


def find(call: Call) -> int:
    """List tasks that match."""
    args = call.args
    with call.bus() as bus:
        if args.channel:
            bus.store.policy(args.channel)  # One that does not exist is worth an error.
        after = finding.resolve(bus.store, args.after) if args.after else ""
        limit = max(1, args.limit)
        found = list(
            finding.tasks(
                bus, text=" ".join(args.words), channel=args.channel, state=args.state, after=after, limit=limit
            )
        )
        now = bus.source.now()
    following = found[-1].id if len(found) == limit else None
    if call.out.as_json:
        call.out.json({"tasks": [fields.summary(task) for task in found], "next": following})
        return OK
    if not found:
        call.out.note("nothing found")
        return OK
    _tasks(call.out, found, now)
    if following:
        call.out.note(f"there may be more: --after {following}")
    return OK


def _tasks(out: Out, tasks: list[Task], now: int) -> None:
    rows = [
        (
            short(task.id),
            one_line(task.channel, 64),
            fields.state(task),
            str(task.slot.attempt),
            ago(task.body.created, now),
            _who(task, now),
            one_line(task.body.title or task.body.content, 160),
        )
        for task in tasks
    ]
    out.table(("ID", "CHANNEL", "STATE", "TRY", "POSTED", "WITH", "TITLE"), rows)


def _who(task: Task, now: int) -> str:
    lease = task.slot.lease
    if lease is None or task.state is not State.LEASED:
        return ago(task.slot.not_before, now) if task.state is State.SCHEDULED else ""
    late = " (overdue)" if lease.expires <= now else ""
    return f"{pages.holder(task)}{late}"


def declare_ls(parser: Parser) -> None:
    """Declare the options of `ls`."""
    parser.add_argument("channel", nargs="?", metavar="CHANNEL", help="list the tasks of one channel")
    parser.add_argument("--limit", type=int, default=MANY, metavar="N", help=f"tasks per state ({MANY})")


def ls(call: Call) -> int:
    """List channels, or one channel's tasks that have not ended well."""
    with call.bus() as bus:
        if call.args.channel:
            return _channel(call, bus, call.args.channel)
        views, now = finding.channels(bus.store), bus.source.now()
    if call.out.as_json:
        call.out.json({"channels": [channel_fields(view) for view in views]})
        return OK
    if not views:
        call.out.note("no channels yet; the first post makes one")
        return OK
    rows = [
        (view.name, *(str(view.counts[state] or "-") for state in ORDER), ago(view.oldest, now) or "-")
        for view in views
    ]
    call.out.table(("CHANNEL", *(state.upper() for state in ORDER), "OLDEST WAITS SINCE"), rows)
    return OK


def channel_fields(view: ChannelView) -> dict[str, Any]:
    """Return a channel as JSON data."""
    counts = {str(state): view.counts[state] for state in ORDER}
    return {"name": view.name, "counts": counts, "oldest": fields.stamp(view.oldest)}


def _channel(call: Call, bus: Bus, name: str) -> int:
    bus.store.policy(name)
    limit = max(1, call.args.limit)
    tasks = [task for state in ALIVE for task in _read(bus, bus.store.scan(name, state, limit=limit))]
    counts, now = bus.store.count(name), bus.source.now()
    if call.out.as_json:
        made = [fields.summary(task) for task in tasks]
        call.out.json({"channel": name, "counts": {str(key): counts[key] for key in ORDER}, "tasks": made})
        return OK
    if tasks:
        _tasks(call.out, tasks, now)
    ended = ", ".join(f"{counts[state]} {state}" for state in ORDER[4:] if counts[state])
    more = sum(max(0, counts[state] - limit) for state in ALIVE)
    told = [text for text in (f"{more} more waiting or at work" if more else "", ended) if text]
    call.out.note(f"{name}: {'; '.join(told) or 'nothing has ended yet'}")
    return OK


def _read(bus: Bus, slots: Iterator[Slot]) -> Iterator[Task]:
    for slot in slots:
        try:
            task = bus.store.get(slot.id)
        except (Conflict, CorruptRecord, NotFound):
            continue
        if task is not None and task.state is slot.state:
            yield task


def declare_status(_parser: Parser) -> None:
    """Take no options but those of every verb."""


def status(call: Call) -> int:
    """Show the bus at a glance."""
    with call.bus() as bus:
        made = _status(call, bus)
        now = bus.source.now()
    if call.out.as_json:
        call.out.json(made)
    else:
        _page(call.out, made, now)
    return OK


def _status(call: Call, bus: Bus) -> dict[str, Any]:
    now, store = bus.source.now(), bus.store
    views = finding.channels(store)
    leases = [slot for view in views for slot in store.scan(view.name, State.LEASED)]
    dead = [slot for view in views for slot in store.scan(view.name, State.DEAD)]
    agents: dict[str, int] = {}
    for slot in leases:
        agents[slot.lease.holder if slot.lease else "-"] = agents.get(slot.lease.holder if slot.lease else "-", 0) + 1
    overdue = [slot.id for slot in leases if slot.lease and slot.lease.expires <= now]
    age = store.manifest_age(now)
    return {
        "bus": str(call.config.path),
        "origin": call.config.origins["bus"],
        "agent": bus.identity.agent,
        "filesystem": filesystem(call),
        "channels": len(views),
        "counts": {str(state): sum(view.counts[state] for view in views) for state in ORDER},
        "working": agents,
        "overdue": overdue,
        "dead": [_dead(task) for task in _read(bus, iter(dead[:FEW]))],
        "last_sweep": fields.stamp(now - age) if age < now else None,
    }


def _dead(task: Task) -> dict[str, Any]:
    why = task.history[-1].note if task.history else ""
    return {"id": task.id, "channel": task.channel, "state": fields.state(task), "title": task.body.title, "why": why}


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
    out.line(f"tasks     {told or 'none'}, on {made['channels']} channels")
    for number, (name, held) in enumerate(sorted(made["working"].items())[:FEW]):
        out.line(f"{'working' if not number else '':<10}{one_line(name, 80)} has {held}")
    if made["overdue"]:
        names = ", ".join(short(name) for name in made["overdue"][:FEW])
        out.line(f"overdue   the lease of {names} ran out; the next claim or sweep brings them back")
    from mcp_bus.wire import unstamp

    last = made["last_sweep"]
    out.line(f"swept     {ago(unstamp(last), now) if last else 'never'}")
    if not counts[State.DEAD]:
        return
    out.line()
    many = "task needs" if counts[State.DEAD] == 1 else "tasks need"
    out.line(out.paint(f"{counts[State.DEAD]} {many} a person: `mcp-bus show ID`, then retry or discard", "bold"))
    out.table(
        ("ID", "CHANNEL", "STATE", "TITLE", "WHY"),
        [
            (short(item["id"]), item["channel"], item["state"], one_line(item["title"], 60), one_line(item["why"]))
            for item in made["dead"]
        ],
    )


VERBS = {
    "show": Verb(declare_show, show, "mcp-bus show 1f3a90c2"),
    "find": Verb(declare_find, find, "mcp-bus find parser --state dead --channel review"),
    "ls": Verb(declare_ls, ls, "mcp-bus ls\nmcp-bus ls review"),
    "status": Verb(declare_status, status, "mcp-bus status --json"),
}
