"""Plans whose conductors are killed at any call, and that several move on at once: each step is released once (P13)."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, plans, settling
from mcp_bus.errors import Conflict, LeaseLost
from mcp_bus.model import PLANS, State, Task
from mcp_bus.plan import Stage, outcome
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.crowd import in_time, quick, together
from tests.crash.victim import HOUR, IS_SOAK, Points, killed_at, open_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.stores.fsops import Fs

# `pytest --hypothesis-profile=soak tests/crash/test_kill_plans.py` tries thousands of points.
SMALL = [(seed, 2 + seed % 7) for seed in range(60)] if IS_SOAK else [(1, 2), (2, 4), (3, 7)]
STRIDE = 1 if IS_SOAK else 8
# What a step of a random plan does when it is worked on, by a letter in its body.
FATES = "dddddddff"
DEATHS = 3
LATER = (DEATHS + 1) * HOUR


def random_plan(seed: int, size: int, *, policies: Sequence[str] = ("skip", "skip", "continue")) -> dict[str, Any]:
    """Return a plan of some steps, each of which does or fails by what its body says, never by chance."""
    chance = random.Random(seed)  # noqa: S311  the same plan each time
    made: list[dict[str, Any]] = []
    for number in range(size):
        names = [step["name"] for step in made]
        after = chance.sample(names[-20:], min(len(names[-20:]), chance.choice((0, 1, 1, 2, 3))))
        step = {
            "name": f"s{number}",
            "body": chance.choice(FATES) + "".join(f" {{{{{name}}}}}" for name in after),
            "after": after,
            "on_failure": chance.choice(policies),
            # A kill costs an attempt; of these there are always enough.
            "max_attempts": 12,
            "backoff_s": 0,
        }
        if after and chance.random() < 0.2:
            step["when"] = f"{chance.choice(('', 'not '))}{after[0]}"
        made.append(step)
    return {"goal": f"plan {seed}", "steps": made}


def work(bus: Bus, plan_id: str) -> None:
    """Move a plan on, and do what waits, until it is over."""
    check = in_time()
    while True:
        check()
        try:
            if conductor.advance(bus, plan_id)[1].over:
                return
            task = bus.claim()
            if task is None:
                continue
            if task.body.content.startswith("f"):
                bus.nack(task, "it is to fail", retry_in_s=0)
            else:
                bus.ack(task, f"done {task.body.node}")
        except (LeaseLost, Conflict):
            continue  # Another worker, or a sweep, was faster.


def started(root: Path, data: dict[str, Any]) -> str:
    layout.create(root)
    with quick(root, "ann") as bus:
        return conductor.post(bus, data, key="k").id


def ends(root: Path, plan_id: str) -> dict[str, tuple[str, str]]:
    """Return how each step ended, and why; after a check that each was posted once."""
    with quick(root, "cat") as bus:
        plan, progress = plans.progress(bus, plan_id)
        posted = [bus.get(task_id).body.node for task_id in bus.store.ids()]
        assert len(posted) == len(set(posted)), "a step was released twice"
        for name, node in progress.nodes.items():
            task: Task | None = bus.get(node.task) if node.task else None
            state = task.state if task is not None else None
            wanted = {Stage.DONE: State.DONE, Stage.FAILED: State.DEAD}.get(node.stage, State.CANCELLED)
            assert state in (wanted, None if node.stage is Stage.SKIPPED else wanted), (
                f"{name} is {node.stage}: {state}"
            )
        # What the last attempt failed of is another thing when it was the killed one.
        known = {node.task for node in progress.nodes.values() if node.task}
        assert known == set(bus.store.ids()), "a task was posted that no step knows of"
        made = {
            name: (str(node.stage), "" if node.stage is Stage.FAILED else node.why)
            for name, node in progress.nodes.items()
        }
        return made | {"": (outcome(plan, progress), "")}


def resumed(root: Path, plan_id: str) -> None:
    """Let two conductors, who are workers too, bring a plan to its end, hours later."""

    def one(agent: str) -> None:
        with quick(root, agent, offset=LATER) as bus:
            work(bus, plan_id)

    with quick(root, "cat", offset=LATER) as bus:
        sweep(bus)
    together([lambda: one("ann"), lambda: one("bob")])


def undisturbed(disk: Path, data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    root = disk / "undisturbed"
    plan_id = started(root, data)
    with quick(root, "ann") as bus:
        work(bus, plan_id)
    return ends(root, plan_id)


def drive(root: Path, fs: Fs, plan_id: str, *, hours: int = 0) -> None:
    """Sweep, for a lease of one who was killed has lapsed by then, and work."""
    with open_at(root, fs, durable=False, offset=hours * HOUR) as bus:
        sweep(bus)
        work(bus, plan_id)


@pytest.mark.parametrize(("seed", "size"), SMALL)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_plan_whose_conductor_is_killed_at_any_call_ends_as_if_it_had_not_been(
    disk: Path, seed: int, size: int, *, late: bool
) -> None:
    data = random_plan(seed, size)
    expected = undisturbed(disk, data)
    plan_id = started(disk / "start", data)
    points = 0
    first = (seed + late) % STRIDE

    def work_on(root: Path, fs: Fs) -> None:
        drive(root, fs, plan_id)

    for at, root in Points(disk / "start", disk, work_on, late=late, stride=STRIDE, first=first):
        resumed(root, plan_id)
        assert ends(root, plan_id) == expected, at
        auditor.sound(root)
        points += 1
    assert points >= 5


def places(seed: int) -> Iterator[tuple[int, int]]:
    """Return sizes of random plans, and where their conductors die."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    for number in range(6):
        size = chance.choice((20, 50, 100, 200) if number == 0 else (10, 20, 40))
        yield size, chance.randrange(10 * size)


