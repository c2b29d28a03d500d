"""A bare clone on this host, and the git command line underneath it.

Nothing of a repository is ever checked out: trees and files are read as objects and written as objects, so that its
hooks, filters, attributes, links and submodules have nothing to act on.  The one thing that decides between hosts is
`push`: the remote takes a commit only if its parent is the head it has.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import CorruptRecord, StoreUnavailable
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.git import hardened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
TIMEOUT_S = 60.0
# Where the head that was seen last is remembered: a remote that no longer has it was rewritten.
SEEN = "refs/mcp-bus/seen"
# Where a process keeps the commit that it is about to push, so that nothing takes it for garbage.
NEXT = "refs/mcp-bus/next"
# Each commit is a pack of its own until there are so many.
PACKS = 100
# Why the remote did not answer, while it does not.
TROUBLE = "unanswered"
# Said by git of a push that came second, here or where the remote compares; not of one that a hook there declines.
_LATE = re.compile(
    r"\[rejected\]|\[remote rejected\] \((?:cannot lock ref|failed to update ref|incorrect old value|reference already)"
)


class Refused(Exception):
    """A push came second: the remote's head is another one by now."""


class Change(NamedTuple):
    """What a commit does to one path: its new bytes, or None to remove it, a folder with all that is in it."""

    path: str
    data: bytes | None
    is_executable: bool = False


