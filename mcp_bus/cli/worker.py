"""worker: commands that do the tasks of a bus: one that is run here, or several that are kept alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import access
from mcp_bus.cli import running
from mcp_bus.cli.arguments import Verb, positive, words
from mcp_bus.cli.output import clean, duration, one_line
from mcp_bus.errors import InvalidRequest
from mcp_bus.find import step, why_empty

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.workers.jobs import Recipe

ACTIONS = ("run", "up", "ps", "logs", "stop")
TIMEOUT_S = 1800.0


def declare(parser: Parser) -> None:
    """Declare the options of `worker`."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("names", nargs="*", metavar="NAME", help="run: channels; up: a file; logs, stop: workers")
    parser.add_argument("--capability", type=words, metavar="X,Y", help="what it is able to do")
    parser.add_argument(
        "--preset", default="", metavar="NAME", help="an agent CLI: claude, codex, gemini, opencode, qwen"
    )
    parser.add_argument("--role", default="", metavar="NAME", help="agents/NAME.md in the bus says what it is to be")
    parser.add_argument("--role-file", metavar="PATH", help="a text of yours says it, and none in the bus")
    parser.add_argument("--lines", "-n", type=positive, default=40, metavar="N", help="logs: the last so many (40)")
    parser.add_argument("--follow", "-f", action="store_true", help="logs: go on")
    parser.add_argument("--stdin", choices=("prompt", "body"), default="prompt", help="run: what a command reads")
    running.declare(parser, timeout=f"{duration(int(TIMEOUT_S * 1000))}")


def worker(call: Call) -> int:
    """Do what is asked with workers."""
    if call.args.action == "run":
        return _run(call)
    from mcp_bus.cli import fleets

    if call.args.command is not None:
        msg = f"worker {call.args.action} takes no command"
        raise InvalidRequest(msg, hint="mcp-bus worker --help")
    return {"up": fleets.up, "ps": fleets.ps, "logs": fleets.logs, "stop": fleets.stop}[call.args.action](call)


def _run(call: Call) -> int:
    from mcp_bus.workers.loop import Loop, Scope

    args = call.args
    able = tuple(args.capability) if args.capability is not None else tuple(call.config["capabilities"])
    channels = tuple(args.names) or tuple(call.config["channels"])
    scope = Scope(channels, able, concurrency=args.concurrency, most=args.tasks, idle_s=args.idle, drain_s=args.drain)
    with call.bus(create=True) as bus:
        recipe, known = _recipe(call, bus), bus.store.channels()
        closed = [access.keyless(bus, name, bus.store.guarded(name)) for name in channels or known if name in known]
    for name in [name for name in channels if name not in known]:
        call.out.note(f"there is no channel {one_line(name, 60)} yet; waiting for its first task")
    for why in filter(None, closed):
        call.out.warn(f"mcp-bus: no task of it will come: {one_line(why, 400)}")
    settings = running.one_session(call.config)
    loop = Loop(lambda: running.opened(settings), settings.path, recipe, scope, running.Watcher(call))
    code = running.work(call, loop, f"working on {', '.join(channels) or 'every channel'}")
    if not loop.fates and not call.out.as_json:
        with running.opened(settings) as bus:
            call.out.note(clean(why_empty(bus, channels, able)))
            if helps := step(bus, channels):
                call.out.note(f"  next: {clean(call.aimed(helps))}")
    return code


def _recipe(call: Call, bus: Bus) -> Recipe:
    from mcp_bus.workers import readers

    args, asked = call.args, tuple(call.args.command or ())
    if args.preset and args.preset not in readers.PRESETS:
        msg = f"there is no preset {args.preset[:40]!r}"
        raise InvalidRequest(msg, hint=f"presets: {', '.join(readers.PRESETS)}; or name the command after --")
    if args.preset:
        asked = (*readers.PRESETS[args.preset].words, *asked)
    if not asked:
        msg = "there is no command to run"
        raise InvalidRequest(msg, hint="mcp-bus worker run --capability review -- claude -p, or --preset claude")
    reader = args.preset or readers.named(asked)
    made = running.recipe(call, asked, TIMEOUT_S)
    is_agent, is_plain = reader in readers.PRESETS, args.stdin == "body"
    role = running.own_role(args.role_file) if args.role_file else running.role(bus, args.role)
    return made._replace(reader=reader, role=role, corrects=is_agent and not is_plain, is_plain=is_plain)


VERBS = {
    "worker": Verb(
        declare,
        worker,
        "mcp-bus worker run review --capability python -- claude -p\nmcp-bus worker run --preset codex --role reviewer",
        takes_command=True,
    )
}
