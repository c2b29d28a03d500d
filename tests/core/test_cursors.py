"""A cursor says what a subscriber has seen: late ids are not missed, and nothing unread is passed over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import cursors, wire
from mcp_bus.cursors import Cursor, Mark
from mcp_bus.errors import CorruptRecord

NOW = 1_795_000_000_000
MARK = Mark(NOW, "ann~1", "library")


def made(ms: int, number: int = 0) -> str:
    return f"req_{NOW + ms:012x}{number:020x}"


def test_what_was_acked_is_not_unread_and_what_was_only_offered_is() -> None:
    ids = [made(n) for n in range(4)]
    cursor = cursors.ack(cursors.offer(Cursor("ann"), ids[:3], MARK), [ids[1]], MARK)
    assert cursors.unread(cursor, reversed(ids)) == [ids[0], ids[2], ids[3]]


def test_an_id_that_becomes_visible_late_is_still_unread_after_younger_ones_were_acked() -> None:
    young = [made(n) for n in range(1, 2000)]
    cursor = cursors.ack(Cursor("ann"), young, MARK)
    cursor = cursors.advance(cursor, young, now=NOW + cursors.SETTLE)
    assert cursor.watermark == "", "nothing is old enough to have settled"
    assert cursors.unread(cursor, [made(0), *young]) == [made(0)]


def test_the_watermark_passes_what_is_acked_and_settled_and_stops_before_what_is_not() -> None:
    ids = [made(n) for n in range(1000)]
    cursor = cursors.ack(Cursor("ann"), [i for i in ids if i != ids[500]], MARK)
    cursor = cursors.advance(cursor, ids, now=NOW + cursors.SETTLE + 2000)
    assert cursor.watermark == ids[499]
    assert cursors.unread(cursor, ids) == [ids[500]]


def test_the_latest_marks_are_kept_for_the_trace() -> None:
    ids = [made(n) for n in range(1000)]
    cursor = cursors.advance(cursors.ack(Cursor("ann"), ids, MARK), ids, now=NOW + 3_600_000)
    assert sorted(cursor.acked) == ids[-cursors.KEEP :]
    assert cursors.unread(cursor, ids) == []


def test_the_first_to_ack_stays_in_the_record() -> None:
    later = MARK._replace(at=NOW + 5, session="ann~2")
    cursor = cursors.ack(cursors.ack(Cursor("ann"), [made(0)], MARK), [made(0)], later)
    assert cursor.acked == {made(0): MARK}


@given(st.lists(st.integers(0, 30), max_size=60), st.lists(st.integers(0, 30), max_size=30), st.integers(-40, 90_000))
def test_whatever_the_order_of_acks_and_advances_exactly_what_was_not_acked_is_unread(
    acked: list[int], retained: list[int], age: int
) -> None:
    cursor, there = Cursor("ann"), sorted({made(n) for n in [*acked, *retained]})
    for number in acked:
        cursor = cursors.ack(cursor, [made(number)], MARK)
        cursor = cursors.advance(cursor, there, now=NOW + age)
    assert cursors.unread(cursor, there) == sorted(set(there) - {made(n) for n in acked})


def test_a_cursor_written_and_read_is_the_same() -> None:
    cursor = Cursor("ann", made(0), {made(1): MARK}, {made(2): MARK}, {"signal": "go"}, is_active=False)
    assert cursors.load(wire.loads(wire.dumps(cursors.fields(cursor))), now=NOW) == cursor


@pytest.mark.parametrize("watermark", [f"req_{NOW + 10**9:012x}{0:020x}", "zzz", "req_", "\u0661"])
def test_a_watermark_from_the_future_or_of_no_form_hides_nothing(watermark: str) -> None:
    data = cursors.fields(Cursor("ann")) | {"watermark": watermark}
    assert cursors.unread(cursors.load(data, now=NOW), [made(0)]) == [made(0)]


@pytest.mark.parametrize("data", [{}, {"agent": 7, "watermark": "", "match": {}}, {"agent": "a", "watermark": ""}])
def test_what_is_no_cursor_is_said_to_be_none(data: dict[str, object]) -> None:
    with pytest.raises(CorruptRecord):
        cursors.load(data, now=NOW)


def test_marks_that_are_none_are_left_out() -> None:
    data = cursors.fields(Cursor("ann")) | {"acked": {made(0): "x", "../x": [1, "a", "b"], made(1): [NOW, "a", "b"]}}
    assert cursors.load(data, now=NOW).acked == {made(1): Mark(NOW, "a", "b")}


@pytest.mark.parametrize(
    ("match", "body", "fits"),
    [
        ({}, {}, True), ({"signal": "go"}, {"signal": "go"}, True), ({"signal": "go"}, {"signal": "stop"}, False),
        ({"signal": "go"}, {}, False), ({"n": "3"}, {"n": 3}, True), ({"ok": "true"}, {"ok": True}, True),
        ({"ok": "1"}, {"ok": True}, False), ({"x": "[1]"}, {"x": [1]}, False), ({"x": "None"}, {"x": None}, False),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}, True), ({"a": "1", "b": "2"}, {"a": "1"}, False),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_filter_compares_fields_by_their_text(match: dict[str, str], body: dict[str, object], fits: bool) -> None:  # noqa: FBT001  an expected outcome
    assert cursors.wants(Cursor("ann", match=match), body) is fits


def test_an_ack_of_what_a_listing_missed_is_remembered_until_it_has_settled() -> None:
    cursor = cursors.ack(Cursor("ann"), [made(0), made(1)], MARK)
    young = cursors.advance(cursor, [made(1)], now=NOW + 10)
    assert cursors.unread(young, [made(0)]) == []
    old = cursors.advance(cursor, [made(1)], now=NOW + cursors.SETTLE + 10)
    assert made(0) not in old.acked, "it is not retained any more"


def test_an_offer_is_taken_back_by_the_session_it_was_made_to_and_by_no_other() -> None:
    cursor = cursors.offer(Cursor("ann"), [made(0)], MARK)
    assert cursors.take_back(cursor, [made(0)], "ann~2") == cursor
    assert cursors.take_back(cursor, [made(0)], MARK.session).offered == {}