class Repo:
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
        self.folder = folder
        self.remote = remote
        self.branch = branch
        self._timeout_s = timeout_s
        self._environment = hardened.environment(environment)
        self._reader: subprocess.Popen[bytes] | None = None
        self._next = f"{NEXT}/{os.getpid()}-{os.urandom(4).hex()}"
        if not (folder / "HEAD").exists():
            self._make()

    def _make(self) -> None:
        """Make the clone, whole or not at all: another process of this host may do so at the same moment."""
        fs, draft = Fs(), f"{self.folder.name}.{os.urandom(4).hex()}"
        with fs.folder(self.folder.parent) as at:
            where = str(self.folder.with_name(draft))
            self._run("init", "--quiet", "--bare", "--template=", "--initial-branch=none", where, is_here=False)
            try:
                fs.rename(draft, at, self.folder.name, at)
            except OSError as error:
                fs.rmtree(draft, at)
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    # --- reading ------------------------------------------------------------------------------------

    def seen(self) -> tuple[str, int]:
        """Return the commit that the branch had when it was last asked, and when that was; empty and 0 before."""
        path = self.folder / SEEN
        try:
            return path.read_text("ascii").strip(), path.stat().st_mtime_ns // 1_000_000
        except (FileNotFoundError, UnicodeError):  # Packed, or not there yet.
            return self._run("rev-parse", "--verify", "--quiet", SEEN, may_fail=True).decode().strip(), 0

    def entries(self, commit: str) -> list[tuple[str, str, str]]:
        """Return mode, object and path of all that is in a commit."""
        return [_entry(line) for line in _split(self._run("ls-tree", "-r", "-z", "--full-tree", commit))]

    def changed(self, old: str, new: str) -> list[tuple[str, str, str]]:
        """Return mode, object and path of what differs in `new`; of what is gone, the mode is `000000`."""
        parts = _split(self._run("diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", old, new))
        heads = (head.split(" ") for head in parts[::2])
        return [(head[1], head[3], path) for head, path in zip(heads, parts[1::2], strict=True)]

    def read(self, oid: str, limit: int = 0) -> bytes:
        """Return a file's bytes.

        Raises:
            CorruptRecord: they are more than `limit`, if there is one.
        """
        if self._reader is None or self._reader.poll() is not None:
            self._reader = subprocess.Popen(  # noqa: S603  git, with words of our own
                self._words("cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process, which may want to read once more.
            )
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.stdin.write(f"{oid}\n".encode())
        self._reader.stdin.flush()
        head = self._reader.stdout.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            self.close()
            msg = f"the clone {str(self.folder)!r} lacks an object of its branch: {oid}"
            raise StoreUnavailable(msg, hint="remove that folder: it is fetched anew")
        if limit and int(head[2]) > limit:
            self.close()
            msg = f"an object has {int(head[2])} bytes, the limit is {limit}"
            raise CorruptRecord(msg)
        data = self._reader.stdout.read(int(head[2]) + 1)
        return data[:-1]

    def is_within(self, old: str, new: str) -> bool:
        """Tell whether a commit has another one before it."""
        return self._run("merge-base", "--is-ancestor", old, new, may_fail=True, wants_code=True) == b"0"

    def told(self, old: str, new: str) -> list[str]:
        """Return who did what between two commits, oldest first, as their messages say."""
        if not new or old == new:
            return []
        span = f"{old}..{new}" if old else new
        said = self._run("log", "--reverse", "--first-parent", "--format=%cn: %s", "-n", "1000", span, "--")
        return said.decode(errors="replace").splitlines()

    def made(self, commit: str) -> int:
        """Return when a commit was made, in milliseconds, as the host that made it says; 0 if there is none."""
        said = self._run("log", "-1", "--format=%ct", commit, "--") if commit else b""
        return int(said.strip() or b"0") * 1000

    def forget(self) -> str:
        """Forget what the branch had when it was last asked; return it."""
        head, _ = self.seen()
        if head:
            self._run("update-ref", "-d", SEEN)
        return head

    # --- the remote ---------------------------------------------------------------------------------

    def fetch(self, known: str) -> str:
        """Get what the remote has; return its head, empty if it has no such branch.

        Args:
            known: a commit that is here.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses.
        """
        ref = f"refs/heads/{self.branch}"
        said = self._run("ls-remote", "--", self.remote, ref, is_remote=True).decode(errors="replace")
        found = [line.split("\t")[0] for line in said.splitlines() if line.endswith(f"\t{ref}")]
        if not found:
            return ""
        if not OID.match(found[0]):
            msg = f"the remote {self.remote!r} says that its head is {found[0][:80]!r}"
            raise StoreUnavailable(msg, hint="find out what answers there")
        is_here = found[0] == known or self._run("cat-file", "-e", f"{found[0]}^{{commit}}", wants_code=True) == b"0"
        if not is_here:
            own = f"{self._next}-fetched"  # Of two processes that write one name, one would fail.
            words = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
            self._run("fetch", *words, "--", self.remote, f"+{ref}:{own}", is_remote=True)
            # It may have gone on meanwhile.
            return self._run("rev-parse", "--verify", f"{own}^{{commit}}").decode().strip()
        return found[0]

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
            self._run("update-ref", "--no-deref", SEEN, head, before or "0" * len(head), may_fail=True)
        fs, path = Fs(), self.folder / SEEN
        with suppress(FileNotFoundError), fs.folder(path.parent) as at:
            fs.touch(path.name, at, now)

    def trouble(self) -> tuple[str, int]:
        """Return why the remote did not answer any process of this host, and when that was; empty and 0 if it did."""
        path = self.folder / TROUBLE
        try:
            return path.read_text("utf-8", errors="replace"), path.stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return "", 0

    def note(self, trouble: str, now: int) -> None:
        """Note why the remote does not answer, for the other processes of this host; empty once it does."""
        fs, draft = Fs(), f"{TROUBLE}.{os.getpid()}"
        with suppress(FileNotFoundError), fs.folder(self.folder) as at:
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
        message, who, at_ms = about
        name = re.sub(r"[<>\x00-\x1f]", "", who).strip() or "mcp-bus"
        lines = [
            b"feature done",
            f"commit {self._next}".encode(),
            b"mark :1",
            f"committer {name} <bus@localhost> {at_ms // 1000} +0000".encode(),
            b"data %d" % len(message.encode()),
            message.encode(),
        ]
        lines += [f"from {parent}".encode()] if parent else []
        for path, data, is_executable in changes:
            if data is None:
                lines.append(b"D " + _quoted(path))
            else:
                mode = b"100755" if is_executable else b"100644"
                lines += [b"M " + mode + b" inline " + _quoted(path), b"data %d" % len(data), data]
        lines += [b"get-mark :1", b"done", b""]
        return self._run("fast-import", "--quiet", "--force", stdin=b"\n".join(lines)).decode().strip()

    def push(self, commit: str, expected: str) -> None:
        """Make a commit the remote's head; that it took it is the one thing that decides anything.

        Args:
            expected: the head that it must have; empty where the branch is to be new.

        Raises:
            Refused: another one was first.
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
        said = (done.stdout + done.stderr).decode(errors="replace")
        if _LATE.search(said):
            raise Refused(said.strip()[-300:])
        raise self._failed(words, done)

    def tidy(self) -> bool:
        """Put the small packs of many commits together, if there are many; tell whether it was done."""
        if len(list((self.folder / "objects" / "pack").glob("*.pack"))) <= PACKS:
            return False
        names = self._run("for-each-ref", "--format=%(refname)", f"{NEXT}/", may_fail=True).decode().splitlines()
        over = "".join(
            f"delete {name}\n" for name in names if not _is_running(name.rpartition("/")[2].partition("-")[0])
        )
        self._run("update-ref", "--no-deref", "--stdin", stdin=over.encode(), may_fail=True)
        self._run("gc", "--quiet", "--prune=2.weeks.ago", may_fail=True)
        return True

    def close(self) -> None:
        """End the process that reads."""
        if self._reader is not None:
            for pipe in (self._reader.stdin, self._reader.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            self._reader.wait()
            self._reader = None

    # --- git ----------------------------------------------------------------------------------------

    def _words(self, *words: str, is_here: bool = True) -> list[str]:
        settings = [word for name, value in hardened.SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return ["git", *([f"--git-dir={self.folder}"] if is_here else []), *settings, *words]

    def _call(
        self, words: Sequence[str], *, stdin: bytes = b"", is_remote: bool = False, is_here: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end, in a session of its own so that nothing it starts can ask on the terminal."""
        try:
            child = subprocess.Popen(  # noqa: S603  git, with words of our own
                self._words(*words, is_here=is_here),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            msg = "git is not installed, or not on PATH"
            raise StoreUnavailable(msg, hint="install git 2.36 or newer") from None
        try:
            out, err = child.communicate(stdin, timeout=self._timeout_s if is_remote else None)
        except subprocess.TimeoutExpired:
            msg = f"the remote {self.remote!r} did not answer within {self._timeout_s:g} s"
            raise StoreUnavailable(
                msg, hint="look at the network; MCP_BUS_GIT_TIMEOUT_S says how long to wait"
            ) from None
        finally:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def _run(
        self,
        *words: str,
        stdin: bytes = b"",
        is_remote: bool = False,
        is_here: bool = True,
        may_fail: bool = False,
        wants_code: bool = False,
    ) -> bytes:
        done = self._call(words, stdin=stdin, is_remote=is_remote, is_here=is_here)
        if wants_code:
            return str(done.returncode).encode()
        if done.returncode and not may_fail:
            raise self._failed(words, done)
        return done.stdout

    def _failed(self, words: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> StoreUnavailable:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        # ssh says why above git's word that it could not read.
        why = [line for line in said if "ermission denied" in line]
        why += [line for line in said if line.startswith(("fatal:", "error:", "remote:"))]
        told = next(iter(why + said[-1:]), "")
        msg = f"git {words[0]} of {self.remote!r} failed: {told[:300] or f'exit code {done.returncode}'}"
        return StoreUnavailable(msg, hint=_hint(told))


def _is_running(pid: str) -> bool:
    """Tell whether a process of this host is there, or may be."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _hint(told: str) -> str:
    if "uthentication" in told or "ermission denied" in told or "could not read Username" in told:
        return "check your credentials: `git ls-remote` with that remote must work without asking"
    if "No space left" in told:
        return "free some space, then repeat the call"
    if "does not appear to be a git repository" in told or "not found" in told:
        return "check the address; `git init --bare` makes one where you may"
    return "see whether `git ls-remote` reaches it, then repeat the call"


def _split(data: bytes) -> list[str]:
    return [part.decode(errors="surrogateescape") for part in data.split(b"\0")[:-1]]


def _entry(line: str) -> tuple[str, str, str]:
    about, _, path = line.partition("\t")
    mode, _, oid = about.split(" ")
    return mode, oid, path


def _quoted(path: str) -> bytes:
    """Return a path as fast-import reads it, whatever is in it."""
    data = path.encode(errors="surrogateescape")
    plain = b"".join(bytes([c]) if 32 <= c < 127 and c not in b'"\\' else b"\\%03o" % c for c in data)
    return b'"' + plain + b'"'
