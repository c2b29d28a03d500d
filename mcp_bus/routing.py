"""Which worker may take which task, and in what order.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_bus.model import Slot


def missing(requires: Iterable[str], capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return the capabilities a worker lacks for a task; empty when it may take it.

    Matched when a task is claimed, never by the worker's own word afterwards: a worker cannot get
    what it cannot do.
    """
    have = frozenset(capabilities)
    return tuple(name for name in requires if name not in have)


def rank(slot: Slot) -> tuple[int, str]:
    """Sort key for claiming: higher priority first, then the older id.

    Across channels the same key decides, so a busy channel cannot starve a quiet one: the oldest
    task of the highest priority goes first wherever it is.
    """
    return (-slot.priority, slot.id)


def spread(losses: int, chance: int) -> int:
    """Return how many candidates to step over after lost races.

    Claimers that all start at the oldest task would fight for each one.  After two losses in a row
    a claimer steps to one of the next few entries by chance.
    """
    if losses < 2:
        return 0
    return chance % min(8 * losses, 64)
