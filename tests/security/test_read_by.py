"""What those who may not read a channel see of it: that it is there, and why no more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import access, bidding, find
from mcp_bus.errors import NotAllowed, NotFound
from mcp_bus.model import State
from mcp_bus.server import resources
from tests.fakes import bus_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource

TOLD = "the combination is 8143"


@pytest.fixture
def secret(bus: Bus, open_bus_as: Callable[..., Bus]) -> str:
    """A finished task that ann posted and zoe did, which bob may not read."""
    bus.create_channel("work", read_by=["lead-*"], claim_by=["zoe"])
    posted = bus.post("work", TOLD, title=TOLD, thread=TOLD).id
    zoe = open_bus_as("zoe", "00000009")
    task = zoe.claim(["work"]) or pytest.fail("nothing to claim")
    zoe.nack(task, TOLD, retry_in_s=0)
    zoe.ack(zoe.claim(["work"]) or pytest.fail("nothing to claim"), TOLD)
    return posted


def test_others_see_that_it_is_there_and_why_no_more(other: Bus, secret: str) -> None:
    task = other.get(secret)
    assert (task.state, task.body.sender.agent, task.result) == (State.DONE, "ann", None)
    assert TOLD not in repr(task)
    assert "'lead-*'" in task.hidden
    assert other.store.count("work")[State.DONE] == 1
    assert find.ending(other, secret).is_over


@pytest.mark.parametrize("agent", ["ann", "zoe", "lead-1"])
def test_poster_holder_and_who_is_named_see_all_of_it(open_bus_as: Callable[..., Bus], secret: str, agent: str) -> None:
    task = open_bus_as(agent, "0000000a").get(secret)
    assert (task.body.content, task.body.title, task.hidden) == (TOLD, TOLD, "")
    assert task.result is not None
    assert task.result.content == TOLD


def test_a_person_at_a_terminal_sees_all_of_it(other: Bus, secret: str) -> None:
    other.is_person = True
    assert other.get(secret).body.content == TOLD


def test_its_words_find_nothing(bus: Bus, other: Bus, secret: str) -> None:
    assert [task.id for task in find.tasks(bus, text="combination")] == [secret]
    assert list(find.tasks(other, text="combination")) == []
    assert TOLD not in repr(list(find.tasks(other)))


def test_resources_and_waits_show_none_of_it(other: Bus, secret: str) -> None:
    shown = json.dumps(resources.read(other, f"bus://tasks/{secret}"), default=str)
    assert TOLD not in shown
    assert "hidden" in shown
    assert TOLD not in repr(find.safe_ending(other, secret))


def test_a_topic_is_not_shown_to_who_may_not_read_it(bus: Bus, other: Bus, source: VirtualSource) -> None:
    bus.create_channel("news", kind="topic")
    other.mail.topics.subscribe("news")
    bus.create_channel("news", read_by=["ann"])
    source.refresh()
    bus.mail.send("news", TOLD)
    assert other.mail.read(limit=5) == []
    assert TOLD not in json.dumps(resources.read(other, "bus://topics/news"), default=str)
    with pytest.raises(NotAllowed, match="'ann'"):
        other.mail.topics.subscribe("news")
    with pytest.raises(NotFound):
        other.mail.topics.unsubscribe("news")


def test_who_may_not_read_can_still_look_after_it_but_not_take_its_text_along(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", read_by=["ann"])
    task = bus.post("work", TOLD)
    assert TOLD not in repr(other.cancel(task.id))
    assert TOLD not in repr(other.undo(task.id))
    bus.nack(bus.claim(["work"]) or pytest.fail("nothing to claim"), "no", final=True)
    with pytest.raises(NotAllowed, match="may not read"):
        other.retry(task.id, body="mine")
    other.retry(task.id)
    assert (bus.claim(["work"]) or pytest.fail("nothing to claim")).body.content == TOLD


@pytest.mark.parametrize("winner", ["zoe", "lead-1"])
def test_what_was_awarded_is_shown_to_those_alone_who_may_read_the_call(
    bus: Bus, other: Bus, open_bus_as: Callable[..., Bus], winner: str
) -> None:
    bus.create_channel("offers", kind="topic", read_by=["lead-*"])
    call = bus.post("offers", TOLD, title=TOLD, thread="a hidden matter").id
    won = open_bus_as(winner, "00000009")
    bid = won.mail.send("", {"eta_s": 5}, type="bid", reply_to=call).id
    lost = other.mail.send("", {"eta_s": 9}, type="bid", reply_to=call).id
    task = bidding.award(bus, bid).id
    assert (bus.get(task).body.content, won.get(task).body.content) == (TOLD, TOLD)
    assert open_bus_as("lead-2", "0000000a").get(task).body.content == TOLD
    assert TOLD not in repr([other.get(name) for name in (call, task, lost)])
    assert "'lead-*'" in other.get(task).hidden
    assert list(find.tasks(other, text="combination")) == []
    assert TOLD not in repr(find.safe_ending(other, call))
    assert TOLD not in json.dumps(resources.read(other, f"bus://tasks/{task}"), default=str)
    (told,) = other.mail.read(limit=5)
    assert told.body.thread == call
    taken = won.claim(["awards"]) or pytest.fail("nothing to claim")
    won.ack(taken, TOLD)
    assert TOLD not in repr(other.get(task))
    assert won.get(task).result is not None


@pytest.mark.parametrize("topic", [7, None, "../offers", "offers\n", "x" * 999, "nothing-there"])
def test_what_says_of_itself_that_it_was_called_for_elsewhere_breaks_nothing(
    bus: Bus, other: Bus, topic: object
) -> None:
    bus.store.declare("awards")
    task = bus.get(bus.post("awards", TOLD).id)
    assert access.shown(other, task._replace(body=task.body._replace(extra={"topic": topic}))).body.content == TOLD


def test_an_answer_does_not_tell_the_thread_of_what_its_sender_may_not_read(bus: Bus, other: Bus, secret: str) -> None:
    answer = other.mail.send("", "what is it?", reply_to=secret).id
    assert (other.get(answer).body.thread, other.get(answer).body.reply_to) == (secret, secret)
    told = bus.mail.send("", "never mind", reply_to=secret).id
    assert bus.get(told).body.thread == TOLD, "who may read it keeps to its thread"


def test_rules_that_cannot_be_read_show_nothing_and_hand_out_nothing(
    root: Path, file_bus: Bus, source: VirtualSource
) -> None:
    task = file_bus.post("work", TOLD)
    (root / "channels/work/channel.json").write_text('{"read_by": 7}')
    source.refresh()
    other = bus_on(file_bus.store, source, "bob", "00000002")
    assert TOLD not in repr(other.get(task.id))
    assert other.claim(lease_s=9) is None
    assert file_bus.get(task.id).body.content == TOLD
