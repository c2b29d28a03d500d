"""Finding and reading what a file store keeps: bodies, places, results, history."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from mcp_bus import encrypted, lifecycle, names, wire
from mcp_bus.errors import Conflict, CorruptRecord, Gone, UnknownKey, Unverified
from mcp_bus.model import WAITING, Lease, Proof, Result, Slot, State, Task
from mcp_bus.stores import foreign, graves, mend, publish, story

if TYPE_CHECKING:
    import os

    from mcp_bus.model import Body
    from mcp_bus.stores.covers import Covers
    from mcp_bus.stores.fsops import Found
    from mcp_bus.stores.rules import Rules
    from mcp_bus.stores.seals import Seals
    from mcp_bus.stores.tree import Tree

# A claim by a program without leases (abq) may be taken back after this long.
FOREIGN_LEASE = 3_600_000
# Looks for a task that moves while it is looked for.
LOOKS = 4


class Reader:
    """Reads one bus directory."""

    def __init__(self, tree: Tree, covers: Covers, seals: Seals, rules: Rules) -> None:
        """Read through `tree` what `covers` opens, and `seals` and `rules` say is to be believed."""
        self._rules = rules
        self._tree = tree
        self._source = covers.source
        self._covers = covers
        self._seals = seals

    def task(self, task_id: str, near: Slot | None) -> Task | None:
        """Return a task with result and history; see `Store.get`."""
        found = self._identity(task_id)
        if found is None:
            return None
        body, data = found
        slot, result, proof = self.locate(body, near), None, Proof()
        try:
            by = self._seals.body(body, data)
            body, inner = self._covers.open(body)
            proof = proof._replace(body=by or inner)
        except CorruptRecord as error:  # Encrypted, it is not shown at all; who looks at it must see what is wrong.
            proof, body = Proof(doubt=str(error), broken=str(error), hint=_lifted(error)), self.opened(body)
        if slot.state is State.DONE:
            try:
                result, by = self._result(slot, body)
                proof = proof._replace(result=by)
            except Unverified as error:
                doubt = f"{proof.doubt}; its result: {error}" if proof.doubt else f"its result: {error}"
                proof = proof._replace(doubt=doubt, hint=_lifted(error))
        slot = _done(slot, body, result) if result is not None else slot
        hidden = body.encrypted.why if body.encrypted is not None else ""
        return Task(body, slot, result, story.lines(self._tree, slot), proof if any(proof) else None, hidden)

    def opened(self, body: Body) -> Body:
        """Return a body as this agent may see it, with what is wrong with it in its place if something is."""
        try:
            return self._covers.open(body).body
        except CorruptRecord as error:
            return encrypted.unread(body, str(error))

    def _identity(self, task_id: str) -> tuple[Body, bytes] | None:
        """Return the body kept under an id, and its bytes, or None; see `Store.get` for the errors."""
        if not names.TASK_ID.match(task_id):
            return None
        try:
            found = self._tree.fs.read(task_id + ".json", self._tree.fd("tasks"), wire.MAX_FILE)
        except FileNotFoundError:
            ended = graves.tombstone(self._tree, task_id)
            if ended is None:
                return None
            raise _gone(task_id, ended) from None
        body = wire.load_body(found.data)
        if body.id != task_id:
            what = f"the file of {task_id!r} holds {body.id!r}"
            raise CorruptRecord(what)
        return body, found.data

    def read_at(self, slot: Slot) -> Task:
        """Read and check a body through its state name; adopt one that another program wrote."""
        place = names.place(slot)
        try:
            found = self._tree.fs.read(
                place.name, self._tree.fd(f"channels/{slot.channel}/{place.folder}"), wire.MAX_FILE
            )
        except FileNotFoundError:
            msg = f"{slot.id!r} is not {slot.state} any more"
            raise Conflict(msg) from None
        body = wire.load_body(found.data)
        if body.id != slot.id:
            what = f"{place.name!r} holds {body.id!r}"
            raise CorruptRecord(what)
        if body.channel != slot.channel:
            what = f"{slot.id!r} is addressed to {body.channel!r}, not to {slot.channel!r}"
            raise CorruptRecord(what)
        by = self._seals.body(body, found.data, slot)
        if slot.state in WAITING:
            self._rules.admit(body)
        opened, inner = self._covers.open(body, slot)
        tasks, identity = self._tree.fd("tasks"), slot.id + ".json"
        own = self._tree.fs.stat(identity, tasks)
        if own is not None and own.st_ino != found.inode:
            own = self._reunited(slot, found, body, own)
        # No other name than its place, and perhaps its key: nobody gave it an identity yet.
        if own is None and found.links == mend.own_names(self._tree, body, found.inode):
            own = self._identified(slot)
        if own is None or own.st_ino != found.inode:
            what = f"{place.name!r} is not the file that was posted as {slot.id!r}"
            raise CorruptRecord(what)
        hidden = opened.encrypted.why if opened.encrypted is not None else ""
        return Task(opened, slot, proof=Proof(by or inner) if by or inner else None, hidden=hidden)

    def _identified(self, slot: Slot) -> os.stat_result | None:
        """Give a new message its identity, unless somebody else did; return what has that name now."""
        place, tasks, identity = names.place(slot), self._tree.fd("tasks"), slot.id + ".json"
        at = self._tree.fd(f"channels/{slot.channel}/{place.folder}")
        try:
            self._tree.fs.link(place.name, at, identity, tasks)
        except FileNotFoundError:
            msg = f"{slot.id!r} is not {slot.state} any more"
            raise Conflict(msg) from None
        except PermissionError:  # Linux lets nobody link a file of another's that they may not write.
            raise self._tree.fs.closed(place.name, at) from None
        except FileExistsError:
            pass
        return self._tree.fs.stat(identity, tasks)

    def _reunited(self, slot: Slot, found: Found, body: Body, own: os.stat_result) -> os.stat_result | None:
        """Make one file again of what a copy of the bus made two: its place and its identity, alone and alike.

        What has its identity's name and is no file is put aside.
        """
        identity, tasks = slot.id + ".json", self._tree.fd("tasks")
        if not stat.S_ISREG(own.st_mode):
            foreign.quarantine(self._tree, "tasks", identity, "it is where a task belongs", self._source.now())
            return None
        if found.links == own.st_nlink == 1:
            self._replace(slot, found, identity, "tasks")
            if body.key:
                self._replace(slot, found, body.key + ".json", "keys")
        return self._tree.fs.stat(identity, tasks)

    def _replace(self, slot: Slot, found: Found, name: str, folder: str) -> None:
        """Put a task's own file in the place of a copy of it; never of anything else."""
        place, tmp, draft = names.place(slot), self._tree.fd("tmp", make=True), f"{slot.id}.{self._tree.token(4)}"
        try:
            other = self._tree.fs.read(name, self._tree.fd(folder), wire.MAX_FILE)
            if other.data != found.data or other.links != 1 or other.inode == found.inode:
                return
            here = self._tree.fd(f"channels/{slot.channel}/{place.folder}")
            self._tree.fs.link(place.name, here, draft, tmp)
        except (CorruptRecord, FileNotFoundError):
            return  # It moved meanwhile, or is not there at all.
        self._tree.fs.rename(draft, tmp, name, self._tree.fd(folder))
        self._tree.drop("tmp", draft)  # A rename onto another name of the same file leaves both.

    def locate(self, body: Body, near: Slot | None = None) -> Slot:
        """Find where a task is by its exact names first, then by listing; it may move meanwhile.

        Args:
            near: where it was a moment ago.
        """
        channel, start = body.channel, lifecycle.first(body)
        for _ in range(LOOKS):
            if near is not None and (near.id, near.channel) == (body.id, channel) and self._is_at(near):
                return near
            if self._is_at(start):
                return start
            if start.state is State.SCHEDULED and self._is_at(ready := lifecycle.due(start, now=start.not_before)):
                return ready
            found = self._listed(channel, "processing", body.id) or self._response(channel, body.id)
            for folder in ("requests", "delayed", "dead"):
                found = found or self._listed(channel, folder, body.id)
            for day in sorted(self._tree.names(f"channels/{channel}/archive"), reverse=True):
                found = found or self._listed(channel, f"archive/{day}", body.id)
            if found is not None:
                return found
            pruned = graves.is_pruning(self._tree, channel, body.id)
            if pruned is not None:
                raise _gone(body.id, f"{pruned.state} on {pruned.day}")
            mend.drafts(self._tree, self._source.now())
            mend.place_again(self._tree, body.id)
        self._check_aside(body)
        msg = f"{body.id!r} has no place in channel {channel!r}"
        raise Conflict(msg, hint="it is on the move, or its files were removed by hand; repeat the call")

    def _check_aside(self, body: Body) -> None:
        """Say of a task without a place that it was put aside, if it was."""
        is_signed = self._seals.needs(body.channel, body.id) or body.encrypted is not None
        why = foreign.put_aside(self._tree, body.id) if is_signed or self._rules.limits(body.channel) else ""
        if why:
            what = f"{body.id!r} was put aside: {why}"
            raise (Unverified if is_signed else CorruptRecord)(
                what, hint="look at it in quarantine/; if the work is wanted, post it anew"
            )

    def _is_at(self, slot: Slot) -> bool:
        place = names.place(slot)
        at = self._tree.live(f"channels/{slot.channel}/{place.folder}")
        return at is not None and self._tree.fs.stat(place.name, at) is not None

    def _listed(self, channel: str, folder: str, task_id: str) -> Slot | None:
        for name in self._tree.names(f"channels/{channel}/{folder}"):
            if task_id in name:
                slot = names.parse(channel, folder, name)
                if slot is not None and slot.id == task_id:
                    return slot if slot.lease is None or slot.lease.token else self.foreign_lease(slot, name)
        return None

    def _response(self, channel: str, task_id: str) -> Slot | None:
        if self._seals.needs(channel, task_id):
            return None  # Anyone may have put one there: where the task is, its own name says alone.
        at = self._tree.live(f"channels/{channel}/responses")
        if at is None or self._tree.fs.stat(task_id + ".json", at) is None:
            return None
        return Slot(task_id, channel, State.DONE)

    def foreign_lease(self, slot: Slot, name: str) -> Slot:
        """Give a claim without a lease a deadline: a rename sets the change time, so count from there."""
        at = self._tree.live(f"channels/{slot.channel}/processing")
        about = None if at is None else self._tree.fs.stat(name, at)
        since = int(about.st_ctime * 1000) if about else self._source.now()
        lease = Lease("abq", "", since + FOREIGN_LEASE)
        return slot._replace(lease=lease)

    def _result(self, slot: Slot, body: Body) -> tuple[Result | None, str]:
        """Return the result of a task that is done, and whose it is; published if its worker did not get so far.

        Raises:
            Unverified: there is one that is nobody's.
        """
        for _ in range(2):
            try:
                return self._read_result(slot, body, publish.responses(slot.channel), f"{slot.id}.json")
            except FileNotFoundError:
                # Done, and not published yet: its worker is about to do it, or died.
                if publish.carry(self._tree, slot):
                    continue
            try:  # abq, which had waited for it, may have moved it into the archive.
                return self._read_result(slot, body, f"channels/{slot.channel}/archive", f"{slot.id}_response.json")
            except FileNotFoundError:
                break
        return None, ""

    def _read_result(self, slot: Slot, body: Body, folder: str, name: str) -> tuple[Result, str]:
        found = self._tree.fs.read(name, self._tree.fd(folder), wire.MAX_FILE)
        result = wire.load_result(found.data)
        by = self._seals.result(slot, result, found.data)
        result, inner = self._covers.open_result(slot, body, result)
        return result, by or inner


def _done(slot: Slot, body: Body, result: Result) -> Slot:
    """Return where a task with a result is; it was found by its response, whose name says nothing else."""
    folder, _, name = result.place.rpartition("/")
    placed = names.parse(slot.channel, folder, name) if name else None
    if placed is not None and (placed.id, placed.state) == (slot.id, State.DONE):
        return placed
    return slot._replace(attempt=result.attempt, priority=body.priority)


def _lifted(error: CorruptRecord) -> str:
    """Return what would lift a doubt: of a key that is not known here; what was altered is no better by any key."""
    return error.hint if isinstance(error, UnknownKey) else ""


def _gone(task_id: str, ended: str) -> Gone:
    msg = f"{task_id!r} has expired from the bus: it ended {ended} and was pruned after its retention time"
    return Gone(msg, hint="its result is no longer kept")
