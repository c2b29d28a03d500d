"""What tools answer about messages: only what can be shown, so never that one was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import access, names, wire
from mcp_bus.errors import BusError
from mcp_bus.find import short
from mcp_bus.model import State
from mcp_bus.plain import clean, duration
from mcp_bus.server import calls
from mcp_bus.server.words import MAX_ANSWER, Ways, proven, quoted, room, said, several
from mcp_bus.traces import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.addresses import Address
    from mcp_bus.bus import Bus
    from mcp_bus.mail import Acked, Delivery
    from mcp_bus.model import Body, Task
    from mcp_bus.outbox import Sent
    from mcp_bus.traces import Reader, Step

# Characters for how a message stands with its readers.
TRACE = 4500
MAX_STEPS = 6
MAX_ACKED = 10
# Messages that are shown again in one answer.
LIMIT = 10
# How a message stands that was queued earlier.
_NOW = {State.READY: "not yet read", State.LEASED: "offered, not acked", State.DONE: "acked"}


def sent(bus: Bus, done: Sent, ways: Ways) -> str:
    """Answer `send_message`."""
    name, is_read = short(done.id), "not yet read"
    if not done.created:
        found = bus.get(done.id).state
        is_read = _NOW.get(found, str(found))
    head = f"{'queued' if done.created else 'queued before under that key'} as {name} {_whom(done.to)}"
    lines = [f"{head}, {_live(bus, done)}"]
    if done.to.kind in ("agent", "session"):
        lines[0] += f", {is_read}"
    if done.superseded:
        lines.append(f"the one it supersedes {done.superseded}")
    if done.to.kind == "channel":
        following = ways.first(f'await_results(tasks=["{name}"])', "go on")
    else:
        following = ways.first(f'go on; get_task(task="{name}") shows whether it was read', "go on")
    return "\n".join([*lines, f"next: {following}; answers come by read_inbox"])


def _whom(to: Address) -> str:
    if to.kind == "session":
        return f"for session {to.session} of {said(to.agent)}"
    return f"for {said(to.agent)}" if to.kind == "agent" else f"on {to.kind} {to.channel}"


def _live(bus: Bus, done: Sent) -> str:
    if done.to.kind == "channel":
        return "for whoever claims it"
    ago = f"last seen {duration(bus.source.now() - done.last_seen)} ago" if done.last_seen else "never seen"
    if done.live:
        return f"{several(done.live, 'live session')}, {ago}"
    if done.to.agent == bus.identity.agent:
        return "your own name, no other live session: it waits"
    others = f"; live is {', '.join(said(name) for name in done.others[:4])}" if done.others else ""
    return f"no live session ({ago}): it waits{others}"


def read(bus: Bus, made: Sequence[Delivery], told: list[str], mark: str, ways: Ways) -> str:
    """Answer `read_inbox` with messages; `told` is what was done before."""
    now = bus.source.now()
    heads = [_head(item, now) for item in made]
    lines = [*told, several(len(made), "message")]
    is_cut = False
    left = MAX_ANSWER - 800 - sum(len(item) + 160 for item in [*lines, *heads])
    for number, (head, item) in enumerate(zip(heads, made, strict=True)):
        # What a short one leaves is for those after it.
        share = max(100, left // (len(made) - number))
        text = quoted(item.body.content, mark, limit=share, more=ways.rest(item.body.id))
        left -= min(share, len(text))
        is_cut |= len(item.body.content) > share
        lines += [head, text]
    one = f'send_message(reply_to="{short(made[-1].body.id)}", body="…")'
    rest = "read the rest of what is cut off, then " if is_cut else ""
    return "\n".join([*lines, f"next: {rest}read_inbox(ack=true) once you have taken them in; {one} answers"])


def _head(item: Delivery, now: int) -> str:
    body = item.body
    words = [f"message {short(body.id)} from {said(body.sender.agent, 80)}, {duration(now - body.created)} ago"]
    words += ["verified"] if item.verified else []
    words.append(_type(body))
    if not names.is_inbox(body.channel):
        words.append(f"on {body.channel}")
    if body.priority:
        words.append(f"priority {body.priority}")
    if names.TASK_ID.match(body.reply_to):
        words.append(f"answers {short(body.reply_to)}")
    if body.thread:
        words.append(f"thread {said(body.thread, 60)}")
    if item.newer:
        words.append(f"{item.newer} newer from the same sender")
    if item.offers > 1:
        words.append(f"offered {item.offers} times")
    title = f"\ntitle: {said(body.title, 100)}" if body.title else ""
    return ", ".join(words) + title + calls.invited(body, now)


def _type(body: Body) -> str:
    return access.kind(body.type) if body.type in wire.TYPES else said(body.type, 40)


def empty(bus: Bus, told: list[str], waited_s: float, ways: Ways) -> str:
    """Answer `read_inbox` when nothing is unread: what this session was shown and did not ack is shown again."""
    mine, others = _unacked(bus, ways)
    if mine:
        again = [*told, f"nothing new, waited {waited_s:.0f} s; shown before and not acked:", *others]
        return read(bus, mine[:LIMIT], again, bus.source.token(6), ways)
    topics = ", ".join(list(bus.mail.topics.subscribed())[:10])
    lines = [*told, f"no unread messages, waited {waited_s:.0f} s" + (f"; topics read: {topics}" if topics else "")]
    why = bus.mail.passed()
    lines += [f"left where they are: {said(why, 400)}"] if why else []
    lines += [f"a person helps: {said(hint, 200)}"] if (hint := bus.mail.hint()) else []
    return "\n".join([*lines, *others, "next: go on with your work, or call read_inbox again to wait"])


def _unacked(bus: Bus, ways: Ways) -> tuple[list[Delivery], list[str]]:
    """Return what this session was shown and did not ack, and a line about what others of the agent were."""
    try:
        shown = bus.mail.unacked()
    except BusError:
        return [], []
    mine, ids = set(bus.mail.offered()), [short(item.body.id) for item in shown]
    others = [name for name, item in zip(ids, shown, strict=True) if item.body.id not in mine]
    more = " and more" if len(others) > MAX_ACKED else ""
    line = f"shown to another session of yours and not acked: {', '.join(others[:MAX_ACKED])}{more}"
    line += ways.first("; get_task shows each, read_inbox(ids=[...]) acks", "")
    return [item for item in shown if item.body.id in mine], [line] if others else []


def acked(done: Sequence[Acked]) -> list[str]:
    """Say what became of acks."""
    new = sum(item.is_new for item in done)
    lines = [f"acked {several(new, 'message')}"]
    rest = [item for item in done if not item.is_new]
    lines += [f"{short(item.id)} not acked: {clean(item.note)}" for item in rest[:MAX_ACKED]]
    return [*lines, f"and {len(rest) - MAX_ACKED} more not acked"] if len(rest) > MAX_ACKED else lines


def is_message(bus: Bus, task: Task) -> bool:
    """Tell a message from a task."""
    try:
        return names.is_inbox(task.channel) or bus.store.policy(task.channel).kind == "topic"
    except BusError:
        return False


def traced(bus: Bus, task: Task, mark: str, offset: int, ways: Ways) -> str:
    """Answer `get_task` for a message: to its sender, what became of it; to others, what it says."""
    body, now = task.body, bus.source.now()
    where = "" if names.is_inbox(task.channel) else f" on topic {task.channel}"
    lines = [f"message {short(task.id)}{where}"]
    lines.append(f"id {task.id}, priority {task.slot.priority}, {_type(body)}")
    lines.append(f"from {said(body.sender.agent)}, queued {duration(now - body.created)} ago{proven(task)}")
    if body.title:
        lines.append(f"title: {said(body.title, 200)}")
    following = ["nothing"]
    if body.sender.agent == bus.identity.agent:
        known = trace(bus, task.id)
        lines += _readers(known.readers, now) or ["nobody reads it yet"]
        if calls.is_own(bus, task):
            lines += calls.listed(bus, task)
            following.insert(0, calls.award(bus, task) or "wait for bids")
        elif any(item.state in ("queued", "offered") for item in known.readers):
            following.insert(0, f'nothing; send_message(supersedes="{short(task.id)}", …) takes it back')
    elif task.channel in bus.mail.inboxes and task.state in (State.READY, State.LEASED):
        following.insert(0, f'read_inbox(ids=["{short(task.id)}"]) acks it')
    lines.append(quoted(body.content, mark, limit=room(lines), offset=offset, more=ways.rest(task.id)))
    return "\n".join([*lines, f"next: {ways.first(*following)}"])


def _readers(readers: Sequence[Reader], now: int) -> list[str]:
    lines, left = list[str](), TRACE
    for number, item in enumerate(readers):
        lines.append(_reader(item, now))
        left -= len(lines[-1])
        if left < 0:
            return [*lines[:-1], f"and {len(readers) - number} more readers"]
    return lines


def _reader(item: Reader, now: int) -> str:
    ago = f"last seen {duration(now - item.last_seen)} ago" if item.last_seen else "never seen"
    steps = "; ".join(_step(step, now) for step in item.steps[-MAX_STEPS:])
    return f"reader {said(item.agent, 80)}: {item.state}; {several(item.live, 'live session')}, {ago}; {steps}"


def _step(step: Step, now: int) -> str:
    how = f" ({said(step.how, 40)})" if step.how else ""
    word = "to" if step.what == "offered" else "by"
    return f"{step.what} {duration(now - step.at)} ago {word} {said(step.who, 60)}{how}"


def nudge(bus: Bus) -> str:
    """Return a line about what waits in the inbox; empty if nothing does."""
    try:
        waiting = bus.mail.unread()
    except BusError:
        return ""
    urgent = f", {waiting.urgent} urgent" if waiting.urgent else ""
    return f"inbox: {waiting.messages} unread{urgent}; read_inbox shows them" if waiting.messages else ""
