"""After a power cut at any call, whatever the disk then holds: an acknowledged message is there, an ack holds (P1)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.power import Disk, Trace
from tests.crash.victim import HOUR, Recorder, Steps, open_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus


class Said(NamedTuple):
    """What somebody was told after how many calls: a text that must be shown to bob (False), never again (True).

    None is what nobody was told yet: an ack, or what makes the message void, is under way.
    """

    calls: int
    text: str
    is_read: bool | None


class Story:
    """A traced run of two agents, and what each was told when."""

    def __init__(self, root: Path) -> None:
        layout.create(root, fs=Steps())
        with open_at(root) as ann, open_at(root, agent="bob") as bob:
            ann.create_channel("news", kind="topic")
            bob.mail.topics.subscribe("news")
            for to in ("@bob", "news"):  # Makes all folders that there will be.
                ann.mail.send(to, "before")
            bob.mail.read()
            bob.mail.ack()
        self.start, self.fs, self.root = Disk.of(root), Recorder(), root
        self.said: list[Said] = [Said(0, "before", is_read=True)]

    def as_agent(self, name: str) -> Bus:
        return open_at(self.root, self.fs, agent=name)

    def tell(self, text: str, *, is_read: bool | None) -> None:
        self.said.append(Said(len(self.fs.trace), text, is_read))


def send(story: Story) -> None:
    story.as_agent("ann").mail.send("@bob", "x")
    story.tell("x", is_read=False)


def keyed(story: Story) -> None:
    for _ in range(2):
        story.as_agent("ann").mail.send("@bob", "x", key="k")
        story.tell("x", is_read=False)


def publish(story: Story) -> None:
    story.as_agent("ann").mail.send("news", "x")
    story.tell("x", is_read=False)


def _read(story: Story, to: str) -> None:
    story.as_agent("ann").mail.send(to, "x")
    bob = story.as_agent("bob")
    assert [item.body.content for item in bob.mail.read()] == ["x"]
    story.tell("x", is_read=None)
    bob.mail.ack()
    story.tell("x", is_read=True)


def supersede(story: Story) -> None:
    ann = story.as_agent("ann")
    old = ann.mail.send("@bob", "old").id
    story.tell("old", is_read=None)
    ann.mail.send("@bob", "new", supersedes=old)
    story.tell("old", is_read=True)
    story.tell("new", is_read=False)


STORIES: dict[str, Callable[[Story], None]] = {
    "send": send,
    "a keyed send": keyed,
    "publish": publish,
    "read and ack": lambda story: _read(story, "@bob"),
    "read and ack on a topic": lambda story: _read(story, "news"),
    "supersede": supersede,
}


def crashes(story: Story, model: str) -> Iterator[tuple[str, dict[str, bool | None], Disk]]:
    """Give each disk once, with what had been said of each text for certain by then."""
    trace, seen = Trace(story.start, story.fs.trace), set[object]()
    for calls, disk in trace.journalled() if model == "journalled" else trace.pessimistic(limit=48):
        held = [said for said in story.said if _holds(said, trace, calls, model)]
        facts = {said.text: said.is_read for said in held}
        key = (disk.key(), tuple(sorted(facts.items())))
        if key not in seen:
            seen.add(key)
            yield f"{model}, after {calls} of {len(trace.ops)} calls: {sorted(disk.names)}", facts, disk


def _holds(said: Said, trace: Trace, calls: int, model: str) -> bool:
    is_at_once = said.is_read is None or model != "journalled"
    return (said.calls if is_at_once else trace.last_sync(said.calls)) <= calls


def shown(root: Path) -> list[str]:
    """Let the machine start again and time pass, and return what bob is shown."""
    with open_at(root, agent="eve", offset=HOUR) as eve:
        sweep(eve)
    with open_at(root, agent="bob", offset=HOUR) as bob:
        assert "news" in bob.mail.topics.subscribed(), "what was subscribed to stays so"
        return [item.body.content for item in bob.mail.read(limit=100)]


@pytest.mark.parametrize("model", ["journalled", "pessimistic"])
@pytest.mark.parametrize("name", STORIES)
def test_what_was_said_of_a_message_holds_after_a_power_cut_at_any_call(disk: Path, name: str, model: str) -> None:
    story, count = Story(disk / "bus"), 0
    STORIES[name](story)
    for said, facts, image in crashes(story, model):
        count += 1
        root = image.write_to(disk / "after")
        texts = shown(root)
        assert len(texts) == len(set(texts)), f"{said}: {texts}"
        for text, is_read in facts.items():
            if is_read is not None:
                assert (text in texts) is not is_read, f"{said}: {text} {'came back' if is_read else 'is lost'}"
        assert not [line for line in auditor.look(root).problems if "identity" in line or "places" in line], said
        shutil.rmtree(root)
    print(f"{count} disks")
    assert count >= 5
