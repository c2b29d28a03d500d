"""The git command line: how it is started and ended, and what it says in the bus's own words."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord, StoreUnavailable
from mcp_bus.stores.git import hardened
from mcp_bus.stores.git.place import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 60.0
# How much is read of what git says of a tree: each name, twice as much of one that was changed.
NAMES, NAMES_BYTES = 500_000, 64 << 20
# Said by git where it stands in the way that this host's disk is full, broken or closed.
_DISK = re.compile(
    r"No space left|Out of diskspace|write error|Disk quota|Read-only file system|Input/output error|Permission denied"
)
# Said by git of a clone that lacks something, or is none.  Before what the remote says stands `remote:`.
_DAMAGE = re.compile(
    r"^(?:fatal|error): (?:not a git repository: '|bad (?:config|object|tree|signature|index)|mismatched algorithms"
    r"|could not read [0-9a-f]{8}|unable to (?:read|parse|unpack|open object)|inflate|missing |.*corrupt|.*packfile"
    r"|.*hash algorithm|.*reference broken|.*\.lock': File exists|.*did not send all necessary objects"
    r"|.*pack-objects died)",
    re.IGNORECASE | re.MULTILINE,
)
# Said by git of a file of settings: the clone's, the user's, or the machine's.
_SETTINGS = re.compile(r"^(?:fatal|error): bad config .*in file '?([^'\n]+?)'?(?: at line \d+)?$", re.MULTILINE)
# What lines begin with that say more than the others.
_FIRST = ("fatal:", "error:", "remote:")
# What to do when git says one of these words.
_ADVICE = (
    (("No space left", "Out of diskspace", "write error", "Disk quota"), "free some space, then repeat the call"),
    (
        ("ost key verification failed", "authenticity of host"),
        "`ssh HOST` shows its key and asks whether to trust it; `ssh-keygen -R HOST` forgets one that it had before",
    ),
    (
        ("uthentication", "ermission denied", "could not read Username", "could not read Password", "error: 403"),
        "check your credentials: `git ls-remote` with that remote must work without asking, and you must be let push",
    ),
    (
        ("not our ref", "remote: fatal:", "remote unpack failed"),
        "look at that repository: whether its disk is full, and what `git fsck` says",
    ),
    (
        ("exists; cannot create",),
        "there cannot be a branch `a` beside a branch `a/b`: name another one, `git+REMOTE#OTHER`",
    ),
    (
        ("does not appear to be a git repository", "not found"),
        "check the address; `git init --bare` makes one where you may",
    ),
)


class HereFailed(StoreUnavailable):
    """It is this host's disk that fails, not the remote: what is posted cannot be kept here either."""


class Damaged(HereFailed):
    """The clone of this host lacks something, or is none."""


class Calls:
    """Runs git for one clone."""

    def __init__(self, folder: Path, remote: str, environment: Mapping[str, str], timeout_s: float) -> None:
        """Run it with `folder` as its repository; nothing is started yet.

        Args:
            timeout_s: how long the remote may take to answer.
        """
        self.folder = folder
        self.remote = remote
        self.shown = shown(remote)
        self._timeout_s = timeout_s
        self._environment = hardened.environment(environment)

    def _words(self, *words: str, is_here: bool = True) -> list[str]:
        settings = [word for name, value in hardened.SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return ["git", *([f"--git-dir={self.folder}"] if is_here else []), *settings, *words]

    def _call(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        is_remote: bool = False,
        is_here: bool = True,
        is_traced: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end, in a session of its own so that nothing it starts can ask on the terminal."""
        traced = {"GIT_TRACE_PACKET": "1"} if is_traced else {}
        try:
            child = subprocess.Popen(  # noqa: S603  git, with words of our own
                self._words(*words, is_here=is_here),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment | traced,
                start_new_session=True,
            )
        except FileNotFoundError:
            msg = "git is not installed, or not on PATH"
            raise StoreUnavailable(msg, hint="install git 2.36 or newer") from None
        try:
            out, err = child.communicate(stdin, timeout=self._timeout_s if is_remote else None)
        except subprocess.TimeoutExpired:
            msg = f"the remote {self.shown!r} did not answer within {self._timeout_s:g} s"
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
    ) -> bytes:
        done = self._call(words, stdin=stdin, is_remote=is_remote, is_here=is_here)
        if done.returncode and not may_fail:
            raise self._failed(words, done, is_remote=is_remote)
        return done.stdout

    def _bounded(self, *words: str) -> bytes:
        """Return what git says of a tree in the clone.

        Raises:
            CorruptRecord: it is more than a bus has; git is ended, and no more of it is read.
        """
        with subprocess.Popen(  # noqa: S603  git, with words of our own
            self._words(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            try:
                said = child.stdout.read(NAMES_BYTES + 1)
                if len(said) > NAMES_BYTES or said.count(0) > NAMES:
                    size = f"{NAMES} names, or {NAMES_BYTES >> 20} MiB of them"
                    msg = f"the commit {words[-1][:12]} of {self.shown!r} has more than {size}"
                    hint = "`git log` there says who made them; who may push there can take that commit back"
                    raise CorruptRecord(msg, hint=hint)
                told = child.stderr.read()
            finally:
                child.kill()  # Does nothing to one that has ended.
        done = subprocess.CompletedProcess(words, child.returncode, said, told)
        if done.returncode:
            raise self._failed(words, done, is_remote=False)
        return said

    def _failed(
        self, words: Sequence[str], done: subprocess.CompletedProcess[bytes], *, is_remote: bool
    ) -> StoreUnavailable:
        """Return what git said as an error: of the remote, of this host's disk, or of the clone."""
        said, also = (part.decode(errors="replace").strip() for part in (done.stderr, done.stdout))
        told, hint = _told(said, also)
        told = shown(told)[:300] or f"exit code {done.returncode}"
        broken = _SETTINGS.search(said)
        is_foreign = broken is not None and self.folder not in Path(broken[1]).parents
        if is_remote and (is_foreign or _DISK.search(said) or not _DAMAGE.search(said)):
            return StoreUnavailable(f"git {words[0]} of {self.shown!r} failed: {told}", hint=hint)
        msg = f"git {words[0]} in {str(self.folder)!r} failed: {told}"
        if broken is not None and is_foreign:
            hint = f"mend that file: `git config --file {shlex.quote(broken[1])} --list` says what is wrong in it"
            return HereFailed(msg, hint=hint)
        if done.returncode < 0 or (_DISK.search(said) and not is_remote):
            is_full = hint == _ADVICE[0][1]
            return HereFailed(msg, hint=hint if is_full else "look at that disk and whose that folder is, then repeat")
        return Damaged(msg, hint="remove that folder: it is fetched anew, and posts that wait are not in it")


def _told(said: str, also: str) -> tuple[str, str]:
    """Return the line that says most of what git said, and what to do about it.

    Args:
        also: what a push prints of the branch.
    """
    lines = said.splitlines()
    for words, hint in _ADVICE:
        for line in lines:
            if any(word in line for word in words):
                return line.strip(), hint
    refusal = "".join(re.findall(r"\[remote rejected\].*", also)[:1])
    if refusal:
        told = next((line for line in lines if line.startswith("remote:")), refusal)
        return told.strip(), "who keeps that repository says who may push to this branch"
    if len(lines) > 1 and lines[0].strip() and lines[1].startswith("fatal: Could not read from remote repository"):
        told = lines[0]  # Of ssh, which says why.
    else:
        told = next((line for line in lines if line.startswith(_FIRST)), lines[-1] if lines else "")
    return told.strip(), "see whether `git ls-remote` reaches it, then repeat the call"
