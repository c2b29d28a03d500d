"""Where a git bus is: its address, and the directory on this host that stands for it.

    <bus>/git.json     remote and branch; with it a directory is a host's part of a git bus
    <bus>/repo.git     the bare clone, all that is shared
    <bus>/…            what is of this host alone: journal, logs, pipes, runs, outputs, what hooks have told

So every program that is given the directory, or `git+<remote>`, works on the same bus.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.stores.away import NAME, SCHEME
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from pathlib import Path

CLONE = "repo.git"
BRANCH = "mcp-bus"
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,200}\Z")
# `ssh://…`, `https://…`, `file://…`, `git://…`, `user@host:path`, or a path.
_URL = re.compile(r"(?:file|git|https?|ssh)://[^\s\x00-\x1f-][^\s\x00-\x1f]*\Z")
# What stands before the host in an address, to the last `@`: a password may have some, and spaces and quotes too.
_BEFORE_HOST = re.compile(r"(\w*)://([^/\n]*)@")
_SCP = re.compile(
    r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!//|-)[^\s\x00-\x1f:][^\s\x00-\x1f]*\Z"
)


class Address(NamedTuple):
    """A branch of a remote."""

    remote: str
    branch: str = BRANCH

    @property
    def folder(self) -> str:
        """A name for the directory that stands for it, the same at each call."""
        bare = _BEFORE_HOST.sub(r"\1://", self.remote)  # Of an address without a path, this is in what comes last.
        word = re.sub(r"[^A-Za-z0-9.-]+", "-", bare.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
        return f"{word.strip('.-')[:40] or 'bus'}-{hashlib.sha256('#'.join(self).encode()).hexdigest()[:12]}"

    @property
    def shown(self) -> str:
        """It as people are shown it."""
        return str(self._replace(remote=shown(self.remote)))

    def __str__(self) -> str:
        """Return it as `--bus` takes it."""
        return f"{SCHEME}{self.remote}" + (f"#{self.branch}" if self.branch != BRANCH else "")


def shown(text: str) -> str:
    """Return a text without what lets somebody in at addresses in it: of ssh the password, else the user as well."""

    def masked(found: re.Match[str]) -> str:
        user, colon, _ = found[2].partition(":")
        if found[1].lower() != "ssh":  # A token is often given as the user.
            return f"{found[1]}://***@"
        return f"{found[1]}://{user}:***@" if colon else found[0]

    return _BEFORE_HOST.sub(masked, text)


def address(text: str, cwd: Path) -> Address:
    """Read `git+<remote>`, perhaps with `#<branch>`.

    Args:
        cwd: what a relative path is meant from.

    Raises:
        InvalidRequest: it is none, or one by which a remote would have git run a command.
    """
    remote, _, branch = text.removeprefix(SCHEME).partition("#")
    branch = branch or BRANCH
    if not _BRANCH.match(branch) or ".." in branch or branch.endswith((".lock", "/", ".")) or "//" in branch:
        # What is after the first `#` may be the end of a password.
        msg = f"{(shown(text).partition('#')[2] or shown(text))[:80]!r} is no name for a branch"
        hint = f"letters, digits and . _ / + -, for example {BRANCH}; a # of a password is written %23"
        raise InvalidRequest(msg, hint=hint)
    if _URL.match(remote) or (_SCP.match(remote) and "::" not in remote):
        return Address(remote, branch)
    if "::" in remote or "://" in remote or remote.startswith("-") or not remote or re.search(r"[\x00-\x1f]", remote):
        msg = f"{shown(remote)[:80]!r} is no address of a git remote that is used here"
        raise InvalidRequest(msg, hint="ssh://, https://, git://, file://, user@host:path, or a path")
    return Address(str((cwd / remote).absolute()), branch)


def read(bus: Path) -> Address | None:
    """Return the address that a directory stands for; None if it is no part of a git bus.

    Raises:
        CorruptRecord: it says so, and not of which.
    """
    fs = Fs()
    try:
        at = fs.open_dir(str(bus.resolve()), None)
    except OSError:
        return None
    try:
        try:
            found = wire.loads(fs.read(NAME, at, 65_536).data)
        except CorruptRecord as error:
            what = f"{NAME} of {str(bus)!r} cannot be read: {error}"
            raise CorruptRecord(what, hint="remove that file, then name the address: --bus git+REMOTE") from None
        remote, branch = found.get("remote"), found.get("branch")
        if not isinstance(remote, str) or not isinstance(branch, str):
            what = f"{NAME} of {str(bus)!r} names no remote and branch"
            raise CorruptRecord(what, hint="write it anew: `mcp-bus --bus git+REMOTE init`")
        return address(f"{remote}#{branch}", bus)
    except FileNotFoundError:
        return None
    finally:
        fs.close_dir(at)


def note(bus: Path, where: Address) -> None:
    """Let a directory stand for an address; one that does so already stays as it is."""
    fs = Fs()
    with fs.folder(bus) as at:
        if fs.stat(NAME, at) is None:
            draft = f".{NAME}.{os.urandom(4).hex()}"
            fs.create(draft, at, wire.dumps({"remote": where.remote, "branch": where.branch}), sync=True)
            fs.rename(draft, at, NAME, at)
            fs.fsync(at)
