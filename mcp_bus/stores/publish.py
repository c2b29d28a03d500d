"""Stage, fence, publish: how a result comes to be final, exactly once decided.

    stage    staged/<lease>.json    written and made durable, name and content
    fence    processing/<lease>.<expires>.json -> archive/<day>/<lease>_request.json, made durable
    publish  responses/<id>.json    a second name of the staged file

The fence is one rename and the commit point: it fails when the lease was taken away.  From then on
the staged file is the result whatever happens next; whoever finds it links it into `responses/`.
The staged name is removed only once the `responses/` folder is durable, so an acknowledged result
always has at least one durable name.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import Conflict

if TYPE_CHECKING:
    from mcp_bus.model import Slot
    from mcp_bus.stores.tree import Tree

STAGED = "staged"
REJECTED = "rejected"


def responses(channel: str) -> str:
    """Return the folder of a channel's results."""
    return f"channels/{channel}/responses"


def stage(tree: Tree, old: Slot, result: bytes, *, sync: bool) -> str:
    """Write a result where nobody takes it for one yet; return its name.

    Whole under that name or not at all, for a sweep may carry on whatever it finds there.  If the
    same lease staged before and was cut off, the newer words win while the fence is still ahead.
    """
    name, at, tmp = names.staged(old), tree.fd(STAGED, make=True), tree.fd("tmp", make=True)
    draft = f"result.{tree.token(8)}"
    tree.fs.create(draft, tmp, result, sync=sync)
    tree.fs.rename(draft, tmp, name, at)
    if sync:
        tree.fs.fsync(at)
    return name


def fence(tree: Tree, old: Slot, new: Slot, *, sync: bool) -> bool:
    """Take the lease's name away for good; False when it was gone already.

    Made durable before the result is shown: a power cut that took the claim back as well would
    leave a staged result of a lease nobody remembers.
    """
    source, target = names.place(old), names.place(new)
    base = f"channels/{old.channel}/"
    at = tree.fd(base + target.folder, make=True)
    try:
        tree.fs.rename(source.name, tree.fd(base + source.folder), target.name, at)
    except FileNotFoundError:
        return False
    if sync:
        tree.fs.fsync(at)
    return True


def publish(tree: Tree, channel: str, staged: str, task_id: str) -> bool:
    """Give a staged result its final name; False when another result has it."""
    at = tree.fd(STAGED)
    try:
        tree.fs.link(staged, at, task_id + ".json", tree.fd(responses(channel), make=True))
    except FileExistsError:
        return is_published(tree, channel, staged, task_id)
    except FileNotFoundError:
        # Someone else published and tidied up, or rejected it.
        return tree.fs.stat(task_id + ".json", tree.fd(responses(channel))) is not None
    return True


def is_published(tree: Tree, channel: str, staged: str, task_id: str) -> bool:
    """Tell whether a staged file is the one that `responses/` shows."""
    mine = tree.fs.stat(staged, tree.fd(STAGED))
    final = tree.fs.stat(task_id + ".json", tree.fd(responses(channel), make=True))
    return mine is not None and final is not None and mine.st_ino == final.st_ino


def reject(tree: Tree, staged: str) -> None:
    """Keep a result that came too late, for a person to look at; a later word of the same lease replaces it."""
    at, there = tree.fd(STAGED), tree.fd(REJECTED, make=True)
    try:
        tree.fs.rename(staged, at, staged, there)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        tree.fs.rename(staged, at, f"{staged}.{tree.token(4)}", there)  # One of the two is no file.


def settle(tree: Tree, published: dict[str, list[str]], *, sync: bool) -> None:
    """Remove staged names of published results, after making their final names durable.

    Args:
        published: staged names by channel; emptied.
    """
    while published:
        channel, done = published.popitem()
        if sync:
            tree.fs.fsync(tree.fd(responses(channel)))
        for name in done:
            try:
                tree.fs.unlink(name, tree.fd(STAGED))
            except FileNotFoundError:
                continue


def is_staged(tree: Tree, old: Slot) -> bool:
    """Tell whether a result of a claim is on its way."""
    at = tree.live(STAGED)
    return at is not None and bool(old.lease and old.lease.token) and tree.fs.stat(names.staged(old), at) is not None


def finish(tree: Tree, old: Slot, new: Slot, result: bytes, *, sync: bool) -> str:
    """Carry a result through all three steps; return its staged name, to be settled later.

    Raises:
        Conflict: the lease was gone; the result is in `rejected/`.
    """
    staged = stage(tree, old, result, sync=sync)
    # A sweep that saw the staged file may have carried it the rest of the way for us.
    if not fence(tree, old, new, sync=sync) and not _carried(tree, old, new, staged, sync=sync):
        reject(tree, staged)
        msg = f"{old.id!r} moved on before its result was in"
        raise Conflict(msg)
    if not publish(tree, old.channel, staged, old.id):
        reject(tree, staged)
        msg = f"{old.id!r} has another result already"
        raise Conflict(msg)
    return staged


def _carried(tree: Tree, old: Slot, new: Slot, staged: str, *, sync: bool) -> bool:
    return is_published(tree, old.channel, staged, old.id) or is_committed(tree, new, sync=sync)


def is_committed(tree: Tree, new: Slot, *, sync: bool) -> bool:
    """Tell whether the archive shows a lease's task as done under that very token, durable if `sync`.

    Looks in the newest days first; a commit is at most as old as the file system's last crash.
    """
    base = f"channels/{new.channel}/"
    name = names.place(new).name
    for day in sorted(tree.names(base + "archive"), reverse=True):
        at = tree.live(f"{base}archive/{day}")
        if at is not None and tree.fs.stat(name, at) is not None:
            if sync:
                tree.fs.fsync(at)
            return True
    return False


def carry(tree: Tree, done: Slot) -> bool:
    """Publish the result of a task that is done already; for a reader who comes before its worker.

    Returns:
        Whether its result is published now.
    """
    if done.lease is None or not done.lease.token or not is_committed(tree, done, sync=True):
        return False
    return publish(tree, done.channel, names.staged(done), done.id)
