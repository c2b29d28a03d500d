"""One tool call: whose it is, where its answer may send its reader, and how long it may wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest
from mcp_bus.server.words import ALL_WAYS, Ways

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_bus.bus import Bus
    from mcp_bus.server.session import Session


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call: whose it is, the bus, and how to report progress to its caller."""

    session: Session
    bus: Bus
    progress: Callable[[float, float, str], Awaitable[None]]
    request_id: str | int | None = None
    ways: Ways = ALL_WAYS

    def wait_s(self, wished: float | None) -> float:
        """Return how long to wait: the wish or the configured default, within the configured limit."""
        config = self.session.config
        seconds = config["wait_s"] if wished is None else wished
        if seconds != seconds or seconds < 0:  # noqa: PLR0124  NaN
            msg = f"wait_s is {seconds!r}"
            raise InvalidRequest(msg, hint="give seconds, 0 for no waiting")
        return float(min(seconds, config["max_wait_s"]))
