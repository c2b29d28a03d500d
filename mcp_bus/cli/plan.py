"""plan: a goal as steps that wait for one another, from a file; run, watched, drawn, and looked after."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from mcp_bus.cli import plancheck, planshow
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import ERROR, NOTHING, OK, PERSON
from mcp_bus.cli.output import duration, one_line
from mcp_bus.errors import InvalidRequest
from mcp_bus.find import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.plan import Plan, Progress
    from mcp_bus.report import Row

ACTIONS = ("run", "show", "list", "report", "cancel", "retry", "resume")
FORMATS = ("table", "tree", "mermaid", "dot", "svg", "json")
# How often a plan that is waited for is looked at; what its tasks do is noticed at once.
LOOK_S = 1.0
FOR_EVER = 10.0**9
BAR = 24
# Stages of steps that go on without a person.
MOVING = {"ready", "leased", "scheduled", "released"}


def declare(parser: Parser) -> None:
    """Declare the options of `plan`."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument(
        "target", nargs="?", default="", metavar="FILE|PLAN", help="run: a file, - for stdin; else a plan"
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help="retry: these; all that failed if none is named")
    parser.add_argument("--no-wait", action="store_true", help="run, resume, retry: do not wait for its end")
    parser.add_argument("--watch", action="store_true", help="show: go on until it is over")
    parser.add_argument("--timeout", type=seconds, metavar="TIME", help="wait at most so long; for ever unless told")
    parser.add_argument(
        "--format", choices=FORMATS, default="table", metavar="FORMAT", help=f"show: {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "--allow-verify", action="store_true", help="run, resume, retry, show --watch: run the checks of its steps"
    )
    parser.add_argument("--key", default="", metavar="KEY", help="run: the same key again is the same plan")
    parser.add_argument("--reason", default="", metavar="TEXT", help="cancel: why")
    parser.add_argument("--note", default="", metavar="TEXT", help="retry: for the next workers, such as an answer")
    parser.add_argument("--parent", default="", metavar="TASK", help="run: a task that you hold, which it belongs to")


def plan(call: Call) -> int:
    """Do what is asked with a plan."""
    action = call.args.action
    if action == "list":
        return planshow.listed(call)
    if not call.args.target:
        msg = f"plan {action} takes {'a file' if action == 'run' else 'a plan'}"
        raise InvalidRequest(msg, hint="mcp-bus plan list" if action != "run" else "mcp-bus plan run plan.yaml")
    if call.args.steps and action != "retry":
        msg = f"plan {action} takes no steps"
        raise InvalidRequest(msg, hint="mcp-bus plan --help")
    return {"run": _run, "show": _show, "report": planshow.reported}.get(action, _look_after)(call)


# --- run ------------------------------------------------------------------------------------------


def _run(call: Call) -> int:
    from mcp_bus import conductor

    data = read(call.args.target)
    with call.bus(create=True) as bus:
        start = bus.source.now()
        made = conductor.post(bus, data, key=call.args.key, parent=call.args.parent)
        known = "posted before under that key" if made.created < start else f"{len(made.steps)} steps"
        call.out.note(f"plan {short(made.id)}: {known}; `{call.again()} plan show {short(made.id)}`")
        return _end(call, bus, made.id)


def read(name: str) -> object:
    """Return what a file of a plan holds: JSON, or YAML.

    Raises:
        InvalidRequest: it cannot be read, is too large, or is neither.
    """
    from pathlib import Path

    from mcp_bus.cli import planyaml

    if name == "-":
        data = sys.stdin.buffer.read(planyaml.MAX_FILE + 1)
    else:
        try:
            with Path(name).open("rb") as file:
                data = file.read(planyaml.MAX_FILE + 1)
        except OSError as error:
            msg = f"cannot read {name[:200]!r}: {error.strerror}"
            raise InvalidRequest(msg, hint="name a file with a plan, or - for stdin") from None
    return planyaml.load(data, name)


def _end(call: Call, bus: Bus, plan_id: str) -> int:
    """Wait until a plan is over, if that is wanted; show how it stands; return the exit code."""
    from mcp_bus import conductor
    from mcp_bus.cli.interrupts import Interrupts

    with Interrupts():  # Or SIGTERM would leave a check running.
        if call.args.no_wait:
            made, progress = conductor.advance(bus, plan_id, verify=plancheck.allowed(call, bus, plan_id, FOR_EVER))
        else:
            made, progress = _watched(call, bus, plan_id)
    planshow.shown(call, bus, made, progress)
    return _code(bus, made, progress, waits=not call.args.no_wait)


def _code(bus: Bus, made: Plan, progress: Progress, *, waits: bool) -> int:
    from mcp_bus.plan import outcome
    from mcp_bus.report import rows

    if progress.over:
        return OK if outcome(made, progress) == "done" else ERROR
    if any(row.stage in planshow.PERSONS for row in rows(bus, made, progress)):
        return PERSON
    return NOTHING if waits else OK


