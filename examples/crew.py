"""A crew of scripted workers for the plans in examples/plans: what models do there, done by a few lines each.

    mcp-bus plan run examples/plans/gather-narrate-build.yaml
    python examples/crew.py gather write build review      (the same bus, by MCP_BUS_DIR; ends when idle for 5 s)

It shows what a worker of plans needs to know: it says what it can do, reads what the steps before brought, and corrects
a result that breaks its contract instead of giving up.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus import LeaseLost, ResultRejected, Task, open_bus, wait_for

if TYPE_CHECKING:
    from mcp_bus import Bus

IDLE_S = 5


def gather(task: Task) -> object:
    """List the Python files of the folder."""
    del task
    files = sorted(Path.cwd().glob("*.py"))
    return {"files": [{"name": path.name, "lines": len(path.read_text("utf-8").splitlines())} for path in files]}


def write(task: Task) -> object:
    """Say in a sentence what the steps before brought."""
    told = [f"{item['step']} ({item['stage']})" for item in task.body.inputs]
    return f"Written from {', '.join(told)}." if told else "Nothing to write from."


def build(task: Task) -> object:
    """Make a page of the text."""
    return f"<html><body><pre>{task.body.content}</pre></body></html>"


def review(task: Task) -> object:
    """Pass everything but the store; in other words than the schema has, which the bus puts right."""
    passed = "store.py" not in task.body.content
    return {"Passed": passed, "severity": "none" if passed else "high", "findings": [] if passed else ["no fsync"]}


DOES = {"gather": gather, "write": write, "build": build, "review": review}
# A model that has not read what is wanted: one answer after the other, until one is taken.
SLOPPY = (
    "All green!",
    {"passed": True, "claims": [{"text": "the run ended with 0 failures", "label": "FACT"}]},
    {"passed": True, "claims": [{"text": "the run ended with 0 failures", "label": "fact", "evidence": ["run-17"]}]},
)


def work(bus: Bus, task: Task) -> None:
    """Do a task by the capability it needs."""
    (needed, *_) = (word for word in task.body.requires if word in bus.capabilities)
    answers = SLOPPY if needed == "sloppy" else (DOES[needed](task),)
    for answer in answers:
        try:
            bus.ack(task, answer)
        except ResultRejected as error:
            print(f"{task.body.node}: {error}; {error.hint}", flush=True)
            continue
        except LeaseLost:
            print(f"{task.body.node}: it was taken away", flush=True)
            return
        print(f"{task.body.node}: {json.dumps(answer)[:60]}", flush=True)
        return


def main(can: list[str]) -> None:
    """Work on whatever needs one of these capabilities, until nothing does for a while."""
    with open_bus(agent="crew") as bus:
        bus.capabilities = tuple(can)
        bus.roster.arrive(can)  # A step that nobody here can do is skipped: say what you can.
        try:
            while task := wait_for(bus, bus.claim, timeout_s=IDLE_S):
                work(bus, task)
        finally:
            bus.roster.leave()


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - {*DOES, "sloppy"}
    if unknown or not sys.argv[1:]:
        sys.exit(f"usage: crew.py CAPABILITY …, of {', '.join([*DOES, 'sloppy'])}")
    main(sys.argv[1:])
