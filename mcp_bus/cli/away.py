"""What people are told of a bus that is at a git remote: how old what they see is, and what is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli.output import clean, duration, one_line
from mcp_bus.find import short

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call
    from mcp_bus.stores.away import Away

FEW = 5


def asked(away: Away, now: int) -> str:
    """Say where the bus is, and how old what is known of it is."""
    old = "never reached" if away.trouble else "no bus yet"
    if away.asked:
        old = f"as of {duration(max(0, now - away.asked))} ago"
    return f"at {clean(away.address)}, {old}"


def unsent(call: Call, away: Away) -> None:
    """Warn of what the remote does not have, and say why."""
    if away.trouble:
        call.out.warn(f"mcp-bus: the remote does not answer: {one_line(away.trouble, 300)}")
    if away.unsent:
        posts = "1 post of this host is" if away.unsent == 1 else f"{away.unsent} posts of this host are"
        call.out.warn(f"mcp-bus: {posts} not at the remote yet; the next verb that reaches it sends them")
        call.out.warn(f"  next: {call.again()} sync")
    if away.tentative:
        names = ", ".join(map(short, away.tentative[:FEW]))
        call.out.warn(f"mcp-bus: tentative, until the remote decides: the claim of {names}{_more(away.tentative)}")
    if away.lost:
        names = ", ".join(map(short, away.lost[:FEW])) + _more(away.lost)
        call.out.warn(f"mcp-bus: claimed without the remote, and lost, to somebody else or for its time: {names}")


def _more(names: tuple[str, ...]) -> str:
    return f" and {len(names) - FEW} more" if len(names) > FEW else ""
