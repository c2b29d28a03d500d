"""The sweep: what a daemon would do, done by whoever happens to use the bus.

Due tasks become ready, lapsed leases come back, old tasks expire and are pruned, cut-off writes are
finished.  Everything in it is idempotent, may be done by many at once, and is safe to kill.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import find, lifecycle, names, wire
from mcp_bus.errors import BusError, Conflict, CorruptRecord, Gone, NotFound
from mcp_bus.model import ARCHIVED, Attempt, Outcome, State

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


class Tender:
    """Sweeps now and then; made for one bus, called as often as one likes."""

    def __init__(self) -> None:
        """Sweep at the first call."""
        self._next = 0.0

    def __call__(self, bus: Bus) -> None:
        """Sweep if the last one is long enough ago.

        What stops a sweep, such as bytes of others in a place nobody foresaw, must not stop who only
        wanted to claim; `mcp-bus sweep` says what it was.

        Raises:
            StoreUnavailable: the bus is gone.
        """
        now = bus.source.monotonic()
        if now < self._next:
            return
        self._next = now + SWEEP_S
        age = bus.store.manifest_age(bus.source.now())
        with suppress(BusError, ValueError):
            # A manifest from the future says nothing about when the last sweep was.
            sweep(bus, thorough=not 0 <= age < THOROUGH_S * 1000)


def sweep(bus: Bus, *, thorough: bool = True) -> list[str]:
    """Bring everything on the bus to where it should be by now; return a line for each thing done.

    Args:
        thorough: also look for foreign files, tasks past their ttl, and tasks past retention.
    """
    done = bus.store.mend(bus.source.now()) if thorough else []
    steps = (_due, _lapsed, _expired, _pruned) if thorough else (_due, _lapsed)
    for channel in bus.store.channels():
        for step in steps:
            try:
                done += step(bus, channel)
            except (CorruptRecord, NotFound) as error:
                # A policy nobody can read, a channel removed meanwhile: the others go on.
                done.append(f"left channel {channel!r} as it is: {error}")
    if thorough:
        done += [f"forgot the session {holder}" for holder in bus.mail.roster.forget()]
        done += _undeliverable(bus)
        bus.store.write_manifest(manifest(bus))
    return done


def _undeliverable(bus: Bus) -> list[str]:
    """End messages that were for one session alone, once that session has ended or is long silent."""
    boxes = [name for name in bus.store.channels() if names.is_inbox(name) and "~" in name]
    if not boxes:
        return []
    now, done = bus.source.now(), list[str]()
    alive = {
        names.inbox(seen.presence.agent, seen.presence.session)
        for seen in bus.mail.roster.all()
        if seen.is_live or (not seen.presence.ended and now - seen.presence.beat < GRACE)
    }
    for box in boxes:
        for slot in bus.store.scan(box, State.READY) if box not in alive else ():
            note = "the session it was for has ended"
            line = Attempt(slot.attempt, Outcome.UNDELIVERABLE, now, bus.identity.agent, note)
            if _swap(bus, slot, lifecycle.give_up(slot, now=now), line):
                done.append(f"{slot.id} cannot be delivered: {note}")
    return done


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
        if lease is None or now < lease.expires:
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
    for slot in old:
        with suppress(Conflict, Gone):
            bus.store.swap(slot, None)
            done.append(f"pruned {slot.id}")
    return done


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
    views = find.channels(bus.store)
    listed = [
        {"id": slot.id, "channel": slot.channel, "status": slot.state, "attempt": slot.attempt,
         "owner": slot.lease.holder if slot.lease else None,
         "output": f"channels/{slot.channel}/responses/{slot.id}.json" if slot.state is State.DONE else None}
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
