"""A task that is done and whose result is gone: it is told wherever somebody looks, and a person can end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import IllegalTransition, State, find
from mcp_bus.fsck import check
from mcp_bus.stores.file import FileStore
from tests.crash import auditor
from tests.fakes import VirtualSource, bus_on

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus import Bus


def answered(bus: Bus) -> str:
    """Post a task and do it."""
    posted = bus.post("work", "do it")
    task = bus.claim(["work"])
    assert task is not None
    bus.ack(task, "the answer")
    return posted.id


@pytest.fixture
def lost(file_bus: Bus, root: Path) -> str:
    """A task that was done, without the file of its result."""
    task_id = answered(file_bus)
    file_bus.store.mend(file_bus.source.now())
    (root / "channels" / "work" / "responses" / f"{task_id}.json").unlink()
    return task_id


def test_what_is_done_with_its_result_is_not_lost(file_bus: Bus) -> None:
    task_id = answered(file_bus)
    assert not find.is_lost(file_bus.get(task_id))
    with pytest.raises(IllegalTransition, match="it is done, and has its result"):
        file_bus.discard(task_id)
    assert file_bus.get(task_id).result is not None


def test_a_message_that_was_acked_has_no_result_to_lose(file_bus: Bus) -> None:
    file_bus.mail.send("@ann", "hello")
    [letter] = file_bus.mail.read()
    file_bus.mail.ack()
    task = file_bus.get(letter.body.id)
    assert (task.state, task.result, find.is_lost(task)) == (State.DONE, None, False)


def test_what_a_rule_hides_is_not_called_lost(file_bus: Bus, root: Path, lost: str) -> None:
    task_id = answered(file_bus)
    assert find.is_lost(file_bus.get(lost))
    file_bus.create_channel("work", read_by=("bob",))
    seen = bus_on(FileStore(root, source=file_bus.source), VirtualSource(), "eve").get(task_id)
    assert (bool(seen.hidden), seen.result, find.is_lost(seen)) == (True, None, False)


def test_a_lost_result_is_given_up_and_the_work_done_once_more(file_bus: Bus, root: Path, lost: str) -> None:
    with pytest.raises(IllegalTransition, match="it is done, and its result is gone") as refused:
        file_bus.retry(lost)
    assert "discard gives that result up" in refused.value.hint
    assert file_bus.discard(lost, "it was removed").state is State.CANCELLED
    assert check(root, source=file_bus.source).is_clean
    assert file_bus.retry(lost).state is State.READY
    task = file_bus.claim(["work"])
    assert task is not None
    file_bus.ack(task, "again")
    found = file_bus.get(lost)
    assert (found.state, found.result.content if found.result else None) == (State.DONE, "again")
    auditor.sound(root)


def test_a_plan_counts_a_step_whose_result_is_lost_as_failed(file_bus: Bus, lost: str) -> None:
    from mcp_bus.plan import Node, Stage
    from mcp_bus.settling import ended

    node = ended(Node(Stage.RELEASED, 1), file_bus.get(lost))
    assert (node.stage, node.why) == (Stage.FAILED, find.LOST)
