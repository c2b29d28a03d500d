"""The store in memory: the strict double that tests run everything against.

It keeps each rule of the protocol by the shortest means, and is stricter than a file system where
that finds mistakes: it checks every transition against the lifecycle's table.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from mcp_bus import lifecycle, names, policies, wire
from mcp_bus.clock import System
from mcp_bus.errors import Conflict, CorruptRecord, Gone, InvalidRequest, NotFound
from mcp_bus.model import WAITING, Attempt, Outcome, Policy, Result, State, Task
from mcp_bus.routing import rank
from mcp_bus.stores.away import Alone
from mcp_bus.stores.base import Guarded
from mcp_bus.stores.beside import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Slot

_MOVES = {
    (old, new) for event in lifecycle.TABLE.values() for old, targets in event.items() for new in targets
}  # fmt: skip


class Medium:
    """What several memory stores share, as several processes share a disk."""

    def __init__(self) -> None:
        """Start empty."""
        self.lock = Lock()
        self.bodies: dict[str, bytes] = {}
        self.slots: dict[str, Slot] = {}
        self.results: dict[str, bytes] = {}
        self.rejected: list[bytes] = []
        self.history: dict[str, list[Attempt]] = {}
        self.keys: dict[str, str] = {}
        self.policies: dict[str, Policy] = {}
        self.graves: dict[str, str] = {}
        self.moves = 0
        self.manifest: tuple[bytes, int] = (b"", 0)
        self.records: dict[tuple[str, str], Record] = {}
        self.texts: dict[tuple[str, str], str] = {}
        self.outputs: dict[str, bytes] = {}


class MemoryRecords:
    """Documents that live as long as their medium."""

    def __init__(self, medium: Medium, source: Source) -> None:
        """Keep documents in `medium`."""
        self._medium = medium
        self._source = source

    def names(self, kind: str) -> list[str]:
        """See `Records.names`."""
        with self._medium.lock:
            return sorted(name for found, name in self._medium.records if found == kind)

    def all(self, kind: str) -> dict[str, Record]:
        """See `Records.all`."""
        with self._medium.lock:
            return {name: record for (found, name), record in sorted(self._medium.records.items()) if found == kind}

    def read(self, kind: str, name: str) -> Record | None:
        """See `Records.read`."""
        return self._medium.records.get((kind, name))

    def write(self, kind: str, name: str, data: Mapping[str, Any], *, after: int, durable: bool) -> int:
        """See `Records.write`."""
        del durable
        kept = wire.loads(wire.dumps(dict(data)))
        with self._medium.lock:
            now = self._medium.records.get((kind, name))
            if (now.revision if now else 0) != after:
                msg = f"the record {name!r} was written by someone else meanwhile"
                raise Conflict(msg, hint="read it again")
            self._medium.records[kind, name] = Record(after + 1, kept, self._source.now())
        return after + 1

    def touch(self, kind: str, name: str) -> bool:
        """See `Records.touch`."""
        with self._medium.lock:
            known = self._medium.records.get((kind, name))
            if known is not None:
                self._medium.records[kind, name] = known._replace(touched=self._source.now())
        return known is not None

    def remove(self, kind: str, name: str) -> None:
        """See `Records.remove`."""
        with self._medium.lock:
            self._medium.records.pop((kind, name), None)

    def write_text(self, kind: str, name: str, text: str) -> None:
        """See `Records.write_text`."""
        self._medium.texts[kind, name] = text

    def text(self, kind: str, name: str) -> str | None:
        """See `Records.text`."""
        return self._medium.texts.get((kind, name))


class MemoryOutputs:
    """Results as text that live as long as their medium."""

    def __init__(self, medium: Medium) -> None:
        """Keep them in `medium`."""
        self._kept = medium.outputs

    def ids(self) -> set[str]:
        """See `Outputs.ids`."""
        return set(self._kept)

    def write(self, task_id: str, data: bytes) -> None:
        """See `Outputs.write`."""
        self._kept[task_id] = data

    def remove(self, task_id: str) -> None:
        """See `Outputs.remove`."""
        self._kept.pop(task_id, None)


class MemoryStore(Alone):
    """A store that lives as long as its medium."""

    durable = False
    guard = None

    def __init__(self, medium: Medium | None = None, *, source: Source | None = None) -> None:
        """Open a medium, or a new one."""
        self.medium = medium or Medium()
        self.records = MemoryRecords(self.medium, source or System())
        self.outputs = MemoryOutputs(self.medium)

    def add(self, body: Body) -> Body:
        """See `Store.add`."""
        if body.encrypted is not None:
            msg = "this bus is in memory, where nothing is encrypted"
            raise InvalidRequest(msg, hint="use a bus of files")
        data, medium = wire.dump_body(body), self.medium
        with medium.lock:
            if body.channel not in medium.policies:
                msg = f"there is no channel {body.channel!r}"
                raise NotFound(msg, hint="the first post makes a queue of that name, `mcp-bus subscribe` a topic")
            kept = medium.keys.get(body.key, body.id) if body.key else body.id
            if kept in medium.bodies:
                return wire.load_body(medium.bodies[kept])
            if body.key:
                medium.keys[body.key] = body.id
            medium.bodies[body.id] = data
            medium.slots[body.id] = lifecycle.first(body)
            medium.moves += 1
        return body

    def has_key(self, key: str) -> bool:
        """See `Store.has_key`."""
        return key in self.medium.keys

    def get(self, task_id: str, at: Slot | None = None, *, near: Slot | None = None) -> Task | None:
        """See `Store.get`."""
        del near  # Nothing is searched for here.
        medium = self.medium
        with medium.lock:
            if at is not None:
                if medium.slots.get(at.id) != at:
                    msg = f"{at.id!r} is not {at.state} any more"
                    raise Conflict(msg)
                body = wire.load_body(medium.bodies[at.id])
                is_let = policies.lets(medium.policies[at.channel].post_by, body.sender.agent)
                if at.state in WAITING and not is_let:
                    what = f"{body.sender.agent!r} may not post on {at.channel!r}"
                    raise CorruptRecord(what)
                return Task(body, at)
            if task_id in medium.graves:
                msg = f"{task_id!r} has expired from the bus: it ended {medium.graves[task_id]} and was pruned"
                raise Gone(msg, hint="its result is no longer kept")
            if task_id not in medium.bodies:
                return None
            found = medium.results.get(task_id)
            result = wire.load_result(found) if found else None
            history = tuple(medium.history.get(task_id, ()))
            return Task(wire.load_body(medium.bodies[task_id]), medium.slots[task_id], result, history)

    def scan(self, channel: str, state: State, *, after: str = "", limit: int = 0) -> Iterator[Slot]:
        """See `Store.scan`."""
        with self.medium.lock:
            found = [s for s in self.medium.slots.values() if s.channel == channel and s.state is state]
        if state is State.SCHEDULED:
            found.sort(key=lambda slot: (slot.not_before, slot.id))
        else:
            found.sort(key=rank if state is State.READY else lambda slot: (0, slot.id))
        kept = [slot for slot in found if slot.id > after]
        yield from kept[:limit] if limit else kept

    def swap(self, old: Slot, new: Slot | None, entry: Attempt | Result | None = None) -> None:
        """See `Store.swap`."""
        medium = self.medium
        with medium.lock:
            if medium.slots.get(old.id) != old:
                if isinstance(entry, Result):
                    medium.rejected.append(wire.dump_result(entry))
                msg = f"{old.id!r} is not {old.state} any more, or not under the same lease"
                raise Conflict(msg)
            medium.moves += 1
            if new is None:
                self._forget(old)
                return
            assert (old.state, new.state) in _MOVES, f"{old.state} -> {new.state} is in no row of the table"
            is_end = isinstance(entry, Result) or (entry is not None and entry.outcome is Outcome.ACKED)
            assert is_end == (new.state is State.DONE), "done needs a result or an ack, and nothing else has one"
            assert names.parse(new.channel, *names.place(new)) == new, "a slot has a name that says all of it"
            medium.slots[old.id] = new
            if old.state is State.DONE:  # Given up.
                medium.results.pop(old.id, None)
            if isinstance(entry, Attempt):
                lines = medium.history.setdefault(old.id, [])
                if entry.outcome is Outcome.PROGRESS:
                    lines[:] = [
                        line for line in lines if (line.attempt, line.outcome) != (entry.attempt, entry.outcome)
                    ]
                lines.append(entry)
            if isinstance(entry, Result):
                medium.results[old.id] = wire.dump_result(entry)

    def _forget(self, old: Slot) -> None:
        medium = self.medium
        medium.graves[old.id] = f"{old.state} on {old.day}"
        key = wire.load_body(medium.bodies.pop(old.id)).key
        medium.keys.pop(key, None)
        for kept in (medium.slots, medium.results, medium.history, medium.outputs):
            kept.pop(old.id, None)

    def changes(self, channels: Sequence[str]) -> object:
        """See `Store.changes`."""
        del channels
        return self.medium.moves

    def paths(self, channels: Sequence[str]) -> list[Path]:
        """See `Store.paths`."""
        del channels
        return []

    def channels(self) -> list[str]:
        """See `Store.channels`."""
        return sorted(self.medium.policies)

    def policy(self, channel: str) -> Policy:
        """See `Store.policy`."""
        names.check_place(channel)
        if channel not in self.medium.policies:
            msg = f"there is no channel {channel!r}"
            raise NotFound(msg, hint="the first post makes a queue of that name, `mcp-bus subscribe` a topic")
        return self.medium.policies[channel]

    def guarded(self, channel: str) -> Guarded:
        """See `Store.guarded`: nothing is signed or encrypted here."""
        policy = self.medium.policies.get(channel, Policy())
        return Guarded(policy.signed, policy.encrypt_to)

    def declare(self, channel: str, policy: Policy | None = None, *, is_default: bool = False) -> None:
        """See `Store.declare`."""
        names.check_place(channel)
        if policy is not None and policy.signed:
            msg = "a bus in memory keeps no signatures"
            raise InvalidRequest(msg, hint="open one on a disk")
        with self.medium.lock:
            if (policy is not None and not is_default) or channel not in self.medium.policies:
                self.medium.policies[channel] = policy or Policy()

    def count(self, channel: str) -> dict[State, int]:
        """See `Store.count`."""
        with self.medium.lock:
            slots = [slot for slot in self.medium.slots.values() if slot.channel == channel]
        return {state: sum(slot.state is state for slot in slots) for state in State}

    def strangers(self, channel: str) -> list[str]:
        """See `Store.strangers`: nobody else can put anything here."""
        del channel
        return []

    def ids(self) -> list[str]:
        """See `Store.ids`."""
        return list(self.medium.bodies)

    def mend(self, now: int) -> list[str]:
        """See `Store.mend`: a lock leaves nothing half done."""
        del now
        return []

    def write_manifest(self, data: bytes) -> None:
        """See `Store.write_manifest`."""
        self.medium.manifest = (data, wire.unstamp(wire.loads(data).get("written")))

    def manifest_age(self, now: int) -> int:
        """See `Store.manifest_age`."""
        return now - self.medium.manifest[1]

    def close(self) -> None:
        """See `Store.close`."""
