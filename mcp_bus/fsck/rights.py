"""Owners, groups and modes of what is on a bus: which are wrong, and putting right those of this user (rule F6)."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.fsck.kinds import Anomaly
from mcp_bus.stores import acls
from mcp_bus.stores.modes import is_mine, of, told, user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.stores.tree import Tree

# What commands wrote, strangers' bytes, and what was there before the bus, have the modes that they have.
_OTHERS = ("runs", "quarantine", "lost+found")
_NOT_COUNTED = ("runs", "lost+found")
# What opening a name says when nothing is held: it is gone, a symlink, or, where it has to be opened, closed.
_NOT_HELD = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO)
# Longer than any file system takes to have a later time of change for a later change.
TICK_S = 0.02


class Wrong(NamedTuple):
    """Something that keeps out those whom it should let in, or lets everyone write.

    Attributes:
        said: whose it is, its mode, and the words that put it right.
        is_mine: whether `mend` can put it right, as this user.
    """

    path: str
    said: str
    is_mine: bool


def wrong(tree: Tree, limit: int) -> Iterator[Wrong]:
    """Look at the bus itself and at most `limit` names below it, folders first, and tell of those that are wrong."""
    folders, left = [""], limit
    owner = tree.fs.fstat(tree.fd()).st_uid
    for folder in folders:
        try:
            at, names = tree.fd(folder), sorted(tree.names(folder))
        except OSError:
            continue  # Closed, which was told of when it was listed, or gone.
        for name in [".", *names] if not folder else names:
            about = tree.fs.stat(name, at)
            left -= 1
            if about is None or left < 0:
                continue
            path = f"{folder}/{name}".lstrip("/")
            if stat.S_ISDIR(about.st_mode) and name != "." and path not in _OTHERS:
                folders.append(path)
            if has_list(tree, folder, name):
                yield Wrong(path, told(about, tree.fs.modes, has_acl=True), is_mine=False)  # Nothing here removes it.
            elif about.st_uid != owner and not tree.fs.modes.is_shared:
                said = f"it belongs to user {user_name(about.st_uid)}, the bus to user {user_name(owner)}"
                yield Wrong(path, said, is_mine=False)
            elif is_wrong(tree, about):
                yield Wrong(path, told(about, tree.fs.modes), is_mine(about))


def is_wrong(tree: Tree, about: os.stat_result) -> bool:
    """Tell whether something has a mode or a group that it must not have."""
    return not stat.S_ISLNK(about.st_mode) and (not tree.fs.modes.fits(about) or bool(about.st_mode & stat.S_IWOTH))


def has_list(tree: Tree, folder: str, name: str) -> bool:
    """Tell whether something on a shared bus has an access control list, for then its mode does not say who may."""
    at = tree.live(folder) if tree.fs.modes.is_shared else None
    return at is not None and acls.has(at, name)


def judged(tree: Tree, owner: int, path: str, found: os.stat_result) -> list[Anomaly]:
    """Return what is wrong with the mode, the group or the owner of something.

    Args:
        owner: the user whose bus it is.
    """
    made, modes, (folder, _, name) = list[Anomaly](), tree.fs.modes, path.rpartition("/")
    is_open = found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode) and path != "."
    if has_list(tree, folder, name):
        made.append(Anomaly("acl", path, detail=told(found, modes, has_acl=True)))
    elif is_open or not modes.fits(found):
        kind = "writable-by-others" if modes.fits(found) else "mode"
        made.append(Anomaly(kind if is_mine(found) else "others-mode", path, detail=told(found, modes)))
    if found.st_uid != owner and not modes.is_shared:
        said = f"it belongs to user {user_name(found.st_uid)}, the bus to user {user_name(owner)}"
        made.append(Anomaly("owner", path, detail=said))
    return made


class Names:
    """How many names on a bus its files have: what has another one, outside, is not changed through a name here."""

    def __init__(self, tree: Tree) -> None:
        """Count them when that is first asked for."""
        self._tree = tree
        self._counts: Counter[tuple[int, int]] | None = None

    def has_all(self, about: os.stat_result) -> bool:
        """Tell whether all names of something are on the bus, and were while they were counted."""
        if stat.S_ISDIR(about.st_mode) or about.st_nlink == 1:
            return True
        if self._counts is None:
            self._counts = self._counted()
        return self._counts[about.st_dev, about.st_ino] == about.st_nlink

    def _counted(self) -> Counter[tuple[int, int]]:
        since = time.time_ns()
        select.select([], [], [], TICK_S)
        counts, folders = Counter[tuple[int, int]](), [""]
        for folder in folders:
            try:
                at, names = self._tree.fd(folder), self._tree.names(folder)
            except OSError:
                continue
            for name in names:
                about = self._tree.fs.stat(name, at)
                path = f"{folder}/{name}".lstrip("/")
                if about is not None and stat.S_ISDIR(about.st_mode) and path not in _NOT_COUNTED:
                    folders.append(path)
                elif about is not None and about.st_ctime_ns <= since:  # A rename sets it: no name is counted twice.
                    counts[about.st_dev, about.st_ino] += 1
        return counts


def mend(tree: Tree, path: str, names: Names) -> bool:
    """Give something the group and mode it should have; False if it is right, gone, another user's, or also elsewhere.

    It is held meanwhile, and what is held is judged and changed: whoever may write the folder may swap its name.
    """
    folder, _, name = path.rpartition("/")
    fs = tree.fs
    try:
        held = fs.hold(name, tree.fd(folder))
    except OSError as error:
        if error.errno not in _NOT_HELD:
            raise
        return False
    try:
        about = os.fstat(held)
        if tree.fs.modes.is_shared and acls.has(held):
            return False  # The bits of the group are the mask of its entries: more of them would let in others.
        if not (_is_ours(about) and is_wrong(tree, about) and is_mine(about) and names.has_all(about)):
            return False
        fs.fit_held(held, of(about) if path == "." else fs.modes)
    finally:
        fs.close(held)
    return True


def _is_ours(about: os.stat_result) -> bool:
    """Tell whether something is of a kind that the bus makes."""
    return any(is_kind(about.st_mode) for is_kind in (stat.S_ISREG, stat.S_ISDIR, stat.S_ISFIFO))
