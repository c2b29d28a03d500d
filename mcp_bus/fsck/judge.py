"""What is wrong with each task on a bus, by all the names that it has.

A task is right when one inode has its identity, one place in the channel that the body says, and its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.fsck.kinds import Anomaly
from mcp_bus.model import State
from mcp_bus.names import REASON, TASK_ID, is_inbox, parse_staged
from mcp_bus.stores.foreign import QUARANTINE, SETTLE_OTHER, why_refused
from mcp_bus.stores.mend import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.fsck.signed import Signatures
    from mcp_bus.fsck.survey import About, Read, Spot, Survey, Surveyor

# Of two places of one task the one that is farther on is kept; a state that comes later here is.
_ORDER = (
    State.READY, State.SCHEDULED, State.LEASED, State.DEAD, State.EXPIRED, State.CANCELLED, State.DONE
)  # fmt: skip


class Judge:
    """Judges the tasks of one survey.

    Attributes:
        where: where each task is, as far as that is certain, once the anomalies were asked for.
    """

    def __init__(self, surveyor: Surveyor, made: Survey, seals: Signatures) -> None:
        """See the class."""
        self._surveyor, self._seals = surveyor, seals
        self._made = made
        self._now = surveyor.now()
        self.where: dict[str, Spot] = {}
        self._used: set[str] = set()

    def anomalies(self) -> Iterator[Anomaly]:
        """Return all that is wrong with tasks, keys, results and history."""
        made = self._made
        for task_id in made.identities.keys() | made.spots.keys():
            yield from self._task(task_id)
        yield from self._keys()
        yield from self._results()
        yield from self._under_way()
        yield from self._told()

    # --- one task -----------------------------------------------------------------------------

    def _task(self, task_id: str) -> Iterator[Anomaly]:
        own, spots = self._made.identities.get(task_id), self._made.spots.get(task_id, [])
        body: Read | None = None
        if own is not None:
            body = self._surveyor.body("tasks", f"{task_id}.json", own)
            if body is None:
                return  # It was pruned just now, or may not be read, which was said.
            if body.id != task_id:
                kind, detail = ("bad-body", body.why) if body.why else ("wrong-id", f"it is {body.id}")
                yield Anomaly(kind, f"tasks/{task_id}.json", task_id, detail)
                own = body = None
        fit: list[Spot] = []
        strays: list[Spot] = []
        for spot in spots:
            found = self._surveyor.body(spot.folder, spot.name, spot.about)
            if found is None:
                return  # It moved.
            if found.id == task_id and found.channel == spot.slot.channel:
                fit.append(spot)
            elif found.id == task_id:
                strays.append(spot)
            elif (own is None or spot.about.inode != own.inode) and self._made.is_young(spot.path, spot.about):
                return  # It may still be written.
            else:
                kind, detail = ("bad-body", found.why) if found.why else ("wrong-id", f"it is {found.id}")
                yield Anomaly(kind, spot.path, task_id, detail)
        yield from self._placed(task_id, own, body, fit)
        yield from self._strayed(task_id, own, body, (fit, strays))

    def _strayed(
        self, task_id: str, own: About | None, body: Read | None, spots: tuple[list[Spot], list[Spot]]
    ) -> Iterator[Anomaly]:
        """Judge what lies in a channel that it is not addressed to, and a task that is nowhere else."""
        fit, strays = spots
        best = max(strays, key=_farther) if strays and not fit and task_id not in self._made.pruning else None
        for spot in strays:
            to = ""
            if spot is best and (own is None or own.inode == spot.about.inode):
                found = self._surveyor.body(spot.folder, spot.name, spot.about)
                to = f"channels/{found.channel}/{spot.folder.split('/', 2)[2]}/{spot.name}" if found else ""
            yield Anomaly("wrong-channel", spot.path, task_id, other=to)
        if own is not None and body is not None and not fit and not any(s.about.inode == own.inode for s in strays):
            yield from self._nowhere(task_id, own, body)

    def _placed(self, task_id: str, own: About | None, body: Read | None, fit: list[Spot]) -> Iterator[Anomaly]:
        """Judge the places of a task that are in its channel."""
        if not fit:
            return
        same = [spot for spot in fit if own is not None and spot.about.inode == own.inode]
        best = max(same or fit, key=_farther)
        self.where[task_id] = best
        for spot in fit:
            if spot is not best:
                kind = "two-places" if spot in same or not same else "second-body"
                yield Anomaly(kind, spot.path, task_id, other=best.path)
        if own is None or body is None:
            if task_id not in self._made.pruning:
                is_new = best.slot.state is State.READY and best.about.links == 1 + self._key_links(best)
                yield Anomaly("new-message" if is_new else "lost-identity", best.path, task_id)
        elif not same:
            found = self._surveyor.body(best.folder, best.name, best.about)
            if found is not None:
                kind = "split" if found.mark == body.mark else "other-body"
                yield Anomaly(kind, best.path, task_id, other=f"tasks/{task_id}.json")
        else:
            yield from self._named(task_id, own, body, [spot.path for spot in same])
        lease = best.slot.lease
        if best.slot.state is State.LEASED and lease is not None and lease.token and lease.expires <= self._now:
            yield Anomaly("lease-over", best.path, task_id, f"held by {lease.holder}")

    def _key_links(self, spot: Spot) -> int:
        """Count the key's name of a place: a sweep takes in what has no other, and puts aside what has."""
        found = self._surveyor.body(spot.folder, spot.name, spot.about)
        key = self._made.keys.get(found.key) if found is not None else None
        return int(key is not None and key.inode == spot.about.inode)

    def _nowhere(self, task_id: str, own: About, body: Read) -> Iterator[Anomaly]:
        """Judge a task that has an identity and no place."""
        made, path, kept = self._made, f"tasks/{task_id}.json", ""
        if task_id in made.pruning or own.inode in made.drafts:
            return  # Told of with these, if they do not go on.
        if task_id not in made.buried and (refused := self._refused(own, body)):
            kept, why = refused
            yield Anomaly("put-aside", path, task_id, why, kept)
        elif any(channel == body.channel for channel, _ in made.responses.get(task_id, ())) and (
            (ends := self._seals.ends(task_id, body.channel)).is_so is not False
        ):
            kind = "done-without-name" if ends.is_so else "unknown-result"
            yield Anomaly(kind, path, task_id, ends.why)
        elif task_id in made.buried:
            yield Anomaly("tombstoned", path, task_id)
            self._used.add(body.key)
            return
        else:
            yield Anomaly("orphan", path, task_id, f"names: {own.links}")
        yield from self._named(task_id, own, body, [kept] if kept else [])

    def _refused(self, own: About, body: Read) -> tuple[str, str] | None:
        """Return where what was refused when it was handed out is, when that was and why; None if it was not."""
        for path in self._made.aside.get(own.inode, ()):
            folder, _, name = path.partition("/")
            why = why_refused(self._surveyor.tree, name, (body.id, body.channel)) if folder == QUARANTINE else ""
            if why:
                return path, why
        return None

    def _named(self, task_id: str, own: About, body: Read, places: list[str]) -> Iterator[Anomaly]:
        """Judge the names that a task has besides its places."""
        made, path = self._made, f"tasks/{task_id}.json"
        aside = [name for name in made.aside.get(own.inode, []) if name not in places]
        drafts = made.drafts.get(own.inode, [])
        strange = made.strange.get(own.inode, [])
        for name in aside:
            yield Anomaly("shared-aside", name, task_id)
        for name in strange:
            yield Anomaly("misnamed", name, task_id)
        known = 1 + len(places) + len(aside) + len(strange) + len(drafts) + (task_id in made.pruning)
        if body.key:
            self._used.add(body.key)
            key = made.keys.get(body.key)
            if key is None:
                if task_id not in made.pruning:
                    yield Anomaly("key-missing", path, task_id, other=f"keys/{body.key}.json")
            elif key.inode != own.inode:
                yield from self._other_key(task_id, body, key)
            else:
                known += 1
        if own.links > known:
            yield Anomaly("extra-link", path, task_id, f"{own.links} names, of which the bus gave it {known}")

    def _other_key(self, task_id: str, body: Read, key: About) -> Iterator[Anomaly]:
        """Judge a key that is a file of its own."""
        name = f"{body.key}.json"
        found = self._surveyor.body("keys", name, key)
        if found is None:
            return
        if found.key == body.key and found.id != task_id and found.id in self._made.identities:
            yield Anomaly("key-taken", f"tasks/{task_id}.json", task_id, other=f"keys/{name}")
            return
        yield Anomaly(
            "split" if found.mark == body.mark else "bad-key",
            f"keys/{name}",
            task_id,
            found.why,
            f"tasks/{task_id}.json",
        )

    # --- keys, results, leftovers -------------------------------------------------------------

    def _keys(self) -> Iterator[Anomaly]:
        made = self._made
        for digest, about in made.keys.items():
            if digest in self._used:
                continue
            path, found = f"keys/{digest}.json", self._surveyor.body("keys", f"{digest}.json", about)
            if found is None:
                continue
            if found.why or found.key != digest:
                yield Anomaly("bad-key", path, found.id, found.why or "its message has another key, or none")
            elif found.id in self.where or found.id in made.pruning or about.inode in made.drafts:
                continue
            elif found.id in made.buried:
                yield Anomaly("tombstoned", path, found.id)
            else:
                yield Anomaly("key-alone", path, found.id)

    def _results(self) -> Iterator[Anomaly]:
        made, shown = self._made, set[tuple[str, str]]()
        for task_id, found in made.responses.items():
            for channel, about in found:
                shown.add((channel, task_id))
                yield from self._result(task_id, channel, about)
        for task_id, spot in self.where.items():
            lease, channel = spot.slot.lease, spot.slot.channel
            if spot.slot.state is not State.DONE or lease is None or (channel, task_id) in shown:
                continue  # Without a lease in its name another program ended it, and keeps its own account.
            if not is_inbox(channel) and task_id not in made.fetched and not self._is_coming(spot):
                yield Anomaly("done-without-result", spot.path, task_id)

    def _result(self, task_id: str, channel: str, about: About) -> Iterator[Anomaly]:
        made, folder = self._made, f"channels/{channel}/responses"
        path, found = f"{folder}/{task_id}.json", self._surveyor.result(folder, f"{task_id}.json", about)
        spot, own = self.where.get(task_id), made.identities.get(task_id)
        if found is None or task_id in made.pruning:
            return
        if found != task_id:
            if not made.is_young(path, about):
                yield Anomaly("bad-result", path, task_id)
        elif spot is not None:
            if spot.slot.channel != channel:
                yield self._astray(path, about, spot)
            elif spot.slot.state is not State.DONE:
                yield self._early(path, spot)
        elif task_id not in made.spots:
            body = self._surveyor.body("tasks", f"{task_id}.json", own) if own is not None else None
            if own is None or (body is not None and body.channel not in ("", channel)):
                yield Anomaly("result-without-task", path, task_id)
            elif body is not None and not self._refused(own, body) and (forged := self._forged(path, task_id, channel)):
                yield forged

    def _forged(self, path: str, task_id: str, channel: str) -> Anomaly | None:
        ends = self._seals.ends(task_id, channel)
        return Anomaly("forged-result", path, task_id, ends.why) if ends.is_so is False else None

    def _early(self, path: str, spot: Spot) -> Anomaly:
        """Judge a result of a task that is not done by its name: on a signed channel by its signature (rule SI7)."""
        task_id, ends = spot.slot.id, self._seals.ends(spot.slot.id, spot.slot.channel)
        if ends.is_so is False:
            return Anomaly("forged-result", path, task_id, ends.why)
        if ends.is_so is None:
            return Anomaly("unknown-result", path, task_id, ends.why)
        return Anomaly("result-not-done", spot.path, task_id, f"it is {spot.slot.state}", path)

    def _astray(self, path: str, about: About, spot: Spot) -> Anomaly:
        """Judge a result that is in another channel than its task: the task's own, if it is done and has no other."""
        task_id, home = spot.slot.id, spot.slot.channel
        # One that is in both was being moved, by a repair that was cut off.
        has_other = any(channel == home and own.inode != about.inode for channel, own in self._made.responses[task_id])
        if spot.slot.state is not State.DONE or has_other or self._is_coming(spot):
            return Anomaly("result-without-task", path, task_id, f"it is in {home}")
        return Anomaly("result-astray", path, task_id, other=f"channels/{home}/responses/{task_id}.json")

    def _is_coming(self, spot: Spot) -> bool:
        """Tell whether the result of a task that is done is staged, and will be published."""
        lease = spot.slot.lease
        under = f".{lease.holder}.{lease.token}.json" if lease is not None else "/"
        return any(name.startswith(spot.slot.id) and name.endswith(under) for name, _ in self._made.staged)

    def _under_way(self) -> Iterator[Anomaly]:
        """Judge what was begun, and is not over."""
        made = self._made
        for name, about in made.staged:
            if not made.is_young(f"staged/{name}", about, PATIENCE):
                slot = parse_staged(name, "")
                yield Anomaly("staged", f"staged/{name}", slot.id if slot else "")
        for name, about in (item for items in made.drafts.values() for item in items):
            found = self._surveyor.body("tmp", name, about) if about.is_file and about.links > 1 else None
            if found is not None and not found.why:
                if not made.is_young(f"tmp/{name}", about):
                    yield Anomaly("post-cut-off", f"tmp/{name}", found.id)
            elif about.age >= SETTLE_OTHER:
                yield Anomaly("draft" if about.is_file else "stranger", f"tmp/{name}")
        for task_id, spot in made.pruning.items():
            if not made.is_young(spot.path, spot.about):
                yield Anomaly("pruning", spot.path, task_id)

    def _told(self) -> Iterator[Anomaly]:
        """Judge what was written down of tasks for people."""
        made = self._made
        dead = {(s.slot.channel, task_id): s for task_id, s in self.where.items() if s.slot.state is State.DEAD}
        for key in dead.keys() - made.reasons:
            yield Anomaly("dead-without-reason", dead[key].path, key[1])
        for channel, task_id in made.reasons - dead.keys():
            yield Anomaly("stale-reason", f"channels/{channel}/dead/{task_id}{REASON}", task_id)
        for channel, task_id in made.histories:
            path = f"channels/{channel}/attempts/{task_id}"
            if not TASK_ID.match(task_id):
                yield Anomaly("stranger", path)
            elif not (task_id in made.identities or task_id in made.spots or task_id in made.pruning):
                yield Anomaly("history-without-task", path, task_id)
            elif (spot := self.where.get(task_id)) is not None and spot.slot.channel != channel:
                yield Anomaly("history-astray", path, task_id, other=f"channels/{spot.slot.channel}/attempts/{task_id}")


def _farther(spot: Spot) -> tuple[int, int, int, int, str]:
    """Tell how far on a place is: a result first, then what retries and attempts count, then the state."""
    slot = spot.slot
    return (slot.state is State.DONE, slot.budget, slot.attempt, _ORDER.index(slot.state), spot.path)
