"""Finishing or undoing what a crash cut off.

Everything here is idempotent, may be run by many at once, and may be killed at any step.  It rolls
forward and never guesses: a draft is a task once it has passed the uniqueness point (a second
name), a staged result is the result once its lease's name is gone into the archive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from functools import partial
from typing import TYPE_CHECKING

from mcp_bus import lifecycle, names, wire
from mcp_bus.errors import Conflict, CorruptRecord, UnknownKey, Unreadable
from mcp_bus.model import DAY, day_of
from mcp_bus.stores import foreign, graves, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.model import Body, Slot
    from mcp_bus.stores.seals import Seals
    from mcp_bus.stores.tree import Tree

# A draft nobody links for this long belongs to a process that died before it acknowledged.
ABANDONED = 3_600_000
# A staged result is left to its own worker for this long.
PATIENCE = 5_000
# The journal is for people, who rarely look back further.
JOURNAL = 30 * DAY
# Menders of one task who meet; each round is a few calls.
STEPS_BACK = 1000


def everything(tree: Tree, now: int, seals: Seals, *, boot: str, sync: bool) -> list[str]:
    """Mend what a power cut, drafts, staged results and foreign files left; return a line for each thing done.

    Each kind of thing by itself: a folder in the place of a file, say, must not keep the rest from being mended.

    Args:
        boot: which start of the machine this is; empty if it cannot be told.
    """
    steps: list[Callable[[], list[str]]] = [
        partial(after_boot, tree, boot),
        partial(drafts, tree, now),
        partial(staged_results, tree, now, seals, sync=sync),
        partial(seals.mend, now),
        partial(old_journals, tree, now),
    ]
    for channel in tree.names("channels"):
        if names.is_place(channel):
            steps.append(partial(graves.resume, tree, channel, now, sync=sync))
            steps.append(partial(foreign.look, tree, channel, now))
    done = list[str]()
    for step in steps:
        try:
            done += step()
        except PermissionError as error:
            done.append(f"left what depends on it: {tree.explain(error)}")
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            done.append(_in_the_way(error))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTEMPTY):
                raise
            done.append(_in_the_way(error))
    return done


def _in_the_way(error: OSError) -> str:
    where = error.filename2 or error.filename
    return f"left what depends on {os.fsdecode(where or '?')!r}: {error.strerror}; something else is in its place"


def old_journals(tree: Tree, now: int) -> list[str]:
    """Remove what was written into the journal long ago."""
    done: list[str] = []
    for name in tree.names("journal"):
        day = name.removesuffix(".jsonl")[-10:]
        if re.match(names.DAY, day) and day < day_of(now - JOURNAL):
            tree.drop("journal", name)
            done.append(f"removed the journal {name}")
    return done


# --- posts ------------------------------------------------------------------------------------


def drafts(tree: Tree, now: int, *, only: int = 0) -> list[str]:
    """Finish posts that passed their uniqueness point; remove drafts whose poster died before it.

    Args:
        only: just the draft of this inode.
    """
    done: list[str] = []
    for name in tree.names("tmp"):
        tmp = tree.fd("tmp")
        about = tree.fs.stat(name, tmp)
        if about is None or (only and about.st_ino != only):
            continue
        if about.st_nlink > 1 and _finish_draft(tree, name):
            done.append(f"finished the post of {name}")
        elif now - int(about.st_mtime * 1000) > ABANDONED:
            tree.drop("tmp", name)
            done.append(f"removed the abandoned draft {name}")
    return done


def _finish_draft(tree: Tree, name: str) -> bool:
    try:
        found = tree.fs.read(name, tree.fd("tmp"), wire.MAX_FILE)
        body = wire.load_body(found.data)
        names.check_place(body.channel)
        tree.fs.link(name, tree.fd("tmp"), body.id + ".json", tree.fd("tasks"))
    except FileExistsError:
        own = tree.fs.stat(body.id + ".json", tree.fd("tasks"))
        if own is None or own.st_ino != found.inode:
            tree.drop("tmp", name)  # The same id from elsewhere was first.
            return False
    except (CorruptRecord, FileNotFoundError, PermissionError, ValueError):
        return False  # Not to be linked by this user: its owner, or who else may, finishes it.
    return _place(tree, name, body)


def _place(tree: Tree, name: str, body: Body) -> bool:
    """Move a draft to the task's first slot, unless the task has a place already.

    The count of names proves it: identity, perhaps key, and this draft, whose name is unique and
    never made again.  A second mender's draft shows up in the count and makes both step back.
    """
    about = tree.fs.stat(name, tree.fd("tmp"))
    if about is None:
        return False
    if about.st_nlink != own_names(tree, body, about.st_ino) + 1:
        tree.drop("tmp", name)
        return False
    target = names.place(lifecycle.first(body))
    at = tree.fd(f"channels/{body.channel}/{target.folder}", make=True)
    try:
        tree.fs.rename(name, tree.fd("tmp"), target.name, at)
    except FileNotFoundError:
        return False
    return True


def own_names(tree: Tree, body: Body, inode: int) -> int:
    """Count the names a task has besides its place: identity, and key if it has one."""
    if not body.key:
        return 1
    key = tree.fs.stat(body.key + ".json", tree.fd("keys", make=True))
    return 2 if key is not None and key.st_ino == inode else 1


def place_again(tree: Tree, task_id: str) -> bool:
    """Put a task whose state name vanished (a crash, a hand) back into its first slot.

    It may have been worked on before: delivery is at least once.  Two menders that meet both step
    back, so each looks again: whoever is the last to step back finds it still without a place.
    """
    identity = task_id + ".json"
    for _ in range(STEPS_BACK):
        about = tree.fs.stat(identity, tree.fd("tasks"))
        if about is None or about.st_nlink > 2 or graves.tombstone(tree, task_id) is not None:
            return False
        try:
            body = wire.load_body(tree.fs.read(identity, tree.fd("tasks"), wire.MAX_FILE).data)
            if about.st_nlink != own_names(tree, body, about.st_ino):
                return False
            draft = f"{task_id}.{tree.token(6)}"
            tree.fs.link(identity, tree.fd("tasks"), draft, tree.fd("tmp", make=True))
        except (CorruptRecord, FileNotFoundError, PermissionError):
            return False
        if _place(tree, draft, body):
            return True
    return False


def identify(tree: Tree, body: Body) -> None:
    """Give a task that is known by its key alone, because its poster died there, its identity."""
    identity, key = body.id + ".json", body.key + ".json"
    if tree.fs.stat(identity, tree.fd("tasks")) is not None:
        return
    if graves.tombstone(tree, body.id) is not None:
        tree.drop("keys", key)
        msg = f"{body.id!r} was pruned just now"
        raise Conflict(msg, hint="repeat the call")
    try:
        tree.fs.link(key, tree.fd("keys"), identity, tree.fd("tasks"))
    except FileExistsError:
        return  # Another poster of that key was faster.


def restore(tree: Tree) -> list[str]:
    """Give every task that lost its state name its place again; for after a power cut.

    Counts of names alone would not do: in a bus that was copied without its links, every task seems
    to have lost its place.
    """
    placed = _placed(tree)
    return [
        f"put {name[:-5]} back in its channel"
        for name in tree.names("tasks")
        if names.is_identity(name) and name[:-5] not in placed and place_again(tree, name[:-5])
    ]


def _placed(tree: Tree) -> set[str]:
    """Return the ids of all tasks that a channel's folder, or its results, show."""
    found: set[str] = set()
    for channel in tree.names("channels"):
        base = f"channels/{channel}"
        folders = [
            *names.FOLDERS.values(),
            "responses",
            "pruning",
            *(f"archive/{day}" for day in tree.names(f"{base}/archive")),
        ]
        for folder in folders:
            listed = (name for name in tree.names(f"{base}/{folder}") if not name.endswith(names.REASON))
            found.update(match[0] for name in listed if (match := re.search(names.IN_NAME, name)))
    return found


