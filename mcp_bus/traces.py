"""What became of a message: only what can be shown, never what is merely likely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import cursors, filters, lifecycle, names, wire
from mcp_bus.cursors import Cursor
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import WAITING, Outcome, State
from mcp_bus.outbox import BY_ACK
from mcp_bus.topics import FILTERED, SENT, readers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Attempt, Task
    from mcp_bus.presence import Seen


class Step(NamedTuple):
    """One thing that happened to a message: when, what, who did it, and how or why."""

    at: int
    what: str
    who: str
    how: str = ""


class Reader(NamedTuple):
    """How a message stands with one reader.

    Attributes:
        state: `queued` (nobody was shown it), `offered` (shown, not acked), `acked`, `expired`, `superseded`,
            `cancelled`, `undeliverable`; on a topic also `not asked for`, and `passed` (one of that or acked,
            long ago).
        live: sessions of the reader that are there now.
        last_seen: its last sign of life, in milliseconds; 0 for never.
    """

    agent: str
    state: str
    steps: tuple[Step, ...]
    live: int
    last_seen: int


class Trace(NamedTuple):
    """A message and how it stands with everyone it is for; a topic nobody reads has no readers."""

    task: Task
    to: str
    readers: tuple[Reader, ...]


def trace(bus: Bus, message_id: str) -> Trace:
    """Return what became of a message.

    Raises:
        NotFound: there is none of that id.
        InvalidRequest: it is a task; `get` shows those.
    """
    task, seen, now = bus.get(message_id), bus.roster.all(), bus.source.now()
    if names.is_inbox(task.channel):
        agent, session = _owner(task, seen)
        mine = [item for item in seen if item.presence.agent == agent and session in ("", item.presence.session)]
        to = f"{agent}~{session}" if session else agent
        return Trace(task, to, (_reader(to, _state(task, now), _steps(task), mine),))
    if bus.store.policy(task.channel).kind != "topic":
        msg = f"{task.id!r} is a task on {task.channel!r}, not a message"
        raise InvalidRequest(msg, hint="look at the task itself; it has a history")
    made, found = list[Reader](), readers(bus, task.channel)
    if task.channel == names.BROADCAST:  # Everyone reads it who is there, unless they said otherwise.
        known = {cursor.agent for cursor in found} | {task.body.sender.agent}
        agents = {item.presence.agent for item in seen if item.is_live} - known
        found += [Cursor(agent) for agent in sorted(agents)]
    for cursor in found:
        mark = cursor.acked.get(task.id)
        is_own = mark is not None and mark.path == SENT
        # Of its own, a sender is no reader; when that mark is gone, the watermark has passed it.
        is_own |= cursor.agent == task.body.sender.agent and mark is None and cursors.is_passed(cursor, task.id)
        if not cursor.is_active or is_own:
            continue
        mine = [item for item in seen if item.presence.agent == cursor.agent]
        state, steps = _on_topic(cursor, task, now)
        made.append(_reader(cursor.agent, state, steps, mine))
    return Trace(task, task.channel, tuple(made))


def fields(found: Trace) -> dict[str, Any]:
    """Return a trace as JSON data: how the message stands with each reader, and what happened when."""
    return {
        "id": found.task.id,
        "to": found.to,
        "readers": [
            {
                "agent": reader.agent,
                "state": reader.state,
                "steps": [step._asdict() | {"at": wire.stamp(step.at)} for step in reader.steps],
            }
            for reader in found.readers
        ],
    }


def _owner(task: Task, seen: Sequence[Seen]) -> tuple[str, str]:
    """Return whose inbox a message is in; of an agent that nobody remembers, what the message or the inbox says."""
    inbox, said = task.channel, task.body.extra.get("agent")
    for item in seen:
        agent, session = item.presence.agent, item.presence.session
        if inbox == names.inbox(agent):
            return agent, ""
        if inbox == names.inbox(agent, session):
            return agent, session
    word, _, session = inbox[1:].partition("~")
    is_so = isinstance(said, str) and names.inbox(said, session) == inbox
    return str(said) if is_so else word, session


def _reader(agent: str, state: str, steps: tuple[Step, ...], sessions: Sequence[Seen]) -> Reader:
    last_seen = max((item.presence.beat for item in sessions), default=0)
    return Reader(agent, state, steps, sum(item.is_live for item in sessions), last_seen)


def _state(task: Task, now: int) -> str:
    """Return how a message stands, from where its file is; its history only says why."""
    outcomes = {line.outcome for line in _believed(task)}
    if task.state in WAITING and lifecycle.is_expired(task.slot, now=now):
        return "expired"  # Nobody is shown it any more; the next sweep writes it down.
    if task.state is State.LEASED:
        # The ack of a message whose offer had lapsed takes it once more before it ends it: that is no offer.
        return "offered" if Outcome.OFFERED in outcomes else "queued"
    if task.state is State.DONE:
        return "acked"
    if task.state is State.EXPIRED:
        return "undeliverable" if Outcome.UNDELIVERABLE in outcomes else "expired"
    if task.state is State.CANCELLED:
        return "superseded" if Outcome.SUPERSEDED in outcomes else "cancelled"
    return "dead" if task.state is State.DEAD else "queued"


# Ends that a line claims, and the state without which it is not so.
_ENDS = {
    Outcome.ACKED: State.DONE,
    Outcome.SUPERSEDED: State.CANCELLED,
    Outcome.CANCELLED: State.CANCELLED,
    Outcome.EXPIRED: State.EXPIRED,
    Outcome.UNDELIVERABLE: State.EXPIRED,
}


def _believed(task: Task) -> list[Attempt]:
    """Return the lines of history that where the message is does not contradict.

    A line is written before the rename that makes it true, so that a process killed in between leaves one of
    something that did not happen.
    """
    now = task.slot.lease.token if task.slot.lease is not None else ""
    ended = {line.token for line in task.history if line.outcome is not Outcome.OFFERED and line.token != now}
    made = []
    for line in task.history:
        if line.outcome is Outcome.OFFERED:
            is_so = line.note != BY_ACK and (line.token == now or line.token in ended)
        elif line.outcome in _ENDS:
            is_so = task.state is _ENDS[line.outcome] and (line.outcome is not Outcome.ACKED or line.token == now)
        else:  # The end of an offer, which is not over while its lease is the one that holds.
            is_so = line.token != now or not now
        if is_so:
            made.append(line)
    return made


def _steps(task: Task) -> tuple[Step, ...]:
    made = [Step(task.body.created, "queued", task.body.sender.agent)]
    made += [Step(line.at, str(line.outcome), line.by, line.note) for line in _believed(task)]
    return tuple(made)


def _on_topic(cursor: Cursor, task: Task, now: int) -> tuple[str, tuple[Step, ...]]:
    steps = [Step(task.body.created, "queued", task.body.sender.agent)]
    offered, acked = cursor.offered.get(task.id), cursor.acked.get(task.id)
    if offered:
        steps.append(Step(offered.at, "offered", offered.session, offered.path))
    if acked is not None:
        what = "not asked for" if acked.path == FILTERED else "acked"
        return what, (*steps, *([Step(acked.at, what, acked.session)] if acked.at else []))
    ended = _state(task, now)
    if ended not in ("queued", "offered"):
        return ended, tuple(steps)
    if cursors.is_passed(cursor, task.id):
        return "passed", tuple(steps)  # Acked or not asked for; which, when and by whom is not kept for ever.
    if not offered and not cursors.wants(cursor, filters.fields(task.body)):
        return "not asked for", tuple(steps)
    return ("offered" if offered else "queued"), tuple(steps)
