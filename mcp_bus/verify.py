"""Checking a result by a command: one that the plan's owner wrote, and allowed to be run where it is run.

No shell reads it, and nothing of a result is on its command line: the result comes by stdin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import command
from mcp_bus.errors import InvalidRequest
from mcp_bus.plain import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mcp_bus.model import Task
    from mcp_bus.plan import Step

LIMIT_S = 600.0
# Of what it wrote, the end: that is where programs say what was wrong.
TAIL = 400


def run(
    step: Step, task: Task, folder: Path, environment: Mapping[str, str], *, pulse: Callable[[], str] | None = None
) -> str:
    """Run a step's command; return why the result is not good, or nothing.

    Args:
        folder: where it runs.
        environment: what it sees besides which task, plan and step it is about.
        pulse: called every second while it runs; a text that it returns is why it is ended, with no verdict.

    Raises:
        InvalidRequest: it cannot be started, which says nothing about the result.
    """
    content = task.result.content if task.result is not None else ""
    told = {"MCP_BUS_TASK": task.id, "MCP_BUS_PLAN": task.body.plan, "MCP_BUS_STEP": step.name}
    limit = min(step.timeout_s or LIMIT_S, LIMIT_S)
    asked = command.Command(
        step.verify, folder, {**environment, **told}, content.encode(), limit_s=limit, keep=2 * TAIL, joins=True
    )
    stopped: list[str] = []

    def look() -> str:
        why = pulse() if pulse is not None else ""
        stopped[:] = [why] if why else []
        return why

    try:
        done = command.run(asked, pulse=look)
    except OSError as error:
        msg = f"the check of step {step.name!r} could not be started: {error.strerror}"
        raise InvalidRequest(msg, hint="mend the command, or where it runs; the step waits") from None
    if stopped:
        msg = f"the check of step {step.name!r} was ended: {stopped[0]}"
        raise InvalidRequest(msg, hint="the step waits for it")
    if done.why:
        return f"the check was ended: {done.why}"
    if done.code == 0:
        return ""
    lines = clean(done.output.decode(errors="replace"), multiline=True).split("\n")
    said = " / ".join(filter(None, (line.strip() for line in lines)))[-TAIL:]
    return f"the check ended with {done.code}{f': {said}' if said else ''}"
