"""A hint tells of what arrives, never blocks past its time, and never raises for what is missing."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mcp_bus import notify
from mcp_bus.notify import Hint

ENOUGH = 10.0  # Seconds nothing here comes near unless it is broken.
LINUX = sys.platform == "linux"
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no notification there, the caller polls")
only_linux = pytest.mark.skipif(not LINUX, reason="a rule of inotify")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A directory to be watched."""
    path = tmp_path / "requests"
    path.mkdir()
    return path


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A finished file beside the watched directory."""
    path = tmp_path / "draft"
    path.write_text("{}")
    return path


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    notify._warn_once.cache_clear()


def moved(draft: Path, box: Path) -> None:
    draft.rename(box / "a.json")


def linked(draft: Path, box: Path) -> None:
    (box / "a.json").hardlink_to(draft)


def written(_draft: Path, box: Path) -> None:
    (box / "a.json").write_text("{}")


@pytest.mark.parametrize("arrive", [moved, linked, written])
def test_an_arrival_is_told_once(arrive: Callable[[Path, Path], None], box: Path, draft: Path) -> None:
    with Hint([box]) as hint:
        arrive(draft, box)
        assert hint.wait(ENOUGH)
        assert not hint.wait(0)


@only_linux
def test_a_foreign_write_is_told_at_its_end_and_not_only_when_it_begins(box: Path) -> None:
    with Hint([box]) as hint, (box / "a.json").open("w") as file:
        assert hint.wait(ENOUGH)
        file.write("{}")
        file.flush()
        assert not hint.wait(0)
        file.close()
        assert hint.wait(ENOUGH)


@only_linux
def test_taking_a_file_away_wakes_nobody(box: Path, tmp_path: Path) -> None:
    (box / "a").touch()
    (box / "b").touch()
    with Hint([box]) as hint:
        (box / "a").rename(tmp_path / "a")
        (box / "b").unlink()
        assert not hint.wait(0)


def test_nothing_happens_and_the_time_runs_out(box: Path) -> None:
    with Hint([box]) as hint:
        start = time.monotonic()
        assert not hint.wait(0.05)
        assert 0.05 <= time.monotonic() - start < ENOUGH
        assert not hint.wait(-1)
        assert not hint.drain()


def test_what_arrived_before_the_wait_ends_it_however_long_it_would_be(box: Path, draft: Path) -> None:
    with Hint([box]) as hint:
        moved(draft, box)
        assert hint.wait(float("inf"))


def test_a_write_from_a_thread_ends_a_wait_that_has_begun(box: Path, draft: Path) -> None:
    with Hint([box]) as hint:
        timer = threading.Timer(0.05, moved, (draft, box))
        timer.start()
        start = time.monotonic()
        assert hint.wait(ENOUGH)
        assert time.monotonic() - start < ENOUGH / 2
        timer.join(ENOUGH)


def test_anyio_can_wait_for_the_descriptor(box: Path, draft: Path) -> None:
    told = []

    async def waits(hint: Hint) -> None:
        await anyio.wait_readable(hint.fileno())
        told.append(hint.drain())

    async def main() -> None:
        with anyio.fail_after(ENOUGH), Hint([box]) as hint:
            for arrive in (linked, moved):  # Twice: the first must leave the descriptor usable.
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(waits, hint)
                    await anyio.wait_all_tasks_blocked()
                    assert len(told) == (arrive is moved)
                    arrive(draft, box)
                (box / "a.json").unlink()  # Else the rename finds its own file there, and does nothing.

    anyio.run(main)
    assert told == [True, True]


@only_linux
def test_a_signal_does_not_cut_a_wait_short_unless_its_handler_raises(box: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        with Hint([box]) as hint:
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert not hint.wait(0.1)
            assert seen
            assert time.monotonic() - start >= 0.1
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                hint.wait(ENOUGH)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_directory_made_later_is_found_by_the_next_watch(tmp_path: Path, draft: Path) -> None:
    late = tmp_path / "channels" / "late"
    with Hint([late]) as hint:
        assert hint.fileno() >= 0
        late.mkdir(parents=True)
        assert not hint.wait(0)
        hint.watch([])
        moved(draft, late)
        assert hint.wait(ENOUGH)


def test_making_a_directory_inside_a_watched_one_is_told(box: Path) -> None:
    with Hint([box]) as hint:
        (box / "channel").mkdir()
        assert hint.wait(ENOUGH)


def test_directories_can_be_added_and_adding_them_again_changes_nothing(box: Path, tmp_path: Path, draft: Path) -> None:
    other = tmp_path / "responses"
    other.mkdir()
    with Hint([box]) as hint:
        before = hint.fileno()
        for _ in range(3):
            hint.watch([other, box])
        assert hint.fileno() == before
        assert not hint.wait(0)
        linked(draft, other)
        assert hint.wait(ENOUGH)
        moved(draft, box)
        assert hint.wait(ENOUGH)


def test_a_directory_that_was_deleted_and_made_again_is_found_again(box: Path, draft: Path) -> None:
    with Hint([box]) as hint:
        box.rmdir()
        assert hint.wait(ENOUGH)  # Its end is told.
        hint.watch([])  # Missing, and no reason to raise.
        box.mkdir()
        hint.watch([box])
        hint.drain()
        moved(draft, box)
        assert hint.wait(ENOUGH)


def test_a_directory_replaced_while_someone_holds_it_open_is_found_again(box: Path, draft: Path) -> None:
    held = os.open(box, os.O_RDONLY)
    try:
        with Hint([box]) as hint:
            box.rmdir()
            box.mkdir()
            hint.watch([box])
            hint.drain()
            moved(draft, box)
            assert hint.wait(ENOUGH)
    finally:
        os.close(held)


def test_a_directory_that_was_moved_away_is_not_followed(box: Path, tmp_path: Path, draft: Path) -> None:
    with Hint([box]) as hint:
        away = box.rename(tmp_path / "away")
        assert hint.wait(ENOUGH)
        box.mkdir()
        hint.watch([])
        hint.drain()
        linked(draft, away)
        assert not hint.wait(0)
        linked(draft, box)
        assert hint.wait(ENOUGH)


@only_linux
def test_a_second_path_to_a_directory_goes_and_the_first_still_tells(box: Path, tmp_path: Path, draft: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(box)
    with Hint([box, alias]) as hint:
        alias.unlink()
        hint.watch([])
        assert not hint.drain()
        moved(draft, box)
        assert hint.wait(ENOUGH)


def test_a_file_where_a_directory_should_be_is_like_a_missing_one(draft: Path) -> None:
    with Hint([draft, draft / "below"]) as hint:
        assert hint.fileno() >= 0
        draft.write_text("[]")
        assert not hint.wait(0)


@only_linux
def test_a_storm_that_overflows_the_queue_is_one_hint_in_constant_memory(box: Path, tmp_path: Path) -> None:
    events = int(QUEUE.read_text()) + 100
    if events > 100_000:
        pytest.skip("this machine's queue takes too long to fill")
    other = tmp_path / "other"
    other.mkdir()
    here, there = box / ("n" * 200), other / ("n" * 200)
    here.touch()
    with Hint([box, other]) as hint:
        for _ in range(events // 2 + 1):  # To and fro: the kernel joins equal neighbours.
            here.rename(there)
            there.rename(here)
        tracemalloc.start()
        assert hint.drain()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 500_000
        assert not hint.wait(0)
        here.rename(there)  # It tells again after the overflow.
        assert hint.wait(ENOUGH)


WITHOUT_DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
from mcp_bus.notify import Hint
if sys.argv[1] == "loaded":
    import ctypes, logging
lowest = os.open(os.devnull, os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for _ in range(2):
    with Hint([Path.cwd()]) as hint:
        hint.watch([Path("missing")])
        print(hint.fileno(), hint.drain(), hint.wait(0.01))
"""


