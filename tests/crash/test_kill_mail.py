"""A process is killed at each changing call of each verb of the mail: what was said is so, and the trace is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.cursors import Cursor
from mcp_bus.presence import KIND
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.traces import trace
from tests.crash import auditor
from tests.crash.victim import HOUR, Points, Steps, copy, cut_off, open_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.stores.fsops import Fs


class Verb(NamedTuple):
    """One verb: who makes it, the request, and how the message may stand with its reader once it was repeated."""

    who: str
    request: Callable[[Bus, str], object]
    ends: frozenset[str]
    topic: bool = False


def read(bus: Bus, _: str) -> None:
    bus.mail.read()


def ack(bus: Bus, message: str) -> None:
    bus.mail.ack([message])


VERBS = {
    "send": Verb("ann", lambda bus, _: bus.mail.send("@bob", "new", key="k"), frozenset({"queued"})),
    "supersede": Verb(
        "ann", lambda bus, old: bus.mail.send("@bob", "new", key="k", supersedes=old), frozenset({"superseded"})
    ),
    "read": Verb("bob", read, frozenset({"queued", "offered"})),
    "ack": Verb("bob", ack, frozenset({"acked"})),
    "publish": Verb("ann", lambda bus, _: bus.mail.send("news", "new", key="k"), frozenset({"queued"}), topic=True),
    "read a topic": Verb("bob", read, frozenset({"queued", "offered"}), topic=True),
    "ack on a topic": Verb("bob", ack, frozenset({"acked"}), topic=True),
}


def start(root: Path, verb: Verb) -> str:
    layout.create(root, fs=Steps())
    with open_at(root, agent="bob") as bob, open_at(root) as ann:
        ann.create_channel("news", kind="topic")
        bob.mail.topics.subscribe("news")
        message = ann.mail.send("news" if verb.topic else "@bob", "old").id
        if verb.request is ack:
            bob.mail.read()
    return message


def standing(root: Path, message: str) -> tuple[str, list[str]]:
    with open_at(root) as ann:
        (reader,) = trace(ann, message).readers
    return reader.state, [step.what for step in reader.steps]


def texts(root: Path) -> list[str]:
    """Let leases lapse, then return what bob is shown."""
    with open_at(root, agent="eve", offset=HOUR) as eve:
        sweep(eve)
    with open_at(root, agent="bob", offset=HOUR) as bob:
        return [item.body.content for item in bob.mail.read(limit=100)]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", VERBS)
def test_a_mail_verb_killed_at_any_call_and_repeated_is_done_once(disk: Path, name: str, late: bool) -> None:  # noqa: FBT001  a parameter
    verb, count = VERBS[name], 0
    message = start(disk / "bus", verb)

    def work(root: Path, fs: Fs) -> None:
        verb.request(open_at(root, fs, agent=verb.who), message)

    for said, root in Points(disk / "bus", disk / "crashed", work, late=late):
        count += 1
        state, steps = standing(root, message)
        assert state in {"queued", "offered", "acked", "superseded"}, said
        assert ("acked" in steps) <= (verb.request is ack), said
        with open_at(root, agent=verb.who) as bus:
            verb.request(bus, message)
        assert standing(root, message)[0] in verb.ends, said
        shown = texts(root)
        assert len(shown) == len(set(shown)), f"{said}: {shown} is there twice"
        assert ("new" in shown) is (name in ("send", "supersede", "publish")), f"{said}: {shown}"
        assert ("old" in shown) is (not verb.ends & {"acked", "superseded"}), f"{said}: {shown}"
        audit = auditor.look(root)
        assert not audit.problems, f"{said}: {audit.problems}"
    assert count > 3


def test_an_offer_that_was_cut_off_before_it_was_one_is_not_in_the_trace(disk: Path) -> None:
    root = disk / "bus"
    message = start(root, VERBS["read"])
    folder = f"channels/@bob/attempts/{message}"
    cut_off("write", folder, lambda fs: open_at(root, fs, agent="bob").mail.read())
    assert list((root / folder).iterdir()), "it was about to be offered"
    assert standing(root, message) == ("queued", ["queued"])
    with open_at(root, agent="bob") as bob:
        assert [item.body.content for item in bob.mail.read()] == ["old"]
    assert standing(root, message) == ("offered", ["queued", "offered"])


def test_a_session_killed_while_it_arrives_or_leaves_is_there_or_not_and_nobody_is_hurt(disk: Path) -> None:
    layout.create(disk / "bus", fs=Steps())

    def work(root: Path, fs: Fs) -> None:
        roster = open_at(root, fs, agent="bob").roster
        roster.arrive()
        roster.leave()

    for said, root in Points(disk / "bus", disk / "crashed", work):
        with open_at(root) as ann:
            seen = ann.roster.all()
            assert [item.is_live for item in seen] in ([], [False]), f"{said}: its process is dead"
            sent = ann.mail.send("@bob", "x")
            assert sent.live == 0
            ann.store.mend(ann.source.now())
        assert len(list((root / KIND).glob("bob*"))) <= 2, said


def test_a_cursor_killed_while_it_is_written_is_the_old_or_the_new_one(disk: Path) -> None:
    root = disk / "bus"
    message = start(root, VERBS["ack on a topic"])
    for step, call in (("link", "cursors/news"), ("unlink", "tmp"), ("unlink", "cursors/news")):
        at = copy(root, disk / f"{step}-{call.replace('/', '-')}")
        cut_off(step, call, lambda fs, at=at: open_at(at, fs, agent="bob").mail.ack([message]))  # type: ignore[misc]  # a default in a lambda
        with open_at(at, agent="bob") as bob:
            cursor = bob.mail.topics.subscribed()["news"]
            assert isinstance(cursor, Cursor)
            assert message in cursor.acked
