"""Time, randomness and ids, as values that are passed in.

Tests pass their own; the rest of the package never calls `time.time` or `os.urandom` itself.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def span(text: str) -> float:
    """Return a time span in seconds: 90, 90s, 5m, 2h, 3d.

    Raises:
        ValueError: it is none.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    # float() alone would take 1e3, nan and 1_0 too.
    if number.replace(".", "", 1).isdecimal() and number.isascii():
        return float(number) * UNITS[unit]
    msg = f"{text[:40]!r} is not a time span, such as 90, 90s, 5m, 2h or 3d"
    raise ValueError(msg)


class Source(Protocol):
    """Where a bus takes time and chance from."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def token(self, size: int) -> str:
        """Return `size` random bytes in hex."""
        ...


class System:
    """The machine's clock and random numbers.

    Args:
        offset: milliseconds to add so that `now()` agrees with the file system's clock.
    """

    def __init__(self, offset: int = 0) -> None:
        """Start with a known difference to the file system's clock."""
        self.offset = offset

    def now(self) -> int:
        """Milliseconds since the epoch, by the file system's clock."""
        return time.time_ns() // 1_000_000 + self.offset

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def token(self, size: int) -> str:
        """Return `size` random bytes in hex."""
        return os.urandom(size).hex()


class Ids:
    """Makes task ids: `req_`, 12 hex digits of milliseconds, 20 random ones.

    Ids sort by time; within one maker they only ever grow, also when the clock stands still or
    goes back.
    """

    def __init__(self, source: Source) -> None:
        """Take time and chance from `source`."""
        self._source = source
        self._last = ""

    def next(self) -> str:
        """Return a new id, greater than every one made before."""
        made = f"req_{self._source.now():012x}{self._source.token(10)}"
        if made <= self._last:
            # Same millisecond (or a clock that went back): count on from the last, by a random
            # step so that the short form (the last digits) stays different.
            step = int(self._source.token(4), 16) + 1
            made = f"req_{int(self._last[4:], 16) + step:032x}"
        self._last = made
        return made
