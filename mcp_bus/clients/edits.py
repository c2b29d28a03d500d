"""Writing into other programs' settings: seen before it is done, whole or not at all, and undone to the byte.

E1  A change is decided on the bytes that were read, and written only if they are still there.
E2  Written beside and renamed, with the mode of before; a symlink stays one, what it points at is changed.
E3  What was there before is kept, with what it became: as long as nobody else has changed it, undoing brings back the
    very bytes, and a file that was made for this goes, with its folders.  Else what is ours alone is taken out.
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

from mcp_bus.clients.files import MAX_SETTINGS, NoFile, contents
from mcp_bus.clients.parts import ABSENT, ADDED, REMOVED, REPLACED, SAME
from mcp_bus.errors import BusError, Conflict, InvalidRequest
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.clients.known import Home
    from mcp_bus.clients.parts import Part

_fs = Fs()


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
    """Do what a change says; return where the bytes of before are kept, if there were any.

    Raises:
        Conflict: somebody has changed the file since it was read; nothing was written.
        Unwritable: it cannot be written.
    """
    if change.is_none:
        return None
    try:
        with _fs.folder(kept_in(home)) as state, _alone(state):
            return _write(change, home, state)
    except OSError as error:
        raise _refused(change.path, error.strerror or str(error)) from None


def _write(change: Change, home: Home, state: int) -> Path | None:
    if _seen(change.path)[1] != change.before:
        msg = f"{str(change.path)!r} was changed by somebody else meanwhile"
        raise Conflict(msg, hint="repeat the call")
    kept, name = _kept(home, change.path), _name(home, change.path)
    is_known = _is_known(kept, change.before)
    if change.what != REMOVED:
        # What we changed twice goes back to what it was before the first time.
        first = kept if kept is not None and is_known else None
        folders = first.folders if first else _missing(change.path.parent)
        _keep(state, name, change, _Kept(first.before if first else change.before, _hash(change.after), folders))
    made = (change.path.parent, *change.path.parent.parents)[: _missing(change.path.parent)]
    with _fs.folder(change.path.parent) as at:
        if change.after is None:
            _fs.unlink(change.path.name, at)
        else:
            _replace(change.path.name, at, change.after, is_there=change.before is not None)
    if change.is_shared and change.before is None:
        _share(change.path, made)
    if change.after is None:
        _fold(change.path.parent, kept.folders if kept is not None else 0)
    if change.what == REMOVED:
        for done in (name, _copy(name)):
            with suppress(FileNotFoundError):
                _fs.unlink(done.name, state)
        return None
    return _copy(name) if change.before is not None else None


def _share(path: Path, folders: Sequence[Path]) -> None:
    """Let others read what was made, as far as the umask allows."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    for folder in folders:
        folder.chmod(0o777 & ~umask)


def _missing(folder: Path) -> int:
    """Return how many folders have to be made for one to be there."""
    return next(number for number, place in enumerate((folder, *folder.parents)) if place.exists())


def _fold(folder: Path, count: int) -> None:
    """Remove a folder and those above it, so many at most, and none that holds something."""
    with suppress(OSError):
        for place in (folder, *folder.parents)[:count]:
            with _fs.folder(place.parent) as at:
                _fs.rmdir(place.name, at)


def _replace(name: str, at: int, data: bytes, *, is_there: bool) -> None:
    """Write a file beside its place, with the mode of the one that is there, and move it there."""
    draft = f".{name}.mcp-bus-{os.getpid()}"
    _fs.create(draft, at, data, sync=True)
    try:
        if is_there:
            os.chmod(draft, stat.S_IMODE(os.stat(name, dir_fd=at).st_mode), dir_fd=at)
        _fs.rename(draft, at, name, at)
        _fs.fsync(at)
    except BaseException:
        with suppress(OSError):
            _fs.unlink(draft, at)
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
    return kept_in(home) / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"


def _copy(name: Path) -> Path:
    """Return where the bytes of before are, a file like any other."""
    return name.with_suffix(".before")


def _hash(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()


def _is_known(kept: _Kept | None, data: bytes | None) -> bool:
    """Tell whether a file is, to the byte, what we made of it."""
    return kept is not None and kept.after == _hash(data)


def _keep(state: int, name: Path, change: Change, kept: _Kept) -> None:
    if kept.before is not None:
        _replace(_copy(name).name, state, kept.before, is_there=False)
    said = {"path": str(change.path), "was_there": kept.before is not None, "after": kept.after}
    _replace(name.name, state, json.dumps(said | {"folders": kept.folders}).encode(), is_there=False)


def _kept(home: Home, path: Path) -> _Kept | None:
    """Return what is kept of a file, if anything can be read of it."""
    name = _name(home, path)
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(name.read_bytes())
        if found["path"] == str(path):
            before = _copy(name).read_bytes() if found["was_there"] else None
            return _Kept(before, str(found["after"]), int(found.get("folders", 1)))
    return None
