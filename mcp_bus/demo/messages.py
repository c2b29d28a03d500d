"""The demo's chapter on messages: what is sent is queued, offered and acked, and the trace says which of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from mcp_bus.demo.stage import Actor, check, clock, command, match
from mcp_bus.traces import trace

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.demo.stage import Story, Troupe
    from mcp_bus.traces import Reader, Step

TOPIC, AWARDS = "jobs", "awards"
# Nobody bids later than this.
OPEN_S = 60
# Each reader waits in `read_inbox` before the message is sent.
WAIT_S = 20
_QUEUED = re.compile(r"^queued as (?P<id>\w+) ")
_CALLED = re.compile(r"^(?:posted|call for proposals) (?P<id>\w+) on ")
_BID = re.compile(r'^message (?P<id>\w+) from "(?P<agent>\w+)", .*\bbid\b', re.MULTILINE)


def play(bus: Bus, root: Path, story: Story, actors: Troupe) -> None:
    """Send to all, to one, to one who is not there, and to whoever offers the best terms."""
    planner, builder, tester = actors[:3]
    _broadcast(bus, root, story, (planner, builder, tester))
    _note(bus, story, planner, builder)
    _absent(bus, root, story, actors)
    _contract(story, planner, builder, tester)


def _broadcast(bus: Bus, root: Path, story: Story, agents: tuple[Actor, ...]) -> None:
    names, text = {actor.name for actor in agents}, "the code freeze begins at noon"
    for actor in agents:
        actor.ask("read_inbox", wait_s=WAIT_S)
    sent = json.loads(command(root, "human", "send", "broadcast", text))
    check(sent["state"] == "queued" and sent["live_sessions"] >= len(agents), "it is queued, for all who are there")
    for actor in agents:
        check(text in actor.answer(), f"{actor.name} was shown the broadcast")
    check(_standing(root, sent["id"], "offered") == names, "it was shown to each, and is not called read for that")
    for actor in agents:
        _ack(actor)
    check(_standing(root, sent["id"], "acked") == names, "the trace says that each of them acked it")
    lines = [
        f'$ mcp-bus --agent human send broadcast "{text}"',
        "three agents, who wait in read_inbox, read and ack it:",
    ]
    lines += [_line(reader) for reader in trace(bus, sent["id"]).readers if reader.agent in names]
    story.step("a broadcast reaches three agents", lines, message=sent["id"], acked=sorted(names))


def _note(bus: Bus, story: Story, planner: Actor, builder: Actor) -> None:
    text = "the schema is in db/v2 now"
    said = planner.call("send_message", to=builder.name, body=text)
    note = match(_QUEUED, said)["id"]
    known = [_state(planner, note, builder)]
    check(text in builder.call("read_inbox"), "the builder was shown the note")
    known.append(_state(planner, note, builder))
    _ack(builder)
    known.append(_state(planner, note, builder))
    check(known == ["queued", "offered", "acked"], f"get_task told of each step when it was made: {known}")
    reader = _reader(bus, note)
    _, offered, acked = reader.steps
    check([step.what for step in reader.steps] == known, "the trace tells of the same steps")
    check(reader.steps[0].at <= offered.at <= acked.at, "and that one came after the other")
    check(offered.who == acked.who and offered.who.startswith("builder~"), "the session that was shown it acked it")
    check(offered.how == "read_inbox", "the path by which it came is told")
    lines = [f"planner -> builder: {_first(said)}", *(f"    {_step(step)}" for step in reader.steps)]
    story.step("a note from planner to builder, and its trace", lines, message=note, states=known)


def _absent(bus: Bus, root: Path, story: Story, actors: Troupe) -> None:
    planner, name = actors[0], "writer"
    said = planner.call("send_message", to=f"@{name}", body="please describe the new schema")
    check("no live session" in said and "it waits" in said, "nobody is there to read it, and the sender is told")
    check("delivered" not in said, "nor is it called delivered")
    note = match(_QUEUED, said)["id"]
    writer = Actor(root, name, "modern")
    actors.append(writer)
    check(_state(planner, note, writer) == "queued", "it waits while the writer starts")
    writer.hello()
    nudge = writer.call("list_channels").splitlines()[-2]
    check(nudge.startswith("inbox: 2 unread"), "the writer's first answer says that messages wait")
    check(_state(planner, note, writer) == "queued", "to be there is not to have read it")
    shown = writer.call("read_inbox")
    check("describe the new schema" in shown, "the writer was shown the note")
    check("code freeze" in shown, "and the broadcast from before its time")
    _ack(writer)
    check(_state(planner, note, writer) == "acked", "the trace says that the writer acked it")
    lines = [
        f"planner -> writer: {_first(said)}",
        f"the writer starts, with MCP server pid {writer.about['server'][0]}; its first answer ends: {nudge!r}",
        "it reads the note, and the broadcast from before its time, and acks both:",
        _line(_reader(bus, note)),
    ]
    story.step("a note to an absent agent waits until that agent comes", lines, message=note, told=_first(said))


def _contract(story: Story, planner: Actor, builder: Actor, tester: Actor) -> None:
    offers = {builder: {"eta_s": 600, "cost": 2.5}, tester: {"eta_s": 60, "cost": 1}}
    for actor in offers:
        check(f"subscribed to {TOPIC}" in actor.call("read_inbox", subscribe=TOPIC), f"{actor.name} reads {TOPIC}")
    said = planner.call("post_task", channel=TOPIC, body="analyse the logs", options={"ttl_s": OPEN_S})
    call = match(_CALLED, said)["id"]
    for actor, terms in offers.items():
        check("analyse the logs" in actor.call("read_inbox", wait_s=WAIT_S), f"{actor.name} was shown the call")
        actor.call("send_message", reply_to=call, type="bid", body=terms)
    bids = _bids(planner.call("read_inbox", wait_s=WAIT_S))
    check(bids.keys() == {actor.name for actor in offers}, "the planner got a bid from each")
    planner.call("control_task", task=bids[tester.name], action="award")
    forged = builder.call("claim_next", channels=[AWARDS], capabilities=["to:tester"], wait_s=0)
    refused = builder.call("claim_next", channels=[AWARDS], wait_s=0)
    check(_has(forged, "empty", "1 ready"), "the loser cannot claim it, whatever it says that it is able to do")
    check(_has(refused, "empty", "1 ready", "awarded to 'tester'"), "and is told whose it is")
    work = tester.claim(AWARDS)
    check("analyse the logs" in work.text, "the winner claimed it")
    for actor in offers:
        won = f'"won":{json.dumps(actor is tester)}'
        check(_has(actor.call("read_inbox", ack=True, wait_s=WAIT_S), won, call), f"{actor.name} was told how it ended")
        _ack(actor)
    result = "no errors since noon"
    tester.submit(work, result)
    check(result in planner.call("await_results", tasks=[call], wait_s=WAIT_S), "waiting for the call gives the result")
    lines = [
        f"planner -> {TOPIC}: call {call}, open for {OPEN_S} s",
        *(f"{actor.name} bids {json.dumps(terms)}, as {bids[actor.name]}" for actor, terms in offers.items()),
        f"the planner awards {bids[tester.name]}, which is task {work.task} on {AWARDS}",
        f"builder tries to claim it: {refused.partition(';')[0]}",
        f"tester claims it and finishes it; both were told who won; waiting for {call} gives {result!r}",
    ]
    story.step("a call for proposals, two bids, an award", lines, call=call, bids=bids, task=work.task)


def _ack(actor: Actor) -> None:
    """Ack what an agent was shown last."""
    said = actor.call("read_inbox", ack=True)
    check(said.startswith("acked ") and not said.startswith("acked 0 "), f"{actor.name} acked what it was shown")


def _state(sender: Actor, message: str, reader: Actor) -> str:
    """Return how a message stands with a reader, as its sender is told."""
    said = sender.call("get_task", task=message)
    return match(re.compile(rf'^reader "{reader.name}": (?P<state>\w+);', re.MULTILINE), said)["state"]


def _standing(root: Path, message: str, state: str) -> set[str]:
    """Return the agents with whom a message of the human stands so, as `mcp-bus trace` tells."""
    told = json.loads(command(root, "human", "trace", message))
    return {reader["agent"] for reader in told["readers"] if reader["state"] == state}


def _reader(bus: Bus, message: str) -> Reader:
    """Return how a message stands with its only reader."""
    readers = trace(bus, message).readers
    check(len(readers) == 1, "the note has one reader")
    return readers[0]


def _line(reader: Reader) -> str:
    """Return a reader's trace in one line."""
    return f"    {reader.agent:8} {', '.join(map(_step, reader.steps))}"


def _step(step: Step) -> str:
    who = f" to {step.who} by {step.how}" if step.what == "offered" else ""
    return f"{step.what} {clock(step.at)}{who}"


def _bids(said: str) -> dict[str, str]:
    """Return the bids that `read_inbox` showed, by who made them."""
    return {found["agent"]: found["id"] for found in _BID.finditer(said)}


def _has(text: str, *parts: str) -> bool:
    return all(part in text for part in parts)


def _first(text: str) -> str:
    return text.partition("\n")[0]
