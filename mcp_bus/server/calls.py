"""What tools answer about calls for proposals: who bids, on which terms, and how to award."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mcp_bus import bidding
from mcp_bus.errors import BusError
from mcp_bus.find import short
from mcp_bus.plain import duration
from mcp_bus.server.words import Ways, said, several

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, Task

# Bids that an answer lists.
MAX_BIDS = 12


def opened(bus: Bus, task: Task, ways: Ways) -> str:
    """Answer `post_task` on a topic."""
    left = duration(task.body.deadline - bus.source.now())
    look = f'get_task(task="{short(task.id)}") lists the bids'
    following = ways.first(f"read_inbox brings bids; {look}", "read_inbox brings bids", "go on")
    return f"call for proposals {short(task.id)} on topic {task.channel}, open for {left}\nnext: {following}"


def is_own(bus: Bus, task: Task) -> bool:
    """Tell whether a message is a call of this agent."""
    return task.body.type == bidding.CALL and task.body.sender.agent == bus.identity.agent


def listed(bus: Bus, task: Task) -> list[str]:
    """Return a line for each bid on a call of this agent."""
    try:
        found = bidding.bids(bus, task.id)
    except BusError:
        return []
    lines = [
        f"bid {short(bid.id)} of {said(bid.agent, 80)}: {said(json.dumps(dict(bid.terms), ensure_ascii=False), 200)}"
        for bid in found[:MAX_BIDS]
    ]
    rest = len(found) - len(lines)
    return [*lines, f"and {rest} more bids"] if rest > 0 else lines or ["no bids yet"]


def award(bus: Bus, task: Task) -> str:
    """Return how to award a call, once there is a bid."""
    try:
        found = bidding.bids(bus, task.id)
    except BusError:
        return ""
    return f'control_task(task="{short(found[0].id)}", action="award") for the best' if found else ""


def standing(bus: Bus, task: Task) -> str:
    """Return how a call stands that is waited for."""
    try:
        count = len(bidding.bids(bus, task.id))
    except BusError:
        count = 0
    left = duration(task.body.deadline - bus.source.now())
    return f"{short(task.id)} call for proposals, {several(count, 'bid')}, open for {left}; get_task lists them"


def invited(body: Body, now: int) -> str:
    """Return how a reader of a call bids; empty for another message, or when it is too late."""
    if body.type != bidding.CALL or body.deadline <= now:
        return ""
    how = f'send_message(reply_to="{short(body.id)}", type="bid", body=\'{{"eta_s": 600, …}}\')'
    return f"\nopen for {duration(body.deadline - now)}; to bid: {how}"
