"""watch: a command for each message of a channel, a topic or an inbox, as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import access
from mcp_bus.cli import meant, running
from mcp_bus.cli.arguments import Verb, word
from mcp_bus.cli.output import one_line
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.names import BROADCAST, HUMAN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.model import Body
    from mcp_bus.workers.jobs import Recipe

TIMEOUT_S = 60.0
# What stands for the inbox of the agent that watches.
INBOX = "@inbox"


def declare(parser: Parser) -> None:
    """Declare the options of `watch`."""
    parser.add_argument(
        "name", metavar="NAME", help="a channel, a topic (#NAME makes it), broadcast, or @inbox: this agent's own"
    )
    parser.add_argument("--handler", "-H", type=word, metavar="FILE", help="the command, if it is none with arguments")
    parser.add_argument("--type", action="append", default=[], metavar="TYPE", help="only messages of this type")
    parser.add_argument("--match", action="append", default=[], metavar="FIELD=VALUE", help="only with this field")
    parser.add_argument("--reply", action="store_true", help="of messages: send what the command prints to who wrote")
    running.declare(parser, timeout="1 min")


def watch(call: Call) -> int:
    """Run a command for what comes."""
    asked = tuple(call.args.command or ())
    if bool(call.args.handler) == bool(asked):
        msg = "there is no command to run" if not asked else "there are two commands to run"
        raise InvalidRequest(msg, hint="--handler FILE, or -- COMMAND with its arguments")
    asked = asked or (call.args.handler,)
    match = dict(running.pair(text) for text in call.args.match)
    is_topic = call.args.name.startswith("#")
    name = call.args.name = call.args.name.removeprefix("#")
    with call.bus(create=True) as bus:
        if name == HUMAN:
            msg = "the human's inbox is the human's to read"
            raise InvalidRequest(msg, hint="watch @inbox with --agent human, if you are")
        is_queue = not is_topic and name not in (INBOX, BROADCAST) and _is_queue(bus, name)
        closed = access.keyless(bus, name, bus.store.guarded(name)) if is_queue else ""
    if closed:
        call.out.warn(f"mcp-bus: no task of it will come: {one_line(closed, 400)}")
    recipe = running.recipe(call, asked, TIMEOUT_S)._replace(is_handler=True)
    if is_queue:
        return _queue(call, recipe, match)
    return _messages(call, recipe, match)


def _is_queue(bus: Bus, name: str) -> bool:
    try:
        return meant.channel(bus, name).kind == "queue"
    except NotFound as error:
        error.hint += f"; a topic is made by '#{name}', a queue by the first post"
        raise


def wanted(types: list[str], match: Mapping[str, str]) -> Callable[[Body], bool] | None:
    """Return what tells whether a message is to be handled; None for any."""
    from mcp_bus import cursors
    from mcp_bus.filters import fields

    if not types and not match:
        return None
    cursor = cursors.Cursor("", match=dict(match))

    def is_wanted(body: Body) -> bool:
        return (not types or body.type in types) and (not match or cursors.wants(cursor, fields(body)))

    return is_wanted


def _queue(call: Call, recipe: Recipe, match: Mapping[str, str]) -> int:
    from mcp_bus.workers.loop import Loop, Scope

    args = call.args
    if args.reply:
        msg = "--reply goes with messages: the result of a task is there for who waits for it"
        raise InvalidRequest(msg, hint="leave it out")
    scope = Scope(
        (args.name,), tuple(call.config["capabilities"]), concurrency=args.concurrency,
        only=wanted(args.type, match), most=args.tasks, idle_s=args.idle, drain_s=args.drain,
    )  # fmt: skip
    settings = running.one_session(call.config)
    loop = Loop(lambda: running.opened(settings), settings.path, recipe, scope, running.Watcher(call))
    return running.work(call, loop, f"handling what comes on {args.name}")


def _messages(call: Call, recipe: Recipe, match: Mapping[str, str]) -> int:
    from mcp_bus.workers.letters import Letters, Source

    args = call.args
    settings = running.one_session(call.config)
    if args.name != INBOX and settings.origins["agent"] != "flag":
        # Each handler is a reader of its own: several for one topic, in one repository, each get all of it.
        who = f"{running.agent(call)}/{recipe.words[0].rpartition('/')[2]}"
        settings = settings.replaced("handler", agent=who)
    with running.opened(settings) as bus:
        channels = tuple(bus.mail.inboxes) if args.name == INBOX else (args.name,)
        _subscribe(bus, args.name, match, args.type)
        source = Source(
            args.name, channels, replies=args.reply, concurrency=args.concurrency, most=args.tasks, idle_s=args.idle,
            drain_s=args.drain,
        )  # fmt: skip
        letters = Letters(bus, settings.path, recipe, source, running.Watcher(call))
        where = "its inbox" if args.name == INBOX else args.name
        return running.work(call, letters, f"handling what comes on {where}, as {bus.identity.agent}")


def _subscribe(bus: Bus, name: str, match: Mapping[str, str], types: list[str]) -> None:
    if name == INBOX:
        if match or types:
            msg = "an inbox is read whole: what is not handled would wait there for ever"
            raise InvalidRequest(msg, hint="leave --match and --type out, and let the command decide")
        return
    if len(types) > 1:
        msg = "of a topic one type can be asked for"
        raise InvalidRequest(msg, hint="watch it once for each")
    bus.mail.topics.subscribe(name, {**match, **({"type": types[0]} if types else {})})


VERBS = {
    "watch": Verb(
        declare,
        watch,
        "mcp-bus watch app-agent --handler ./on-signal.sh\n"
        "mcp-bus watch builds --match signal=build_complete -- python3 deploy.py",
        takes_command=True,
    )
}
