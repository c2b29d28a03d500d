"""A bus that is read-only, deleted, made anew, somebody else's or very wide: a clear error, and no loss."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import find
from mcp_bus.errors import CorruptRecord, StoreUnavailable, Untrusted
from mcp_bus.identity.process import boot_id
from mcp_bus.model import State
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from tests.fakes import VirtualSource, bus_on, swept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus import Bus

NOBODY = 65_534
LIMIT = 30
# What one bus may keep open, however wide it is; half of the 256 that some systems allow a process.
DESCRIPTORS = 110
only_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to be someone else")


@pytest.fixture
def bus(file_bus: Bus) -> Bus:
    file_bus.post("work", "first")
    return file_bus


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that any user may enter, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="bus-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_deleted_bus_is_told_and_not_made_again(bus: Bus, root: Path, source: VirtualSource) -> None:
    shutil.rmtree(root)
    for refused in (
        lambda: bus.post("work", "x"),
        lambda: bus.post("new", "x"),
        bus.claim,
        lambda: list(find.tasks(bus)),
        lambda: swept(bus),
    ):
        source.refresh()
        with pytest.raises(StoreUnavailable, match="no bus at") as refusal:
            refused()
        assert "init" in refusal.value.hint
    assert not root.exists()


def test_a_disk_that_fails_is_told_as_such_and_not_as_a_bus_that_is_missing(
    bus: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def failing(path: object, *args: Any, **options: Any) -> os.stat_result:
        if path == "tasks":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *args, **options)  # type: ignore[arg-type]  # whatever it was asked for

    source.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing)
        for channel in ("work", "new"):
            with pytest.raises(StoreUnavailable, match="input/output error") as refusal:
                bus.post(channel, "x")
            assert "init" not in refusal.value.hint, "nobody should make a bus over one that cannot be read"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no way to count descriptors")
def test_a_disk_that_fails_while_its_bus_is_opened_is_told_and_leaves_nothing_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), fd)

    before = os.listdir("/proc/self/fd")  # noqa: PTH208  only the number counts
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", failing)
        with pytest.raises(StoreUnavailable, match="input/output error"):
            FileStore(root)
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208  as above


def test_a_bus_made_anew_in_the_meantime_gets_nothing_by_mistake(bus: Bus, root: Path, source: VirtualSource) -> None:
    shutil.rmtree(root)
    layout.create(root, source=source)
    source.refresh()
    with pytest.raises(StoreUnavailable):
        bus.post("work", "x")
    store = FileStore(root, source=source)
    assert (store.ids(), store.channels()) == ([], [])
    store.close()


def test_a_bus_moved_away_and_back_goes_on(bus: Bus, root: Path, source: VirtualSource) -> None:
    root.rename(root.with_name("away"))
    source.refresh()
    with suppress(StoreUnavailable):
        bus.post("work", "second")
    root.with_name("away").rename(root)
    source.refresh()
    task = bus.claim()
    assert task is not None
    assert bus.ack(task, "done").content == "done"


def test_a_channel_removed_and_made_again_while_open_works(bus: Bus, root: Path, source: VirtualSource) -> None:
    other = FileStore(root, source=source)
    for again in range(3):
        shutil.rmtree(root / "channels" / "work")
        source.refresh()
        assert bus.claim(["work"]) is None
        assert bus.store.channels() == []
        other.declare("work")
        posted = bus.post("work", f"again {again}").id
        source.refresh()
        task = bus.claim(["work"])
        assert task is not None
        assert task.id == posted
        bus.ack(task, "done")
        assert bus.get(posted).state is State.DONE
    other.close()


def test_a_post_into_a_channel_that_was_just_removed_is_kept(bus: Bus, root: Path, source: VirtualSource) -> None:
    shutil.rmtree(root / "channels" / "work")
    posted = bus.post("work", "x").id  # The policy was read a moment ago.
    source.refresh()
    assert bus.get(posted).state is State.READY
    task = bus.claim(["work"])
    assert task is not None
    assert task.id == posted


@pytest.mark.parametrize(
    "gone", ["manifest.json", "journal", "tmp", "staged", "keys", "boots", "tombstones", "rejected"]
)
def test_what_can_be_made_again_may_vanish_at_any_time(bus: Bus, root: Path, source: VirtualSource, gone: str) -> None:
    swept(bus)
    before = {channel: bus.store.count(channel) for channel in bus.store.channels()}
    shutil.rmtree(root / gone, ignore_errors=True)
    (root / gone).unlink(missing_ok=True)
    source.refresh()
    swept(bus)
    assert {channel: bus.store.count(channel) for channel in bus.store.channels()} == before
    bus.post("work", "second", key="k")
    for _ in range(2):
        shutil.rmtree(root / gone, ignore_errors=True)
        source.refresh()
        task = bus.claim(["work"])
        assert task is not None
        bus.ack(task, "done")
        assert bus.get(task.id).result is not None
    assert bus.store.count("work")[State.DONE] == 2


@only_root
def test_a_bus_of_another_user_is_not_trusted(root: Path, source: VirtualSource) -> None:
    os.chown(root, NOBODY, NOBODY)
    with pytest.raises(Untrusted, match=str(NOBODY)):
        FileStore(root, source=source)
    assert list((root / "tasks").iterdir()) == []


@only_root
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=oct)
def test_another_user_is_told_why_the_bus_is_not_his(open_place: Path, mode: int) -> None:
    layout.create(open_place / "bus")
    (open_place / "bus").chmod(mode)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(Untrusted, match=r"belongs to user .*\b0\b") as refusal:
            FileStore(open_place / "bus")
    finally:
        os.seteuid(0)
    assert refusal.value.hint


@only_root
def test_a_read_only_bus_says_so_and_loses_nothing(bus: Bus, root: Path, source: VirtualSource) -> None:
    unshare = shutil.which("unshare")
    script = f"""
