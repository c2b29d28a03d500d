"""Real agent CLIs on one bus: what their models do reaches it, and what waits there reaches their models."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from e2e.clients import CLIENTS as CLIS
from e2e.heard import TICKET, ticket
from e2e.model import Step
from e2e.settings import ROOT
from mcp_bus import State
from mcp_bus.hooks.forms import CALLED, CLIENTS, STOP, TURN
from mcp_bus.identity.session import identify

if TYPE_CHECKING:
    from e2e.conftest import Stage

# Beyond what a client may take, so that its own limit tells what it said until then; npm may have to be waited for.
pytestmark = pytest.mark.timeout(600)
CLAUDE, CODEX = CLIS[:2]


def held(said: str) -> dict[str, Any]:
    """Find the task that a primer lists, with its token."""
    task, token = re.findall(r"- ([0-9a-f]{8}) on work .*, token ([0-9a-f]{12}),", said)[-1]
    return {"task": task, "token": token}


def events(stage: Stage, moment: str) -> list[str]:
    """Return the events of a client that are such a moment."""
    return [name for name, event in CLIENTS[stage.client.name].items() if event.moment == moment]


def name_of(stage: Stage) -> str:
    """Return the name that the client's agent has where none is set."""
    word = CALLED.get(stage.client.name, stage.client.name)
    return identify(stage.folder / "project", client=word, session="0", pid=os.getpid()).agent


def test_a_model_posts_sends_and_reads_through_the_client(stage: Stage) -> None:
    bus = stage.bus
    bus.mail.send("@worker", "which colour?")
    stage.play(
        Step("post_task", lambda _: {"channel": "work", "body": "paint it", "title": "paint"}),
        Step("send_message", lambda _: {"to": "@ann", "body": "it is posted"}),
        Step("read_inbox"),
        Step(),
        agent="worker",
    )
    (slot,) = bus.store.scan("work", State.READY)
    task = bus.get(slot.id)
    assert (task.body.content, task.body.title, task.body.sender.agent) == ("paint it", "paint", "worker")
    (letter,) = bus.mail.read()
    assert (letter.body.content, letter.body.sender.agent) == ("it is posted", "worker")
    assert "which colour?" not in stage.seen[2]
    assert "which colour?" in stage.seen[3], "the model has read it"
    (here,) = [seen.presence for seen in bus.roster.all() if seen.presence.agent == "worker"]
    assert here.client == CALLED.get(stage.client.name, stage.client.name)


def test_a_model_claims_answers_and_acks_through_the_client(stage: Stage) -> None:
    bus = stage.bus
    posted, letter = bus.post("work", "paint it"), bus.mail.send("@worker", "which colour?")
    stage.play(
        Step("claim_next", lambda _: {"channels": ["work"]}),
        Step("submit_result", lambda said: ticket(said) | {"result": "painted"}),
        Step("read_inbox"),
        Step("read_inbox", lambda _: {"ack": True}),
        Step(),
        agent="worker",
    )
    task = bus.get(posted.id)
    assert task.state is State.DONE
    assert task.result
    assert (task.result.content, task.result.sender.agent) == ("painted", "worker")
    assert bus.get(letter.id).state is State.DONE, "it was acked"


def test_hooks_tell_the_model_at_the_start_after_a_tool_and_at_the_stop_each_once(stage: Stage) -> None:
    bus, name = stage.bus, name_of(stage)

    def send_to_the_session() -> None:
        (here,) = [seen.presence for seen in bus.roster.all() if seen.is_live]
        assert here.agent == name
        bus.mail.send(f"{name}~{here.session}", "a secret")

    bus.mail.send(f"@{name}", "a secret")
    steps = [
        Step("list_channels"),
        Step("list_channels", first=send_to_the_session),
        Step(first=lambda: bus.mail.send(f"@{name}", "a secret", priority=1)),
    ]
    can_hold = bool(events(stage, STOP))
    stage.play(*steps, *([Step()] if can_hold else []), hooks=CLIENTS[stage.client.name])
    primer, news, last = (
        f'mcp-bus: you are "{name}"',
        "new for you: 1 message, from",
        "new for you: 1 message, 1 urgent, from",
    )
    assert primer in stage.seen[0]
    assert 'Unread: 1 message, from "ann".' in stage.seen[0]
    assert [said.count(news) for said in stage.seen[:3]] == [0, 0, 1], "it came with the answer of the second tool"
    if can_hold:
        assert last not in stage.seen[2]
        # Claude Code shows its model such a reason twice.
        assert (stage.seen[3].count(news), stage.seen[3].count(last)) in ((1, 1), (1, 2))
        assert "before you stop" in stage.seen[3]
    assert "a secret" not in "".join(stage.seen)
    assert bus.roster.all(), "it was there"


# The plugin of opencode does all or nothing.
@pytest.mark.parametrize("installed", [client for client in CLIS if client.name != "opencode"], indirect=True, ids=str)
def test_a_hook_at_the_prompt_tells_the_model_of_what_is_new(stage: Stage) -> None:
    prompts = events(stage, TURN)[:1]
    stage.bus.mail.send(f"@{name_of(stage)}", "a secret", priority=1)
    stage.play(Step(), hooks=prompts)
    assert "new for you: 1 message, 1 urgent, from" in stage.seen[0]
    assert "you are" not in stage.seen[0].partition("new for you")[0].rpartition("mcp-bus:")[2]
    assert "a secret" not in stage.seen[0]


