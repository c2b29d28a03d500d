"""Long waits that are told when to look, and look now and then all the same.

A notification is a hint and may be missing; polling is the truth.  One wait is: look, sleep until
told or until the next slow poll, look again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mcp_bus.notify import Hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_bus.bus import Bus

T = TypeVar("T")

# The slow poll behind the notification, and the fast one where there is none.
POLL_S = 1.0
BLIND_POLL_S = 0.05


def interval(hint: Hint) -> float:
    """Return how long a wait may sleep without looking."""
    return POLL_S if hint.fileno() >= 0 else BLIND_POLL_S


def wait_for(
    bus: Bus, look: Callable[[], T | None], *, channels: Sequence[str] = (), timeout_s: float = 25
) -> T | None:
    """Call `look` until it returns something other than None, or time is up.

    For example `wait_for(bus, lambda: bus.claim(["review"]), timeout_s=60)`.

    Args:
        channels: where to listen for changes; all channels if empty.
        timeout_s: seconds; 0 looks once.

    Returns:
        What `look` returned; None when time was up.
    """
    end = bus.source.monotonic() + timeout_s
    found = look()
    if found is not None or timeout_s <= 0:
        return found
    with Hint(()) as hint:
        while True:
            # Watch before looking: what changes after the look then ends the wait.
            hint.watch(bus.store.paths(channels or bus.store.channels()))
            found = look()
            left = end - bus.source.monotonic()
            if found is not None or left <= 0:
                return found
            hint.wait(min(left, interval(hint)))
