"""Who a verb about messages speaks for: an agent that was named, else the human who sits at the terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcp_bus.names import HUMAN, holder
from mcp_bus.presence import KIND, Roster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call

# The one session that all uses of the command line by an agent count as: when it was last seen.
SESSION = "cli"


def of(call: Call) -> Call:
    """Let whoever sits at a terminal speak as the human, unless an agent is named.

    Programs have no terminal, and are named like their repository, as everywhere: an agent's shell must not
    pass for its user by forgetting to say who it is.
    """
    if call.config["agent"] or not is_terminal():
        return call
    return type(call)(call.args, call.config.replaced("terminal", agent=HUMAN), call.out)


def is_terminal() -> bool:
    """Tell whether a person sits at this."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()


def seen(bus: Bus) -> None:
    """Note a sign of life of an agent that claims by the command line: it is at work between two calls."""
    bus.store.records.touch(KIND, holder(bus.identity.agent, SESSION))


@contextmanager
def present(bus: Bus) -> Iterator[None]:
    """Say that the agent is there while it reads or writes: those who write to it see when that was."""
    who = bus.identity
    here = Roster(bus.store, who._replace(session=SESSION, holder=holder(who.agent, SESSION)), bus.source)
    here.arrive(bus.capabilities)
    try:
        yield
    finally:
        here.leave()
