"""Plans moved on: what is released when, what is skipped, and what a result does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, plans, release, settling
from mcp_bus.errors import Conflict, CorruptRecord, DuplicateTask
from mcp_bus.model import PLANS, PROGRESS, Outcome, State
from mcp_bus.plan import Node, Stage
from mcp_bus.refs import INLINE
from mcp_bus.release import INLINE_ALL
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from tests.fakes import VirtualSource
    from tests.plans.conftest import Poster

DIAMOND = ("gather", "lint<gather", "count<gather", "report<lint,count")


# --- releasing --------------------------------------------------------------------------------------


def test_a_step_is_released_when_all_it_comes_after_are_done(post: Poster) -> None:
    run = post(*DIAMOND)
    assert run.stages == {"gather": "released", "lint": "waiting", "count": "waiting", "report": "waiting"}
    run.do("gather")
    assert run.stages == {"gather": "done", "lint": "released", "count": "released", "report": "waiting"}
    run.do("lint")
    assert run.stages["report"] == "waiting"
    run.do("count")
    assert run.stages["report"] == "released"
    assert run.outcome == "running"
    run.do("report")
    assert run.outcome == "done"
    assert {name: len(tasks) for name, tasks in run.tasks().items()} == dict.fromkeys(run.stages, 1)


def test_moving_on_what_does_not_move_writes_and_posts_nothing(post: Poster, bus: Bus) -> None:
    run = post(*DIAMOND)
    before = bus.store.records.read(PROGRESS, run.plan.id)
    for _ in range(3):
        conductor.advance(bus, run.plan.id)
    assert bus.store.records.read(PROGRESS, run.plan.id) == before
    assert [len(tasks) for tasks in run.tasks().values()] == [1]


def test_progress_that_was_lost_is_found_again_from_the_tasks(post: Poster, bus: Bus) -> None:
    run = post(*DIAMOND)
    run.do("gather")
    known = run.stages
    bus.store.records.remove(PROGRESS, run.plan.id)
    conductor.advance(bus, run.plan.id)
    assert run.stages == known
    assert all(len(tasks) == 1 for tasks in run.tasks().values())


def test_a_step_gets_what_those_before_it_brought_and_its_text_filled_in(post: Poster) -> None:
    run = post("scan", "note<scan", note={"body": r"In {{scan.repo}}: {{ scan.files.1 }}, {{scan.none}}, \{{scan}}"})
    run.do("scan", {"repo": "acme", "files": ["a.py", "b.py"]})
    task = run.claim("note")
    assert task.body.content == "In acme: b.py, (nothing: scan has no none), {{scan}}"
    (got,) = task.body.inputs
    assert json.loads(got["result"]) == {"repo": "acme", "files": ["a.py", "b.py"]}
    assert (got["step"], got["stage"], got["by"]) == ("scan", "done", "ann")


def test_a_large_result_is_handed_on_as_a_place_with_its_hash(post: Poster) -> None:
    run = post("scan", "note<scan", note={"body": "Read {{scan}}"})
    text = "x" * (INLINE + 1)
    run.do("scan", text)
    task = run.claim("note")
    (got,) = task.body.inputs
    assert "result" not in got
    assert (got["size"], got["sha256"]) == (len(text), _sha256(text))
    assert got["path"].endswith(f"responses/{got['task']}.json")
    assert got["sha256"] in task.body.content
    assert text not in task.body.content


def test_results_are_put_into_one_task_until_it_is_full_and_the_rest_are_places(post: Poster) -> None:
    names = [f"part-{number}" for number in range(INLINE_ALL // INLINE + 2)]
    parts: Any = {name.replace("-", "_"): {"channel": "parts"} for name in names}
    run = post(*names, f"sum<{','.join(names)}", **parts)
    for name in names:
        run.do(name, name.ljust(INLINE, "."))
    got = run.claim("sum").body.inputs
    assert [item["step"] for item in got] == names
    assert sum(len(item.get("result", "")) for item in got) == INLINE_ALL
    assert ["path" in item for item in got] == [False] * (INLINE_ALL // INLINE) + [True, True]


def test_files_are_handed_on_until_a_task_is_full(post: Poster, tmp_path: Path) -> None:
    files = [tmp_path / f"file-{number}" for number in range(50)]
    for file in files:
        file.touch()
    run = post("a", "b", "c", "sum<a,b,c")
    for name in ("a", "b", "c"):
        run.bus.ack(run.claim(name), "done", artifacts=[str(file) for file in files])
    assert [len(item.get("artifacts", ())) for item in run.claim("sum").body.inputs] == [50, 50, 0]


def test_a_step_that_would_be_larger_than_a_task_can_be_fails_and_the_plan_ends(
    post: Poster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = post("a", "b<a", "c")
    monkeypatch.setattr(release, "MAX_TASK", 1000)
    run.do("a", "x" * 2000)
    assert run.stages == {"a": "done", "b": "failed", "c": "released"}
    assert "more than a task can hold" in run.why("b")
    run.do("c")
    assert run.outcome == "partial"


def test_a_task_that_cannot_be_read_is_a_failed_step_and_its_plan_can_be_cancelled(
    post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = post("a", "b")
    (task,) = run.tasks()["a"]
    get = bus.store.get

    def broken(task_id: str, at: object = None) -> Task | None:
        if task_id == task.id:
            msg = "it is too large"
            raise CorruptRecord(msg)
        return get(task_id, at)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(bus.store, "get", broken)
    conductor.advance(bus, run.plan.id)
    assert run.why("a") == "its task cannot be read: it is too large"
    conductor.cancel(bus, run.plan.id)
    assert run.outcome == "cancelled"


def test_a_step_speaks_for_the_plan_s_owner_whoever_releases_it(post: Poster, open_bus_as: Callable[..., Bus]) -> None:
    run = post("a", "b<a")
    other = open_bus_as("bob", "00000002")
    task = other.claim()
    assert task is not None
    other.ack(task, "done")
    assert run.claim("b").body.sender.agent == "ann"


def test_when_a_plan_is_over_is_told_by_who_finds_it_so_not_by_a_worker_s_clock(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    run = post("a")
    task = run.claim("a")
    source.advance(-40 * 86_400)
    bus.ack(task, "done")
    source.advance(40 * 86_400)
    swept(bus)
    assert plans.progress(bus, run.plan.id)[1].over >= 0
    assert run.outcome == "done"


def test_a_step_is_claimed_by_its_priority(post: Poster, bus: Bus) -> None:
    run = post("later", "sooner", "last", sooner={"priority": 5}, last={"priority": -5})
    order = [task.body.node for task in iter(bus.claim, None)]
    assert order == ["sooner", "later", "last"]
    assert {name: tasks[0].body.priority for name, tasks in run.tasks().items()} == {
        "later": 0,
        "sooner": 5,
        "last": -5,
    }


def test_a_part_of_a_large_result_is_put_in_as_it_is(post: Poster) -> None:
    run = post("scan", "note<scan", note={"body": "{{scan.repo}} and {{scan}}"})
    run.do("scan", {"repo": "acme", "more": "x" * INLINE})
    text = run.claim("note").body.content
    assert text.startswith("acme and (the result of scan: ")


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_a_text_that_grows_too_large_by_its_inputs_fails_the_step_and_not_the_bus(post: Poster) -> None:
    body = "{{scan}}" * 40
    run = post("scan", "note<scan", note={"body": body})
    run.do("scan", "x" * INLINE)
    assert run.stages["note"] == "failed"
    assert "could not be posted" in run.why("note")


def test_the_same_key_is_the_same_plan_and_another_plan_under_it_is_refused(post: Poster, bus: Bus) -> None:
    first = post(*DIAMOND, key="k")
    assert post(*DIAMOND, key="k").plan.id == first.plan.id
    assert len(bus.store.records.names(PLANS)) == 1
    with pytest.raises(DuplicateTask):
        post("other", key="k")
    assert len(bus.store.records.names(PLANS)) == 1
    assert [len(tasks) for tasks in first.tasks().values()] == [1]


# --- what does not get done ---------------------------------------------------------------------------


def test_a_failed_step_skips_what_depends_on_it_and_the_rest_goes_on(post: Poster) -> None:
    run = post("a", "b<a", "c<b", "other")
    run.fail("a")
    assert run.stages == {"a": "failed", "b": "skipped", "c": "skipped", "other": "released"}
    assert run.why("a") == "failed: broken"
    assert run.why("b") == "upstream: a failed"
    assert run.why("c") == "upstream: b was skipped (upstream)"
    run.do("other")
    assert run.outcome == "partial"


def test_what_goes_on_without_a_step_is_told_of_the_gap(post: Poster) -> None:
    run = post("a", "b", "c<a,b", a={"on_failure": "continue"})
    run.fail("a", "no luck")
    run.do("b", "ok")
    task = run.claim("c")
    gap, got = task.body.inputs
    assert gap == {"step": "a", "stage": "failed", "why": "failed: no luck"}
    assert got["result"] == "ok"
    run.bus.ack(task, "made the best of it")
    assert run.outcome == "partial"


def test_a_step_that_stops_the_plan_takes_back_what_waits_and_lets_end_what_is_worked_on(
    post: Poster, bus: Bus
) -> None:
    run = post("vital", "busy", "idle", "later<busy", vital={"on_failure": "stop"})
    vital, busy = run.claim("vital"), run.claim("busy")
    for _ in range(3):
        back = bus.nack(vital, "broken", retry_in_s=0)
        vital = run.claim("vital") if back.state is State.READY else vital
    assert run.stages == {"vital": "failed", "busy": "released", "idle": "skipped", "later": "skipped"}
    assert run.why("idle") == "stopped: vital failed"
    assert run.outcome == "stopping"
    assert bus.claim() is None
    bus.ack(busy, "done anyway")
    assert run.stages["busy"] == "done"
    assert run.outcome == "failed"


def test_a_condition_that_does_not_hold_skips_a_step_by_choice(post: Poster) -> None:
    run = post(
        "lint", "fix<lint", "praise<lint",
        fix={"when": "lint.passed == false", "on_failure": "stop"}, praise={"when": "lint.passed"},
    )  # fmt: skip
    run.do("lint", {"passed": True})
    assert run.stages == {"lint": "done", "fix": "skipped", "praise": "released"}
    assert run.why("fix") == "condition: not so: lint.passed == false"
    run.do("praise")
    assert run.outcome == "done", "what was not wanted is not missing"


@pytest.mark.parametrize("verb", ["cancel", "expire"])
def test_a_task_that_a_person_or_time_ended_is_a_failed_step(
    post: Poster, bus: Bus, source: VirtualSource, verb: str
) -> None:
    run = post("a", "b<a", a={"timeout_s": 60} if verb == "expire" else {})
    if verb == "cancel":
        bus.cancel(run.tasks()["a"][0].id, "not wanted")
        assert run.why("a") == "cancelled: not wanted"
    else:
        source.advance(61)
        swept(bus)
        assert run.why("a") == "timed out: not done within 60 s"
    assert run.stages == {"a": "failed", "b": "skipped"}
    assert bus.claim() is None


def test_a_timeout_takes_a_task_from_the_worker_that_has_it(post: Poster, bus: Bus, source: VirtualSource) -> None:
    run = post("a", a={"timeout_s": 60})
    task = run.claim("a")
    source.advance(61)
    swept(bus)
    assert run.stages == {"a": "failed"}
    assert run.why("a") == f"timed out: not done within 60 s, by {bus.identity.holder} who had it"
    with pytest.raises(Conflict):
        bus.ack(task, "too late")


def test_a_step_whose_worker_dies_each_time_fails_after_its_attempts(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    run = post("a", a={"max_attempts": 3, "backoff_s": 0})
    for attempt in range(1, 4):
        assert run.claim("a").slot.attempt == attempt
        source.advance(301)
        source.refresh()
        swept(bus)
    assert bus.claim() is None
    assert run.stages == {"a": "failed"}
    assert "was not renewed" in run.why("a")


def test_a_blocked_step_waits_for_its_answer(post: Poster, bus: Bus) -> None:
    run = post("a", "b<a")
    task = run.claim("a")
    bus.block(task, "which one?")
    assert run.stages == {"a": "released", "b": "waiting"}
    bus.retry(task.id, note="the red one")
    run.do("a")
    assert run.stages == {"a": "done", "b": "released"}


def test_a_sign_of_life_that_arrives_after_the_question_does_not_hide_it(post: Poster, bus: Bus) -> None:
    run = post("a")
    task = run.claim("a")
    bus.block(task, "which one?")
    blocked = bus.get(task.id)
    late = blocked.history[-1]._replace(outcome=Outcome.PROGRESS, note="still at it")
    seen = blocked._replace(history=(*blocked.history, late))
    assert seen.question == blocked.history[-1]
    assert settling.ended(Node(Stage.RELEASED), seen).stage is Stage.RELEASED
    assert seen._replace(slot=seen.slot._replace(state=State.READY)).question is None


def test_what_hangs_on_a_choice_is_chosen_too_and_stops_nothing(post: Poster) -> None:
    run = post(
        "lint", "fix<lint", "deploy<fix", "praise<lint",
        fix={"when": "not lint.passed"}, deploy={"on_failure": "stop"},
    )  # fmt: skip
    run.do("lint", {"passed": True})
    assert run.stages == {"lint": "done", "fix": "skipped", "deploy": "skipped", "praise": "released"}
    assert run.why("deploy") == "condition: fix was not wanted (its on_failure is skip)"
    run.do("praise")
    assert run.outcome == "done"


def test_a_conductor_that_was_overtaken_looks_again_and_loses_nothing(
    post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = post("a", "b", "c<a", "d<b")
    first, second = run.claim("a"), run.claim("b")
    save, overtaken = plans.save, list[str]()

    def late(*words: Any) -> None:
        if not overtaken:
            overtaken.append("once")
            bus.ack(second, "done")  # Another conductor, between this one's look and its word.
        save(*words)

    monkeypatch.setattr(conductor, "save", late)
    bus.ack(first, "done")
    assert overtaken
    assert run.stages == {"a": "done", "b": "done", "c": "released", "d": "released"}
    assert all(len(tasks) == 1 for tasks in run.tasks().values())
