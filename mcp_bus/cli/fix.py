"""retry, requeue, discard, undo, cancel, sweep: what those who look after a bus need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli import fields
from mcp_bus.cli.arguments import BODY_HELP, Verb, content
from mcp_bus.cli.codes import OK, code_of, problem
from mcp_bus.cli.meant import priority
from mcp_bus.cli.output import clean
from mcp_bus.errors import BusError, InvalidRequest, StoreUnavailable
from mcp_bus.find import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.model import Task


def each(call: Call, act: Callable[[str], Task]) -> int:
    """Do something to each named task; report each, and return the highest exit code."""
    code = OK
    made: list[dict[str, object]] = []
    for asked in dict.fromkeys(call.args.ids):
        try:
            task = act(asked)
        except StoreUnavailable:
            raise  # The others would fail the same way.
        except BusError as error:
            code, error.hint = max(code, code_of(error)), call.aimed(error.hint)
            made.append({"asked": asked, "task": None, "error": problem(error)})
            call.out.warn(f"mcp-bus: {clean(str(error))}")
            if error.hint:
                call.out.warn(f"  next: {clean(error.hint)}")
            continue
        made.append({"asked": asked, "task": fields.full(task), "error": None})
        if not call.out.as_json:
            call.out.line(f"{short(task.id)} {call.out.state(fields.state(task))}")
    if call.out.as_json:
        call.out.json({"tasks": made})
    return code


def _declare_ids(parser: Parser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="tasks")


def _declare_reason(parser: Parser) -> None:
    _declare_ids(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept in the task's history")


def declare_retry(parser: Parser) -> None:
    """Declare the options of `retry`."""
    _declare_ids(parser)
    parser.add_argument("--body", metavar="BODY", help=f"another body, for one dead task: {BODY_HELP}")
    parser.add_argument("--note", default="", metavar="TEXT", help="for the next worker, such as an answer")


def retry(call: Call) -> int:
    """Bring tasks back with a fresh budget."""
    args = call.args
    if args.body is not None and len(args.ids) > 1:
        msg = f"--body goes with one task, and there are {len(args.ids)}"
        raise InvalidRequest(msg, hint="retry them one by one")
    body = None if args.body is None else content(args.body)
    with call.bus() as bus:
        return each(call, lambda asked: bus.retry(asked, body=body, note=args.note))


def requeue(call: Call) -> int:
    """Make tasks ready now."""
    with call.bus() as bus:
        return each(call, lambda asked: bus.requeue(asked, call.args.reason))


def discard(call: Call) -> int:
    """Take tasks out of the dead letter."""
    with call.bus() as bus:
        return each(call, lambda asked: bus.discard(asked, call.args.reason))


def undo(call: Call) -> int:
    """Take back a cancel or a discard."""
    with call.bus() as bus:
        return each(call, lambda asked: bus.undo(asked, call.args.reason))


def cancel(call: Call) -> int:
    """End tasks that are not wanted any more."""
    with call.bus() as bus:
        return each(call, lambda asked: bus.cancel(asked, call.args.reason))


def declare_reprioritise(parser: Parser) -> None:
    """Declare the options of `reprioritise`."""
    _declare_ids(parser)
    parser.add_argument("--priority", type=priority, required=True, metavar="N", help="-9 to 9, higher goes first")


def reprioritise(call: Call) -> int:
    """Move waiting tasks forward or back."""
    with call.bus() as bus:
        return each(call, lambda asked: bus.reprioritise(asked, call.args.priority))


def declare_sweep(_parser: Parser) -> None:
    """Take no options but those of every verb."""


def sweep(call: Call) -> int:
    """Do at once what else is done by the way."""
    from mcp_bus.recovery import sweep as do

    with call.bus() as bus:
        done = do(bus)
    if call.out.as_json:
        call.out.json({"done": done})
        return OK
    for text in done:
        call.out.line(clean(text))
    if not done:
        call.out.note("nothing to do")
    return OK


VERBS = {
    "retry": Verb(declare_retry, retry, 'mcp-bus retry 1f3a90c2 --note "yes, delete the old table"'),
    "requeue": Verb(_declare_reason, requeue, "mcp-bus requeue 1f3a90c2 77e0b1d4"),
    "discard": Verb(_declare_reason, discard, 'mcp-bus discard 1f3a90c2 --reason "not worth it"'),
    "undo": Verb(_declare_reason, undo, "mcp-bus undo 1f3a90c2"),
    "cancel": Verb(_declare_reason, cancel, 'mcp-bus cancel 1f3a90c2 --reason "done by hand"'),
    "reprioritise": Verb(declare_reprioritise, reprioritise, "mcp-bus reprioritise 1f3a90c2 --priority 5"),
    "sweep": Verb(declare_sweep, sweep, "mcp-bus sweep"),
}