def after_boot(tree: Tree, boot: str) -> list[str]:
    """Restore tasks once per start of the machine: a power cut may have forgotten state names.

    A post is acknowledged when its identity is durable; its state name may not have been.
    """
    if not boot or tree.fs.stat(f"boot-{boot}", tree.fd("boots", make=True)) is not None:
        return []
    done = restore(tree)
    for old in tree.names("boots"):
        tree.drop("boots", old)
    with contextlib.suppress(FileExistsError):
        tree.fs.create(f"boot-{boot}", tree.fd("boots", make=True), b"", sync=False)
    return done


# --- results ----------------------------------------------------------------------------------


def staged_results(tree: Tree, now: int, seals: Seals, *, sync: bool) -> list[str]:
    """Carry staged results on: to `responses/` if their lease committed or still stands."""
    done: list[str] = []
    published: dict[str, list[str]] = {}
    for name in tree.names(publish.STAGED):
        about = tree.fs.stat(name, tree.fd(publish.STAGED))
        if about is None or now - int(about.st_ctime * 1000) < PATIENCE:
            continue
        try:
            done += _staged(tree, name, seals, (now, published), sync=sync)
        except Unreadable as error:
            done.append(f"left a staged result: {error}")
        except PermissionError:  # To publish is to link, which not everyone may.
            done.append(f"left a staged result: {tree.fs.closed(name, tree.fd(publish.STAGED))}")
    publish.settle(tree, published, sync=sync)
    return done


