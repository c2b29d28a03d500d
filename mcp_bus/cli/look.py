"""show, find, ls: verbs that look for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus import find as finding
from mcp_bus.cli import fields, meant, pages
from mcp_bus.cli.arguments import Verb, positive
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, clean, one_line
from mcp_bus.cli.pages import ORDER
from mcp_bus.find import short
from mcp_bus.model import State

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.find import ChannelView
    from mcp_bus.model import Task

ALIVE = ORDER[:4]
MANY = 20


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
            if task.proof is not None and task.proof.hint:
                call.out.warn(f"  next: if it is from whom it says: {clean(call.aimed(task.proof.hint))}")
    return OK


def declare_find(parser: Parser) -> None:
    """Declare the options of `find`."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="all must occur in title, body, thread, sender or id")
    parser.add_argument("--state", default="", metavar="STATE", help=", ".join(State))
    parser.add_argument("--channel", default="", metavar="NAME", help="only there")
    parser.add_argument("--limit", type=positive, default=MANY, metavar="N", help=f"at most so many ({MANY})")
    parser.add_argument("--after", default="", metavar="ID", help="go on after this task")


def find(call: Call) -> int:
    """List tasks that match."""
    args = call.args
    with call.bus() as bus:
        if args.channel:
            meant.channel(bus, args.channel)  # One that does not exist is worth an error.
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
    columns = {
        "ID": [short(task.id) for task in tasks],
        "CHANNEL": [one_line(task.channel, 64) for task in tasks],
        "STATE": [fields.state(task) for task in tasks],
        "PRIORITY": [str(task.slot.priority or "") for task in tasks],
        "TRY": [str(task.slot.attempt) for task in tasks],
        "POSTED": [ago(task.body.created, now) for task in tasks],
        "WITH": [_who(task, now) for task in tasks],
        "REQUIRES": [one_line(",".join(task.body.requires), 40) for task in tasks],
        "TITLE": [one_line(fields.heading(task), 160) for task in tasks],
    }
    for name in ("PRIORITY", "REQUIRES"):  # Most tasks have neither.
        if not any(columns[name]):
            del columns[name]
    out.table(tuple(columns), list(zip(*columns.values(), strict=True)))


def _who(task: Task, now: int) -> str:
    lease = task.slot.lease
    if lease is None or task.state is not State.LEASED:
        return ago(task.slot.not_before, now) if task.state is State.SCHEDULED else ""
    late = " (overdue)" if lease.expires <= now else ""
    return f"{pages.holder(task)}{late}"


def declare_ls(parser: Parser) -> None:
    """Declare the options of `ls`."""
    parser.add_argument("channel", nargs="?", metavar="CHANNEL", help="list the tasks of one channel")
    parser.add_argument("--limit", type=positive, default=MANY, metavar="N", help=f"tasks per state ({MANY})")


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
        (_named(view), *(str(view.counts[state] or "-") for state in ORDER), ago(view.oldest, now) or "-")
        for view in views
    ]
    call.out.table(("CHANNEL", *(state.upper() for state in ORDER), "OLDEST WAITS SINCE"), rows)
    return OK


def _named(view: ChannelView) -> str:
    return view.name if view.policy.kind == "queue" else f"{view.name} ({view.policy.kind})"


def channel_fields(view: ChannelView) -> dict[str, Any]:
    """Return a channel as JSON data."""
    counts = {str(state): view.counts[state] for state in ORDER}
    return {"name": view.name, "kind": view.policy.kind, "counts": counts, "oldest": fields.stamp(view.oldest)}


def _channel(call: Call, bus: Bus, name: str) -> int:
    meant.channel(bus, name)
    limit = max(1, call.args.limit)
    tasks = [task for state in ALIVE for task in pages.read(bus, bus.store.scan(name, state, limit=limit))]
    counts, now = bus.store.count(name), bus.source.now()
    if call.out.as_json:
        made = [fields.summary(task) for task in tasks]
        call.out.json({"channel": name, "counts": {str(key): counts[key] for key in ORDER}, "tasks": made})
        return OK
    if tasks:
        _tasks(call.out, tasks, now)
    ended = ", ".join(f"{counts[state]} {state}" for state in ORDER[4:] if counts[state])
    more = sum(max(0, counts[state] - limit) for state in ALIVE)
    told = [text for text in (f"{more} more waiting, at work or dead" if more else "", ended) if text]
    call.out.note(f"{name}: {'; '.join(told) or ('nothing is done yet' if tasks else 'no tasks')}")
    return OK


VERBS = {
    "show": Verb(declare_show, show, "mcp-bus show 1f3a90c2"),
    "find": Verb(declare_find, find, "mcp-bus find parser --state dead --channel review"),
    "ls": Verb(declare_ls, ls, "mcp-bus ls\nmcp-bus ls review"),
}
