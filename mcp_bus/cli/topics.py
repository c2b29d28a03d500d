"""subscribe, unsubscribe: the topics that an agent, or the human, reads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.cli import running, speaker
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import one_line
from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser


def declare_subscribe(parser: Parser) -> None:
    """Declare the options of `subscribe`."""
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help="what to read; made if it is new; none: list them")
    parser.add_argument(
        "match", nargs="*", metavar="FIELD=VALUE", help="only messages with these, as signal=build_done"
    )


def subscribe(call: Call) -> int:
    """Read a topic, or list what is read."""
    call = speaker.of(call)
    match = dict(running.pair(text) for text in call.args.match)
    with call.bus(create=True) as bus:
        if call.args.topic:
            with suppress(BusError), speaker.present(bus):  # Who reads it is known by name from then on.
                pass
            bus.mail.topics.subscribe(call.args.topic, match)
        found, every = bus.mail.topics.subscribed(), bus.mail.topics.all()
    if call.out.as_json:
        call.out.json(
            {
                "subscribed": [{"topic": name, "match": dict(cursor.match)} for name, cursor in found.items()],
                "topics": every,
            }
        )
        return OK
    for name, cursor in found.items():
        wanted = " ".join(f"{key}={value}" for key, value in cursor.match.items())
        call.out.line(f"{name}  {one_line(wanted)}".rstrip())
    others = [name for name in every if name not in found]
    if others or not found:
        call.out.note(
            f"not read: {', '.join(others)}" if others else "no topics yet; `mcp-bus subscribe TOPIC` makes one"
        )
    return OK


def declare_unsubscribe(parser: Parser) -> None:
    """Declare the options of `unsubscribe`."""
    parser.add_argument("topic", metavar="TOPIC", help="what to read no longer")


def unsubscribe(call: Call) -> int:
    """Read a topic no longer."""
    call = speaker.of(call)
    with call.bus() as bus:
        bus.mail.topics.unsubscribe(call.args.topic)
    call.out.json({"unsubscribed": call.args.topic}) if call.out.as_json else call.out.note("unsubscribed")
    return OK


VERBS = {
    "subscribe": Verb(declare_subscribe, subscribe, "mcp-bus subscribe builds signal=build_complete"),
    "unsubscribe": Verb(declare_unsubscribe, unsubscribe, "mcp-bus unsubscribe builds"),
}
