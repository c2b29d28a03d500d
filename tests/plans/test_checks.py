"""Results that are checked by a command, files that belong to them, and work that posts work."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import artifacts, children, conductor, verify
from mcp_bus.errors import Conflict, InvalidRequest, StoreUnavailable
from mcp_bus.model import PLANS, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.plan import Step
    from tests.plans.conftest import Poster, Run

CHECK = ["check", "it"]


# --- checks ---------------------------------------------------------------------------------------


def checked(run: Run, verdict: str) -> list[str]:
    """Move a plan on as somebody who may run its checks; return the results that were checked."""
    seen: list[str] = []

    def check(step: Step, task: Task) -> str:
        assert step.verify == tuple(CHECK)
        seen.append(task.result.content if task.result else "")
        return verdict

    conductor.advance(run.bus, run.plan.id, verify=check)
    return seen


def test_a_step_with_a_check_waits_for_somebody_who_may_run_it(post: Poster) -> None:
    run = post("build", "ship<build", build={"verify": CHECK})
    run.do("build", "v1")
    assert run.stages == {"build": "released", "ship": "waiting"}
    assert run.why("build") == "its check was not run yet"
    assert checked(run, "") == ["v1"]
    assert run.stages == {"build": "done", "ship": "released"}
    assert run.why("build") == ""
    assert checked(run, "") == [], "once"


def test_what_does_not_pass_is_done_anew_and_its_worker_is_told_why(post: Poster) -> None:
    run = post("build", build={"verify": CHECK, "max_attempts": 2})
    run.do("build", "v1")
    assert checked(run, "the check ended with 1: 2 failed") == ["v1"]
    assert run.stages == {"build": "released"}
    task = run.claim("build")
    (told,) = task.body.inputs
    assert told == {"step": "build", "stage": "failed", "why": "the last result: the check ended with 1: 2 failed"}
    run.bus.ack(task, "v2")
    assert checked(run, "the check ended with 1") == ["v2"]
    assert run.stages == {"build": "failed"}
    assert run.why("build") == "the check ended with 1"
    assert len(run.tasks()["build"]) == 2, "and no more than its attempts"


def step(run: Run) -> tuple[Step, Task]:
    (task,) = run.tasks()["build"]
    return run.plan.steps[0], task


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import sys; sys.exit(sys.stdin.read() != 'v1; rm -rf x')", ""),
        ("import sys; print('2 failed\\x1b[2J'); sys.exit(3)", "the check ended with 3: 2 failed\\x1b[2J"),
        ("import os, sys; sys.exit(os.environ['MCP_BUS_STEP'] != 'build')", ""),
        ("import os, sys; sys.exit(not os.path.exists('here'))", ""),
    ],
)
def test_a_check_gets_the_result_by_stdin_and_runs_where_it_is_allowed(
    post: Poster, tmp_path: Path, code: str, verdict: str
) -> None:
    (tmp_path / "here").touch()
    run = post("build", build={"verify": [sys.executable, "-c", code]})
    run.do("build", "v1; rm -rf x")
    assert verify.run(*step(run), tmp_path, {}) == verdict


def test_of_what_a_check_wrote_the_end_is_told_in_one_line(post: Poster, tmp_path: Path) -> None:
    code = "for n in range(3000): print(n)\nprint('FAILED test_x - AssertionError: 1 != 2'); raise SystemExit(1)"
    run = post("build", build={"verify": [sys.executable, "-c", code]})
    run.do("build")
    verdict = verify.run(*step(run), tmp_path, {})
    assert verdict.startswith("the check ended with 1: ")
    assert verdict.endswith("/ 2999 / FAILED test_x - AssertionError: 1 != 2")
    assert len(verdict) < 500


def test_a_check_that_cannot_be_started_holds_up_its_own_step_alone(post: Poster, bus: Bus) -> None:
    run = post("a", "b", a={"verify": ["x"]}, b={"verify": ["y"]})
    run.do("a")
    run.do("b")

    def check(step: Step, _task: Task) -> str:
        if step.name == "a":
            msg = "the check of step 'a' could not be started"
            raise InvalidRequest(msg)
        return ""

    conductor.advance(bus, run.plan.id, verify=check)
    assert run.stages == {"a": "released", "b": "done"}
    assert run.why("a") == "the check of step 'a' could not be started"
    conductor.advance(bus, run.plan.id, verify=lambda *_: "")
    assert run.stages == {"a": "done", "b": "done"}


def test_a_check_that_cannot_be_started_or_does_not_end_says_so(post: Poster, tmp_path: Path) -> None:
    run = post("build", build={"verify": ["no-such-program"]})
    run.do("build")
    with pytest.raises(InvalidRequest, match="could not be started: No such file or directory"):
        verify.run(*step(run), tmp_path, {})
    slow = run.plan.steps[0]._replace(verify=(sys.executable, "-c", "import time; time.sleep(60)"), timeout_s=0.5)
    assert verify.run(slow, step(run)[1], tmp_path, {}) == "the check was ended: it did not end within 0.5 s"


def test_of_two_conductors_who_judge_a_result_differently_one_prevails_and_nothing_is_done_twice(
    post: Poster, bus: Bus, open_bus_as: Callable[..., Bus]
) -> None:
    run = post("a", "b<a", a={"verify": ["x"], "max_attempts": 3})
    other = open_bus_as("bob", "00000002")
    run.do("a")

    def bad(_step: Step, _task: Task) -> str:
        conductor.advance(other, run.plan.id, verify=lambda *_: "")  # It passes there, and that is written down first.
        return "bad"

    conductor.advance(bus, run.plan.id, verify=bad)
    assert run.stages == {"a": "done", "b": "released"}
    assert [len(tasks) for tasks in run.tasks().values()] == [1, 1]
    run.do("b")
    assert run.outcome == "done"
    assert bus.claim() is None


def test_a_step_that_failed_its_check_is_done_anew_by_a_retry(post: Poster, bus: Bus) -> None:
    run = post("a", a={"verify": ["x"], "max_attempts": 1})
    run.do("a", "bad")
    conductor.advance(bus, run.plan.id, verify=lambda *_: "bad")
    assert run.stages == {"a": "failed"}
    conductor.retry(bus, run.plan.id)
    run.do("a", "good")
    conductor.advance(bus, run.plan.id, verify=lambda *_: "")
    assert run.outcome == "done"
    assert len(run.tasks()["a"]) == 2


def test_a_check_is_ended_when_whoever_waits_goes_away_and_says_nothing_of_the_result(
    post: Poster, tmp_path: Path
) -> None:
    run = post("build", build={"verify": [sys.executable, "-c", "import time; time.sleep(60)"]})
    run.do("build")
    with pytest.raises(InvalidRequest, match="was ended: time is up"):
        verify.run(*step(run), tmp_path, {}, pulse=lambda: "time is up")


def test_no_check_may_take_longer_than_the_limit_whatever_its_step_says(
    post: Poster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "LIMIT_S", 0.3)
    run = post("build", build={"verify": [sys.executable, "-c", "import time; time.sleep(60)"], "timeout_s": 50})
    run.do("build")
    assert "did not end within 0.3 s" in verify.run(*step(run), tmp_path, {})


# --- files ----------------------------------------------------------------------------------------


def test_the_files_of_a_result_are_taken_down_and_handed_on(post: Poster, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<html>")
    run = post("build", "ship<build")
    run.bus.ack(run.claim("build"), "built", artifacts=[str(report)])
    (task,) = run.tasks()["build"]
    assert task.result is not None
    (kept,) = task.result.artifacts
    assert kept == (str(report), 6, hashlib.sha256(b"<html>").hexdigest())
    assert run.claim("ship").body.inputs[0]["artifacts"] == [kept._asdict()]
    assert artifacts.changed(kept) == ""
    report.write_text("<html >")
    assert artifacts.changed(kept) == f"{report} was changed since"
    report.unlink()
    assert "cannot be read: No such file" in artifacts.changed(kept)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "null byte", "many", "text"])
def test_what_is_no_file_is_refused_and_the_task_is_still_held(post: Poster, tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths: dict[str, Any] = {
        "missing": [str(tmp_path / "nothing")], "folder": [str(tmp_path)], "pipe": [str(tmp_path / "pipe")],
        "null byte": ["a\0b"], "many": [f"{number}" for number in range(51)], "text": "report.html",
    }  # fmt: skip
    run = post("build")
    task = run.claim("build")
    with pytest.raises(InvalidRequest):
        run.bus.ack(task, "built", artifacts=paths[what])
    assert run.bus.get(task.id).state is State.LEASED
    run.bus.ack(task, "built")
    assert run.stages == {"build": "done"}


# --- nested work ----------------------------------------------------------------------------------


def test_a_task_cannot_be_finished_before_what_was_posted_for_it(bus: Bus) -> None:
    bus.post("work", "a large thing")
    parent = bus.claim()
    assert parent is not None
    child = bus.post("parts", "a part", parent=parent.id)
    plan = conductor.post(bus, {"goal": "g", "steps": [{"name": "a", "body": "x"}]}, parent=parent.id)
    with pytest.raises(Conflict, match="2 that were posted for") as caught:
        bus.ack(parent, "done")
    assert child.id[-8:] in str(caught.value)
    assert plan.id[-8:] in str(caught.value)
    assert bus.get(parent.id).state is State.LEASED
    part = bus.claim(["parts"])
    assert part is not None
    assert (part.body.parent, part.body.depth) == (parent.id, 1)
    bus.ack(part, "done")
    conductor.cancel(bus, plan.id)
    bus.ack(parent, "done")
    assert bus.get(parent.id).state is State.DONE


def test_a_step_of_a_nested_plan_knows_how_deep_it_is_and_depth_has_an_end(bus: Bus) -> None:
    bus.post("work", "depth 0")
    for depth in range(children.MAX_DEPTH):
        task = bus.claim()
        assert task is not None
        assert task.body.depth == depth
        data = {"goal": "g", "steps": [{"name": "a", "body": f"depth {depth + 1}"}]}
        plan = conductor.post(bus, data, parent=task.id)
        assert (plan.parent, plan.depth) == (task.id, depth + 1)
    task = bus.claim()
    assert task is not None
    for post in (
        lambda: bus.post("work", "x", parent=task.id),
        lambda: conductor.post(bus, {"goal": "g", "steps": [{"name": "a", "body": "x"}]}, parent=task.id),
    ):
        with pytest.raises(InvalidRequest, match="nested 8 deep"):
            post()


def test_a_task_has_an_end_of_children(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    for number in range(children.MAX_CHILDREN):
        children.add(bus, parent.id, f"req_019a0c0ffee{number:021x}")
    count = len(bus.store.ids())
    with pytest.raises(InvalidRequest, match="has 200 children"):
        bus.post("parts", "one more", parent=parent.id)
    assert len(bus.store.ids()) == count
    assert children.still_open(bus, parent.id) == []


def test_only_who_holds_a_task_posts_for_it(bus: Bus, open_bus_as: Callable[..., Bus]) -> None:
    posted = bus.post("work", "x")
    other = open_bus_as("bob", "00000002")
    with pytest.raises(InvalidRequest, match="is not held by 'ann'"):
        bus.post("work", "y", parent=posted.id)
    assert bus.claim() is not None
    with pytest.raises(InvalidRequest, match="is not held by 'bob'"):
        other.post("work", "y", parent=posted.id)
    assert bus.post("work", "y", parent=posted.id).created
    assert len(list(bus.store.ids())) == 2


def test_a_child_that_was_never_posted_holds_nobody_up(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    children.add(bus, parent.id, "req_019a0c0ffee0123456789a")
    children.add(bus, parent.id, "plan_00")
    assert children.still_open(bus, parent.id) == []
    bus.ack(parent, "done")


def test_a_key_that_is_repeated_is_one_child(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    first = bus.post("parts", "a part", parent=parent.id, key="k")
    assert bus.post("parts", "a part", parent=parent.id, key="k").id == first.id
    assert children.still_open(bus, parent.id) == [first.id]


def test_a_plan_with_steps_on_a_reserved_channel_is_refused(bus: Bus) -> None:
    for name in ("human", "broadcast"):
        with pytest.raises(InvalidRequest, match=f"nobody works on '{name}'"):
            conductor.post(bus, {"goal": "g", "steps": [{"name": "a", "body": "x", "channel": name}]})
    assert bus.store.records.names(PLANS) == []


def test_a_child_post_that_is_refused_does_not_hold_its_parent_up(bus: Bus) -> None:
    bus.post("work", "x", key="mine")
    parent = bus.claim()
    assert parent is not None
    for body in ("x", "another"):
        try:
            bus.post("work", body, key="mine", parent=parent.id)
        except Conflict:
            continue
    bus.ack(parent, "done")
    assert bus.get(parent.id).state is State.DONE


def test_a_blocked_child_is_waited_for(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    child = bus.post("parts", "y", parent=parent.id)
    part = bus.claim(["parts"])
    assert part is not None
    bus.block(part, "which one?")
    with pytest.raises(Conflict, match=child.id[-8:]):
        bus.ack(parent, "done")


def test_a_child_plan_that_was_edited_holds_nobody_up(bus: Bus) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    plan = conductor.post(bus, {"goal": "g", "steps": [{"name": "a", "body": "x"}]}, parent=parent.id)
    record = bus.store.records.read(PLANS, plan.id)
    assert record is not None
    with pytest.raises(Conflict):
        bus.ack(parent, "done")
    bus.store.records.write(PLANS, plan.id, {**record.data, "goal": "another"}, after=1, durable=False)
    bus.ack(bus.claim() or parent, "done")
    bus.ack(parent, "done")
    assert bus.get(parent.id).state is State.DONE


def test_a_child_that_cannot_be_read_now_is_waited_for(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    child = bus.post("parts", "y", parent=parent.id)

    def away(*_: object) -> None:
        msg = "the disk is away"
        raise StoreUnavailable(msg)

    with monkeypatch.context() as patch:
        patch.setattr(bus.store, "get", away)
        assert children.still_open(bus, parent.id) == [child.id]


@pytest.mark.parametrize("ids", [5, None, [7, {}], "x"])
def test_a_record_of_children_that_is_none_names_none(bus: Bus, ids: object) -> None:
    bus.post("work", "x")
    parent = bus.claim()
    assert parent is not None
    bus.store.records.write(children.KIND, parent.id, {"ids": ids}, after=0, durable=False)
    bus.ack(parent, "done")
