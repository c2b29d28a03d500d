"""A bare clone on this host, and the git command line underneath it.

Nothing of a repository is ever checked out: trees and files are read as objects and written as objects, so that its
hooks, filters, attributes, links and submodules have nothing to act on.  The one thing that decides between hosts is
`push`: the remote takes a commit only if its parent is the head it has.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from mcp_bus.errors import StoreUnavailable
from mcp_bus.identity import process
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.git import renewing, stream
from mcp_bus.stores.git.blobs import Blobs
from mcp_bus.stores.git.calls import TIMEOUT_S, Calls, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from mcp_bus.stores.git.stream import Change

T = TypeVar("T")
OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
# Where the head that was seen last is remembered: a remote that no longer has it was rewritten.
SEEN = "refs/mcp-bus/seen"
# Where a process keeps the commit that it is about to push, so that nothing takes it for garbage.
NEXT = "refs/mcp-bus/next"
# Each commit is a pack of its own until there are so many.
PACKS = 100
# Why the remote did not answer, while it does not.
TROUBLE = "unanswered"
# How often a process makes a clone anew that is damaged again.
RENEWALS = 3
# A lock is held for moments: one as old as this is of a git that was killed.
STALE_MS = 60_000
# Said by git of a push that came second, here or where the remote compares; not of one that a hook there declines.
_LATE = re.compile(
    rb"^!.*\[(?:rejected\]|remote rejected\] \((?:cannot lock|failed to update|incorrect old value|reference already))",
    re.MULTILINE,
)
# After so many refusals with the same head there, nobody is faster: something else is in the way.
UNMOVED = 5


class Refused(Exception):
    """A push came second: the remote's head is another one by now."""


