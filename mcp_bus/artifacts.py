"""Files that a result names: size and hash are taken down when it is submitted, so that others know what was meant."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest
from mcp_bus.model import Artifact
from mcp_bus.plain import clean, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ARTIFACTS = 50
# A file that takes longer to read than anybody waits is no artifact.
MAX_SIZE = 2 * 1024**3
_PART = 1024 * 1024


def taken(paths: Sequence[str], base: str) -> tuple[Artifact, ...]:
    """Return files with their size and sha256.

    Args:
        paths: absolute, or relative to `base`.

    Raises:
        InvalidRequest: there are too many, or one is no regular file that can be read.
    """
    if isinstance(paths, str) or len(paths) > MAX_ARTIFACTS:
        msg = f"artifacts is not a list of at most {MAX_ARTIFACTS} paths"
        raise InvalidRequest(msg, hint="name a folder's archive instead of its files")
    return tuple(_taken(path, base) for path in dict.fromkeys(paths))


def _taken(path: str, base: str) -> Artifact:
    place, why = Path(base) / str(path), ""
    try:
        # Without O_NONBLOCK a pipe would hold the worker up for ever.
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror or "" if isinstance(error, OSError) else str(error)
        raise _refused(path, why) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_SIZE:
            raise _refused(path, "it is no regular file" if about.st_size <= MAX_SIZE else "it is larger than 2 GiB")
        digest, size = hashlib.sha256(), 0
        while part := os.read(fd, _PART):
            digest.update(part)
            size += len(part)
    except OSError as error:
        raise _refused(path, error.strerror or "") from None
    finally:
        os.close(fd)
    return Artifact(str(place), size, digest.hexdigest())


def _refused(path: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the artifact {cut(clean(str(path)), 200)!r} cannot be read: {why}", hint="write it first, then submit"
    )


def changed(artifact: Artifact) -> str:
    """Return why a file is not any more what was taken down; empty if it is."""
    try:
        (now,) = taken([artifact.path], "/")
    except InvalidRequest as error:
        return str(error)
    return "" if now == artifact else f"{artifact.path} was changed since"
