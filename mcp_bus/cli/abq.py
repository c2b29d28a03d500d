"""abq's verbs with abq's arguments and output, on the same directory: its scripts go on as they are.

`mcp-bus abq VERB …`, or the same command under the name `abq` (a symlink): then it needs no other word.
What abq does is done by our verbs, with their guarantees: a claim has a token, a result is written whole.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.cli import abqcare, abqparser
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import ERROR, OK, USAGE
from mcp_bus.cli.output import clean, cut
from mcp_bus.errors import BusError, InvalidRequest, NotFound
from mcp_bus.model import State, Ticket

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.config import Config
    from mcp_bus.model import Body, Result, Task

# How long what was received is its receiver's, who has no way to say that it is still at work.
LEASE_S = 3600.0


def main(leading: Sequence[str], words: Sequence[str], out: Out) -> int:
    """Do one of abq's verbs; return the exit code."""
    out.as_json, out.quiet = False, True  # Its options are its own.
    try:
        args = abqparser.parse(words)
    except SystemExit:
        return OK  # --help was answered.
    except InvalidRequest as error:
        out.warn(f"abq: error: {clean(str(error))}")
        return USAGE
    if args.verb == "version":
        out.line(f"abq {wire.VERSION}")
        return OK
    from mcp_bus import config

    settings = config.as_abq(_leading(leading))
    try:
        with config.open_from(settings, create=True, tell=lambda _: None) as bus:
            return _verb(args, bus, settings, out)
    except BusError as error:
        out.flush()
        out.warn(f"Error: {clean(str(error))}")
        return ERROR


def _leading(words: Sequence[str]) -> dict[str, str]:
    """Return the options before the verb that name bus and agent."""
    made: dict[str, str] = {}
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--bus", "--agent"):
            made[name[2:]] = value if equals else next(iter(words[at + 1 : at + 2]), "")
    return made


