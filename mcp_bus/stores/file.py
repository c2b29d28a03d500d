"""The store on plain files: a task's body is one inode, its state is the name it has.

The normative text is `docs/protocol.md`; the order of calls here is what makes it true, and tests
check that order.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import lifecycle, names, wire
from mcp_bus.clock import System
from mcp_bus.errors import Conflict, NotFound
from mcp_bus.identity.process import boot_id
from mcp_bus.model import ARCHIVED, Attempt, Outcome, Result, Slot, State
from mcp_bus.stores import foreign, graves, mend, publish, story
from mcp_bus.stores.away import Alone
from mcp_bus.stores.covers import Covers
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.journal import Journal
from mcp_bus.stores.layout import check_format
from mcp_bus.stores.outputs import FileOutputs
from mcp_bus.stores.reader import Reader
from mcp_bus.stores.records import FileRecords
from mcp_bus.stores.rules import Rules
from mcp_bus.stores.seals import Seals
from mcp_bus.stores.suspects import Suspects
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Policy, Task
    from mcp_bus.stores.base import Guard, Guarded

# Published results whose staged names are removed together, after one fsync.
BATCH = 64
_RARE = frozenset({State.DEAD, State.CANCELLED, State.EXPIRED})
# Moves into these without a result are made durable: nobody would do them again.
_LASTING = _RARE | {State.DONE}


class FileStore(Alone):
    """A bus directory, opened.

    Args:
        root: the bus; made by `layout.create`.
        durable: False skips every fsync; what was acknowledged then survives kill -9, but not a
            power cut.
        who: written into the journal as the one who moved a task.
        keys: makes what signs and checks, of a bus with an id; without it signed channels cannot be used.

    Raises:
        StoreUnavailable: there is no bus, or it cannot be used.
        Untrusted: it is another user's, or of a group this user is not in, or everyone may write it.
        CorruptRecord: it is of a format this version does not know.
    """

    def __init__(
        self,
        root: Path,
        *,
        fs: Fs | None = None,
        source: Source | None = None,
        durable: bool = True,
        who: str = "-",
        keys: Callable[[str], Guard] | None = None,
    ) -> None:
        """Open the bus at `root`."""
        self.durable = durable
        self.tree = Tree(root, fs or Fs(), source or System())
        self.fs, self.tree.sync = self.tree.fs, durable
        self._source = source or System()
        self.rules = Rules(self.tree, self._source)
        self.seals = Seals(self.tree, self._source, self.rules.policy, None)
        self.rules.holds = self.seals.ruled
        self.covers = Covers(self.seals, self._source)
        self._reader = Reader(self.tree, self.covers, self.seals, self.rules)
        self.records = FileRecords(self.tree, self._source, sync=durable)
        self.outputs = FileOutputs(self.tree, self._source, sync=durable)
        self._published: dict[str, list[str]] = {}
        self.journal = Journal(self.tree, self._source, who)
        self._suspects = Suspects(self.tree, self._reader, self._source)
        self._closed = set[str]()
        try:
            with self.tree.words():
                about = check_format(self.tree)
                self.seals.guard = keys(str(about.get("id"))) if keys is not None else None
        except BaseException:
            self.tree.close()
            raise

    @property
    def guard(self) -> Guard | None:
        """See `Store.guard`."""
        return self.seals.guard

    # --- the five verbs -----------------------------------------------------------------------

    def add(self, body: Body) -> Body:
        """See `Store.add`.  Durable when it returns: fsync file, link, rename, fsync folder."""
        slot = lifecycle.first(body)
        body, stored = self.covers.body(body)
        data = wire.dump_body(stored)
        began = self._source.now()
        with self.tree.words():
            target = names.place(slot)
            self.tree.check()  # A bus that was renamed away is no place to leave a task.
            there = self._folder(slot.channel, target.folder)
            tmp, tasks = self.tree.fd("tmp", make=True), self.tree.fd("tasks")
            is_signed = self.seals.sign_body(body, data)
            draft = f"{body.id}.{self._source.token(4)}"
            self.fs.create(draft, tmp, data, sync=self.durable)
            if not self._name(body, draft):
                self.tree.drop("tmp", draft)
                kept = self._kept(body, is_signed=is_signed)
                if is_signed and kept.id != body.id:
                    self.seals.drop(body.id)
                return kept
            # A sweep that saw a draft with two names may have finished the post for us.
            with suppress(FileNotFoundError):
                self.fs.rename(draft, tmp, target.name, there)
            if self.durable:
                self.fs.fsync(tasks)
        self.journal.move("post", None, slot, began)
        return body

    def _name(self, body: Body, draft: str) -> bool:
        """Pass the uniqueness points, key first; False when one is taken."""
        tmp, identity = self.tree.fd("tmp"), body.id + ".json"
        try:
            if body.key:
                keys = self.tree.fd("keys", make=True)
                self.fs.link(draft, tmp, body.key + ".json", keys)
                if self.durable:
                    self.fs.fsync(keys)
            self.fs.link(draft, tmp, identity, self.tree.fd("tasks"))
        except FileExistsError:
            return False
        except FileNotFoundError:
            # A sweep finished the post, and removed the draft, between our two links.
            return self.fs.stat(identity, self.tree.fd("tasks")) is not None
        return True

    def _kept(self, body: Body, *, is_signed: bool) -> Body:
        """Return the body that was first, finished and durable even if its poster died.

        Raises:
            Unverified: it is to be signed, and somebody who has no key took its name.
        """
        if body.key:
            found = self.fs.read(body.key + ".json", self.tree.fd("keys"), wire.MAX_FILE)
        else:
            found = self.fs.read(body.id + ".json", self.tree.fd("tasks"), wire.MAX_FILE)
        kept = wire.load_body(found.data)
        if is_signed:
            self.seals.body(kept, found.data)
        kept = self._reader.opened(kept)
        mend.drafts(self.tree, self._source.now(), only=found.inode)
        identity = kept.id + ".json"
        mend.identify(self.tree, kept)
        if self.durable:
            self.fs.sync_name(identity, self.tree.fd("tasks"))
            self.fs.fsync(self.tree.fd("tasks"))
        mend.place_again(self.tree, kept.id)
        return kept

    def has_key(self, key: str) -> bool:
        """See `Store.has_key`."""
        with self.tree.words():
            return self.fs.stat(key + ".json", self.tree.fd("keys", make=True)) is not None

    def get(self, task_id: str, at: Slot | None = None, *, near: Slot | None = None) -> Task | None:
        """See `Store.get`."""
        with self.tree.words():
            return self._reader.task(task_id, near) if at is None else self._suspects.read(at)

    def scan(self, channel: str, state: State, *, after: str = "", limit: int = 0) -> Iterator[Slot]:
        """See `Store.scan`."""
        base, count = f"channels/{channel}/", 0
        with self.tree.words():
            folders = [names.FOLDERS[state]]
            if state in ARCHIVED:
                folders = [
                    "archive",
                    *(f"archive/{d}" for d in sorted(self.tree.names(base + "archive")) if "." not in d),
                ]
        for folder in folders:
            with self.tree.words():
                listed = _in_order(state, self.tree.names(base + folder))
            for name in listed:
                slot = names.parse(channel, folder, name)
                if slot is None or slot.state is not state or slot.id <= after:
                    continue
                if slot.lease is not None and not slot.lease.token and state is State.LEASED:
                    slot = self._reader.foreign_lease(slot, name)
                yield slot
                count += 1
                if count == limit:
                    return

    def swap(self, old: Slot, new: Slot | None, entry: Attempt | Result | None = None) -> None:
        """See `Store.swap`.  One rename decides; what goes with it is written before."""
        began = self._source.now()
        with self.tree.words():
            if new is None:
                graves.prune(self.tree, old, sync=self.durable)
            elif isinstance(entry, Result):
                self._finish(old, new, entry)
            else:
                self._move(old, new, entry)
        self.journal.move(entry.outcome if isinstance(entry, Attempt) else "move", old, new, began)

    def changes(self, channels: Sequence[str]) -> object:
        """See `Store.changes`: the times at which the folders' entries last changed."""
        seen: list[int] = []
        for path in self.paths(channels):
            try:
                seen.append(path.stat().st_mtime_ns)
            except OSError:
                seen.append(-1)
        return tuple(seen)

    # --- channels, repair ---------------------------------------------------------------------

    def paths(self, channels: Sequence[str]) -> list[Path]:
        """See `Store.paths`."""
        root = self.tree.root / "channels"
        return [
            root, self.tree.root / "agents",
            *(root / name / part for name in channels for part in names.CHANNEL_FOLDERS if part != "attempts"),
        ]  # fmt: skip

    def channels(self) -> list[str]:
        """See `Store.channels`."""
        with self.tree.words():
            found = self.tree.names("channels")
            if not found:
                self.tree.fd("tasks")  # Tells an empty bus from one that was deleted.
            return sorted(c for c in found if names.is_place(c) and self._is_open(c))

    def _is_open(self, channel: str) -> bool:
        """Tell whether a channel is there and lets this user in; one that does not must not keep them from the rest."""
        try:
            return self.tree.live(f"channels/{channel}/requests") is not None
        except PermissionError as error:
            if channel not in self._closed:
                self._closed.add(channel)
                import logging  # noqa: PLC0415  milliseconds, and nearly no process gets here

                logging.getLogger(__name__).warning("passed over a channel: %s", self.tree.explain(error))
            return False

    def policy(self, channel: str) -> Policy:
        """See `Store.policy`."""
        return self.rules.policy(channel)

    def guarded(self, channel: str) -> Guarded:
        """See `Store.guarded`."""
        return self.seals.guarded(channel)

    def declare(self, channel: str, policy: Policy | None = None, *, is_default: bool = False) -> None:
        """See `Store.declare`."""
        if policy is not None and not is_default:
            self.seals.remember(channel, policy)
        self.rules.declare(channel, policy, is_default=is_default, sync=self.durable)

    def count(self, channel: str) -> dict[State, int]:
        """See `Store.count`.  Counts names without reading them."""
        base, made = f"channels/{channel}/", dict.fromkeys(State, 0)
        with self.tree.words():
            for folder, state in names.STATES.items():
                listed = self.tree.names(base + folder)
                made[state] = sum(n.endswith(".json") and not n.endswith(names.REASON) for n in listed)
            days = self.tree.names(base + "archive")
            for folder in ("archive", *(f"archive/{day}" for day in days if "." not in day)):  # abq's are in none.
                ends = [names.end_of(name) for name in self.tree.names(base + folder)]
                made |= {state: made[state] + ends.count(state) for state in ARCHIVED}
        return made

    def strangers(self, channel: str) -> list[str]:
        """See `Store.strangers`."""
        with self.tree.words():
            return foreign.strangers(self.tree, channel)

    def ids(self) -> list[str]:
        """See `Store.ids`."""
        with self.tree.words():
            return [name[:-5] for name in self.tree.names("tasks") if names.is_identity(name)]

    def mend(self, now: int) -> list[str]:
        """See `Store.mend`."""
        with self.tree.words():
            publish.settle(self.tree, self._published, sync=self.durable)
            done = mend.everything(self.tree, now, self.seals, boot=boot_id(), sync=self.durable)
            return done + self._suspects.mend(now)

    def write_manifest(self, data: bytes) -> None:
        """Replace `manifest.json`, a derived index for people; never read back."""
        with self.tree.words():
            draft, tmp = f"manifest.{self._source.token(6)}", self.tree.fd("tmp", make=True)
            self.fs.create(draft, tmp, data, sync=False)
            self.fs.rename(draft, tmp, "manifest.json", self.tree.fd())

    def manifest_age(self, now: int) -> int:
        """See `Store.manifest_age`."""
        with self.tree.words():
            self.tree.check()
            about = self.fs.stat("manifest.json", self.tree.fd())
        return now - int(about.st_mtime * 1000) if about else now

    def close(self) -> None:
        """See `Store.close`."""
        try:
            with self.tree.words():
                publish.settle(self.tree, self._published, sync=self.durable)
        finally:
            self.journal.close()
            self.tree.close()

    # --- one transition -----------------------------------------------------------------------

    def _folder(self, channel: str, folder: str, *, make: bool = False) -> int:
        try:
            return self.tree.fd(f"channels/{channel}/{folder}", make=make)
        except FileNotFoundError:
            if self.tree.live("tasks") is None:
                raise
            if self.tree.live(f"channels/{channel}/requests") is None:
                msg = f"there is no channel {channel!r}"
                raise NotFound(
                    msg, hint="the first post makes a queue of that name, `mcp-bus subscribe` a topic"
                ) from None
            return self.tree.fd(f"channels/{channel}/{folder}", make=True)

    def _move(self, old: Slot, new: Slot, entry: Attempt | None) -> None:
        source, target = names.place(old), names.place(new)
        if entry is not None and entry.outcome is Outcome.LAPSED and publish.is_staged(self.tree, old):
            msg = f"the result of {old.id!r} is on its way"
            raise Conflict(msg, hint="a sweep will carry it on")
        if entry is not None:
            # A late word would stay in the history of a task it did not move; the rename below still decides.
            if self.fs.stat(source.name, self._folder(old.channel, source.folder)) is None:
                msg = f"{old.id!r} is not {old.state} any more, or not under the same lease"
                raise Conflict(msg)
            story.note(self.tree, old, entry, sync=self.durable)
        self._give_up(old)
        if new.state is State.DEAD:
            story.reason(self.tree, new, story.lines(self.tree, new), sync=self.durable)
        there = self._folder(new.channel, target.folder, make=True)
        try:
            self.fs.rename(source.name, self._folder(old.channel, source.folder), target.name, there)
        except FileNotFoundError:
            msg = f"{old.id!r} is not {old.state} any more, or not under the same lease"
            raise Conflict(msg) from None
        if self.durable and (new.state in _LASTING or old.state in _RARE):
            self.fs.fsync(there)
        if old.state is State.DEAD:
            self.tree.drop(f"channels/{old.channel}/dead", old.id + names.REASON)
        if new.state is State.DONE:
            self.seals.over(new)

    def _give_up(self, old: Slot) -> None:
        """Put aside the result of what was done and is not any more: left there, it would make the task done again."""
        at = self.tree.live(publish.responses(old.channel)) if old.state is State.DONE else None
        if at is not None and self.fs.stat(f"{old.id}.json", at) is not None:
            why = "its task was discarded, and it was given up"
            foreign.quarantine(self.tree, publish.responses(old.channel), f"{old.id}.json", why, self._source.now())

    def _finish(self, old: Slot, new: Slot, result: Result) -> None:
        stored = self.covers.result(old, result)
        data = wire.dump_result(stored)
        is_signed = self.seals.sign_result(old, stored, data)
        staged = publish.finish(self.tree, old, new, data, sync=self.durable)
        if is_signed:
            self.seals.over(new)
        waiting = self._published.setdefault(old.channel, [])
        waiting.append(staged)
        if not self.durable or len(waiting) >= BATCH:
            publish.settle(self.tree, self._published, sync=self.durable)


def _in_order(state: State, listed: list[str]) -> list[str]:
    """Sort a listing: claim order for ready tasks, by due time for scheduled ones, by id otherwise."""
    files = [name for name in listed if name.endswith(".json") and name[0] != "."]
    files.sort()
    if state is State.SCHEDULED:  # By number, not by its first digit.
        files.sort(key=lambda name: len(name.partition(".")[0]))
    if state is State.READY and any(".p" in name for name in files):
        files.sort(key=names.name_priority, reverse=True)
    return files
