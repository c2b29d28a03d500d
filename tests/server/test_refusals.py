"""A bad call is an error that says what and what next, changes nothing, and leaves the server as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mcp_bus.model import MAX_CONTENT, State
from tests.server.support import Desk, desk, found, snapshot, tasks

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio


class Bad(NamedTuple):
    """One call that can never work, and words its refusal has."""

    tool: str
    arguments: dict[str, Any]
    says: str
    hints: str = ""


T = {"task": "{task}", "token": "{token}"}
NAME = "is not a channel name"

BAD = {
    # Arguments that are not what the schema says.
    "no arguments at all": Bad("post_task", {}, "argument 'channel' is missing; argument 'body' is missing"),
    "a misspelt name": Bad(
        "post_task", {"chanel": "x", "body": "y"}, "unknown argument 'chanel', did you mean 'channel'?"
    ),
    "a name nobody knows": Bad("list_channels", {"verbose": True}, "unknown argument 'verbose'", "arguments: none"),
    "an option at the top": Bad(
        "post_task", {"channel": "x", "body": "y", "priority": 3}, "did you mean 'options.priority'?"
    ),
    "a misspelt option": Bad(
        "post_task", {"channel": "x", "body": "y", "options": {"priorty": 3}}, "did you mean 'options.priority'?"
    ),
    "identity as an argument": Bad("claim_next", {"agent": "root"}, "unknown argument 'agent'"),
    "a channel that is a list": Bad(
        "post_task", {"channel": ["x"], "body": "y"}, "argument 'channel'", "call it again"
    ),
    "a body that is null": Bad("post_task", {"channel": "x", "body": None}, "argument 'body'"),
    "options that are text": Bad("post_task", {"channel": "x", "body": "y", "options": "fast"}, "argument 'options'"),
    "channels that are numbers": Bad("claim_next", {"channels": [1]}, "argument 'channels.0'"),
    "a status nobody knows": Bad("submit_result", {**T, "status": "finished"}, "got 'finished'"),
    "an action nobody knows": Bad("control_task", {"task": "{task}", "action": "explode"}, "got 'explode'"),
    "an offset below zero": Bad("get_task", {"task": "{task}", "offset": -1}, "argument 'offset'"),
    "an unknown name of 100 kB": Bad("get_task", {"task": "{task}", "x" * 100_000: 1}, "unknown argument 'xxx"),
    "a name with control characters": Bad("get_task", {"task": "{task}", "\x1b[2J\n": 1}, r"\\x1b[2J\\x0a"),
    # Channels.
    "a channel that climbs": Bad("post_task", {"channel": "../x", "body": "y"}, f"'../x' {NAME}", "code-review"),
    "an empty channel": Bad("post_task", {"channel": "", "body": "y"}, f"'' {NAME}"),
    "a channel of 300 characters": Bad("post_task", {"channel": "x" * 300, "body": "y"}, NAME),
    "a channel with a line feed": Bad("post_task", {"channel": "a\nb", "body": "y"}, NAME),
    "a channel with a NUL": Bad("post_task", {"channel": "a\0", "body": "y"}, NAME),
    "a channel in capitals": Bad("post_task", {"channel": "Review", "body": "y"}, NAME, "'review'"),
    "a channel to claim from that climbs": Bad("claim_next", {"channels": ["../x"]}, NAME),
    "a channel to search that climbs": Bad("find_tasks", {"channel": "../x"}, NAME),
    # Sizes and numbers.
    "a body over the limit": Bad(
        "post_task",
        {"channel": "ended", "body": "é" * (MAX_CONTENT // 2) + "!"},
        f"the limit is {MAX_CONTENT}",
        "in a file",
    ),
    "data over the limit": Bad("post_task", {"channel": "ended", "body": ["x" * MAX_CONTENT]}, "the body has"),
    "a result over the limit": Bad("submit_result", {**T, "result": "x" * (MAX_CONTENT + 1)}, "the result has"),
    "a title over the limit": Bad(
        "post_task", {"channel": "x", "body": "y", "title": "x" * 201}, "title is not a text"
    ),
    "a key over the limit": Bad("post_task", {"channel": "x", "body": "y", "key": "x" * 201}, "key is not a text"),
    "a priority over 9": Bad("post_task", {"channel": "x", "body": "y", "options": {"priority": 10}}, "priority is 10"),
    "a delay below zero": Bad("post_task", {"channel": "x", "body": "y", "options": {"delay_s": -1}}, "delay_s is -1"),
    "no attempts": Bad("post_task", {"channel": "x", "body": "y", "options": {"max_attempts": 0}}, "max_attempts is 0"),
    "a capability with a blank": Bad("post_task", {"channel": "x", "body": "y", "requires": ["a b"]}, "'a b' is not"),
    "a capability list without end": Bad("claim_next", {"capabilities": ["x"] * 33}, "capabilities is not a list"),
    "a wait below zero": Bad("claim_next", {"wait_s": -1}, "wait_s is -1", "0 for no waiting"),
    # Ids.
    "an unknown id": Bad("get_task", {"task": "ffffffff"}, "there is no task 'ffffffff'", "search for it"),
    "an unknown id in full": Bad("get_task", {"task": "req_" + "0" * 32}, "there is no task 'req_000"),
    "an id that is too short": Bad("get_task", {"task": "abc"}, "too short", "at least 4"),
    "an empty id": Bad("get_task", {"task": ""}, "is not a task id"),
    "an id without digits": Bad("get_task", {"task": "req_"}, "is not a task id"),
    "a beginning that several have": Bad("get_task", {"task": "{shared}"}, "could be any of 3 tasks", "more digits"),
    "an id that climbs": Bad("control_task", {"task": "../../bus", "action": "cancel"}, "is not a task id"),
    "an id of 300 characters": Bad("get_task", {"task": "f" * 300}, "is not a task id"),
    "an id with control characters": Bad("get_task", {"task": "\x1b]0;x\x07"}, "is not a task id"),
    "no tasks to wait for": Bad("await_results", {"tasks": []}, "0 tasks were named", "1 to 50"),
    "60 tasks to wait for": Bad("await_results", {"tasks": ["{task}"] * 60}, "60 tasks were named"),
    "an unknown one among those waited for": Bad(
        "await_results", {"tasks": ["{task}", "ffffffff"]}, "no task 'ffffffff'"
    ),
    "a page after an unknown task": Bad("find_tasks", {"after": "ffffffff"}, "there is no task"),
    "a state nobody knows": Bad("find_tasks", {"state": "open"}, "'open' is not a state", "states: "),
    # Tokens.
    "a stale token": Bad(
        "submit_result", {**T, "token": "abcdef012345"}, "is not the token of any claim", "check the token"
    ),
    "a stale token in a heartbeat": Bad("heartbeat", {**T, "token": "abcdef012345"}, "is not the token of any claim"),
    "a malformed token": Bad("submit_result", {**T, "token": "../x"}, "'../x' is not a lease token"),
    "an empty token": Bad("heartbeat", {**T, "token": ""}, "is not a lease token", "that the claim returned"),
    "a release with a stale token": Bad(
        "submit_result", {**T, "token": "abcdef", "status": "release"}, "is not the token of any claim"
    ),
    "a block without a question": Bad("submit_result", {**T, "status": "blocked"}, "needs a question"),
    # What the task's state does not allow.
    "a task that is done": Bad("control_task", {"task": "{done}", "action": "cancel"}, "it is done", "post a new task"),
    "a retry of a task that waits": Bad("control_task", {"task": "{ready}", "action": "retry"}, "it is ready"),
    "an edited retry of one that is not dead": Bad(
        "control_task", {"task": "{ready}", "action": "retry", "body": "new"}, "only dead tasks", "post a new task"
    ),
    "an undo of nothing": Bad("control_task", {"task": "{ready}", "action": "undo"}, "cannot undo"),
    "a discard of one that is not dead": Bad(
        "control_task", {"task": "{ready}", "action": "discard"}, "cannot discard"
    ),
    "a body that goes with nothing": Bad(
        "control_task", {"task": "{task}", "action": "cancel", "body": "x"}, "body goes with action 'retry' only"
    ),
    "a priority that goes with nothing": Bad(
        "control_task", {"task": "{task}", "action": "cancel", "priority": 1}, "priority goes with"
    ),
    "a new priority that is missing": Bad("control_task", {"task": "{ready}", "action": "reprioritise"}, "needs it"),
    "a new priority out of range": Bad(
        "control_task", {"task": "{ready}", "action": "reprioritise", "priority": 99}, "99 is not within -9 to 9"
    ),
    "a tool nobody knows": Bad("claim_nxt", {}, "there is no tool 'claim_nxt'", "did you mean 'claim_next'?"),
    "a tool like none": Bad("\x1bzzz", {}, r"there is no tool '\\x1bzzz'", "tools: post_task"),
}


async def prepared(ann: Desk) -> dict[str, str]:
    done = await ann.post("ended")
    await ann.call("submit_result", **(await ann.claim()).mine, result="fine")
    held = await ann.post("held")
    claim = await ann.claim()
    assert claim.task == held
    ready = await ann.post("waiting")
    full = found(r"^id (\w+),", await ann.call("get_task", task=ready))
    return {"task": held, "token": claim.token, "done": done, "ready": ready, "shared": full[:9]}


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return names.get(value[1:-1], value) if isinstance(value, str) and value[:1] == "{" else value


async def test_a_bad_call_says_what_and_what_next_and_changes_nothing(place: Path, era: str, bob: Bus) -> None:
    """All of them on one connection: each leaves the server as the next one needs it."""
    async with desk(place, era) as ann:
        names = await prepared(ann)
        before, states = snapshot(place), {name: task.slot for name, task in tasks(bob).items()}
        wrong = []
        for name, bad in BAD.items():
            text = await ann.refused(bad.tool, **filled(bad.arguments, names))
            said, _, hint = text.rpartition("\nnext: ")
            if bad.says not in said or bad.hints not in hint or len(text) > 1500:
                wrong.append((name, text))
        assert not wrong
        assert {name: task.slot for name, task in tasks(bob).items()} == states
        after = {name: data for name, data in snapshot(place).items() if not name.startswith("rejected/")}
        assert after == before
        await ann.call("submit_result", task=names["task"], token=names["token"], result="still mine")


async def test_every_tool_refuses_what_it_does_not_know(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        for tool in (await ann.client.list_tools()).tools:
            text = await ann.refused(tool.name, wait_seconds=5)
            assert "unknown argument 'wait_seconds'" in text
            takes_it = "wait_s" in tool.input_schema.get("properties", {})
            assert ("did you mean 'wait_s'?" in text) == takes_it


@pytest.mark.parametrize("wished", [1e308, 3600, 10**30])
async def test_a_wait_without_end_is_capped(place: Path, era: str, wished: float) -> None:
    async with desk(place, era, max_wait_s=0.05) as ann:
        assert (await ann.call("claim_next", wait_s=wished)).startswith("empty")
        task = await ann.post()
        assert (await ann.call("await_results", tasks=[task], wait_s=wished)).startswith("0 of 1 ended")


async def test_what_models_get_wrong_without_harm_is_taken(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post("review", body=42, requires="gpu,python", options={"priority": "3", "delay_s": "0"})
        assert (tasks(bob)[task].body.content, tasks(bob)[task].body.priority) == ("42", 3)
        claim = await ann.claim("review", capabilities="gpu, python", wait_s="0")
        await ann.call("submit_result", **claim.mine, result=["a", None])
        assert (await ann.call("await_results", tasks=task)).startswith("1 of 1 ended")


async def test_half_a_surrogate_pair_is_refused_before_it_is_written(place: Path, bob: Bus) -> None:
    """Only a caller in this process can send one; the wire does not carry it."""
    half = "\ud800"
    async with desk(place, "auto") as ann:
        task = await ann.post()
        claim = await ann.claim()
        for tool, arguments in {
            "post_task": {"channel": "review", "body": half},
            "submit_result": {**claim.mine, "result": half},
            "get_task": {"task": half},
        }.items():
            assert r"\ud800" in await ann.refused(tool, **arguments) or tool != "get_task"
        assert tasks(bob)[task].state is State.LEASED
