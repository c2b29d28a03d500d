"""log, tail: the timeline of a bus, from its journal.  For people: nothing that happened is decided by it."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import meant
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, cut, one_line
from mcp_bus.errors import StoreUnavailable
from mcp_bus.find import short
from mcp_bus.stores.fsops import Fs
from mcp_bus.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser

Event = dict[str, Any]

MANY = 50
# What is read of a file at once.
PART = 1 << 20
# A line of the journal has some 200 bytes; what is longer is none.
LONGEST = 4096
# Of an event, what is shown; without one of them a line is no event.
TEXTS = ("at", "id", "channel", "from", "to", "by")
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def declare(parser: Parser) -> None:
    """Declare the options of `log` and `tail`."""
    parser.add_argument("--follow", "-f", action="store_true", help="go on, and show what happens as it happens")
    parser.add_argument("--since", type=seconds, metavar="TIME", help="what happened in the last 90, 5m, 2h, 3d")
    parser.add_argument("--channel", default="", metavar="NAME", help="only there")
    parser.add_argument(
        "--limit", "-n", type=int, metavar="N", help=f"the latest so many ({MANY}, with --since all; 0 for all)"
    )


def log(call: Call) -> int:
    """Show what happened, oldest first."""
    args, out = call.args, call.out
    with call.bus() as bus:
        if call.config.remote is not None:
            _of_this_host(call, bus)
        since = stamp(max(0, bus.source.now() - int(args.since * 1000))) if args.since is not None else ""
        limit = (0 if since else MANY) if args.limit is None else max(0, args.limit)
        journal = Journal(call.config.path / "journal")
        found = journal.latest(since, args.channel, limit)
        if args.channel and not found:
            meant.channel(bus, args.channel)  # One that does not exist is worth an error.
        if out.as_json and not args.follow:
            out.json({"events": found})
            return OK
        _tell(call, found)
        if args.follow:
            _follow(call, journal)
        elif not found:
            out.note("nothing happened" + (" since then" if since else " yet"))
    return OK


def _of_this_host(call: Call, bus: Bus) -> None:
    """Say what a journal does not have, on a bus that several hosts share."""
    from mcp_bus.cli.aside import git_here, head_here
    from mcp_bus.stores.git.store import GitStore

    assert isinstance(bus.store, GitStore)
    call.out.note("what was done through this host; what all hosts did is in the commits")
    call.out.note(f"  next: {clean(git_here(bus.store))} log --date=iso --format='%ad %an: %s' {head_here()}")


def _follow(call: Call, journal: Journal) -> None:
    """Show events as they are written; ends by a signal, or when nobody reads them."""
    from mcp_bus.notify import Hint
    from mcp_bus.watch import interval

    root = call.config.path
    call.out.flush()
    with Hint(()) as hint:
        while not _is_left():
            # Watch before looking: what is written after the look then ends the wait.
            hint.watch([journal.folder])
            if not (root / "bus.json").exists():
                msg = f"there is no bus at {str(root)!r} any more"
                raise StoreUnavailable(msg, hint="run `mcp-bus init` to make one")
            _tell(call, journal.new(call.args.channel))
            call.out.flush()
            # A line is told of when its writer closes the file, so a server's come with the next look.
            hint.wait(interval(hint))
    raise BrokenPipeError


def _is_left() -> bool:
    """Tell whether nobody reads stdout any more, which else only the next event would find out."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(told & select.POLLERR for _, told in poll.poll(0))


def _tell(call: Call, events: list[Event]) -> None:
    for event in events:
        if call.out.as_json:
            call.out.json(event, is_line=True)
        else:
            call.out.line(line(event))


def line(event: Event) -> str:
    """Return an event as people read it."""
    text = {name: one_line(event[name], 80) for name in TEXTS}
    when = text["at"][:19].replace("T", " ")
    return (
        f"{when}  {short(text['id']):>8}  {cut(text['channel'], 24):<12}  {text['from'] or '-':>9} -> {text['to']:<9}"
        f"  {text['by']}"
    ).rstrip()


class Journal:
    """Reads the files of a journal, each from where it was read to.

    Files that cannot be read and lines that were cut off are passed over: a journal may be deleted
    or end in the middle of a line at any time.
    """

    def __init__(self, folder: Path) -> None:
        """Read `folder`, which may be missing."""
        self.folder = folder
        self._at: dict[str, int] = {}

    def latest(self, since: str, channel: str, limit: int) -> list[Event]:
        """Return the latest events, oldest first; what is older than `since` or over the limit is never shown."""
        days: dict[str, list[str]] = {}
        for name in self._names():
            days.setdefault(_day(name), []).append(name)
        found: list[Event] = []
        for day in sorted(days, reverse=True):
            if (limit and len(found) >= limit) or (since and day < since[:10]):
                break
            kept: deque[Event] = deque(self._events(days.pop(day), since, channel), limit or None)
            found = _in_order(kept) + found
        for name in (name for names in days.values() for name in names):
            self._at[name] = self._size(name)
        return found[-limit:] if limit else found

    def new(self, channel: str) -> list[Event]:
        """Return what was written since the last look."""
        return _in_order(self._events(self._names(), "", channel))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the folder itself, never what a symlink of its name leads to.

        Raises:
            OSError: it is missing, or is none.
        """
        fs = Fs()
        above = fs.open_dir(str(self.folder.parent.resolve()), None)
        try:
            at = fs.open_dir(self.folder.name, above)
        finally:
            fs.close_dir(above)
        try:
            yield at
        finally:
            fs.close_dir(at)

    def _names(self) -> list[str]:
        try:
            with self._opened() as at:
                return sorted(name for name in os.listdir(at) if name.endswith(".jsonl"))  # noqa: PTH208  an open folder
        except OSError:
            return []

    def _size(self, name: str) -> int:
        try:
            with self._opened() as at:
                return os.stat(name, dir_fd=at, follow_symlinks=False).st_size
        except OSError:
            return 0

    def _events(self, names: list[str], since: str, channel: str) -> Iterator[Event]:
        for name in names:
            for data in self._lines(name):
                event = parsed(data)
                if event and event["at"] >= since and channel in ("", event["channel"]):
                    yield event

    def _lines(self, name: str) -> Iterator[bytes]:
        """Return the whole lines after those that were read; what has no end yet waits for it."""
        try:
            with self._opened() as folder:
                fd = os.open(name, _FLAGS, dir_fd=folder)
        except OSError:
            return
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return
            at = self._at.get(name, 0)
            if about.st_size < at:  # It was deleted and begun anew.
                at = 0
            while part := os.pread(fd, PART, at):
                end = part.rfind(b"\n") + 1
                if not end and len(part) <= LONGEST:
                    break
                at += end or len(part)
                yield from part[:end].splitlines()
            self._at[name] = at
        except OSError:
            return
        finally:
            os.close(fd)


def _day(name: str) -> str:
    return name.removesuffix(".jsonl")[-10:]


def _in_order(events: Iterator[Event] | deque[Event]) -> list[Event]:
    return sorted(events, key=lambda event: str(event["at"]))


def parsed(data: bytes) -> Event | None:
    """Return the event of a line, or None when it is none."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in TEXTS):
        return None
    return event


VERBS = {
    "log": Verb(declare, log, "mcp-bus log --since 10m\nmcp-bus log --follow --channel review"),
    "tail": Verb(declare, log, "mcp-bus tail -n 5\nmcp-bus tail -f"),
}
