"""agents: who is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus.cli import fields, pages
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import ago, one_line
from mcp_bus.holders import UNSEEN, holdings, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.holders import Holding
    from mcp_bus.presence import Seen


def declare(parser: Parser) -> None:
    """Declare the options of `agents`."""
    parser.add_argument("--all", action="store_true", help="also sessions that are over")


def agents(call: Call) -> int:
    """List who is there or holds a task, what they can do, and what they hold."""
    with call.bus() as bus:
        seen, now = bus.roster.all(), bus.source.now()
        known = {item.presence.agent for item in seen}
        held = holdings(bus.store, {*known, bus.identity.agent})
        others = unseen(held.values(), seen)
        unread = _unread(bus, {*known, *(item.agent for item in others if item.agent)})
    shown = [item for item in seen if item.is_live or item.presence.holder in held or call.args.all]
    if call.out.as_json:
        made = [_agent(item, held, unread) for item in shown] + [_other(item, unread) for item in others]
        call.out.json({"agents": made})
        return OK
    rows = [_row(item, held, unread, now) for item in shown] + [_row_of_other(item, unread, now) for item in others]
    if rows:
        call.out.table(("AGENT", "SESSION", "CLIENT", "", "LAST SEEN", "HOLDS", "UNREAD", "CAN DO"), rows)
    else:
        over = sum(not item.is_live for item in seen)
        gone = f"; {over} session{'s are' if over > 1 else ' is'} over (--all)" if over else ""
        call.out.note(f"nobody is there{gone}")
    return OK


def _row(item: Seen, held: Mapping[str, Holding], unread: Mapping[str, int], now: int) -> tuple[str, ...]:
    here = item.presence
    holding = held.get(here.holder)
    can = one_line(", ".join(here.capabilities), 60)
    if holding is not None and not item.is_live:
        can = f"{item.why}; {_lease(holding, now)}"
    return (
        one_line(here.agent, 60), one_line(here.session, 16), one_line(here.client, 20) or "-",
        "live" if item.is_live else "gone", ago(here.beat, now), str(holding.tasks if holding else 0),
        str(unread[here.agent]), can or item.why or "-",
    )  # fmt: skip


def _row_of_other(item: Holding, unread: Mapping[str, int], now: int) -> tuple[str, ...]:
    """Return what is known of a holder that never said that it is there: its word, if not its name."""
    session = item.holder.rpartition("~")[2] if item.agent else "-"
    name = item.agent or item.holder
    waiting = str(unread[item.agent]) if item.agent else "-"
    about = f"{_lease(item, now)}; {UNSEEN}"
    return one_line(name, 64), one_line(session, 16), "-", "unseen", "-", str(item.tasks), waiting, about


def _lease(item: Holding, now: int) -> str:
    return f"lease {pages.end(item.until, now)}"


def _unread(bus: Bus, agents: Iterable[str]) -> dict[str, int]:
    """Return how many messages wait for each agent, in its inbox and on the topics it reads."""
    from mcp_bus.bus import Bus as View
    from mcp_bus.names import holder

    who = bus.identity
    # As any new session of it would count them.
    views = {agent: who._replace(agent=agent, session="", holder=holder(agent, "")) for agent in agents}
    return {agent: View(bus.store, view, bus.source).mail.unread().messages for agent, view in views.items()}


def _agent(item: Seen, held: Mapping[str, Holding], unread: Mapping[str, int]) -> dict[str, Any]:
    here, holding = item.presence, held.get(item.presence.holder)
    return {
        "agent": here.agent,
        "session": here.session,
        "holder": here.holder,
        "client": here.client or None,
        "live": item.is_live,
        "why_not": item.why or None,
        "capabilities": list(here.capabilities),
        "holds": holding.tasks if holding else 0,
        "lease_until": fields.stamp(holding.until) if holding else None,
        "unread": unread[here.agent],
        "host": here.host,
        "pid": here.pid,
        "pwd": here.pwd,
        "since": fields.stamp(here.since),
        "last_seen": fields.stamp(here.beat),
    }


def _other(item: Holding, unread: Mapping[str, int]) -> dict[str, Any]:
    """Return a holder without a session under the same names; what is not known of it is null."""
    return {
        "agent": item.agent or None,
        "session": item.holder.rpartition("~")[2] if item.agent else None,
        "holder": item.holder,
        "client": None,
        "live": False,
        "why_not": UNSEEN,
        "capabilities": [],
        "holds": item.tasks,
        "lease_until": fields.stamp(item.until),
        "unread": unread[item.agent] if item.agent else None,
        "host": None,
        "pid": None,
        "pwd": None,
        "since": None,
        "last_seen": None,
    }


VERBS = {"agents": Verb(declare, agents, "mcp-bus agents --all")}
