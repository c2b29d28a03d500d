"""Bytes that somebody else put into the folders: adopted if they are messages, put aside if not.

Never opened if they are not regular files, never fatal, never in the way of the rest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import names, wire
from mcp_bus.errors import CorruptRecord, Unreadable

if TYPE_CHECKING:
    from mcp_bus.model import Body, Slot
    from mcp_bus.stores.fsops import Found
    from mcp_bus.stores.tree import Tree

# Foreign bytes may still be being written for this long after their last change.
SETTLE = 5_000
SETTLE_OTHER = 60_000
QUARANTINE = "quarantine"
# Where what is handed out is read, and refused.
HANDED_OUT = ("requests", "delayed", "processing")
# Reasons that are looked into to say what became of a task.
LOOKED = 2000
MAX_REASON = 65_536


def look(tree: Tree, channel: str, now: int) -> list[str]:
    """Adopt valid messages under strange names; put everything else that is not ours in quarantine."""
    done: list[str] = []
    known = frozenset(tree.names("tasks"))
    for part in HANDED_OUT:
        folder = f"channels/{channel}/{part}"
        for name in tree.names(folder):
            slot = names.parse(channel, part, name)
            if slot is None:
                done += _stranger(tree, folder, name, now)
            elif part == "requests" and f"{slot.id}.json" not in known:
                done += _unknown(tree, slot, name, now)
    return done


def strangers(tree: Tree, channel: str) -> list[str]:
    """Return the paths of what lies where tasks of a channel wait, are held or dead, and has no task's name."""
    return [
        f"channels/{channel}/{part}/{name}"
        for part in names.STATES
        for name in tree.names(f"channels/{channel}/{part}")
        if names.parse(channel, part, name) is None and not name.endswith(names.REASON)
    ]


def _stranger(tree: Tree, folder: str, name: str, now: int) -> list[str]:
    at = tree.live(folder)
    about = None if at is None else tree.fs.stat(name, at)
    if at is None or about is None:
        return []
    is_message = name.endswith(".json") and not name.startswith(".")
    try:
        if is_message and folder.endswith("requests") and _adopt(tree, folder, name, about.st_nlink):
            return [f"adopted {name!r}"]
    except Unreadable as error:
        return [f"left {name!r} where it is: {error}"]
    quiet = now - int(max(about.st_mtime, about.st_ctime) * 1000)
    if quiet < (SETTLE if is_message else SETTLE_OTHER):
        return []
    return [f"quarantined {name!r}"] if quarantine(tree, folder, name, "it is not a message of this bus", now) else []


def _adopt(tree: Tree, folder: str, name: str, links: int) -> bool:
    """Give a valid message under a strange name its own; a second link may be of an adopter who died.

    Raises:
        Unreadable: this user may not read it, or not link it, which takes the right to write it.
    """
    if links > 2:
        return False
    at = tree.fd(folder)
    try:
        found = tree.fs.read(name, at, wire.MAX_FILE)
        body = wire.load_body(found.data)
        if folder != f"channels/{body.channel}/requests":
            return False
        if links == 1:
            tree.fs.link(name, at, body.id + ".json", tree.fd("tasks", make=True))
        own = tree.fs.stat(body.id + ".json", tree.fd("tasks"))
        if own is None or own.st_ino != found.inode:
            return False
        tree.fs.rename(name, at, body.id + ".json", at)
    except Unreadable:
        raise
    except PermissionError:
        raise tree.fs.closed(name, at) from None
    except (CorruptRecord, OSError):
        return False
    return True


