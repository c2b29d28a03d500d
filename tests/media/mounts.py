"""Small file systems of our own, in a file: to cut off, to fill and to make read-only.  They need root and Linux."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number; 2 is "do not even flush the log", as a power cut does not.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
# CLONE_NEWNS, and MS_REC | MS_PRIVATE.
NEW_MOUNTS, PRIVATE = 0x20000, 0x44000
SYS_ADMIN = 21
# XFS is never smaller than 300 MiB; the image is sparse, so that only what was written takes room.
SIZES = {"ext4": 64 * MIB, "xfs": 320 * MIB, "vfat": 8 * MIB, "exfat": 16 * MIB}
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "vfat": ("mkfs.vfat",),
    "exfat": ("mkfs.exfat",),
}


@contextmanager
def of_our_own() -> Iterator[None]:
    """Mount only for this process and what it starts, so that all of it goes when they end, however they end.

    Nor can another process that copies its own mounts, as `unshare` does, keep one of ours from being unmounted.
    """
    libc, here, cwd = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/mnt", os.O_RDONLY), Path.cwd()
    try:
        _done(libc.unshare(NEW_MOUNTS))
        try:
            _done(libc.mount(None, b"/", None, ctypes.c_ulong(PRIVATE), None))
            yield
        finally:
            _done(libc.setns(here, NEW_MOUNTS))
            os.chdir(cwd)
    finally:
        os.close(here)


def _done(code: int) -> None:
    assert code == 0, os.strerror(ctypes.get_errno())


def missing(kind: str) -> str:
    """Say what this machine lacks for a loop mount of a kind of file system; empty if nothing."""
    if sys.platform != "linux":
        return "only Linux can shut a mounted file system down"
    if not _may_mount():
        return "only root (CAP_SYS_ADMIN) may mount"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices here"
    if shutil.which(MAKE[kind][0]) is None:
        return f"there is no {MAKE[kind][0]} here"
    if not _is_known(kind) and subprocess.run(["modprobe", kind], check=False, capture_output=True).returncode:
        return f"this kernel does not know {kind}"
    return ""


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(mask, 16) >> SYS_ADMIN & 1)


def _is_known(kind: str) -> bool:
    known = kind in Path("/proc/filesystems").read_text(encoding="ascii").split()
    return known or shutil.which("modprobe") is None


class Medium:
    """A file system in a file, and the folder it is mounted on."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.image = folder / f"{kind}.img"
        self.point = folder / kind
        self.is_mounted = False

    def make(self, *options: str, size: int = 0) -> None:
        self.point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size or SIZES[self.kind])
        _run(*MAKE[self.kind], *options, os.fspath(self.image))

    def mount(self, options: str = "loop") -> None:
        _run("mount", "-t", self.kind, "-o", options, os.fspath(self.image), os.fspath(self.point))
        self.is_mounted = True

    def remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", os.fspath(self.point))

    def unmount(self) -> None:
        """Unmount; a loop device that `mount` made goes with it."""
        _run("umount", os.fspath(self.point))
        self.is_mounted = False

    def cut(self) -> None:
        """Stop the file system as a power cut would: what is not on its disk by now never comes there."""
        import fcntl

        at = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(at, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(at)

    def reboot(self) -> None:
        """Mount again after a cut, which recovers the journal."""
        self.unmount()
        self.mount()

    def end(self) -> None:
        """Unmount if it is mounted, also if somebody still has a file open there, and remove the image."""
        if self.is_mounted:
            try:
                self.unmount()
            except AssertionError:
                _run("umount", "--lazy", os.fspath(self.point))
        self.image.unlink(missing_ok=True)

    @property
    def device(self) -> str:
        """The name of its loop device, such as `loop0`."""
        for line in Path("/proc/mounts").read_text().splitlines():
            source, point = line.split()[:2]
            if point == os.fspath(self.point):
                return source.rpartition("/")[2]
        msg = f"{self.point} is not mounted"
        raise AssertionError(msg)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


@contextmanager
def mounted(kind: str, folder: Path, *options: str, size: int = 0, how: str = "loop") -> Iterator[Medium]:
    """Make a file system and mount it; whatever happens then, it is unmounted again."""
    medium = Medium(kind, folder)
    medium.make(*options, size=size)
    with of_our_own():
        try:
            medium.mount(how)
            yield medium
        finally:
            medium.end()