def killed(root: Path, plan_id: str, step: int, *, hours: int) -> bool:
    return killed_at(step, lambda fs: drive(root, fs, plan_id, hours=hours)) is not None


@pytest.mark.parametrize("seed", range(300) if IS_SOAK else (1, 2))
def test_large_plans_killed_again_and_again_end_as_if_they_had_not_been(disk: Path, seed: int) -> None:
    deaths = 0
    for number, (size, step) in enumerate(places(seed)):
        data = random_plan(100 * seed + number, size)
        expected = undisturbed(disk / str(number), data)
        root = disk / str(number) / "bus"
        plan_id = started(root, data)
        # A plan much of which is skipped may be over before its step comes.
        deaths += sum(killed(root, plan_id, step + again, hours=again) for again in range(DEATHS))
        resumed(root, plan_id)
        assert ends(root, plan_id) == expected, (size, step)
        shutil.rmtree(disk / str(number))
    assert deaths >= DEATHS


@pytest.mark.parametrize("seed", range(100 if IS_SOAK else 8))
def test_a_plan_that_stops_or_is_cancelled_while_it_is_moved_on_leaves_no_task_behind(disk: Path, seed: int) -> None:
    """Which steps were done by then is chance; that each is skipped or run, and nothing waits, is not."""
    root, chance = disk / "bus", random.Random(seed)  # noqa: S311  the same each time
    plan_id = started(root, random_plan(seed, 30, policies=("stop", "skip", "continue", "continue")))
    killed(root, plan_id, chance.randrange(250), hours=0)

    def cancel() -> None:
        with quick(root, "dan", offset=LATER) as bus, suppress(Conflict):
            conductor.cancel(bus, plan_id)

    def one(agent: str) -> None:
        with quick(root, agent, offset=LATER) as bus:
            sweep(bus)
            work(bus, plan_id)

    together([lambda: one("ann"), lambda: one("bob"), *([cancel] if seed % 2 else [])])
    ends(root, plan_id)
    with quick(root, "cat", offset=LATER) as bus:
        assert bus.claim() is None, "what waits is not left for a worker whose result nobody wants"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_post_killed_at_any_call_and_repeated_is_one_plan(disk: Path, *, late: bool) -> None:
    data = random_plan(5, 4)
    layout.create(disk / "start")

    def post(root: Path, fs: Fs) -> None:
        with open_at(root, fs, durable=False) as bus:
            conductor.post(bus, data, key="k")

    expected = undisturbed(disk, data)
    for at, root in Points(disk / "start", disk, post, late=late):
        with quick(root, "ann") as bus:
            plan = conductor.post(bus, data, key="k")
            assert bus.store.records.names(PLANS) == [plan.id], at
        resumed(root, plan.id)
        assert ends(root, plan.id) == expected, at


def test_conductors_at_once_release_each_step_once(disk: Path) -> None:
    data = random_plan(7, 60)
    expected = undisturbed(disk, data)
    plan_id = started(disk / "bus", data)

    def one(agent: str) -> None:
        with quick(disk / "bus", agent) as bus:
            work(bus, plan_id)

    together([lambda agent=agent: one(agent) for agent in ("ann", "bob", "cat", "dan")])  # type: ignore[misc]  # a default argument in a lambda
    assert ends(disk / "bus", plan_id) == expected


# --- skipping against claiming -----------------------------------------------------------------------

# Steps of a plan that are raced for; four plans make 2,000.
RACES = 500


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_step_is_skipped_or_run_and_never_both(disk: Path, workers: int) -> None:
    """Workers claim while a conductor finds, by a clock that is ahead, that nobody was there to do it."""
    root = disk / "bus"
    layout.create(root)
    names = [f"s{number}" for number in range(RACES)]
    steps = [{"name": name, "body": name, "capability": "paint"} for name in names]
    with quick(root, "ann") as bus:
        plan_id = conductor.post(bus, {"goal": "race", "grace_s": 60, "steps": steps}).id

    def claim() -> None:
        with quick(root, "bob") as bus:
            while (task := bus.claim(capabilities=["paint"])) is not None:
                bus.ack(task, "done")

    def skip() -> None:
        with quick(root, "cat", offset=70_000) as bus:
            conductor.advance(bus, plan_id)

    together([*[claim] * workers, skip])
    with quick(root, "ann", offset=70_000) as bus:
        conductor.advance(bus, plan_id)
        nodes = plans.progress(bus, plan_id)[1].nodes
        states = {name: bus.get(node.task).state for name, node in nodes.items()}
    assert {name: str(node.stage) for name, node in nodes.items()} == {
        name: "done" if state is State.DONE else "skipped" for name, state in states.items()
    }
    assert set(states.values()) == {State.DONE, State.CANCELLED}, "neither side got everything: it was a race"


def test_a_claim_between_the_look_and_the_skip_wins(disk: Path) -> None:
    root = disk / "bus"
    layout.create(root)
    with quick(root, "ann") as bus:
        data = {"goal": "race", "steps": [{"name": "a", "body": "a", "capability": "paint"}]}
        plan_id = conductor.post(bus, data).id
        task = bus.get(plans.progress(bus, plan_id)[1].nodes["a"].task)
        taken = bus.claim(capabilities=["paint"])
        assert taken is not None
        assert settling._taken_back(bus, task, "worker_absent: nobody").state is State.LEASED
        bus.ack(taken, "done")
        assert plans.progress(bus, plan_id)[1].stage("a") is Stage.DONE