def _watched(call: Call, bus: Bus, plan_id: str) -> tuple[Plan, Progress]:
    """Move a plan on until it is over, a person is needed, or time is up; tell what happens meanwhile."""
    from mcp_bus.conductor import advance
    from mcp_bus.watch import wait_for

    end = time.monotonic() + (FOR_EVER if call.args.timeout is None else call.args.timeout)
    told, verify = Told(call), plancheck.allowed(call, bus, plan_id, end)
    while True:
        made, progress = advance(bus, plan_id, verify=verify)
        told.look(bus, made, progress)
        left = end - time.monotonic()
        if progress.over or left <= 0 or told.is_blocked:
            told.done()
            return made, progress

        def look(known: Progress = progress) -> bool | None:
            bus.tend()
            return True if advance(bus, plan_id)[1] != known else None

        try:
            wait_for(bus, look, channels=sorted({step.channel for step in made.steps}), timeout_s=min(LOOK_S, left))
        except KeyboardInterrupt:
            told.done()
            call.out.note(
                f"the plan goes on without you; `{call.again()} plan resume {short(made.id)}` waits for it again"
            )
            raise


class Told:
    """What a person who watches was told: a bar on a terminal, else a line for each step that moved."""

    def __init__(self, call: Call) -> None:
        """Tell on stderr; stdout is for how it ends."""
        self._is_bar = sys.stderr is not None and sys.stderr.isatty() and not call.out.quiet
        self._say: Callable[[str], None] = call.out.note
        self._known: dict[str, str] = {}
        self._start = time.monotonic()
        self.is_blocked = False

    def look(self, bus: Bus, made: Plan, progress: Progress) -> None:
        """Tell what is new."""
        from mcp_bus.report import is_settled, rows

        found = rows(bus, made, progress)
        stages = {row.stage for row in found}
        self.is_blocked = not stages & {"ready", "leased", "scheduled", "released"} and bool(
            stages.intersection(planshow.PERSONS)
        )
        if self._is_bar:
            done = sum(is_settled(row) for row in found)
            self._bar(done, len(found), found)
            return
        for row in found:
            stage = f"{row.stage} {row.node.run} {row.node.attempts}"
            if self._known.get(row.step.name) != stage and row.stage != "waiting":
                self._say(_moved(row))
            self._known[row.step.name] = stage

    def _bar(self, done: int, count: int, found: list[Row]) -> None:
        full, stages = BAR * done // count, [row.stage for row in found]
        busy = ", ".join(row.step.name for row in found if row.stage == "leased")
        spent = duration(int(1000 * (time.monotonic() - self._start)))
        bad = [f"{number} {stage}" for stage in ("failed", "skipped", "blocked") if (number := stages.count(stage))]
        text = f"[{'#' * full}{'.' * (BAR - full)}] {done}/{count}  {', '.join([spent, *bad])}  {one_line(busy, 40)}"
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Leave the line of the bar."""
        if self._is_bar:
            print(file=sys.stderr)


def _moved(row: Row) -> str:
    who = f" by {one_line(row.who, 60)}" if row.who else ""
    why = f": {one_line(row.why, 120)}" if row.why and row.stage != "leased" else ""
    attempt = f", attempt {row.node.attempts}" if row.node.attempts > 1 else ""
    return f"{row.step.name} {row.stage}{who}{attempt}{why}"


# --- show ------------------------------------------------------------------------------------------


def _show(call: Call) -> int:
    from mcp_bus import plans
    from mcp_bus.conductor import advance

    with call.bus() as bus:
        plan_id = plans.resolve(bus, call.args.target)
        if call.args.watch:
            made, progress = _watched(call, bus, plan_id)
        else:
            made, progress = advance(bus, plan_id)
        planshow.shown(call, bus, made, progress)
        return _code(bus, made, progress, waits=True) if call.args.watch else OK


# --- cancel, retry, resume --------------------------------------------------------------------------


def _look_after(call: Call) -> int:
    from mcp_bus import conductor, plans

    args = call.args
    with call.bus() as bus:
        plan_id = plans.resolve(bus, args.target)
        if args.action == "cancel":
            made, progress = conductor.cancel(bus, plan_id, args.reason)
            planshow.shown(call, bus, made, progress)
            return OK
        if args.action == "retry":
            conductor.retry(bus, plan_id, args.steps, args.note)
        return _end(call, bus, plan_id)


VERBS = {
    "plan": Verb(
        declare,
        plan,
        "mcp-bus plan run plan.yaml\nmcp-bus plan show 5b0c77aa --format tree\nmcp-bus plan retry 5b0c77aa lint",
    )
}
