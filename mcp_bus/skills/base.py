"""What this host last synchronized, kept in the user's own folder: a small document for each repository and folder."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord
from mcp_bus.skills import filters
from mcp_bus.skills.decide import Blob
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES = 16 << 20


class Known(NamedTuple):
    """A skill as it was on both sides.

    Attributes:
        sources: the folders of skills that it was in.
        is_held: whether it went with all others of its folder, and nobody has said yet that this was meant.
    """

    files: Mapping[str, Blob]
    sources: tuple[str, ...]
    is_held: bool = False


def read(path: Path) -> dict[str, Known]:
    """Return what was last the same, by the skill's name; nothing before the first time.

    Raises:
        CorruptRecord: the file is damaged.
    """
    fs = Fs()
    try:
        with fs.folder(path.parent) as at:
            found = wire.loads(fs.read(path.name, at, MAX_BYTES).data)
        return {name: _known(item) for name, item in found["skills"].items()}
    except FileNotFoundError:
        return {}
    except (CorruptRecord, KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{str(path)!r}, which says what was last synchronized, is damaged: {error}"
        hint = "remove it: what is the same on both sides stays so, and what is not is told as a conflict"
        raise CorruptRecord(msg, hint=hint) from None


def _known(item: dict[str, Any]) -> Known:
    files = {str(path): Blob(str(oid), bool(flag)) for path, (oid, flag) in item["files"].items()}
    # What was shared by an earlier version, and is not any more, neither side has: it was removed by nobody.
    files = {path: blob for path, blob in files.items() if filters.left_out(path) is None}
    return Known(files, tuple(map(str, item["sources"])), bool(item.get("held")))


def write(path: Path, known: Mapping[str, Known], fs: Fs) -> None:
    """Keep what is the same now, whole or not at all."""
    shown = {
        name: {"files": dict(item.files), "sources": list(item.sources), "held": item.is_held}
        for name, item in known.items()
    }
    draft = f".{path.name}.{os.getpid()}.new"
    with fs.folder(path.parent) as at:
        with suppress(FileNotFoundError):
            fs.unlink(draft, at)  # Of a process of that number that was killed here.
        fs.create(draft, at, wire.dumps({"skills": shown}), sync=True)
        fs.rename(draft, at, path.name, at)
        fs.fsync(at)