@pytest.mark.parametrize("modules", ["loaded", "unloaded"])
def test_without_a_free_descriptor_there_is_only_polling_and_one_warning(modules: str) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, modules],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-1 False False"] * 2
    if modules == "loaded":  # Otherwise the warning cannot even be imported.
        assert done.stderr.count("waits poll instead") == 1


def test_a_watch_limit_means_polling_until_a_later_watch_succeeds(
    box: Path, draft: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(notify._Source, "add", full)
        hint = Hint([box])
        hint.watch([box])
    with hint:
        assert hint.fileno() == -1
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert not hint.wait(0.01)
        hint.watch([])
        assert hint.fileno() >= 0
        moved(draft, box)
        assert hint.wait(ENOUGH)


@only_linux
def test_a_mount_that_others_write_to_means_polling_for_all(
    box: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify._Source, "_SHARED", {0x9FA0})  # As if procfs were a network.
    with Hint([box]) as hint:
        assert hint.fileno() >= 0
        hint.watch([Path("/proc/self")])
        assert hint.fileno() == -1
        moved(draft, box)
        assert hint.wait(ENOUGH)  # What the kernel does see is told all the same.


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "no such call"), ImportError("_ctypes"), AttributeError("x")])
def test_a_platform_without_notification_waits_out_its_time(
    error: Exception, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: object) -> None:
        raise error

    monkeypatch.setattr(notify._Source, "__init__", none)
    with Hint([box]) as hint:
        assert hint.fileno() == -1
        (box / "a").touch()
        start = time.monotonic()
        assert not hint.wait(0.05)
        assert time.monotonic() - start >= 0.05
        assert not hint.drain()


def test_a_closed_hint_knows_nothing_and_gives_its_descriptor_back(box: Path) -> None:
    hint = Hint([box])
    fd = hint.fileno()
    assert not os.get_inheritable(fd)
    hint.close()
    hint.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    hint.watch([box])
    assert (hint.fileno(), hint.drain(), hint.wait(0)) == (-1, False, False)


def test_importing_it_loads_nothing_that_only_a_wait_needs() -> None:
    code = "import sys, mcp_bus; before = set(sys.modules); import mcp_bus.notify; print(*set(sys.modules) - before)"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"ctypes", "logging", "threading", "asyncio"} & set(done.stdout.split())
