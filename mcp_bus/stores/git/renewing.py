"""Making a damaged clone anew: all that is in it is at the remote, and posts that wait lie beside it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.git.calls import Damaged, HereFailed

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.git.repo import Repo


def renew(repo: Repo, damage: Damaged) -> None:
    """Put a fresh clone in the place of one that is damaged, or whose objects are named in another way.

    What was seen of the branch stays remembered, so that a branch that lost it is still found out.

    Raises:
        StoreUnavailable: the remote does not answer, its own repository is damaged, or this disk fails; the old clone
            stays where it is.
    """
    seen, damaged = repo.seen()[0], number(repo.folder)
    draft = repo.folder.with_name(f"{repo.folder.name}.new-{os.urandom(4).hex()}")
    try:
        fresh = repo.beside(draft)
        _fill(fresh, seen, is_sha256=_is_sha256(repo.folder) != ("hash algorithm" in str(damage)))
        if number(repo.folder) == damaged:  # Else another process has put its own there.
            _swap(repo.folder, draft)
    except Damaged as error:  # Of a clone that is new, it is not this host's.
        msg = f"the remote {repo.shown!r} gives nothing that can be used: {error}"
        raise StoreUnavailable(msg, hint="`git fsck` in that repository says what it lacks") from error
    except HereFailed:
        raise
    except StoreUnavailable as error:
        msg = f"this host's clone is damaged ({damage}), and it cannot be fetched anew: {error}"
        raise StoreUnavailable(msg, hint=error.hint) from error
    except OSError as error:
        msg = f"this host's clone is damaged ({damage}), and no new one can be put there: {error.strerror}"
        raise HereFailed(msg, hint="look at that disk and whose that folder is, then repeat") from error
    finally:
        _remove(draft)


def number(folder: Path) -> int:
    """Return what tells a folder from another one that takes its place; 0 if there is none."""
    try:
        return folder.stat().st_ino
    except OSError:
        return 0


def _fill(fresh: Repo, seen: str, *, is_sha256: bool) -> None:
    """Fetch the branch, and remember what was seen of it."""
    head = fresh.ask()
    if len(head) == 64 or (not head and is_sha256):
        _remove(fresh.folder)
        fresh.make("sha256")
    fresh.fetch("")
    if seen:
        fresh.remember(seen)


def _is_sha256(folder: Path) -> bool:
    with suppress(OSError):
        return b"sha256" in (folder / "config").read_bytes()
    return False


def _swap(folder: Path, draft: Path) -> None:
    """Let `draft` have the place of `folder`, which is removed."""
    fs, old = Fs(), f"{folder.name}.old-{os.urandom(4).hex()}"
    with fs.folder(folder.parent) as at:
        with suppress(FileNotFoundError):
            fs.rename(folder.name, at, old, at)
        fs.rename(draft.name, at, folder.name, at)
    for left in folder.parent.glob(f"{folder.name}.old-*"):  # With those of processes that were killed here.
        _remove(left)


def _remove(folder: Path) -> None:
    fs = Fs()
    with suppress(OSError), fs.folder(folder.parent) as at:
        fs.rmtree(folder.name, at)
