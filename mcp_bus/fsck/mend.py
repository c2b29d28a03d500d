"""Putting a bus right: what `fsck --repair` does about each anomaly.

Nothing is done twice that a sweep does; each step is one rename or link that fails when somebody was faster, may be
killed before or after it, and is looked at anew in the next round.  What cannot be kept is put aside, never removed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import Conflict, CorruptRecord, StoreUnavailable
from mcp_bus.fsck import fixes
from mcp_bus.fsck.check import Report, look
from mcp_bus.fsck.kinds import SWEEP, Level
from mcp_bus.fsck.survey import Surveyor
from mcp_bus.model import Identity
from mcp_bus.names import holder
from mcp_bus.recovery import sweep
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.fsck.kinds import Anomaly
    from mcp_bus.stores.base import Guard

# What is uncovered by putting something right is put right in the next round.
ROUNDS = 8
# So a sweep begins its line about what it could not do.
LEFT = "left "
# Something else is where it should not be, moved meanwhile, or is another user's: that step is left, and told of.
_IN_THE_WAY = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO,
    errno.EPERM, errno.EACCES,
}  # fmt: skip


class Means(NamedTuple):
    """What a repair works with.

    Attributes:
        tell: called now and then with how many names were looked at.
        durable: whether what was put right is on disk for good when the repair returns.
        keys: makes this user's guard, as for `FileStore`; without it what signed channels need is left as it is.
    """

    fs: Fs
    source: Source
    tell: Callable[[int], None]
    durable: bool = True
    agent: str = "fsck"
    keys: Callable[[str], Guard] | None = None


def repair(root: Path, means: Means | None = None) -> Report:
    """Put right what can be, and return what was done and what is left; others may use the bus meanwhile.

    May be killed and repeated, and done by several at once.

    Raises:
        StoreUnavailable: there is no bus, it is read-only, or the medium failed; what was done is right.
        Untrusted: it is another user's, or of a group this user is not in.
    """
    means = means or Means(Fs(), System(), lambda _looked: None)
    tree = Tree(root, means.fs, means.source, is_repair=True)
    tree.sync = means.durable
    try:
        with tree.words():
            return _rounds(Surveyor(tree, means.source, means.tell, means.keys), means)
    finally:
        tree.close()


def _rounds(surveyor: Surveyor, means: Means) -> Report:
    """Look, do what can be done, and look again, until there is nothing left that can be."""
    report, done, left = look(surveyor), list[str](), tuple[str, ...]()
    _check_writable(surveyor.tree, report)
    for _ in range(ROUNDS):
        made = _round(surveyor, report, means)
        left = tuple(line for line in made if line.startswith(LEFT))
        if len(left) == len(made):
            break
        done += [line for line in made if not line.startswith(LEFT)]
        report = look(surveyor)
    return report._replace(done=tuple(done), left=left)


def _check_writable(tree: Tree, report: Report) -> None:
    """Refuse before anything is begun; a test of the rights writes nothing.

    Raises:
        StoreUnavailable: nothing can be written.
    """
    if report.is_clean or tree.fs.may_write(tree.fd()):
        return
    msg = f"the bus {str(tree.root)!r} is read-only, so that nothing can be repaired"
    raise StoreUnavailable(msg, hint="`mcp-bus fsck` without --repair looks at it; mount it writable to repair it")


def _round(surveyor: Surveyor, report: Report, means: Means) -> list[str]:
    """Do what can be done about what was found; return a line for each thing done."""
    folders = set[str]()
    mender = fixes.Mender(surveyor, means.source, folders)
    done = [said for item in report.anomalies if (said := _fixed(mender, item, surveyor.tree))]
    for folder in sorted(folders) if means.durable else ():
        at = surveyor.tree.live(folder) if folder else surveyor.tree.fd()
        if at is not None:
            surveyor.tree.fs.fsync(at)
    if any(item.level is Level.HEALS or item.repair == SWEEP for item in report.anomalies):
        done += _swept(surveyor.tree.root, means)
    return done


def _fixed(mender: fixes.Mender, item: Anomaly, tree: Tree) -> str:
    """Do what can be done about one thing; what is in the way of that is told of by the next look."""
    try:
        return mender.mend(item)
    except (Conflict, CorruptRecord):
        return ""
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        tree.forget()
        return ""


def _swept(root: Path, means: Means) -> list[str]:
    session = means.source.token(4)
    who = Identity(means.agent, session, holder(means.agent, session))
    store = FileStore(root, fs=means.fs, source=means.source, durable=means.durable, who=who.holder, keys=means.keys)
    with Bus(store, who, means.source) as bus:
        return sweep(bus)
