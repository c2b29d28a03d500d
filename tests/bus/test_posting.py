"""What a post promises: one task per key, in the right place, or a refusal that leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import DuplicateTask, InvalidRequest
from mcp_bus.model import MAX_CONTENT, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


def total(bus: Bus) -> int:
    return sum(sum(bus.store.count(channel).values()) for channel in bus.store.channels())


def test_a_post_says_what_is_new(bus: Bus) -> None:
    first, second = bus.post("work", "a"), bus.post("work", {"b": 1})
    assert (first.created, first.new_channel, second.new_channel) == (True, True, False)
    task = bus.get(second.id)
    assert (task.body.content, task.body.sender, task.state) == ('{"b":1}', bus.sender(), State.READY)
    assert second.id > first.id


def test_the_same_key_and_body_is_the_same_task_whatever_became_of_it(bus: Bus, other: Bus) -> None:
    first = bus.post("work", "a", key="k", delay_s=1)
    assert bus.post("work", "a", key="k", delay_s=99) == (first.id, "work", False, False)
    bus.cancel(first.id)
    assert bus.post("work", "a", key="k").id == first.id
    assert bus.get(first.id).state is State.CANCELLED
    assert other.post("work", "a", key="k").created
    assert (total(bus), len(bus.store.ids())) == (2, 2)


@pytest.mark.parametrize("change", [{"priority": 1}, {"title": "t"}, {"requires": ["gpu"]}, {"max_attempts": 9}])
def test_the_same_key_for_another_body_is_refused_and_posts_nothing(bus: Bus, change: dict[str, object]) -> None:
    first = bus.post("work", "a", key="k")
    before = bus.get(first.id)
    with pytest.raises(DuplicateTask, match=first.id) as refusal:
        bus.post("work", "a", key="k", **change)  # type: ignore[arg-type]  # one option of each kind
    assert refusal.value.hint
    with pytest.raises(DuplicateTask):
        bus.post("work", "b", key="k")
    with pytest.raises(DuplicateTask):
        bus.post("play", "a", key="k")
    assert bus.get(first.id) == before
    assert bus.store.ids() == [first.id]


def test_two_sessions_of_one_agent_share_its_keys(open_bus_as: Callable[..., Bus]) -> None:
    one, two = open_bus_as("ann", "1"), open_bus_as("ann", "2")
    assert two.post("work", "a", key="k").id == one.post("work", "a", key="k").id


@pytest.mark.parametrize(
    ("channel", "body", "options"),
    [
        ("UPPER", "a", {}), ("../x", "a", {}), ("work", "x" * (MAX_CONTENT + 1), {}), ("work", "\ud800", {}),
        ("work", float("nan"), {}), ("work", {1, 2}, {}), ("work", "a", {"priority": 10}), ("work", "a", {"color": 1}),
        ("work", "a", {"ttl_s": -1}), ("work", "a", {"title": "\ud800"}), ("work", "a", {"key": "\ud800"}),
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_a_wrong_post_is_refused_and_leaves_nothing(
    bus: Bus, channel: str, body: object, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest):
        bus.post(channel, body, **options)  # type: ignore[arg-type]  # that is what is refused
    assert total(bus) == 0
    assert bus.store.ids() == []


def test_ids_grow_and_their_ends_differ_though_the_clock_stands_still(bus: Bus, source: VirtualSource) -> None:
    ids = [bus.post("work", str(n)).id for n in range(50)]
    source.time -= 3_600_000
    ids += [bus.post("work", str(n)).id for n in range(50)]
    assert ids == sorted(set(ids))
    assert len({task_id[-8:] for task_id in ids}) == 100


def test_settings_of_a_channel_change_one_by_one_and_wrong_ones_change_nothing(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", max_attempts=7)
    assert bus.create_channel("work", lease_s=9).max_attempts == 7
    source.refresh()
    kept = bus.store.policy("work")
    for wrong in ({"lease_s": 0}, {"color": 1}, {"max_attempts": "3"}):
        with pytest.raises(InvalidRequest):
            bus.create_channel("work", **wrong)
    with pytest.raises(InvalidRequest):
        bus.create_channel("Work")
    source.refresh()
    assert (bus.store.policy("work"), bus.store.channels()) == (kept, ["work"])
    assert (kept.max_attempts, kept.lease_s) == (7, 9)
