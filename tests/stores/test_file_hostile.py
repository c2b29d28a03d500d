"""Whatever lies in a bus's folders, it neither stops nor starves the rest, and ends delivered or put aside."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import find, wire
from mcp_bus.errors import CorruptRecord
from mcp_bus.model import MAX_CONTENT, State, day_of
from mcp_bus.stores.contract import body
from mcp_bus.stores.file import FileStore
from tests.fakes import VirtualSource, bus_on, swept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mcp_bus import Bus, Task

GOOD = body(1)
DATA = wire.dump_body(GOOD)
NAME = f"{GOOD.id}.json"
SETTLED = 3600.0


@pytest.fixture
def bus(root: Path, clock: VirtualSource) -> Iterator[Bus]:
    store = FileStore(root, source=clock)
    store.declare("work")
    yield bus_on(store, clock)
    store.close()


@pytest.fixture
def requests(bus: Bus, root: Path) -> Path:
    """Where ready tasks of the channel `work` are."""
    assert bus.store.channels() == ["work"]
    return root / "channels" / "work" / "requests"


def claimed(bus: Bus, clock: VirtualSource) -> Task | None:
    clock.refresh()
    return bus.claim(["work"])


def put_aside(root: Path) -> dict[str, str]:
    """Return what is in quarantine: where it was, and why."""
    pages = [json.loads(path.read_bytes()) for path in (root / "quarantine").glob("*.reason.json")]
    assert len(list((root / "quarantine").iterdir())) == 2 * len(pages)
    return {page["was"]: page["reason"] for page in pages}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def symlink(path: Path) -> None:
    outside = path.parents[4] / "outside.json"
    outside.write_bytes(DATA)
    path.symlink_to(outside)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    (path / "inside").mkdir(parents=True)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # The name of a socket has to be short.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def too_large(path: Path) -> None:
    path.write_bytes(b'{"a":"' + b"x" * wire.MAX_FILE + b'"}')


def hard_link(path: Path) -> None:
    outside = path.parents[4] / "secret.json"
    outside.write_bytes(DATA)
    path.hardlink_to(outside)


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


THINGS: dict[str, Callable[[Path], None]] = {
    "a fifo": fifo,
    "a symlink to a valid message": symlink,
    "a dangling symlink": dangling,
    "a symlink to itself": loop,
    "a folder": folder,
    "a socket": unix_socket,
    "a file of 1 TiB": sparse,
    "a file over the limit": too_large,
    "a hard link to a file outside": hard_link,
    "no bytes": content(b""),
    "half a message": content(DATA[: len(DATA) // 2]),
    "no JSON": content(b"\x7fELF\0\0"),
    "NaN": content(DATA.replace(b'"ttl":315360000', b'"ttl":NaN')),
    "another channel": content(wire.dump_body(GOOD._replace(channel="play"))),
    "no channel at all": content(DATA.replace(b'"to":"work"', b'"to":"../../etc"')),
}
only_posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO, no symlink without a privilege")


@only_posix
@pytest.mark.parametrize("thing", THINGS)
def test_under_a_task_s_name_it_is_passed_over_and_put_aside_once_it_settled(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource, thing: str
) -> None:
    THINGS[thing](requests / NAME)
    good = bus.post("work", "good").id
    task = claimed(bus, clock)
    assert task is not None
    assert task.id == good
    assert claimed(bus, clock) is None
    assert list(find.tasks(bus, state="ready")) == []
    swept(bus)
    assert put_aside(root) == {}, "it may still be written"
    claimed(bus, clock)
    clock.advance(SETTLED)
    swept(bus)
    [(where, why)] = put_aside(root).items()
    assert where == f"channels/work/requests/{NAME}"
    assert why
    assert not os.path.lexists(requests / NAME)
    assert find.resolve(bus.store, good) == good
    assert bus.store.ids() == [good]


@only_posix
@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("part", ["requests", "delayed", "processing"])
def test_under_a_strange_name_it_is_put_aside_once_it_settled(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource, thing: str, part: str
) -> None:
    THINGS[thing](requests.parent / part / "strange.json")
    swept(bus)
    assert put_aside(root) == {}
    clock.advance(SETTLED)
    swept(bus)
    assert list(put_aside(root)) == [f"channels/work/{part}/strange.json"]
    assert swept(bus) == []
    assert bus.store.ids() == []


NAMES = [
    b"\xff\xfe.json", "задача.json".encode(), b"req_0123456\xef\xbc\x97.json", b"req_0123456789ab.a\xd9\xa3.json",
    b" .json", b"req_0123456789ab.json.tmp", b"\x1b[31mred.json", b"new\nline.json", b".hidden", b"x" * 255,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("part", ["requests", "delayed", "processing", "dead", "archive", "responses"])
def test_a_name_of_any_bytes_harms_nobody(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource, name: bytes, part: str
) -> None:
    (Path(os.fsdecode(os.fsencode(requests.parent / part) + b"/" + name))).write_bytes(b"junk")
    bus.post("work", "good")
    clock.advance(SETTLED)
    swept(bus)
    task = claimed(bus, clock)
    assert task is not None
    bus.ack(task, "done")
    assert bus.get(task.id).state is State.DONE
    kept = put_aside(root)
    assert len(kept) == (part in ("requests", "delayed", "processing"))
    assert all(where.isascii() and where.isprintable() for where in kept)


def test_a_message_that_is_still_being_written_is_not_claimed_before_its_end(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource
) -> None:
    place, half = requests / NAME, len(DATA) // 2
    with place.open("wb", buffering=0) as file:
        for part in (b"", DATA[:half]):
            file.write(part)
            assert claimed(bus, clock) is None
            swept(bus)
        file.write(DATA[half:])
    task = claimed(bus, clock)
    assert task is not None
    assert task.body == GOOD
    assert (root / "tasks" / NAME).samefile(root / "channels" / "work" / "processing" / next_name(root))
    assert put_aside(root) == {}


def next_name(root: Path) -> str:
    [path] = (root / "channels" / "work" / "processing").iterdir()
    return path.name


def test_a_message_that_was_half_there_once_is_not_put_aside_when_it_is_whole(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource
) -> None:
    place = requests / NAME
    place.write_bytes(DATA[:20])
    assert claimed(bus, clock) is None
    place.write_bytes(DATA)
    clock.advance(SETTLED)  # Nobody asked for work meanwhile; the sweep is the first to look again.
    swept(bus)
    assert put_aside(root) == {}
    task = claimed(bus, clock)
    assert task is not None
    assert task.body == GOOD


def test_a_valid_message_under_a_strange_name_is_adopted(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource
) -> None:
    (requests / "by hand.json").write_bytes(DATA)
    assert swept(bus) == ["adopted 'by hand.json'"]
    task = claimed(bus, clock)
    assert task is not None
    assert task.body == GOOD
    assert bus.ack(task, "done").content == "done"
    assert put_aside(root) == {}


def test_a_valid_message_under_another_s_name_is_adopted_under_its_own(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource
) -> None:
    other = body(2)
    (requests / NAME).write_bytes(wire.dump_body(other))
    assert claimed(bus, clock) is None
    swept(bus)
    task = claimed(bus, clock)
    assert task is not None
    assert task.body == other
    assert bus.store.ids() == [other.id]
    assert put_aside(root) == {}


def test_a_message_without_a_link_is_claimed_and_counted_once(bus: Bus, requests: Path, clock: VirtualSource) -> None:
    (requests / NAME).write_bytes(DATA)
    task = claimed(bus, clock)
    assert task is not None
    assert bus.store.ids() == [GOOD.id]
    assert bus.get(GOOD.id).state is State.LEASED
    (requests / NAME).write_bytes(DATA)  # Once more, in place of the one that was claimed.
    assert claimed(bus, clock) is None
    clock.advance(SETTLED)
    swept(bus)
    assert bus.store.count("work")[State.READY] <= 1
    assert len(bus.store.ids()) == 1


def test_a_claim_of_a_program_without_leases_comes_back_with_all_its_marks(
    bus: Bus, requests: Path, clock: VirtualSource
) -> None:
    posted = bus.post("work", "x", priority=3, ttl_s=10 * SETTLED).id
    [place] = requests.iterdir()
    place.rename(requests.parent / "processing" / place.name)
    task = bus.get(posted)
    assert (task.state, task.lease.holder, task.slot.priority) == (State.LEASED, "abq", 3)
    swept(bus)
    assert bus.get(posted).state is State.LEASED
    clock.advance(SETTLED + 60)
    swept(bus)
    back = bus.get(posted)
    assert back.state in (State.SCHEDULED, State.READY)
    assert (back.slot.priority, back.slot.deadline) == (3, task.slot.deadline)


def test_a_response_of_a_program_without_leases_is_the_result(bus: Bus, root: Path, requests: Path) -> None:
    posted = bus.post("work", "x").id
    channel = requests.parent
    (requests / f"{posted}.json").rename(channel / "processing" / f"{posted}.json")
    answer = {"id": posted, "version": "1.0.0", "status": "success", "from": {"agent": "a", "pid": 1}, "result": "ok"}
    (channel / "responses" / f"{posted}.json").write_text(json.dumps(answer))
    (channel / "processing" / f"{posted}.json").rename(channel / "archive" / f"{posted}_request.json")
    task = bus.get(posted)
    assert task.state is State.DONE
    assert task.result is not None
    assert task.result.content == "ok"
    assert bus.store.count("work")[State.READY] == 0
    assert (root / "channels/work/archive" / f"{posted}_request.json").exists()


def test_a_policy_nobody_can_read_stops_its_own_channel_only(bus: Bus, root: Path, clock: VirtualSource) -> None:
    bus.post("play", "stuck")
    bus.post("work", "good", delay_s=1)
    (root / "channels" / "play" / "channel.json").write_text('{"max_attempts": 0}')
    clock.refresh()
    clock.advance(2)
    assert any("play" in line for line in swept(bus))
    assert {view.name for view in find.channels(bus.store)} == {"play", "work"}
    clock.refresh()
    with pytest.raises(CorruptRecord, match="'play'"):
        bus.post("play", "more")
    task = bus.claim()
    assert task is not None
    assert task.body.content == "good"


@only_posix
def test_a_fifo_in_place_of_the_journal_or_the_tombstones_blocks_nobody(
    bus: Bus, root: Path, clock: VirtualSource
) -> None:
    bus.post("work", "x")
    for path in (root / "journal").iterdir():
        path.unlink()
        os.mkfifo(path)
    clock.refresh()
    posted = bus.post("work", "y").id
    bus.cancel(posted)
    assert bus.get(posted).state is State.CANCELLED
    os.mkfifo(root / "tombstones" / f"{day_of(clock.now())}.txt")
    slot = bus.get(posted).slot
    with pytest.raises(CorruptRecord, match="nothing is appended"):
        bus.store.swap(slot, None)
    assert bus.get(posted).slot == slot


@only_posix
@pytest.mark.parametrize("part", ["requests", "processing", "responses", "archive", "attempts", "dead"])
def test_a_symlink_in_place_of_a_folder_leads_nowhere(
    bus: Bus, root: Path, requests: Path, clock: VirtualSource, part: str
) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    for name in (NAME, "stranger.json", f"9.{NAME}"):
        (outside / name).write_bytes(DATA)
    clock.advance(SETTLED)
    place = requests.parent / part
    place.rename(root.parent / "moved")
    place.symlink_to(outside)
    bus.post("play", "good")
    bus.store.close()
    store = FileStore(root, source=clock)
    again = bus_on(store, clock)
    try:
        swept(again)
        task = again.claim()
        assert task is not None
        assert task.body.content == "good"
        assert again.claim() is None
        assert again.store.strangers("work") == []
        assert store.tree.names(f"channels/work/{part}") == []
        assert sorted(path.name for path in outside.iterdir()) == sorted([NAME, "stranger.json", f"9.{NAME}"])
    finally:
        store.close()


def test_the_longest_body_and_result_pass(bus: Bus, clock: VirtualSource) -> None:
    bus.post("work", "\x01" * MAX_CONTENT)
    task = claimed(bus, clock)
    assert task is not None
    assert len(task.body.content) == MAX_CONTENT
    bus.ack(task, "\U0001f600" * (MAX_CONTENT // 4))
    kept = bus.get(task.id).result
    assert kept is not None
    assert len(kept.content.encode()) == MAX_CONTENT
