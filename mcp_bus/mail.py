"""Messages between agents: sent, offered, acked, and never said to be more than that.

A message to an agent is a file in its inbox, a channel that only its owner reads: unread is ready, offered is
leased, read is done, so that all that is proven for tasks holds for it.  A message of a topic stays where it is,
and each subscriber keeps a cursor; see `cursors`.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from mcp_bus import addresses, bidding, draft, lifecycle, names, wire
from mcp_bus.errors import Conflict, CorruptRecord, DuplicateTask, InvalidRequest, NotFound, Overloaded
from mcp_bus.model import DAY, Attempt, Lease, Outcome, Policy, State, Task
from mcp_bus.operate import TRIES
from mcp_bus.presence import Roster
from mcp_bus.topics import Topics, by_topic, readers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from mcp_bus.addresses import Address
    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, PostOptions, Presence, Slot

# Unread messages an inbox holds, and those of one sender among them.
MAX_UNREAD = 1000
MAX_FROM_ONE = 200
# Messages of one session to one recipient within a minute.
MAX_A_MINUTE = 120
# Answers to answers; two agents that only ever answer each other are in a loop.
MAX_HOPS = 64
# Unread messages that are looked into, to count those of one sender.
LOOKED = 200
INBOX = Policy("inbox", max_attempts=10**6, backoff_s=0, lease_s=600, max_releases=10**6)
BROADCAST = Policy("topic", ttl_s=86_400, description="what everyone should know; each agent reads it")


class Sent(NamedTuple):
    """What became of a message: it is queued, which is all that can be said of it.

    Attributes:
        live: sessions that could read it now.
        last_seen: the recipient's last sign of life, in milliseconds; 0 for never.
        superseded: what became of the message this one makes void; empty if it names none.
    """

    id: str
    to: Address
    created: bool
    live: int
    last_seen: int
    superseded: str = ""


class Delivery(NamedTuple):
    """A message as it was offered to this session.

    Attributes:
        offers: how often it was offered, this time included.
        newer: unread messages of the same sender that came after it.
        expires: when it counts as unread again unless it is acked.
    """

    body: Body
    offers: int
    newer: int
    expires: int


class Acked(NamedTuple):
    """What an ack did: `is_new` when it was this one that ended the message, else `note` says why not."""

    id: str
    is_new: bool
    note: str = ""


class Unread(NamedTuple):
    """How many messages wait for this agent, and how many of them have a priority above 0."""

    messages: int
    urgent: int


class Mail:
    """The mailbox of one session; `Bus.mail` is one."""

    def __init__(self, bus: Bus) -> None:
        """Read and write for the session that `bus` speaks for."""
        self._bus = bus
        self.roster = Roster(bus.store, bus.identity, bus.source)
        self.topics = Topics(bus)
        self._offered: dict[str, Task] = {}
        self._sent: dict[str, deque[float]] = {}

    @property
    def inboxes(self) -> tuple[str, str]:
        """The channels that are read for this session: the agent's, and its own."""
        who = self._bus.identity
        return names.inbox(who.agent), names.inbox(who.agent, who.session)

    # --- sending ------------------------------------------------------------------------------

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
            Overloaded: the inbox is full, or this session sends too fast.
        """
        checked = draft.check({"type": "note"} | dict(options))
        content = draft.check_content(wire.text_of(body), checked)
        parent = self._message(checked["reply_to"]) if checked.get("reply_to") else None
        old = self._own(supersedes) if supersedes else None
        if parent is not None:
            bidding.check_bid(parent.body, checked["type"], content, self._bus.source.now())
        seen = self.roster.all()
        if not to and parent is not None:
            to = f"@{parent.body.sender.agent}"  # Who wrote is an agent, seen or not.
        address = addresses.resolve(to, seen, self._bus.store)
        made = self._body(address, content, checked, parent)
        made = made._replace(supersedes=old.id if old else "")
        self._check_room(address, made)
        kept = self._bus.store.add(made)
        if kept.id != made.id and not draft.same(kept, made):
            msg = f"the key {checked.get('key')!r} was used for {kept.id!r}, which says something else"
            raise DuplicateTask(msg, hint="use a new key for a new message")
        if address.kind == "topic" and self._bus.source.now() - made.created > Topics.LATE:
            return self.send(to, body, supersedes=made.id, **options)  # Some may have passed it by (rule T2).
        if address.kind == "topic":
            self.topics.wrote(address.channel, kept.id)
        superseded = self._supersede(old, kept.id) if old else ""
        those = [item for item in seen if self._is_for(address, item.presence)]
        live = sum(item.is_live for item in those if item.presence.holder != self._bus.identity.holder)
        last_seen = max((item.presence.beat for item in those), default=0)
        return Sent(kept.id, address, kept.id == made.id, live, last_seen, superseded)

    def _is_for(self, address: Address, here: Presence) -> bool:
        """Tell whether a session reads what is sent to an address."""
        if address.kind == "topic" and address.channel != names.BROADCAST:
            return any(
                cursor.is_active and cursor.agent == here.agent for cursor in readers(self._bus, address.channel)
            )
        if address.kind in ("topic", "channel"):
            return True
        return here.agent == address.agent and address.session in ("", here.session)

    def _message(self, message_id: str) -> Task:
        try:
            return self._bus.get(message_id)
        except NotFound as error:
            msg = f"reply_to: {error}"
            raise InvalidRequest(msg, hint="give the id of the message that is answered, or leave it out") from None

    def _own(self, message_id: str) -> Task:
        """Return an earlier message of this very agent."""
        old = self._bus.get(message_id)
        if old.body.sender.agent != self._bus.identity.agent:
            msg = f"{old.id!r} was sent by {old.body.sender.agent!r}, and only its sender can supersede it"
            raise InvalidRequest(msg, hint="send a message of your own without supersedes")
        return old

    def _body(self, address: Address, content: str, checked: dict[str, Any], parent: Task | None) -> Body:
        store = self._bus.store
        if address.kind in ("agent", "session"):
            store.declare(address.channel, INBOX, is_default=True)
        elif address.channel == names.BROADCAST:
            store.declare(address.channel, BROADCAST, is_default=True)
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
        thread = made.thread or parent.body.thread or parent.id
        return made._replace(hops=parent.body.hops + 1, reply_to=parent.id, thread=thread)

    def _check_room(self, address: Address, made: Body) -> None:
        """Refuse what would flood its reader, before anything is written.

        Raises:
            Overloaded: says what is full and whose messages fill it.
        """
        recent, now = self._sent.setdefault(address.channel, deque()), self._bus.source.monotonic()
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= MAX_A_MINUTE:
            msg = f"this session sent {MAX_A_MINUTE} messages to {address.channel!r} within a minute"
            raise Overloaded(msg, hint="wait, and send one message that says it all")
        recent.append(now)
        if address.kind not in ("agent", "session"):
            return
        waiting = list(self._bus.store.scan(address.channel, State.READY, limit=MAX_UNREAD))
        if len(waiting) >= MAX_UNREAD:
            msg = f"the inbox of {address.agent!r} is full: {MAX_UNREAD} messages wait there unread"
            raise Overloaded(msg, hint="wait until some are read; `supersedes` takes back what is out of date")
        if len(waiting) < MAX_FROM_ONE:
            return
        agent = made.sender.agent
        from_one = sum(body.sender.agent == agent for body in self._bodies(waiting))
        if from_one >= MAX_FROM_ONE:
            msg = f"{from_one} messages of {agent!r} wait unread in the inbox of {address.agent!r}"
            raise Overloaded(msg, hint="wait until some are read; `supersedes` takes back what is out of date")

    def _bodies(self, slots: Iterable[Slot]) -> Iterator[Body]:
        for slot in slots:
            with suppress(Conflict, CorruptRecord):
                task = self._bus.store.get(slot.id, at=slot)
                if task is not None:
                    yield task.body

    def _supersede(self, old: Task, new_id: str) -> str:
        """Take back an earlier message where it was not read; say what became of it."""
        for _ in range(TRIES):
            now = self._bus.source.now()
            if old.state not in (State.READY, State.SCHEDULED, State.LEASED):
                return "was read before" if old.state is State.DONE else f"was {old.state} before"
            line = self._line(old.slot, Outcome.SUPERSEDED, "")._replace(successor=new_id)
            try:
                self._bus.store.swap(old.slot, lifecycle.cancel(old.slot, now=now), line)
            except Conflict:
                old = self._bus.get(old.id)
                continue
            return "was offered, not acked, and is taken back" if old.state is State.LEASED else "is taken back unread"
        return "is being read just now"

    def _line(self, slot: Slot, outcome: Outcome, note: str) -> Attempt:
        token = slot.lease.token if slot.lease else ""
        return Attempt(slot.attempt, outcome, self._bus.source.now(), self._bus.identity.holder, note, token)

    # --- reading ------------------------------------------------------------------------------

    def unread(self) -> Unread:
        """Return how much waits for this agent, in its inbox and on its topics."""
        slots = [slot for box in self.inboxes for slot in self._bus.store.scan(box, State.READY, limit=MAX_UNREAD)]
        count, urgent = self.topics.unread()
        return Unread(len(slots) + count, sum(slot.priority > 0 for slot in slots) + urgent)

    def waiting(self) -> frozenset[str]:
        """Return the ids of what is unread, in the inbox and on topics."""
        boxes = (slot.id for box in self.inboxes for slot in self._bus.store.scan(box, State.READY, limit=MAX_UNREAD))
        return frozenset([*boxes, *self.topics.waiting()])

    def read(self, *, limit: int = 20, room: int = 6000, path: str = "library") -> list[Delivery]:
        """Offer what is unread to this session, the most urgent first.

        Offered is not read: each message comes back, to whichever session of the agent reads next, unless
        it is acked before `Delivery.expires`.

        Args:
            limit: at most so many.
            room: no more once their texts have so many characters; the first comes whatever its length.
            path: how they reach the agent, for the sender's trace.
        """
        self._bus.tend()
        made: list[Delivery] = []
        for box in self.inboxes:
            for slot in list(self._bus.store.scan(box, State.READY, limit=MAX_UNREAD)):
                if len(made) >= limit or room <= 0:
                    break
                task = self._offer(slot, path)
                if task is not None:
                    made.append(Delivery(task.body, task.slot.attempt, 0, task.lease.expires))
                    room -= len(task.body.content)
        made += [
            Delivery(item.body, item.offers, 0, item.expires)
            for item in self.topics.offer(limit - len(made), room, path)
        ]
        made.sort(key=lambda item: (-item.body.priority, item.body.id))
        return self._counted(made)

    def unacked(self) -> list[Delivery]:
        """Return what was offered to this agent, in whichever session, and not acked: nothing changes by it."""
        slots = [slot for box in self.inboxes for slot in self._bus.store.scan(box, State.LEASED)]
        made = list[Delivery]()
        for slot in slots:
            with suppress(Conflict, CorruptRecord):
                task = self._bus.store.get(slot.id, at=slot)
                if task is not None:
                    made.append(Delivery(task.body, slot.attempt, 0, task.lease.expires))
        return made + [Delivery(item.body, item.offers, 0, item.expires) for item in self.topics.unacked()]

    def _offer(self, slot: Slot, path: str) -> Task | None:
        bus, now = self._bus, self._bus.source.now()
        if lifecycle.is_expired(slot, now=now):
            return None  # The sweep ends it.
        try:
            task = bus.store.get(slot.id, at=slot)
            if task is None:
                return None
            lease_s = bus.store.policy(slot.channel).lease_s
            lease = Lease(bus.identity.holder, bus.source.token(6), now + int(lease_s * 1000))
            taken = lifecycle.claim(slot, lease)
            bus.store.swap(slot, taken, self._line(taken, Outcome.OFFERED, path))
        except (Conflict, CorruptRecord):
            return None  # Another session of this agent was faster, or the store puts it aside.
        self._offered[task.id] = Task(task.body, taken)
        return self._offered[task.id]

    def _counted(self, made: list[Delivery]) -> list[Delivery]:
        """Say for each message how many newer ones of its sender wait or are shown with it."""
        senders = {item.body.sender.agent for item in made}
        rest = [slot for box in self.inboxes for slot in self._bus.store.scan(box, State.READY, limit=LOOKED)]
        ids = [(body.sender.agent, body.id) for body in self._bodies(rest) if body.sender.agent in senders]
        ids += [(item.body.sender.agent, item.body.id) for item in made]
        return [
            item._replace(newer=sum(who == item.body.sender.agent and i > item.body.id for who, i in ids))
            for item in made
        ]

    # --- acking -------------------------------------------------------------------------------

    def offered(self) -> list[str]:
        """Return the ids that this session was offered and has not acked, oldest first."""
        return sorted([*self._offered, *self.topics.offered()])

    def ack(self, ids: Sequence[str] | None = None) -> list[Acked]:
        """Say that messages were read; on disk for good when this returns.

        Args:
            ids: which; None means all that this session was offered.

        Raises:
            NotFound: there is no such message; nothing was acked.
            InvalidRequest: a message was not sent to this agent.
        """
        tasks = [self._bus.get(name) for name in (self.offered() if ids is None else dict.fromkeys(ids))]
        direct = [self._ack(task) for task in tasks if task.channel in self.inboxes]
        for topic, those in by_topic(
            (task.channel, task.id) for task in tasks if task.channel not in self.inboxes
        ).items():
            new = self.topics.ack(topic, those)
            direct += [Acked(i, i in new, "" if i in new else "it was acked before") for i in those]
        return direct

    def _ack(self, task: Task) -> Acked:
        bus = self._bus
        for _ in range(TRIES):
            self._offered.pop(task.id, None)
            if task.state not in (State.READY, State.LEASED):
                return Acked(task.id, is_new=False, note=_ended(task))
            slot, now = task.slot, bus.source.now()
            if task.state is State.READY:  # Its offer lapsed, and it was read all the same.
                slot = lifecycle.claim(slot, Lease(bus.identity.holder, bus.source.token(6), now + 60_000))
            try:
                if slot is not task.slot:
                    bus.store.swap(task.slot, slot)
                bus.store.swap(slot, lifecycle.ack(slot, now=now), self._line(slot, Outcome.ACKED, ""))
            except Conflict:
                task = bus.get(task.id)
                continue
            return Acked(task.id, is_new=True)
        msg = f"{task.id!r} is being written by others all the time"
        raise Conflict(msg, hint="repeat the call")

    def give_back(self, reason: str, ids: Collection[str] | None = None) -> int:
        """Make what this session was offered and did not ack unread again; return how many messages that are.

        Args:
            ids: which; None means all.
        """
        count = 0
        for task in [task for task in self._offered.values() if ids is None or task.id in ids]:
            del self._offered[task.id]
            back = lifecycle.release(task.slot, task.body, INBOX)
            with suppress(Conflict):
                self._bus.store.swap(task.slot, back, self._line(task.slot, Outcome.RELEASED, reason))
                count += 1
        return count + self.topics.give_back(ids)


def _ended(task: Task) -> str:
    """Say why a message cannot be acked any more."""
    if task.state is State.DONE:
        return "it was acked before"
    successor = next((line.successor for line in reversed(task.history) if line.successor), "")
    return f"it was superseded by {successor}" if successor else f"it is {task.state}"
