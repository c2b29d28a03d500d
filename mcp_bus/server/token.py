"""The token that opens the HTTP endpoint: a file that only its user can read, made when it is first needed."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest, Untrusted
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from pathlib import Path

# What RFC 6750 allows in a bearer token, and too long to be guessed.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*\Z")
MOST = 1024
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def ensure(path: Path) -> str:
    """Return the token of a file; one that is not there is made, with a new token, whole or not at all.

    Raises:
        InvalidRequest: the file cannot be read or made, or holds no token.
        Untrusted: somebody else owns it or may read it.
    """
    try:
        if path.is_symlink():
            msg = f"the token file {str(path)!r} is a symbolic link, and is not followed"
            raise InvalidRequest(msg, hint="name the file itself with --token-file")
        if not path.exists():
            _make(path)
        return read(path)
    except OSError as error:
        msg = f"the token file {str(path)!r} cannot be used: {error.strerror}"
        raise InvalidRequest(msg, hint="name another with --token-file") from None


def _make(path: Path) -> None:
    fs, draft = Fs(), f".{path.name}.{secrets.token_hex(8)}"
    with fs.folder(path.parent.resolve()) as at:
        fs.create(draft, at, secrets.token_urlsafe(32).encode() + b"\n", sync=True)
        try:
            with suppress(FileExistsError):  # Another server has made one meanwhile.
                fs.link(draft, at, path.name, at)
        finally:
            fs.unlink(draft, at)


def read(path: Path) -> str:
    """Return the token of a file; see `ensure`."""
    fd = os.open(path, _FLAGS)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            msg = f"the token file {str(path)!r} is no file"
            raise InvalidRequest(msg, hint="name another with --token-file")
        if about.st_mode & 0o077 or about.st_uid != os.getuid():
            msg = f"others than you may read the token file {str(path)!r}"
            raise Untrusted(msg, hint=f"chmod 600 {path}, and put a new token into it: others may know this one")
        text = os.read(fd, MOST).decode(errors="replace").strip()
    finally:
        os.close(fd)
    if not TOKEN.match(text):
        msg = f"the token file {str(path)!r} holds no token"
        raise InvalidRequest(msg, hint="a token is 16 to 512 of A-Z a-z 0-9 . _ ~ + / -; remove the file for a new one")
    return text
