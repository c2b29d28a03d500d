"""abq's `watch`: a handler for each message, whose output is the response, also when it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli import running
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, cut

if TYPE_CHECKING:
    import argparse

    from mcp_bus.bus import Bus
    from mcp_bus.cli.output import Out
    from mcp_bus.config import Config
    from mcp_bus.model import Body
    from mcp_bus.workers.fates import Told


class _Watcher(NamedTuple):
    """Tells what abq tells."""

    out: Out

    def begun(self, body: Body) -> None:
        """Tell that a handler runs."""
        self.out.line(f"Processing: {body.id}")
        self.out.flush()

    def ended(self, body: Body, told: Told) -> None:
        """Tell how it ended."""
        del body
        how = "success" if told.fate == "done" else "error"
        self.out.line(f"  -> {how}: {clean(cut(told.why or told.output, 100))}")
        self.out.flush()

    def say(self, text: str) -> None:
        """Tell of trouble."""
        self.out.warn(f"abq: {clean(text)}")


def watch(args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    """Run the handler until it is told to end."""
    from mcp_bus.workers.letters import Letters, Source
    from mcp_bus.workers.loop import Loop, Scope

    recipe = running.command(args.handler, args.timeout, tuple(args.allow_eval))
    settings, watcher = running.one_session(settings), _Watcher(out)
    if bus.store.policy(args.channel).kind == "queue":
        recipe = recipe._replace(answers=True)
        loop = Loop(lambda: running.opened(settings), settings.path, recipe, Scope((args.channel,)), watcher)
        with running.signals(loop):
            loop.run()
        return OK
    who = f"{bus.identity.agent}/{args.handler.rpartition('/')[2]}"
    settings = settings.replaced(settings.origins["agent"], agent=who)
    with running.opened(settings) as reader:
        reader.mail.topics.subscribe(args.channel)
        letters = Letters(reader, settings.path, recipe, Source(args.channel, (args.channel,)), watcher)
        with running.signals(letters):
            letters.run()
    return OK
