"""File systems that cannot carry a bus are refused with the reason, before anything is made; real ones (P16)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.media.mounts import MIB, _run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.media.mounts import Medium

WAIT_S = 30


def verb(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb on the bus of a folder, as a process that nothing here has prepared."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-m", "mcp_bus", *words], capture_output=True, text=True, timeout=WAIT_S, check=False,
        stdin=subprocess.DEVNULL, env=env | {"MCP_BUS_DIR": str(place), "HOME": str(place.parent)},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["vfat", "exfat"])
def test_a_real_disk_without_hard_links_is_refused_by_name_and_stays_empty(
    mount: Callable[..., Medium], kind: str
) -> None:
    try:
        medium = mount(kind)
    except AssertionError as error:
        if "unknown filesystem type" not in str(error):
            raise
        pytest.skip(f"this kernel does not know {kind}, which a machine that has it refuses by name (core/test_probe)")
    for words in (["init"], ["post", "work", "x"], ["serve"]):
        done = verb(medium.point / "bus", *words)
        assert done.returncode != 0
        assert kind in done.stderr
        assert "cannot carry a bus" in done.stderr
        assert "local disk" in done.stderr
    assert list(medium.point.iterdir()) == []


def test_a_read_only_disk_is_refused_as_such_and_its_bus_can_be_read(mount: Callable[..., Medium]) -> None:
    medium = mount("ext4", size=16 * MIB)
    bus = medium.point / "bus"
    assert verb(bus, "post", "work", "x").returncode == 0
    medium.remount("ro")
    for place, words in ((medium.point / "new", ["init"]), (bus, ["post", "work", "y"]), (bus, ["claim", "work"])):
        done = verb(place, *words)
        assert done.returncode != 0, words
        assert "read-only" in done.stderr.lower(), done.stderr
        assert "next:" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert verb(bus, "find").stdout.count("ready") == 1
    assert not (medium.point / "new").exists()


def test_memory_carries_a_bus_with_a_warning(mount: Callable[..., Medium]) -> None:
    point = mount("ext4", size=16 * MIB).point / "memory"
    point.mkdir()
    _run("mount", "-t", "tmpfs", "none", os.fspath(point))
    try:
        done = verb(point / "bus", "post", "work", "x")
        assert done.returncode == 0, done.stderr
        assert "WARNING" in done.stderr
    finally:
        _run("umount", os.fspath(point))


@pytest.mark.parametrize("folder", ["tmp", "tasks", "channels"])
def test_a_bus_with_a_folder_on_another_disk_accepts_nothing_and_says_why(
    mount: Callable[..., Medium], folder: str
) -> None:
    medium = mount("ext4", size=16 * MIB)
    bus = medium.point / "bus"
    assert verb(bus, "post", "work", "first").returncode == 0
    _run("mount", "-t", "tmpfs", "none", os.fspath(bus / folder))
    try:
        done = verb(bus, "post", "work", "second")
        assert done.returncode != 0, done
        assert "cross-device link" in done.stderr.lower(), done.stderr
        assert "next:" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        _run("umount", os.fspath(bus / folder))
    assert verb(bus, "find").stdout.count("ready") == 1, "the one that was refused is there"
