"""Where contenders work: on one disk, yet not in one another's way.

Where much was removed within the last minutes, ext4 takes ten times as long to find a free inode.
What one contender removes, or somebody else did before, must not be paid for by another.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import table

if TYPE_CHECKING:
    from pathlib import Path

# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of Linux.
_GET_FLAGS, _SET_FLAGS, _TOP = 0x80086601, 0x40086602, 0x20000
TRIES = 12
FILES = 40


def apart(folder: Path) -> Path:
    """Make a folder whose own folders ext4 puts far from one another."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        return folder
    import fcntl  # noqa: PLC0415  not everywhere

    at = os.open(folder, os.O_RDONLY)
    try:
        flags = bytearray(4)
        fcntl.ioctl(at, _GET_FLAGS, flags)
        fcntl.ioctl(at, _SET_FLAGS, (int.from_bytes(flags, sys.byteorder) | _TOP).to_bytes(4, sys.byteorder))
    except OSError:
        pass  # Another file system, which has no need of it.
    finally:
        os.close(at)
    return folder


def fresh(folder: Path) -> Path:
    """Return a new folder inside `folder` where files are made as fast as anywhere: the best of some."""
    paces = {}
    for turn in range(TRIES):
        made = folder / f"{len(list(folder.iterdir()))}"
        made.mkdir()
        took = []
        for number in range(FILES):
            begun = time.perf_counter()
            os.close(os.open(made / f"probe-{turn}-{number}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
            took.append(time.perf_counter() - begun)
        paces[made] = table.median(took)
    # The probes stay: to remove them would do what this is to avoid.
    best = min(paces, key=lambda made: paces[made]) / "work"
    best.mkdir()
    return best


def remove(folder: Path) -> None:
    """Remove a folder with everything in it, in the order of inodes: by name ext4 would seek for each file."""
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=os.DirEntry.inode)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove(folder / entry.name)
        else:
            os.unlink(entry)  # noqa: PTH108  an entry of a listing is no Path
    folder.rmdir()
