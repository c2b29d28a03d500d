"""The tasks a claimer may try next: one listing, consumed over many claims.

Listing a folder costs in proportion to what waits in it; taking the next name from a listing does
not.  A listing is a hint about where to try: each name is settled by the rename that follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.model import State
from mcp_bus.routing import rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.clock import Source
    from mcp_bus.model import Slot
    from mcp_bus.stores.base import Store

# A listing is used for this long at least, and for this many times what it cost to make, so that
# listing never takes more than about a twentieth of the time, however much waits.
FRESH_S = 0.02
COST_FACTOR = 20


class _Line:
    """What waits in one channel, by the last listing."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.head: Slot | None = None
        self._rest: Iterator[Slot] = iter(())
        self._until = 0.0

    def is_stale(self, now: float) -> bool:
        return now >= self._until

    def list(self, store: Store, source: Source) -> None:
        start = source.monotonic()
        self._rest = store.scan(self.channel, State.READY)
        self.pop()
        end = source.monotonic()
        self._until = end + max(FRESH_S, COST_FACTOR * (end - start))

    def pop(self, skip: int = 0) -> None:
        for _ in range(skip):
            next(self._rest, None)
        self.head = next(self._rest, None)


class Backlog:
    """The lines of all channels a claimer looks at."""

    def __init__(self, store: Store, source: Source) -> None:
        """Read from `store` when listings are used up or old."""
        self._store = store
        self._source = source
        self._lines: dict[str, _Line] = {}

    def candidates(self, channels: Sequence[str]) -> Candidates:
        """Return the candidates of one claim."""
        now = self._source.monotonic()
        lines = []
        for channel in channels:
            line = self._lines.get(channel)
            if line is None:
                line = self._lines[channel] = _Line(channel)
            if line.is_stale(now):
                line.list(self._store, self._source)
                lines.append((line, True))
            else:
                lines.append((line, False))
        return Candidates(self._store, self._source, lines)


class Candidates:
    """Gives slots in the order they should be tried, each listing refreshed once when used up."""

    def __init__(self, store: Store, source: Source, lines: list[tuple[_Line, bool]]) -> None:
        """Go through `lines`; the flag says that a line was listed just now."""
        self._store = store
        self._source = source
        self._lines = [line for line, _ in lines]
        self._fresh = {line.channel for line, fresh in lines if fresh}
        self._stepped_over = self._is_last_look = False

    def next(self, skip: int = 0) -> Slot | None:
        """Return the next slot to try, or None when nothing is left.

        Args:
            skip: entries to step over in the line it is taken from, after lost races.
        """
        best: _Line | None = None
        for line in self._lines:
            if line.head is None and line.channel not in self._fresh:
                self._fresh.add(line.channel)
                line.list(self._store, self._source)
            if line.head is not None and (best is None or rank(line.head) < rank(_head(best))):
                best = line
        if best is None:
            return self._look_again() if self._stepped_over else None
        slot = _head(best)
        best.pop(0 if self._is_last_look else skip)
        self._stepped_over = self._stepped_over or (skip > 0 and not self._is_last_look)
        return slot

    def _look_again(self) -> Slot | None:
        """Go back to what was stepped over: it may be all that is left."""
        self._stepped_over, self._is_last_look = False, True
        self.refresh()
        return self.next()

    def refresh(self) -> None:
        """List everything again: too many races were lost on this listing."""
        for line in self._lines:
            line.list(self._store, self._source)


def _head(line: _Line) -> Slot:
    assert line.head is not None
    return line.head
