"""What git says about a directory, read from its files: a verb must not wait for four processes."""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

# Compiled when they are first used: outside of a checkout they are not.
_SECTION = r'\s*\[\s*(?P<name>[A-Za-z0-9.-]+)(?:\s+"(?P<sub>(?:[^"\\]|\\.)*)")?\s*\]'
_URL = r"\s*[uU][rR][lL]\s*=\s*(?P<url>.*?)\s*\Z"
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*)://"
MAX_CONFIG = 1_000_000


class Checkout(NamedTuple):
    """A git checkout.

    Attributes:
        top: the directory that holds `.git`.
        common: the directory all worktrees of the repository share.
        is_worktree: a linked worktree, not the main one.
        branch: the branch, or `HEAD` when detached.
        remote: the origin as `host/owner/repo`, without scheme, credentials or `.git`; may be empty.
    """

    top: Path
    common: Path
    is_worktree: bool
    branch: str
    remote: str

    @property
    def home(self) -> Path:
        """The directory where a bus for the whole repository lives, next to the shared git directory."""
        return self.common.parent if self.common.name == ".git" else self.common


def find(start: Path) -> Checkout | None:
    """Return the checkout a directory is in, or None.  Never raises for a damaged one."""
    try:
        for top in (start, *start.parents):
            dot = top / ".git"
            if dot.exists():
                return _read(top, dot)
    except (OSError, RuntimeError, ValueError):  # A loop of symlinks and a NUL in a path have errors of their own.
        return None
    return None


def _read(top: Path, dot: Path) -> Checkout | None:
    git = dot
    if dot.is_file():
        word, _, where = _text(dot).partition(":")
        if word.strip() != "gitdir":
            return None
        git = (top / where.strip()).resolve()
    shared = _text(git / "commondir").strip()
    common = (git / shared).resolve() if shared else git.resolve()
    head = _text(git / "HEAD").strip()
    if not head:
        return None
    prefix = "ref: refs/heads/"
    branch = head[len(prefix) :] if head.startswith(prefix) else "HEAD"
    return Checkout(top, common, git.resolve() != common, branch, normal(_origin(_text(common / "config"))))


def _text(path: Path) -> str:
    """Read one of git's files; empty when there is none, or something that is no file and might never end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        fd = os.open(path, flags)  # Links are followed: some tools make checkouts share files by them.
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, MAX_CONFIG).decode(errors="replace") if is_file else ""
    finally:
        os.close(fd)


def _origin(config: str) -> str:
    inside = False
    for line in config.splitlines():
        section = re.match(_SECTION, line)
        if section:
            inside = section["name"].lower() == "remote" and section["sub"] == "origin"
        elif inside and (url := re.match(_URL, line)):
            return url["url"].strip('"')
    return ""


def normal(remote: str) -> str:
    """Return a remote as `host/owner/repo`: no scheme, no credentials, no port, no `.git`.

    A local path becomes `local/<its last part>`.
    """
    if not remote:
        return ""
    if re.match(_SCHEME, remote):
        rest = re.sub(_SCHEME, "", remote, count=1)
        if remote.lower().startswith("file:"):
            return _local(rest)
        place, _, path = rest.partition("/")
        host = place.rpartition("@")[2]
        host = re.sub(r":\d+\Z", "", host)
    elif re.match(r"(?:[^/@]+@)?[^/:]{2,}:", remote):  # scp form: user@host:path
        place, _, path = remote.partition(":")
        host = place.rpartition("@")[2]
    else:
        return _local(remote)
    path = path.partition("?")[0].strip("/").removesuffix(".git")
    return f"{host.lower()}/{path}".strip("/")


def _local(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return f"local/{name}" if name else ""
