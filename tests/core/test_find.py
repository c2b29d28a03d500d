"""Any unique beginning or end of an id finds its task; searches and endings say what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import find
from mcp_bus.errors import Gone, InvalidRequest, NotFound
from mcp_bus.model import State
from mcp_bus.stores.memory import MemoryStore
from tests.fakes import VirtualSource, bus_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus


class Listing(MemoryStore):
    """A store that is nothing but ids."""

    def __init__(self, *found: str) -> None:
        super().__init__()
        self.found = found

    def ids(self) -> list[str]:
        return list(self.found)


ONE, TWO, SHORT = "req_0193aaaa00000000000000deadbeef", "req_0193bbbb00000000000000deadcafe", "req_0193aaaa"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("beef", ONE), ("deadcafe", TWO), ("0193aaaa0", ONE), ("req_0193b", TWO), ("req_0193B", TWO), ("BEEF", ONE),
        ("0193bbbb00000000000000deadcafe", TWO), (ONE, ONE), (SHORT, SHORT),
    ],
)  # fmt: skip
def test_a_unique_beginning_or_end_is_enough_and_a_whole_id_always(text: str, full: str) -> None:
    assert find.resolve(Listing(ONE, TWO, SHORT), text) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req_",
        "abc",
        "req_abc",
        "be ef",
        "be/ef",
        "../tasks",
        "beef.json",
        "bëef",
        "\uff42eef",
        "req_req_beef",
        "a" * 65,
        None,
        7,
    ],
)
def test_what_cannot_be_part_of_an_id_is_refused(text: object) -> None:
    with pytest.raises(InvalidRequest):
        find.resolve(Listing(ONE, TWO), text)


def test_an_ambiguous_part_names_some_of_the_tasks() -> None:
    with pytest.raises(NotFound, match="any of 2 tasks") as refusal:
        find.resolve(Listing(ONE, TWO), "0193")
    assert ONE in str(refusal.value)
    with pytest.raises(NotFound, match="…"):
        find.resolve(Listing(*(f"req_0193{n:026x}" for n in range(4))), "0193")


def test_an_unknown_part_is_not_found_in_a_short_message() -> None:
    with pytest.raises(NotFound) as refusal:
        find.resolve(Listing(ONE), "f" * 60)
    assert len(str(refusal.value)) < 100


def test_a_whole_id_is_not_looked_up_so_that_a_pruned_one_is_gone_and_not_unknown(bus: Bus) -> None:
    posted = bus.post("work", "x")
    bus.cancel(posted.id)
    bus.store.swap(bus.get(posted.id).slot, None)
    with pytest.raises(Gone, match="cancelled on"):
        bus.get(posted.id)
    with pytest.raises(NotFound) as refusal:
        bus.get(posted.id[-8:])
    assert not isinstance(refusal.value, Gone)
    assert find.safe_ending(bus, posted.id).is_over


def test_a_search_finds_words_wherever_they_are_and_states_and_pages(bus: Bus) -> None:
    first = bus.post("work", "Fix the PARSER", title="urgent").id
    second = bus.post("work", "fix the lexer", thread="parser-rewrite").id
    third = bus.post("play", "nothing", key="k").id
    bus.cancel(third)
    found = [task.id for task in find.tasks(bus, text="parser fix")]
    assert sorted(found) == sorted([first, second])
    assert [task.id for task in find.tasks(bus, state="cancelled")] == [third]
    assert [task.id for task in find.tasks(bus, channel="work", after=first)] == [second]
    assert [task.id for task in find.tasks(bus, channel="work", limit=1)] == [first]
    assert list(find.tasks(bus, text="parser", state="done")) == []
    with pytest.raises(InvalidRequest, match="not a state"):
        list(find.tasks(bus, state="sleeping"))


def test_each_channel_is_seen_at_a_glance(bus: Bus, source: VirtualSource) -> None:
    start = source.now()
    bus.create_channel("work", max_attempts=9)
    bus.post("work", "old")
    source.advance(60)
    bus.post("work", "new", priority=9)
    bus.post("play", "later", delay_s=5)
    views = {view.name: view for view in find.channels(bus.store)}
    assert views["work"].counts[State.READY] == 2
    assert (views["work"].oldest, views["play"].oldest) == (start, 0)
    assert (views["work"].policy.max_attempts, views["play"].counts[State.SCHEDULED]) == (9, 1)


def test_an_ending_follows_edited_retries_to_the_task_that_counts(bus: Bus) -> None:
    first = bus.post("work", "a", max_attempts=1).id
    for content in ("b", "c"):
        bus.nack(bus.claim() or pytest.fail("nothing to claim"), "no")
        dead = next(iter(find.tasks(bus, state="dead")))
        bus.retry(dead.id, body=content)
    last = bus.claim()
    assert last is not None
    assert find.ending(bus, first).task is not None
    assert not find.ending(bus, first).is_over
    bus.ack(last, "done")
    ending = find.ending(bus, first)
    assert ending.is_over
    assert ending.task is not None
    assert ending.task.result is not None
    assert (ending.asked, ending.task.body.content, ending.task.result.content) == (first, "c", "done")


def test_an_ending_says_why_there_is_none(bus: Bus) -> None:
    ending = find.safe_ending(bus, "req_" + "0" * 32)
    assert (ending.task, ending.is_over) == (None, True)
    assert "there is no task" in ending.error


def test_a_cancelled_task_without_a_successor_has_ended(open_bus_as: Callable[..., Bus]) -> None:
    bus = open_bus_as()
    posted = bus.post("work", "x")
    assert not find.ending(bus, posted.id).is_over
    bus.cancel(posted.id, "not wanted")
    ending = find.ending(bus, posted.id)
    assert ending.is_over
    assert ending.task is not None
    assert ending.task.state is State.CANCELLED


def test_a_search_passes_over_what_cannot_be_read() -> None:
    source = VirtualSource()
    store = MemoryStore()
    bus = bus_on(store, source)
    bus.post("work", "x")
    broken = bus.post("work", "y").id
    store.medium.bodies[broken] = b"{"
    assert [task.body.content for task in find.tasks(bus)] == ["x"]