set -e
mount --bind "{root}" "{root}"
mount -o remount,ro,bind "{root}"
"{sys.executable}" -B -c '
import sys
from pathlib import Path
from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores.file import FileStore
from tests.fakes import VirtualSource, bus_on
bus = bus_on(FileStore(Path(sys.argv[1])), VirtualSource(), "bob")
print([channel for channel in bus.store.channels()])
for verb in (lambda: bus.post("work", "x"), lambda: bus.post("new", "x"), bus.claim):
    try:
        print("done", verb())
    except StoreUnavailable as error:
        print("read-only" in str(error), bool(error.hint))
' "{root}"
"""
    if unshare is None:
        pytest.skip("no unshare on PATH")
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", script],
        cwd=Path(__file__).parents[2],
        timeout=LIMIT,
        check=False,
        capture_output=True,
        text=True,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.stdout.splitlines() == ["['work']"] + ["True True"] * 3, done.stderr
    source.refresh()
    assert bus.claim() is not None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no way to count descriptors")
def test_any_number_of_channels_needs_a_bounded_number_of_descriptors(root: Path, source: VirtualSource) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  only the number counts

    before = opened()
    bus = bus_on(FileStore(root, source=source, durable=False), source)
    width = 220
    for number in range(width):
        bus.post(f"channel-{number:03d}", str(number))
    assert opened() - before <= DESCRIPTORS
    source.refresh()
    assert swept(bus) == []
    seen = set()
    while (task := bus.claim()) is not None:
        seen.add(task.body.content)
        bus.ack(task, "x")
        source.refresh()
    assert seen == {str(number) for number in range(width)}
    assert opened() - before <= DESCRIPTORS
    bus.close()
    assert opened() == before


def test_what_is_no_bus_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no bus\.json"):
        FileStore(tmp_path)
    with pytest.raises(StoreUnavailable, match="no bus at"):
        FileStore(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"format":2}', b'{"format":"1"}', b"[1]"])
def test_a_bus_of_another_format_is_not_touched(root: Path, data: bytes) -> None:
    (root / "bus.json").write_bytes(data)
    before = sorted(root.rglob("*"))
    with pytest.raises(CorruptRecord):
        FileStore(root)
    assert sorted(root.rglob("*")) == before


def test_making_a_bus_twice_keeps_the_first(root: Path, source: VirtualSource) -> None:
    kept = (root / "bus.json").read_bytes()
    layout.create(root, source=source)
    assert (root / "bus.json").read_bytes() == kept
    assert list((root / "tmp").iterdir()) == []


def test_nobody_else_may_look_into_a_bus(bus: Bus, root: Path) -> None:
    assert bus.store.channels()
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(not boot_id(), reason="no word for a start of the machine")
def test_after_a_start_of_the_machine_tasks_without_a_place_get_one(
    bus: Bus, root: Path, source: VirtualSource
) -> None:
    posted = bus.post("work", "second").id
    swept(bus)
    for mark in (root / "boots").iterdir():
        mark.rename(mark.with_name("boot-before"))
    (root / "channels/work/requests" / f"{posted}.json").unlink()
    assert any(posted in line for line in swept(bus))
    source.refresh()
    assert bus.store.count("work")[State.READY] == 2
    assert swept(bus) == []
