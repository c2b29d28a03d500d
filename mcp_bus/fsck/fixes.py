"""One fix for each kind of anomaly that no sweep mends."""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import names, wire
from mcp_bus.fsck import rights
from mcp_bus.fsck.signed import Signatures
from mcp_bus.model import Slot, State, day_of
from mcp_bus.stores import layout, mend, story
from mcp_bus.stores.foreign import QUARANTINE, quarantine
from mcp_bus.stores.layout import FILES
from mcp_bus.stores.modes import is_mine, of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.fsck.kinds import Anomaly
    from mcp_bus.fsck.survey import Surveyor


class Mender:
    """Puts anomalies right, one by one; each is looked at once more before.

    Args:
        touched: gets the folders whose names were changed.
    """

    def __init__(self, surveyor: Surveyor, source: Source, touched: set[str]) -> None:
        """See the class."""
        self._surveyor = surveyor
        self._tree = surveyor.tree
        self._fs = surveyor.tree.fs
        self._source = source
        self._touched = touched
        self._is_synced = False
        self._names = rights.Names(surveyor.tree)
        self._seals = Signatures(surveyor)

    def mend(self, item: Anomaly) -> str:
        """Do what `item.repair` says; return what was done, empty if it was not, or is left to the sweep."""
        fix = FIXES.get(item.kind)
        return f"{item.path}: {said}" if fix is not None and (said := fix(self, item)) else ""

    # --- what all of them need ----------------------------------------------------------------

    def _at(self, path: str, *, make: bool = False) -> tuple[str, int]:
        """Return the name and the open folder of a path; the folder counts as changed."""
        folder, _, name = path.rpartition("/")
        at = self._tree.fd(folder, make=make)
        self._touched.add(folder)
        return name, at

    def _stat(self, path: str) -> tuple[int, int] | None:
        """Return inode and link count of a path; None if there is nothing."""
        folder, _, name = path.rpartition("/")
        about = self._surveyor.about(folder, name)
        return None if about is None else (about.inode, about.links)

    def _aside(self, item: Anomaly) -> str:
        """Put aside what is still wrong."""
        if not self._is_still(item):
            return ""
        name, _ = self._at(item.path)
        why = f"{item.kind}: {item.means}" + (f" ({item.detail})" if item.detail else "")
        folder = item.path.rpartition("/")[0]
        self._touched.add(QUARANTINE)
        return "moved to quarantine/" if quarantine(self._tree, folder, name, why, self._source.now()) else ""

    def _is_still(self, item: Anomaly) -> bool:
        """Tell whether something is as it was found; who repairs at the same time may have been faster."""
        folder, _, name = item.path.rpartition("/")
        about = self._surveyor.about(folder, name)
        if about is None:
            return False
        if item.kind in ("bad-body", "wrong-id"):
            found = self._surveyor.body(folder, name, about)
            return found is not None and (not found.id or found.id != item.id)
        if item.kind == "bad-key":
            found = self._surveyor.body(folder, name, about)
            own = self._stat(item.other) if item.other else None
            fits = found is not None and f"{found.key}.json" == name and (own is None or own[0] == about.inode)
            return not (fits or (own is not None and own[0] == about.inode))
        if item.kind in ("bad-result", "forged-result"):
            is_forged = item.kind == "forged-result" and self._seals.ends(item.id, folder.split("/")[1]).is_so is False
            return is_forged or self._surveyor.result(folder, name, about) != item.id
        if item.kind == "in-the-way":
            is_file = item.path in FILES or folder == "tombstones"
            return not (about.is_file if is_file else stat.S_ISDIR(about.mode))
        return item.kind != "two-places" or self._stat(item.other) is not None

    def _over(self, source: str, target: str) -> str:
        """Make two files with the same bytes one: `source` gets the name `target` too."""
        name, at = self._at(source)
        there, into = self._at(target)
        mine, other = self._stat(source), self._stat(target)
        if mine is None or other is None or mine[0] == other[0]:
            return ""
        if self._fs.read(name, at, wire.MAX_FILE).data != self._fs.read(there, into, wire.MAX_FILE).data:
            return ""
        tmp, draft = self._tree.fd("tmp", make=True), f"fsck.{self._tree.token(8)}"
        if self._tree.sync and not self._is_synced:
            self._fs.sync()  # Once for all: what replaces a file must be on disk before; so may be a whole copied bus.
            self._is_synced = True
        self._fs.link(name, at, draft, tmp)
        self._fs.rename(draft, tmp, there, into)
        self._tree.drop("tmp", draft)  # A rename onto another name of the same file leaves both.
        return "one file with its task again"

    def _copied(self, path: str) -> None:
        """Make what has other names a file of its own, with the same bytes."""
        name, at = self._at(path)
        data = self._fs.read(name, at, wire.MAX_FILE).data
        tmp, draft = self._tree.fd("tmp", make=True), f"fsck.{self._tree.token(8)}"
        self._fs.create(draft, tmp, data, sync=self._tree.sync)
        self._fs.rename(draft, tmp, name, at)

    # --- the bus as a whole -------------------------------------------------------------------

    def bus_json(self, item: Anomaly) -> str:
        """Write `bus.json` anew."""
        if self._stat(item.path) is not None:
            self._aside(item)
        found = self._surveyor.lost
        layout.write_about(self._tree, self._source, bus=found.bus)
        return f"written anew; {found.said}"

    def folder(self, item: Anomaly) -> str:
        """Make a folder."""
        if self._stat(item.path) is not None:
            return ""
        self._tree.fd(item.path, make=True)
        return "made"

    def in_the_way(self, item: Anomaly) -> str:
        """Put aside what has the name of something of the bus; also when it has the name of where that goes."""
        if item.path != QUARANTINE:
            return self._aside(item)
        name, at = self._at(item.path)
        self._fs.rename(name, at, f"{name}.{self._tree.token(4)}", at)
        return "renamed"

    def mode(self, item: Anomaly) -> str:
        """Let in whom it should let in, and nobody else write; what another user owns, that user has to."""
        if not rights.mend(self._tree, item.path, self._names):
            return ""
        return "nobody else may write it" if item.kind == "writable-by-others" else "those whose bus it is may use it"

    def closed(self, item: Anomaly) -> str:
        """Let nobody else write into the bus."""
        about = self._fs.stat(item.path, self._tree.fd())
        if item.path != "." or about is None:
            return self.mode(item)
        if not is_mine(about):
            return ""
        self._fs.fchmod(self._tree.fd(), of(about).folder)
        return "no other user may write"

    # --- tasks --------------------------------------------------------------------------------

    def to_channel(self, item: Anomaly) -> str:
        """Move a task to the channel that it is addressed to."""
        if not item.other:
            return self._aside(item)
        name, at = self._at(item.path)
        there, into = self._at(item.other, make=True)
        # One rename decides, as for every move; nobody else makes that name of a task which is nowhere else.
        if self._fs.stat(there, into) is not None:
            return ""
        self._tree.fd(f"channels/{item.other.split('/')[1]}/requests", make=True)
        self._fs.rename(name, at, there, into)
        return f"moved to {item.other}"

    def orphan(self, item: Anomaly) -> str:
        """Put a task where it started."""
        before = self._stat(item.path)
        if before is None or f"names: {before[1]}" != item.detail:
            return ""  # Somebody else did it, or is at it.
        if mend.place_again(self._tree, item.id):
            return "put back in its channel"
        if before != self._stat(item.path) or before[1] == 1:
            return ""
        self._copied(item.path)  # It has names outside of the bus, and by their count is taken for placed.
        return "put back in its channel" if mend.place_again(self._tree, item.id) else "made a file of its own"

    def identity(self, item: Anomaly) -> str:
        """Link a place to its identity."""
        return self._linked(item.path, f"tasks/{item.id}.json")

    def _linked(self, source: str, target: str) -> str:
        name, at = self._at(source)
        there, into = self._at(target, make=True)
        with suppress(FileExistsError):
            self._fs.link(name, at, there, into)
            return f"linked to {target}"
        return ""

    def split(self, item: Anomaly) -> str:
        """Make one file of a place and its identity, or of an identity and its key: the place never moves."""
        is_key = item.path.startswith("keys/")
        return self._over(item.other, item.path) if is_key else self._over(item.path, item.other)

    def body(self, item: Anomaly) -> str:
        """Put aside a message that was not posted, and what was posted in its place."""
        name, at = self._at(item.path)
        mine, own = self._stat(item.path), self._stat(f"tasks/{item.id}.json")
        if mine is None or own is None or mine[0] == own[0]:
            return ""
        tmp, draft, kept = self._tree.fd("tmp", make=True), f"fsck.{self._tree.token(8)}", self._tree.token(8)
        there = self._tree.fd(QUARANTINE, make=True)
        reason = {"was": item.path, "reason": item.means, "at": wire.stamp(self._source.now())}
        self._fs.create(kept + names.REASON, there, wire.dumps(reason), sync=False)
        self._fs.link(name, at, kept, there)  # Before its name is taken: there is never none.
        self._fs.link(f"{item.id}.json", self._tree.fd("tasks"), draft, tmp)
        self._fs.rename(draft, tmp, name, at)
        return "moved to quarantine/; what was posted is in its place"

    def unshared(self, item: Anomaly) -> str:
        """Make what was put aside a file of its own."""
        found = self._stat(item.path)
        if found is None or found[1] < 2:
            return ""
        self._copied(item.path)
        return "made a file of its own"

    # --- keys, results ------------------------------------------------------------------------

    def key(self, item: Anomaly) -> str:
        """Give a task its key again."""
        return self._linked(item.path, item.other)

    def alone(self, item: Anomaly) -> str:
        """Give a task that is known by its key alone its identity and place."""
        name, at = self._at(item.path)
        body = wire.load_body(self._fs.read(name, at, wire.MAX_FILE).data)
        mend.identify(self._tree, body)
        return f"{body.id} is a task again" if mend.place_again(self._tree, body.id) else ""

    def home(self, item: Anomaly) -> str:
        """Give a result its name in the channel of its task, where nobody gave it one meanwhile."""
        name, at = self._at(item.path)
        there, into = self._at(item.other, make=True)
        with suppress(FileExistsError):
            self._fs.link(name, at, there, into)  # Never over one that is there: the first is final.
        mine, own = self._stat(item.path), self._stat(item.other)
        if mine is None or own is None or mine[0] != own[0]:
            return ""
        if self._tree.sync:  # Both names are one file; until this one is on disk, the other is what holds it.
            self._fs.fsync(into)
        self._tree.drop(item.path.rpartition("/")[0], name)
        return f"moved to {item.other}"

    def history(self, item: Anomaly) -> str:
        """Move a folder of history to the channel of its task."""
        if self._stat(item.path) is None or self._stat(item.other) is not None:
            return ""
        (name, at), (there, into) = self._at(item.path), self._at(item.other, make=True)
        self._fs.rename(name, at, there, into)
        self._tree.forget()  # Nothing is written through the old name.
        return f"moved to {item.other}"

    def done(self, item: Anomaly) -> str:
        """Give a task with a result its name in the archive."""
        is_placed = item.path.startswith("channels/")
        if is_placed:
            _, channel, folder = item.path.rpartition("/")[0].split("/", 2)
            slot = names.parse(channel, folder, item.path.rpartition("/")[2])
        else:
            name, at = self._at(item.path)
            body = wire.load_body(self._fs.read(name, at, wire.MAX_FILE).data)
            slot = Slot(body.id, body.channel, State.READY, body.priority)
        if slot is None or not self._seals.ends(slot.id, slot.channel).is_so:
            return ""
        target = self._archived(slot)
        if not is_placed:
            return self._linked(item.path, target)
        (name, at), (there, into) = self._at(item.path), self._at(target, make=True)
        if self._fs.stat(there, into) is not None:
            return ""
        self._fs.rename(name, at, there, into)
        return f"moved to {target}"

    def _archived(self, slot: Slot) -> str:
        """Return the path under which a task is done: as its result says, else as the slot says."""
        base = f"channels/{slot.channel}"
        result = wire.load_result(
            self._fs.read(f"{slot.id}.json", self._tree.fd(f"{base}/responses"), wire.MAX_FILE).data
        )
        folder, _, name = result.place.rpartition("/")
        placed = names.parse(slot.channel, folder, name) if name else None
        if placed is None or (placed.id, placed.state) != (slot.id, State.DONE):
            lease = slot.lease if slot.lease and slot.lease.token else None
            day = day_of(result.at or self._source.now())
            attempt = max(slot.attempt, result.attempt)
            placed = slot._replace(state=State.DONE, day=day, lease=lease, not_before=0, attempt=attempt)
        place = names.place(placed)
        return f"{base}/{place.folder}/{place.name}"

    def reason(self, item: Anomaly) -> str:
        """Write why a task is dead."""
        channel, name = item.path.split("/")[1], item.path.rpartition("/")[2]
        slot = names.parse(channel, "dead", name)
        if slot is None or self._stat(item.path) is None:
            return ""
        story.reason(self._tree, slot, story.lines(self._tree, slot), sync=self._tree.sync)
        return "wrote why it is dead"


_ASIDE = (
    "bad-body", "wrong-id", "misnamed", "second-body", "two-places", "bad-key", "bad-result", "result-without-task",
    "record", "tombstoned", "history-without-task", "forged-result",
)  # fmt: skip
FIXES: dict[str, Callable[[Mender, Anomaly], str]] = {
    **dict.fromkeys(_ASIDE, Mender._aside),  # noqa: SLF001  they are one class's fixes
    "no-bus-json": Mender.bus_json,
    "missing-folder": Mender.folder,
    "lost-folder": Mender.folder,
    "in-the-way": Mender.in_the_way,
    "mode": Mender.mode,
    "writable-by-others": Mender.closed,
    "wrong-channel": Mender.to_channel,
    "orphan": Mender.orphan,
    "lost-identity": Mender.identity,
    "split": Mender.split,
    "other-body": Mender.body,
    "shared-aside": Mender.unshared,
    "key-missing": Mender.key,
    "key-alone": Mender.alone,
    "done-without-name": Mender.done,
    "result-not-done": Mender.done,
    "result-astray": Mender.home,
    "history-astray": Mender.history,
    "dead-without-reason": Mender.reason,
}
