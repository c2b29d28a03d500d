"""Reading files that others wrote, and that may be anything: a FIFO, a device, without an end."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SETTINGS = 8 * 1024 * 1024
MAX_INSTRUCTIONS = 1024 * 1024
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class NoFile(BusError):
    """What has this name is no regular file, or too large a one."""

    code = "unwritable"


def contents(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file, or of the one that a symlink leads to; never waits, never reads for ever.

    Raises:
        NoFile: it is none, or larger than the limit.
        OSError: it cannot be opened.
    """
    # Looked at first, for to open a device may do something.
    _check(path.stat(), limit)
    fd = os.open(path, _FLAGS)
    with os.fdopen(fd, "rb") as file:
        _check(os.fstat(fd), limit)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NoFile(_too_large(limit))
    return data


def _check(about: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        msg = "it is no file"
        raise NoFile(msg)
    if about.st_size > limit:
        raise NoFile(_too_large(limit))


def _too_large(limit: int) -> str:
    return f"it is larger than {limit} bytes"