@pytest.mark.parametrize("installed", [CLAUDE], indirect=True, ids=str)
def test_after_a_compaction_claude_code_is_told_what_it_holds_and_the_token_of_it(stage: Stage) -> None:
    stage.talk(
        ["work", "/compact", "go on"],
        Step("post_task", lambda _: {"channel": "work", "body": "paint it", "title": "paint"}),
        Step("claim_next"),
        Step(text="I have a task"),
        Step(text="<summary>nothing that matters</summary>"),
        Step("submit_result", lambda said: held(said) | {"result": "painted"}),
        Step(),
        hooks=["SessionStart"],
    )
    assert "Held under your name: 1 task." in stage.seen[4]
    assert TICKET.findall(stage.seen[4]) == [], "what the tool had said was summarised away"
    assert len(list(stage.bus.store.scan("work", State.DONE))) == 1, "the token of the primer was good"


@pytest.mark.parametrize("installed", [CLAUDE], indirect=True, ids=str)
def test_a_resumed_session_of_claude_code_is_told_what_waits_by_then(stage: Stage) -> None:
    stage.play(Step(text="hello"), hooks=["SessionStart"])
    assert "No message waits." in stage.seen[0]
    stage.bus.mail.send(f"@{name_of(stage)}", "a secret")
    stage.play(Step(), hooks=["SessionStart"], more=["--continue"])
    assert "hello" in stage.seen[0], "it is the session of before"
    assert 'Unread: 1 message, from "ann".' in stage.seen[0]


@pytest.mark.parametrize("installed", [CLAUDE], indirect=True, ids=str)
def test_claude_code_tells_its_model_what_waits_by_hooks_that_call_the_server(stage: Stage) -> None:
    bus, name = stage.bus, name_of(stage)
    settings = stage.folder / "home" / "calls.json"
    settings.write_text(json.dumps({"hooks": calls()}))
    bus.mail.send(f"@{name}", "a secret")
    steps = [
        Step("list_channels", first=lambda: bus.mail.send(f"@{name}", "a secret", priority=1)),
        Step(first=lambda: bus.mail.send(f"@{name}", "a secret", priority=1)),
        Step(),
    ]
    stage.talk(["work"], *steps, more=["--settings", str(settings)])
    seen = stage.seen
    assert ["new for you: 1 message, from" in said for said in seen[:2]] == [True, True], "at the prompt"
    urgent = [said.count("new for you: 1 message, 1 urgent") for said in seen[:3]]
    assert urgent[:2] == [0, 1], "at the end of a tool"
    assert urgent[2] > 1, "at the stop"
    assert "a secret" not in "".join(seen)
    assert "${" not in "".join(path.read_text() for path in (stage.folder / "bus" / "told").iterdir())


def calls() -> dict[str, Any]:
    """Return the hooks of Claude Code that call a tool, as the page shows them."""
    page = (ROOT / "docs" / "waking.md").read_text("utf-8")
    (shown,) = [block for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "mcp_tool" in block]
    found: dict[str, Any] = json.loads(shown)["hooks"]
    return found


@pytest.mark.parametrize("installed", [CODEX], indirect=True, ids=str)
def test_after_a_compaction_codex_is_told_what_it_holds_and_the_token_of_it(stage: Stage) -> None:
    stage.play(
        Step("post_task", lambda _: {"channel": "work", "body": "paint it", "title": "paint"}),
        Step("claim_next", tokens=10**6),
        Step("submit_result", lambda said: held(said) | {"result": "painted"}),
        Step(),
        hooks=["SessionStart"],
    )
    assert "Held under your name: 1 task." in stage.seen[2]
    assert TICKET.findall(stage.seen[2]) == [], "what the tool had said was summarised away"
    assert len(list(stage.bus.store.scan("work", State.DONE))) == 1, "the token of the primer was good"


def test_a_worker_gives_a_task_to_the_client_and_hands_in_what_it_answered(stage: Stage) -> None:
    posted = stage.bus.post("work", "paint the shed", title="paint")
    printed = stage.work(Step(text="the shed is green"))
    assert "paint the shed" in stage.seen[0]
    task = stage.bus.get(posted.id)
    assert task.state is State.DONE, printed
    assert task.result
    assert (task.result.content.strip(), task.result.sender.agent) == ("the shed is green", "worker")


def post_for(name: str) -> Step:
    return Step("post_task", lambda _: {"channel": f"for-{name}", "body": "go on"})


def work_as(name: str) -> list[Step]:
    claim = Step("claim_next", lambda _: {"channels": [f"for-{name}"]})
    return [claim, Step("submit_result", lambda said: ticket(said) | {"result": f"by {name}"})]


def test_clients_of_different_vendors_work_for_one_another(fleet: list[Stage]) -> None:
    names = [stage.client.name for stage in fleet]
    first, *others = names
    fleet[0].play(post_for(names[1]), Step(), agent=first)
    for number, name in enumerate(others, 1):
        # Each does what the one before posted, and posts for the next; the last posts for the first, and tells it so.
        tell = Step("send_message", lambda _: {"to": first, "body": "your turn"})
        post = post_for(names[(number + 1) % len(names)])
        fleet[number].play(*work_as(name), post, tell, Step(), agent=name)
    fleet[0].play(*work_as(first), Step("read_inbox"), Step(), agent=first)
    bus, found = fleet[0].bus, dict[str, tuple[str, str]]()
    for name in names:
        (slot,) = bus.store.scan(f"for-{name}", State.DONE)
        task = bus.get(slot.id)
        assert task.result
        found[name] = (task.body.sender.agent, task.result.content)
    assert found == {name: (names[number - 1], f"by {name}") for number, name in enumerate(names)}
    assert all(f'from "{name}"' in fleet[0].seen[3] for name in others), "its inbox says who did what"
