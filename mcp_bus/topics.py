"""The topics an agent reads: each message stays where it is, and every subscriber's cursor says what it has seen.

The subscriber is the agent, so that a session that starts anew goes on where the last one ended.  A session
that was there when a message came sees it even if another session of the agent acked it meanwhile: what is
said to all must not be missed by one because its twin was faster.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import access, addresses, cursors, filters, find, lifecycle, names
from mcp_bus.cursors import Cursor, Mark
from mcp_bus.errors import BusError, Conflict, CorruptRecord, InvalidRequest, NotFound, UnknownKey, Unreadable
from mcp_bus.model import Policy, State
from mcp_bus.operate import TRIES
from mcp_bus.passed import Passed
from mcp_bus.policies import EVERYONE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, Slot, Task
    from mcp_bus.stores.beside import Record

# Paths of acks that no reader made.
SENT, FILTERED = "sent", "filtered"
# A count for a nudge may use a listing for as long as this, and for this many times what it took to make.
FRESH_S = 0.02
COST_FACTOR = 20
# Bodies that are looked into for a filter or a count, at most, in one go.
LOOKED = 500


class Offer(NamedTuple):
    """A message of a topic as it was shown: how often, when it counts as unread again, and whose signature it has."""

    body: Body
    offers: int
    expires: int
    verified: str = ""


class Topics:
    """What one session reads of topics."""

    # A message that became visible later than this after its id was made is sent again (rule T2).
    LATE = cursors.SETTLE // 2

    def __init__(self, bus: Bus) -> None:
        """Read for the agent that `bus` speaks for, from when it was opened."""
        self._bus = bus
        self._since = bus.since
        self._word = names.inbox(bus.identity.agent)[1:]
        self._shown: dict[str, tuple[str, int]] = {}
        self._acked: set[str] = set()
        self._wanted: dict[str, bool] = {}
        self._listed: dict[str, tuple[float, dict[str, Slot]]] = {}
        self.passed = Passed(bus.source)

    # --- subscriptions ------------------------------------------------------------------------

    def all(self) -> list[str]:
        """Return the names of all topics."""
        return find.topics(self._bus.store)

    def subscribed(self) -> dict[str, Cursor]:
        """Return the cursors of all topics this agent reads, and may; `broadcast` is one unless unsubscribed."""
        store, agent = self._bus.store, self._bus.identity.agent
        found = ((topic, self._known(topic)) for topic in self.all() if access.may_read(store, topic, agent))
        return {topic: cursor for topic, cursor in found if cursor is not None and cursor.is_active}

    def _known(self, topic: str) -> Cursor | None:
        try:
            return self._cursor(topic)[1]
        except Unreadable as error:  # That keeps nobody from other topics.
            access.passed_over(f"the topic {topic!r}: {error}")
        return None

    def subscribe(self, topic: str, match: Mapping[str, str] | None = None) -> Cursor:
        """Read a topic from now on: all it retains, and what comes.

        Args:
            topic: made if it is new.
            match: only messages in which each of these fields has this value: `type`, `from`, `title`,
                `thread`, or a field of the JSON object that the message is.  Replaces an earlier one.

        Raises:
            InvalidRequest: it is no topic.
            NotAllowed: it does not let this agent read.
        """
        wanted = filters.checked(match or {})
        if names.check_channel(topic) not in self._bus.store.channels() or topic == names.HUMAN:
            addresses.check_new(topic, self._bus)
        self._bus.store.declare(topic, Policy("topic"), is_default=True)
        if self._bus.store.policy(topic).kind != "topic":
            msg = f"{topic!r} is a queue: each of its tasks goes to one worker"
            raise InvalidRequest(msg, hint="claim from it instead, or choose another name for the topic")
        access.check_read(self._bus.store, topic, self._bus.identity.agent)
        self._wanted.clear()
        return self._write(topic, lambda cursor: cursor._replace(is_active=True, match=wanted))

    def unsubscribe(self, topic: str) -> None:
        """Read a topic no longer; what was acked is remembered for the next time.

        Raises:
            NotFound: this agent does not read it.
        """
        if topic == names.BROADCAST:  # It is read before anyone sent to it.
            self._bus.store.declare(topic, EVERYONE, is_default=True)
        if topic not in self.subscribed():
            msg = f"{self._bus.identity.agent!r} is not subscribed to {topic!r}"
            raise NotFound(msg, hint=f"subscribed: {', '.join(self.subscribed()) or 'none'}")
        self._write(topic, lambda cursor: cursor._replace(is_active=False))
        # What was shown of it can no longer be acked, and is not waited for.
        self._shown = {message: shown for message, shown in self._shown.items() if shown[0] != topic}

    # --- cursors ------------------------------------------------------------------------------

    def _cursor(self, topic: str) -> tuple[int, Cursor | None]:
        """Return a cursor and its revision; one that cannot be read starts again from what is retained."""
        record = self._bus.store.records.read(f"cursors/{topic}", self._word)
        new = Cursor(self._bus.identity.agent)
        if record is None:
            return 0, new if topic == names.BROADCAST else None
        with suppress(CorruptRecord):
            return record.revision, cursors.load(record.data, now=self._bus.source.now())
        return record.revision, new

    def _write(self, topic: str, change: Callable[[Cursor], Cursor]) -> Cursor:
        for _ in range(TRIES):
            revision, known = self._cursor(topic)
            cursor = change(known or Cursor(self._bus.identity.agent))
            if cursor == known:
                return cursor
            if len(cursor.acked) > 2 * cursors.KEEP or len(cursor.offered) > 2 * cursors.KEEP:
                cursor = cursors.advance(cursor, sorted(self._retained(topic)), now=self._bus.source.now())
            data, kind = cursors.fields(cursor), f"cursors/{topic}"
            try:
                # Also when it matters little: a revision that a power cut takes may take the one before it along.
                self._bus.store.records.write(kind, self._word, data, after=revision, durable=True)
            except Conflict:
                continue
            return cursor
        msg = f"the cursor of {self._bus.identity.agent!r} on {topic!r} is being written by others all the time"
        raise Conflict(msg, hint="repeat the call")

    # --- reading ------------------------------------------------------------------------------

    def _retained(self, topic: str, *, is_count: bool = False) -> dict[str, Slot]:
        """List a topic's messages by id; for a count, a listing of a moment ago will do."""
        source = self._bus.source
        start = source.monotonic()
        until, known = self._listed.get(topic, (0.0, {}))
        if is_count and start < until:
            return known
        now = source.now()
        found = {
            slot.id: slot
            for slot in self._bus.store.scan(topic, State.READY)
            if not lifecycle.is_expired(slot, now=now)
        }
        end = source.monotonic()
        self._listed[topic] = (end + max(FRESH_S, COST_FACTOR * (end - start)), found)
        return found

    def _waiting(self, topic: str, cursor: Cursor, retained: Mapping[str, Slot]) -> list[str]:
        """Return the ids that this session should be shown, oldest first."""
        now, lease = self._bus.source.now(), int(self._bus.store.policy(topic).lease_s * 1000)
        unread = set(cursors.unread(cursor, retained))

        def is_due(message: str) -> bool:
            is_new = cursors.time_of(message) >= self._since
            if message not in unread:
                return is_new and message not in self._acked and message not in self._shown
            if message in self._shown:
                return self._shown[message][1] <= now
            mark = cursor.offered.get(message)
            return is_new or mark is None or mark.at + lease <= now

        fresh = {message for message in retained if cursors.time_of(message) >= self._since}
        return [message for message in sorted(unread | fresh) if message not in self.passed and is_due(message)]

    def waiting(self, *, is_count: bool = True) -> dict[str, Slot]:
        """Return what waits on all topics, by id; for a count, as far as a listing of a moment ago tells."""
        made: dict[str, Slot] = {}
        for topic, cursor in self.subscribed().items():
            retained = self._retained(topic, is_count=is_count)
            ids = self._waiting(topic, cursor, retained)
            if cursor.match:
                ids = [message for message in ids[:LOOKED] if self._is_wanted(cursor, retained[message])]
            made |= {message: retained[message] for message in ids}
        return made

    def _is_wanted(self, cursor: Cursor, slot: Slot) -> bool | None:
        """Tell whether a message was asked for; None where it cannot be read, which may change, or is not open here."""
        known = self._wanted.get(slot.id)
        if known is None:
            task = self._task(slot)
            if task is None or task.hidden:
                return None
            known = cursors.wants(cursor, filters.fields(task.body))
            if len(self._wanted) > 100 * LOOKED:
                self._wanted.clear()
            self._wanted[slot.id] = known
        return known

    def _task(self, slot: Slot) -> Task | None:
        try:
            return self._bus.store.get(slot.id, at=slot)
        except UnknownKey as error:
            self.passed.add(slot.id, str(error), error.hint)
        except (Conflict, CorruptRecord):
            pass
        return None

    def offer(self, limit: int, room: int, path: str, *, is_urgent: bool = False, only: str = "") -> list[Offer]:
        """Offer what is unread to this session, from all topics it reads, the urgent first in each, then the oldest.

        What the subscriber did not ask for is passed over for good.

        Args:
            is_urgent: only what has a priority above 0.
            only: of this topic alone.
        """
        made: list[Offer] = []
        for topic, cursor in self.subscribed().items():
            if only and topic != only:
                continue
            if len(made) >= limit or room <= 0:
                break
            shown, unwanted = self._gather(topic, cursor, (limit - len(made), room), is_urgent=is_urgent)
            made += shown
            room -= sum(len(item.body.content) for item in shown)
            if not shown and not unwanted:
                continue
            mark = Mark(self._bus.source.now(), self._bus.identity.holder, path)
            filtered = mark._replace(path=FILTERED)
            ids = [item.body.id for item in shown]
            self._write(
                topic,
                lambda now, ids=ids, mark=mark, unwanted=unwanted, filtered=filtered: cursors.offer(  # type: ignore[misc]  # defaults in a lambda
                    cursors.ack(now, unwanted, filtered), ids, mark
                ),
            )
            for item in shown:
                self._shown[item.body.id] = (topic, item.expires)
        return made

    def _gather(
        self, topic: str, cursor: Cursor, bounds: tuple[int, int], *, is_urgent: bool
    ) -> tuple[list[Offer], list[str]]:
        """Read what should be shown of a topic, and tell what was not asked for."""
        (limit, room), retained = bounds, self._retained(topic)
        expires = self._bus.source.now() + int(self._bus.store.policy(topic).lease_s * 1000)
        shown, unwanted = list[Offer](), list[str]()
        waiting = sorted(self._waiting(topic, cursor, retained), key=lambda message: -retained[message].priority)
        for message in waiting:
            if len(shown) >= limit or room <= 0 or (is_urgent and retained[message].priority <= 0):
                break
            is_wanted = self._is_wanted(cursor, retained[message]) if cursor.match else True
            unwanted += [message] if is_wanted is False else []
            if not is_wanted:
                continue
            task = self._task(retained[message])
            if task is not None:
                shown.append(Offer(task.body, 1 + (message in cursor.offered), expires, task.verified))
                room -= len(task.body.content)
        return shown, unwanted

    def wrote(self, topic: str, message: str) -> None:
        """Note that a message is this session's own: its agent need not be told, but a twin of the session is.

        It is on disk already, so that nothing that goes wrong here is an error: at worst its agent is shown it.
        """
        self._acked.add(message)
        with suppress(BusError):
            if topic in self.subscribed():
                mark = Mark(self._bus.source.now(), self._bus.identity.holder, SENT)
                self._write(topic, lambda cursor: cursors.ack(cursor, [message], mark))

    def unacked(self) -> list[Offer]:
        """Return what was shown to this agent, in whichever session, and not acked."""
        made = list[Offer]()
        for topic, cursor in self.subscribed().items():
            retained, lease = self._retained(topic), int(self._bus.store.policy(topic).lease_s * 1000)
            for message, mark in sorted(cursor.offered.items()):
                task = self._task(retained[message]) if message in retained and message not in cursor.acked else None
                if task is not None:
                    made.append(Offer(task.body, 1, mark.at + lease, task.verified))
        return made

    # --- acking -------------------------------------------------------------------------------

    def offered(self) -> list[str]:
        """Return the ids that this session was shown and has not acked."""
        return sorted(self._shown)

    def give_back(self, ids: Collection[str] | None = None) -> int:
        """Make what this session was shown and did not ack unread again; return how many messages that are."""
        back = {message: topic for message, (topic, _) in self._shown.items() if ids is None or message in ids}
        for topic, those in by_topic((topic, message) for message, topic in back.items()).items():
            self._write(
                topic,
                lambda cursor, those=those: cursors.take_back(cursor, those, self._bus.identity.holder),  # type: ignore[misc]  # a default in a lambda
            )
        for message in back:
            del self._shown[message]
        return len(back)

    def marked(self) -> list[tuple[str, str, frozenset[str]]]:
        """Return topics and the words of subscribers, with the sessions that were shown what is not acked."""
        kept = self._bus.store.records
        found = ((topic, *item) for topic in self.all() for item in kept.all(f"cursors/{topic}").items())
        marked = ((topic, word, self._sessions(record)) for topic, word, record in found)
        return [item for item in marked if item[2]]

    def _sessions(self, record: Record) -> frozenset[str]:
        with suppress(CorruptRecord):
            cursor = cursors.load(record.data, now=self._bus.source.now())
            return frozenset(mark.session for i, mark in cursor.offered.items() if cursors.is_unread(cursor, i))
        return frozenset()

    def unseen(self, topic: str, word: str, sessions: Collection[str]) -> int:
        """Make unread again what a subscriber's sessions were shown and did not ack; return how many messages."""
        kind, records = f"cursors/{topic}", self._bus.store.records
        record = records.read(kind, word)
        if record is None:
            return 0
        cursor = cursors.load(record.data, now=self._bus.source.now())
        back = {
            i: mark for i, mark in cursor.offered.items() if mark.session in sessions and cursors.is_unread(cursor, i)
        }
        if back:
            kept = {i: mark for i, mark in cursor.offered.items() if i not in back}
            records.write(
                kind, word, cursors.fields(cursor._replace(offered=kept)), after=record.revision, durable=True
            )
        return len(back)

    def check(self, topic: str, message: str) -> None:
        """Refuse to ack what this agent does not read.

        Raises:
            InvalidRequest: the topic is not one of its own.
        """
        if topic not in self.subscribed():
            msg = f"{message!r} is a message on {topic!r}, which {self._bus.identity.agent!r} does not read"
            raise InvalidRequest(msg, hint="ack only what you were shown")

    def ack(self, topic: str, ids: Sequence[str]) -> set[str]:
        """Say that messages of a topic were read; return those that were not acked before, by any session."""
        mark, new = Mark(self._bus.source.now(), self._bus.identity.holder), set[str]()

        def change(cursor: Cursor) -> Cursor:
            new.clear()
            new.update(cursors.unread(cursor, ids))
            return cursors.ack(cursor, ids, mark)

        self._write(topic, change)
        self._acked.update(ids)
        for message in ids:
            self._shown.pop(message, None)
        return new


def readers(bus: Bus, topic: str) -> list[Cursor]:
    """Return the cursors of everyone who reads a topic, or did so before, as far as they said so."""
    found, now = list[Cursor](), bus.source.now()
    for word, record in bus.store.records.all(f"cursors/{topic}").items():
        with suppress(CorruptRecord):
            cursor = cursors.load(record.data, now=now)
            if names.inbox(cursor.agent)[1:] == word:  # Nobody reads in another's name.
                found.append(cursor)
    return found


def by_topic(tasks: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group (topic, id) pairs."""
    made: dict[str, list[str]] = {}
    for topic, message in tasks:
        made.setdefault(topic, []).append(message)
    return made
