"""export: tasks with all they have, one after the other, however many there are."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mcp_bus import access
from mcp_bus import find as finding
from mcp_bus.cli import exportforms, meant
from mcp_bus.cli.arguments import Verb, seconds, word
from mcp_bus.cli.codes import ERROR, OK
from mcp_bus.cli.output import one_line
from mcp_bus.errors import BusError, Gone, InvalidRequest, StoreUnavailable
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.model import Slot, Task

# As tasks go.  Those that go back are found at the second look at what waits.
FLOW = (State.SCHEDULED, State.READY, State.LEASED, State.DEAD, State.DONE, State.CANCELLED, State.EXPIRED)
BACK = (State.LEASED, State.READY, State.SCHEDULED, State.LEASED)
# So often at most: a task that is claimed and given back all the time may be missed by a look; by all, only by chance.
LOOKS = 8
# How often a person who looks on is told how far it is.
TELL_S = 0.5


def declare(parser: Parser) -> None:
    """Declare the options of `export`."""
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="tasks of these; of all if none is named")
    parser.add_argument("--state", default="", metavar="STATE", help=", ".join(State))
    parser.add_argument("--since", type=seconds, metavar="TIME", help="posted in the last 90, 5m, 2h, 3d")
    parser.add_argument(
        "--format", choices=exportforms.FORMS, metavar="FORMAT", help="jsonl (unless told), csv for a spreadsheet, md"
    )
    parser.add_argument("--output", type=word, metavar="FILE", help="write a file, which is there when it is whole")


def export(call: Call) -> int:
    """Write out tasks as they are read; what cannot be read is named, and the rest is written."""
    from mcp_bus.cli.interrupts import Interrupts
    from mcp_bus.cli.outfile import Outfile

    args, out = call.args, call.out
    finding.check_state(args.state)
    if out.as_json and not args.output and args.format not in (None, "jsonl"):
        msg = f"--json and --format {args.format} are two answers on one stdout"
        raise InvalidRequest(msg, hint="leave one of them out, or write the file with --output")
    # A signal must not leave half a file.
    with call.bus() as bus, Interrupts():
        for name in args.channels:
            meant.channel(bus, name)  # One that does not exist is worth an error.
        chosen = list(dict.fromkeys(args.channels)) or finding.queues(bus.store)
        tasks = Tasks(call, bus, chosen)
        target: AbstractContextManager[Callable[[str], None]] = nullcontext(lambda text: _say(call, text))
        if args.output:
            target = Outfile(call.config.cwd / args.output, bus=call.config.path, mark=bus.source.token(6))
        with target as write:
            form = exportforms.FORMS[args.format or "jsonl"]
            for text in form.head:
                write(text)
            for task in tasks:
                write(form.text(task))
    _ended(call, tasks)
    return ERROR if tasks.unread else OK


def _say(call: Call, text: str) -> None:
    call.out.line(text)
    call.out.flush()


def _ended(call: Call, tasks: Tasks) -> None:
    args, out = call.args, call.out
    many = f"{tasks.count} task{'' if tasks.count == 1 else 's'}"
    if args.output and out.as_json:
        out.json({"output": str(call.config.cwd / args.output), "tasks": tasks.count, "unread": tasks.unread})
    elif args.output:
        out.note(f"{many} written to {one_line(args.output)}")
    elif not tasks.count:
        out.note("nothing found")
    if tasks.unread:
        out.warn(
            f"mcp-bus: left out, for it could not be read: {len(tasks.unread)} of {len(tasks.unread) + tasks.count}"
        )


class Tasks:
    """The tasks that are asked for, each once and as it is when it is read; keeps only which it has had.

    Attributes:
        count: how many there were so far.
        unread: what could not be read so far: `what` it is, and `why`.
    """

    def __init__(self, call: Call, bus: Bus, channels: list[str]) -> None:
        """Look into `channels`."""
        args = call.args
        self.count = 0
        self.unread: list[dict[str, str]] = []
        self._bus = bus
        self._channels = channels
        self._states = [State(args.state)] if args.state else list(State)
        self._since = bus.source.now() - int(args.since * 1000) if args.since is not None else 0
        self._progress = Progress(call, sum(bus.store.count(c)[s] for c in channels for s in self._states))

    def __iter__(self) -> Iterator[Task]:
        """Read one task after the other: by channel, then by state."""
        for channel in self._channels:
            for task in self._of(channel):
                if task.state in self._states and task.body.created >= self._since:
                    self.count += 1
                    yield task
            for path in self._bus.store.strangers(channel):
                self._left_out(path, "it is no task of this bus")
        self._progress.end()

    def _of(self, channel: str) -> Iterator[Task]:
        had = set[str]()
        looks = [FLOW, *[BACK] * LOOKS]
        for states in looks:
            before = len(had)
            for slot in (
                slot for state in states if state in self._states for slot in self._bus.store.scan(channel, state)
            ):
                if slot.id in had:
                    continue
                had.add(slot.id)
                self._progress.step()
                task = self._read(slot)
                if task is not None:
                    yield task
            if states is BACK and len(had) == before:
                return

    def _read(self, slot: Slot) -> Task | None:
        try:
            task = self._bus.store.get(slot.id, near=slot)
        except Gone:
            return None  # Pruned since it was listed.
        except BusError as error:
            if isinstance(error, StoreUnavailable):
                self._bus.store.channels()  # Raises when the bus is what cannot be read.
            self._left_out(f"{slot.id} on {slot.channel}", str(error))
            return None
        if task is None:
            why = "it was put there by hand; a sweep takes it in, or puts it aside"
            self._left_out(f"{slot.id} on {slot.channel}", why)
        return access.shown(self._bus, task) if task is not None else None

    def _left_out(self, what: str, why: str) -> None:
        self._progress.clear()
        self.unread.append({"what": what, "why": why})
        self._progress.out.warn(f"mcp-bus: cannot read {one_line(what)}: {one_line(why)}")


class Progress:
    """How far it is, for a person at a terminal where no tasks appear."""

    def __init__(self, call: Call, total: int) -> None:
        """Tell of so many steps."""
        self.out = call.out
        shows = call.args.output or not call.out.columns()
        self._is_told = bool(shows) and not call.out.quiet and sys.stderr is not None and sys.stderr.isatty()
        self._total = total
        self._done = 0
        self._next = time.monotonic() + TELL_S
        self._is_shown = False

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        if self._is_told and time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL_S
            self._is_shown = True
            print(f"\r\x1b[2K{self._done:,} of {max(self._done, self._total):,}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Give the line free for something else."""
        if self._is_shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._is_shown = False

    end = clear


VERBS = {
    "export": Verb(
        declare,
        export,
        "mcp-bus export review --state done --since 7d --format csv --output review.csv\n"
        "mcp-bus export | gzip > all.jsonl.gz",
    )
}