def _verb(args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    verbs = {
        "init": _init, "channel": abqcare.channel, "send": _send, "recv": _recv, "respond": _respond, "watch": _watch,
        "status": abqcare.status, "ls": abqcare.ls, "check": abqcare.check, "gc": abqcare.gc,
        "requeue": abqcare.requeue,
    }  # fmt: skip
    return verbs[args.verb](args, bus, settings, out)


def _init(_args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    from mcp_bus.policies import EVERYONE

    bus.store.declare("broadcast", EVERYONE, is_default=True)
    out.line(f"Agent bus initialized at {clean(str(settings.path))}")
    return OK


def existing(bus: Bus, name: str) -> str:
    """Return the name of a channel that is there.

    Raises:
        NotFound: it is not.
    """
    if name in bus.store.channels():
        return name
    msg = f"Channel '{name}' does not exist. Create with: abq channel create {name}"
    raise NotFound(msg)


def _address(bus: Bus, name: str) -> str:
    """Return the channel that an address stands for; `@self` and `@parent` are agents, by their git context."""
    if name not in ("@self", "@parent"):
        return existing(bus, name)
    agent = bus.identity.agent
    home, worktree, _ = agent.partition("/worktrees/")
    return f"@{f'{home}/main' if worktree and name == '@parent' else agent}"


def as_message(body: Body) -> dict[str, Any]:
    """Return a message as abq writes it."""
    made = wire.loads(wire.dump_body(body))
    made.pop("bus", None)
    return made


def as_response(found: Result) -> dict[str, Any]:
    """Return a response as abq writes it."""
    made = wire.loads(wire.dump_result(found))
    made.pop("bus", None)
    return made


def _stdin(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _send(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    place, content = _address(bus, args.channel), _stdin(args.content)
    is_queue = not place.startswith("@") and bus.store.policy(place).kind == "queue"
    if is_queue:
        body = _post(bus, args, place, content)
    else:
        options = {"reply_to": args.reply_to} if args.reply_to else {}
        body = bus.get(bus.mail.send(place, content, type=args.type, **options).id).body
    out.line(json.dumps(as_message(body), indent=2) if args.json else f"Sent: {body.id} -> {clean(args.channel)}")
    if not args.wait:
        return OK
    if not args.json:
        out.line(f"Waiting for response (timeout: {args.timeout}s)...")
    out.flush()
    found = _waited(bus, body, args.timeout)
    if found is None:
        out.warn("Timeout waiting for response")
        return ERROR
    if args.json:
        out.line(json.dumps(as_response(found), indent=2))
    else:
        out.line(f"Response [{clean(found.status)}]: {clean(cut(found.content, 200))}")
    return OK


def _post(bus: Bus, args: argparse.Namespace, place: str, content: str) -> Body:
    from mcp_bus import draft

    checked = draft.check({"type": args.type, "reply_to": args.reply_to})
    made = draft.body(
        bus.ids.next(), place, draft.check_content(content, checked), bus.sender(), checked,
        now=bus.source.now(), policy=bus.store.policy(place),
    )  # fmt: skip
    return bus.put(made._replace(ttl=max(0, args.ttl)))


def _waited(bus: Bus, body: Body, timeout_s: float) -> Result | None:
    from mcp_bus.watch import wait_for

    def look() -> Result | None:
        bus.tend()
        return bus.get(body.id).result

    return wait_for(bus, look, channels=[body.channel], timeout_s=timeout_s)


def _recv(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    place = existing(bus, args.channel)
    is_queue = bus.store.policy(place).kind == "queue"
    if not is_queue:
        bus.mail.topics.subscribe(place)

    def look() -> Body | None:
        if is_queue:
            task = bus.claim([place], lease_s=LEASE_S)
            return task.body if task is not None else None
        found = bus.mail.read(limit=1, path="recv", only=place)
        return found[0].body if found else None

    body = look()
    if body is None and args.wait:
        from mcp_bus.watch import wait_for

        body = wait_for(bus, look, channels=[place], timeout_s=30.0)
    if body is None:
        return OK
    if args.json:
        out.line(json.dumps(as_message(body), indent=2))
        return OK
    out.line(f"ID: {body.id}")
    out.line(f"Type: {clean(body.type)}")
    out.line(f"From: {clean(body.sender.agent)}")
    out.line(f"Content: {clean(cut(body.content, 500), multiline=True)}")
    return OK


def _respond(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    task = _received(bus, args.channel, args.id)
    result, error = _stdin(args.result), args.error or ("" if args.status == "success" else args.status)
    is_queue = bus.store.policy(task.channel).kind == "queue"
    if task.channel != args.channel or (is_queue and task.state is not State.LEASED):
        msg = f"No processing message with id {args.id}"
        raise NotFound(msg)
    if not is_queue:
        bus.mail.ack([task.id])
        bus.mail.send("", result or error, reply_to=task.id)
        out.line(f"Response sent: {task.id} [{args.status}]")
        return OK
    found = answered(bus, task, result, status=args.status, error=args.error or "")
    out.line(json.dumps(as_response(found), indent=2) if args.json else f"Response sent: {task.id} [{args.status}]")
    return OK


def _received(bus: Bus, channel: str, name: str) -> Task:
    """Return a message; what abq received has perhaps never been seen by us."""
    for slot in bus.store.scan(channel, State.LEASED) if channel in bus.store.channels() else ():
        if slot.id == name:
            found = bus.store.get(slot.id, at=slot)
            if found is not None:
                return found
    return bus.sound(name)


def answered(bus: Bus, task: Task, result: str, *, status: str, error: str) -> Result:
    """Finish a task for whoever received it: this agent in an earlier call, or abq, whose claims have no token.

    Raises:
        NotFound: another agent has it.
        NotAllowed: nobody knows who has it, and this agent may not claim on its channel.
    """
    from mcp_bus import access, encrypted, lifecycle, names, outputs
    from mcp_bus.model import Result

    if task.slot.lease is not None and task.slot.lease.token:
        if not names.is_of(task.slot.lease.holder, bus.identity.agent):
            msg = f"No processing message with id {task.id}: {task.slot.lease.holder} has it"
            raise NotFound(msg)
        wrong = error or (status if status != "success" else "")
        return bus.ack(Ticket(task.id, task.slot.lease.token), result, error=wrong)
    access.check_claim(task.channel, bus.store.policy(task.channel), bus.identity.agent)
    done = lifecycle.ack(task.slot, now=bus.source.now())
    made = Result(
        task.id, result, bus.sender(), bus.source.now(), task.slot.attempt, status, error,
        place="/".join(names.place(done)), encrypted=encrypted.answer_to(task.body),
    )  # fmt: skip
    bus.store.swap(task.slot, done, made)
    outputs.write(bus, task._replace(slot=done, result=made))
    return made


def _watch(args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    from mcp_bus.cli import abqwatch

    existing(bus, args.channel)
    out.line(f"Watching channel: {clean(args.channel)}")
    out.line(f"Handler: {clean(args.handler)}")
    out.flush()
    return abqwatch.watch(args, bus, settings, out)


def _declare(_parser: Parser) -> None:
    """Take whatever follows: its verbs have a parser of their own, see `main`."""


def _run(_call: Call) -> int:
    raise AssertionError


VERBS = {"abq": Verb(_declare, _run, abqparser.EXAMPLE)}
