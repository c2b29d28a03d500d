"""The order of calls is the protocol: what each verb asks of the file system, and what it need not ask."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import Conflict, StoreUnavailable
from mcp_bus.model import day_of
from mcp_bus.stores.file import BATCH, FileStore
from tests.fakes import START, RecordingFs, VirtualSource, bus_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus import Bus

WORK = "channels/work"
DAY = f"{WORK}/archive/{day_of(START)}"


@pytest.fixture
def fs() -> RecordingFs:
    return RecordingFs()


@pytest.fixture(params=[True, False], ids=["durable", "fast"])
def durable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def bus(root: Path, source: VirtualSource, fs: RecordingFs, durable: bool) -> Iterator[Bus]:  # noqa: FBT001  a fixture
    store = FileStore(root, fs=fs, source=source, durable=durable)
    made = bus_on(store, source)
    for content in ("first", "second"):  # So that each folder is there and open.
        made.post("work", content, key=content)
        made.nack(made.claim() or pytest.fail("nothing to claim"), "no", retry_in_s=0)
    task = made.claim() or pytest.fail("nothing to claim")
    made.ack(task, "done")
    made.cancel(made.post("work", "third").id)
    store.mend(source.now())
    fs.calls.clear()
    yield made
    store.close()


@pytest.fixture
def asked(fs: RecordingFs, durable: bool) -> Callable[..., bool]:  # noqa: FBT001  a fixture
    """Compares what was asked with what is expected: random parts are `*`, fsyncs count if durable."""

    def compare(*expected: str) -> bool:
        calls = [
            re.sub(r"(?<=[./~])(?:[0-9a-f]{8}|[0-9a-f]{12}|[0-9a-f]{16})(?=$|[ ._])", "*", call)
            for call in fs.calls
            if " journal/" not in call
        ]
        fs.calls.clear()
        wanted = [line for line in expected if durable or not line.startswith(("fsync", "sync_name"))]
        assert calls == wanted
        return True

    return compare


def test_a_post_is_whole_then_named_then_placed_then_durable(bus: Bus, asked: Callable[..., bool]) -> None:
    i = bus.post("work", "x").id
    assert asked(
        f"create tmp/{i}.*",
        f"fsync tmp/{i}.*",
        f"link tmp/{i}.* -> tasks/{i}.json",
        f"rename tmp/{i}.* -> {WORK}/requests/{i}.json",
        "fsync tasks",
    )


def test_a_keyed_post_passes_its_key_durably_before_its_identity(bus: Bus, asked: Callable[..., bool]) -> None:
    i = bus.post("work", "x", key="k").id
    key = bus.get(i).body.key
    assert asked(
        f"create tmp/{i}.*",
        f"fsync tmp/{i}.*",
        f"link tmp/{i}.* -> keys/{key}.json",
        "fsync keys",
        f"link tmp/{i}.* -> tasks/{i}.json",
        f"rename tmp/{i}.* -> {WORK}/requests/{i}.json",
        "fsync tasks",
    )


def test_a_repeated_post_makes_the_first_one_durable_before_it_answers(bus: Bus, fs: RecordingFs) -> None:
    i = bus.post("work", "x", key="k").id
    fs.calls.clear()
    assert bus.post("work", "x", key="k").id == i
    calls = [call for call in fs.calls if " tmp/" not in call and not call.startswith("fsync ?")]
    assert calls == ([f"sync_name tasks/{i}.json", "fsync tasks"] if bus.store.durable else [])


def test_claim_and_renew_are_one_rename_and_no_fsync(
    bus: Bus, source: VirtualSource, asked: Callable[..., bool], fs: RecordingFs
) -> None:
    i = bus.post("work", "x", priority=9).id
    fs.calls.clear()
    source.refresh()
    task = bus.claim() or pytest.fail("nothing to claim")
    assert task.id == i
    held = f"{WORK}/processing/{i}.p9.a1.ann~*.*"
    assert asked(f"rename {WORK}/requests/{i}.p9.json -> {held}.{START + 300_000}.json")
    source.advance(1)
    bus.renew(task)
    assert asked(f"rename {held}.{START + 300_000}.json -> {held}.{START + 301_000}.json")


def test_a_result_is_staged_durably_then_fenced_then_published(
    bus: Bus, source: VirtualSource, asked: Callable[..., bool], fs: RecordingFs
) -> None:
    i = bus.post("work", "x", priority=9).id
    source.refresh()
    task = bus.claim() or pytest.fail("nothing to claim")
    assert task.id == i
    fs.calls.clear()
    bus.ack(task, "done")
    held = f"{i}.p9.a1.ann~*.*"
    tidied = [] if bus.store.durable else [f"unlink staged/{held}.json"]
    assert asked(
        "create tmp/result.*",
        "fsync tmp/result.*",
        f"rename tmp/result.* -> staged/{held}.json",
        "fsync staged",
        f"rename {WORK}/processing/{held}.{START + 300_000}.json -> {DAY}/{held}_request.json",
        f"fsync {DAY}",
        f"link staged/{held}.json -> {WORK}/responses/{i}.json",
        *tidied,
    )


def test_a_staged_name_goes_only_after_the_result_s_folder_is_durable(
    bus: Bus, source: VirtualSource, asked: Callable[..., bool], fs: RecordingFs
) -> None:
    i = bus.post("work", "x", priority=9).id
    source.refresh()
    task = bus.claim() or pytest.fail("nothing to claim")
    bus.ack(task, "done")
    fs.calls.clear()
    bus.store.mend(source.now())
    gone = [f"fsync {WORK}/responses", f"unlink staged/{i}.p9.a1.ann~*.*.json"] if bus.store.durable else []
    assert asked(*gone)


def test_staged_names_are_bounded(bus: Bus, root: Path, source: VirtualSource) -> None:
    for _ in range(BATCH + 5):
        bus.post("work", "x")
        source.refresh()
        bus.ack(bus.claim() or pytest.fail("nothing to claim"), "done")
    assert len(list((root / "staged").iterdir())) < BATCH
    bus.store.close()
    assert list((root / "staged").iterdir()) == []


def test_a_cancel_is_written_down_before_and_durable_after(
    bus: Bus, asked: Callable[..., bool], fs: RecordingFs
) -> None:
    i = bus.post("work", "x").id
    fs.calls.clear()
    bus.cancel(i, "no")
    calls = [call for call in fs.calls if "attempts" not in call]
    notes = [call for call in fs.calls if "attempts" in call]
    assert notes[-1].startswith("fsync" if bus.store.durable else "create")
    assert fs.calls[-len(calls) :] == calls
    fs.calls.clear()
    wanted = [f"rename {WORK}/requests/{i}.json -> {DAY}/{i}_cancelled.json", f"fsync {DAY}"]
    assert calls == wanted[: 2 if bus.store.durable else 1]
    assert asked()


def test_a_dead_task_has_its_reason_first_and_is_durable(
    bus: Bus, source: VirtualSource, asked: Callable[..., bool], fs: RecordingFs
) -> None:
    i = bus.post("work", "x", max_attempts=1, priority=9).id
    source.refresh()
    task = bus.claim() or pytest.fail("nothing to claim")
    fs.calls.clear()
    bus.nack(task, "it burns")
    fs.calls[:] = [call for call in fs.calls if "attempts" not in call]
    assert asked(
        "create tmp/reason.*",
        "fsync tmp/reason.*",
        f"rename tmp/reason.* -> {WORK}/dead/{i}.reason.json",
        f"rename {WORK}/processing/{i}.p9.a1.ann~*.*.{START + 300_000}.json -> {WORK}/dead/{i}.p9.a1.json",
        f"fsync {WORK}/dead",
    )
    fs.calls.clear()
    bus.retry(i)
    kept = [call for call in fs.calls if "attempts" not in call]
    back = [f"rename {WORK}/dead/{i}.p9.a1.json -> {WORK}/requests/{i}.p9.a1.m2.json"]
    synced = [f"fsync {WORK}/requests"] if bus.store.durable else []
    assert kept == [*back, *synced, f"unlink {WORK}/dead/{i}.reason.json"]


def test_a_failed_attempt_that_goes_back_costs_no_fsync_of_a_folder(
    bus: Bus, source: VirtualSource, fs: RecordingFs
) -> None:
    bus.post("work", "x", priority=9)
    source.refresh()
    task = bus.claim() or pytest.fail("nothing to claim")
    fs.calls.clear()
    bus.nack(task, "no", retry_in_s=5)
    bus.requeue(task.id)
    source.refresh()
    bus.release(bus.claim() or pytest.fail("nothing to claim"))
    assert [call for call in fs.calls if call.startswith("fsync") and "attempts" not in call] == []


def test_a_prune_leaves_the_tombstone_durable_before_anything_goes_and_the_place_last(
    bus: Bus, root: Path, fs: RecordingFs
) -> None:
    i = bus.post("work", "x", key="k").id
    bus.cancel(i)
    slot, key = bus.get(i).slot, bus.get(i).body.key
    fs.calls.clear()
    bus.store.swap(slot, None)
    unlinked = [call for call in fs.calls if call.startswith("unlink")]
    assert unlinked[:2] == [f"unlink keys/{key}.json", f"unlink tasks/{i}.json"]
    (decided,) = (call for call in fs.calls if call.startswith("rename"))
    assert decided.startswith(f"rename {DAY}/{i}_cancelled.json -> channels/work/pruning/")
    assert unlinked[-1] == f"unlink {decided.partition(' -> ')[2]}"
    if bus.store.durable:
        moves = [call for call in fs.calls if not call.startswith("unlink")]
        assert moves[moves.index(decided) + 1] == "fsync channels/work/pruning", "before the tombstone"
        last = max(n for n, call in enumerate(fs.calls) if call.startswith("fsync tombstones"))
        assert fs.calls.index(unlinked[0]) > last
    assert i in next((root / "tombstones").iterdir()).read_text()
    assert not list((root / "channels" / "work" / "attempts").glob(i))


def test_without_durability_nothing_is_fsynced(root: Path, source: VirtualSource, fs: RecordingFs) -> None:
    store = FileStore(root, fs=fs, source=source, durable=False)
    bus = bus_on(store, source)
    bus.create_channel("work", max_attempts=1)
    for end in (lambda task: bus.ack(task, "x"), lambda task: bus.nack(task, "no"), lambda task: bus.block(task, "?")):
        bus.post("work", "x", key=str(end))
        source.refresh()
        end(bus.claim() or pytest.fail("nothing to claim"))
    store.mend(source.now())
    store.close()
    assert [call for call in fs.calls if "sync" in call] == []


class Cut(RecordingFs):
    """Is cut off before a result gets its final name."""

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        if self.path(dst, dst_at).startswith(f"{WORK}/responses/"):
            raise OSError(5, "cut off", dst)
        super().link(src, src_at, dst, dst_at)


def test_who_reads_a_done_task_before_its_result_is_there_makes_the_end_durable_before_it_shows_it(
    root: Path, source: VirtualSource, fs: RecordingFs
) -> None:
    worker = bus_on(FileStore(root, fs=Cut(), source=source), source)
    i = worker.post("work", "x").id
    with pytest.raises(StoreUnavailable):
        worker.ack(worker.claim() or pytest.fail("nothing to claim"), "the answer")
    found = bus_on(FileStore(root, fs=fs, source=source), source).get(i)
    assert found.result is not None
    assert found.result.content == "the answer"
    shown = next(n for n, call in enumerate(fs.calls) if call.endswith(f"{WORK}/responses/{i}.json"))
    assert f"fsync {DAY}" in fs.calls[:shown]


def test_a_key_whose_task_was_pruned_is_free_again_though_a_power_cut_left_it(
    root: Path, source: VirtualSource
) -> None:
    bus = bus_on(FileStore(root, source=source), source)
    old = bus.post("work", "x", key="k").id
    bus.cancel(old)
    slot, key = bus.get(old).slot, bus.get(old).body.key
    (root / "kept").hardlink_to(root / "keys" / f"{key}.json")
    bus.store.swap(slot, None)
    (root / "kept").rename(root / "keys" / f"{key}.json")
    with pytest.raises(Conflict, match="pruned"):
        bus.post("work", "x", key="k")
    assert bus.store.ids() == []
    new = bus.post("work", "x", key="k")
    assert new.created
    assert bus.store.ids() == [new.id]
