"""What goes from one run of a step to the next, and what a retry or an answer does to its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, plans
from mcp_bus.errors import Conflict, InvalidRequest
from mcp_bus.model import PLANS

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from tests.fakes import VirtualSource
    from tests.plans.conftest import Poster


def test_a_retry_tells_the_next_worker_how_the_last_run_ended_and_what_a_person_said(post: Poster, bus: Bus) -> None:
    run = post("a", "b", a={"max_attempts": 1}, b={"max_attempts": 1})
    bus.block(run.claim("a"), "which database?")
    bus.retry(run.tasks()["a"][0].id, note="main")
    run.fail("a", "the disk is full")
    run.fail("b", "no net")
    conductor.retry(bus, run.plan.id, ["a"], "there is room now")
    (told,) = run.claim("a").body.inputs
    assert told["why"] == (
        "a person said: there is room now; a person said: main; run 1 ended: failed: the disk is full"
    )
    assert run.stages["b"] == "failed", "and nobody else is told anything"


def test_a_step_that_was_skipped_by_choice_is_not_retried_for_nothing(post: Poster, bus: Bus) -> None:
    run = post("scan", "fix<scan", "ship<fix", fix={"when": "scan.bad == true"})
    run.do("scan", {"bad": False})
    before = plans.progress(bus, run.plan.id)
    for steps in (["fix"], ["ship"], ["fix", "ship"]):
        with pytest.raises(Conflict, match="was skipped by choice, and would be again") as caught:
            conductor.retry(bus, run.plan.id, steps)
        assert "on_failure: continue" in caught.value.hint
    assert plans.progress(bus, run.plan.id) == before


@pytest.mark.parametrize(
    ("result", "lacks"),
    [({"bad": False}, "scan has no pased"), ("all fine", "the result of scan is no JSON"), ({"pased": 1}, "")],
)
def test_a_condition_on_what_is_not_there_says_so(post: Poster, result: object, lacks: str) -> None:
    run = post("scan", "fix<scan", fix={"when": "scan.pased == false"})
    run.do("scan", result)
    assert run.why("fix") == "condition: not so: scan.pased == false" + (f" ({lacks})" if lacks else "")


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_to_a_blocked_step_gives_it_its_time_anew(
    post: Poster, bus: Bus, source: VirtualSource, *, late: bool
) -> None:
    run = post("a", a={"timeout_s": 20})
    task = run.claim("a")
    bus.block(task, "which disk?")
    source.advance(25 if late else 15)
    conductor.advance(bus, run.plan.id)
    assert run.stages == {"a": "failed" if late else "released"}
    bus.retry(task.id, note="disk 2")
    source.advance(15)
    conductor.advance(bus, run.plan.id)
    assert run.stages == {"a": "released"}
    run.do("a")
    assert run.outcome == "done"


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "string"}, False), ({"type": "object", "additionalProperties": False}, False),
        ({"type": "object"}, True), ({"required": ["x"]}, True), ({"type": ["object", "null"]}, True),
        ({"properties": {"claims": {}}, "additionalProperties": False}, True),
    ],
)  # fmt: skip
def test_a_contract_that_no_result_can_meet_is_refused(post: Poster, bus: Bus, schema: Any, *, fits: bool) -> None:
    if fits:
        post("a", a={"result_schema": schema, "claims": True})
        bus.post("work", "x", result_schema=schema, claims=True)
        return
    with pytest.raises(InvalidRequest, match="claims asks for a list of claims"):
        post("a", a={"result_schema": schema, "claims": True})
    with pytest.raises(InvalidRequest, match="claims asks for a list of claims"):
        bus.post("work", "x", result_schema=schema, claims=True)
    assert not bus.store.ids()
    assert not bus.store.records.names(PLANS)
