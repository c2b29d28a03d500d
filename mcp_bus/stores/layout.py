"""Making a bus, and telling whether a directory is one this version can use."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.clock import System
from mcp_bus.errors import CorruptRecord, InvalidRequest, StoreUnavailable, Unreadable
from mcp_bus.stores import acls
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.modes import Modes, group_name
from mcp_bus.stores.probe import Verdict, probe
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.clock import Source

FOLDERS = ("tasks", "channels", "staged", "tmp", "keys", "quarantine", "rejected", "agents", "journal", "tombstones")
FILES = ("bus.json", "manifest.json", "PROTOCOL.md", "registry.json")
# Kinds of records, each a folder; those of topics' readers are one deeper.
RECORDS = (
    "agents",
    "told",
    "plans",
    "plans.signed",
    "progress",
    "children",
    "fleets",
    "stops",
    "user-sync",
    "user-sync.hosts",
)
# What is made when it is needed.
LATER = (
    "alive", "boots", "cursors", "git.json", "logs", "outputs", "pipes", "repo.git", "runs", "signatures", "tentative",
    "tentative.lost", "unsent", "unsent.channels",
)  # fmt: skip
# Every name that this package, or the file system, makes at the top of a bus.
KNOWN = frozenset({*FOLDERS, *FILES, *RECORDS, *LATER, "lost+found"})
TO_MEND = (
    "`mcp-bus fsck` says what is wrong, and `mcp-bus fsck --repair` writes it anew, with the id that it had if possible"
)
PAGE = """\
# This directory is a bus

Coding agents and scripts hand each other tasks here through plain files (mcp-bus, format 1).
You may look at everything.  Change things with `mcp-bus`, not by hand.

    tasks/<id>.json                        every task: its body, never changed, never moved
    channels/<channel>/channel.json        the channel's rules
    channels/<channel>/requests/           ready: waiting for a worker
    channels/<channel>/delayed/            scheduled: <due, ms>.<id>.json
    channels/<channel>/processing/         leased: <id>.a<attempt>.<holder>.<token>.<lease end, ms>.json
    channels/<channel>/responses/          results: <id>.json, the first one is final
    channels/<channel>/dead/               out of attempts, or waiting for a person; why: <id>.reason.json
    channels/<channel>/archive/<day>/      ended: ..._request (done), _cancelled, _discarded, _expired
    channels/<channel>/attempts/<id>/      what became of each attempt
    channels/<channel>/pruning/            being forgotten; a sweep finishes it
    channels/@<agent>/                     an agent's inbox: unread, being read, read, as for tasks
    signatures/                            of the messages and results of signed channels: <id>.jws, <id>.<digest>.jws
    staged/ tmp/                           on their way; a sweep finishes or removes them
    rejected/                              results that came after their lease was lost
    quarantine/                            bytes that were not a message, each with a reason
    keys/                                  idempotency keys: the same key is the same task
    agents/                                who is there, or was; <agent>.md is a role you may write down
    cursors/ told/                         what subscribers of a topic have read, what hooks have told
    user-sync/USER.md                      the user's profile, shared by all agents; write it with `mcp-bus profile`
    pipes/                                 named pipes: nothing in them is kept
    runs/<id>.a<attempt>.<word>/           what a worker's command was asked, wrote and made
    outputs/<id>_result.md                 results to read, of channels with the rule `outputs`; delete what you like
    boots/                                 the start of the machine after which tasks were last looked for
    tombstones/                            ids that were pruned
    manifest.json, journal/                for people; may be deleted at any time

A task's name is its state: a move is one rename, and a rename of a name that is gone fails, so
only one can win.  Marks in a name: .p<priority> .a<attempts so far> .m<attempts allowed>
.r<hand-backs> .t<expires, ms>.

