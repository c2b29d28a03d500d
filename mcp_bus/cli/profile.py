"""profile: what all agents should know of their user, shared by the hosts of a bus and merged by a model."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import userprofile
from mcp_bus.cli.arguments import Verb, content, seconds, shell
from mcp_bus.cli.codes import OK
from mcp_bus.cli.fields import stamp
from mcp_bus.cli.output import clean, duration, one_line
from mcp_bus.errors import BusError, Conflict, CorruptRecord, InvalidRequest, NotFound
from mcp_bus.identity.process import host

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.userprofile import Profile

# Merging once more because somebody wrote meanwhile.
TRIES = 5
LIMIT_S = 300.0
# Output of a command that merges: the profile, and what else it says.
MAX_OUTPUT = 16 * userprofile.MAX_BYTES
# Action: whether it takes a file.
ACTIONS = {"show": False, "write": True, "merge": True, "sync": True}


def declare(parser: Parser) -> None:
    """Declare the options of `profile`."""
    parser.add_argument(
        "action",
        choices=tuple(ACTIONS),
        help="show it; write it; merge: print what a model is asked; sync: all of that",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="this host's USER.md; write takes - for stdin, too")
    parser.add_argument("--base", type=int, metavar="N", help="write: the revision that was read, 0 for the first one")
    parser.add_argument("--limit", type=seconds, default=LIMIT_S, metavar="TIME", help="sync: for the command, 5m")
    parser.add_argument("--announce", action="store_true", help="write, sync: tell every agent that it changed")


def profile(call: Call) -> int:
    """Show, write or merge the shared profile."""
    args = call.args
    if ACTIONS[args.action] != (args.file is not None):
        msg = f"profile {args.action} takes {'a file' if ACTIONS[args.action] else 'no file'}"
        raise InvalidRequest(msg, hint="mcp-bus profile --help")
    if (args.action == "write") != (args.base is not None):
        msg = "--base is for write, which needs it"
        raise InvalidRequest(msg, hint="the revision that `mcp-bus profile show` says, 0 if there is no profile yet")
    if args.command and args.action != "sync":
        msg = "a command is for sync, which lets it merge"
        raise InvalidRequest(msg, hint="mcp-bus profile sync USER.md -- claude -p")
    if args.action == "sync":
        _check_folder(args.file)
    with call.bus(create=args.action in ("write", "sync")) as bus:
        return _ACTIONS[args.action](call, bus)


def _check_folder(file: str) -> None:
    """Refuse a file in a folder that is not there: that is a slip, and no new place.

    Raises:
        NotFound: it is not.
    """
    folder = Path(os.path.realpath(file)).parent
    if not folder.is_dir():
        msg = f"there is no folder {str(folder)[:200]!r} for {file[:200]!r}"
        raise NotFound(msg, hint="mend the path, or make that folder first")


def _show(call: Call, bus: Bus) -> int:
    found = userprofile.read(bus)
    if not found.revision:
        msg = "there is no shared profile yet"
        raise NotFound(msg, hint="`mcp-bus profile write USER.md --base 0` makes one")
    if call.out.as_json:
        call.out.json(_fields(found))
        return OK
    call.out.line(clean(found.text, multiline=True).rstrip("\n"))
    call.out.note(f"revision {found.revision}, by {clean(found.by)} {duration(bus.source.now() - found.at)} ago")
    return OK


def _fields(found: Profile) -> dict[str, Any]:
    return {"revision": found.revision, "by": found.by, "at": stamp(found.at), "text": found.text}


def _write(call: Call, bus: Bus) -> int:
    text = content("-") if call.args.file == "-" else _read(Path(call.args.file))
    before = -1
    with suppress(CorruptRecord):  # It is written over.
        before = userprofile.read(bus).revision
    made = userprofile.write(bus, text, base=call.args.base)
    return _told(call, bus, made, is_new=made.revision != before, did="written")


def _merge(call: Call, bus: Bus) -> int:
    shared, mine = userprofile.read(bus), _read(Path(call.args.file))
    call.out.line(userprofile.asked(shared, mine, bus.source.token(6)).rstrip("\n"))
    again = f"{call.again()} profile write FILE --base {shared.revision}"
    call.out.note(f"write what is answered between those lines with: {again}")
    return OK


class _Local(NamedTuple):
    """A file of this host: where it is in the end, and what it had when it was read; None if it was not there."""

    path: Path
    text: str | None


def _sync(call: Call, bus: Bus) -> int:
    """Let this host's file and the shared profile become one text; a model is asked only where both have changed."""
    path = Path(os.path.realpath(call.args.file))
    place = f"{host()}:{path}"
    for _ in range(TRIES):
        local, shared = _Local(path, _read(path) if path.exists() else None), userprofile.read(bus)
        if not (local.text or "").strip() and not shared.revision:
            msg = f"nothing is in {call.args.file!r}, and there is no shared profile"
            raise NotFound(msg, hint="write what your agents should know of you into that file, then repeat this")
        if local.text is None or not local.text.strip() or shared.has_had(local.text):
            is_new = local.text is None or local.text.strip() != shared.text.strip()
            if is_new:
                _put(local, shared.text)
            userprofile.note(bus, place, shared)
            return _told(call, bus, shared, is_new=False, did="taken from the bus" if is_new else "the same here")
        is_ours = userprofile.is_of(bus, place, shared)  # Nobody else has changed it since.
        text = userprofile.check(local.text) if is_ours else _merged(call, shared, local.text)
        try:
            made = userprofile.write(bus, text, base=shared.revision)
        except Conflict as error:
            if shared.revision == userprofile.read(bus).revision:
                raise
            call.out.note(f"once more: {clean(str(error))}")
            continue
        _put(local, made.text)
        userprofile.note(bus, place, made)
        is_new = made.revision != shared.revision
        return _told(call, bus, made, is_new=is_new, did="sent" if is_ours else "merged")
    msg = f"the profile was written {TRIES} times while it was merged"
    raise Conflict(msg, hint="repeat the call")


