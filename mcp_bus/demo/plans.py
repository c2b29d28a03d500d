"""The demo's chapter on plans: a goal as steps, a result that is corrected, a step nobody can do, and the picture."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from mcp_bus import picture, plans, report
from mcp_bus.demo.stage import check, command, match

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.demo.stage import Actor, Story, Troupe

CHANNEL = "plan"
# So long a step waits for a worker that can do it.
GRACE_S = 1
_PLANNED = re.compile(r"^plan (?P<plan>\w+) running")
SCHEMA = {"type": "object", "required": ["passed"], "properties": {"passed": {"type": "boolean"}}}
STEPS: list[dict[str, Any]] = [
    {"name": "gather", "body": "list the files"},
    {"name": "lint", "body": "lint {{gather}}", "after": ["gather"], "result_schema": SCHEMA},
    {"name": "count", "body": "count the lines of {{gather}}", "after": ["gather"]},
    {"name": "paint", "body": "draw the cover", "capability": "paint", "on_failure": "continue"},
    {"name": "report", "body": "lint passed: {{lint.passed}}; lines: {{count}}", "after": ["lint", "count", "paint"]},
]


def play(bus: Bus, root: Path, story: Story, actors: Troupe) -> None:
    """Let a planner post a goal, and two others do it, as far as they can."""
    planner, builder, tester = actors[:3]
    steps = [{**step, "channel": CHANNEL} for step in STEPS]
    said = planner.call("post_plan", goal="report on the parser", steps=steps, grace_s=GRACE_S)
    plan = match(_PLANNED, said)["plan"]
    check('no live worker can do "paint"' in said, "the planner is told at once that nobody can paint")
    planner.ask("await_results", tasks=[plan], wait_s=30)  # Whoever waits for a plan moves it on.
    gathered = builder.submit(builder.claim(CHANNEL), "parser.py, tabs.py")
    check("released: lint, count" in gathered, "whoever ends a step is told what that released")
    refused = _lint(builder)
    _do(tester, "count", "lines of parser.py, tabs.py", "420")
    _do(tester, "report", "lint passed: true; lines: 420", "420 lines, lint is green")
    ended = planner.answer()
    check("partial: 4 of 5 steps done, 1 skipped" in ended, "what could be done is done")
    check("420 lines, lint is green" in ended, "the planner has the last step's result")
    check('no worker could do: "paint"' in ended, "and knows what to build next")
    made = json.loads(command(root, "planner", "plan", "show", plan))
    states = {step["name"]: step["state"] for step in made["steps"]}
    check(states == {name: "done" for name in states if name != "paint"} | {"paint": "skipped"}, "so says the bus")
    drawn = picture.tree(made["goal"], report.rows(bus, *plans.progress(bus, plans.resolve(bus, plan))))
    lines = [f"planner: {said.splitlines()[0]}", f"builder submits lint: {refused}", *drawn.splitlines()]
    story.step("a plan: two at once, a result corrected, a step nobody can do", lines, plan=plan, states=states)


def _lint(builder: Actor) -> str:
    """Answer in prose first, which is refused, and then as the contract wants it, under the same token."""
    work = builder.claim(CHANNEL)
    check("meets this schema" in work.text and "lint parser.py, tabs.py" in work.text, "the builder has the inputs")
    builder.ask("submit_result", task=work.task, token=work.token, result="looks fine to me")
    refused = builder.answer(fails=True)
    check("the result is no JSON" in refused and "same token" in refused, "prose is refused, and can be corrected")
    builder.submit(work, '{"Passed": true}')
    return refused.replace("\nnext: ", "; ")


def _do(actor: Actor, step: str, text: str, result: str) -> None:
    work = actor.claim(CHANNEL)
    check(
        f'step "{step}" of plan' in work.text and text in work.text, f"{actor.name} was given {step}, with its inputs"
    )
    actor.submit(work, result)
