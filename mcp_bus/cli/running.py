"""What `worker` and `watch` share: options, the command's place, signals, and what a person is told meanwhile."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mcp_bus.cli import pages
from mcp_bus.cli.arguments import positive, seconds, word
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, one_line
from mcp_bus.encrypted import PRIVATE
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.find import short

if TYPE_CHECKING:
    from argparse import Namespace
    from collections import Counter
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.config import Config
    from mcp_bus.model import Body
    from mcp_bus.workers.fates import Told
    from mcp_bus.workers.jobs import Recipe

# Bytes of a role, as many as one in the bus may have.
MAX_ROLE = 64 * 1024


def declare(parser: Parser, *, timeout: str) -> None:
    """Declare the options of whatever runs commands for what comes."""
    parser.add_argument("--concurrency", type=positive, default=1, metavar="N", help="so many at once (1)")
    parser.add_argument("--timeout", "-t", type=seconds, metavar="TIME", help=f"ends a command ({timeout})")
    parser.add_argument("--lease", type=seconds, default=120.0, metavar="TIME", help="of a claim; renews itself (2m)")
    parser.add_argument("--tasks", type=positive, default=0, metavar="N", help="end after so many")
    parser.add_argument("--idle", type=seconds, default=0.0, metavar="TIME", help="end when nothing came for so long")
    parser.add_argument(
        "--drain", type=seconds, default=300.0, metavar="TIME", help="when told to end, let commands go on so long (5m)"
    )
    parser.add_argument("--cwd", type=word, metavar="DIR", help="where commands run; here unless told")
    parser.add_argument(
        "--allow-eval", action="append", default=[], metavar="SENDER", help="run what SENDER (a pattern) sends as eval"
    )
    parser.add_argument("--leash", type=int, default=-1, help="a descriptor: when it is closed, the worker ends")


def recipe(call: Call, asked: tuple[str, ...], timeout_s: float) -> Recipe:
    """Return how a command is run, as the options say.

    Raises:
        InvalidRequest: there is no such folder or command.
    """
    return _recipe(call.args, asked, timeout_s)


def _recipe(args: Namespace, asked: tuple[str, ...], timeout_s: float) -> Recipe:
    from pathlib import Path

    from mcp_bus.config import environment
    from mcp_bus.workers.jobs import Recipe

    folder, seen = Path(args.cwd or Path.cwd()).absolute(), environment()
    seen.pop("MCP_BUS_SESSION", None)  # What a command starts is a session of its own.
    program(asked[0], folder, seen)
    timeout = timeout_s if args.timeout is None else args.timeout
    return Recipe(asked, folder, seen, timeout_s=timeout, lease_s=args.lease, evals=tuple(args.allow_eval))


def program(word: str, folder: Path, seen: Mapping[str, str]) -> None:
    """Make sure that a command can be started in a folder.

    Raises:
        InvalidRequest: there is no such folder or command.
    """
    import shutil

    if not folder.is_dir():
        msg = f"{str(folder)[:200]!r} is no folder"
        raise InvalidRequest(msg, hint="--cwd names where commands run")
    if shutil.which(str(folder / word) if "/" in word else word, path=seen.get("PATH")) is None:
        msg = f"there is no command {word[:200]!r}, or it may not be run"
        raise InvalidRequest(msg, hint="name one that is on PATH, or its path; chmod +x makes a script a command")


def command(handler: str, timeout_s: float, evals: tuple[str, ...]) -> Recipe:
    """Return how a handler is run here.

    Raises:
        InvalidRequest: there is no such command.
    """
    import argparse

    args = argparse.Namespace(cwd=None, timeout=timeout_s, lease=120.0, allow_eval=list(evals))
    return _recipe(args, (handler,), timeout_s)._replace(is_handler=True)


def role(bus: Bus, name: str) -> str:
    """Return the role of a name, or of the agent itself if it has one.

    It is by whoever can write the bus, and an agent obeys its role: `own_role` is for who trusts those less.

    Raises:
        NotFound: it was named, and there is none.
    """
    text = bus.store.records.text("agents", name or bus.identity.agent)
    if name and text is None:
        msg = f"there is no role {name[:60]!r}"
        raise NotFound(msg, hint=f"write agents/{one_line(name, 60)}.md in the bus directory")
    return text or ""


def own_role(path: str) -> str:
    """Return a role that the user keeps outside the bus.

    Raises:
        InvalidRequest: it is no text file, or has more than 64 KiB.
    """
    from pathlib import Path

    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_ROLE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the role {path[:200]!r} cannot be read: {error}"
        raise InvalidRequest(msg, hint="name a text file") from None
    if len(text.encode()) > MAX_ROLE:
        msg = f"the role {path[:200]!r} has more than {MAX_ROLE} bytes"
        raise InvalidRequest(msg, hint="shorten it")
    return text


def pair(text: str) -> tuple[str, str]:
    """Return a field and its value, `signal=build_complete`.

    Raises:
        InvalidRequest: it is something else.
    """
    name, equals, value = text.partition("=")
    if name and equals:
        return name, value
    msg = f"{text[:60]!r} is not a field and its value"
    raise InvalidRequest(msg, hint="for example signal=build_complete")


def agent(call: Call) -> str:
    """Return the name under which a verb speaks."""
    from mcp_bus.config import agent_of

    return agent_of(call.config)[0]


def one_session(settings: Config) -> Config:
    """Return settings under which every thread of a process speaks as the same session."""
    from mcp_bus.clock import System

    if settings["session"]:
        return settings
    return settings.replaced(settings.origins["session"], session=System().token(4))


def opened(settings: Config) -> Bus:
    """Open the bus once more, for another thread."""
    from mcp_bus.config import open_from

    return open_from(settings, tell=lambda _: None)


class Watcher(NamedTuple):
    """Tells a person what is done, a line for each task or message that begins and ends."""

    call: Call

    def begun(self, body: Body) -> None:
        """Tell that a command runs for a task or message."""
        what = "(encrypted)" if body.encrypted else body.title or body.content
        self.call.out.note(f"{short(body.id)} begun: {one_line(what, 100)}")

    def ended(self, body: Body, told: Told) -> None:
        """Tell what became of it."""
        took = ", ".join(pages.amount(name, value) for name, value in told.usage.items())
        words = [f"{short(body.id)} {told.fate}", f"({took})" if took else ""]
        why = f": {one_line(PRIVATE if body.encrypted else told.why, 300)}" if told.why else ""
        self.call.out.note(" ".join(filter(None, words)) + why)

    def say(self, text: str) -> None:
        """Tell of trouble with the bus, or that it was told to end."""
        self.call.out.warn(f"mcp-bus: {clean(text)}")


class Stoppable(Protocol):
    """Something that can be told to end, by a signal handler too."""

    def stop(self) -> None:
        """Begin to end."""
        ...


class Runner(Stoppable, Protocol):
    """Something that works until it is told to end."""

    fates: Counter[str]
    usage: Counter[str]

    def run(self, leash: int = -1) -> None:
        """Work."""
        ...


@contextmanager
def signals(runner: Stoppable) -> Iterator[None]:
    """Let signals that end a process stop a runner instead, while entered."""
    before: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        del number
        runner.stop()

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        # What the caller chose to ignore (nohup) stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(call: Call, runner: Runner, what: str) -> int:
    """Run until it ends; tell what it did."""
    call.out.note(f"{what}; Ctrl-C ends it after what it works on")
    with signals(runner):
        runner.run(call.args.leash)
    if call.out.as_json:
        call.out.json({"tasks": dict(runner.fates), "usage": dict(runner.usage)})
        return OK
    did = ", ".join(f"{count} {fate}" for fate, count in sorted(runner.fates.items())) or "nothing came"
    took = ", ".join(pages.amount(name, value) for name, value in sorted(runner.usage.items()))
    call.out.line(f"{did}{f' ({took})' if took else ''}")
    return OK
