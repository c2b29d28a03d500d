"""How far a store is from what all hosts of its bus share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# What an address of a bus at a git remote begins with, and what a directory has that is a host's part of one.
SCHEME, NAME = "git+", "git.json"
# What a line of what was done begins with that is of this host alone.
HERE = "here: "


class Away(NamedTuple):
    """Where else a bus is, and how far what is known here is from that.

    Attributes:
        address: of the remote, as `--bus` takes it.
        asked: when it was last asked; 0 for never.
        unsent: how many posts of this host it does not have yet.
        tentative: the tasks that this host claimed without it; it decides whose they are.
        lost: those of them that turned out to be another host's, as far as this process has seen.
        is_needed: whether a claim needs it; else it is tentative while the remote does not answer.
        lost_tokens: under which tentative claims were made that were lost, lately.
        trouble: why it did not answer, when it was last asked in vain; empty if it does.
    """

    address: str
    asked: int
    unsent: int = 0
    trouble: str = ""
    tentative: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    is_needed: bool = True
    lost_tokens: frozenset[str] = frozenset()


class Alone:
    """A store that is all there is of its bus: what a verb did is seen as soon as it returns."""

    away = None
    leeway = 0
    silence = 0
    part = ""

    def together(self, told: Callable[[T], str], work: Callable[[], T]) -> T:
        """See `Store.together`."""
        del told
        return work()
