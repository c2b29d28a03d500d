"""What becomes of a skill, as a table."""

from __future__ import annotations

from itertools import product

import pytest

from mcp_bus.skills.decide import Blob, Step, chosen, decide, of_copies

OLD, NEW, OTHER = ({"SKILL.md": Blob(word), "run.sh": Blob("same", is_executable=True)} for word in ("1", "2", "3"))
Row = tuple[dict[str, Blob] | None, dict[str, Blob] | None, dict[str, Blob] | None, Step]
PLAIN = OLD | {"run.sh": Blob("same")}
TABLE: tuple[Row, ...] = (
    (None, None, None, Step.SAME),
    (OLD, None, None, Step.SAME),
    (None, OLD, OLD, Step.SAME),
    (OLD, NEW, NEW, Step.SAME),
    (None, NEW, None, Step.PUSH),
    (None, None, NEW, Step.TAKE),
    (OLD, NEW, OLD, Step.PUSH),
    (OLD, OLD, NEW, Step.TAKE),
    (OLD, PLAIN, OLD, Step.PUSH),
    (OLD, OLD, PLAIN, Step.TAKE),
    (OLD, None, OLD, Step.DROP_THERE),
    (OLD, OLD, None, Step.DROP_HERE),
    (OLD, None, NEW, Step.CONFLICT),
    (OLD, NEW, None, Step.CONFLICT),
    (OLD, NEW, OTHER, Step.CONFLICT),
    (None, NEW, OTHER, Step.CONFLICT),
)


@pytest.mark.parametrize("row", TABLE)
def test_a_skill_goes_where_it_changed_and_nowhere_if_both_did(row: Row) -> None:
    base, mine, theirs, step = row
    assert decide(base, mine, theirs) is step


def test_a_side_that_has_all_that_the_other_changed_is_further_on() -> None:
    base = {"a": Blob("1"), "b": Blob("1"), "c": Blob("1")}
    theirs = {"a": Blob("2"), "b": Blob("2"), "d": Blob("2")}
    for a, b, c, d in product((base, theirs), repeat=4):
        mixed = {path: side[path] for path, side in zip("abcd", (a, b, c, d), strict=True) if path in side}
        if mixed not in (base, theirs):
            assert decide(base, mixed, theirs) is Step.TAKE
            assert decide(base, theirs, mixed) is Step.PUSH
            assert decide(base, mixed | {"mine": Blob("3")}, theirs) is Step.CONFLICT


def test_copies_in_several_folders_go_on_together_or_not_at_all() -> None:
    assert of_copies(OLD, [OLD, OLD], NEW) is Step.TAKE
    assert of_copies(OLD, [OLD, NEW], NEW) is Step.TAKE, "one was written, and then the host was killed"
    assert of_copies(OLD, [NEW, NEW], OLD) is Step.PUSH
    assert of_copies(OLD, [NEW, OLD], OLD) is Step.CONFLICT
    assert of_copies(None, [NEW, OTHER], None) is Step.CONFLICT
    assert of_copies(OLD, [], OLD) is Step.DROP_THERE


def test_a_person_s_choice_decides_but_for_copies_that_differ() -> None:
    assert chosen("mine", [NEW], OTHER) is Step.PUSH
    assert chosen("theirs", [NEW], OTHER) is Step.TAKE
    assert chosen("mine", [], OTHER) is Step.DROP_THERE
    assert chosen("theirs", [NEW], None) is Step.DROP_HERE
    assert chosen("theirs", [NEW, OLD], OTHER) is Step.TAKE
    assert chosen("mine", [NEW, OLD], OTHER) is Step.CONFLICT
    assert chosen("mine", [NEW], NEW) is chosen("theirs", [NEW], NEW) is Step.SAME
