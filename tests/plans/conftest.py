"""A plan on a bus, and workers who do what its steps ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, plans
from mcp_bus.plan import outcome

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.plan import Plan


class Run:
    """A plan that was posted."""

    def __init__(self, bus: Bus, plan: Plan) -> None:
        self.bus = bus
        self.plan = plan

    @property
    def stages(self) -> dict[str, str]:
        """Where each step is."""
        _, progress = plans.progress(self.bus, self.plan.id)
        return {step.name: str(progress.stage(step.name)) for step in self.plan.steps}

    @property
    def outcome(self) -> str:
        return outcome(*plans.progress(self.bus, self.plan.id))

    def why(self, step: str) -> str:
        return plans.progress(self.bus, self.plan.id)[1].nodes[step].why

    def claim(self, step: str, *capabilities: str) -> Task:
        """Claim the task of a step; what else waits is left where it is."""
        others = []
        try:
            while True:
                task = self.bus.claim(capabilities=capabilities)
                assert task is not None, f"{step} does not wait: {self.stages}"
                if (task.body.plan, task.body.node) == (self.plan.id, step):
                    return task
                others.append(task)
        finally:
            for other in others:
                self.bus.unclaim(other)

    def do(self, step: str, result: object = "done", *capabilities: str) -> None:
        self.bus.ack(self.claim(step, *capabilities), result)

    def fail(self, step: str, reason: str = "broken") -> None:
        task = self.claim(step)
        while self.bus.nack(task, reason, retry_in_s=0).state == "ready":
            task = self.claim(step)

    def tasks(self) -> dict[str, list[Task]]:
        """Return the tasks of each step: every one that was ever posted."""
        made: dict[str, list[Task]] = {}
        for task_id in self.bus.store.ids():
            task = self.bus.get(task_id)
            if task.body.plan == self.plan.id:
                made.setdefault(task.body.node, []).append(task)
        return made


def steps(*names: str, **more: Any) -> list[dict[str, Any]]:
    """Return steps from words such as `report<lint,count`: a name, and what it comes after."""
    made = []
    for word in names:
        name, _, after = word.partition("<")
        step = {"name": name, "body": f"do {name}", "after": [need for need in after.split(",") if need]}
        made.append(step | more.get(name.replace("-", "_"), {}))
    return made


class Poster:
    """Posts plans from such words."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __call__(self, *names: str, grace_s: float = 60, key: str = "", **more: Any) -> Run:
        data = {"goal": "the goal", "grace_s": grace_s, "steps": steps(*names, **more)}
        return Run(self._bus, conductor.post(self._bus, data, key=key))


@pytest.fixture
def post(bus: Bus) -> Poster:
    return Poster(bus)
