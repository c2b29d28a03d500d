"""Owners, groups and modes of what is on a bus: which are wrong, and putting right those of this user (rule F6)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.stores.modes import is_mine, of, told, user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.stores.tree import Tree

# What commands wrote, strangers' bytes, and what was there before the bus, have the modes that they have.
_OTHERS = ("runs", "quarantine", "lost+found")


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
    owner = os.fstat(tree.fd()).st_uid
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
            if about.st_uid != owner and not tree.fs.modes.is_shared:
                said = f"it belongs to user {user_name(about.st_uid)}, the bus to user {user_name(owner)}"
                yield Wrong(path, said, is_mine=False)
            elif is_wrong(tree, about):
                yield Wrong(path, told(about, tree.fs.modes), is_mine(about))


def is_wrong(tree: Tree, about: os.stat_result) -> bool:
    """Tell whether something has a mode or a group that it must not have."""
    return not stat.S_ISLNK(about.st_mode) and (not tree.fs.modes.fits(about) or bool(about.st_mode & stat.S_IWOTH))


def mend(tree: Tree, path: str) -> bool:
    """Give something the group and mode it should have; False if it is right, gone, or another user's."""
    folder, _, name = path.rpartition("/")
    fs, at = tree.fs, tree.fd(folder)
    about = fs.stat(name, at)
    if about is None or not is_wrong(tree, about) or not is_mine(about):
        return False
    modes = of(about) if path == "." else fs.modes
    if modes.is_shared and about.st_gid != modes.group:
        fs.chown(name, at, modes.group)
    fs.chmod(name, at, modes.mended(about))
    return True