To add a message by hand: write a complete JSON file elsewhere on the same file system, then rename
it to channels/<channel>/requests/<id>.json, where <id> is `req_` and 8 to 48 lower-case hex digits.
"""


def tried(tree: Tree) -> str:
    """Say what two processes find that try to meet there, see `trial.refusal`."""
    from mcp_bus.stores import trial  # noqa: PLC0415  few file systems have to be tried

    return trial.refusal(tree)


def create(
    root: Path,
    *,
    fs: Fs | None = None,
    source: Source | None = None,
    group: int | None = None,
    look: Callable[[Tree], str] | None = tried,
) -> Verdict:
    """Make a bus, or complete one that is there.

    Args:
        group: the id of the Unix group to share it with (`modes.group_of`); None makes it private to its user, or
            completes it as what it is.
        look: says what keeps two processes from meeting there, where the name of the file system does not tell; empty
            for nothing.  None where the medium is in no folder.

    Returns:
        What the probe found out about the file system.

    Raises:
        InvalidRequest: the directory holds something else, or a bus that is not shared with that group.
        StoreUnavailable: the file system cannot carry a bus, or is full or read-only.
        Untrusted: the directory belongs to another user.
    """
    fs, source = fs or Fs(), source or System()
    if group is not None and not root.parent.is_dir():
        msg = f"{str(root.parent)!r} is missing, and what is made on the way to a bus is for its user alone"
        raise InvalidRequest(msg, hint="make that folder so that the group can enter it, then repeat the call")
    made = _make_root(root, fs)
    tree = Tree(root, fs, source)
    try:
        with tree.words():
            _check_empty(tree)
            there = tree.names("")
            if group is not None:
                _share(tree, group)
            verdict = probe(tree, source.token(4))
            if look is not None and "bus.json" not in there and not (verdict.refusal or verdict.is_known):
                verdict = verdict._replace(refusal=_looked(look, tree, there, made))
            if verdict.refusal:
                _unmake(tree, there, made)
            verdict.check(root)
            for folder in FOLDERS:
                tree.fd(folder, make=True)
            _once(tree, "PROTOCOL.md", PAGE.encode(), source)
            _once(tree, "registry.json", _registry(source), source)
            write_about(tree, source, verdict)  # Last: with it the bus is complete.
            fs.fsync(tree.fd())
    finally:
        tree.close()
    return verdict


def write_about(tree: Tree, source: Source, verdict: Verdict | None = None, *, bus: str = "") -> None:
    """Write `bus.json`, if it is not there, without which a directory is no bus.

    Args:
        bus: the id that it had before; a new one if empty.
    """
    about = {
        "format": wire.FORMAT,
        "id": bus or "bus_" + source.token(8),
        "created": wire.stamp(source.now()),
        "filesystem": (verdict or probe(tree, source.token(4))).fields(),
    }
    _once(tree, "bus.json", wire.dumps(about), source)


def is_headless(root: Path) -> bool:
    """Tell whether there is a bus that has lost its `bus.json`: it has rules of channels, tasks or signatures.

    These come after that; abq's home has none of them.  What may not be looked at has lost nothing.
    """
    later = ("channels/*/channel.json", "tasks/*.json", "signatures/*.jws")
    try:
        return any(any(root.glob(name)) for name in later) and not (root / "bus.json").exists()
    except OSError:
        return False


def _headless(root: Path) -> str:
    return f"the bus {str(root)!r} has lost its bus.json"


def _check_empty(tree: Tree) -> None:
    """Refuse to make a bus among somebody's files; abq's home and what a killed `create` left are fine."""
    if is_headless(tree.root):
        raise StoreUnavailable(_headless(tree.root), hint=TO_MEND)
    there = tree.names("")
    strangers = sorted(set(there) - KNOWN)
    if strangers and "bus.json" not in there:
        msg = f"{str(tree.root)!r} is not a bus, and not empty: it holds {strangers[0]!r}"
        raise InvalidRequest(msg, hint="name a new or empty directory")


def _share(tree: Tree, group: int) -> None:
    """Give the root the group and mode by which all that is made below is shared; mode last, for it is what counts."""
    if tree.fs.modes.group == group:
        return
    if acls.has(tree.fd()):
        msg = f"{str(tree.root)!r} has, or inherits, an access control list: its mode would not say who may use the bus"
        raise InvalidRequest(msg, hint=f"`{acls.CURE} {tree.root}`, then repeat the call; or name another directory")
    if "bus.json" in tree.names(""):
        path, name = str(tree.root), group_name(group)
        msg = f"there is a bus at {path!r} already, which is not shared with group {name}"
        hint = f"to share it: `chgrp -R {group} {path}`, `chmod 2770 {path}`, then `mcp-bus fsck --repair`"
        raise InvalidRequest(msg, hint=hint)
    tree.fs.fchown(tree.fd(), group)
    tree.fs.fchmod(tree.fd(), Modes(group).folder)
    tree.fs.modes = Modes(group)


def _looked(look: Callable[[Tree], str], tree: Tree, there: list[str], made: list[Path]) -> str:
    """Return what `look` says; what could not be tried is not used either, and nothing is left."""
    try:
        return look(tree)
    except BaseException:
        _unmake(tree, there, made)
        raise


def _unmake(tree: Tree, there: list[str], made: list[Path]) -> None:
    """Remove what was made of a bus that is refused: what the folder did not have before, and the folder if it is new.

    Nobody uses it yet: what another process makes there meanwhile is refused as this is.
    """
    if "tmp" not in there:
        with contextlib.suppress(OSError):
            tree.fs.rmdir("tmp", tree.fd())
    for path in reversed(made):
        with contextlib.suppress(OSError), tree.fs.folder(path.parent.resolve()) as at:
            tree.fs.rmdir(path.name, at)


def _make_root(root: Path, fs: Fs) -> list[Path]:
    """Make a folder, and those above it; return which were missing, from above."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    made: list[Path] = []
    for path in reversed(missing):
        try:
            at = fs.open_dir(str(path.parent.resolve()), None)  # A home may be a symlink; what is in it may not.
            try:
                fs.mkdir(path.name, at)
                made.append(path)
            except FileExistsError:
                continue
            finally:
                fs.close(at)
        except OSError as error:
            msg = f"cannot make {str(path)!r}: {error.strerror}"
            raise StoreUnavailable(msg, hint="choose another place with --bus or MCP_BUS_DIR") from error
    return made


