"""Forgetting ended tasks after their retention time, and remembering that they were."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import names, wire
from mcp_bus.errors import Conflict, CorruptRecord
from mcp_bus.model import State, day_of
from mcp_bus.stores import outputs

if TYPE_CHECKING:
    from mcp_bus.model import Slot
    from mcp_bus.stores.tree import Tree

TOMBSTONES = "tombstones"
# A prune is left to its own process for this long.
PATIENCE = 5_000


def _grave(task_id: str) -> str:
    return day_of(int(task_id[4:16], 16) % 10**14) + ".txt"


def bury(tree: Tree, slot: Slot, *, sync: bool) -> None:
    """Write down that a task ended and is about to be pruned."""
    if tombstone(tree, slot.id) is None:
        line = f"{slot.id} {slot.state} {slot.day}\n".encode()
        at = tree.fd(TOMBSTONES, make=True)
        try:
            tree.fs.append(_grave(slot.id), at, line, sync=sync)
        except PermissionError:
            if tree.fs.stat(_grave(slot.id), at) is None:
                raise
            raise tree.fs.closed(_grave(slot.id), at) from None
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


def pruning(channel: str) -> str:
    """Return the folder of a channel's tasks that are being forgotten; made when it is first needed."""
    return f"channels/{channel}/pruning"


def prune(tree: Tree, old: Slot, *, sync: bool) -> None:
    """Forget an ended task.  One rename decides, as for every move: who would bring it back finds it gone.

    Raises:
        Conflict: it is not there any more, or what is there is not the task of that id.
    """
    place, base = names.place(old), f"channels/{old.channel}/"
    at = tree.live(base + place.folder)
    about = None if at is None else tree.fs.stat(place.name, at)
    own = tree.fs.stat(f"{old.id}.json", tree.fd("tasks"))
    is_other = own is not None and about is not None and own.st_ino != about.st_ino
    # In a bus that was copied without its links, place and identity are two files, each with one name.
    is_copy = own is not None and about is not None and own.st_nlink == about.st_nlink == 1
    if at is None or about is None or (is_other and not is_copy):
        msg = f"{old.id!r} is not {old.state} any more"
        raise Conflict(msg)
    kept = f"{tree.token(4)}.{old.day}.{place.name}"
    there = tree.fd(pruning(old.channel), make=True)
    try:
        tree.fs.rename(place.name, at, kept, there)
    except FileNotFoundError:
        msg = f"{old.id!r} is not {old.state} any more"
        raise Conflict(msg) from None
    if sync:  # Before the tombstone: a task that has one must not come back.
        tree.fs.fsync(there)
    _forget(tree, old, kept, sync=sync)


def _forget(tree: Tree, old: Slot, kept: str, *, sync: bool) -> None:
    """Do what a prune does once it is decided: tombstone first, its last name last, so that a crash leaves a trail."""
    base, identity, key = f"channels/{old.channel}/", f"{old.id}.json", ""
    folder = tree.fd(pruning(old.channel))
    about = tree.fs.stat(kept, folder)
    if about is None:
        return
    with suppress(CorruptRecord, FileNotFoundError):  # The rest can be forgotten without it.
        key = wire.load_body(tree.fs.read(kept, folder, wire.MAX_FILE).data).key
    try:
        bury(tree, old, sync=sync)
    except (OSError, CorruptRecord):
        _put_back(tree, old, kept)
        raise
    taken = tree.fs.stat(key + ".json", tree.fd("keys", make=True)) if key else None
    if taken is not None and taken.st_ino == about.st_ino:
        tree.drop("keys", key + ".json")  # Before the identity, or a post of the key would make a new one.
    tree.drop("tasks", identity)
    tree.drop(base + "responses", identity)
    outputs.drop(tree, old.id)
    for name in tree.names(f"{base}attempts/{old.id}"):
        tree.drop(f"{base}attempts/{old.id}", name)
    remove_folder(tree, f"{base}attempts", old.id)
    tree.drop(pruning(old.channel), kept)


def _put_back(tree: Tree, old: Slot, kept: str) -> None:
    """Undo the decision: without a tombstone nothing may be forgotten."""
    place = names.place(old)
    with suppress(OSError):  # Else it stays, and is gone on with when the medium is well again.
        there = tree.fd(f"channels/{old.channel}/{place.folder}", make=True)
        tree.fs.rename(kept, tree.fd(pruning(old.channel)), place.name, there)


def parse(channel: str, kept: str) -> Slot | None:
    """Read a name in `pruning/` back into how the task ended; None when it is foreign."""
    _, _, rest = kept.partition(".")
    day, _, name = rest.partition(".")
    return names.parse(channel, f"archive/{day}", name)


def resume(tree: Tree, channel: str, now: int, *, sync: bool) -> list[str]:
    """Go on with what a prune that was cut off had decided; it is left to its own process for a while."""
    done: list[str] = []
    for kept in tree.names(pruning(channel)):
        slot, at = parse(channel, kept), tree.fd(pruning(channel))
        about = tree.fs.stat(kept, at)
        if slot is None or about is None or now - int(about.st_ctime * 1000) < PATIENCE:
            continue
        mine = f"{tree.token(4)}{kept[kept.index('.') :]}"
        with suppress(FileNotFoundError):  # Someone else goes on with it.
            tree.fs.rename(kept, at, mine, at)
            _forget(tree, slot, mine, sync=sync)
            done.append(f"pruned {slot.id}")
    return done


def is_pruning(tree: Tree, channel: str, task_id: str) -> Slot | None:
    """Return how a task ended that is being forgotten just now, or by a process that died; None if it is not."""
    for kept in tree.names(pruning(channel)):
        slot = parse(channel, kept) if task_id in kept else None
        if slot is not None and slot.id == task_id:
            return slot
    return None


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
