"""The demo's script: agents hand each other work and messages, one is killed, nothing is lost."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING

from mcp_bus import State, open_bus
from mcp_bus.demo import fleet, messages, plans, remote
from mcp_bus.demo.stage import Actor, DemoError, Story, Troupe, check, tree
from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from mcp_bus.bus import Bus

# A killed worker's task comes back this soon in the demo; the default is five minutes.
LEASE_S = 1.5
UNLUCKY = "unlucky"


def main(*, as_json: bool = False, keep: bool = False) -> int:
    """Run the demo on a new bus; return 0 if every step held.

    Args:
        as_json: print one JSON document instead of a story.
        keep: leave the bus there to look at.
    """
    story = Story(as_json)
    with ExitStack() as stack:
        if keep:
            place = tempfile.mkdtemp(prefix="mcp-bus-demo-")
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="mcp-bus-demo-", ignore_cleanup_errors=True))
        root = Path(place) / "bus"
        try:
            actors = stack.enter_context(Troupe())
            _play(stack.enter_context(open_bus(root, agent="demo")), root, story, actors)
        except (DemoError, BusError, OSError, SubprocessError) as error:
            story.failed(error)
    story.finish(bus=str(root), kept=keep)
    return 0 if story.ok else 1


def _play(bus: Bus, root: Path, story: Story, actors: Troupe) -> None:
    bus.create_channel("build", lease_s=LEASE_S, backoff_s=0.1)
    bus.create_channel("review", lease_s=60)
    story.step("a bus is a directory", [f"ls {root}", *tree(root)], bus=str(root))
    planner, builder = _enter(root, story, actors)
    _hand_over(bus, story, planner, builder)
    _kill(bus, story, actors, planner, builder)
    _poison(root, bus, story, planner, builder)
    _delay(story, planner, builder)
    messages.play(bus, root, story, actors)
    plans.play(bus, root, story, actors)
    fleet.play(bus, root, story)
    remote.play(root, story)
    _leave(bus, story, actors)
    _timeline(root, story)


def _enter(root: Path, story: Story, actors: Troupe) -> tuple[Actor, Actor]:
    cast = (("planner", "legacy"), ("builder", "modern"), ("tester", "modern"), (UNLUCKY, "modern"))
    actors += [Actor(root, name, era) for name, era in cast]
    with ThreadPoolExecutor(len(actors)) as pool:
        told = list(pool.map(Actor.hello, actors))
    lines = [
        f"{actor.name:8} agent pid {about['pid']}, its own MCP server pid {about['server'][0]}, "
        f"protocol {about['protocol']}: {len(about['tools'])} tools, {about['bytes']} bytes"
        for actor, about in zip(actors, told, strict=True)
    ]
    check(len({about["server"][0] for about in told}) == len(actors), "each agent has a server of its own")
    check(told[0]["protocol"] != told[1]["protocol"], "two protocol eras meet")
    check(all(about["bytes"] <= 5500 for about in told), "the tool list is small")
    story.step("four agents start, each with its own stdio MCP server", lines, agents=told)
    return actors[0], actors[1]


def _hand_over(bus: Bus, story: Story, planner: Actor, builder: Actor) -> None:
    builder.ask("claim_next", channels=["build"], wait_s=20)
    task = planner.post("build", "make the parser accept tabs", title="tabs", key="tabs-1")
    again = planner.call("post_task", channel="build", body="make the parser accept tabs", title="tabs", key="tabs-1")
    check("already posted" in again and task in again, "the same key posts nothing twice")
    work = builder.claimed()
    check(work.task == task, "the builder was told of the planner's task")
    question = builder.post("review", "do tabs count as one column or as eight?", title="which?")
    asked = planner.claim("review")
    check(asked.task == question, "the planner got the builder's question")
    planner.submit(asked, "as eight")
    builder.submit(work, "done: " + _result_of(builder, question))
    answer = _result_of(planner, task)
    check("done: " in answer and "as eight" in answer, "the result came back")
    check(bus.get(task).state is State.DONE, "the bus says so, too")
    lines = [
        f"planner -> build:  task {task}, posted twice under one key, kept once",
        f"builder -> review: question {question}, answered by the planner",
        f"builder -> planner: {answer!r}",
    ]
    story.step("planner and builder hand each other tasks", lines, task=task, question=question)


def _result_of(actor: Actor, task: str) -> str:
    text = actor.call("await_results", tasks=[task], wait_s=20)
    check(text.startswith("1 of 1 ended"), f"{task} ended")
    parts = text.split("---\n")
    return parts[1].rpartition("\n---")[0] if len(parts) > 1 else text


def _kill(bus: Bus, story: Story, actors: Troupe, planner: Actor, builder: Actor) -> None:
    unlucky = actors[-1]
    task = planner.post("build", "a long job", title="long")
    first = unlucky.claim("build")
    check((first.task, first.attempt) == (task, 1), "the unlucky one works on it")
    dead = unlucky.kill()
    check(bus.get(task).state is State.LEASED, "nobody was told, the lease still stands")
    second = builder.claim("build")
    check((second.task, second.attempt) == (task, 2), "the builder got it as attempt 2")
    builder.submit(second, "finished by the builder")
    answer = _result_of(planner, task)
    check(answer == "finished by the builder", "the result is the builder's")
    lapsed = [entry for entry in bus.get(task).history if entry.outcome == "lapsed"]
    check(len(lapsed) == 1, "the history tells of the lapse")
    lines = [
        f"unlucky claims {task} (attempt 1); kill -9 {' '.join(map(str, dead))}",
        f"its lease of {LEASE_S} s runs out; history: {lapsed[0].note}",
        f"builder claims {task} (attempt 2) and finishes it: {answer!r}",
    ]
    story.step("a worker dies by kill -9 in mid-task, another finishes it", lines, task=task, killed=dead)


def _poison(root: Path, bus: Bus, story: Story, planner: Actor, builder: Actor) -> None:
    task = planner.post("build", "divide by zero", options={"max_attempts": 2, "backoff_s": 0.1})
    for attempt in (1, 2):
        work = builder.claim("build")
        check((work.task, work.attempt) == (task, attempt), f"attempt {attempt} of the poison task")
        builder.submit(work, "ZeroDivisionError", status="failed")
    full = bus.get(task)
    check(full.state is State.DEAD, "after two attempts it is dead")
    page = root / "channels" / "build" / "dead" / f"{full.id}.reason.json"
    reason = json.loads(page.read_text(encoding="utf-8"))
    check(len(reason["attempts"]) == 2, "its page tells of both attempts")
    planner.call("control_task", task=task, action="retry", body="divide by two", note="fixed the divisor")
    work = builder.claim("build")
    check("divide by two" in work.text and work.task != task, "the edited task came")
    builder.submit(work, "0.5")
    answer = _result_of(planner, task)
    check(answer == "0.5", "whoever waits for the old task gets the new one's result")
    lines = [
        f"{task} fails twice; dead/{page.name}: {reason['reason']}, {len(reason['attempts'])} attempts",
        f"planner retries it with an edited body, as {work.task}",
        f"waiting for {task} gives {answer!r}",
    ]
    story.step("a poison task ends in the dead letter, is edited and retried", lines, task=task, edited=work.task)


def _delay(story: Story, planner: Actor, builder: Actor) -> None:
    task = planner.post("build", "later", options={"delay_s": 1})
    now = builder.call("claim_next", channels=["build"], wait_s=0)
    check(now.startswith("empty") and "1 scheduled" in now, "it cannot be claimed yet")
    work = builder.claim("build")
    check(work.task == task, "it came when it was due")
    builder.submit(work, "on time")
    check(_result_of(planner, task) == "on time", "and was done")
    story.step(
        "a delayed task waits for its time", [now.splitlines()[0], f"1 s later: {task} claimed, done"], task=task
    )


def _leave(bus: Bus, story: Story, actors: Troupe) -> None:
    planner, builder = actors[:2]
    left = planner.post("build", "nobody will do this today")
    check(builder.claim("build").task == left, "the builder took one more")
    staying = [actor for actor in actors if actor.name != UNLUCKY]
    with ThreadPoolExecutor(len(staying)) as pool:
        codes = list(pool.map(Actor.leave, staying))
    check(codes == [0] * len(staying), "agents and servers end with code 0")
    task = bus.get(left)
    check((task.state, task.slot.attempt) == (State.READY, 0), "what was held came back at once, at no cost")
    kinds = {name: bus.store.policy(name).kind for name in bus.store.channels()}
    tasks, letters, shared = (
        _count(bus, [n for n in kinds if kinds[n] == kind]) for kind in ("queue", "inbox", "topic")
    )
    posted = len(bus.store.ids())
    counted = [sum(counts.values()) for counts in (tasks, letters, shared)]
    check(sum(counted) == posted, "every task and message is in exactly one state")
    check(tasks[State.LEASED] == 0, "nothing is held")
    check(letters[State.DONE] == counted[1], "whatever came to an inbox was acked")
    check((shared[State.READY], shared[State.CANCELLED]) == (1, 1), "the broadcast is there, the call is closed")
    lines = [
        f"exit codes {codes}; {left} was given back: ready, attempt 0",
        f"{counted[0]} tasks posted = {_told(tasks)}",
        f"{counted[1]} messages sent to inboxes, all acked; the broadcast stays for who comes, the call is closed",
    ]
    facts = {"counts": tasks, "inboxes": letters, "topics": shared}
    story.step("the agents leave, nothing is lost", lines, posted=posted, **facts)


def _count(bus: Bus, channels: list[str]) -> dict[State, int]:
    counts = [bus.store.count(channel) for channel in channels]
    return {state: sum(count[state] for count in counts) for state in State}


def _told(counts: dict[State, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number)


def _timeline(root: Path, story: Story) -> None:
    events = [
        json.loads(line) for file in (root / "journal").iterdir() for line in file.read_text("utf-8").splitlines()
    ]
    events.sort(key=lambda event: str(event["at"]))
    check(len(events) > 20, "the journal tells of every move")
    lines = [
        f"{event['at'][11:23]}  {event['id'][-8:]}  {event['channel']:9}  {event['from'] or '·':>9} -> {event['to']:9} "
        f" {event['by']}"
        for event in events
    ]
    story.step("the timeline, from the journal", lines, events=len(events))
