"""The rules of a channel hold at the command line and over MCP: refused in words, and shown nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus import conductor, open_bus
from mcp_bus.cli.main import main
from mcp_bus.conductor import advance
from tests.server.support import WAIT_S, Desk, desk, environment, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus import Bus

pytestmark = pytest.mark.anyio
TOLD = "combination8143"
PLAN = {
    "goal": "open it",
    "steps": [
        {"name": "first", "channel": "work", "title": TOLD, "body": TOLD},
        {"name": "second", "channel": "work", "body": f"{TOLD} {{{{first}}}}", "after": "first"},
    ],
}


class Scene(NamedTuple):
    """A bus with rules, and what ann and zoe did there; bob is in no rule."""

    place: Path
    done: str
    dead: str
    leased: str
    ready: str
    plan: str
    topic: str

    def ids(self) -> tuple[str, ...]:
        return (self.done, self.dead, self.leased, self.ready)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    root = tmp_path / "bus"
    with open_bus(root, agent="ann") as ann, open_bus(root, agent="zoe") as zoe:
        ann.create_channel("work", post_by=["ann"], claim_by=["zoe"], read_by=["lead-*"])
        ann.create_channel("news", kind="topic", post_by=["ann"], read_by=["lead-*"])
        ann.create_channel("full", max_waiting=1)
        ann.create_channel("mine", max_waiting_by_sender=1)
        for channel in ("full", "mine"):
            for agent in (ann, zoe) if channel == "mine" else (ann,):
                agent.post(channel, "x")
        with open_bus(root, agent="bob") as bob:
            bob.post("mine", "x")
        plan = conductor.post(ann, PLAN)
        advance(ann, plan.id)
        _finished(zoe)
        advance(ann, plan.id)
        made = [ann.post("work", TOLD, title=TOLD, thread=TOLD, priority=9, max_attempts=1).id for _ in range(3)]
        _finished(zoe)
        dead = zoe.claim(["work"]) or pytest.fail("nothing to claim")
        zoe.renew(dead, progress=TOLD)
        zoe.nack(dead, TOLD, final=True)
        leased = zoe.claim(["work"]) or pytest.fail("nothing to claim")
        zoe.renew(leased, progress=TOLD)
        ready = ann.post("work", TOLD, title=TOLD, thread=TOLD).id
        sent = ann.mail.send("news", TOLD, title=TOLD).id
        assert {dead.id, leased.id} < set(made)
        (done,) = set(made) - {dead.id, leased.id}
        yield Scene(tmp_path, done, dead.id, leased.id, ready, plan.id, sent)


def _finished(zoe: Bus) -> None:
    zoe.ack(zoe.claim(["work"]) or pytest.fail("nothing to claim"), f"{TOLD} done")


def verb(place: Path, *words: str, text: str = "") -> str:
    """Run a verb as a process of bob; return all it said."""
    done = subprocess.run(
        [sys.executable, "-m", "mcp_bus", *words], capture_output=True, text=True, timeout=WAIT_S, check=False,
        cwd=place, input=text, env=environment(place, MCP_BUS_DIR=str(place / "bus"), MCP_BUS_AGENT="bob"),
    )  # fmt: skip
    return done.stdout + done.stderr


# --- refused ----------------------------------------------------------------------------------------------

# What is asked at the command line, with which tool, and what is said of it.
REFUSED: dict[str, tuple[list[str], str, dict[str, object], str]] = {
    "post_by": (["post", "work", "x"], "post_task", {"channel": "work", "body": "x"}, "post_by names 'ann'"),
    "post_by on a topic": (["send", "news", "x"], "send_message", {"to": "news", "body": "x"}, "post_by names 'ann'"),
    "claim_by": (["claim", "work"], "claim_next", {"channels": ["work"]}, "claim_by names 'zoe'"),
    "read_by": (["subscribe", "news"], "read_inbox", {"subscribe": "news"}, "read_by names 'lead-*'"),
    "max_waiting": (["post", "full", "y"], "post_task", {"channel": "full", "body": "y"}, "max_waiting is 1"),
    "max_waiting_by_sender": (
        ["post", "mine", "y"], "post_task", {"channel": "mine", "body": "y"}, "max_waiting_by_sender is 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", REFUSED)
def test_the_command_line_refuses_says_why_and_what_next_and_changes_nothing(scene: Scene, rule: str) -> None:
    words, _, _, why = REFUSED[rule]
    before = _kept(scene.place)
    said = verb(scene.place, "--json", "--quiet", *words)
    told = json.loads(said.splitlines()[0])["error"]
    assert told["code"] in ("not_allowed", "overloaded"), told
    for text in (told["message"], said.partition("\n")[2]):
        assert why in text
    assert told["hint"] in said.partition("next: ")[2]
    assert _kept(scene.place) == before


@pytest.mark.parametrize("rule", REFUSED)
async def test_a_tool_refuses_says_why_and_what_next_and_changes_nothing(scene: Scene, era: str, rule: str) -> None:
    _, tool, arguments, why = REFUSED[rule]
    async with desk(scene.place, era, agent="bob") as bob:
        await bob.call("list_channels")
        before = _kept(scene.place)
        assert why in await bob.refused(tool, **arguments)
        assert _kept(scene.place) == before


def _kept(place: Path) -> dict[str, bytes]:
    """Return the files of tasks, messages and rules; that somebody is there is noted, whatever is refused."""
    beside = ("agents", "boots", "told")
    return {name: data for name, data in snapshot(place).items() if name.split("/")[0] not in beside}


# --- shown ------------------------------------------------------------------------------------------------


def reading(scene: Scene) -> list[list[str]]:
    """Return every verb that shows something, with what it may show."""
    each = [["show", task] for task in scene.ids()]
    plan = [["plan", "show", scene.plan], ["plan", "list"]]
    both = [*each, ["wait", scene.done, "--timeout", "1"], ["ls"], ["ls", "work"], ["find"], ["find", "combination"],
            ["inbox"], ["trace", scene.topic], ["log"], ["status"], ["agents"], *plan, ["channel", "show", "work"],
            ["fsck"], ["subscribe"]]  # fmt: skip
    return [
        *both, *([*words, "--json"] for words in both), ["plan", "report", scene.plan], ["doctor"],
        *(["export", "--format", form] for form in ("jsonl", "csv", "md")),
        *(["complete", "zsh", "", name, ""] for name in ("show", "wait", "retry", "cancel", "undo", "discard")),
        ["complete", "zsh", "", "plan", "show", ""], ["complete", "zsh", "", "find", ""],
        ["watch", "news", "--idle", "0.1", "--tasks", "1", "--", "cat"],
        ["watch", "@inbox", "--idle", "0.1", "--tasks", "1", "--", "cat"],
    ]  # fmt: skip


# Where somebody whom the rule names sees it: without that, nothing would show that others do not.
SHOWS = {"show", "wait", "find", "plan report", "export"}


def test_no_verb_shows_a_word_to_who_may_not_read_and_those_who_may_see_it(
    scene: Scene, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(scene.place, MCP_BUS_DIR=str(scene.place / "bus")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(scene.place)
    seen = dict[str, dict[str, str]]()
    for agent in ("bob", "lead-1"):
        monkeypatch.setenv("MCP_BUS_AGENT", agent)
        for words in reading(scene):
            if agent != "bob" and not " ".join(words).startswith(tuple(SHOWS)):
                continue
            main(words)
            said = "".join(capfd.readouterr())
            assert "unrecognized" not in said, said
            assert "there is no verb" not in said, said
            if TOLD in said:
                seen.setdefault(agent, {})[" ".join(words)] = said
    assert "bob" not in seen, seen["bob"]
    assert {name for name in SHOWS if any(key.startswith(name) for key in seen["lead-1"])} == SHOWS


def test_no_hook_tells_a_word_to_who_may_not_read(scene: Scene) -> None:
    event = json.dumps({"hook_event_name": "SessionStart", "session_id": "5e5c", "source": "startup"})
    said = verb(scene.place, "hook", "claude-code", text=event)
    assert TOLD not in said


async def test_no_tool_and_no_resource_shows_a_word_to_who_may_not_read(scene: Scene, era: str) -> None:
    said, shown = list[str](), list[str]()
    for agent, texts in (("bob", said), ("lead-1", shown)):
        async with desk(scene.place, era, agent=agent) as client:
            for task in scene.ids():
                texts.append(await client.call("get_task", task=task))
                texts.append(await client.call("await_results", tasks=[task]))
                texts.append(await _resource(client, f"bus://tasks/{task}"))
            texts += [await client.call(name) for name in ("list_channels", "find_tasks", "read_inbox")]
            texts.append(await client.call("get_task", task=scene.plan))
            listed = await client.client.list_resources()
            texts += [await _resource(client, str(item.uri)) for item in listed.resources]
            texts.append(await _resource(client, "bus://topics/news"))
    assert not [text for text in said if TOLD in text]
    assert len([text for text in shown if TOLD in text]) > len(scene.ids())


async def _resource(client: Desk, uri: str) -> str:
    found = await client.client.read_resource(uri)
    return "".join(getattr(part, "text", "") for part in found.contents)
