"""The rules of plans, on their own: whatever a graph looks like and however its steps end, it comes to one end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from mcp_bus.plan import (
    SETTLED,
    Node,
    OnFailure,
    Plan,
    Progress,
    Stage,
    Step,
    Why,
    critical_path,
    cycle,
    ordered,
    outcome,
    retried,
    settle,
    stops,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 1_000_000


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Return a plan whose steps come after earlier ones, written down in any order."""
    size, made = draw(st.integers(1, 12)), list[Step]()
    for number in range(size):
        after = draw(st.lists(st.sampled_from([step.name for step in made]), unique=True, max_size=3)) if made else []
        policy = draw(st.sampled_from(OnFailure))
        made.append(Step(f"s{number}", "x", "work", after=tuple(after), on_failure=policy))
    return Plan("plan_0", "g", "ann", 0, tuple(draw(st.permutations(made))))


ENDS = st.sampled_from(
    [
        Node(Stage.DONE, ended=NOW),
        Node(Stage.FAILED, why="failed: x", ended=NOW),
        Node(Stage.SKIPPED, why=f"{Why.ABSENT}: nobody", ended=NOW),
        Node(Stage.SKIPPED, why=f"{Why.CONDITION}: not so", ended=NOW),
    ]
)


def run(plan: Plan, fates: Mapping[str, Node], order: list[int]) -> Progress:
    """Release what can be, and let what is released end by its fate, in some order, until nothing moves."""
    progress, ready = settle(plan, Progress(), NOW)
    running = {step.name for step in ready}
    while running:
        name = sorted(running)[order.pop() % len(running) if order else 0]
        running.discard(name)
        progress, ready = settle(plan, progress._replace(nodes={**progress.nodes, name: fates[name]}), NOW)
        while progress.stopped and (those := [step.name for step in ready if step.name not in running]):
            # Nobody had released these: their tasks are won.
            won = Node(Stage.SKIPPED, task="req_0", why=f"{Why.STOPPED}: {progress.stopped}", ended=NOW)
            nodes = {**progress.nodes, **dict.fromkeys(those, won)}
            progress, ready = settle(plan, progress._replace(nodes=nodes), NOW)
        running |= {step.name for step in ready} - progress.nodes.keys()
    return progress


@given(plans(), st.data())
def test_every_plan_is_over_once_what_was_released_has_ended_and_no_step_ran_before_its_time(
    plan: Plan, data: st.DataObject
) -> None:
    fates = {step.name: data.draw(ENDS) for step in plan.steps}
    progress = run(plan, fates, data.draw(st.lists(st.integers(0, 99), max_size=12)))
    assert progress.over
    assert all(progress.stage(step.name) in SETTLED for step in plan.steps)
    for step in plan.steps:
        node = progress.nodes[step.name]
        ran = node == fates[step.name]
        if ran and not node.why.endswith("was not wanted"):
            needs = [(plan.by_name[name], progress.nodes[name]) for name in step.after]
            assert all(found.stage is Stage.DONE or need.on_failure is OnFailure.CONTINUE for need, found in needs)
        if node.why.startswith(Why.UPSTREAM) or node.why.endswith("was not wanted"):
            assert any(progress.stage(name) is not Stage.DONE for name in step.after)
    assert bool(progress.stopped) == any(stops(step, progress.nodes[step.name]) for step in plan.steps)
    assert outcome(plan, progress) in ("done", "partial", "failed")


@given(plans(), st.data())
def test_without_a_stop_the_order_in_which_steps_end_does_not_matter(plan: Plan, data: st.DataObject) -> None:
    calm = plan._replace(
        steps=tuple(
            step._replace(on_failure=OnFailure.SKIP) if step.on_failure is OnFailure.STOP else step
            for step in plan.steps
        )
    )
    fates = {step.name: data.draw(ENDS) for step in plan.steps}
    orders = [data.draw(st.lists(st.integers(0, 99), max_size=12)) for _ in range(2)]
    first, second = (run(calm, fates, order) for order in orders)
    assert first == second


@given(plans())
def test_steps_are_put_in_order_and_know_all_they_come_after(plan: Plan) -> None:
    names = [step.name for step in ordered(plan.steps)]
    assert sorted(names) == sorted(step.name for step in plan.steps)
    above = upstream(plan)
    for step in plan.steps:
        assert all(names.index(need) < names.index(step.name) for need in above[step.name])
        assert above[step.name] >= set(step.after)
    assert cycle(plan.steps) == []


@given(plans(), st.data())
def test_a_ring_is_found(plan: Plan, data: st.DataObject) -> None:
    steps = list(plan.steps)
    at = data.draw(st.integers(0, len(steps) - 1))
    below = [step.name for step in steps if steps[at].name in upstream(plan)[step.name]]
    if not below:
        return
    steps[at] = steps[at]._replace(after=(*steps[at].after, data.draw(st.sampled_from(below))))
    ring = cycle(steps)
    needs = {step.name: step.after for step in steps}
    assert ring
    assert all(ring[number - 1] in needs[name] for number, name in enumerate(ring))


@given(plans(), st.data())
def test_a_retry_runs_again_what_failed_and_what_hung_on_it_and_nothing_else(plan: Plan, data: st.DataObject) -> None:
    fates = {step.name: data.draw(ENDS)._replace(task=f"req_{step.name}") for step in plan.steps}
    before = run(plan, fates, [])
    failed = [name for name, node in before.nodes.items() if node.stage is Stage.FAILED]
    after = retried(plan, before, failed)
    assert not after.over
    assert not after.stopped
    for name, node in before.nodes.items():
        if (node.stage is Stage.DONE or node.why.startswith(Why.CONDITION)) and name not in failed:
            assert after.nodes[name] == node
        if name in failed:
            assert after.nodes[name] == Node(Stage.WAITING, 2)
    good = {name: Node(Stage.DONE, ended=NOW) for name in fates}
    progress, ready = settle(plan, after, NOW)
    while ready:
        nodes = {**progress.nodes, **{step.name: good[step.name] for step in ready}}
        progress, ready = settle(plan, progress._replace(nodes=nodes), NOW)
    assert progress.over
    assert all(progress.stage(name) is Stage.DONE for name in failed)


def test_the_chain_that_took_longest_is_found() -> None:
    steps = (
        Step("a", "x", "w"), Step("b", "x", "w", after=("a",)), Step("c", "x", "w", after=("a",)),
        Step("d", "x", "w", after=("b", "c")),
    )  # fmt: skip
    spans = {"a": (0, 10), "b": (10, 100), "c": (10, 20), "d": (100, 110)}
    nodes = {name: Node(Stage.DONE, released=1000 + start, ended=1000 + end) for name, (start, end) in spans.items()}
    assert critical_path(Plan("p", "g", "ann", 0, steps), Progress(nodes), 2000) == ["a", "b", "d"]


def test_a_chain_of_500_steps_is_settled_at_once() -> None:
    steps = tuple(Step(f"s{i}", "x", "w", after=(f"s{i - 1}",) if i else ()) for i in range(500))
    plan = Plan("p", "g", "ann", 0, steps)
    progress, ready = settle(plan, Progress({"s0": Node(Stage.FAILED, why="x", ended=5)}), NOW)
    assert not ready
    assert progress.over == NOW
    assert progress.nodes["s499"].why == "upstream: s498 was skipped (upstream)"
