"""Waiting inside a server: one notification descriptor for all waiting calls."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, TypeVar

import anyio

from mcp_bus.errors import BusError
from mcp_bus.notify import Hint
from mcp_bus.watch import interval

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mcp_bus.bus import Bus

logger = logging.getLogger(__name__)
T = TypeVar("T")
# Between two progress notes; the shortest tool time-out known that progress resets is 60 s.
PROGRESS_S = 5.0
# When we were told and found nothing, what was on its way may come where nobody watches yet: in the
# folder of a channel that is being made.
SOON_S = 0.1


class Waker:
    """Wakes all waiting calls of a process when something moves on the bus."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._hint: Hint | None = None
        self._changed = anyio.Event()
        self._told = 0
        self._listening = False

    def close(self) -> None:
        """Stop watching."""
        if self._hint is not None:
            self._hint.close()
            self._hint = None

    async def wait_for(
        self,
        bus: Callable[[], Bus],
        look: Callable[[], T | None],
        *,
        channels: Sequence[str],
        wait_s: float,
        progress: Callable[[float], Awaitable[None]],
    ) -> T | None:
        """Call `look` until it returns something other than None, or `wait_s` is over.

        Args:
            bus: returns the bus that is open now, or raises when there is none any more.
            channels: where to listen; all channels if empty.
            progress: told the seconds waited, every few seconds.
        """
        start = anyio.current_time()
        reported = start
        was_told = False
        while True:
            # Watch before looking: what changes after the look then wakes us.
            changed, told = self._changed, self._told
            if wait_s > 0:
                self._watch(bus(), channels)
            found = look()
            now = anyio.current_time()
            if found is not None or now - start >= wait_s:
                return found
            if now - reported >= PROGRESS_S:
                reported = now
                await progress(now - start)
            left = min(start + wait_s, reported + PROGRESS_S) - now
            await self._sleep(changed, min(left, SOON_S) if was_told else left)
            was_told = self._told != told

    async def find(self, bus: Callable[[], Bus], look: Callable[[], T | None]) -> T:
        """Call `look` until it returns something other than None, however long, and whatever goes wrong meanwhile."""

        async def quiet(_: float) -> None:
            """Nobody waits for progress."""

        while True:
            try:
                found = await self.wait_for(bus, look, channels=(), wait_s=math.inf, progress=quiet)
            except Exception as error:
                if not isinstance(error, BusError):
                    logger.exception("looking for what is new failed")
                await anyio.sleep(1.0)  # The bus is gone; it may come back.
                continue
            assert found is not None, "an endless wait ends with a find"
            return found

    def _watch(self, bus: Bus, channels: Sequence[str]) -> None:
        if self._hint is None:
            self._hint = Hint(())
        self._hint.watch(bus.store.paths(channels or bus.store.channels()))

    async def _sleep(self, changed: anyio.Event, seconds: float) -> None:
        """Sleep until something changes; one of the sleepers listens for all."""
        assert self._hint is not None
        hint = self._hint
        with anyio.move_on_after(min(seconds, interval(hint))):
            if self._listening or hint.fileno() < 0:
                await changed.wait()
                return
            self._listening = True
            try:
                await anyio.wait_readable(hint.fileno())
                self._told += 1
            finally:
                self._listening = False
                self._changed.set()
                self._changed = anyio.Event()
            hint.drain()
