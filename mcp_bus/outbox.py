"""Sending messages: whom they are for, what they may not be, and what is said of them afterwards."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from mcp_bus import access, addresses, bidding, cursors, draft, encrypted, lifecycle, names, wire
from mcp_bus.errors import Conflict, CorruptRecord, DuplicateTask, InvalidRequest, NotFound, Overloaded
from mcp_bus.filters import fields
from mcp_bus.model import DAY, NOTHING, Attempt, Outcome, State
from mcp_bus.operate import TRIES
from mcp_bus.policies import EVERYONE, INBOX
from mcp_bus.topics import Topics, readers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mcp_bus.addresses import Address
    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, PostOptions, Slot, Task
    from mcp_bus.presence import Roster, Seen

# Unread messages an inbox holds, and those of one sender among them.
MAX_UNREAD = 1000
MAX_FROM_ONE = 200
# Messages of one agent to one recipient within a minute: those of this session, and those of others that wait there.
MAX_A_MINUTE = 120
MINUTE_S, LOOK_S = 60.0, 1.0
# Senders of messages that are remembered, so that they are not read again for each send.
MANY = 5000
# Answers to answers; two agents that only ever answer each other are in a loop.
MAX_HOPS = 64
# Options of a post that say how a task is worked on.
WORK_ONLY = frozenset({"max_attempts", "backoff_s", "requires"})
# Unread messages that are looked into, to count those of one sender.
LOOKED = 200
# The path of an offer that was none: an ack took the message, which had been given back, to end it.
BY_ACK = "ack"


class Sent(NamedTuple):
    """What became of a message: it is queued, which is all that can be said of it.

    Attributes:
        live: sessions that could read it now.
        last_seen: the recipient's last sign of life, in milliseconds; 0 for never.
        superseded: what became of the message this one makes void; empty if it names none.
        others: where no session is there, agents of that name and a client's that are: `planner+codex` for `planner`.
    """

    id: str
    to: Address
    created: bool
    live: int
    last_seen: int
    superseded: str = ""
    others: tuple[str, ...] = ()


class Outbox:
    """What one session sends."""

    def __init__(self, bus: Bus, roster: Roster, topics: Topics) -> None:
        """Send for the session that `bus` speaks for."""
        self._bus = bus
        self._roster = roster
        self._topics = topics
        self._sent: dict[str, deque[float]] = {}
        # What this session sent, who sent what else, and how much of that counts, until when.
        self._mine: set[str] = set()
        self._senders: dict[str, str] = {}
        self._counted: dict[str, tuple[float, int]] = {}

    def send(self, to: str, body: object, *, supersedes: str = "", **options: Unpack[PostOptions]) -> Sent:
        """Queue a message; on disk for good when this returns, and no more than that is said.

        Args:
            to: an agent, one session of it, a topic, a channel, `broadcast` or `human`; empty answers
                the sender of the message that `reply_to` names.  See `addresses.resolve`.
            body: text, or JSON data, which is stored as its JSON text; at most 256 KiB.
            supersedes: an earlier message of this agent, which is taken back where it was not read.
            **options: see `PostOptions`; `reply_to` is the id of the message that is answered.

        Raises:
            NotFound: nobody is called that.
            NotAllowed: the topic or channel does not let this agent write.
            Overloaded: the inbox is full, or this session sends too fast.
        """
        checked = draft.check({"type": "note"} | dict(options))
        content = draft.check_content(wire.text_of(body), checked)
        access.check_kind(checked["type"], may_eval=self._bus.may_eval)
        parent = self._message(checked["reply_to"]) if checked.get("reply_to") else None
        old = self._own(supersedes) if supersedes else None
        if parent is None and checked["type"] == bidding.BID:
            msg = "a bid answers a call for proposals"
            raise InvalidRequest(msg, hint="give the call's id as reply_to")
        if parent is not None:
            bidding.check_bid(parent, checked["type"], content, self._bus.source.now())
        seen = self._roster.all()
        if not to and parent is not None:  # Who wrote is an agent, seen or not, whatever its name looks like.
            agent = parent.body.sender.agent
            address = addresses.Address("agent", names.inbox(agent), agent)
        else:
            address = addresses.resolve(to, seen, self._bus.store)
        _check_options(address, checked)
        if parent is not None and checked["type"] == bidding.BID and address.agent != parent.body.sender.agent:
            msg = f"a bid goes to {parent.body.sender.agent!r}, who made the call"
            raise InvalidRequest(msg, hint="leave the recipient out: reply_to says it")
        made = self._body(address, content, checked, parent)
        made = made._replace(supersedes=old.id if old else "", extra=_named(address))
        if old is not None and made.encrypted is None:  # It says again what was for those.
            made = made._replace(encrypted=encrypted.same_readers(old.body))
        self._check_room(address, made, 1 if old and old.channel == address.channel and old.state is State.READY else 0)
        kept = self._bus.put(made)
        if kept.id != made.id and not draft.same(kept, made):
            msg = f"the key {checked.get('key')!r} was used for {kept.id!r}, which says something else"
            raise DuplicateTask(msg, hint="use a new key for a new message")
        is_new = kept.id == made.id
        self._mine.add(kept.id)
        if address.kind == "topic":
            kept = self._in_time(kept) if is_new else kept
            self._topics.wrote(address.channel, kept.id)
        superseded = self._supersede(old, kept.id) if old else ""
        those = self._readers(address, kept, seen)
        live = sum(item.is_live for item in those if item.presence.holder != self._bus.identity.holder)
        last_seen = max((item.presence.beat for item in those), default=0)
        others = () if live or address.kind != "agent" else _others(address.agent, seen)
        return Sent(kept.id, address, is_new, live, last_seen, superseded, others)

    def _readers(self, address: Address, made: Body, seen: Sequence[Seen]) -> list[Seen]:
        """Return the sessions that read what is sent to an address."""
        if address.kind == "topic" and address.channel != names.BROADCAST:
            found = [cursor for cursor in readers(self._bus, address.channel) if cursor.is_active]
            agents = {cursor.agent for cursor in found if cursors.wants(cursor, fields(made))}
            return [item for item in seen if item.presence.agent in agents]
        if address.kind in ("topic", "channel"):
            return list(seen)
        mine = [item for item in seen if item.presence.agent == address.agent]
        return [item for item in mine if address.session in ("", item.presence.session)]

    def _in_time(self, made: Body) -> Body:
        """Send a message of a topic again that took long to become visible: some may have passed it by (rule T2)."""
        now = self._bus.source.now()
        if now - made.created <= Topics.LATE:
            return made
        again = made._replace(id=self._bus.ids.next(), created=now, key="", supersedes=made.id)
        self._bus.put(again)
        self._supersede(self._bus.whole(made.id), again.id)
        return again

    def _message(self, message_id: str) -> Task:
        try:
            return self._bus.sound(message_id)
        except NotFound as error:
            msg = f"reply_to: {error}"
            raise InvalidRequest(msg, hint="give the id of the message that is answered, or leave it out") from None

    def _own(self, message_id: str) -> Task:
        """Return an earlier message of this very agent."""
        old = self._bus.sound(message_id)
        if old.body.sender.agent != self._bus.identity.agent:
            msg = f"{old.id!r} was sent by {old.body.sender.agent!r}, and only its sender can supersede it"
            raise InvalidRequest(msg, hint="send a message of your own without supersedes")
        if not names.is_inbox(old.channel) and self._bus.store.policy(old.channel).kind != "topic":
            msg = f"{old.id!r} is a task, not a message"
            raise InvalidRequest(msg, hint="cancel it, or retry it with another body")
        return old

    def _body(self, address: Address, content: str, checked: dict[str, Any], parent: Task | None) -> Body:
        store = self._bus.store
        if address.kind in ("agent", "session"):
            store.declare(address.channel, INBOX, is_default=True)
        elif address.channel == names.BROADCAST:
            store.declare(address.channel, EVERYONE, is_default=True)
        policy, now = store.policy(address.channel), self._bus.source.now()
        if policy.kind == "topic" and "ttl_s" not in checked and not policy.ttl_s:
            checked["ttl_s"] = policy.retention_days * DAY / 1000
        made = draft.body(
            self._bus.ids.next(), address.channel, content, self._bus.sender(), checked, now=now, policy=policy
        )
        if parent is None:
            return made
        if parent.body.hops >= MAX_HOPS:
            msg = f"this would be answer {MAX_HOPS + 1} to answers since the first message: two agents may be in a loop"
            raise InvalidRequest(msg, hint="stop answering, or ask the human; new business needs no reply_to")
        # What is answered may be hidden from who answers it, all but that it is there.
        thread = made.thread or access.shown(self._bus, parent).body.thread or parent.id
        if made.encrypted is None:  # An answer quotes what it answers.
            made = made._replace(encrypted=encrypted.reply_to(parent.body, address.agent))
        return made._replace(hops=parent.body.hops + 1, reply_to=parent.id, thread=thread)

    def _check_room(self, address: Address, made: Body, spare: int) -> None:
        """Refuse what would flood its reader, before anything is written.

        Args:
            spare: how many unread messages it takes the place of.

        Raises:
            Overloaded: says what is full and whose messages fill it.
        """
        mine, now = self._sent.setdefault(address.channel, deque()), self._bus.source.monotonic()
        while mine and mine[0] <= now - MINUTE_S:
            mine.popleft()
        if len(mine) + self._of_others(address.channel, made.sender.agent) >= MAX_A_MINUTE:
            msg = f"{made.sender.agent!r} sent {MAX_A_MINUTE} messages to {address.channel!r} within a minute"
            raise Overloaded(msg, hint="wait, and send one message that says it all")
        mine.append(now)
        if address.kind not in ("agent", "session"):
            return
        waiting = [
            slot
            for state in (State.READY, State.SCHEDULED)
            for slot in self._bus.store.scan(address.channel, state, limit=MAX_UNREAD + 1)
        ]
        if len(waiting) - spare >= MAX_UNREAD:
            msg = f"the inbox of {address.agent!r} is full: {MAX_UNREAD} messages wait there unread"
            raise Overloaded(msg, hint="wait until some are read; `supersedes` takes back what is out of date")
        if len(waiting) - spare < MAX_FROM_ONE:
            return
        agent = made.sender.agent
        from_one = sum(body.sender.agent == agent for body in bodies(self._bus, waiting))
        if from_one - spare >= MAX_FROM_ONE:
            msg = f"{from_one} messages of {agent!r} wait unread in the inbox of {address.agent!r}"
            raise Overloaded(msg, hint="wait until some are read; `supersedes` takes back what is out of date")

    def _of_others(self, channel: str, agent: str) -> int:
        """Count the messages of a minute that other sessions of an agent sent to a channel, where they wait unread.

        By a look that is at most a second old: of a flood that is enough, and sending stays quick.
        """
        source = self._bus.source
        until, count = self._counted.get(channel, (0.0, 0))
        if source.monotonic() < until:
            return count
        now, start = source.now(), source.monotonic()
        slots = self._bus.store.scan(channel, State.READY, after=cursors.first_of(now - int(MINUTE_S * 1000)))
        fresh = [slot for slot in slots if cursors.time_of(slot.id) <= now and slot.id not in self._mine]
        for body in bodies(self._bus, (slot for slot in fresh if slot.id not in self._senders)):
            self._senders[body.id] = body.sender.agent if body.type != "task" else ""
        senders = {slot.id: self._senders.get(slot.id, "") for slot in fresh}
        self._senders = senders if len(self._senders) > MANY else self._senders
        count = sum(sender == agent for sender in senders.values())
        self._counted[channel] = (start + LOOK_S, count)
        return count

    def _supersede(self, old: Task, new_id: str) -> str:
        """Take back an earlier message where it was not read; say what became of it."""
        is_topic = not names.is_inbox(old.channel)
        for _ in range(TRIES):
            now = self._bus.source.now()
            if old.state not in (State.READY, State.SCHEDULED, State.LEASED):
                return "was acked before" if old.state is State.DONE else f"was {old.state} before"
            told = line(self._bus, old.slot, Outcome.SUPERSEDED, "")._replace(successor=new_id)
            try:
                self._bus.store.swap(old.slot, lifecycle.cancel(old.slot, now=now), told)
            except Conflict:
                old = self._bus.whole(old.id)
                continue
            if is_topic:
                return "is taken back where it was not read"
            return "was offered, not acked, and is taken back" if old.state is State.LEASED else "is taken back unread"
        return "is being read just now"


def _others(agent: str, seen: Sequence[Seen]) -> tuple[str, ...]:
    there = {item.presence.agent for item in seen if item.is_live}
    return tuple(sorted(name for name in there if name.startswith(f"{agent}+")))


def bodies(bus: Bus, slots: Iterable[Slot]) -> Iterator[Body]:
    """Read messages through a listing; what moved meanwhile, or cannot be read, is left out."""
    for slot in slots:
        with suppress(Conflict, CorruptRecord):
            task = bus.store.get(slot.id, at=slot)
            if task is not None:
                yield task.body


def line(bus: Bus, slot: Slot, outcome: Outcome, note: str) -> Attempt:
    """Return a line of a message's history, by this session."""
    token = slot.lease.token if slot.lease else ""
    return Attempt(slot.attempt, outcome, bus.source.now(), bus.identity.holder, note, token)


def _named(address: Address) -> Mapping[str, Any]:
    """Return the agent's name, where its inbox does not tell it: a trace can say it of an agent never seen."""
    is_told = not address.agent or names.inbox(address.agent) == f"@{address.agent}"
    return NOTHING if is_told else {"agent": address.agent}


def _check_options(address: Address, checked: dict[str, Any]) -> None:
    """Refuse what only tasks have.

    Raises:
        InvalidRequest: names it.
    """
    odd = sorted(WORK_ONLY & checked.keys()) if address.kind != "channel" else []
    if odd:
        msg = f"a message has no {odd[0]}"
        raise InvalidRequest(msg, hint="that is for tasks: post one")