def _unknown(tree: Tree, slot: Slot, name: str, now: int) -> list[str]:
    """Give a message that was put under a right name by hand its identity, or put it aside."""
    at, why = tree.fd(f"channels/{slot.channel}/requests"), "it is not the message that its name says"
    own = tree.fs.stat(f"{slot.id}.json", tree.fd("tasks", make=True))
    about = tree.fs.stat(name, at)
    if about is None or (own is not None and own.st_ino == about.st_ino):
        return []  # Posted, or claimed, since `tasks/` was listed: a listing is no proof that it is unknown.
    try:
        found = tree.fs.read(name, at, wire.MAX_FILE)
        body = wire.load_body(found.data)
        if found.links == 1 + _key_links(tree, body, found) and (body.id, body.channel) == (slot.id, slot.channel):
            tree.fs.link(name, at, f"{slot.id}.json", tree.fd("tasks", make=True))
            return [f"adopted {name!r}"]
        if _adopt(tree, f"channels/{slot.channel}/requests", name, found.links):
            return [f"adopted {name!r}"]
    except (Unreadable, PermissionError) as error:
        closed = error if isinstance(error, Unreadable) else tree.fs.closed(name, at)
        return [f"left {name!r} where it is: {closed}"]
    except CorruptRecord as error:
        why = str(error)
    except (FileNotFoundError, FileExistsError):
        return []  # Claimed, or introduced, meanwhile.
    # Nobody who claims may ever come: whoever sweeps puts it aside, once it has settled.
    return [f"quarantined {name!r}"] if suspect(tree, slot, why, now) else []


def _key_links(tree: Tree, body: Body, found: Found) -> int:
    """Count the key's name: of a post that a crash cut off there it is ours, and not a hard link from elsewhere."""
    key = tree.fs.stat(f"{body.key}.json", tree.fd("keys", make=True)) if body.key else None
    return int(key is not None and key.st_ino == found.inode)


def suspect(tree: Tree, slot: Slot, why: str, now: int) -> bool:
    """Quarantine a file whose name is right and whose bytes are not, once it has settled."""
    place = names.place(slot)
    folder = f"channels/{slot.channel}/{place.folder}"
    at = tree.live(folder)
    about = None if at is None else tree.fs.stat(place.name, at)
    if about is None or now - int(max(about.st_mtime, about.st_ctime) * 1000) < SETTLE:
        return False
    return quarantine(tree, folder, place.name, why, now)


def put_aside(tree: Tree, task_id: str) -> str:
    """Return why a task was put aside, by the latest reason that names it; empty if none does."""
    reasons = [name for name in tree.names(QUARANTINE) if name.endswith(names.REASON)]
    for name in sorted(reasons, reverse=True)[:LOOKED]:
        with suppress(CorruptRecord, FileNotFoundError):
            said = wire.loads(tree.fs.read(name, tree.fd(QUARANTINE), MAX_REASON).data)
            if task_id in str(said.get("was")):
                return str(said.get("reason"))
    return ""


def why_refused(tree: Tree, kept: str, task: tuple[str, str]) -> str:
    """Return when and why a task was put aside where it waited or was held; empty if that is not so.

    Args:
        kept: the name in quarantine/ of what was put aside.
        task: its id and channel.
    """
    with suppress(CorruptRecord, FileNotFoundError):
        said = wire.loads(tree.fs.read(kept + names.REASON, tree.fd(QUARANTINE), MAX_REASON).data)
        base, channel, folder, name = (str(said.get("was")).split("/") + [""] * 4)[:4]
        slot = names.parse(channel, folder, name) if base == "channels" and folder in HANDED_OUT else None
        if slot is not None and (slot.id, slot.channel) == task:
            return f"{said.get('at')}: {said.get('reason')}"
    return ""


def quarantine(tree: Tree, folder: str, name: str, why: str, now: int) -> bool:
    """Move whatever has a name out of the way, unopened, with a reason beside it."""
    kept = f"{now}-{tree.token(4)}"
    at = tree.fd(QUARANTINE, make=True)
    where = ascii(f"{folder}/{name}")[1:-1]
    reason = wire.dumps({"was": where, "reason": why, "at": wire.stamp(now)})
    tree.fs.create(kept + names.REASON, at, reason, sync=False)
    try:
        tree.fs.rename(name, tree.fd(folder), kept, at)
    except (FileNotFoundError, PermissionError):  # Gone, or a folder that is closed to this user, who may not move it.
        tree.drop(QUARANTINE, kept + names.REASON)
        return False
    return True
