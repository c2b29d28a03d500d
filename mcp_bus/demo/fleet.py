"""The demo's chapter on fleets: three scripted workers that one command keeps alive do a plan, though one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from mcp_bus import conductor
from mcp_bus.demo.stage import ANSWER_S, check, command
from mcp_bus.plan import outcome
from mcp_bus.watch import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.demo.stage import Story

WAIT_S = 60.0
CHANNEL = "fleet"
# What each kind of worker runs: it reads its prompt, and answers.
ANSWERS = {
    "gather": "print('parser.py tabs.py')",
    "count": "import sys; print(sys.stdin.read().partition('# Your answer')[0].count('.py'), 'files')",
    "write": "print('a report of what came before')",
}
STEPS: list[dict[str, Any]] = [
    {"name": "gather", "capability": "gather", "body": "list the files"},
    {"name": "count", "capability": "count", "after": "gather", "body": "count {{gather}}"},
    {"name": "write", "capability": "write", "after": "count", "body": "write it down: {{count}}"},
]


def play(bus: Bus, root: Path, story: Story) -> None:
    """Start a fleet from a file, kill one of its workers, and let it do a plan."""
    file = root.parent / "workers.toml"
    file.write_text("".join(_table(name, code) for name, code in ANSWERS.items()))
    words = [sys.executable, "-m", "mcp_bus", "-q", "--bus", str(root), "--agent", "demo", "worker", "up", str(file)]
    with subprocess.Popen(words) as fleet:  # noqa: S603  our own module
        try:
            _watch(bus, root, story, fleet)
        finally:
            fleet.kill()  # If it has not ended: its workers end with it.


def _watch(bus: Bus, root: Path, story: Story, fleet: subprocess.Popen[bytes]) -> None:
    _until(bus, lambda: len(_running(root)) == len(ANSWERS))
    first = _running(root)["count"]
    os.kill(first, signal.SIGKILL)
    _until(bus, lambda: _running(root).get("count", first) != first)
    plan = conductor.post(bus, {"goal": "a small report", "channel": CHANNEL, "steps": STEPS, "grace_s": 30})
    _until(bus, lambda: bool(conductor.advance(bus, plan.id)[1].over))
    made, progress = conductor.advance(bus, plan.id)
    check(outcome(made, progress) == "done", "three commands did the plan")
    report = json.loads(command(root, "demo", "plan", "show", plan.id))
    steps = {step["name"]: (step["who"], step["state"]) for step in report["steps"]}
    check(steps == {name: (name, "done") for name in ANSWERS}, "each step went to the worker that is able to do it")
    fleet.terminate()
    check(fleet.wait(ANSWER_S) == 0, "told to end, it ends when its workers have")
    lines = [f"worker up workers.toml: {', '.join(ANSWERS)}; count is killed (pid {first}) and started anew"]
    lines += [f"{name}: {who}, {state}" for name, (who, state) in steps.items()]
    story.step("a fleet: three commands kept alive by one, and a plan they do", lines, workers=steps)


def _table(name: str, code: str) -> str:
    words = json.dumps([sys.executable, "-c", code])
    return f'[workers.{name}]\ncommand = {words}\nchannels = ["{CHANNEL}"]\ncapabilities = ["{name}"]\n\n'


def _running(root: Path) -> dict[str, int]:
    found = json.loads(command(root, "demo", "worker", "ps"))["workers"]
    return {item["name"]: item["pid"] for item in found if item["state"] == "running"}


def _until(bus: Bus, what: Any) -> None:  # noqa: ANN401  anything that tells whether to go on
    check(wait_for(bus, lambda: what() or None, timeout_s=WAIT_S) is not None, "the fleet came about")
