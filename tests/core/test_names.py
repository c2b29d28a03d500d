"""A name says everything about a slot, two slots never share one, and what is not ours is foreign."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mcp_bus import names
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import Lease, Slot, State

hexdigits = st.sampled_from("0123456789abcdef")
ids = st.builds("req_{}".format, st.text(hexdigits, min_size=8, max_size=48))
tokens = st.text(hexdigits, min_size=4, max_size=32)
holders = st.text(st.sampled_from("azAZ09_@+~-"), min_size=1, max_size=64)
days = st.dates().map(lambda day: day.isoformat())
small, large = st.integers(0, 10**9 - 1), st.integers(0, 10**15 - 1)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    """Any slot that the state machine can reach, and then some."""
    state = draw(st.sampled_from(State))
    slot = Slot(draw(ids), "work", state, draw(st.integers(-9, 9)), draw(small), draw(small), draw(small), draw(large))
    if state is State.SCHEDULED:
        return slot._replace(not_before=draw(large))
    if state is State.LEASED:
        return slot._replace(lease=Lease(draw(holders), draw(tokens), draw(large)))
    if state in (State.READY, State.DEAD):
        return slot
    slot = slot._replace(day=draw(days | st.just("")))
    if state is State.CANCELLED:
        return slot._replace(discarded=draw(st.booleans()))
    if state is State.DONE:
        return slot._replace(lease=draw(st.none() | st.builds(Lease, holders, tokens, st.just(0))))
    return slot


LONGEST = Slot(
    "req_" + "f" * 48, "c", State.LEASED, -9, 10**9 - 1, 10**9 - 1, 10**9 - 1, 10**15 - 1, 0,
    Lease("h" * 64, "f" * 32, 10**15 - 1),
)  # fmt: skip


@given(slots())
@example(LONGEST)
def test_a_name_read_back_is_the_slot(slot: Slot) -> None:
    place = names.place(slot)
    assert names.parse("work" if slot.channel == "work" else "c", *place) == slot
    assert len(place.name.encode()) < 255


@given(slots(), slots())
def test_two_slots_never_share_a_path(one: Slot, two: Slot) -> None:
    assume(one != two)
    assert names.place(one) != names.place(two)


@given(slots().filter(lambda slot: slot.state is State.LEASED))
def test_a_staged_result_s_name_begins_the_name_of_its_lease(slot: Slot) -> None:
    assert slot.lease is not None
    staged = names.staged(slot)
    assert names.place(slot).name.startswith(staged.removesuffix("json"))
    assert names.parse_staged(staged, "work") == slot._replace(lease=slot.lease._replace(expires=0))


@given(slots())
def test_priority_and_end_can_be_read_without_the_rest(slot: Slot) -> None:
    place = names.place(slot)
    if slot.state in (State.READY, State.SCHEDULED):
        assert names.name_priority(place.name) == slot.priority
    if place.folder.startswith("archive"):
        assert names.end_of(place.name) is slot.state


@given(
    st.sampled_from(["requests", "delayed", "processing", "dead", "archive", "archive/2026-11-21", "archive/x", "x"]),
    st.text(max_size=60)
    | st.from_regex(r"(\d{1,3}\.)?req_\w{8,12}(\.[pamrt]-?\d{1,3}){0,5}(_\w+)?\.json", fullmatch=True),
)
def test_whatever_is_parsed_is_exactly_what_place_would_make(folder: str, name: str) -> None:
    slot = names.parse("work", folder, name)
    if slot is not None:
        assert names.place(slot) == (folder, name)


ID = "req_0123456789ab"
FOREIGN = [
    "", ".", "..", "x.json", f"{ID}", f"{ID}.json.tmp", f"{ID}.JSON", f"{ID}.json\n", f".{ID}.json", f"{ID}..json",
    f"{ID}.p0.json", f"{ID}.p10.json", f"{ID}.p-0.json", f"{ID}.p+1.json", f"{ID}.p1.p1.json", f"{ID}.a0.json",
    f"{ID}.a01.json", f"{ID}.a1.p1.json", f"{ID}.a٣.json", f"{ID}.a1٣.json", f"{ID}.a\uff11.json", f"{ID}.t-5.json",
    f"{ID}.a1234567890.json", f"{ID}.x1.json", f"{ID} .json", f"{ID}/../x.json", "req_.json", "req_0123456.json",
    "req_0123456789AB.json", "req_٠١٢٣٤٥٦٧.json", "req_" + "0" * 49 + ".json", "REQ_0123456789ab.json",
    "req_0123456789ab\udcff.json", f"{ID}.reason.json", f"{ID}_request.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN, ids=ascii)
@pytest.mark.parametrize("folder", ["requests", "dead", "processing"])
def test_a_name_that_is_not_ours_is_foreign(folder: str, name: str) -> None:
    assert names.parse("work", folder, name) is None


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("delayed", f"{ID}.json"), ("delayed", f"01.{ID}.json"), ("delayed", f"-1.{ID}.json"),
        ("delayed", f"\uff11.{ID}.json"), ("delayed", f"1000000000000000.{ID}.json"),
        ("processing", f"{ID}.a1.h.ABCD.5.json"), ("processing", f"{ID}.a1.h.abc.5.json"),
        ("processing", f"{ID}.a1.h h.abcd.5.json"), ("processing", f"{ID}.a1.h.abcd.05.json"),
        ("processing", f"{ID}.a1.h.abcd.\u0665.json"), ("processing", f"{ID}.a1.{'h' * 65}.abcd.5.json"),
        ("archive/2026-11-21", f"{ID}_done.json"), ("archive/2026-11-21", f"{ID}.json"),
        ("archive/yesterday", f"{ID}_request.json"), ("archive/../..", f"{ID}_request.json"),
        ("archive/", f"{ID}_request.json"), ("archive/٢٠٢٦-11-21", f"{ID}_request.json"),
        ("responses", f"{ID}.json"), ("", f"{ID}.json"), ("attempts", f"{ID}.json"),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_name_in_the_wrong_place_is_foreign(folder: str, name: str) -> None:
    assert names.parse("work", folder, name) is None


def test_a_claim_of_another_program_keeps_every_mark_of_the_name_it_moved() -> None:
    slot = names.parse("work", "processing", f"{ID}.p2.a1.m4.r1.t99.json")
    assert slot == Slot(ID, "work", State.LEASED, 2, 1, 4, 1, 99, lease=Lease("abq", "", 0))
    assert names.place(slot) == ("processing", f"{ID}.p2.a1.m4.r1.t99.json")


@pytest.mark.parametrize("name", ["a", "0", "code-review", "a.b_c-d", "x" * 64, "console", "com10"])
def test_a_channel_s_name_is_accepted(name: str) -> None:
    assert names.check_channel(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "-a", "_a", "a/b", "a\\b", "a\0", "a\n", "a b", "ä", "x" * 65, "con", "nul.txt", "lpt1", None,
     7, b"a", ["a"], "../../etc", "a" * 100_000],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_what_is_no_channel_s_name_is_refused_in_a_short_message(name: object) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        names.check_channel(name)
    assert len(str(refusal.value)) < 120


def test_an_upper_case_channel_is_refused_with_the_name_it_could_have() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        names.check_channel("Review")
    assert "'review'" in refusal.value.hint


@given(st.text(max_size=300), st.text(st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyz"), min_size=1, max_size=16))
def test_any_agent_has_a_holder_s_name_that_fits_and_ends_in_its_session(agent: str, session: str) -> None:
    made = names.holder(agent, session)
    assert re.match(names.HOLDER, made)
    assert made.rpartition("~")[2] == session


def test_long_agents_are_told_apart_by_their_ends() -> None:
    one, two = (
        names.holder(f"example.org/a-very-long-owner/a-very-long-repository/branch-{n}", "s" * 16) for n in (1, 2)
    )
    assert one != two
    assert names.holder("planner", "7f3a90c2") == "planner~7f3a90c2"
    assert re.fullmatch(
        r"github-com-acme-app-main\+[0-9a-f]{8}~7f3a90c2", names.holder("github.com/acme/app/main", "7f3a90c2")
    )