class Repo(Calls):
    """One branch of one remote, as this host last saw it."""

    def __init__(
        self, folder: Path, remote: str, branch: str, *, environment: Mapping[str, str], timeout_s: float = TIMEOUT_S
    ) -> None:
        """Use the bare clone at `folder`, made if it is missing; nothing is fetched yet.

        Args:
            environment: what git is started with: PATH, HOME, what it needs to reach the remote.
            remote: what git takes as one: a URL, `host:path`, or an absolute path.
            branch: its name, without `refs/heads/`.
        """
        super().__init__(folder, remote, environment, timeout_s)
        self.branch = branch
        self._blobs = Blobs(folder, self._words("cat-file", "--batch"), self._environment)
        self._next = f"{NEXT}/{os.getpid()}-{os.urandom(4).hex()}"
        self._renewals = 0
        self._made = 0
        # The head on which a push was refused last, and how often.
        self._late = "", 0
        if not folder.exists():
            self.make()
        self._made = renewing.number(folder)

    def make(self, algorithm: str = "sha1") -> None:
        """Make the clone, whole or not at all: another process of this host may do so at the same moment.

        Args:
            algorithm: of its objects, which must be the remote's.
        """
        fs, draft = Fs(), f"{self.folder.name}.{os.urandom(4).hex()}"
        with fs.folder(self.folder.parent) as at:
            words = ("--quiet", "--bare", "--template=", "--initial-branch=none", f"--object-format={algorithm}")
            self._run("init", *words, str(self.folder.with_name(draft)), is_here=False)
            try:
                fs.rename(draft, at, self.folder.name, at)
            except OSError as error:
                fs.rmtree(draft, at)
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def _sound(self, verb: Callable[[], T]) -> T:
        """Do something; where the clone turns out to be damaged, make it anew and do it once more."""
        try:
            return verb()
        except Damaged as error:
            self._renew(error)
        return verb()

    def _renew(self, error: Damaged) -> None:
        """Make the clone anew, unless another process of this host has done so meanwhile.

        Raises:
            StoreUnavailable: it cannot be; `error` says why it had to.
        """
        self.close()
        if renewing.number(self.folder) in (0, self._made):
            if self._renewals >= RENEWALS:
                raise error
            self._renewals += 1
            renewing.renew(self, error)
        self._made = renewing.number(self.folder)

    def beside(self, folder: Path) -> Repo:
        """Return an empty clone of the same at another folder, which is never made anew."""
        made = Repo(folder, self.remote, self.branch, environment=self._environment, timeout_s=self._timeout_s)
        made._renewals = RENEWALS
        return made

    # --- reading ------------------------------------------------------------------------------------

    def seen(self) -> tuple[str, int]:
        """Return the commit that the branch had when it was last asked, and when that was; empty and 0 before."""
        path = self.folder / SEEN
        with suppress(FileNotFoundError, NotADirectoryError):  # Packed, or not there yet.
            head, at = path.read_bytes().decode("ascii", errors="replace").strip(), path.stat().st_mtime_ns // 1_000_000
            if OID.match(head):
                return head, at
            self._drop(SEEN)  # Emptied or overwritten by somebody: git itself would go no further.
        return self._run("rev-parse", "--verify", "--quiet", SEEN, may_fail=True).decode().strip(), 0

    def _drop(self, name: str) -> None:
        """Remove a file of the clone."""
        fs, path = Fs(), self.folder / name
        with suppress(OSError), fs.folder(path.parent) as at:
            fs.unlink(path.name, at)

    def entries(self, commit: str) -> list[tuple[str, str, str]]:
        """Return mode, object and path of all that is in a commit."""
        return [stream.entry(line) for line in self._names("ls-tree", "-r", "-z", "--full-tree", commit)]

    def changed(self, old: str, new: str) -> list[tuple[str, str, str]]:
        """Return mode, object and path of what differs in `new`; of what is gone, the mode is `000000`."""
        parts = self._names("diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", old, new)
        heads = (head.split(" ") for head in parts[::2])
        return [(head[1], head[3], path) for head, path in zip(heads, parts[1::2], strict=True)]

    def _names(self, *words: str) -> list[str]:
        return stream.split(self._sound(lambda: self._bounded(*words)))

    def read(self, oid: str, limit: int = 0) -> bytes:
        """Return a file's bytes.

        Raises:
            CorruptRecord: they are more than `limit`, if there is one.
        """
        return self._sound(lambda: self._blobs.read(oid, limit))

    def is_within(self, old: str, new: str) -> bool:
        """Tell whether a commit has another one before it."""
        words = ("merge-base", "--is-ancestor", old, new)
        done = self._call(words)
        if done.returncode in (0, 1):
            return done.returncode == 0
        failure = self._failed(words, done, is_remote=False)
        if not isinstance(failure, Damaged):
            raise failure
        self._renew(failure)
        return self._call(words).returncode == 0  # What a new clone lacks is not on the branch.

    def told(self, old: str, new: str) -> list[str]:
        """Return who did what between two commits, oldest first, as their messages say."""
        if not new or old == new:
            return []
        span = f"{old}..{new}" if old else new
        words = ("log", "--reverse", "--first-parent", "--format=%cn: %s", "-n", "1000", span, "--")
        said = self._sound(lambda: self._run(*words))
        return said.decode(errors="replace").split("\n")[:-1]  # Not at what else ends a line: it may be in a message.

    def made(self, commit: str) -> int:
        """Return when a commit was made, in milliseconds, as the host that made it says; 0 if there is none."""
        said = self._run("log", "-1", "--format=%ct", commit, "--") if commit else b""
        return int(said.strip() or b"0") * 1000

    def forget(self) -> str:
        """Forget what the branch had when it was last asked; return it."""
        head, _ = self.seen()
        if head:
            self._run("update-ref", "-d", SEEN, may_fail=True)
            self._drop(SEEN)  # Git touches none that it cannot read.
            if self.seen()[0]:
                msg = f"what was seen of the branch cannot be forgotten: {str(self.folder / 'packed-refs')!r} is locked"
                raise StoreUnavailable(msg, hint="if no git runs there, remove packed-refs.lock beside it")
        return head

    # --- the remote ---------------------------------------------------------------------------------

    def fetch(self, known: str) -> str:
        """Get what the remote has; return its head, empty if it has no such branch.

        Args:
            known: a commit that is here.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses.
        """
        return self._sound(lambda: self._fetch(known))

    def ask(self) -> str:
        """Return the remote's head, without getting it; empty if it has no such branch.

        Raises:
            StoreUnavailable: it cannot be reached, or says something else.
        """
        ref = f"refs/heads/{self.branch}"
        said = self._far("ls-remote", "--", self.remote, ref, look=("rev-parse", "--git-dir")).decode(errors="replace")
        found = [line.split("\t")[0] for line in said.splitlines() if line.endswith(f"\t{ref}")]
        if not found:
            self._is_git()
            return ""
        if not OID.match(found[0]):
            msg = f"the remote {self.shown!r} says that its head is {found[0][:80]!r}"
            raise StoreUnavailable(msg, hint="find out what answers there")
        return found[0]

    def _far(self, *words: str, look: Sequence[str]) -> bytes:
        """Ask the remote; where that fails, see by `look` whether the clone is why."""
        try:
            return self._run(*words, is_remote=True)
        except StoreUnavailable:
            self._run(*look)
            raise

    def _is_git(self) -> None:
        """Make sure that git has answered where no branch is told of: over HTTP, a page of anything looks like that.

        Raises:
            StoreUnavailable: something else did.
        """
        if self.remote.startswith("http"):
            done = self._call(("ls-remote", "--", self.remote), is_remote=True, is_traced=True)
            if b" packet: " not in done.stderr:
                msg = f"what answers at {self.shown!r} does not speak git's protocol"
                raise StoreUnavailable(msg, hint="look at it with a browser: a network may want you to sign in first")

    def _fetch(self, known: str) -> str:
        head = self.ask()
        if head not in ("", known) and self._call(("cat-file", "-e", f"{head}^{{commit}}")).returncode:
            own = f"{self._next}-fetched"  # Of two processes that write one name, one would fail.
            ref = f"refs/heads/{self.branch}"
            # A remote may be shallow itself; what this host has seen is looked for in what it has of the history.
            words = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--update-shallow")
            self._far(
                "fetch", *words, "--", self.remote, f"+{ref}:{own}", look=("rev-list", "--quiet", "--objects", "--all")
            )
            # It may have gone on meanwhile.
            return self._run("rev-parse", "--verify", f"{own}^{{commit}}").decode().strip()
        return head

    def remember(self, head: str) -> None:
        """Remember a head that was seen, though it may not be here."""
        if self._call(("update-ref", "--no-deref", SEEN, head)).returncode:
            fs, path = Fs(), self.folder / SEEN
            with fs.folder(path.parent) as at:
                fs.create(path.name, at, head.encode(), sync=True)

    def branches(self) -> list[str]:
        """Return the names of all branches that the remote has.

        Raises:
            StoreUnavailable: it cannot be reached.
        """
        said = self._run("ls-remote", "--heads", "--", self.remote, is_remote=True).decode(errors="replace")
        return [line.partition("\trefs/heads/")[2] for line in said.splitlines()]

    def see(self, head: str, before: str, now: int) -> None:
        """Remember the remote's head, and that it has it now; a process of this host that waits is told by it.

        Args:
            before: what was remembered when it was asked: what somebody noted since is newer, and stays.
        """
        if head != before:
            words = ("update-ref", "--no-deref", SEEN, head, before or "0" * len(head))
            if self._call(words).returncode and self._unlocked(now):
                self._call(words)
        fs, path = Fs(), self.folder / SEEN
        with suppress(OSError), fs.folder(path.parent) as at:
            fs.touch(path.name, at, now)

    def _unlocked(self, now: int) -> bool:
        """Remove the lock that a git which was killed left on what is remembered; tell whether there was one."""
        lock = f"{SEEN}.lock"
        try:
            age = abs(now - (self.folder / lock).stat().st_mtime_ns // 1_000_000)
        except OSError:
            return False
        if age > STALE_MS:
            self._drop(lock)
        return age > STALE_MS

    def trouble(self) -> tuple[str, int]:
        """Return why the remote did not answer any process of this host, and when that was; empty and 0 if it did."""
        path = self.folder / TROUBLE
        try:
            return path.read_text("utf-8", errors="replace"), path.stat().st_mtime_ns // 1_000_000
        except OSError:
            return "", 0

    def note(self, trouble: str, now: int) -> None:
        """Note why the remote does not answer, for the other processes of this host; empty once it does."""
        fs, draft = Fs(), f"{TROUBLE}.{os.getpid()}"
        # Where the disk is full, each finds out for itself.
        with suppress(OSError), fs.folder(self.folder) as at:
            if not trouble:
                fs.unlink(TROUBLE, at)
                return
            with suppress(FileNotFoundError):
                fs.unlink(draft, at)  # Of a process of that number that was killed here.
            fs.create(draft, at, trouble.encode(errors="replace")[:2000], sync=False)
            fs.touch(draft, at, now)
            fs.rename(draft, at, TROUBLE, at)

    def commit(self, parent: str, changes: Iterable[Change], about: tuple[str, str, int]) -> str:
        """Write a commit, which nobody sees before it is pushed; return it.

        Args:
            parent: the one before it; empty for the first.
            about: its message, its author's name, and when it is, in milliseconds.
        """
        whole = stream.commit(self._next, parent, changes, about)
        return self._sound(lambda: self._run("fast-import", "--quiet", "--force", stdin=whole)).decode().strip()

    def push(self, commit: str, expected: str) -> None:
        """Make a commit the remote's head; that it took it is the one thing that decides anything.

        Args:
            expected: the head that it must have; empty where the branch is to be new.

        Raises:
            Refused: another one was first, or the clone had to be made anew.
            StoreUnavailable: the remote cannot be reached, or does not let this user write.
        """
        self._push(commit, expected)

    def may_push(self, head: str) -> None:
        """Raise what a push would, as far as the remote says that before anything is changed.

        Raises:
            StoreUnavailable: the remote cannot be reached, or does not let this user write.
        """
        with suppress(Refused):  # Somebody else was faster; that it compares is enough.
            self._push(head, head, "--dry-run")

    def _push(self, commit: str, expected: str, *how: str) -> None:
        ref = f"refs/heads/{self.branch}"
        lease = f"--force-with-lease={ref}:{expected}"
        words = ("push", "--quiet", "--porcelain", "--no-verify", *how, lease, "--", self.remote, f"{commit}:{ref}")
        done = self._call(words, is_remote=True)
        if done.returncode == 0:
            return
        if _LATE.search(done.stdout):
            self._late = expected, self._late[1] * (self._late[0] == expected) + 1
            if self._late[1] < UNMOVED:
                raise Refused(done.stdout.decode(errors="replace").strip()[-300:])
            self._late = "", 0
        failure = self._failed(words, done, is_remote=True)
        if isinstance(failure, Damaged):
            self._renew(failure)  # The commit is not in the new one: it is made again, on what is there now.
            raise Refused(str(failure))
        raise failure

    def tidy(self) -> bool:
        """Put the small packs of many commits together, if there are many; tell whether it was done."""
        if len(list((self.folder / "objects" / "pack").glob("*.pack"))) <= PACKS:
            return False
        names = self._run("for-each-ref", "--format=%(refname)", f"{NEXT}/", may_fail=True).decode().splitlines()
        over = "".join(f"delete {name}\n" for name in names if not _is_used(name.rpartition("/")[2].partition("-")[0]))
        self._run("update-ref", "--no-deref", "--stdin", stdin=over.encode(), may_fail=True)
        self._run("gc", "--quiet", "--prune=2.weeks.ago", may_fail=True)
        return True

    def close(self) -> None:
        """End the process that reads."""
        self._blobs.close()


def _is_used(pid: str) -> bool:
    """Tell whether the process that made a ref may be there."""
    return pid.isdecimal() and process.is_running(int(pid[:10]), 0)
