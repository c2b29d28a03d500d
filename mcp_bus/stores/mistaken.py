"""What is named as a directory of a bus and cannot be meant so: nobody's work may go into a bus that nobody reads.

An address without `git+` would make a folder of that name; a repository, or where this host's part of a bus at a remote
was, a bus of files that no other host sees.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest, StoreUnavailable
from mcp_bus.stores.away import SCHEME
from mcp_bus.stores.modes import is_there

if TYPE_CHECKING:
    from pathlib import Path

# As `config` and `Address.folder` name this host's part of a bus at a remote.
_PART = re.compile(r"/mcp-bus/git/[A-Za-z0-9][A-Za-z0-9.-]*-[0-9a-f]{12}\Z")


def is_address(text: str) -> bool:
    """Tell whether a name has the form of an address: a colon before any slash, as `ssh://…` and `user@host:path`."""
    head, colon, _ = text.partition(":")
    return bool(colon) and len(head) > 1 and "/" not in head  # One letter may be a drive.


def check_name(text: str, cwd: Path) -> None:
    """Refuse an address that would be taken for a directory; a bus that is there may be called as it likes.

    Args:
        cwd: what a relative path is meant from.

    Raises:
        InvalidRequest: it is one.
    """
    if not is_address(text) or is_there(cwd / text / "bus.json"):
        return
    from mcp_bus.stores.git import place  # noqa: PLC0415  few names are refused

    said = place.shown(text)[:200]
    try:
        place.address(text, cwd)
    except InvalidRequest as error:
        msg = f"{said!r} is neither a directory nor an address of a git remote that is used here"
        raise InvalidRequest(msg, hint=f"{SCHEME} and {error.hint}; a directory of that name is ./{said}") from None
    msg = f"{said!r} is the address of a git remote, and would be taken for a directory"
    raise InvalidRequest(msg, hint=f"--bus {SCHEME}{said}; a directory of that name is ./{said}")


def check_missing(path: Path) -> None:
    """Refuse a directory in which no bus is, and in which none of files should be made.

    Raises:
        StoreUnavailable: it was this host's part of a bus at a git remote.
        InvalidRequest: it is a git repository.
    """
    if _PART.search(os.path.realpath(path)):
        msg = f"{str(path)!r} was this host's part of a bus at a git remote, and is gone"
        raise StoreUnavailable(msg, hint="name the address, from which it is fetched anew: --bus git+REMOTE")
    if all(is_there(path / name) for name in ("HEAD", "objects", "refs")):
        msg = f"{str(path)!r} is a git repository, and not a bus"
        raise InvalidRequest(msg, hint=f"--bus {SCHEME}{path} is the bus on a branch of it")
    if is_there(path / ".git"):
        msg = f"{str(path)!r} is the top of a git repository, and not a bus"
        hint = f"--bus {path / '.mcp-bus'} is a directory in it, --bus {SCHEME}{path} a branch of it"
        raise InvalidRequest(msg, hint=hint)
