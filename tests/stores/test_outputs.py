"""The folder of results as Markdown: whatever others put there, submits succeed and nothing outside is touched."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from tests.bus.test_working import take
from tests.fakes import bus_on, swept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.fakes import VirtualSource


@pytest.fixture
def asked(file_bus: Bus) -> Bus:
    """A bus on a disk whose channel has the rule."""
    file_bus.create_channel("work", outputs=True, retention_days=1)
    return file_bus


def done(bus: Bus, source: VirtualSource) -> str:
    posted = bus.post("work", "x").id
    bus.ack(take(bus, source), "fine")
    assert bus.get(posted).result is not None
    return posted


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["link", "dangling link", "file", "fifo"])
def test_what_is_no_folder_is_not_followed_and_fails_no_submit(
    asked: Bus, source: VirtualSource, root: Path, tmp_path: Path, what: str
) -> None:
    elsewhere, there = tmp_path / "elsewhere", root / "outputs"
    elsewhere.mkdir()
    if what == "file":
        there.write_text("mine")
    elif what == "fifo":
        os.mkfifo(there)
    else:
        there.symlink_to(elsewhere if what == "link" else tmp_path / "nowhere")
    before = there.lstat()
    posted = done(asked, source)
    assert swept(asked) == ["left outputs/ as it is: 'outputs' in the bus is no folder"]
    with pytest.raises(CorruptRecord, match="no folder"):
        asked.store.outputs.write(posted, b"x")
    asked.store.outputs.remove(posted)
    assert (listed(elsewhere), (tmp_path / "nowhere").exists(), listed(root / "tmp")) == ([], False, [])
    assert there.lstat().st_ino == before.st_ino
    there.unlink()
    assert swept(asked) == [f"wrote outputs/{posted}_result.md"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    asked: Bus, source: VirtualSource, root: Path, tmp_path: Path
) -> None:
    (root / "outputs").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    posted = asked.post("work", "x").id
    path = root / "outputs" / f"{posted}_result.md"
    path.symlink_to(secret)
    asked.ack(take(asked, source), "fine")
    assert (secret.read_text(), path.is_symlink()) == ("secret", False)
    assert path.read_text().endswith("\nfine\n")


def test_a_folder_in_the_place_of_a_file_fails_no_submit(asked: Bus, source: VirtualSource, root: Path) -> None:
    posted = asked.post("work", "x").id
    (root / "outputs" / f"{posted}_result.md" / "mine").mkdir(parents=True)
    asked.ack(take(asked, source), "fine")
    assert swept(asked) == []
    assert listed(root / "tmp") == []
    source.advance(3 * 86_400)
    swept(asked)
    assert posted not in asked.store.ids()


def test_what_was_moved_out_of_the_bus_is_neither_written_to_nor_removed_from(
    asked: Bus, source: VirtualSource, root: Path, tmp_path: Path
) -> None:
    first = done(asked, source)
    (root / "outputs").rename(tmp_path / "kept")
    second = done(asked, source)
    assert listed(root / "outputs") == [f"{second}_result.md"]
    source.advance(3 * 86_400)
    swept(asked)
    assert (listed(tmp_path / "kept"), listed(root / "outputs")) == ([f"{first}_result.md"], [])


def test_the_files_sort_by_when_their_tasks_were_posted(asked: Bus, source: VirtualSource, root: Path) -> None:
    ids = []
    for _ in range(5):
        ids.append(done(asked, source))
        source.advance(1)
    assert listed(root / "outputs") == [f"{posted}_result.md" for posted in ids]


def test_a_channel_with_a_broken_rule_keeps_no_other_from_its_files(
    asked: Bus, source: VirtualSource, root: Path
) -> None:
    asked.create_channel("broken")
    (root / "channels" / "broken" / "channel.json").write_text('{"outputs": "perhaps"}')
    posted = done(asked, source)
    asked.store.outputs.remove(posted)
    source.refresh()
    assert f"wrote outputs/{posted}_result.md" in swept(asked)


class Full(Fs):
    """A disk with no room for outputs."""

    is_full = True

    def create(self, name: str, at: int, data: bytes, *, sync: bool) -> None:
        if self.is_full and name.startswith("output."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        super().create(name, at, data, sync=sync)


@pytest.fixture
def full(root: Path, source: VirtualSource) -> Iterator[tuple[Bus, Full]]:
    fs = Full()
    store = FileStore(root, fs=fs, source=source)
    yield bus_on(store, source), fs
    store.close()


def test_what_cannot_be_written_fails_no_submit_and_no_sweep_and_comes_later(
    full: tuple[Bus, Full], source: VirtualSource
) -> None:
    bus, fs = full
    bus.create_channel("work", outputs=True)
    posted = done(bus, source)
    assert swept(bus)[-1].startswith("left outputs/ as it is: the disk that holds the bus is full")
    fs.is_full = False
    assert swept(bus) == [f"wrote outputs/{posted}_result.md"]
