"""Can this file system carry a bus?  Asked of its name, then of itself."""

import errno
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores.tree import Tree

GOOD = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "apfs", "overlay", "bcachefs"})
VOLATILE = frozenset({"tmpfs", "ramfs"})
EXPERIMENTAL = frozenset({"nfs", "nfs4"})
REFUSED = {
    "exfat": "it has no hard links",
    "vfat": "it has no hard links",
    "msdos": "it has no hard links",
    "cifs": "SMB caches listings and renames are not atomic for other machines",
    "smb3": "SMB caches listings and renames are not atomic for other machines",
    "smbfs": "SMB caches listings and renames are not atomic for other machines",
    "9p": "it promises neither durable fsync nor fresh listings",
    "drvfs": "it promises neither durable fsync nor fresh listings",
    "afs": "it decides between writers when a file is closed, not when it is renamed",
    "vboxsf": "it promises neither durable fsync nor fresh listings",
}
_FUSE = "a FUSE file system may serve listings that are minutes old"
INSTEAD = (
    "keep the bus on a local disk (ext4, XFS, btrfs, APFS); of several machines, at a git remote, `--bus git+REMOTE`"
)


class Verdict(NamedTuple):
    """What a probe found.

    Attributes:
        kind: the file system's name, or `unknown`.
        refusal: why it cannot carry a bus; empty if it can.
        warning: what a person must know; empty if nothing.
        offset: file system clock minus system clock, in milliseconds.
    """

    kind: str
    refusal: str = ""
    warning: str = ""
    offset: int = 0

    def check(self, root: Path) -> None:
        """Raise `StoreUnavailable` when the file system is refused."""
        if self.refusal:
            msg = f"{str(root)!r} is on {self.kind}, which cannot carry a bus: {self.refusal}"
            raise StoreUnavailable(msg, hint=INSTEAD)

    @property
    def is_known(self) -> bool:
        """Whether the name says enough: nobody has to try what other processes see there."""
        return self.kind in GOOD or self.kind in VOLATILE

    def fields(self) -> dict[str, Any]:
        """Return the verdict as JSON data for `bus.json`."""
        return {"type": self.kind, "warning": self.warning, "clock_offset_ms": self.offset}


def kind_of(path: Path, mounts: str | None = None) -> str:
    """Return the name of the file system a path is on, `unknown` if it cannot be told.

    Args:
        mounts: the text of `/proc/self/mountinfo`, for tests.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return "apfs" if sys.platform == "darwin" else "unknown"
    where, best, kind = str(path.resolve()), "", "unknown"
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(" "), right.split(" ")
        if len(words) < 5 or not rest[0]:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
        # The longest mount point wins, and of equal ones the last: it was mounted over the others.
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest[0]
    return kind


def judge(kind: str) -> Verdict:
    """Decide by the file system's name alone."""
    if kind in REFUSED:
        return Verdict(kind, refusal=REFUSED[kind])
    if kind.startswith("fuse.") or kind == "fuse":
        return Verdict(kind, refusal=_FUSE)
    if kind in VOLATILE:
        return Verdict(kind, warning=f"{kind} is memory: nothing on this bus survives a reboot")
    if kind in EXPERIMENTAL:
        return Verdict(kind, warning="NFS is experimental: use it from one machine at a time")
    if kind in GOOD:
        return Verdict(kind)
    return Verdict(kind, warning=f"{kind} was never tested with a bus; it passed the probe")


def probe(tree: Tree, token: str) -> Verdict:
    """Judge by name, then try what the protocol needs: link, its refusal, rename, fsync, clock."""
    verdict = judge(kind_of(tree.root))
    if verdict.refusal:
        return verdict
    first, second, at = f"probe-{token}", f"probe-{token}-2", tree.fd("tmp", make=True)
    before = time.time_ns() // 1_000_000
    tree.fs.create(first, at, b"probe\n", sync=True)
    try:
        refusal = _try(tree, first, second, at)
        about = tree.fs.stat(first, at)
    finally:
        tree.fs.unlink(first, at)
        if tree.fs.stat(second, at) is not None:
            tree.fs.unlink(second, at)
    drift = int(about.st_mtime * 1000) - before if about else 0
    # Coarse kernel ticks and the time the probe took are not a difference between clocks.
    return Verdict(verdict.kind, refusal, verdict.warning, drift if abs(drift) > 250 else 0)


def _try(tree: Tree, first: str, second: str, at: int) -> str:
    try:
        tree.fs.link(first, at, second, at)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            return "it has no hard links"
        raise
    try:
        tree.fs.link(first, at, second, at)
    except FileExistsError:
        pass
    else:
        return "it lets a second file take a name that is in use"
    about = tree.fs.stat(first, at)
    if about is None or about.st_nlink != 2:
        return "it does not count the names of a file"
    tree.fs.unlink(second, at)
    tree.fs.rename(first, at, second, at)
    if tree.fs.stat(first, at) is not None:
        return "a renamed file keeps its old name"
    tree.fs.rename(second, at, first, at)
    tree.fs.fsync(at)
    long = first.ljust(200, "n")  # As long as a lease's name may get, and this probe's alone.
    tree.fs.link(first, at, long, at)
    tree.fs.unlink(long, at)
    return ""
