"""Writing into other programs' settings: seen before it is done, whole or not at all, and undone to the byte.

E1  A change is decided on the bytes that were read, and written only if they are still there: looked at again with all
    else done, directly before the rename.  A file that is new never takes the place of another.
E2  Written beside and renamed, with the mode of before; a symlink stays one, what it points at is changed.
E3  What was there before is kept, with what it became: as long as nobody else has changed it, undoing brings back the
    very bytes, and a file that was made for this goes, with its folders.  Else what is ours alone is taken out, and
    what was kept stays where it can be found.
E4  What has our name and is not ours is somebody's: it is left alone unless that is asked for.
E5  All that is put into one file, or taken out of it, is one change.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.clients import placing
from mcp_bus.clients.files import MAX_SETTINGS, NoFile, contents
from mcp_bus.clients.parts import ABSENT, ADDED, REMOVED, REPLACED, SAME
from mcp_bus.errors import BusError, Conflict, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.clients.known import Home
    from mcp_bus.clients.parts import Part

_fs = placing.fs


_NOT_BOTH = "what would go into it cannot be in one file"


class Unwritable(BusError):
    """A client's settings cannot be read or written; nothing was changed."""

    code = "unwritable"


class Change(NamedTuple):
    """What would become of a file.

    Attributes:
        path: the file itself, where a symlink leads.
        before, after: its bytes; None for no such file.
        parts: by the name of each part, what becomes of it.
        is_shared: whether it is of a project, and others may read it as its owner's umask has it; else it is private.
    """

    path: Path
    before: bytes | None
    after: bytes | None
    parts: dict[str, str]
    is_shared: bool = False

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to write."""
        return self.before == self.after

    @property
    def what(self) -> str:
        """What becomes of all of it: if not the same of each part, that which changes most."""
        found = [*self.parts.values()]
        return next((what for what in (REMOVED, REPLACED, ADDED) if what in found), found[0])


def adding(path: Path, parts: Sequence[Part], home: Home, *, is_forced: bool = False) -> Change:
    """Return the change that puts parts into a file.

    Args:
        is_forced: whether what has the name of one and is somebody else's is replaced (rule E4).

    Raises:
        InvalidRequest: the file cannot be read as what it should be, or what is there is somebody else's.
        Unwritable: it is no file that can be changed.
    """
    real, before = _seen(path)
    text, is_known = _text(real, before), _is_known(_kept(home, real), before)
    done = dict[str, str]()
    with _named(real):
        for part in parts:
            text, done[part.name] = part.put(text, is_known=is_known, is_forced=is_forced)
        # Each is read once more: what a later part made of the file has to be what the earlier ones can read, too.
        if any(part.put(text, is_known=False, is_forced=False) != (text, SAME) for part in parts):
            raise InvalidRequest(_NOT_BOTH, hint="give each a file of its own")
    after = before if {*done.values()} <= {SAME} else text.encode()
    return Change(real, before, after, done)


def removing(path: Path, parts: Sequence[Part], home: Home) -> Change:
    """Return the change that takes parts out of a file (rule E3).

    Raises:
        InvalidRequest, Unwritable: as of `adding`.
    """
    real, before = _seen(path)
    if before is None:
        return Change(real, None, None, dict.fromkeys((part.name for part in parts), ABSENT))
    kept = _kept(home, real)
    is_known = _is_known(kept, before)
    with _named(real):
        text, done = _without(_text(real, before), parts, is_known=is_known)
        if REMOVED not in done.values():
            return Change(real, before, before, done)
        if kept is not None and is_known:
            # What was there before may have had something of ours, too.
            text = None if kept.before is None else _without(_text(real, kept.before), parts, is_known=False)[0]
        elif kept is not None and kept.before is None and not (text or "").strip():
            text = None
    return Change(real, before, None if text is None else text.encode(), done)


def has(path: Path, part: Part, home: Home) -> bool:
    """Tell whether a part is in a file that can be changed."""
    with suppress(BusError):
        return removing(path, [part], home).what == REMOVED
    return False


def _without(text: str | None, parts: Sequence[Part], *, is_known: bool) -> tuple[str | None, dict[str, str]]:
    done = dict[str, str]()
    for part in parts:
        text, done[part.name] = part.drop(text or "", is_known=is_known)
    return text, done


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in an error which file it is about."""
    try:
        yield
    except InvalidRequest as error:
        msg = f"{str(path)!r} is left as it is: {error}"
        raise InvalidRequest(msg, hint=error.hint) from None


def _seen(path: Path) -> tuple[Path, bytes | None]:
    """Return the file that a path leads to, and its bytes."""
    try:
        real = path.resolve()
        data = contents(real, MAX_SETTINGS)
        if not real.stat().st_mode & stat.S_IWUSR or not os.access(real, os.W_OK):
            raise _refused(real, "it is read-only")
    except FileNotFoundError:
        return real, None
    except NoFile as error:
        raise _refused(real, str(error)) from None
    except (OSError, RuntimeError) as error:
        raise _refused(path, getattr(error, "strerror", None) or str(error)) from None
    return real, data


def _text(path: Path, data: bytes | None) -> str:
    try:
        return (data or b"").decode()
    except UnicodeDecodeError:
        raise _refused(path, "it is not UTF-8") from None


def _refused(path: Path, why: str) -> Unwritable:
    return Unwritable(f"{str(path)!r} is left as it is: {why}", hint="mend that, or put the entry in by hand")


