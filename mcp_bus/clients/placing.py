"""Putting bytes in the place of a file: written beside it, whole, and moved there if what was seen is still there."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import Conflict
from mcp_bus.identity import process
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

fs = Fs()


def put(name: str, at: int, data: bytes, *, is_there: bool, look: Callable[[], None] | None = None) -> None:
    """Write a file beside its place, with the mode and owner of the one that is there, and move it there.

    Drafts of the same file that killed processes left are removed first.

    Args:
        look: raises if what is there is not what was seen before; called directly before the move.

    Raises:
        Conflict: none was to be there, and one is.
    """
    _tidy(name, at)
    draft = f".{name}.mcp-bus-{os.getpid()}-{secrets.token_hex(4)}"
    fs.create(draft, at, data, sync=True)
    try:
        if is_there:
            _liken(draft, name, at)
        if look is not None:
            look()
        if look is None or is_there or not _linked(draft, name, at):
            fs.rename(draft, at, name, at)
        fs.fsync(at)
    except BaseException:
        with suppress(OSError):
            fs.unlink(draft, at)
        raise


def _linked(draft: str, name: str, at: int) -> bool:
    """Give a draft a name that nobody may have meanwhile; return False where the system has no links.

    Raises:
        Conflict: somebody has it.
    """
    try:
        fs.link(draft, at, name, at)
    except FileExistsError:
        msg = f"{name!r} was made by somebody else meanwhile"
        raise Conflict(msg, hint="repeat the call") from None
    except OSError:
        return False
    fs.unlink(draft, at)
    return True


def _liken(draft: str, name: str, at: int) -> None:
    """Give a draft the mode of a file and, as far as we may, its owner and group."""
    held = fs.hold(draft, at)
    try:
        about, mine = os.stat(name, dir_fd=at), os.fstat(held)
        if (about.st_uid, about.st_gid) != (mine.st_uid, mine.st_gid):
            with suppress(PermissionError):
                os.chown(draft, about.st_uid, about.st_gid, dir_fd=at, follow_symlinks=False)
        fs.chmod(held, about.st_mode & 0o777)
    finally:
        fs.close(held)


def _tidy(name: str, at: int) -> None:
    """Remove drafts of a file whose processes are gone: this one, too, writes them one after the other."""
    of_name = re.compile(rf"\.{re.escape(name)}\.mcp-bus-([0-9]{{1,10}})(?:-[0-9a-f]{{8}})?\Z")
    for found in filter(None, map(of_name.match, fs.names(at))):
        if int(found[1]) == os.getpid() or not process.is_running(int(found[1]), 0):
            with suppress(OSError):
                fs.unlink(found[0], at)


# --- folders ----------------------------------------------------------------------------------------------


def missing(folder: Path) -> int:
    """Return how many folders have to be made for one to be there."""
    return next(number for number, place in enumerate((folder, *folder.parents)) if place.exists())


def fold(folder: Path, count: int) -> None:
    """Remove a folder and those above it, so many at most, and none that holds something."""
    with suppress(OSError):
        for place in (folder, *folder.parents)[:count]:
            with fs.folder(place.parent) as at:
                fs.rmdir(place.name, at)


def share(path: Path, folders: Sequence[Path]) -> None:
    """Let others read what was made, as far as the umask allows."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    for folder in folders:
        folder.chmod(0o777 & ~umask)
