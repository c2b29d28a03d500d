"""worker: commands that do the tasks of a bus: one that is run here, or several that are kept alive."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli import pages
from mcp_bus.cli.arguments import Verb, positive, seconds, word, words
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, duration, one_line
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.find import short

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.model import Body
    from mcp_bus.workers.jobs import Recipe, Told
    from mcp_bus.workers.loop import Scope

ACTIONS = ("run",)
TIMEOUT_S = 1800.0


def declare(parser: Parser) -> None:
    """Declare the options of `worker`."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("names", nargs="*", metavar="CHANNEL", help="run: where to look; everywhere if none is named")
    parser.add_argument("--capability", type=words, metavar="X,Y", help="what it is able to do")
    parser.add_argument(
        "--preset", default="", metavar="NAME", help="an agent CLI: claude, codex, gemini, opencode, qwen"
    )
    parser.add_argument("--role", default="", metavar="NAME", help="agents/NAME.md in the bus says what it is to be")
    declare_running(parser, timeout=f"{duration(int(TIMEOUT_S * 1000))}")


def declare_running(parser: Parser, *, timeout: str) -> None:
    """Declare the options of whatever runs commands for what comes."""
    parser.add_argument("--concurrency", type=positive, default=1, metavar="N", help="so many at once (1)")
    parser.add_argument("--timeout", type=seconds, metavar="TIME", help=f"a command is ended after this ({timeout})")
    parser.add_argument(
        "--lease", type=seconds, default=120.0, metavar="TIME", help="of a claim; renewed by itself (2m)"
    )
    parser.add_argument("--tasks", type=positive, default=0, metavar="N", help="end after so many")
    parser.add_argument("--idle", type=seconds, default=0.0, metavar="TIME", help="end when nothing came for so long")
    parser.add_argument(
        "--drain", type=seconds, default=300.0, metavar="TIME", help="when told to end, let commands go on so long (5m)"
    )
    parser.add_argument("--cwd", type=word, metavar="DIR", help="where commands run; here unless told")
    parser.add_argument(
        "--allow-eval", action="append", default=[], metavar="SENDER", help="run what SENDER (a pattern) sends as eval"
    )


def worker(call: Call) -> int:
    """Do what is asked with workers."""
    return {"run": _run}[call.args.action](call)


def _run(call: Call) -> int:
    from mcp_bus.workers.loop import Scope

    args = call.args
    able = tuple(args.capability) if args.capability is not None else tuple(call.config["capabilities"])
    channels = tuple(args.names) or tuple(call.config["channels"])
    scope = Scope(channels, able, concurrency=args.concurrency, most=args.tasks, idle_s=args.idle, drain_s=args.drain)
    with call.bus(create=True) as bus:
        recipe = _recipe(call, bus)
    return work(call, recipe, scope)


def _recipe(call: Call, bus: Bus) -> Recipe:
    from mcp_bus.workers import readers
    from mcp_bus.workers.jobs import Recipe

    args, asked = call.args, tuple(call.args.command)
    if args.preset and args.preset not in readers.PRESETS:
        msg = f"there is no preset {args.preset[:40]!r}"
        raise InvalidRequest(msg, hint=f"presets: {', '.join(readers.PRESETS)}; or name the command after --")
    if args.preset:
        asked = (*readers.PRESETS[args.preset].words, *asked)
    if not asked:
        msg = "there is no command to run"
        raise InvalidRequest(msg, hint="mcp-bus worker run --capability review -- claude -p, or --preset claude")
    reader = args.preset or readers.named(asked)
    folder, environment = place(call, asked)
    return Recipe(
        asked,
        folder,
        environment,
        reader,
        _role(bus, args.role),
        corrects=reader in readers.PRESETS,
        timeout_s=TIMEOUT_S if args.timeout is None else args.timeout,
        lease_s=args.lease,
        evals=tuple(args.allow_eval),
    )


def _role(bus: Bus, name: str) -> str:
    """Return the role of a name, or of the agent itself if it has one.

    Raises:
        NotFound: it was named, and there is none.
    """
    text = bus.store.records.text("agents", name or bus.identity.agent)
    if name and text is None:
        msg = f"there is no role {name[:60]!r}"
        raise NotFound(msg, hint=f"write agents/{one_line(name, 60)}.md in the bus directory")
    return text or ""


def place(call: Call, asked: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """Return where a command runs and what it sees.

    Raises:
        InvalidRequest: there is no such folder or command.
    """
    import shutil
    from pathlib import Path

    from mcp_bus.config import environment

    folder, seen = Path(call.args.cwd or Path.cwd()).absolute(), environment()
    if not folder.is_dir():
        msg = f"{str(folder)[:200]!r} is no folder"
        raise InvalidRequest(msg, hint="--cwd names where commands run")
    program = str(folder / asked[0]) if "/" in asked[0] else asked[0]
    if shutil.which(program, path=seen.get("PATH")) is None:
        msg = f"there is no command {asked[0][:200]!r}, or it may not be run"
        raise InvalidRequest(msg, hint="name one that is on PATH, or its path; chmod +x makes a script a command")
    return folder, seen


# --- running --------------------------------------------------------------------------------------------


class _Watcher(NamedTuple):
    """Tells a person what a worker does, a line for each task that begins and ends."""

    call: Call

    def begun(self, body: Body) -> None:
        """Tell that a command runs for a task or message."""
        self.call.out.note(f"{short(body.id)} begun: {one_line(body.title or body.content, 100)}")

    def ended(self, body: Body, told: Told) -> None:
        """Tell what became of it."""
        took = ", ".join(pages.amount(name, value) for name, value in told.usage.items())
        words = [f"{short(body.id)} {told.fate}", f"({took})" if took else ""]
        why = f": {one_line(told.why, 300)}" if told.why else ""
        self.call.out.note(" ".join(filter(None, words)) + why)

    def say(self, text: str) -> None:
        """Tell of trouble with the bus, or that it was told to end."""
        self.call.out.warn(f"mcp-bus: {clean(text)}")


def work(call: Call, recipe: Recipe, scope: Scope) -> int:
    """Run a worker until it ends; tell what it did."""
    from mcp_bus.config import Config, open_from
    from mcp_bus.workers.loop import Loop

    settings = call.config
    if not settings["session"]:  # Its threads are one session.
        from mcp_bus.clock import System

        settings = Config({**settings.values, "session": System().token(4)}, settings.origins, settings.cwd)

    def opened() -> Bus:
        return open_from(settings, tell=lambda _: None)

    loop = Loop(opened, settings.path, recipe, scope, _Watcher(call))
    before = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        del number
        loop.stop()

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            before[getattr(signal, name)] = signal.signal(getattr(signal, name), stop)
    try:
        call.out.note(
            f"working on {', '.join(scope.channels) or 'every channel'}; Ctrl-C ends it after what it works on"
        )
        loop.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if call.out.as_json:
        call.out.json({"tasks": dict(loop.fates), "usage": dict(loop.usage)})
    else:
        did = ", ".join(f"{count} {fate}" for fate, count in sorted(loop.fates.items())) or "no task came"
        took = ", ".join(pages.amount(name, value) for name, value in sorted(loop.usage.items()))
        call.out.line(f"{did}{f' ({took})' if took else ''}")
    return OK


VERBS = {
    "worker": Verb(
        declare,
        worker,
        "mcp-bus worker run review --capability python -- claude -p\nmcp-bus worker run --preset codex --role reviewer",
        takes_command=True,
    )
}