def _once(tree: Tree, name: str, data: bytes, source: Source) -> None:
    """Write a file that must not change once it is there, whole or not at all."""
    draft = f"{name}.{source.token(4)}"
    tree.fs.create(draft, tree.fd("tmp"), data, sync=True)
    once(tree, draft, name, tree.fd())


def once(tree: Tree, draft: str, name: str, at: int) -> None:
    """Give a draft in `tmp/` its name, unless the name is taken: then it stays as it is."""
    tmp = tree.fd("tmp")
    with contextlib.suppress(FileExistsError):
        tree.fs.link(draft, tmp, name, at)
    tree.fs.unlink(draft, tmp)


def _registry(source: Source) -> bytes:
    """Return abq's registry, so that abq finds its home in order."""
    value = {"version": wire.VERSION, "created": wire.stamp(source.now()), "agents": {}, "channels": {}}
    return (json.dumps(value, indent=2) + "\n").encode()


def check_format(tree: Tree) -> dict[str, Any]:
    """Return what a bus says about itself; refuse a directory that is none of a format this version knows.

    Raises:
        StoreUnavailable: it is not a bus.
        CorruptRecord: its `bus.json` is damaged or of a later format.
    """
    try:
        about = wire.loads(tree.fs.read("bus.json", tree.fd(), 65536).data)
    except FileNotFoundError:
        if is_headless(tree.root):
            raise StoreUnavailable(_headless(tree.root), hint=TO_MEND) from None
        msg = f"{str(tree.root)!r} is not a bus: it has no bus.json"
        hint = "run `mcp-bus init` to make one, or name another with --bus or MCP_BUS_DIR"
        raise StoreUnavailable(msg, hint=hint) from None
    except Unreadable:
        raise
    except CorruptRecord as error:
        what = f"bus.json of the bus {str(tree.root)!r} cannot be read: {error}"
        raise CorruptRecord(what, hint=TO_MEND) from None
    if about.get("format") != wire.FORMAT:
        what = f"the bus {str(tree.root)!r} has format {about.get('format')!r}, this version knows {wire.FORMAT}"
        raise CorruptRecord(what, hint="use the version of mcp-bus that made it, or a newer one")
    return about
