"""Messages are queued, offered and acked, and each side is told that much and no more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from mcp_bus import presence
from mcp_bus.server import args, messaging
from mcp_bus.server import session as sessions
from mcp_bus.server.call import Call
from mcp_bus.server.session import Session
from tests.server.raw import running, text_of
from tests.server.support import BLOCK, Desk, desk, found, open_bus, process, serving, settings, snapshot, until

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio

NUDGE = "inbox: {} unread; read_inbox shows them"


async def send(desk: Desk, to: str, body: object = "hello", **more: object) -> str:
    """Send a message; return its short id."""
    return found(r"^queued as (\w{8}) ", await desk.call("send_message", to=to, body=body, **more))


def told(answers: list[str], number: int) -> bool:
    return len(answers) == number


async def exchange(ann: Desk, eve: Desk) -> None:
    """A question, its answer, and what each of the two is told of it."""
    await eve.call("list_channels")
    text = await ann.call("send_message", to="eve", body="which\nport?", options={"title": "T", "priority": 2})
    message = found(
        r'^queued as (\w{8}) for "eve", 1 live session, last seen \d+ s ago, not yet read\n'
        r'next: go on; get_task\(task="\1"\) shows whether it was read; answers come by read_inbox$',
        text,
    )
    assert '\nreader "eve": queued; 1 live session' in await ann.call("get_task", task=message)
    shown = await eve.call("read_inbox")
    assert found(rf'^(message {message} from "ann", \d+ s ago, note, priority 2\ntitle: "T"\n---)', shown)
    assert [text for _, text in BLOCK.findall(shown)] == ["which\nport?"]
    assert f'send_message(reply_to="{message}", body="…")' in shown.rpartition("\n")[2]
    trace = await ann.call("get_task", task=message)
    assert '\nreader "eve": offered; 1 live session' in trace
    assert 'send_message(supersedes="' in trace.rpartition("\n")[2]
    answer = await eve.call("send_message", reply_to=message, body="8080")
    reply = found(r'^queued as (\w{8}) for "ann", 1 live session', answer)
    assert (await eve.call("read_inbox", ack=True)).startswith("acked 1 message\nno unread messages, waited 0 s")
    trace = await ann.call("get_task", task=message)
    steps = found(r'^reader "eve": acked; 1 live session, last seen \d+ s ago; (.*)$', trace)
    assert [step.split()[0] for step in steps.split("; ")] == ["queued", "offered", "acked"]
    assert '("read_inbox")' in steps
    assert f"\n{NUDGE.format(1)}\nnext: " in trace
    got = await ann.call("read_inbox")
    assert f'message {reply} from "eve"' in got
    assert f", answers {message}, thread " in got
    assert (await ann.call("read_inbox", ids=[reply])).startswith("acked 1 message\n")
    again = await ann.call("read_inbox", ids=[reply])
    assert again.startswith(f"acked 0 messages\n{reply} not acked: it was acked before\n")


async def test_a_question_is_answered(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        await exchange(ann, eve)


async def test_a_question_is_answered_between_two_real_processes(place: Path, era: str) -> None:
    async with serving(process(place), era) as ann, serving(process(place, "eve"), era) as eve:
        await exchange(ann, eve)


async def test_who_is_not_there_is_said_not_to_be(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        text = await ann.call("send_message", to="@eve", body="x")
        assert 'for "eve", no live session (never seen): it waits, not yet read\n' in text
        async with desk(place, era, agent="eve") as eve:
            assert NUDGE.format(1) in await eve.call("list_channels")
        text = await ann.call("send_message", to="eve", body="x")
        assert found(r'for "eve", (no live session \(last seen \d+ s ago\): it waits), not yet read', text)
        assert "delivered" not in text
        assert "nobody is called 'evf'" in await ann.refused("send_message", to="evf", body="x")
        text = await ann.call("send_message", to="human", body="x")
        assert 'for "human", no live session (never seen): it waits' in text


async def test_what_was_shown_and_not_acked_is_not_kept_from_a_second_session(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as one, desk(place, era, agent="eve") as two:
        message = await send(ann, "@eve", "which port?")
        assert f"message {message} " in await one.call("read_inbox")
        text = await one.call("read_inbox", wait_s=0)
        assert text.startswith("nothing new, waited 0 s; shown before and not acked:\n")
        assert "which port?" in text, "it comes again until it is acked"
        text = await two.call("read_inbox", wait_s=0)
        assert text.startswith("no unread messages, waited 0 s")
        assert f"\nshown to another session of yours and not acked: {message}; get_task" in text
        assert "which port?" in await two.call("get_task", task=message)
        text = await two.call("read_inbox", ids=[message], wait_s=0)
        assert "not acked" not in text
        assert "which port?" not in await one.call("read_inbox", wait_s=0)


async def test_a_session_is_there_once_its_client_has_looked_at_the_tools(place: Path, era: str) -> None:
    with open_bus(place) as bob:
        async with desk(place, era, agent="eve") as eve:
            await eve.client.list_tools()
            assert [item.presence.agent for item in bob.roster.all() if item.is_live] == ["eve"]
            assert bob.mail.send("eve", "hello").live == 1


async def test_a_client_that_looks_at_the_tools_makes_no_bus(place: Path, era: str) -> None:
    async with desk(place, era, agent="eve") as eve:
        await eve.client.list_tools()
        assert not (place / "bus").exists()


async def test_a_worker_is_offered_prompts_and_told_ways_that_it_has(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve", profile="worker") as eve:
        assert [item.name for item in (await eve.client.list_prompts()).prompts] == ["work", "merge_profile", "role"]
        assert {"status", "triage"} < {item.name for item in (await ann.client.list_prompts()).prompts}
        await send(ann, "@eve", "which port?")
        await eve.call("read_inbox")
        text = await eve.call("read_inbox", wait_s=0)
        assert "which port?" in text
        assert "get_task" not in text


async def test_of_a_long_message_the_rest_is_to_be_read_before_it_is_acked(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        await send(ann, "@eve", "x" * 20_000)
        following = (await eve.call("read_inbox")).rpartition("\n")[2]
        assert following.startswith("next: read the rest of what is cut off, then read_inbox(ack=true)")
        await eve.call("read_inbox", ack=True)
        await send(ann, "@eve", "short")
        assert (await eve.call("read_inbox")).rpartition("\n")[2].startswith("next: read_inbox(ack=true)")


async def test_a_note_to_oneself_waits_for_another_session(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await ann.call("list_channels")
        text = await ann.call("send_message", to="@ann", body="x")
        assert 'for "ann", your own name, no other live session: it waits' in text


async def test_a_message_that_is_not_acked_comes_again_and_its_sender_can_take_it_back(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        first = await send(ann, "@eve", "old")
        async with desk(place, era, agent="eve") as eve:
            assert f"message {first} " in await eve.call("read_inbox")
        async with desk(place, era, agent="eve") as eve:
            await send(ann, "eve", "other")
            shown = await eve.call("read_inbox")
            assert f"message {first} " in shown
            assert ", 1 newer from the same sender" in shown
            text = await ann.call("send_message", to="eve", body="new", supersedes=first)
            assert "\nthe one it supersedes was offered, not acked, and is taken back\n" in text
            assert f"\n{first} not acked: it was superseded by req_" in await eve.call("read_inbox", ids=[first])


async def test_a_key_makes_a_repeated_message_harmless_and_says_how_it_stands(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        await eve.call("list_channels")
        first = await send(ann, "eve", options={"key": "k"})
        again = f'queued before under that key as {first} for "eve", 1 live session, '
        text = await ann.call("send_message", to="eve", body="hello", options={"key": "k"})
        assert found(f"^{again}last seen . s ago, (.*)$", text) == "not yet read"
        await eve.call("read_inbox")
        await eve.call("read_inbox", ack=True)
        text = await ann.call("send_message", to="eve", body="hello", options={"key": "k"})
        assert found(f"^{again}last seen . s ago, (.*)$", text) == "acked"


async def test_a_topic_is_read_by_who_subscribed_and_filtered_as_they_said(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        text = await eve.call("read_inbox", subscribe='#builds signal="build failed"')
        assert text.startswith(
            "subscribed to builds, where the field matches\nno unread messages, waited 0 s; topics read: "
        )
        sent = await ann.call("send_message", to="builds", body={"signal": "build failed", "n": 1})
        assert found(r"^queued as \w{8} (on topic builds, 1 live session, last seen \d+ s ago)\n", sent)
        await send(ann, "builds", {"signal": "build passed", "n": 2})
        shown = await eve.call("read_inbox")
        assert [text for _, text in BLOCK.findall(shown)] == ['{"signal": "build failed", "n": 1}']
        assert ", note, on builds" in shown
        assert 'topic builds: 2 messages; read_inbox(subscribe="builds") reads it' in await ann.call("list_channels")
        text = await eve.call("read_inbox", ack=True, unsubscribe="builds")
        assert text.startswith("acked 1 message\nno longer subscribed to builds\n")
        await send(ann, "builds", {"signal": "build failed"})
        assert "no unread messages" in await eve.call("read_inbox", wait_s=0)
        refused = await eve.refused("read_inbox", subscribe="builds signal")
        assert refused.startswith("'builds signal' is no subscription\nnext: a topic, or")


@pytest.mark.usefixtures("unpolled")
async def test_a_waiting_reader_is_told_of_a_message_and_of_one_on_its_topic(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve, anyio.create_task_group() as group:
        await eve.call("read_inbox", subscribe="builds")
        answers: list[str] = []

        async def wait() -> None:
            answers.append(await eve.call("read_inbox", wait_s=20))

        for number, to in enumerate(("eve", "builds", "broadcast"), 1):
            group.start_soon(wait)
            await eve.call("list_channels")
            assert len(answers) == number - 1
            await send(ann, to, to)
            took = await until(partial(told, answers, number), "nobody told", within=3)
            print(f"{to}: {took * 1000:.0f} ms")
            assert BLOCK.findall(answers[-1])[0][1] == to
            await eve.call("read_inbox", ack=True)


async def test_who_comes_to_ack_does_not_wait_unless_it_says_so(place: Path, era: str) -> None:
    async with desk(place, era, wait_s=0.3) as ann:
        start = anyio.current_time()
        await ann.call("read_inbox")
        assert anyio.current_time() - start >= 0.3
    async with desk(place, era, wait_s=50) as ann:
        start = anyio.current_time()
        assert (await ann.call("read_inbox", ack=True)).startswith("acked 0 messages\n")
        assert anyio.current_time() - start < 20
        await ann.call("read_inbox", ack=True, wait_s=0.3)
        assert anyio.current_time() - start >= 0.3


async def test_a_reader_that_gives_up_while_it_waits_leaves_nothing_offered(place: Path, era: str) -> None:
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        with anyio.move_on_after(0.05) as scope:
            await eve.call("read_inbox", wait_s=20)
        assert scope.cancelled_caught
        message = await send(ann, "eve")
        await eve.call("list_channels")
        assert '\nreader "eve": queued; ' in await ann.call("get_task", task=message)
        assert f"message {message} " in await eve.call("read_inbox")


async def test_a_reading_that_is_cancelled_while_it_is_made_is_undone(place: Path, bob: Bus) -> None:
    message = bob.mail.send("@ann", "hello").id

    async def progress(_: float, __: float, ___: str) -> None:
        await anyio.lowlevel.checkpoint()

    async with Session(settings(place)).life() as session:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await messaging.read_inbox(Call(session, session.bus(), progress, 7), args.ReadInbox())
        assert scope.cancelled_caught
        assert bob.get(message).state == "ready"
        assert session.bus().mail.offered() == []


async def test_a_trace_is_for_the_sender(place: Path, era: str, bob: Bus) -> None:
    message = bob.mail.send("@ann", "hello", title="T").id[-8:]
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        told = await ann.call("get_task", task=message)
        assert found(r'^(id \w+, priority 0, note\nfrom "bob", queued \d+ s ago\ntitle: "T"\n---)', told)
        assert told.endswith(f'next: read_inbox(ids=["{message}"]) acks it')
        other = await eve.call("get_task", task=message)
        assert other.endswith("\nnext: nothing")
        assert "reader " not in told + other


def test_an_inbox_whose_answer_was_given_up_is_unread_again(place: Path, era: str) -> None:
    with open_bus(place) as bob, running(place, era, MCP_BUS_GIVEN_UP_S="0") as server:
        message = bob.mail.send("@ann", "hello").id
        server.start(7, "read_inbox")
        assert "hello" in text_of(server.answer())
        assert bob.get(message).state == "leased"
        server.cancel("7")
        server.call("list_channels")
        assert bob.get(message).state == "ready"


async def test_every_answer_but_the_inbox_says_that_mail_waits(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        bob.mail.send("ann", "now!", priority=1)
        bob.mail.send("ann", "later")
        line = "\ninbox: 2 unread, 1 urgent; read_inbox shows them\nnext: "
        claim = await ann.claim()
        assert line in claim.text
        told: dict[str, dict[str, object]] = {
            "post_task": {"channel": "other", "body": "x"},
            "claim_next": {"channels": ["nowhere"]},
            "heartbeat": dict(claim.mine),
            "await_results": {"tasks": [task]},
            "list_channels": {},
            "get_task": {"task": task},
            "find_tasks": {},
            "submit_result": dict(claim.mine),
            "send_message": {"to": "@bob", "body": "x"},
        }
        for tool, arguments in told.items():
            assert line in await ann.call(tool, **arguments), tool
        for _ in range(messaging.LIMIT):
            bob.mail.send("ann", "more")
        shown = await ann.call("read_inbox")
        assert "\n10 messages\n" in f"\n{shown}"
        assert "inbox: " not in shown
        assert "\ninbox: 2 unread; " in await ann.call("list_channels")
        await ann.call("read_inbox")
        assert "inbox: " not in await ann.call("list_channels")


async def test_a_session_says_who_it_is_what_it_can_do_and_when_it_goes(
    place: Path, era: str, bob: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "TEND_S", 0.01)
    monkeypatch.setattr(presence, "BEAT_S", 0.0)
    async with desk(place, era, capabilities="gpu,python") as ann:
        message = bob.mail.send("@ann", "hello").id
        text = await ann.call("list_channels")
        assert '\nagents here: "ann" (you) can "gpu, python"\n' in text
        (seen,) = bob.roster.all()
        assert (seen.presence.agent, seen.presence.capabilities, seen.why) == ("ann", ("gpu", "python"), "")
        await until(lambda: bob.roster.all()[0].presence.beat > seen.presence.beat, "it never beat")
        await ann.call("read_inbox")
        assert bob.get(message).state == "leased"
    (seen,) = bob.roster.all()
    assert seen.why == "its session has ended"
    assert bob.get(message).state == "ready"


async def test_of_many_agents_that_are_there_eight_are_named(place: Path, era: str) -> None:
    for number in range(11):
        with open_bus(place, agent=f"agent{number:02}") as bus:
            bus.roster.arrive()
    async with desk(place, era) as ann:
        line = found("^(agents here: .*)$", await ann.call("list_channels"))
    assert line.count('"agent') + line.count('"ann"') == 8
    assert line.endswith(", and 4 more")


async def test_a_reader_of_the_bus_is_not_there_and_has_no_inbox(place: Path, era: str, bob: Bus) -> None:
    bob.mail.send("@ann", "hello")
    bob.post("review", "x")
    async with desk(place, era, read_only=True) as ann:
        before = snapshot(place)
        text = await ann.call("list_channels")
        assert "inbox" not in text
        assert "agents here" not in text
    assert snapshot(place) == before


async def test_answers_of_the_inbox_stay_short_whatever_it_holds(place: Path, era: str) -> None:
    """`Desk` checks the length of each."""
    long = "\x9b" * 60_000
    with open_bus(place, agent="\\" * 150) as eve:
        for number in range(12):
            eve.mail.send("@ann", "\u202e" * 400 if number else long, title='"' * 200, thread="\\" * 200, priority=1)
        async with desk(place, era) as ann:
            first = await ann.call("read_inbox")
            assert len(BLOCK.findall(first)) == 1
            assert 'more characters; get_task(task="' in first
            second = await ann.call("read_inbox")
            assert len(BLOCK.findall(second)) == 10
            message = found(r"^message (\w{8}) ", second)
            await ann.call("get_task", task=message)
            assert (await ann.call("read_inbox", ack=True)).startswith("acked 11 messages\n1 message\n")
