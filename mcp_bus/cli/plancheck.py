"""Running the checks of a plan's steps: only its owner may let them be run, and only those that were announced."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import shell
from mcp_bus.cli.output import clean, one_line
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.model import Task
    from mcp_bus.plan import Step


def allowed(call: Call, bus: Bus, plan_id: str, end: float) -> Callable[[Step, Task], str] | None:
    """Return what runs the checks of a plan's steps, if its owner allows that; say what will be run.

    Args:
        end: when whoever waits goes away, by the monotonic clock; a check that runs is then ended.

    Raises:
        InvalidRequest: it is somebody else's plan, whose commands are not to be run here.
    """
    from mcp_bus import plans
    from mcp_bus.plan import SETTLED

    made, known = plans.progress(bus, plan_id)
    checked = [step for step in made.steps if step.verify and known.stage(step.name) not in SETTLED]
    if not call.args.allow_verify:
        if checked:
            names = one_line(", ".join(step.name for step in checked), 200)
            call.out.note(f"--allow-verify would run the check of {names}; without it, their results wait for it")
        return None
    if made.owner != bus.identity.agent:
        msg = f"the plan {made.id!r} was posted by {made.owner!r}, whose commands are not run here"
        raise InvalidRequest(msg, hint="leave --allow-verify out, or let its owner run it")
    for step in checked:
        words = clean(" ".join(map(shell, step.verify)))  # In full: what is not seen was not allowed.
        call.out.note(f"will check {step.name} in {one_line(str(Path.cwd()))} by: {words}")
    return Checks(bus, plan_id, {step.name: step.verify for step in made.steps}, end)


class Checks:
    """Runs the checks that were announced, each once for a result; while one runs, the plan goes on."""

    def __init__(self, bus: Bus, plan_id: str, announced: dict[str, tuple[str, ...]], end: float) -> None:
        """Run in this folder, with this environment, until `end`."""
        self._bus = bus
        self._plan = plan_id
        self._announced = announced
        self._end = end
        self._verdicts: dict[str, str | InvalidRequest] = {}

    def __call__(self, step: Step, task: Task) -> str:
        """Return why a result is not good, or nothing.

        Raises:
            InvalidRequest: there is no verdict, and the step waits.
        """
        from mcp_bus.config import environment
        from mcp_bus.verify import run

        if self._announced.get(step.name) != step.verify:  # The record lies where others can write.
            msg = f"the check of {step.name!r} is not the one that was announced: the plan was changed"
            raise InvalidRequest(msg, hint="look at the plan, then run it again")
        if task.id not in self._verdicts:  # Another conductor may overtake this one, and it asks again.
            try:
                self._verdicts[task.id] = run(step, task, Path.cwd(), environment(), pulse=self._pulse)
            except InvalidRequest as error:
                self._verdicts[task.id] = error
        verdict = self._verdicts[task.id]
        if isinstance(verdict, InvalidRequest):
            raise verdict
        return verdict

    def _pulse(self) -> str:
        from mcp_bus.conductor import advance

        if time.monotonic() >= self._end:
            return "time is up for whoever waits"
        self._bus.tend()
        advance(self._bus, self._plan)
        return ""
