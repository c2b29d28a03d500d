"""Plans that people look after: cancel, retry, what was edited, and results that break their contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import children, conductor, plans, report
from mcp_bus.errors import Conflict, CorruptRecord, IllegalTransition, InvalidRequest, NotFound, ResultRejected
from mcp_bus.model import PLANS, PROGRESS, State
from tests.fakes import swept
from tests.plans.test_conductor import DIAMOND

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from tests.fakes import VirtualSource
    from tests.plans.conftest import Poster

# --- contracts -------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "required": ["passed"], "properties": {"passed": {"type": "boolean"}}}


def test_a_result_that_breaks_its_contract_can_be_corrected_under_the_same_lease(post: Poster, bus: Bus) -> None:
    run = post("lint", "next<lint", lint={"result_schema": SCHEMA})
    task = run.claim("lint")
    with pytest.raises(ResultRejected, match=r"\$\.passed: 'yes' is not of type 'boolean'") as caught:
        bus.ack(task.ticket, {"passed": "yes"})
    assert "attempts left: 2" in caught.value.hint
    assert run.stages == {"lint": "released", "next": "waiting"}
    assert [(line.outcome, line.attempt) for line in bus.get(task.id).history] == [("rejected", 1)]
    assert bus.claim() is None, "it is still its worker's"
    bus.ack(task.ticket, {"passed": True})
    assert run.stages == {"lint": "done", "next": "released"}


def test_a_worker_that_returns_the_wrong_shape_for_ever_comes_to_an_end(post: Poster, bus: Bus) -> None:
    run = post("lint", "next<lint", lint={"result_schema": SCHEMA, "max_attempts": 3})
    task = run.claim("lint")
    for _ in range(3):
        with pytest.raises(ResultRejected):
            bus.ack(task.ticket, "nonsense")
    with pytest.raises(Conflict):
        bus.ack(task.ticket, {"passed": True})
    assert bus.get(task.id).state is State.DEAD
    assert run.stages == {"lint": "failed", "next": "skipped"}
    assert "no JSON" in run.why("lint")


def test_rejections_and_deaths_share_one_budget(post: Poster, bus: Bus, source: VirtualSource) -> None:
    run = post("lint", lint={"result_schema": SCHEMA, "max_attempts": 3, "backoff_s": 0})
    task = run.claim("lint")
    for _ in range(2):
        with pytest.raises(ResultRejected):
            bus.ack(task.ticket, "nonsense")
    source.advance(301)
    swept(bus)
    assert run.stages == {"lint": "failed"}


def test_a_fact_without_evidence_is_refused_in_every_step(post: Poster, bus: Bus) -> None:
    run = post("ask")
    task = run.claim("ask")
    with pytest.raises(ResultRejected, match=r"\$\.claims\[0\]\.evidence"):
        bus.ack(task.ticket, {"claims": [{"text": "it works", "label": "FACT"}]})
    bus.ack(task.ticket, {"claims": [{"text": "it works", "label": "fact", "evidence": ["req_1"]}]})
    result = bus.get(task.id).result
    assert result is not None
    assert json.loads(result.content)["claims"][0]["label"] == "fact", "without a contract a result stays as it is"


@pytest.mark.parametrize(
    "text",
    [
        'Do not merge.\n```json\n{"replicas": 0}\n```\nRevert it first.',
        "1.10",
        '{"a": 1, "a": 2}',
        "12345678901234567890.123",
    ],
)
def test_a_result_of_which_nothing_is_asked_stays_as_it_is(post: Poster, text: str) -> None:
    run = post("a")
    run.do("a", text)
    (task,) = run.tasks()["a"]
    assert task.result is not None
    assert task.result.content == text


def test_a_task_of_no_plan_has_a_contract_too_if_it_was_posted_with_one(bus: Bus) -> None:
    bus.post("work", "lint", result_schema=SCHEMA)
    task = bus.claim()
    assert task is not None
    with pytest.raises(ResultRejected):
        bus.ack(task, "done")
    bus.ack(task, {"passed": False})
    assert bus.get(task.id).state is State.DONE


# --- what people do --------------------------------------------------------------------------------


def test_a_cancelled_plan_takes_everything_back(post: Poster, bus: Bus) -> None:
    run = post("a", "b", "c<a")
    task = run.claim("a")
    conductor.cancel(bus, run.plan.id[-8:], "no longer wanted")
    assert set(run.stages.values()) == {"skipped"}
    assert run.why("c") == "stopped: cancelled by ann: no longer wanted"
    assert run.outcome == "cancelled"
    assert bus.claim() is None
    with pytest.raises(Conflict):
        bus.ack(task, "too late")
    with pytest.raises(Conflict, match="over"):
        conductor.cancel(bus, run.plan.id)


def test_a_retry_runs_what_failed_and_what_was_skipped_because_of_it_once_more(post: Poster, bus: Bus) -> None:
    run = post("a", "b<a", "c<b", "other", a={"max_attempts": 1})
    run.fail("a")
    run.do("other")
    assert run.outcome == "partial"
    conductor.retry(bus, run.plan.id)
    assert run.stages == {"a": "released", "b": "waiting", "c": "waiting", "other": "done"}
    for name in "abc":
        run.do(name)
    assert run.outcome == "done"
    assert {name: len(tasks) for name, tasks in run.tasks().items()} == {"a": 2, "b": 1, "c": 1, "other": 1}


@pytest.mark.parametrize("how", ["retry", "edited", "undo"])
def test_a_step_whose_task_a_person_brings_back_goes_on_with_it_and_so_does_the_plan(
    post: Poster, bus: Bus, how: str
) -> None:
    run = post("a", "b<a", a={"max_attempts": 1})
    if how == "undo":
        bus.cancel(run.tasks()["a"][0].id, "by mistake")
    else:
        run.fail("a")
    assert run.outcome == "failed"
    (task,) = run.tasks()["a"]
    verbs: dict[str, Callable[[str], Task]] = {
        "retry": bus.retry,
        "undo": bus.undo,
        "edited": lambda name: bus.retry(name, body="do it well"),
    }
    back = verbs[how](task.id)
    assert run.stages == {"a": "released", "b": "waiting"}
    run.do("a")
    assert run.stages == {"a": "done", "b": "released"}
    assert back.id in {item.id for item in run.tasks()["a"]}
    run.do("b")
    assert run.outcome == "done"


def test_a_task_whose_step_was_done_anew_is_not_brought_back(post: Poster, bus: Bus) -> None:
    run = post("a", a={"max_attempts": 1})
    run.fail("a")
    (old,) = run.tasks()["a"]
    conductor.retry(bus, run.plan.id)
    with pytest.raises(IllegalTransition, match="was posted anew"):
        bus.retry(old.id)
    assert bus.get(old.id).state is State.DEAD
    run.do("a")
    assert run.outcome == "done"


def test_a_retry_of_a_plan_keeps_a_task_that_came_back_while_it_could_not_be_moved_on(
    post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = post("a", "b<a", a={"max_attempts": 1})
    run.fail("a")
    (task,) = run.tasks()["a"]
    with monkeypatch.context() as broken:
        broken.setattr(bus, "_revived", lambda found: found)
        bus.retry(task.id)
    conductor.retry(bus, run.plan.id)
    run.do("a")
    assert run.stages == {"a": "done", "b": "released"}
    assert len(run.tasks()["a"]) == 1


def test_a_named_step_is_retried_without_those_that_stopped_nothing(post: Poster, bus: Bus) -> None:
    run = post(
        "nice", "rep<nice", "gate", nice={"on_failure": "continue", "max_attempts": 1}, gate={"on_failure": "stop"}
    )
    run.fail("nice")
    run.do("rep")
    run.fail("gate")
    conductor.retry(bus, run.plan.id, ["gate"])
    assert run.stages == {"nice": "failed", "rep": "done", "gate": "released"}


def test_a_step_whose_worker_failed_before_nobody_was_left_says_so(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    run = post("a", grace_s=30, a={"capability": "python", "backoff_s": 1})
    task = run.claim("a", "python")
    bus.nack(task, "ImportError")
    source.advance(31)
    swept(bus)
    source.advance(1)
    swept(bus)
    assert run.why("a") == "worker_absent: no live worker can do python; its last attempt failed: ImportError"


def test_an_edited_retry_of_a_blocked_step_goes_on_as_its_task(post: Poster, bus: Bus) -> None:
    run = post("a", "b<a")
    bus.block(run.claim("a"), "what colour?")
    edited = bus.retry(run.tasks()["a"][0].id, body="paint it red")
    conductor.advance(bus, run.plan.id)
    assert run.stages == {"a": "released", "b": "waiting"}
    task = run.claim("a")
    assert task.id == edited.id
    bus.ack(task, "red")
    assert run.stages == {"a": "done", "b": "released"}


def test_only_what_failed_or_was_skipped_is_retried(post: Poster, bus: Bus) -> None:
    run = post("a", "b<a")
    with pytest.raises(InvalidRequest, match="'a' is released"):
        conductor.retry(bus, run.plan.id, ["a"])
    with pytest.raises(InvalidRequest, match="no step 'x'"):
        conductor.retry(bus, run.plan.id, ["x"])
    with pytest.raises(Conflict):
        conductor.retry(bus, run.plan.id)
    assert run.stages == {"a": "released", "b": "waiting"}


def test_a_plan_is_found_by_any_end_of_its_id_that_only_one_has(post: Poster, bus: Bus) -> None:
    one, two = post("a"), post("a")
    assert plans.resolve(bus, one.plan.id[-8:]) == one.plan.id
    assert plans.resolve(bus, two.plan.id) == two.plan.id
    for word in ("plan_", "nope", "", None):
        with pytest.raises(NotFound):
            plans.resolve(bus, word)


# --- what lies on the disk --------------------------------------------------------------------------


def test_a_plan_that_was_edited_is_not_moved_on_and_says_why(post: Poster, bus: Bus) -> None:
    run = post(*DIAMOND)
    task = run.claim("gather")
    record = bus.store.records.read(PLANS, run.plan.id)
    assert record is not None
    data: dict[str, Any] = json.loads(json.dumps(record.data))
    data["steps"][1]["body"] = "rm -rf /"
    bus.store.records.remove(PLANS, run.plan.id)
    bus.store.records.write(PLANS, run.plan.id, data, after=0, durable=False)
    bus.ack(task, "found")
    with pytest.raises(CorruptRecord, match="was edited") as caught:
        conductor.advance(bus, run.plan.id)
    assert "put the old text back" in caught.value.hint
    assert any("was edited" in line for line in swept(bus))
    assert set(run.tasks()) == {"gather"}
    bus.store.records.remove(PLANS, run.plan.id)
    bus.store.records.write(PLANS, run.plan.id, record.data, after=0, durable=False)
    conductor.advance(bus, run.plan.id)
    assert run.stages["lint"] == "released"


@pytest.mark.parametrize("data", [{}, {"id": "x"}, {"steps": [{"name": "a"}]}, {"steps": 7, "goal": []}])
def test_a_record_that_is_no_plan_hurts_no_other(post: Poster, bus: Bus, data: dict[str, Any]) -> None:
    run = post("a", "b<a")
    bus.store.records.write(PLANS, "plan_0000", data, after=0, durable=False)
    with pytest.raises(CorruptRecord):
        conductor.advance(bus, "plan_0000")
    assert any("left plan_0000 as it is" in line for line in swept(bus))
    run.do("a")
    assert run.stages["b"] == "released"


@pytest.mark.parametrize(
    "nodes",
    [
        7, {"a": 7}, {"a": {"stage": "nowhere"}}, {"a": {"odd": 1}}, {"a": {"stage": "done", "run": "1"}},
        {"a": {"stage": "released", "task": 7}}, {"a": {"stage": "done", "ended": True}},
    ],
)  # fmt: skip
def test_progress_that_is_none_is_told_and_nothing_is_done(post: Poster, bus: Bus, nodes: object) -> None:
    run = post("a")
    record = bus.store.records.read(PROGRESS, run.plan.id)
    assert record is not None
    bus.store.records.write(
        PROGRESS, run.plan.id, {**record.data, "nodes": nodes}, after=record.revision, durable=False
    )
    with pytest.raises(CorruptRecord, match="progress"):
        conductor.advance(bus, run.plan.id)
    run.bus.store.records.remove(PROGRESS, run.plan.id)
    run.do("a")
    assert run.outcome == "done"


def test_the_files_of_a_plan_can_be_read_without_a_program(file_bus: Bus, root: Path) -> None:
    plan = conductor.post(file_bus, {"goal": "see", "steps": [{"name": "a", "body": "look"}]})
    (written,) = (root / "plans").iterdir()
    assert json.loads(written.read_text())["goal"] == "see"
    (progress,) = (root / "progress").iterdir()
    assert progress.name.startswith(plan.id)
    assert json.loads(progress.read_text())["nodes"]["a"]["stage"] == "released"


def test_a_plan_that_is_over_is_kept_for_a_month_and_then_forgotten(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    old, new = post("a"), post("a")
    for run in (old, new):
        run.do("a")
    source.advance(29 * 86_400)
    swept(bus)
    assert old.outcome == "done"
    source.advance(2 * 86_400)
    running = post("a")
    assert f"forgot {old.plan.id}" in swept(bus)
    assert bus.store.records.names(PLANS) == [running.plan.id]
    assert bus.store.records.names(PROGRESS) == [running.plan.id]


def test_the_children_of_a_finished_task_are_forgotten(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    bus.post("parts", "y", parent=parent.id)
    part = bus.claim(["parts"])
    assert part is not None
    bus.ack(part)
    assert bus.store.records.names(children.KIND) == [parent.id]
    bus.ack(parent)
    assert bus.store.records.names(children.KIND) == []


def test_a_step_that_waits_for_a_worker_that_is_not_there_says_so(post: Poster, bus: Bus) -> None:
    run = post("paint", "other", paint={"capability": "paint"})
    told = {row.step.name: row.why for row in report.rows(bus, *plans.progress(bus, run.plan.id))}
    assert told == {"paint": "no live worker can do paint", "other": ""}
    bus.roster.arrive(["paint"])
    told = {row.step.name: row.why for row in report.rows(bus, *plans.progress(bus, run.plan.id))}
    assert told == {"paint": "", "other": ""}
