"""Reading a file of settings, whatever lies in its place."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 65_536


def read(path: Path, *, may_be_link: bool) -> dict[str, Any]:
    """Return what a TOML file says; nothing if there is none.

    Raises:
        InvalidRequest: it is no TOML, no regular file, or larger than any file of settings.
    """
    data = _data(path, may_be_link=may_be_link)
    if not data:
        return {}
    import tomllib  # noqa: PLC0415  most calls have no such file

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # Also a number of thousands of digits.
        msg = f"{str(path)!r} is not TOML: {error}"
        raise InvalidRequest(msg, hint="correct or remove the file") from None


def _data(path: Path, *, may_be_link: bool) -> bytes:
    """Return a file's bytes; empty when there is none.  A FIFO or device must not stop or fill any process here."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    data: bytes | None = None
    try:
        fd = os.open(path, flags if may_be_link else flags | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            return b""
    else:
        try:
            data = os.read(fd, MAX_FILE + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)
    if data is None:
        msg = f"{str(path)!r} is not a regular file"
        raise InvalidRequest(msg, hint="put a file there (in a project no link to one), or remove it")
    if len(data) > MAX_FILE:
        msg = f"{str(path)!r} has more than {MAX_FILE} bytes"
        raise InvalidRequest(msg, hint="it is read for settings alone; make it smaller")
    return data
