"""agents: who is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus.cli import fields
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, one_line
from mcp_bus.find import public

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.presence import Seen


def declare(parser: Parser) -> None:
    """Declare the options of `agents`."""
    parser.add_argument("--all", action="store_true", help="also sessions that are over")


def agents(call: Call) -> int:
    """List who is there, what they can do, and what they hold."""
    with call.bus() as bus:
        seen, now = bus.mail.roster.all(), bus.source.now()
        held, unread = _held(bus), _unread(bus, {item.presence.agent for item in seen})
    shown = [item for item in seen if item.is_live or call.args.all]
    if call.out.as_json:
        call.out.json({"agents": [_agent(item, held, unread) for item in shown]})
        return OK
    if shown:
        rows = [
            (
                one_line(item.presence.agent, 60), one_line(item.presence.session, 16),
                one_line(item.presence.client, 20) or "-", "live" if item.is_live else "gone",
                ago(item.presence.beat, now), str(held.get(item.presence.holder, 0)),
                str(unread[item.presence.agent]),
                one_line(", ".join(item.presence.capabilities), 60) or item.why or "-",
            )
            for item in shown
        ]  # fmt: skip
        call.out.table(("AGENT", "SESSION", "CLIENT", "", "LAST SEEN", "HOLDS", "UNREAD", "CAN DO"), rows)
    else:
        over = sum(not item.is_live for item in seen)
        gone = f"; {over} session{'s are' if over > 1 else ' is'} over (--all)" if over else ""
        call.out.note(f"nobody is there{gone}")
    return OK


def _held(bus: Bus) -> dict[str, int]:
    from mcp_bus.model import State

    made: dict[str, int] = {}
    for channel in public(bus.store):
        for slot in bus.store.scan(channel, State.LEASED):
            holder = slot.lease.holder if slot.lease else "-"
            made[holder] = made.get(holder, 0) + 1
    return made


def _unread(bus: Bus, agents: Iterable[str]) -> dict[str, int]:
    """Return how many messages wait for each agent, in its inbox and on the topics it reads."""
    from mcp_bus.bus import Bus as View
    from mcp_bus.names import holder

    who = bus.identity
    # As any new session of it would count them.
    views = {agent: who._replace(agent=agent, session="", holder=holder(agent, "")) for agent in agents}
    return {agent: View(bus.store, view, bus.source).mail.unread().messages for agent, view in views.items()}


def _agent(item: Seen, held: dict[str, int], unread: dict[str, int]) -> dict[str, Any]:
    here = item.presence
    return {
        "agent": here.agent,
        "session": here.session,
        "holder": here.holder,
        "client": here.client or None,
        "live": item.is_live,
        "why_not": item.why or None,
        "capabilities": list(here.capabilities),
        "holds": held.get(here.holder, 0),
        "unread": unread[here.agent],
        "host": here.host,
        "pid": here.pid,
        "pwd": here.pwd,
        "since": fields.stamp(here.since),
        "last_seen": fields.stamp(here.beat),
    }


VERBS = {"agents": Verb(declare, agents, "mcp-bus agents --all")}
