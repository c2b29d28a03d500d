"""Access control lists: who else may use something, or may not, whatever its mode says (rule F6).

With one, the bits of the group in a mode are a mask over its entries, and a default one is inherited by all that is
made below; so there is none on a bus that a group shares.  Seen as the extended attributes in which Linux keeps them.
"""

from __future__ import annotations

import os

_DEFAULT, _ACCESS = "system.posix_acl_default", "system.posix_acl_access"
# A version, and entries of eight bytes each: those of owner, group and others are the mode.
_AS_A_MODE = 4 + 3 * 8
CURE = "setfacl -b -k"
HAS_ANY = hasattr(os, "listxattr")


def has(at: int, name: str = "") -> bool:
    """Tell whether something in an open folder, or what is open or held itself, has entries besides its mode.

    Where that cannot be told it has none; and so has a symlink, which is not followed.
    """
    if not HAS_ANY:
        return False
    path = f"/proc/self/fd/{at}/{name}".rstrip("/")
    try:
        kept = os.listxattr(path, follow_symlinks=not name)
        if _DEFAULT in kept:
            return True
        return _ACCESS in kept and len(os.getxattr(path, _ACCESS, follow_symlinks=not name)) > _AS_A_MODE
    except OSError:  # It is gone, or this file system has none.
        return False
