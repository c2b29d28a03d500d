"""A worker gets only what it can do; higher priority goes first, then the older."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import routing
from mcp_bus.model import Slot, State

words = st.lists(st.sampled_from("abcdef"))


@given(words, words)
def test_a_worker_may_take_what_it_lacks_nothing_for(requires: list[str], capabilities: list[str]) -> None:
    lacking = routing.missing(requires, capabilities)
    assert (lacking == ()) == set(requires).issubset(capabilities)
    assert set(lacking) == set(requires) - set(capabilities)


def test_the_order_is_priority_then_age_wherever_a_task_waits() -> None:
    slots = [
        Slot("req_00000003", "a", State.READY, 0),
        Slot("req_00000002", "b", State.READY, 0),
        Slot("req_00000009", "a", State.READY, 9),
        Slot("req_00000001", "b", State.READY, -9),
    ]
    assert [slot.id[-1] for slot in sorted(slots, key=routing.rank)] == ["9", "2", "3", "1"]


@given(st.integers(0, 100), st.integers(0, 2**16))
def test_a_claimer_steps_over_a_few_after_lost_races_only(losses: int, chance: int) -> None:
    assert 0 <= routing.spread(losses, chance) < 64
    assert losses >= 2 or routing.spread(losses, chance) == 0
