"""Telling the bus something again and again, while it cannot be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mcp_bus.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Patience(NamedTuple):
    """How long somebody waits for a bus that cannot be reached.

    Attributes:
        gives_up: waits a while, and tells whether that was the last time.
        say: is told once that something waits.
    """

    gives_up: Callable[[], bool]
    say: Callable[[str], None]

    def insist(self, send: Callable[[], T], waits: Callable[[], str]) -> T:
        """Tell the bus something, as often as it cannot be reached; return what it answers.

        Args:
            waits: returns what waits, in words; called once, and only if something does.

        Raises:
            StoreUnavailable: the bus still cannot be reached, and whoever waits gives up.
        """
        is_told = is_last = False
        while True:
            try:
                return send()
            except StoreUnavailable as error:
                if not is_told:
                    self.say(f"{error}; {waits()}")
                if is_last:
                    raise
                is_told, is_last = True, self.gives_up()


# Of one who tries once more, and then gives up.
NONE = Patience(lambda: True, lambda _: None)
