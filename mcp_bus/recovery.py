"""The sweep: what a daemon would do, done by whoever happens to use the bus.

Due tasks become ready, lapsed leases come back, old tasks expire and are pruned, cut-off writes are
finished.  Everything in it is idempotent, may be done by many at once, and is safe to kill.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mcp_bus import find, lifecycle, names, outputs, wire
from mcp_bus.errors import BusError, Conflict, CorruptRecord, Gone, StoreUnavailable, Unreadable
from mcp_bus.model import ARCHIVED, PLANS, Attempt, Outcome, State
from mcp_bus.stores.away import HERE

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.model import Slot

# Between two sweeps of one process.
SWEEP_S = 1.0
# Between two thorough sweeps, whoever makes them: these read every name in the bus, and leave a
# fresh manifest, whose age tells others when the last one was.
THOROUGH_S = 30.0
# A session that fell silent may still come back within this time, for instance from a laptop's sleep.
GRACE = 600_000
MANIFEST_TASKS = 1000
MANIFEST_SCAN = 5000
Step = Callable[[], list[str]]


class Tender:
    """Sweeps now and then; made for one bus, called as often as one likes."""

    def __init__(self) -> None:
        """Sweep at the first call."""
        self._next = 0.0
        self._said = ""

    def __call__(self, bus: Bus) -> None:
        """Sweep if the last one is long enough ago.

        What stops a sweep must not stop who only wanted to claim; it is logged.

        Raises:
            StoreUnavailable: the bus is gone.
        """
        now = bus.source.monotonic()
        if now < self._next:
            return
        self._next = now + SWEEP_S
        age = bus.store.manifest_age(bus.source.now())
        try:
            # A manifest from the future says nothing about when the last sweep was.
            sweep(bus, thorough=not 0 <= age < THOROUGH_S * 1000)
        except BusError as error:
            self._log(error)

    def _log(self, error: BusError) -> None:
        """Say once what stands in the way."""
        if str(error) != self._said:
            import logging  # noqa: PLC0415  milliseconds, and nearly no process gets here

            self._said = str(error)
            logging.getLogger(__name__).warning("the sweep could not do everything: %s", error)


def sweep(bus: Bus, *, thorough: bool = True) -> list[str]:
    """Bring everything on the bus to where it should be by now; return a line for each thing done.

    What stops one step, such as bytes of others in a place nobody foresaw, stops no other: it is a line of its own.

    Args:
        thorough: also look for foreign files, tasks past their ttl, and tasks past retention.

    Raises:
        StoreUnavailable: the medium failed; what could be done was done.
    """
    done, failed = bus.store.together(_told, lambda: _sweep(bus, thorough=thorough))
    if failed:
        raise failed[0]
    return done


def _told(made: tuple[list[str], list[StoreUnavailable]]) -> str:
    """Return what a sweep did, as a heading and lines."""
    done, _ = made
    shared = [line for line in done if not line.startswith(HERE)]
    return "\n".join([f"sweep: {len(shared)} thing{'' if len(shared) == 1 else 's'} done", "", *shared[:100]])


def _sweep(bus: Bus, *, thorough: bool) -> tuple[list[str], list[StoreUnavailable]]:
    """Do all of it; return what was done, and the failures of the medium."""
    # First what was cut off: a lease whose result is on its way must not lapse.
    steps: list[Step] = [lambda: bus.store.mend(bus.source.now())] if thorough else []
    kinds = (_due, _lapsed, _expired, _pruned) if thorough else (_due, _lapsed)
    steps += [partial(step, bus, channel) for channel in bus.store.channels() for step in kinds]
    steps.append(partial(_unseen, bus))
    if thorough:
        steps += [partial(_forgotten, bus), partial(_undeliverable, bus), partial(_plans, bus)]
        steps.append(partial(outputs.fill, bus))
    done, failed = list[str](), list[StoreUnavailable]()
    for step in steps:
        try:
            done += step()
        except StoreUnavailable as error:
            failed.append(error)
        except (BusError, ValueError, ArithmeticError) as error:
            done.append(f"left as it is: {error}")
    if thorough:
        bus.store.write_manifest(manifest(bus))
    return done, failed


def _plans(bus: Bus) -> list[str]:
    if not bus.store.records.names(PLANS):
        return []
    from mcp_bus import conductor  # noqa: PLC0415  what plans need is not for who has none

    return conductor.sweep(bus)


def _forgotten(bus: Bus) -> list[str]:
    return [f"forgot the session {holder}" for holder in bus.roster.forget()]


def _undeliverable(bus: Bus) -> list[str]:
    """End messages that were for one session alone, once that session has ended or is long silent."""
    boxes = [name for name in bus.store.channels() if names.is_inbox(name) and "~" in name]
    if not boxes:
        return []
    now, done = bus.source.now(), list[str]()
    alive = {
        names.inbox(seen.presence.agent, seen.presence.session)
        for seen in bus.roster.all()
        if seen.is_live or (not seen.presence.ended and abs(now - seen.presence.beat) < GRACE)
    }
    for box in boxes:
        for slot in bus.store.scan(box, State.READY) if box not in alive else ():
            note = "the session it was for has ended"
            line = Attempt(slot.attempt, Outcome.UNDELIVERABLE, now, bus.identity.agent, note)
            if _swap(bus, slot, lifecycle.give_up(slot, now=now), line):
                done.append(f"{slot.id} cannot be delivered: {note}")
    return done


def _unseen(bus: Bus) -> list[str]:
    """Make unread again what was shown to sessions that have ended since: nobody there can ack it."""
    shown = [
        slot
        for box in bus.store.channels()
        if names.is_inbox(box)
        for slot in bus.store.scan(box, State.LEASED)
        if slot.lease is not None
    ]
    is_read = any(bus.store.records.names(f"cursors/{topic}") for topic in find.topics(bus.store))
    marked = bus.mail.topics.marked() if is_read else []
    if not shown and not marked:
        return []
    over = {seen.presence.holder for seen in bus.roster.all() if seen.is_over}
    note, done = "the session it was shown to has ended", list[str]()
    for slot in shown:
        if slot.lease is None or slot.lease.holder not in over:
            continue
        line = Attempt(slot.attempt, Outcome.RELEASED, bus.source.now(), bus.identity.agent, note, slot.lease.token)
        if _swap(bus, slot, slot._replace(state=State.READY, lease=None), line):
            done.append(f"{slot.id} is unread again: {note}")
    return done + [
        f"{topic}: {bus.mail.topics.unseen(topic, word, over)} are unread again: {note}"
        for topic, word, sessions in marked
        if sessions & over
    ]


def _due(bus: Bus, channel: str) -> list[str]:
    done: list[str] = []
    for slot in bus.store.scan(channel, State.SCHEDULED):
        now = bus.source.now()
        if slot.not_before > now:
            break  # They are sorted by when they are due.
        if _swap(bus, slot, lifecycle.due(slot, now=now)):
            done.append(f"{slot.id} is due")
    return done


def _lapsed(bus: Bus, channel: str) -> list[str]:
    done: list[str] = []
    for slot in bus.store.scan(channel, State.LEASED):
        now = bus.source.now()
        lease = slot.lease
        if lease is None or now < lease.expires + bus.store.leeway:
            continue
        try:
            task = bus.store.get(slot.id, at=slot)
        except (Conflict, CorruptRecord):
            continue
        if task is None:
            continue
        back = lifecycle.lapse(slot, task.body, bus.store.policy(channel), now=now)
        note = f"the lease of {lease.holder} ran out and was not renewed"
        if _swap(bus, slot, back, Attempt(slot.attempt, Outcome.LAPSED, now, bus.identity.agent, note, lease.token)):
            done.append(f"{slot.id} came back from {lease.holder}, now {back.state}")
    return done


def _expired(bus: Bus, channel: str) -> list[str]:
    done: list[str] = []
    for state in (State.READY, State.SCHEDULED):
        for slot in bus.store.scan(channel, state):
            now = bus.source.now()
            if not lifecycle.is_expired(slot, now=now):
                continue
            line = Attempt(
                slot.attempt, Outcome.EXPIRED, now, bus.identity.agent, "its ttl passed before anyone took it"
            )
            if _swap(bus, slot, lifecycle.expire(slot, now=now), line):
                done.append(f"{slot.id} expired")
    return done


def _pruned(bus: Bus, channel: str) -> list[str]:
    policy, done = bus.store.policy(channel), list[str]()
    if not policy.retention_days:
        return done
    old = [
        slot
        for state in ARCHIVED
        for slot in bus.store.scan(channel, state)
        if lifecycle.is_past_retention(slot, policy, now=bus.source.now())
    ]
    left = dict[str, None]()
    for slot in old:
        try:
            bus.store.swap(slot, None)
        except (Conflict, Gone):
            continue
        except Unreadable as error:  # A file of tombstones: those of other days need another.
            left[f"left what was to be pruned: {error}"] = None
            continue
        done.append(f"pruned {slot.id}")
    return done + list(left)


def _swap(bus: Bus, old: Slot, new: Slot, entry: Attempt | None = None) -> bool:
    try:
        bus.store.swap(old, new, entry)
    except Conflict:
        return False  # Its worker, or another sweep, was faster.
    return True


def manifest(bus: Bus) -> bytes:
    """Return the bus as one JSON document for people and scripts: counts, and the latest tasks.

    Derived: nothing ever reads it back.
    """
    views, shown = find.channels(bus.store), bus.store.outputs.ids()
    listed = [
        {"id": slot.id, "channel": slot.channel, "status": slot.state, "attempt": slot.attempt,
         "created": wire.stamp(int(slot.id[4:16], 16)), "ended_on": slot.day or None,
         "owner": slot.lease.holder if slot.lease else None,
         "owned_until": wire.stamp(slot.lease.expires) if slot.lease and slot.lease.expires else None,
         "output": f"channels/{slot.channel}/responses/{slot.id}.json" if slot.state is State.DONE else None,
         "markdown": outputs.path(slot.id) if slot.id in shown else None}
        for view in views for state in State for slot in bus.store.scan(view.name, state, limit=MANIFEST_SCAN)
    ]  # fmt: skip
    listed.sort(key=lambda item: str(item["id"]), reverse=True)
    return wire.dumps(
        {
            "written": wire.stamp(bus.source.now()),
            "channels": {view.name: view.counts for view in views},
            "tasks": listed[:MANIFEST_TASKS],
            "left_out": max(0, sum(sum(view.counts.values()) for view in views) - MANIFEST_TASKS),
        }
    )
