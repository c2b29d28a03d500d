"""The two tools of the mailbox: send, and read."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, cast

import anyio

from mcp_bus import names
from mcp_bus.errors import InvalidRequest
from mcp_bus.server import letters

if TYPE_CHECKING:
    from mcp_bus.mail import Delivery
    from mcp_bus.model import PostOptions
    from mcp_bus.server import args
    from mcp_bus.server.call import Call

# What one answer shows: at most so many messages, and no more once their texts have so many characters.
LIMIT = 10
ROOM = 4500
PATH = "read_inbox"


async def send_message(call: Call, given: args.SendMessage) -> str:
    """Queue a message."""
    named = {name: getattr(given.options, name) for name in given.options.model_fields_set}
    options: dict[str, Any] = named | {"type": given.type, "reply_to": given.reply_to}
    done = call.bus.mail.send(given.to, given.body, supersedes=given.supersedes, **cast("PostOptions", options))
    return letters.sent(call.bus, done, call.ways)


async def read_inbox(call: Call, given: args.ReadInbox) -> str:
    """Ack, subscribe, then show what is unread, waiting for something."""
    mail, start = call.bus.mail, anyio.current_time()
    does_more = given.ack or given.ids or given.subscribe or given.unsubscribe
    # Who came to say something need not wait for something else, unless it says so.
    wait_s = call.wait_s(0.0 if does_more and given.wait_s is None else given.wait_s)
    told = _change(call, given)

    def look() -> list[Delivery] | None:
        return call.session.bus().mail.read(limit=LIMIT, room=ROOM, path=PATH) or None

    async def progress(waited: float) -> None:
        await call.progress(waited, wait_s, "waiting for a message")

    channels = [*mail.inboxes, names.BROADCAST, *mail.topics.subscribed()]
    made = await call.session.waker.wait_for(
        call.session.bus, look, channels=channels, wait_s=wait_s, progress=progress
    )
    if made is None:
        return letters.empty(call.session.bus(), told, anyio.current_time() - start, call.ways)
    shown = frozenset(item.body.id for item in made)
    call.session.offered(shown, call.request_id, anyio.current_time() - start)
    try:
        await anyio.lowlevel.checkpoint()
    except anyio.get_cancelled_exc_class():
        call.session.take_back(shown, "its reading was cancelled")
        raise
    bus = call.session.bus()
    return letters.read(bus, made, told, bus.source.token(6), call.ways)


def _change(call: Call, given: args.ReadInbox) -> list[str]:
    """Do what a call says before it reads; return what came of it."""
    mail, told = call.bus.mail, list[str]()
    subscription = _subscription(given.subscribe) if given.subscribe else None
    if given.ack or given.ids:
        told += letters.acked(mail.ack([*(mail.offered() if given.ack else ()), *given.ids]))
    if given.unsubscribe:
        mail.topics.unsubscribe(given.unsubscribe.removeprefix("#"))
        told.append(f"no longer subscribed to {given.unsubscribe.removeprefix('#')}")
    if subscription is not None:
        topic, match = subscription
        mail.topics.subscribe(topic, match)
        told.append(
            f"subscribed to {topic}"
            + (f", where {'all fields match' if len(match) > 1 else 'the field matches'}" if match else "")
        )
    return told


def _subscription(text: str) -> tuple[str, dict[str, str]]:
    """Read `topic field=value …`; quotes keep a value with blanks together.

    Raises:
        InvalidRequest: it is not that.
    """
    try:
        topic, *wanted = shlex.split(text)
    except ValueError:
        topic, wanted = "", []
    pairs = [word.partition("=") for word in wanted]
    if not topic or not all(name and sign for name, sign, _ in pairs):
        msg = f"{text[:80]!r} is no subscription"
        raise InvalidRequest(msg, hint='a topic, or a topic and fields, such as "builds signal=failed"')
    return topic.removeprefix("#"), {name: value for name, _, value in pairs}
