"""mcp-bus: the work queue and mailbox that coding agents share, on plain files.

    >>> from mcp_bus import open_bus
    >>> with open_bus("/tmp/my-bus") as bus:            # doctest: +SKIP
    ...     bus.post("review", "look at src/app.py")
    ...     task = bus.claim(["review"])
    ...     bus.ack(task, "looks good")

Importing this loads the standard library only, and what does the work when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    DuplicateTask,
    Gone,
    IllegalTransition,
    InvalidRequest,
    LeaseLost,
    NotAllowed,
    NotFound,
    Overloaded,
    ResultRejected,
    StoreUnavailable,
    Untrusted,
)
from mcp_bus.model import (
    Attempt,
    Body,
    Identity,
    Lease,
    Outcome,
    Policy,
    Result,
    Sender,
    Slot,
    State,
    Task,
    Ticket,
)

if TYPE_CHECKING:
    from mcp_bus.bus import Bus, Posted
    from mcp_bus.config import open_bus
    from mcp_bus.find import ChannelView, Ending
    from mcp_bus.mail import Acked, Delivery, Mail
    from mcp_bus.outbox import Sent
    from mcp_bus.recovery import sweep
    from mcp_bus.traces import Trace, trace
    from mcp_bus.watch import wait_for

__all__ = [
    "Acked",
    "Attempt",
    "Body",
    "Bus",
    "BusError",
    "ChannelView",
    "Conflict",
    "CorruptRecord",
    "Delivery",
    "DuplicateTask",
    "Ending",
    "Gone",
    "Identity",
    "IllegalTransition",
    "InvalidRequest",
    "Lease",
    "LeaseLost",
    "Mail",
    "NotAllowed",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Policy",
    "Posted",
    "Result",
    "ResultRejected",
    "Sender",
    "Sent",
    "Slot",
    "State",
    "StoreUnavailable",
    "Task",
    "Ticket",
    "Trace",
    "Untrusted",
    "open_bus",
    "sweep",
    "trace",
    "wait_for",
]

# Where a name is that is loaded when it is first asked for: a verb of the command line lives for some tens of
# milliseconds, and to load what it does not need would take a third of them.
_HOMES = {
    "Acked": "mail",
    "Bus": "bus",
    "ChannelView": "find",
    "Delivery": "mail",
    "Ending": "find",
    "Mail": "mail",
    "Posted": "bus",
    "Sent": "outbox",
    "Trace": "traces",
    "open_bus": "config",
    "sweep": "recovery",
    "trace": "traces",
    "wait_for": "watch",
}


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    """Return the names of the package, those that are not loaded yet among them."""
    return sorted({*globals(), *__all__})
