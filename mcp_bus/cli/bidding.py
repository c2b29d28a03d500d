"""bids, award: a call for proposals, from the side of who made it.  `post` on a topic makes one, `send` bids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mcp_bus.cli import fields
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import NOTHING, OK
from mcp_bus.cli.output import ago, one_line
from mcp_bus.find import short

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser


def declare_bids(parser: Parser) -> None:
    """Declare the options of `bids`."""
    parser.add_argument("id", metavar="CALL", help="the task that was posted on a topic")


def bids(call: Call) -> int:
    """List the bids on a call."""
    from mcp_bus import bidding

    with call.bus() as bus:
        found, now, won = bidding.bids(bus, call.args.id), bus.source.now(), bidding.winner(bus, call.args.id)
    if call.out.as_json:
        made = [
            bid._asdict() | {"terms": dict(bid.terms), "at": fields.stamp(bid.at), "won": bid.id == won}
            for bid in found
        ]
        call.out.json({"bids": made})
    elif found:
        rows = [
            (
                short(bid.id),
                one_line(bid.agent, 60),
                ago(bid.at, now),
                one_line(json.dumps(dict(bid.terms)), 160),
                "won" if bid.id == won else "",
            )
            for bid in found
        ]
        call.out.table(("BID", "AGENT", "MADE", "TERMS", ""), rows)
    else:
        call.out.note("no bids yet")
    return OK if found else NOTHING


def declare_award(parser: Parser) -> None:
    """Declare the options of `award`."""
    parser.add_argument("id", metavar="BID", help="the bid that wins")


def award(call: Call) -> int:
    """Make a bid a task of its bidder, and tell all who bid."""
    from mcp_bus import bidding

    with call.bus() as bus:
        task = bidding.award(bus, call.args.id)
    call.out.json(fields.full(task)) if call.out.as_json else call.out.line(f"{short(task.id)} {task.channel}")
    return OK


VERBS = {
    "bids": Verb(declare_bids, bids, "mcp-bus bids 1f3a90c2"),
    "award": Verb(declare_award, award, "mcp-bus award 5b0c77aa"),
}
