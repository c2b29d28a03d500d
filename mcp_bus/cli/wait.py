"""wait: how tasks end, told as they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli import fields, pages
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import ERROR, NOT_FOUND, NOTHING, OK, PERSON, code_of, problem
from mcp_bus.cli.output import clean, one_line
from mcp_bus.errors import BusError
from mcp_bus.find import LOST, is_lost, safe_ending, short
from mcp_bus.model import State

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.find import Ending
    from mcp_bus.model import Task

# As long as a wait without --timeout lasts: longer than any machine is up.
FOR_EVER = 3e9


def declare_wait(parser: Parser) -> None:
    """Declare the options of `wait`."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="tasks")
    parser.add_argument("--timeout", type=seconds, metavar="TIME", help="at most so long; for ever unless told")


def wait(call: Call) -> int:
    """Wait until tasks have ended; shows each result as it comes."""
    limit = FOR_EVER if call.args.timeout is None else call.args.timeout
    with call.bus() as bus:
        waiting = Waiting(call, bus)
        waiting.wait(limit)
    return waiting.told()


class Waiting:
    """Tasks that are waited for: those that are open, and how the others ended."""

    def __init__(self, call: Call, bus: Bus) -> None:
        """Find the tasks; what is wrong with an id is told at once, and the others are waited for."""
        self.call = call
        self.bus = bus
        self.code = OK
        self.open: dict[str, str] = {}
        self.made: list[dict[str, object]] = []
        for asked in dict.fromkeys(call.args.ids):
            try:
                self.open[bus.get(asked).id] = asked
            except BusError as error:
                self._failed(asked, error)

    def _failed(self, asked: str, error: BusError) -> None:
        self.code, error.hint = max(self.code, code_of(error)), self.call.aimed(error.hint)
        self.made.append({"asked": asked, "over": True, "task": None, "error": problem(error)})
        self.call.out.warn(f"mcp-bus: {one_line(str(error))}")
        if error.hint:
            self.call.out.warn(f"  next: {one_line(error.hint, 300)}")

    def wait(self, timeout_s: float) -> None:
        """Wait until all have ended or time is up."""
        from mcp_bus.watch import wait_for

        channels = sorted({self.bus.get(task_id).channel for task_id in self.open})
        self._look()  # What has ended already is not waited for.
        if self.open:
            self.call.out.note(f"waiting for {len(self.open)} to end; Ctrl-C stops only the waiting")
            wait_for(self.bus, self._look, channels=channels, timeout_s=timeout_s)

    def _look(self) -> bool | None:
        self.bus.tend()
        for task_id in list(self.open):
            found = safe_ending(self.bus, task_id)
            if found.is_over:
                self._ended(self.open.pop(task_id), found)
        if not self.call.out.as_json:
            self.call.out.flush()
        return None if self.open else True

    def _ended(self, asked: str, found: Ending) -> None:
        task = found.task
        self.code = max(self.code, _verdict(task))
        error = {"code": "error", "message": found.error} if found.error else None
        if task is not None and is_lost(task):
            error = {"code": "lost", "message": LOST}
        self.made.append({"asked": asked, "over": True, "task": fields.full(task) if task else None, "error": error})
        out = self.call.out
        if out.as_json:
            return
        if task is None:
            out.warn(f"mcp-bus: {one_line(found.error)}")
            return
        why = pages.last_word(task) if task.result is None else ""
        if task.hidden:
            why = f"not shown: {one_line(task.hidden, 400)}"
        elif task.doubt:
            why = f"NOT VERIFIED: {one_line(task.doubt, 400)}"
        elif is_lost(task):
            why = LOST
        out.line(f"{short(task.id)} {out.state(fields.state(task))}{': ' if why else ''}{why}")
        if task.doubt:
            out.warn(
                f"  next: use nothing of it before a person has looked: `{self.call.again()} show {short(task.id)}`"
            )
        elif is_lost(task):
            again = self.call.again()
            out.warn(
                f"  next: look in quarantine/ and rejected/; `{again} discard {short(task.id)}` gives the result up, "
                "and `retry` after that has it done once more"
            )
        if task.proof is not None and task.proof.hint:
            out.warn(f"  next: if it is from whom it says: {clean(self.call.aimed(task.proof.hint))}")
        pages.result(out, task, self.bus.source.now())

    def told(self) -> int:
        """Tell what is still open; return the exit code."""
        out = self.call.out
        if self.open:
            self.code = max(self.code, NOTHING)
            out.warn(f"mcp-bus: not ended yet: {', '.join(short(task_id) for task_id in self.open)}")
        if out.as_json:
            rest = [{"asked": asked, "over": False, "task": None, "error": None} for asked in self.open.values()]
            out.json({"tasks": self.made + rest, "timed_out": bool(self.open)})
        return self.code


def _verdict(task: Task | None) -> int:
    if task is None:
        return NOT_FOUND
    if task.state is State.DEAD or task.doubt or is_lost(task):
        return PERSON
    good = task.state is State.DONE and not task.hidden and (task.result is None or task.result.status == "success")
    return OK if good else ERROR


VERBS = {"wait": Verb(declare_wait, wait, "mcp-bus wait 1f3a90c2 77e0b1d4 --timeout 60s")}
