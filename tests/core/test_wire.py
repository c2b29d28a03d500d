"""Readers refuse what strict JSON refuses and keep what they do not know; writers write what readers accept."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import history, wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import MAX_CONTENT, Artifact, Attempt, Body, Outcome, Result, Secret, Sender

NOW = 4_000_000_000_123
ID = "req_0123456789ab"
SENDER = Sender("ann", 7, "here")
BODY = Body(ID, "work", "x", SENDER, NOW)
# What abq 1.0 writes: indented, microseconds, an offset in place of Z, no `bus`, no pwd in a response.
ABQ_MESSAGE = b"""{
  "id": "req_019a0c0ffee0123456789a", "version": "1.0.0", "type": "eval",
  "from": {"agent": "github.com/acme/app/main", "pid": 4242, "pwd": "src"},
  "to": "review", "content": "look", "timestamp": "2026-11-21T06:39:00.123456+00:00", "ttl": 300
}"""
ABQ_RESPONSE = b"""{
  "id": "req_019a0c0ffee0123456789a", "version": "1.0.0", "status": "error",
  "from": {"agent": "github.com/acme/app/main", "pid": 4242},
  "result": "", "error": "it broke", "timestamp": "2026-11-21T06:39:01.123456+00:00"
}"""

plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.integers(0, 10**14)
senders = st.builds(Sender, plain, st.integers(0, 2**31), plain)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)
several = st.lists(st.sampled_from(["ann", "github.com/acme/app/main", "k" * 43]), min_size=1, max_size=3).map(tuple)
secrets = st.none() | st.builds(Secret, several, several, st.just(""))
ours = {
    "encrypted",
    "requires",
    "title",
    "thread",
    "priority",
    "not_before",
    "deadline",
    "max_attempts",
    "backoff_s",
    "key",
    "retry_of",
}
bodies = st.builds(
    Body,
    id=st.just(ID),
    channel=st.just("work"),
    content=plain,
    sender=senders,
    created=numbers,
    type=st.sampled_from(sorted(wire.TYPES)),
    reply_to=plain,
    title=plain,
    thread=plain,
    priority=st.integers(-9, 9),
    not_before=numbers,
    deadline=numbers,
    max_attempts=st.none() | st.integers(1, 1000),
    backoff_s=st.none() | st.floats(0, 1e6),
    requires=st.lists(st.sampled_from(["gpu", "python", "review"]), unique=True).map(
        lambda words: tuple(sorted(words))
    ),
    key=st.just("") | st.just("a" * 64),
    retry_of=st.just("") | st.just(ID),
    supersedes=st.just("") | st.just(ID),
    hops=st.integers(0, 99),
    plan=st.just(""),
    node=st.just(""),
    inputs=st.just(()),
    parent=st.just("") | st.just(ID),
    depth=st.integers(0, 99),
    result_schema=st.none() | st.dictionaries(plain, json_values, max_size=3),
    claims=st.booleans(),
    encrypted=secrets,
    ttl=st.just(0),  # Told by the deadline, where there is one.
    extra=st.dictionaries(plain.filter(lambda key: key not in ours), json_values, max_size=3),
)


def message(**changes: object) -> bytes:
    made = {**json.loads(wire.dump_body(BODY)), **changes}
    return json.dumps({key: value for key, value in made.items() if value is not ...}).encode()


@given(bodies)
def test_a_body_written_and_read_is_the_same_also_what_is_unknown_in_it(body: Body) -> None:
    data = wire.dump_body(body)
    assert wire.load_body(data) == body
    assert data.count(b"\n") == 1


files = st.lists(st.builds(Artifact, plain, numbers, st.just("0f" * 32)), max_size=2).map(tuple)


@given(
    st.builds(
        Result, st.just(ID), plain, senders, numbers, st.integers(0, 99), plain, plain, st.just("") | st.just("ab12"),
        artifacts=files, encrypted=secrets, usage=st.dictionaries(plain, st.floats(0, 1e12), max_size=3),
    )
)  # fmt: skip
def test_a_result_written_and_read_is_the_same(result: Result) -> None:
    assert wire.load_result(wire.dump_result(result)) == result


successors = st.sampled_from(["", "req_019a0c0ffee0123456789a"])


@given(st.builds(Attempt, st.integers(0, 99), st.sampled_from(Outcome), numbers, plain, plain, plain, successors))
def test_a_line_of_history_written_and_read_is_the_same(entry: Attempt) -> None:
    assert history.load(wire.dumps(history.fields(entry))) == entry


def test_a_successor_that_is_no_id_is_no_line_of_history() -> None:
    line = history.fields(Attempt(1, Outcome.SUPERSEDED, 1, "ann"))
    with pytest.raises(CorruptRecord, match="successor"):
        history.load(wire.dumps(line | {"successor": "req_1\nnext: run this"}))


@given(numbers)
def test_a_time_written_and_read_is_the_same(time: int) -> None:
    assert wire.unstamp(wire.stamp(time)) == time


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_record_or_corrupt_and_never_another_error(data: bytes) -> None:
    for load in (wire.load_body, wire.load_result, history.load):
        with suppress(CorruptRecord):
            load(data)


BROKEN = {
    "empty": (b"", "not JSON"),
    "truncated": (b'{"id":"req_', "not JSON"),
    "two values": (b"{}{}", "not JSON"),
    "not an object": (b"[]", "not a JSON object"),
    "not UTF-8": (b'{"a":"\xff"}', "not UTF-8"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "not UTF-8"),
    "a raw surrogate": (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "the same key twice": (b'{"a":1,"a":1}', "same key twice"),
    "the same key twice, deep down": (b'{"a":[{"b":1,"b":2}]}', "same key twice"),
    "the same key twice, escaped": (b'{"a":1,"\\u0061":2}', "same key twice"),
    "NaN": (b'{"a":NaN}', "NaN"),
    "Infinity": (b'{"a":Infinity}', "Infinity"),
    "-Infinity": (b'{"a":[-Infinity]}', "Infinity"),
    "a number beyond all": (b'{"a":1e400}', "1e400"),
    "an integer of 5000 digits": (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
    "half a surrogate pair": (b'{"a":"\\ud800"}', "surrogate"),
    "half a surrogate pair in a key": (b'{"\\uDC00":1}', "surrogate"),
    "a surrogate pair the wrong way round": (b'{"a":"\\udc00\\ud800"}', "surrogate"),
    "nested 65 deep": (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "nested"),
    "nested 100000 deep": (b"[" * 100_000, "nested"),
    "objects nested 100000 deep": (b'{"a":' * 100_000, "nested"),
    "a control character": (b'{"a":"\n"}', "not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_strict_json_refuses_is_refused(case: str) -> None:
    data, why = BROKEN[case]
    with pytest.raises(CorruptRecord, match=why):
        wire.loads(data)


@pytest.mark.parametrize(
    "data", [b'{"a":"\\ud83d\\ude00"}', b'{"a":"\\\\ud800"}', b'{"a":' + b"[" * 60 + b"]" * 60 + b"}"]
)
def test_what_only_looks_wrong_is_accepted(data: bytes) -> None:
    assert "a" in wire.loads(data)


def test_many_short_branches_are_not_depth() -> None:
    assert len(wire.loads(b'{"a":[' + b"[]," * 999 + b"[]]}")["a"]) == 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ...}, {"id": 7}, {"id": "req_XYZ"}, {"id": "../../x"}, {"id": ID + "\n"},
        {"content": ...}, {"content": None}, {"content": {"a": 1}},
        {"type": 7}, {"to": ...}, {"to": 7}, {"to": "../etc"}, {"to": "UPPER"}, {"to": ""}, {"reply_to": ["x"]},
        {"from": ...}, {"from": "ann"}, {"from": {"agent": 7}}, {"from": {"agent": "a", "pid": "7"}},
        {"from": {"agent": "a", "pid": True}}, {"from": {"agent": "a", "pwd": None}},
        {"bus": []}, {"bus": None}, {"bus": {"title": 7}}, {"bus": {"priority": 10}}, {"bus": {"priority": "1"}},
        {"bus": {"priority": True}}, {"bus": {"deadline": -1}}, {"bus": {"not_before": 10**15}},
        {"bus": {"max_attempts": 1.5}}, {"bus": {"backoff_s": "1"}}, {"bus": {"requires": "gpu"}},
        {"bus": {"requires": [7]}}, {"bus": {"key": None}},
    ],
    ids=str,
)  # fmt: skip
def test_a_message_with_a_wrong_field_is_corrupt_and_says_which(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptRecord) as refusal:
        wire.load_body(message(**changes))
    field = next(iter(changes))
    inner = changes[field]
    assert (next(iter(inner)) if field == "bus" and inner else field) in str(refusal.value)


def test_fields_of_a_later_version_are_kept() -> None:
    kept = wire.load_body(message(bus={"title": "t", "colour": 3, "later": {"x": "n"}}, later="x"))
    assert (kept.title, kept.extra) == ("t", {"colour": 3, "later": {"x": "n"}})
    assert json.loads(wire.dump_body(kept))["bus"] == {"colour": 3, "later": {"x": "n"}, "title": "t"}


def test_capabilities_are_compared_in_lower_case_whoever_wrote_them() -> None:
    assert wire.load_body(message(bus={"requires": ["Python", "GPU", "gpu"]})).requires == ("gpu", "python")


def test_a_message_of_abq_is_read() -> None:
    body = wire.load_body(ABQ_MESSAGE)
    assert (body.id, body.channel, body.type, body.content) == ("req_019a0c0ffee0123456789a", "review", "eval", "look")
    assert body.sender == Sender("github.com/acme/app/main", 4242, "src")
    assert (body.created, body.deadline, body.priority) == (1_795_243_140_123, 0, 0)


def test_a_response_of_abq_is_read() -> None:
    result = wire.load_result(ABQ_RESPONSE)
    assert (result.status, result.content, result.error, result.token) == ("error", "", "it broke", "")
    assert result.sender == Sender("github.com/acme/app/main", 4242)


def test_abq_finds_its_fields_in_what_is_written() -> None:
    made = json.loads(wire.dump_body(BODY._replace(deadline=NOW + 1500, reply_to="answers")))
    assert {key: made[key] for key in ("id", "version", "type", "to", "content", "ttl", "reply_to")} == {
        "id": ID, "version": "1.0.0", "type": "task", "to": "work", "content": "x", "ttl": 2, "reply_to": "answers",
    }  # fmt: skip
    assert made["from"] == {"agent": "ann", "pid": 7, "pwd": "here"}
    assert "bus" not in json.loads(wire.dump_body(BODY))


@pytest.mark.parametrize(
    "time", ["", "yesterday", None, 7, "9999-99-99", "0001-01-01T00:00:00+14:00", "2026-11-21T24:61:00"]
)
def test_a_time_that_is_none_is_zero_or_a_number_and_no_error(time: object) -> None:
    assert isinstance(wire.unstamp(time), int)


@pytest.mark.parametrize("time", ["1969-12-31T23:59:59.999Z", "0002-01-01T00:00:00Z", "1970-01-01T00:00:00+01:00"])
def test_a_time_before_all_others_is_what_it_is_written_as(time: str) -> None:
    assert wire.unstamp(time) == wire.unstamp(wire.stamp(wire.unstamp(time))) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}, "\ud800", {1, 2}])
def test_what_is_not_json_is_not_written(value: object) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written"):
        wire.dumps(value)


def test_data_is_stored_as_its_json_text_and_text_as_it_is() -> None:
    assert wire.text_of("  as it is\n") == "  as it is\n"
    assert wire.text_of({"b": [1, None], "a": "ü"}) == '{"b":[1,null],"a":"ü"}'


@pytest.mark.parametrize("letter", ["x", "ü", "€", "\U0001f600", "\x01"])
def test_the_longest_content_fits_a_file_and_one_byte_more_is_refused(letter: str) -> None:
    longest = letter * (MAX_CONTENT // len(letter.encode()))
    data = wire.dump_body(BODY._replace(content=longest))
    assert len(data) <= wire.MAX_FILE
    assert wire.load_body(data).content == longest
    with pytest.raises(InvalidRequest, match="over the limit"):
        wire.dump_body(BODY._replace(content=longest + letter * 2))
