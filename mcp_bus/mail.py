"""Messages between agents: sent, offered, acked, and never said to be more than that.

A message to an agent is a file in its inbox, a channel that only its owner reads: unread is ready, offered is
leased, read is done, so that all that is proven for tasks holds for it.  A message of a topic stays where it is,
and each subscriber keeps a cursor; see `cursors`.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Unpack

from mcp_bus import cursors, lifecycle, names, routing
from mcp_bus.errors import BusError, Conflict, CorruptRecord, NotFound, UnknownKey
from mcp_bus.model import Lease, Outcome, State, Task
from mcp_bus.operate import TRIES
from mcp_bus.outbox import BY_ACK, LOOKED, MAX_UNREAD, Outbox, Sent, bodies, line
from mcp_bus.policies import INBOX
from mcp_bus.stores.seals import is_past
from mcp_bus.topics import Topics, by_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, PostOptions, Slot


# What `read` takes for the inbox alone; a topic cannot be called so.
INBOX_ONLY = "@inbox"
# What a message in an inbox is in that can be read, or was.
READABLE = (State.DONE, State.LEASED, State.READY)


class Delivery(NamedTuple):
    """A message as it was offered to this session.

    Attributes:
        offers: how often it was offered, this time included.
        newer: unread messages of the same sender that came after it.
        expires: when it counts as unread again unless it is acked.
        verified: whose signature it has; empty where inboxes, or the topic, are not signed.
    """

    body: Body
    offers: int
    newer: int
    expires: int
    verified: str = ""


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
        self.topics = Topics(bus)
        self._passed = self.topics.passed
        self._offered: dict[str, Task] = {}
        self._outbox = Outbox(bus, bus.roster, self.topics)

    @property
    def inboxes(self) -> tuple[str, str]:
        """The channels that are read for this session: the agent's, and its own."""
        who = self._bus.identity
        return names.inbox(who.agent), names.inbox(who.agent, who.session)

    def send(self, to: str, body: object, *, supersedes: str = "", **options: Unpack[PostOptions]) -> Sent:
        """Queue a message; see `Outbox.send`."""
        return self._outbox.send(to, body, supersedes=supersedes, **options)

    def passed(self) -> str:
        """Return why messages were passed over that stay where they are, for people; empty if none were."""
        return self._passed.whys()

    def hint(self) -> str:
        """Return what would let a message be read that was passed over; empty if nothing is known to."""
        return self._passed.hint()

    # --- reading ------------------------------------------------------------------------------

    def unread(self) -> Unread:
        """Return how much waits for this agent, in its inbox and on its topics."""
        waiting = self.waiting().values()
        return Unread(len(waiting), sum(slot.priority > 0 for slot in waiting))

    def waiting(self, *, is_count: bool = True) -> dict[str, Slot]:
        """Return what is unread, in the inbox and on topics, by id; see `Topics.waiting`."""
        return {slot.id: slot for slot in self._unread()} | self.topics.waiting(is_count=is_count)

    def _unread(self, *, is_all: bool = False) -> list[Slot]:
        """List what waits in this session's inboxes, the urgent first.

        Args:
            is_all: however many: what is passed over must not keep what is behind it from its reader.
        """
        most = None if is_all else MAX_UNREAD
        now = self._bus.source.now()
        found = [self._bus.store.scan(box, State.READY) for box in self.inboxes]
        slots = (slot for box in found for slot in islice((s for s in box if s.id not in self._passed), most))
        return sorted((slot for slot in slots if not lifecycle.is_expired(slot, now=now)), key=routing.rank)

    def read(self, *, limit: int = 20, room: int = 6000, path: str = "library", only: str = "") -> list[Delivery]:
        """Offer what is unread to this session, the most urgent first.

        Offered is not read: each message comes back, to whichever session of the agent reads next, unless
        it is acked before `Delivery.expires`.

        Args:
            limit: at most so many.
            room: no more once their texts have so many characters; the first comes whatever its length.
            path: how they reach the agent, for the sender's trace.
            only: a topic that it reads, or `INBOX_ONLY`; all of it if empty.
        """
        self._bus.tend()
        made: list[Delivery] = []
        slots = self._unread(is_all=True) if only in ("", INBOX_ONLY) else []
        urgent = [slot for slot in slots if slot.priority > 0]
        steps: tuple[Callable[[], list[Delivery]], ...] = (
            lambda: self._from_inbox(urgent, limit - len(made), left(), path),
            lambda: self._from_topics(limit - len(made), left(), path, is_urgent=True, only=only),
            lambda: self._from_inbox(slots[len(urgent) :], limit - len(made), left(), path),
            lambda: self._from_topics(limit - len(made), left(), path, is_urgent=False, only=only),
        )

        def left() -> int:
            return room - sum(len(item.body.content) for item in made)

        for step in steps:
            try:
                made += step() if len(made) < limit and left() > 0 else []
            except BusError:
                if not made:
                    raise
                break  # What was offered is shown; the rest comes with the next look, or its error does.
        made.sort(key=lambda item: (-item.body.priority, item.body.id))
        return self._counted(made)

    def _from_inbox(self, slots: Sequence[Slot], limit: int, room: int, path: str) -> list[Delivery]:
        made: list[Delivery] = []
        for slot in slots:
            if len(made) >= limit or room <= 0:
                break
            try:
                task = self._offer(slot, path)
            except BusError:
                if not made:
                    raise
                break  # What was offered must be shown.
            if task is not None:
                made.append(_delivery(task))
                room -= len(task.body.content)
        return made

    def _from_topics(self, limit: int, room: int, path: str, *, is_urgent: bool, only: str) -> list[Delivery]:
        if only == INBOX_ONLY:
            return []
        found = self.topics.offer(limit, room, path, is_urgent=is_urgent, only=only)
        return [Delivery(item.body, item.offers, 0, *item[2:]) for item in found]

    def unacked(self) -> list[Delivery]:
        """Return what was offered to this agent, in whichever session, and not acked, the most urgent first.

        Nothing changes by it.
        """
        slots = [slot for box in self.inboxes for slot in self._bus.store.scan(box, State.LEASED)]
        made = list[Delivery]()
        for slot in slots:
            with suppress(Conflict, CorruptRecord):
                task = self._bus.store.get(slot.id, at=slot)
                # Nothing but a name says that it was offered, and its sender wrote it for a time that is over.
                if task is not None and not is_past(task, self._bus.source.now()):
                    made.append(_delivery(task))
        made += [Delivery(item.body, item.offers, 0, *item[2:]) for item in self.topics.unacked()]
        return self._counted(sorted(made, key=lambda item: (-item.body.priority, item.body.id)))

    def answers(self, message: str) -> Iterator[Body]:
        """Yield what came to this agent's inbox in answer to a message, by its whole id, whether it was read or not.

        Nothing changes by it.
        """
        # Ids of one millisecond, of several makers, are in no order.
        start, inbox = cursors.first_of(cursors.time_of(message) - cursors.SETTLE), self.inboxes[0]
        for slot in (slot for state in READABLE for slot in self._bus.store.scan(inbox, state, after=start)):
            with suppress(Conflict, CorruptRecord, NotFound):
                task = self._bus.store.get(slot.id, at=slot)
                if task is not None and task.body.reply_to == message:
                    yield task.body

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
            bus.store.swap(slot, taken, line(self._bus, taken, Outcome.OFFERED, path))
        except UnknownKey as error:
            self._passed.add(slot.id, str(error), error.hint)
            return None
        except (Conflict, CorruptRecord):
            return None  # Another session of this agent was faster, or the store puts it aside.
        self._offered[task.id] = Task(task.body, taken, proof=task.proof)
        return self._offered[task.id]

    def _counted(self, made: list[Delivery]) -> list[Delivery]:
        """Say for each message how many newer ones of its sender wait or are shown with it."""
        if not made:
            return made
        senders, ids = {item.body.sender.agent for item in made}, list[tuple[str, str]]()
        with suppress(BusError):  # A count that cannot be made must not keep back what was offered.
            rest = self._unread()[:LOOKED]
            ids = [(body.sender.agent, body.id) for body in bodies(self._bus, rest) if body.sender.agent in senders]
        of: dict[str, list[str]] = {}
        for who, message in sorted([*ids, *((item.body.sender.agent, item.body.id) for item in made)]):
            of.setdefault(who, []).append(message)
        return [
            item._replace(newer=len(sent) - bisect_right(sent, item.body.id))
            for item in made
            for sent in (of[item.body.sender.agent],)
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
            InvalidRequest: a message was not sent to this agent; nothing was acked.
        """
        tasks = [self._bus.whole(name) for name in (self.offered() if ids is None else dict.fromkeys(ids))]
        others = [task for task in tasks if task.channel not in self.inboxes]
        ended = {task.id: _ended(task) for task in others if task.state is not State.READY}
        on_topics = by_topic((task.channel, task.id) for task in others)
        for topic, those in on_topics.items():
            self.topics.check(topic, those[0])
        done = [self._ack(task) for task in tasks if task.channel in self.inboxes]
        for topic, those in on_topics.items():
            new = self.topics.ack(topic, those)
            done += [_acked_on_topic(i, new, ended) for i in those]
        return done

    def _ack(self, task: Task) -> Acked:
        bus = self._bus
        for _ in range(TRIES):
            self._offered.pop(task.id, None)
            if task.state not in (State.READY, State.LEASED):
                return Acked(task.id, is_new=False, note=_ended(task))
            slot, now = task.slot, bus.source.now()
            if task.state is State.READY and lifecycle.is_expired(slot, now=now):
                return Acked(task.id, is_new=False, note="its ttl passed before it was shown")
            if task.state is State.READY:  # Its offer lapsed, and it was read all the same.
                slot = lifecycle.claim(slot, Lease(bus.identity.holder, bus.source.token(6), now + 60_000))
            try:
                if slot is not task.slot:
                    bus.store.swap(task.slot, slot, line(self._bus, slot, Outcome.OFFERED, BY_ACK))
                bus.store.swap(slot, lifecycle.ack(slot, now=now), line(self._bus, slot, Outcome.ACKED, ""))
            except Conflict:
                task = bus.whole(task.id)
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
                self._bus.store.swap(task.slot, back, line(self._bus, task.slot, Outcome.RELEASED, reason))
                count += 1
        return count + self.topics.give_back(ids)


def _delivery(task: Task) -> Delivery:
    return Delivery(task.body, task.slot.attempt, 0, task.lease.expires, task.verified)


def _ended(task: Task) -> str:
    """Say why a message cannot be acked any more."""
    if task.state is State.DONE:
        return "it was acked before"
    successor = next((line.successor for line in reversed(task.history) if line.successor), "")
    return f"it was superseded by {successor}" if successor else f"it is {task.state}"


def _acked_on_topic(message: str, new: set[str], ended: dict[str, str]) -> Acked:
    if message in ended:
        return Acked(message, is_new=False, note=ended[message])
    return Acked(message, message in new, "" if message in new else "it was acked before")
