"""Ctrl-C and SIGTERM at the right moment: never between a claim and the note of who has it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """While entered, a signal that ends the process raises `KeyboardInterrupt` with its number.

    Inside `held_back` it is raised at the end of the block.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self._is_held_back = False
        self._came = 0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        """Begin to listen."""
        for number in SIGNALS:
            # What the caller chose to ignore (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._came = number
        if not self._is_held_back:
            raise KeyboardInterrupt(number)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Raise what comes meanwhile when the block has ended."""
        self._is_held_back, self._came = True, 0
        try:
            yield
        finally:
            self._is_held_back = False
        if self._came:
            raise KeyboardInterrupt(self._came)
