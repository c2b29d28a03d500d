"""A disk that is full, here or at the remote: told as that, nothing untrue is promised, and then it goes on."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import State
from tests.git.hosts import Hosts, bare, git, store_of, store_on
from tests.media.mounts import MIB, missing, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 12 * MIB


@contextmanager
def filled(point: Path) -> Iterator[None]:
    """Leave nothing free on a file system."""
    ballast = point / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 512):
            with suppress(OSError):
                file.writelines(repeat(b"x" * size))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    lacks = missing("ext4")
    if lacks:
        pytest.skip(f"{lacks}: needs root, loop devices and mkfs.ext4")
    with mounted("ext4", tmp_path, size=SIZE) as medium:
        yield medium.point


def test_a_full_disk_of_a_host_refuses_all_that_writes_and_keeps_what_was_there(hosts: Hosts, small: Path) -> None:
    here = Hosts(small, hosts.remote)
    ann, bob = here.bus("one"), here.bus("one", "bob")
    task = ann.post("work", "before").id
    with filled(small):
        for verb in (lambda: ann.post("work", "during"), lambda: bob.claim(["work"])):
            with pytest.raises(StoreUnavailable, match=r"Out of diskspace|No space left") as caught:
                verb()
            assert "free some space" in (caught.value.hint or "")
            assert hosts.remote not in str(caught.value), "it is not the remote's fault"
        assert ann.get(task).state is State.READY
        with pytest.raises(StoreUnavailable, match="No space left"):
            here.bus("another host")
    assert hosts.bus("two").store.ids() == [task], "what was refused is nowhere"
    claimed = bob.claim(["work"])
    assert claimed is not None
    assert claimed.id == task
    ann.post("work", "after")
    assert git("--git-dir", str(small / "one" / "repo.git"), "fsck", "--no-dangling") == ""
    here.close()


def test_a_full_disk_at_the_remote_lets_posts_wait_and_claims_nothing(disk: Path, small: Path) -> None:
    remote = bare(small / "remote.git")
    maker = store_on(disk / "maker", remote)
    maker.create()
    maker.declare("work")
    maker.close()
    hosts = Hosts(disk, remote)
    ann = hosts.bus("one")
    first = ann.post("work", "before").id
    with filled(small):
        waits = ann.post("work", "during").id
        assert store_of(ann).away.unsent == 1
        with pytest.raises(StoreUnavailable, match="remote") as caught:
            ann.claim(["work"])
        assert "space" in (caught.value.hint or "") or "disk" in (caught.value.hint or "")
        assert hosts.bus("two").store.ids() == [first]
    store_of(ann).sync()
    assert set(hosts.bus("three").store.ids()) == {first, waits}
    assert hosts.bus("three", "bob").claim(["work"]) is not None
    hosts.close()