# --- writing ----------------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """What a file was before we changed it, the hash of what it became, and how many folders were made for it."""

    before: bytes | None
    after: str
    folders: int


def write(change: Change, home: Home) -> Path | None:
    """Do what a change says; return where bytes of before are kept that are not in the file now, if there are any.

    Raises:
        Conflict: somebody has changed the file since it was read; nothing was written.
        Unwritable: it cannot be written.
    """
    if change.is_none:
        return None
    # Where a person has these folders is that person's: they may be links.
    place = Path(os.path.realpath(kept_in(home)))
    unkept = f"what was there before cannot be kept in {str(place)!r}: "
    with _told(change.path, unkept), _fs.folder(place) as state, _alone(state):
        return _write(change, home, state)


@contextmanager
def _told(path: Path, what: str = "") -> Iterator[None]:
    """Say of an error of the system which file is left as it is for it."""
    try:
        yield
    except OSError as error:
        raise _refused(path, what + (error.strerror or str(error))) from None


def _write(change: Change, home: Home, state: int) -> Path | None:
    _look(change)
    kept, name = _kept(home, change.path), _name(home, change.path)
    if change.what == REMOVED:
        with _told(change.path):
            _place(change)
            if change.after is None:
                placing.fold(change.path.parent, kept.folders if kept is not None else 0)
        # What is not what was brought back may be all that is left of it.
        left = _set_aside(state, name, change.after)
        for done in (name, _copy(name)):
            with suppress(FileNotFoundError):
                _fs.unlink(done.name, state)
        return left
    # What we changed twice goes back to what it was before the first time.
    first = kept if kept is not None and _is_known(kept, change.before) else None
    folders = first.folders if first else placing.missing(change.path.parent)
    _set_aside(state, name, first.before if first else change.before)
    _keep(state, name, change.path, _Kept(first.before if first else change.before, _hash(change.after), folders))
    try:
        with _told(change.path):
            _place(change)
    except BaseException:
        _forget(state, name, change.path, kept)
        raise
    return _copy(name) if change.before is not None else None


def _look(change: Change) -> None:
    """Refuse to go on if a file is not what it was when the change was decided."""
    if _seen(change.path) != (change.path, change.before):
        msg = f"{str(change.path)!r} was changed by somebody else meanwhile"
        raise Conflict(msg, hint="repeat the call")


def _place(change: Change) -> None:
    """Write or remove the file itself; folders that were made for nothing go again."""
    folder, name = change.path.parent, change.path.name
    made = (folder, *folder.parents)[: placing.missing(folder)]
    try:
        with _fs.folder(folder) as at:
            if change.after is None:
                _look(change)
                _fs.unlink(name, at)
            else:
                is_there = change.before is not None
                placing.put(name, at, change.after, is_there=is_there, look=lambda: _look(change))
        if change.is_shared and change.before is None:
            placing.share(change.path, made)
    except BaseException:
        placing.fold(folder, len(made))
        raise


@contextmanager
def _alone(state: int) -> Iterator[None]:
    """Keep another install of ours out meanwhile, where the system has such locks."""
    fd = _fs.open_append("lock", state)
    try:
        with suppress(ImportError):
            import fcntl  # noqa: PLC0415  not everywhere

            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def kept_in(home: Home) -> Path:
    """Return the folder of what settings were before they were changed."""
    said = home.environment.get("XDG_STATE_HOME", "")
    return (Path(said) if Path(said).is_absolute() else home.home / ".local" / "state") / "mcp-bus" / "settings"


def _name(home: Home, path: Path) -> Path:
    return kept_in(home) / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.json"


def _copy(name: Path) -> Path:
    """Return where the bytes of before are, a file like any other."""
    return name.with_suffix(".before")


def _hash(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()


def _is_known(kept: _Kept | None, data: bytes | None) -> bool:
    """Tell whether a file is, to the byte, what we made of it."""
    return kept is not None and kept.after == _hash(data)


def _keep(state: int, name: Path, path: Path, kept: _Kept) -> None:
    if kept.before is not None:
        placing.put(_copy(name).name, state, kept.before, is_there=False)
    said = {"path": str(path), "was_there": kept.before is not None, "after": kept.after, "folders": kept.folders}
    placing.put(name.name, state, json.dumps(said).encode(), is_there=False)


def _forget(state: int, name: Path, path: Path, kept: _Kept | None) -> None:
    """Keep what was kept before a change that failed."""
    with suppress(OSError):
        if kept is not None:
            _keep(state, name, path, kept)
        for done in (name, _copy(name)) if kept is None else (_copy(name),) if kept.before is None else ():
            _fs.unlink(done.name, state)


def _set_aside(state: int, name: Path, data: bytes | None) -> Path | None:
    """Give what is kept a name of its own if it is not these bytes, so that it stays; return that."""
    with suppress(OSError):
        kept = _copy(name).read_bytes()
        if kept != data:
            aside = name.with_name(f"{name.stem}-{_hash(kept)[:8]}.before")
            _fs.rename(_copy(name).name, state, aside.name, state)
            return aside
    return None


def _kept(home: Home, path: Path) -> _Kept | None:
    """Return what is kept of a file, if anything can be read of it."""
    name = _name(home, path)
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(name.read_bytes())
        if found["path"] == str(path):
            before = _copy(name).read_bytes() if found["was_there"] else None
            return _Kept(before, str(found["after"]), int(found.get("folders", 1)))
    return None
