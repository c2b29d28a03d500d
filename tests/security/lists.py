"""Access control lists as Linux keeps them, so that no test needs `setfacl`."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_NOBODY = 0xFFFFFFFF


def put(path: Path, kind: str, user: int, rights: int = 7) -> None:
    """Let a user in, or with no rights keep them out, as `setfacl -m` does, with `-d` for the default one.

    Skips the test where there are none.
    """
    owner, named, group, mask, others = 1, 2, 4, 16, 32
    entries = (
        (owner, 7, _NOBODY),
        (named, rights, user),
        (group, 7, _NOBODY),
        (mask, 7, _NOBODY),
        (others, 0, _NOBODY),
    )
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    if not hasattr(os, "setxattr"):
        pytest.skip("this system keeps no access control lists as extended attributes")
    try:
        os.setxattr(path, kind, data)
    except OSError as error:
        pytest.skip(f"the file system of {path} has no access control lists: {error}")
