"""What one host knows of a bus at a git remote, and how what it changes gets there.

What is known is one commit, and a verb is a `FileStore`'s on that commit's tree.  What it changed becomes one commit
more; the remote takes it only if nobody was faster.  Else it is undone, the new head fetched, and the verb decided
again.  So what other processes and hosts see is always a commit that was pushed, and nothing half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mcp_bus.errors import BusError, Conflict, StoreUnavailable, Untrusted
from mcp_bus.stores import layout
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.git.calls import HereFailed
from mcp_bus.stores.git.repo import SEEN, Refused
from mcp_bus.stores.git.treefs import TreeFs

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Slot
    from mcp_bus.stores.file import FileStore
    from mcp_bus.stores.git.repo import Repo
    from mcp_bus.stores.git.stream import Change
    from mcp_bus.stores.git.waiting import Waiting

T = TypeVar("T")
TRIES = 40
# A remote that did not answer is asked again after this long.
AGAIN_MS = 30_000
HINT = "`mcp-bus sync` asks it at once"


class NoRemote(StoreUnavailable):
    """The remote does not answer, and what was asked for needs it: nothing was changed."""


class Asking(NamedTuple):
    """When the remote is asked: if what is known is so old; and at once, as the bus is opened, if `at_once`.

    Attributes:
        is_needed: whether a claim needs it; else it is tentative while the remote does not answer.
    """

    fresh_s: float
    at_once: bool = True
    is_needed: bool = True


class Host(NamedTuple):
    """What a host does its part with.

    Attributes:
        who: written into commits as their author.
        opened: opens a store on a medium that holds a commit's tree.
    """

    who: str
    opened: Callable[[Fs], FileStore]
    asking: Asking


class Shared:
    """The commit that is known, and what was changed since.

    Attributes:
        head: the commit; empty while there is none.
        files: the store on its tree; None while there is no bus there.
        synced: when the remote was last asked, by any process of this host; 0 for never.
        trouble: why it did not answer, when it was last asked in vain; None if it does.
        waiting: what this host did without the remote.
    """

    def __init__(self, repo: Repo, waiting: Waiting, source: Source, host: Host) -> None:
        """Know what this host knew before, and ask the remote if that is too old.

        Args:
            waiting: what is shown before it is pushed.

        Raises:
            Untrusted: the branch lost what it had.
        """
        self.repo, self._source, self._host = repo, source, host
        self.waiting = waiting
        self._fs = TreeFs(repo.read, source.now)
        self.head, self.synced = "", 0
        self.trouble: StoreUnavailable | None = None
        self._again_at = 0
        self.files: FileStore | None = None
        self.is_together = False
        with Fs().folder((repo.folder / SEEN).parent):
            pass  # To be watched before anything was seen.
        said, at = repo.trouble()
        if said and abs(source.now() - at) < AGAIN_MS:  # Not every process has to wait for what another one waited for.
            self.trouble, self._again_at = StoreUnavailable(said, hint=HINT), at + AGAIN_MS
        self.look(must=host.asking.at_once and self.trouble is None)

    @property
    def bus(self) -> FileStore:
        """The store on the tree that is known.

        Raises:
            StoreUnavailable: there is no bus there, or nothing is known of it and the remote does not answer.
        """
        if self.files is None:
            if self.trouble is not None:
                raise self.trouble
            msg = f"there is no bus on the branch {self.repo.branch!r} of {self.repo.shown!r}"
            raise StoreUnavailable(msg, hint="`mcp-bus init` with the same --bus makes one")
        return self.files

    # --- what is known ------------------------------------------------------------------------------

    def look(self, *, must: bool = False) -> None:
        """See whether the remote, or another process of this host, has moved on.

        Args:
            must: ask the remote whatever was known a moment ago.

        Raises:
            Untrusted: the branch lost what it had.
        """
        if self.is_together:  # What was changed so far stands on what is known.
            return
        head, self.synced = self.repo.seen()
        now, is_asked = self._source.now(), False
        if must or (abs(now - self.synced) >= self._host.asking.fresh_s * 1000 and self._is_due()):
            head, is_asked = self._asked(head), True
        # What another process of this host noted may be older than what this one has pushed.
        if head not in ("", self.head) and (is_asked or not self.head or self.repo.is_within(self.head, head)):
            self._undo()
            self._fs.load(self.repo.changed(self.head, head) if self.head else self.repo.entries(head))
            self.head = head
        if self.files is None and self.head:
            self.files = self._host.opened(self._fs)
        self.show()

    def _asked(self, seen: str) -> str:
        """Ask the remote for its head; what was seen before if it does not answer."""
        try:
            head = self.repo.fetch(seen)
        except StoreUnavailable as error:
            self._fails(error)
            return seen
        self._answers()
        if seen and seen != head and not (head and self.repo.is_within(seen, head)):
            msg = f"the branch {self.repo.branch!r} of {self.repo.shown!r} lost {seen[:12]}, which it had"
            hint = "find out who did that; `mcp-bus sync --accept-rewritten` takes it as it is now"
            raise Untrusted(msg, hint=hint)
        if head:
            self.synced = self._source.now()
            self.repo.see(head, seen, self.synced)
        return head

    def _fails(self, error: StoreUnavailable) -> None:
        """Leave the remote alone for a while: it does not answer.  It may, where it is this host that fails."""
        self.trouble, now = error, self._source.now()
        if isinstance(error, HereFailed):
            return
        self._again_at = now + AGAIN_MS
        self.repo.note(str(error), now)

    def _refusal(self) -> NoRemote:
        """Return the error for what needs the remote: since when it does not answer, and when it is asked again."""
        assert self.trouble is not None
        left = max(1, round((self._again_at - self._source.now()) / 1000))
        ago = max(0, AGAIN_MS // 1000 - left)
        msg = f"this needs the git remote, which did not answer {ago} s ago; nothing was changed ({self.trouble})"
        again = f"repeat the call, with all that belongs to it: the remote is asked again in {left} s"
        known = self.trouble.hint or ""
        is_plain = known == HINT or "ls-remote` reaches" in known or "git init" in known
        return NoRemote(msg, hint=f"{again}; {HINT}" if is_plain else f"{known}; then {again}")

    def _answers(self) -> None:
        if self.trouble is not None or self.repo.trouble()[0]:
            self.repo.note("", 0)
        self.trouble = None

    def show(self) -> None:
        """Show what this host did without the remote."""
        if self.files is not None:
            self.waiting.show(self.files, self._undo)

    # --- one verb -----------------------------------------------------------------------------------

    def read(self, verb: Callable[[FileStore], T]) -> T:
        """Do what changes nothing."""
        self.look()
        return verb(self.bus)

    def do(self, what: str, verb: Callable[[FileStore], T]) -> T:
        """Do something that changes what is shared; `what` is the commit's message."""
        if self.is_together:
            return verb(self.bus)
        self.look()
        return self._write(lambda _: what, lambda: verb(self.bus))

    def together(self, told: Callable[[T], str], work: Callable[[], T]) -> T:
        """Do several verbs as one commit, all of them again if somebody was faster; see `Store.together`.

        Raises:
            NoRemote: it does not answer, and something was to be changed: nothing of it was.
        """
        if self.is_together:
            return work()

        def verb() -> T:
            self.is_together = True
            try:
                return work()
            except BusError:
                self._undo()  # Half of it is nothing.
                raise
            finally:
                self.is_together = False

        self.look()
        return self._write(told, verb)

    def here(self, error: StoreUnavailable, verb: Callable[[FileStore], T]) -> T:
        """Do for this process alone what could not be pushed, if that is why; the next push takes it along.

        Raises:
            StoreUnavailable: that is not why, or nothing is known of the bus.
        """
        if not isinstance(error, NoRemote) or self.files is None:
            raise error
        self.show()
        return verb(self.files)

    def tentatively(self, error: StoreUnavailable, old: Slot, new: Slot) -> None:
        """Take, renew or give back a claim for this host alone, if the remote is why it could not be pushed.

        Raises:
            StoreUnavailable: that is not why.
            Conflict: another process of this host was faster.
        """
        if not isinstance(error, NoRemote) or self.files is None:
            raise error
        self.waiting.claim(old, new)
        self.show()

    def create(self) -> bool:
        """Make the bus on the remote's branch, or complete one that is there; tell whether it is new.

        Raises:
            InvalidRequest: the branch holds something else.
            StoreUnavailable: the remote cannot be reached.
        """
        self.ask()
        is_new = self.files is None
        here, fs, source = self.repo.folder.parent, self._fs, self._source
        self._write(lambda _: "init: a bus", lambda: layout.create(here, fs=fs, source=source, look=None))
        self.look()
        return is_new

    def ask(self) -> None:
        """Ask the remote now.

        Raises:
            StoreUnavailable: it does not answer.
        """
        self.look(must=True)
        if self.trouble is not None:
            raise self.trouble

    def sync(self) -> None:
        """Ask the remote now, and send what was posted while it did not answer."""
        self.ask()
        self._write(lambda _: f"sync: {self.waiting.told()}", lambda: None)

    def _write(self, told: Callable[[T], str], verb: Callable[[], T]) -> T:
        """Do something and push what it changed, as often as others are faster.

        Args:
            told: makes the commit's message of what the verb returned.

        Raises:
            Conflict: others were faster each time.
            StoreUnavailable: the remote cannot be reached; nothing was changed.
        """
        for _ in range(TRIES):
            failure, made, moves = None, list[T](), self._fs.moves
            try:
                made.append(verb())
            except BusError as error:  # What it put aside on the way stays put aside.
                failure = error
            except BaseException:
                self._undo()
                raise
            is_kept = self._is_cut_off() and self._fs.moves == moves  # What was done before is left for later.
            if not is_kept and not self._published(told(made[0]) if made else f"put aside: {failure}"):
                continue
            if failure is not None:
                raise failure
            return made[0]
        msg = f"the branch {self.repo.branch!r} moved on {TRIES} times while this was pushed"
        raise Conflict(msg, hint="repeat the call")

    def _published(self, what: str) -> bool:
        """Push what was changed; False, and the remote's new head taken, if somebody was faster."""
        try:
            changes = self._fs.changes()
            if changes:
                is_more = self.waiting.is_shown and not what.startswith("sync")
                self._push(changes, f"{what}\n\nwith {self.waiting.told()}" if is_more else what)
        except Refused:
            self._undo()
            self.look(must=True)
            if self.trouble is not None:
                raise self._refusal() from None
            self._pause()
            return False
        except (NoRemote, HereFailed):
            self._undo()
            raise
        except StoreUnavailable as error:
            self._undo()
            self._fails(error)
            raise self._refusal() from error
        except BaseException:
            self._undo()
            raise
        self._fs.settle("sha256" if len(self.head) == 64 else "sha1")
        if self.waiting.is_shown:
            self.waiting.sent()
        return True

    def _push(self, changes: list[Change], what: str) -> None:
        if self._is_cut_off():
            raise self._refusal()
        made = self.repo.commit(self.head, changes, (what, self._host.who, self._source.now()))
        self.repo.push(made, self.head)
        self._answers()
        self.synced = self._source.now()
        self.repo.see(made, self.head, self.synced)
        self.head = made

    def _is_cut_off(self) -> bool:
        """Tell whether the remote did not answer a moment ago."""
        return self.trouble is not None and not self._is_due()

    def _is_due(self) -> bool:
        """Tell whether a remote that did not answer is asked again; a clock that was set back keeps nobody waiting."""
        return not 0 < self._again_at - self._source.now() <= AGAIN_MS

    def _undo(self) -> None:
        self._fs.undo()
        self.waiting.undone()
        if self.files is not None:
            self.files.tree.forget()

    def _pause(self) -> None:
        """Let whoever was faster finish; of many, not all come back at the same moment."""
        import select  # noqa: PLC0415  rarely

        select.select([], [], [], int(self._source.token(1), 16) / 256 * 0.05)
