"""A post says what is wrong with it before anything is written."""

from __future__ import annotations

import pytest

from mcp_bus import draft
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import MAX_CONTENT, Body, Policy, Sender, Slot, State, Task

NOW = 4_000_000_000_000
ANN = Sender("ann", 7, "here")


def made(content: str = "x", ttl_s: float = 0.0, **options: object) -> Body:
    return draft.body("req_00000001", "work", content, ANN, draft.check(options), now=NOW, policy=Policy(ttl_s=ttl_s))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color", "red"), ("title", 7), ("title", "x" * 201), ("title", "\ud800"), ("thread", b"x"),
        ("reply_to", "x" * 201),
        ("key", 7), ("key", "x" * 201), ("type", "poem"), ("type", ["task"]), ("priority", 10), ("priority", -10),
        ("priority", 1.0), ("priority", True), ("priority", "1"), ("max_attempts", 0), ("max_attempts", 1001),
        ("max_attempts", 2.0), ("delay_s", -1), ("delay_s", "1"), ("delay_s", True), ("delay_s", float("nan")),
        ("delay_s", float("inf")), ("ttl_s", 367 * 86400), ("backoff_s", -0.1), ("requires", 7), ("requires", {"a": 1}),
        ("requires", ["a"] * 33), ("requires", ["two words"]), ("requires", [""]), ("requires", ["x" * 65]),
        ("requires", ["a\n"]), ("requires", [None]), ("requires", ["-x"]),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        draft.check({name: value})
    assert name in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_options_that_are_none_count_as_not_given() -> None:
    assert draft.check({"title": None, "priority": None, "requires": None}) == {}


def test_what_is_required_is_sorted_lower_case_and_each_once() -> None:
    assert draft.check({"requires": ["Python", "gpu", "python"]}) == {"requires": ("gpu", "python")}
    assert draft.check({"requires": "gpu"}) == {"requires": ("gpu",)}


def test_a_ttl_counts_from_when_the_task_can_first_be_claimed() -> None:
    body = made(ttl_s=5.0, delay_s=10)
    assert (body.not_before, body.deadline) == (NOW + 10_000, NOW + 15_000)
    assert made(delay_s=10).deadline == 0


def test_the_channel_s_ttl_holds_unless_the_post_says_otherwise() -> None:
    checked = draft.check({"ttl_s": 5.0, "delay_s": 10})
    body = draft.body("req_00000001", "work", "x", ANN, checked, now=NOW, policy=Policy(ttl_s=60))
    assert (body.not_before, body.deadline) == (NOW + 10_000, NOW + 15_000)
    assert made(ttl_s=60.0).deadline == NOW + 60_000
    never = draft.body("req_00000001", "work", "x", ANN, draft.check({"ttl_s": 0}), now=NOW, policy=Policy(ttl_s=60))
    assert never.deadline == 0


def test_the_shortest_ttl_is_still_a_ttl() -> None:
    checked = draft.check({"ttl_s": 0.0001})
    assert draft.body("req_00000001", "work", "x", ANN, checked, now=NOW, policy=Policy()).deadline == NOW + 1


def test_a_key_belongs_to_its_sender() -> None:
    assert len(made(key="k").key) == 64
    assert made(key="k").key == made(key="k").key != made(key="l").key
    assert draft.key_of("ann", "k") != draft.key_of("bob", "k")
    assert draft.key_of("ann", "k") != draft.key_of("an", "nk")
    assert made().key == ""


@pytest.mark.parametrize("content", ["x" * (MAX_CONTENT + 1), "ü" * (MAX_CONTENT // 2 + 1), "\ud800"])
def test_a_body_too_large_or_not_unicode_is_refused(content: str) -> None:
    with pytest.raises(InvalidRequest, match="the body has"):
        draft.check_size(content, "body")
    dead = Task(made(), Slot("req_00000001", "work", State.DEAD))
    with pytest.raises(InvalidRequest):
        draft.edited(dead, "req_00000002", content, ANN, now=NOW)
    assert draft.check_size("x" * MAX_CONTENT, "body") == "x" * MAX_CONTENT


def test_bodies_are_the_same_whatever_their_times_and_the_sender_s_process() -> None:
    one = made(key="k")
    again = one._replace(id="req_00000002", created=NOW + 9, deadline=5, sender=Sender("ann", 8, "there"))
    assert draft.same(one, again)
    for other in (
        {"content": "y"},
        {"title": "t"},
        {"priority": 1},
        {"channel": "play"},
        {"sender": Sender("bob", 7, "here")},
    ):
        assert not draft.same(one, again._replace(**other))


def test_an_edited_body_says_whom_it_replaces_and_has_one_key_for_each_death() -> None:
    body = made(requires=["gpu"], priority=3, delay_s=5)._replace(deadline=NOW + 9)
    dead = Task(body, Slot(body.id, "work", State.DEAD, attempt=3))
    new = draft.edited(dead, "req_00000002", "better", Sender("bob"), now=NOW + 1)
    assert (new.content, new.retry_of, new.requires, new.priority) == ("better", body.id, ("gpu",), 3)
    assert (new.not_before, new.deadline, new.sender) == (0, 0, Sender("bob"))
    again = draft.edited(dead, "req_00000003", "better still", ANN, now=NOW + 2)
    later = draft.edited(dead._replace(slot=dead.slot._replace(attempt=4)), "req_00000004", "x", ANN, now=NOW)
    assert new.key == again.key != later.key


@pytest.mark.parametrize("token", ["", "abc", "ABCD", "g" * 8, "a" * 33, None, 7, "abcd\n", "../../x"])
def test_what_is_no_token_is_refused(token: object) -> None:
    with pytest.raises(InvalidRequest, match="not a lease token"):
        draft.check_token(token)
    assert draft.check_token("00ff") == "00ff"
