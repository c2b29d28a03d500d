"""A bus that lives in a git repository: hosts meet at its remote, and a push decides who was first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mcp_bus import lifecycle
from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import Attempt
from mcp_bus.stores import layout
from mcp_bus.stores.away import HERE, Away
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.git import place
from mcp_bus.stores.git.records import TOUCH_MS, GitRecords
from mcp_bus.stores.git.repo import SEEN
from mcp_bus.stores.git.shared import Asking, Host, Shared
from mcp_bus.stores.git.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Policy, Result, Slot, State, Task
    from mcp_bus.stores.base import Guard, Guarded
    from mcp_bus.stores.beside import Outputs, Records
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.git.repo import Repo

    Line = tuple[str, Slot | None, Slot | None, int]

T = TypeVar("T")
# By so much clocks of hosts may differ.
SKEW_MS = 120_000


class GitStore:
    """A bus at a git remote, opened.

    Args:
        repo: the clone of this host.
        local: a bus directory of this host, for what is not shared: the journal, outputs, what hooks have told.
        asking: when the remote is asked.
        who: written into commits and the journal as the one who moved a task.
        keys: as for a `FileStore`.

    Raises:
        StoreUnavailable: there is no bus there, or neither a remote that answers nor anything known of it.
        Untrusted: the remote's history was rewritten.
    """

    durable = True

    def __init__(
        self,
        repo: Repo,
        local: FileStore,
        *,
        source: Source,
        asking: Asking,
        who: str = "-",
        keys: Callable[[str], Guard] | None = None,
    ) -> None:
        """Open the bus at the remote's branch."""
        self.repo, self.local, self._source, self._asking = repo, local, source, asking
        with local.tree.words():
            self.part = str(layout.check_format(local.tree).get("id"))
        self.address = place.Address(repo.remote, repo.branch).shown
        self._last: Away | None = None
        # Lines for this host's journal, of what several verbs did that are not pushed yet.
        self._lines = list["Line"]()
        self._waiting = Waiting(local, source)

        def opened(fs: Fs) -> FileStore:
            # What lasts is what was pushed.
            return FileStore(repo.folder.parent, fs=fs, source=source, durable=False, who=who, keys=keys)

        self.shared = Shared(repo, self._waiting, source, Host(who, opened, asking))
        self.records: Records = GitRecords(self.shared, local.records, source)

    def create(self) -> bool:
        """Make the bus on the remote's branch, or complete one that is there; tell whether it is new.

        Raises:
            InvalidRequest: the branch holds something else.
            StoreUnavailable: the remote cannot be reached.
        """
        return self.shared.create()

    def sync(self) -> str:
        """Ask the remote now, and send what was posted while it did not answer; return its head.

        Raises:
            StoreUnavailable: it does not answer.
        """
        self.shared.sync()
        return self.shared.head

    @property
    def away(self) -> Away:
        """See `Store.away`."""
        if self._last is not None:
            return self._last
        trouble = str(self.shared.trouble) if self.shared.trouble is not None else ""
        waiting, claims = self._waiting.posts, tuple(self._waiting.tentative.all())
        lost, tokens = tuple(self._waiting.lost), self._waiting.tentative.lost()
        return Away(self.address, self.shared.synced, waiting, trouble, claims, lost, self._asking.is_needed, tokens)

    @property
    def leeway(self) -> int:
        """See `Store.leeway`: what is known may be as old here, and there, and clocks differ."""
        return SKEW_MS + int(2000 * self._asking.fresh_s)

    @property
    def silence(self) -> int:
        """See `Store.silence`: signs of life are pushed now and then."""
        return TOUCH_MS + self.leeway

    @property
    def outputs(self) -> Outputs:
        """See `Store.outputs`: on this host alone."""
        return self.local.outputs

    @property
    def guard(self) -> Guard | None:
        """See `Store.guard`."""
        return self.shared.bus.guard

    def together(self, told: Callable[[T], str], work: Callable[[], T]) -> T:
        """See `Store.together`: one commit."""
        if self.shared.is_together:
            return work()

        def anew() -> T:
            self._lines.clear()
            return work()

        made = self.shared.together(told, anew)
        lines, self._lines = self._lines, []
        for line in lines:
            self.local.journal.move(*line)
        return made

    def _journal(self, *line: *Line) -> None:
        """Note what was moved, once it was."""
        if self.shared.is_together:
            self._lines.append(line)
        else:
            self.local.journal.move(*line)

    # --- the five verbs -----------------------------------------------------------------------------

    def add(self, body: Body) -> Body:
        """See `Store.add`.  While the remote does not answer it is kept here, durable, and sent later."""
        began = self._source.now()
        try:
            kept = self.shared.do(f"post {body.id[-8:]} on {body.channel}", lambda bus: bus.add(body))
        except StoreUnavailable as error:
            kept = self.shared.here(error, lambda bus: bus.add(body))
            if kept.id == body.id:
                self._waiting.post(body)
        if kept.id == body.id:
            self._journal("post", None, lifecycle.first(body), began)
        return kept

    def has_key(self, key: str) -> bool:
        """See `Store.has_key`."""
        return self.shared.read(lambda bus: bus.has_key(key))

    def get(self, task_id: str, at: Slot | None = None, *, near: Slot | None = None) -> Task | None:
        """See `Store.get`.  What it puts aside is pushed as any other change."""
        return self.shared.do(f"look at {task_id[-8:]}", lambda bus: bus.get(task_id, at, near=near))

    def scan(self, channel: str, state: State, *, after: str = "", limit: int = 0) -> Iterator[Slot]:
        """See `Store.scan`."""
        yield from self.shared.read(lambda bus: list(bus.scan(channel, state, after=after, limit=limit)))

    def swap(self, old: Slot, new: Slot | None, entry: Attempt | Result | None = None) -> None:
        """See `Store.swap`.  The push of its commit decides; of a tentative claim it does so later."""
        began = self._source.now()
        try:
            self.shared.do(_told(old, new, entry), lambda bus: bus.swap(old, new, entry))
        except StoreUnavailable as error:
            if self._asking.is_needed or new is None or not self._waiting.tentative.is_move(old, new, entry):
                raise
            self.shared.tentatively(error, old, new)
        self._journal(entry.outcome if isinstance(entry, Attempt) else "move", old, new, began)

    def changes(self, channels: Sequence[str]) -> object:
        """See `Store.changes`."""
        del channels
        self.shared.look()
        return self.shared.head

    # --- channels, repair ---------------------------------------------------------------------------

    def paths(self, channels: Sequence[str]) -> list[Path]:
        """See `Store.paths`: where this host's processes note what they have seen of the remote."""
        del channels
        return [(self.repo.folder / SEEN).parent]

    def channels(self) -> list[str]:
        """See `Store.channels`."""
        return self.shared.read(lambda bus: bus.channels())

    def policy(self, channel: str) -> Policy:
        """See `Store.policy`."""
        return self.shared.read(lambda bus: bus.policy(channel))

    def guarded(self, channel: str) -> Guarded:
        """See `Store.guarded`."""
        return self.shared.read(lambda bus: bus.guarded(channel))

    def declare(self, channel: str, policy: Policy | None = None, *, is_default: bool = False) -> None:
        """See `Store.declare`.  While the remote does not answer, one that a post makes comes to be with it."""

        def verb(bus: FileStore) -> None:
            bus.declare(channel, policy, is_default=is_default)

        try:
            self.shared.do(f"channel {channel}", verb)
        except StoreUnavailable as error:
            if policy is not None and not is_default:
                raise
            self.shared.here(error, verb)
            self._waiting.declare(channel, policy)

    def count(self, channel: str) -> dict[State, int]:
        """See `Store.count`."""
        return self.shared.read(lambda bus: bus.count(channel))

    def strangers(self, channel: str) -> list[str]:
        """See `Store.strangers`."""
        return self.shared.read(lambda bus: bus.strangers(channel))

    def ids(self) -> list[str]:
        """See `Store.ids`."""
        return self.shared.read(lambda bus: bus.ids())

    def mend(self, now: int) -> list[str]:
        """See `Store.mend`."""
        here = self.local.mend(now)
        self._waiting.tentative.mend(now)
        if self.repo.tidy():
            here.append("put the packs of the clone together")
        return [HERE + line for line in here] + self.shared.do("sweep", lambda bus: bus.mend(now))

    def write_manifest(self, data: bytes) -> None:
        """See `Store.write_manifest`: on this host alone."""
        self.local.write_manifest(data)

    def manifest_age(self, now: int) -> int:
        """See `Store.manifest_age`."""
        return self.local.manifest_age(now)

    def close(self) -> None:
        """See `Store.close`."""
        self._last = self.away  # Who was told of a post asks afterwards whether it is there.
        self.repo.close()
        self.local.close()


def _told(old: Slot, new: Slot | None, entry: Attempt | Result | None) -> str:
    """Return a commit's message: what happened, to what, by whom, in words that a person reads."""
    task, on = old.id[-8:], f"on {old.channel}"
    if new is None:
        return f"forget {task} {on}"
    if isinstance(entry, Attempt):
        return f"{entry.outcome} {task} {on} by {entry.by}" + (f"\n\n{entry.note[:500]}" if entry.note else "")
    if entry is not None:
        return f"done {task} {on} by {entry.sender.agent}"
    if old.state is new.state:
        return f"renew {task} {on}"
    return f"claim {task} {on} by {new.lease.holder}" if new.lease else f"{new.state} {task} {on}"