def _staged(tree: Tree, name: str, seals: Seals, seen: tuple[int, dict[str, list[str]]], *, sync: bool) -> list[str]:
    """Carry one staged result on; note it under its channel in `seen` if it is published.

    Raises:
        Unreadable: this user may not read its task, which does not mean that there is none.
    """
    now, published = seen
    slot = names.parse_staged(name, "")
    body = _identity(tree, slot.id) if slot else None
    if slot is None or body is None:
        publish.reject(tree, name)
        return [f"put aside the result {name}: there is no such task"]
    wrong = _checked(tree, slot._replace(channel=body.channel), name, seals)
    if wrong:
        return [wrong]
    done = list[str]()
    if not publish.is_published(tree, body.channel, name, slot.id):
        done.append(_carry(tree, body.channel, name, now, sync=sync))
    if publish.is_published(tree, body.channel, name, slot.id):
        published.setdefault(body.channel, []).append(name)
        seals.over(slot._replace(channel=body.channel))
    return done


def _checked(tree: Tree, slot: Slot, name: str, seals: Seals) -> str:
    """Refuse to carry on a result that is not its worker's, where results are signed; empty if it may be."""
    if not seals.needs(slot.channel, slot.id):
        return ""
    try:
        found = tree.fs.read(name, tree.fd(publish.STAGED), wire.MAX_FILE)
        seals.result(slot, wire.load_result(found.data), found.data)
    except UnknownKey as error:
        return f"left the result of {slot.id} to those who know its worker: {error}"
    except Unreadable as error:
        return f"left the result of {slot.id}: {error}"
    except CorruptRecord as error:
        publish.reject(tree, name)
        return f"put aside the result {name}: {error}"
    except FileNotFoundError:
        return f"left the result of {slot.id}: someone else carried it on"
    return ""


def _carry(tree: Tree, channel: str, name: str, now: int, *, sync: bool) -> str:
    staged = names.parse_staged(name, channel)
    assert staged is not None
    try:
        wire.load_result(tree.fs.read(name, tree.fd(publish.STAGED), wire.MAX_FILE).data)
    except FileNotFoundError:
        return f"left the result of {staged.id}: someone else carried it on"
    except Unreadable as error:
        return f"left the result of {staged.id}: {error}"
    except CorruptRecord as error:
        publish.reject(tree, name)
        return f"put aside the result {name}: {error}"
    lease = _standing(tree, channel, name)
    if lease is not None:
        publish.fence(tree, lease, lifecycle.ack(lease, now=now), sync=False)
    committed = publish.is_committed(tree, lifecycle.ack(staged, now=now), sync=sync)
    if not committed or not publish.publish(tree, channel, name, staged.id):
        publish.reject(tree, name)
        return f"put aside the late result {name}"
    return f"published the result of {staged.id}"


def _standing(tree: Tree, channel: str, staged: str) -> Slot | None:
    """Find the lease a staged result was made under; looked for twice, for a listing may miss it."""
    for _ in range(2):
        for name in tree.names(f"channels/{channel}/processing"):
            if name.startswith(staged[:-4]):
                return names.parse(channel, "processing", name)
    return None


def _identity(tree: Tree, task_id: str) -> Body | None:
    try:
        return wire.load_body(tree.fs.read(task_id + ".json", tree.fd("tasks"), wire.MAX_FILE).data)
    except Unreadable:
        raise  # That it cannot be read does not mean that there is none.
    except (CorruptRecord, FileNotFoundError):
        return None
