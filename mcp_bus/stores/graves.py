"""Forgetting ended tasks after their retention time, and remembering that they were."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import names, wire
from mcp_bus.errors import Conflict, CorruptRecord
from mcp_bus.model import State, day_of

if TYPE_CHECKING:
    from mcp_bus.model import Slot
    from mcp_bus.stores.tree import Tree

TOMBSTONES = "tombstones"


def _grave(task_id: str) -> str:
    return day_of(int(task_id[4:16], 16) % 10**14) + ".txt"


def bury(tree: Tree, slot: Slot, *, sync: bool) -> None:
    """Write down that a task ended and is about to be pruned."""
    if tombstone(tree, slot.id) is None:
        line = f"{slot.id} {slot.state} {slot.day}\n".encode()
        at = tree.fd(TOMBSTONES, make=True)
        tree.fs.append(_grave(slot.id), at, line, sync=sync)
        if sync:
            tree.fs.fsync(at)


def tombstone(tree: Tree, task_id: str) -> str | None:
    """Return how and when a pruned task ended, such as `done on 2026-11-21`; None if it was not pruned."""
    at = tree.live(TOMBSTONES)
    if at is None:
        return None
    try:
        data = tree.fs.read(_grave(task_id), at, 256 * 1024 * 1024).data
    except (CorruptRecord, FileNotFoundError):
        return None
    start = data.rfind(task_id.encode() + b" ")  # The last: an earlier line may have been cut off.
    if start < 0:
        return None
    _, state, day = ([*data[start:].split(b"\n", 1)[0].decode("ascii", "replace").split(" "), "", ""])[:3]
    return f"{state} on {day}" if state in list(State) else None


def prune(tree: Tree, old: Slot, *, sync: bool) -> None:
    """Forget an ended task: tombstone first, its place last, so that a crash leaves no zombie and no leftover.

    Raises:
        Conflict: it is not there any more, or what is there is not the task of that id.
    """
    place, base = names.place(old), f"channels/{old.channel}/"
    at, identity, key = tree.live(base + place.folder), old.id + ".json", ""
    about = None if at is None else tree.fs.stat(place.name, at)
    own = tree.fs.stat(identity, tree.fd("tasks"))
    if at is None or about is None or (own is not None and own.st_ino != about.st_ino):
        msg = f"{old.id!r} is not {old.state} any more"
        raise Conflict(msg)
    with suppress(CorruptRecord, FileNotFoundError):  # The rest can be forgotten without it.
        key = wire.load_body(tree.fs.read(place.name, at, wire.MAX_FILE).data).key
    bury(tree, old, sync=sync)
    taken = tree.fs.stat(key + ".json", tree.fd("keys", make=True)) if key else None
    if taken is not None and taken.st_ino == about.st_ino:
        tree.drop("keys", key + ".json")  # Before the identity, or a post of the key would make a new one.
    tree.drop("tasks", identity)
    tree.drop(base + "responses", old.id + ".json")
    for name in tree.names(f"{base}attempts/{old.id}"):
        tree.drop(f"{base}attempts/{old.id}", name)
    remove_folder(tree, f"{base}attempts", old.id)
    tree.drop(base + place.folder, place.name)


def remove_folder(tree: Tree, parent: str, name: str) -> None:
    """Remove a folder if it is empty."""
    at = tree.live(parent)
    if at is None:
        return
    tree.forget()
    try:
        tree.fs.rmdir(name, tree.fd(parent))
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
