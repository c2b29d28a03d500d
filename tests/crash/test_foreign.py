"""Another program writes into the folders in its own way, in place and in pieces, while workers race (P6)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import LeaseLost
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.crowd import Log, quick, together, work_until
from tests.crash.victim import Steps, open_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.crash.victim import Op

CHANNEL = "work"
WRITERS, EACH = 2, 60


def message(task_id: str, content: str) -> bytes:
    value: dict[str, object] = {
        "id": task_id,
        "version": "1.0.0",
        "type": "task",
        "from": {"agent": "abq", "pid": 1, "pwd": "."},
    }
    value |= {"to": CHANNEL, "content": content, "timestamp": "2026-01-01T00:00:00Z", "ttl": 3600}
    return json.dumps(value, indent=2).encode()


def task_id(writer: int, number: int) -> str:
    return f"req_{number:012x}{writer:020x}"


def content(writer: int, number: int) -> str:
    return f"{writer}/{number} " + "x" * 20_000


def write_in_place(root: Path, log: Log, writer: int) -> None:
    for number in range(EACH):
        name, data = task_id(writer, number), message(task_id(writer, number), content(writer, number))
        fd = os.open(root / "channels" / CHANNEL / "requests" / f"{name}.json", os.O_WRONLY | os.O_CREAT)
        for start in range(0, len(data), 1024):
            os.write(fd, data[start : start + 1024])
            os.sched_yield()
        os.close(fd)
        log.write("post", name)


@pytest.fixture
def root(disk: Path) -> Path:
    layout.create(disk / "bus")
    with quick(disk / "bus", "ann") as bus:
        bus.create_channel(CHANNEL)
    return disk / "bus"


def test_messages_written_in_place_beside_racing_workers_arrive_whole_and_once(disk: Path, root: Path) -> None:
    log = Log(disk / "log")

    def sweeps() -> None:
        with quick(root, "sweeper") as bus:
            while len(list((root / "channels" / CHANNEL / "responses").iterdir())) < WRITERS * EACH:
                sweep(bus)

    writers = [lambda n=n: write_in_place(root, log, n) for n in range(WRITERS)]
    together([*writers, *[lambda: work_until(root, log, WRITERS * EACH)] * 4, sweeps])
    posted = {task_id(writer, number): content(writer, number) for writer in range(WRITERS) for number in range(EACH)}
    assert auditor.settled(root).states == dict.fromkeys(posted, "done")
    assert {name: [entry.more[2] for entry in told] for name, told in log.of("claim").items()} == {
        name: [text] for name, text in posted.items()
    }, "each was handed out once, whole"
    assert list((root / "quarantine").iterdir()) == []


def test_a_message_that_is_finished_late_is_still_delivered(root: Path) -> None:
    data, path = message(task_id(0, 1), "late"), root / "channels" / CHANNEL / "requests" / f"{task_id(0, 1)}.json"
    with quick(root, "ann") as bus:
        path.write_bytes(data[:100])
        assert bus.claim() is None
        path.write_bytes(data)
        bus.store.mend(bus.source.now() + 3_600_000)
        task = bus.claim()
    assert task is not None
    assert task.body.content == "late"


def test_a_message_that_is_never_finished_is_put_aside_with_a_reason(root: Path) -> None:
    path = root / "channels" / CHANNEL / "requests" / f"{task_id(0, 1)}.json"
    with quick(root, "ann") as bus:
        path.write_bytes(message(task_id(0, 1), "never")[:100])
        assert bus.claim() is None
        assert path.exists(), "it is young, and may still be written"
        bus.store.mend(bus.source.now() + 3_600_000)
    assert not path.exists()
    (reason,) = (root / "quarantine").glob("*.reason.json")
    assert "not JSON" in auditor.load(reason)["reason"]
    kept = reason.with_name(reason.name.removesuffix(".reason.json"))
    assert kept.read_bytes() == message(task_id(0, 1), "never")[:100]


def test_a_message_under_a_strange_name_whose_adopter_died_is_adopted_by_the_next(root: Path) -> None:
    path = root / "channels" / CHANNEL / "requests" / "from afar.json"
    path.write_bytes(message(task_id(0, 1), "far"))
    (root / "tasks" / f"{task_id(0, 1)}.json").hardlink_to(path)
    with quick(root, "ann", offset=3_600_000) as bus:
        sweep(bus)
        task = bus.claim()
    assert task is not None
    assert task.body.content == "far"
    assert list((root / "quarantine").iterdir()) == []


def test_bytes_among_the_staged_results_that_are_none_are_put_aside_and_the_task_comes_back(root: Path) -> None:
    with quick(root, "ann") as bus:
        bus.post(CHANNEL, "x", backoff_s=0)
        task = bus.claim(lease_s=60)
    assert task is not None
    name = f"{task.id}.a1.{task.lease.holder}.{task.lease.token}.json"
    (root / "staged" / name).write_bytes(b"")  # As a power cut leaves it on a bus that does not sync.
    with quick(root, "ann", offset=3_600_000) as bus:
        sweep(bus)
        assert auditor.settled(root).count() == {"ready": 1}
    assert (root / "rejected" / name).read_bytes() == b""


def test_a_policy_set_while_the_first_post_makes_the_channel_holds(root: Path) -> None:
    class Interrupted(Steps):
        def before(self, number: int, op: Op) -> None:
            del number
            if op.to == "channels/new/channel.json":
                with quick(root, "boss") as boss:
                    boss.create_channel("new", max_attempts=9)

    with open_at(root, Interrupted()) as bus:
        bus.post("new", "x")
    with open_at(root) as bus:
        assert bus.store.policy("new").max_attempts == 9
    assert auditor.settled(root).count() == {"ready": 1}


def test_a_result_that_another_program_wrote_first_stays(root: Path) -> None:
    with quick(root, "ann") as bus:
        bus.post(CHANNEL, "x")
        task = bus.claim()
        assert task is not None
        answer = {"id": task.id, "status": "success", "from": {"agent": "abq", "pid": 1, "pwd": "."}, "result": "first"}
        (root / "channels" / CHANNEL / "responses" / f"{task.id}.json").write_text(json.dumps(answer))
        with pytest.raises(LeaseLost):
            bus.ack(task, "second")
    with quick(root, "ann", offset=3_600_000) as bus:
        sweep(bus)
    assert auditor.settled(root).results == {task.id: "first"}
    kept = [auditor.load(path)["result"] for path in (root / "rejected").iterdir()]
    assert set(kept) == {"second"}


def test_a_keyed_task_whose_identity_a_power_cut_took_is_still_delivered(root: Path) -> None:
    with quick(root, "ann") as bus:
        posted = bus.post(CHANNEL, "x", key="k")
    (root / "tasks" / f"{posted.id}.json").unlink()
    with quick(root, "ann", offset=3_600_000) as bus:
        task = bus.claim()
        sweep(bus)
        assert bus.post(CHANNEL, "x", key="k").id == posted.id
    assert task is not None
    assert auditor.sound(root).states == {posted.id: "leased"}


class Between(Steps):
    """Lets someone else do something once a folder was listed."""

    def __init__(self, folder: str, other: Callable[[], object]) -> None:
        super().__init__()
        self._folder = folder
        self._other: Callable[[], object] | None = other

    def names(self, fd: int) -> list[str]:
        listed = super().names(fd)
        if self.path("", fd) == f"{self._folder}/" and self._other is not None:
            other, self._other = self._other, None
            other()
        return listed


@pytest.mark.parametrize("key", ["", "k"])
def test_a_task_posted_while_a_sweep_goes_from_folder_to_folder_is_not_taken_for_a_strangers(
    root: Path, key: str
) -> None:
    posted: list[str] = []

    def post() -> None:
        with quick(root, "ann") as ann:
            posted.append(ann.post(CHANNEL, "x", key=key).id)

    with quick(root, "ann") as bus:
        bus.store.mend(bus.source.now())  # The first after a start of the machine lists `tasks` for another reason.
    with open_at(root, Between("tasks", post), offset=3_600_000) as bus:
        bus.store.mend(bus.source.now())
    assert len(posted) == 1
    assert auditor.settled(root).states == {posted[0]: "ready"}
    assert list((root / "quarantine").iterdir()) == []
