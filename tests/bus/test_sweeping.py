"""The sweep brings everything to where it should be by now, once, whoever does it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_bus import Gone, LeaseLost, find, wire
from mcp_bus.model import DAY, State
from mcp_bus.recovery import SWEEP_S, Tender
from tests.bus.test_working import take
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


def test_a_lapsed_lease_comes_back_after_a_pause_and_a_live_one_never(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", lease_s=60, backoff_s=10, max_attempts=2)
    posted = bus.post("work", "a").id
    for attempt in (1, 2):
        task = take(bus, source)
        source.advance(59.999)
        assert swept(bus) == []
        source.advance(0.001)
        assert posted in swept(bus)[0]
        with pytest.raises(LeaseLost):
            bus.renew(task)
        assert bus.get(posted).state is (State.SCHEDULED if attempt == 1 else State.DEAD)
        source.advance(10)
        swept(bus)
    assert [line.outcome for line in bus.get(posted).history] == ["lapsed", "lapsed"]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_jumps_an_hour_loses_no_task_and_doubles_none(bus: Bus, source: VirtualSource, step: int) -> None:
    posted = bus.post("work", "a").id
    task = take(bus, source)
    source.time += step * 1000
    swept(bus)
    if step < 0:
        assert bus.ack(task, "done").content == "done"
    else:
        with pytest.raises(LeaseLost):
            bus.ack(task, "late")
        source.advance(60)
        swept(bus)
        bus.ack(take(bus, source), "done")
    assert bus.get(posted).state is State.DONE
    assert sum(bus.store.count("work").values()) == 1


def test_two_sweeps_do_each_thing_once(bus: Bus, other: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", lease_s=5, retention_days=1, max_attempts=1)
    bus.post("work", "lapses")
    take(bus, source)
    bus.post("work", "due", delay_s=5)
    bus.post("work", "expires", ttl_s=5)
    bus.cancel(bus.post("work", "pruned").id)
    source.advance(5)
    done = swept(bus) + swept(other)
    assert len(done) == len(set(done)) == 3
    source.time += 3 * DAY
    done = swept(other) + swept(bus)
    assert len([line for line in done if line.startswith("pruned")]) == 2
    counts = {state: n for state, n in bus.store.count("work").items() if n}
    assert counts == {State.DEAD: 1, State.READY: 1}
    assert len(bus.store.ids()) == 2


def test_a_pruned_task_is_gone_and_its_key_free(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", retention_days=2)
    first = bus.post("work", "a", key="k").id
    bus.ack(take(bus, source), "done")
    source.time += 2 * DAY
    assert swept(bus) == []
    assert bus.get(first).result is not None
    source.time += DAY
    assert swept(bus) == [f"pruned {first}"]
    with pytest.raises(Gone, match="expired from the bus: it ended done"):
        bus.get(first)
    assert find.safe_ending(bus, first).error
    assert bus.post("work", "b", key="k").created
    assert bus.store.count("work")[State.DONE] == 0


def test_nothing_is_pruned_for_ever_if_the_channel_says_so(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", retention_days=0)
    bus.cancel(bus.post("work", "a").id)
    source.time += 5000 * DAY
    assert swept(bus) == []
    assert bus.store.count("work")[State.CANCELLED] == 1


def test_claiming_tends_the_bus_now_and_then(open_bus_as: Callable[..., Bus], source: VirtualSource) -> None:
    bus = open_bus_as()
    bus._tend = Tender()
    bus.post("work", "a", delay_s=5)
    assert bus.claim() is None
    source.advance(5)
    task = bus.claim()
    assert task is not None
    bus.ack(task, "done")
    bus.post("work", "b", delay_s=1)
    source.advance(SWEEP_S / 2)
    assert bus.claim() is None


def test_manifest_and_journal_may_be_deleted_while_work_goes_on(
    file_bus: Bus, root: Path, source: VirtualSource
) -> None:
    for n in range(5):
        file_bus.post("work", str(n))
    done = []
    for _ in range(5):
        swept(file_bus)
        (root / "manifest.json").unlink()
        shutil.rmtree(root / "journal")
        task = take(file_bus, source)
        assert list((root / "journal").iterdir()), "it is written again from now on"
        done.append(file_bus.ack(task, task.body.content).content)
    assert done == ["0", "1", "2", "3", "4"]
    assert file_bus.store.count("work")[State.DONE] == 5


def test_the_manifest_says_what_is_where(file_bus: Bus, root: Path, source: VirtualSource) -> None:
    file_bus.post("work", "a")
    task = take(file_bus, source)
    file_bus.post("work", "b", delay_s=5)
    swept(file_bus)
    page = json.loads((root / "manifest.json").read_bytes())
    assert page["channels"]["work"]["leased"] == 1
    assert {(item["id"], item["status"], item["owner"]) for item in page["tasks"]} >= {
        (task.id, "leased", task.lease.holder)
    }
    (held,) = (item for item in page["tasks"] if item["id"] == task.id)
    assert (held["created"], held["owned_until"]) == (wire.stamp(task.body.created), wire.stamp(task.lease.expires))
    assert page["left_out"] == 0
