"""Writing into other programs' settings: seen before it is done, whole or not at all, and undone to the byte.

E1  A change is decided on the bytes that were read, and written only if they are still there.
E2  Written beside and renamed, with the mode of before; a symlink stays one, what it points at is changed.
E3  What was there before is kept, with what it became: as long as nobody else has changed it, undoing brings back the
    very bytes, and a file that was made for this goes.  Else the entry alone is taken out.
E4  An entry of our name that starts something else is somebody's: it is left alone unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.clients import texts
from mcp_bus.clients.known import NAME
from mcp_bus.errors import BusError, Conflict, InvalidRequest
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mcp_bus.clients.known import Client, Home

_fs = Fs()
MAX_SETTINGS = 8 * 1024 * 1024
ADDED, REPLACED, SAME, REMOVED, ABSENT = "added", "replaced", "as it was", "removed", "not there"


class Unwritable(BusError):
    """A client's settings cannot be read or written; nothing was changed."""

    code = "unwritable"


class Change(NamedTuple):
    """What would become of a file of settings.

    Attributes:
        path: the file itself, where a symlink leads.
        before, after: its bytes; None for no such file.
        what: one of `ADDED`, `REPLACED`, `SAME`, `REMOVED`, `ABSENT`.
    """

    client: Client
    path: Path
    before: bytes | None
    after: bytes | None
    what: str

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to write."""
        return self.before == self.after


def adding(client: Client, path: Path, entry: Mapping[str, Any], *, is_forced: bool = False) -> Change:
    """Return the change that puts an entry into a client's settings.

    Args:
        is_forced: whether an entry of our name that starts something else is replaced (rule E4).

    Raises:
        InvalidRequest: the settings cannot be read, or the entry there is somebody else's.
        Unwritable: they are no file that can be changed.
    """
    real, before = _seen(path)
    text = _text(real, before)
    where = (*client.path, NAME)
    with _named(real):
        known = texts.entry(texts.read(text, client.form), where)
        if known == entry:
            return Change(client, real, before, before, SAME)
        if known is not None and not is_ours(known) and not is_forced:
            msg = f"it has a server called {NAME!r} that starts something else"
            raise InvalidRequest(msg, hint="rename that one, or --force replaces it")
        after = texts.put(text, client.form, where, entry)
    return Change(client, real, before, after.encode(), REPLACED if known is not None else ADDED)


def removing(client: Client, path: Path, home: Home) -> Change:
    """Return the change that takes our entry out of a client's settings (rule E3).

    Raises:
        InvalidRequest, Unwritable: as of `adding`.
    """
    real, before = _seen(path)
    if before is None:
        return Change(client, real, None, None, ABSENT)
    where = (*client.path, NAME)
    text = _text(real, before)
    with _named(real):
        known = texts.entry(texts.read(text, client.form), where)
        if known is None or not is_ours(known):
            return Change(client, real, before, before, ABSENT)
        kept = _kept(home, real)
        if kept is not None and kept.after == _hash(before):
            return Change(client, real, before, kept.before, REMOVED)
        after = texts.drop(text, client.form, where)
    return Change(client, real, before, after.encode(), REMOVED)


def is_ours(entry: object) -> bool:
    """Tell whether an entry starts mcp-bus, under whatever path."""
    if not isinstance(entry, dict):
        return False
    command = entry.get("command", entry.get("cmd"))
    words = command if isinstance(command, list) else [command, *(entry.get("args") or [])]
    named = [str(word).replace("\\", "/").rpartition("/")[2].removesuffix(".exe") for word in words]
    return "mcp-bus" in named or ("-m" in named and "mcp_bus" in named)


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
        about = real.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_SETTINGS:
            what = "no file" if not stat.S_ISREG(about.st_mode) else f"larger than {MAX_SETTINGS} bytes"
            raise _refused(real, f"it is {what}")
        if not about.st_mode & stat.S_IWUSR or not os.access(real, os.W_OK):
            raise _refused(real, "it is read-only")
        return real, real.read_bytes()
    except FileNotFoundError:
        return real, None
    except (OSError, RuntimeError) as error:
        raise _refused(path, getattr(error, "strerror", None) or str(error)) from None


def _text(path: Path, data: bytes | None) -> str:
    try:
        return (data or b"").decode()
    except UnicodeDecodeError:
        raise _refused(path, "it is not UTF-8") from None


def _refused(path: Path, why: str) -> Unwritable:
    return Unwritable(f"{str(path)!r} is left as it is: {why}", hint="mend that, or put the entry in by hand")


# --- writing ----------------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """What a file was before we changed it, and the hash of what it became."""

    before: bytes | None
    after: str


def write(change: Change, home: Home) -> Path | None:
    """Do what a change says; return where the bytes of before are kept, if there were any.

    Raises:
        Conflict: somebody has changed the file since it was read; nothing was written.
        Unwritable: it cannot be written.
    """
    if change.is_none:
        return None
    try:
        with _fs.folder(_folder(home)) as state, _alone(state):
            return _write(change, home, state)
    except OSError as error:
        raise _refused(change.path, error.strerror or str(error)) from None


def _write(change: Change, home: Home, state: int) -> Path | None:
    if _seen(change.path)[1] != change.before:
        msg = f"{str(change.path)!r} was changed by somebody else meanwhile"
        raise Conflict(msg, hint="repeat the call")
    kept, name = _kept(home, change.path), _name(home, change.path)
    if change.what != REMOVED:
        # What we changed twice goes back to what it was before the first time.
        is_still = kept is not None and kept.after == _hash(change.before)
        _keep(state, name, change, kept.before if kept is not None and is_still else change.before)
    with _fs.folder(change.path.parent) as at:
        if change.after is None:
            _fs.unlink(change.path.name, at)
        else:
            _replace(change.path.name, at, change.after, is_there=change.before is not None)
    if change.after is None:
        with suppress(OSError), _fs.folder(change.path.parent.parent) as at:  # The folder may have been made for this.
            _fs.rmdir(change.path.parent.name, at)
    if change.what == REMOVED:
        for done in (name, _copy(name)):
            with suppress(FileNotFoundError):
                _fs.unlink(done.name, state)
        return None
    return _copy(name) if change.before is not None else None


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


def _folder(home: Home) -> Path:
    said = home.environment.get("XDG_STATE_HOME", "")
    return (Path(said) if Path(said).is_absolute() else home.home / ".local" / "state") / "mcp-bus" / "settings"


def _name(home: Home, path: Path) -> Path:
    return _folder(home) / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"


def _copy(name: Path) -> Path:
    """Return where the bytes of before are, a file like any other."""
    return name.with_suffix(".before")


def _hash(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()


def _keep(state: int, name: Path, change: Change, before: bytes | None) -> None:
    if before is not None:
        _replace(_copy(name).name, state, before, is_there=False)
    said = {"path": str(change.path), "was_there": before is not None, "after": _hash(change.after)}
    _replace(name.name, state, json.dumps(said).encode(), is_there=False)


def _kept(home: Home, path: Path) -> _Kept | None:
    """Return what is kept of a file, if anything can be read of it."""
    name = _name(home, path)
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(name.read_bytes())
        if found["path"] == str(path):
            return _Kept(_copy(name).read_bytes() if found["was_there"] else None, str(found["after"]))
    return None
