"""mcp-bus: the work queue and mailbox that coding agents share, on plain files.

    >>> from mcp_bus import open_bus
    >>> with open_bus("/tmp/my-bus") as bus:            # doctest: +SKIP
    ...     bus.post("review", "look at src/app.py")
    ...     task = bus.claim(["review"])
    ...     bus.ack(task, "looks good")

Importing this loads the standard library only; neither `mcp` nor pydantic.
"""

from mcp_bus.bus import Bus
from mcp_bus.config import open_bus
from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    DuplicateTask,
    Gone,
    IllegalTransition,
    InvalidRequest,
    LeaseLost,
    NotFound,
    Overloaded,
    ResultRejected,
    StoreUnavailable,
    Untrusted,
)
from mcp_bus.find import ChannelView, Ending
from mcp_bus.mail import Acked, Delivery, Mail
from mcp_bus.model import (
    Attempt,
    Body,
    Identity,
    Lease,
    Outcome,
    Policy,
    Posted,
    Result,
    Sender,
    Slot,
    State,
    Task,
    Ticket,
)
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
