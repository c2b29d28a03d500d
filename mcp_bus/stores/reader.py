"""Finding and reading what a file store keeps: bodies, places, results, history."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from mcp_bus import lifecycle, names, wire
from mcp_bus.errors import Conflict, CorruptRecord, Gone
from mcp_bus.model import Lease, Result, Slot, State
from mcp_bus.stores import foreign, graves, mend, publish, story

if TYPE_CHECKING:
    import os

    from mcp_bus.clock import Source
    from mcp_bus.model import Attempt, Body
    from mcp_bus.stores.fsops import Found
    from mcp_bus.stores.tree import Tree

# A claim by a program without leases (abq) may be taken back after this long.
FOREIGN_LEASE = 3_600_000
# Looks for a task that moves while it is looked for.
LOOKS = 4


class Reader:
    """Reads one bus directory."""

    def __init__(self, tree: Tree, source: Source) -> None:
        """Read through `tree`, with the time from `source`."""
        self._tree = tree
        self._source = source

    def identity(self, task_id: str) -> Body | None:
        """Return the body kept under an id, or None; see `Store.get` for the errors."""
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
        return body

    def read_at(self, slot: Slot) -> Body:
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
        tasks, identity = self._tree.fd("tasks"), slot.id + ".json"
        own = self._tree.fs.stat(identity, tasks)
        if own is not None and own.st_ino != found.inode:
            own = self._reunited(slot, found, body, own)
        # No other name than its place, and perhaps its key: nobody gave it an identity yet.
        if own is None and found.links == mend.own_names(self._tree, body, found.inode):
            try:
                self._tree.fs.link(
                    place.name, self._tree.fd(f"channels/{slot.channel}/{place.folder}"), identity, tasks
                )
            except FileNotFoundError:
                msg = f"{slot.id!r} is not {slot.state} any more"
                raise Conflict(msg) from None
            except FileExistsError:
                pass
            own = self._tree.fs.stat(identity, tasks)
        if own is None or own.st_ino != found.inode:
            what = f"{place.name!r} is not the file that was posted as {slot.id!r}"
            raise CorruptRecord(what)
        return body

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
        msg = f"{body.id!r} has no place in channel {channel!r}"
        raise Conflict(msg, hint="it is on the move, or its files were removed by hand; repeat the call")

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

    def result(self, slot: Slot) -> Result | None:
        """Return the result of a task that is done, publishing it if its worker did not get so far."""
        for _ in range(2):
            try:
                at = self._tree.fd(publish.responses(slot.channel))
                return wire.load_result(self._tree.fs.read(f"{slot.id}.json", at, wire.MAX_FILE).data)
            except FileNotFoundError:
                # Done, and not published yet: its worker is about to do it, or died.
                if not publish.carry(self._tree, slot):
                    return self._fetched(slot)
        return None

    def _fetched(self, slot: Slot) -> Result | None:
        """Return a result that abq, which had waited for it, has moved into the archive."""
        try:
            at = self._tree.fd(f"channels/{slot.channel}/archive")
            return wire.load_result(self._tree.fs.read(f"{slot.id}_response.json", at, wire.MAX_FILE).data)
        except FileNotFoundError:
            return None

    def history(self, slot: Slot) -> tuple[Attempt, ...]:
        """Return a task's history, oldest line first, as far as it can be read."""
        return story.lines(self._tree, slot)


def _gone(task_id: str, ended: str) -> Gone:
    msg = f"{task_id!r} has expired from the bus: it ended {ended} and was pruned after its retention time"
    return Gone(msg, hint="its result is no longer kept")
