"""PURE  What git's plumbing prints and reads: names as they are, whatever is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Change(NamedTuple):
    """What a commit does to one path: its new bytes, or None to remove it, a folder with all that is in it.

    Attributes:
        oid: an object that has the bytes already, in place of them; empty for none.
    """

    path: str
    data: bytes | None
    is_executable: bool = False
    oid: str = ""


def commit(name: str, parent: str, changes: Iterable[Change], about: tuple[str, str, int]) -> bytes:
    """Return what fast-import makes a commit of; it prints that.

    Args:
        name: the ref that it is given.
        parent: the one before it; empty for the first.
        about: its message, its author's name, and when it is, in milliseconds.
    """
    message, who, at_ms = about
    by = re.sub(r"[<>\x00-\x1f]", "", who).strip() or "mcp-bus"
    lines = [
        b"feature done",
        f"commit {name}".encode(),
        b"mark :1",
        f"committer {by} <bus@localhost> {at_ms // 1000} +0000".encode(),
        b"data %d" % len(message.encode()),
        message.encode(),
    ]
    lines += [f"from {parent}".encode()] if parent else []
    for path, data, is_executable, oid in changes:
        mode = b"100755" if is_executable else b"100644"
        if oid:
            lines.append(b"M " + mode + b" " + oid.encode() + b" " + quoted(path))
        elif data is None:
            lines.append(b"D " + quoted(path))
        else:
            lines += [b"M " + mode + b" inline " + quoted(path), b"data %d" % len(data), data]
    lines += [b"get-mark :1", b"done", b""]
    return b"\n".join(lines)


def split(data: bytes) -> list[str]:
    """Return what ends in a zero byte each."""
    return [part.decode(errors="surrogateescape") for part in data.split(b"\0")[:-1]]


def entry(line: str) -> tuple[str, str, str]:
    """Return mode, object and path of a line of `ls-tree`."""
    about, _, path = line.partition("\t")
    mode, _, oid = about.split(" ")
    return mode, oid, path


def quoted(path: str) -> bytes:
    """Return a path as fast-import reads it, whatever is in it."""
    data = path.encode(errors="surrogateescape")
    plain = b"".join(bytes([c]) if 32 <= c < 127 and c not in b'"\\' else b"\\%03o" % c for c in data)
    return b'"' + plain + b'"'
