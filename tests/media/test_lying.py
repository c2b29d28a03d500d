"""A real mount that lies: an object store behind FUSE, which gives a listing again for half an hour (P16)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.main import main
from mcp_bus.stores import visibility
from tests.media.mounts import _may_mount, _run, of_our_own

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_AGAIN = ("--dir-cache-time", "30m", "--poll-interval", "0")
WRITTEN = ("--vfs-cache-mode", "writes", "--vfs-write-back", "0s")


def lacks() -> str:
    """Say what this machine lacks for such a mount; empty if nothing."""
    if sys.platform != "linux" or not _may_mount():
        return "only root (CAP_SYS_ADMIN) on Linux may mount for itself alone"
    missing = [name for name in ("rclone", "fusermount3") if shutil.which(name) is None]
    return (
        f"there is no {missing[0]} here" if missing else "" if Path("/dev/fuse").exists() else "there is no /dev/fuse"
    )


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """One folder, as two hosts have it that mount it."""
    if lacks():
        pytest.skip(f"{lacks()}: needs root, rclone, fuse3 and /dev/fuse")
    (tmp_path / "store").mkdir()
    made = list[Path]()
    with of_our_own():
        try:
            for name in ("one", "two"):
                point = tmp_path / name
                point.mkdir()
                own = ("--config", "", "--cache-dir", os.fspath(tmp_path / f"cache-{name}"), "--daemon")
                _run("rclone", "mount", *own, *SHOWN_AGAIN, *WRITTEN, os.fspath(tmp_path / "store"), os.fspath(point))
                made.append(point)
            yield made
        finally:
            for point in made:
                _run("umount", "--lazy", os.fspath(point))


def test_a_mount_that_shows_old_listings_is_found_out_between_two_hosts_and_passes_on_one(
    mounts: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.setattr(visibility, "PATIENCE_S", visibility.BOUND_S / 2)
    one, two = mounts
    assert [[*point.iterdir()] for point in mounts] == [[], []], "both were looked at before, as a bus is"
    for asked_on, code, said in ((one, 0, "see soon"), (two, 1, "or listings of this mount")):
        with subprocess.Popen(
            [sys.executable, "-m", "mcp_bus", "doctor", "--answer", one], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            try:
                _, line = process.stderr.readline(), process.stderr.readline()
                word = line.split()[-1]
                assert main(["doctor", "--ask", os.fspath(asked_on), "--word", word, "--rounds", "2"]) == code
            finally:
                process.terminate()
        assert said in capsys.readouterr().out
