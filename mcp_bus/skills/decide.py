"""What becomes of a skill, from what was last the same on both sides, what is here and what is there.  Pure.

A side that has all that the other side changed, in the same way, is simply further on.  So a host that was killed while
it wrote, and has a part of each, goes on; and nothing that only one side has is ever lost without a word.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Blob(NamedTuple):
    """A file: the name that git gives its bytes, and whether it can be executed."""

    oid: str
    is_executable: bool = False


class Step(StrEnum):
    """What is to be done with a skill."""

    SAME = "same"
    PUSH = "push"
    TAKE = "take"
    DROP_THERE = "remove there"
    DROP_HERE = "remove here"
    CONFLICT = "conflict"
    SKIP = "skip"
    FAIL = "fail"


if TYPE_CHECKING:
    Files = Mapping[str, Blob]


def decide(base: Files | None, mine: Files | None, theirs: Files | None) -> Step:
    """Return what to do with a skill; None stands for a side that has none.

    Args:
        base: what both sides had when this host last synchronized.
    """
    if mine == theirs:
        return Step.SAME
    if mine is None:
        return Step.TAKE if base is None else Step.DROP_THERE if theirs == base else Step.CONFLICT
    if theirs is None:
        return Step.PUSH if base is None else Step.DROP_HERE if mine == base else Step.CONFLICT
    if _is_within(base or {}, mine, theirs):
        return Step.TAKE
    return Step.PUSH if _is_within(base or {}, theirs, mine) else Step.CONFLICT


def _is_within(base: Files, one: Files, other: Files) -> bool:
    """Tell whether all that one side changed, the other changed in the same way."""
    return all(one.get(path) in (base.get(path), other.get(path)) for path in {*base, *one})


def of_copies(base: Files | None, copies: Sequence[Files], theirs: Files | None) -> Step:
    """Return what to do with a skill that is in several folders here: they go on together, or not at all."""
    found = {decide(base, mine, theirs) for mine in copies} or {decide(base, None, theirs)}
    if found <= {Step.SAME, Step.TAKE}:
        return max(found, key=lambda step: step is Step.TAKE)
    return found.pop() if _agree(copies) else Step.CONFLICT


def chosen(side: str, copies: Sequence[Files], theirs: Files | None) -> Step:
    """Return what to do with a skill of which a person said that `mine` or `theirs` counts."""
    if _agree(copies) and theirs == (copies[0] if copies else None):
        return Step.SAME
    if side == "theirs":
        return Step.TAKE if theirs is not None else Step.DROP_HERE
    if not copies:
        return Step.DROP_THERE
    return Step.PUSH if _agree(copies) else Step.CONFLICT


def _agree(copies: Sequence[Files]) -> bool:
    return all(mine == copies[0] for mine in copies)