def _merged(call: Call, shared: Profile, mine: str) -> str:
    """Let the command merge two versions.

    Raises:
        InvalidRequest: there is none, it failed, or it did not answer with a profile; nothing was changed.
    """
    if not call.args.command:
        msg = f"{call.args.file!r} and the shared profile have both changed, and no command was given to merge them"
        hint = f"{call.again()} profile sync {shell(call.args.file)} -- claude -p  (any command that answers a prompt)"
        raise InvalidRequest(msg, hint=hint)
    import secrets

    from mcp_bus import command
    from mcp_bus.config import environment

    mark, words = secrets.token_hex(6), call.args.command
    asked = command.Command(
        words, Path.cwd(), environment(), userprofile.asked(shared, mine, mark).encode(), call.args.limit, MAX_OUTPUT
    )
    call.out.note(f"merging by: {clean(' '.join(map(shell, words)))}")
    try:
        ended = command.run(asked)
    except OSError as error:
        msg = f"{words[0]!r} could not be started: {error.strerror}"
        raise InvalidRequest(msg, hint="name a program that is installed, by its path if need be") from None
    if ended.code or ended.why:
        last = one_line(ended.output.decode(errors="replace").strip().rpartition("\n")[2], 200)
        msg = f"{words[0]!r} failed: {ended.why or f'exit code {ended.code}'}{f': {last}' if last else ''}"
        raise InvalidRequest(msg, hint="nothing was changed; run it by hand to see why")
    return userprofile.answered(ended.output.decode(errors="replace"), mark)


def _read(path: Path) -> str:
    """Return a file's text.

    Raises:
        InvalidRequest: it cannot be read, or is no text that can be a profile.
    """
    from mcp_bus.clients import files

    try:
        return files.contents(path, 2 * userprofile.MAX_BYTES).decode()
    except (OSError, UnicodeError, files.NoFile) as error:
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "it is not UTF-8"
            if isinstance(error, ValueError)
            else error
        )
        msg = f"cannot read {str(path)!r}: {why}"
        raise InvalidRequest(msg, hint="name a Markdown file") from None


def _put(local: _Local, text: str) -> None:
    """Write this host's file, unless somebody changed it since it was read.

    Raises:
        Conflict: that is so; it was left as it is.
    """
    from mcp_bus.clients import placing
    from mcp_bus.stores.fsops import Fs

    def look() -> None:
        if (_read(local.path) if local.path.exists() else None) != local.text:
            msg = f"{str(local.path)!r} was changed meanwhile, and left as it is"
            raise Conflict(msg, hint="repeat the call: it is merged as it is now")

    try:
        with Fs().folder(local.path.parent) as at:
            placing.put(local.path.name, at, text.encode(), is_there=local.text is not None, look=look)
    except OSError as error:
        msg = f"cannot write {str(local.path)!r}: {error.strerror}"
        raise InvalidRequest(
            msg, hint="the shared profile is as it should be; repeat the call once that can be written"
        ) from None


def _told(call: Call, bus: Bus, made: Profile, *, is_new: bool, did: str) -> int:
    """Say what was done; tell the agents if that was asked for."""
    announced = False
    if is_new and call.args.announce:
        try:
            said = (
                f"the shared user profile changed: revision {made.revision}; `mcp-bus profile show`, or bus://profile"
            )
            bus.mail.send("broadcast", said, type="note", title="shared USER.md updated")
            announced = True
        except BusError as error:
            call.out.warn(f"mcp-bus: it was written, but nobody was told: {clean(str(error))}")
    if call.out.as_json:
        call.out.json(_fields(made) | {"did": did, "announced": announced})
    else:
        call.out.line(f"revision {made.revision}: {did}")
    return OK


_ACTIONS = {"show": _show, "write": _write, "merge": _merge, "sync": _sync}
_EXAMPLE = "mcp-bus profile show\nmcp-bus profile write USER.md --base 3\nmcp-bus profile sync ~/USER.md -- claude -p"
VERBS = {"profile": Verb(declare, profile, _EXAMPLE, takes_command=True)}
