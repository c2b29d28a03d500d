"""send, inbox, trace: messages between agents, and to the human."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus import access
from mcp_bus.cli import fields, speaker
from mcp_bus.cli.arguments import BODY_HELP, Verb, content, given, positive, seconds
from mcp_bus.cli.codes import NOTHING, OK
from mcp_bus.cli.meant import priority
from mcp_bus.cli.output import ago, duration, one_line, quote
from mcp_bus.errors import BusError, InvalidRequest
from mcp_bus.find import short
from mcp_bus.names import HUMAN, is_inbox
from mcp_bus.plain import near

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.mail import Acked, Delivery
    from mcp_bus.outbox import Sent
    from mcp_bus.traces import Reader, Trace

MANY = 20


# --- send -----------------------------------------------------------------------------------------


def declare_send(parser: Parser) -> None:
    """Declare the options of `send`."""
    parser.add_argument("to", metavar="TO", help="an agent, a session of it, a topic, a channel, broadcast or human")
    parser.add_argument("words", nargs="+", metavar="BODY", help=f"{BODY_HELP}; a type may stand before it")
    parser.add_argument("--type", metavar="TYPE", help="note unless told: signal, command, eval, status, ack, bid, ...")
    parser.add_argument("--title", metavar="TEXT", help="one line for lists")
    parser.add_argument("--thread", metavar="TEXT", help="what it belongs to")
    parser.add_argument("--reply-to", metavar="ID", help="the message that is answered; TO may then be -")
    parser.add_argument("--priority", type=priority, metavar="N", help="-9 to 9; above 0 is urgent")
    parser.add_argument("--ttl", type=seconds, metavar="TIME", help="expires when nobody read it for so long")
    parser.add_argument("--key", metavar="KEY", help="the same key again sends nothing a second time")
    parser.add_argument("--encrypt-to", action="append", metavar="AGENT", help="who can read it; may be repeated")
    parser.add_argument("--supersedes", default="", metavar="ID", help="an earlier message of yours, to take back")
    parser.add_argument("--wait", type=seconds, metavar="TIME", default=0.0, help="wait so long for an answer")


def send(call: Call) -> int:
    """Queue a message; on disk for good when this returns."""
    from mcp_bus.wire import TYPES

    call = speaker.of(call)
    args, kind = call.args, call.args.type
    words = list(args.words)
    if len(words) == 2 and words[0] in TYPES and not kind:  # As abq has it: to, type, body.
        kind = words.pop(0)
    if len(words) != 1:
        msg, close = f"the body is {len(words)} words", near(words[0], TYPES)
        hint = f"did you mean the type {close[0]!r}? Else quote" if close else "quote"
        raise InvalidRequest(msg, hint=f'{hint} the body, it is one word for the shell: "two words"')
    options = given(
        type=kind, title=args.title, thread=args.thread, reply_to=args.reply_to, priority=args.priority,
        ttl_s=args.ttl, key=args.key, encrypt_to=args.encrypt_to,
    )  # fmt: skip
    to = "" if args.to == "-" and args.reply_to else args.to
    with call.bus(create=True) as bus:
        if args.wait and to:
            _check_answerable(bus, to)
        sent = bus.mail.send(to, content(words[0]), supersedes=args.supersedes, **options)
        # Who wrote can be answered by name; without that the message is sent all the same.
        with suppress(BusError), speaker.present(bus):
            pass
        if not call.out.as_json:
            call.out.line(f"{short(sent.id)} {one_line(_whom(sent), 120)}")
            call.out.note(_standing(sent, bus.source.now()))
        if args.wait:
            return _answered(call, bus, sent)
    if call.out.as_json:
        call.out.json(_sent(sent))
    return OK


def _check_answerable(bus: Bus, to: str) -> None:
    """Refuse to wait for an answer where there will be none.

    Raises:
        InvalidRequest: what is sent there is a task.
    """
    from mcp_bus import addresses

    if addresses.resolve(to, bus.roster.all(), bus.store).kind == "channel":
        msg = f"{to!r} is a channel: what is sent there is a task, which has a result and no answer"
        raise InvalidRequest(msg, hint="send it without --wait, then `mcp-bus wait ID`")


def _answered(call: Call, bus: Bus, sent: Sent) -> int:
    """Wait for the first answer and show it; what was shown is acked."""
    from mcp_bus.mail import Delivery
    from mcp_bus.watch import wait_for

    out = call.out
    out.flush()
    with speaker.present(bus):
        body = wait_for(
            bus,
            lambda: min(bus.mail.answers(sent.id), key=lambda body: body.id, default=None),
            channels=bus.mail.inboxes[:1],
            timeout_s=call.args.wait,
        )
    item = Delivery(body, 1, 0, 0) if body is not None else None
    if out.as_json:
        out.json(_sent(sent) | {"answer": _letter(item) if item else None})
    elif item:
        _letter_page(out, item, bus.source.now())
    else:
        out.note(f"no answer within {duration(int(call.args.wait * 1000))}; the message waits on")
    out.flush()
    if item:  # Only once it was shown in truth.
        bus.mail.ack([item.body.id])
    return OK if item else NOTHING


def _whom(sent: Sent) -> str:
    to = sent.to
    if to.kind == "session":
        return f"{to.agent}~{to.session}"
    return to.agent if to.kind == "agent" else to.channel


def _sent(sent: Sent) -> dict[str, Any]:
    return {
        "id": sent.id,
        "short": short(sent.id),
        "to": {"kind": sent.to.kind, "agent": sent.to.agent or None, "channel": sent.to.channel},
        "state": "queued",
        "created": sent.created,
        "live_sessions": sent.live,
        "last_seen": fields.stamp(sent.last_seen),
        "superseded": sent.superseded or None,
        "others": list(sent.others),
    }


def _standing(sent: Sent, now: int) -> str:
    """Say how a message stands: queued, and who could read it."""
    seen = f"last seen {ago(sent.last_seen, now)}" if sent.last_seen else "never seen here"
    who = f"{sent.live} live session{'' if sent.live == 1 else 's'}"
    if sent.to.kind == "channel":
        text = "queued for whoever claims it"
    elif sent.to.agent == HUMAN:
        text = "queued for the human, who reads with `mcp-bus --agent human inbox`"
    elif sent.to.kind == "topic":
        text = f"queued for who reads that topic: {who} now"
    elif sent.live:
        text = f"queued, not read yet; {who}, {seen}"
    else:
        text = f"queued, and it waits: no live session ({seen})"
        text += f"; live is {', '.join(one_line(name, 80) for name in sent.others[:4])}" if sent.others else ""
    text = text if sent.created else f"sent before under that key; {text}"
    return f"{text}; the one it supersedes {sent.superseded}" if sent.superseded else text


# --- inbox ----------------------------------------------------------------------------------------


def declare_inbox(parser: Parser) -> None:
    """Declare the options of `inbox`."""
    parser.add_argument("--ack", nargs="*", metavar="ID", help="these were read; without an ID, all that is shown now")
    parser.add_argument("--wait", type=seconds, metavar="TIME", default=0.0, help="wait so long for a message")
    parser.add_argument("--limit", type=positive, default=MANY, metavar="N", help=f"at most so many ({MANY})")


def inbox(call: Call) -> int:
    """Show what waits, and what was shown and not acked; shown is not read until it is acked."""
    from mcp_bus.watch import wait_for

    call = speaker.of(call)
    args = call.args
    with call.bus() as bus, speaker.present(bus):
        acked = bus.mail.ack(args.ack) if args.ack else []

        def look() -> list[Delivery] | None:
            # Who waits, waits for something new.
            return _look(bus, args.limit) or None if not args.wait or bus.mail.unread().messages else None

        wait_s = 0.0 if acked else args.wait
        watched = [*bus.mail.inboxes, *bus.mail.topics.subscribed()]
        found = ([] if acked else wait_for(bus, look, channels=watched, timeout_s=wait_s)) or []
        found = found if found or acked else _look(bus, args.limit)
        if call.out.as_json:
            call.out.json(
                {"agent": bus.identity.agent, "messages": [_letter(item) for item in found], "acked": _acks(acked)}
            )
        else:
            _tell(call, bus, found, acked)
        call.out.flush()
        if args.ack == []:  # Only once they were shown in truth.
            bus.mail.ack([item.body.id for item in found])
    return OK if found or acked else NOTHING


def _look(bus: Bus, limit: int) -> list[Delivery]:
    """Return what is shown: urgent ones that were shown before keep their place, then what is new, then the rest.

    All that is offered here is returned, for whoever is told of an offer takes it for shown.
    """
    again = bus.mail.unacked()
    urgent = [item for item in again if item.body.priority > 0][: limit - 1]
    new = bus.mail.read(limit=limit - len(urgent), room=10**9, path="cli inbox")
    rest = again[len(urgent) :][: limit - len(urgent) - len(new)]
    return sorted([*urgent, *new, *rest], key=lambda item: (-item.body.priority, item.body.id))


def _acks(acked: list[Acked]) -> list[dict[str, Any]]:
    return [{"id": item.id, "acked": item.is_new, "note": item.note or None} for item in acked]


def _letter(item: Delivery) -> dict[str, Any]:
    body = item.body
    return (
        {
            "id": body.id,
            "short": short(body.id),
            "from": fields.sender(body.sender),
            "on": None if is_inbox(body.channel) else body.channel,
            "type": body.type,
            "title": body.title,
            "body": body.content,
            "sent": fields.stamp(body.created),
            "priority": body.priority,
            "thread": body.thread or None,
            "reply_to": body.reply_to or None,
            "offers": item.offers,
            "newer_from_sender": item.newer,
            "unread_again": fields.stamp(item.expires),
        }
        | ({"verified": item.verified} if item.verified else {})
        | fields.secret(body.encrypted)
    )


def _tell(call: Call, bus: Bus, found: list[Delivery], acked: list[Acked]) -> None:
    out, now = call.out, bus.source.now()
    for done in acked:
        out.line(f"{short(done.id)} {'acked' if done.is_new else f'not acked: {one_line(done.note)}'}")
    if not found and not acked:
        why = bus.mail.passed()
        left = f" that can be shown; left where it is: {one_line(why, 400)}" if why else ""
        out.note(f"nothing waits for {one_line(bus.identity.agent, 160)}{left}")
        if hint := bus.mail.hint():
            out.note(f"  next: {one_line(call.aimed(hint), 300)}")
    for number, item in enumerate(found):
        if number:
            out.line()
        _letter_page(out, item, now)
    if len(found) == call.args.limit:
        out.note(f"there may be more: {call.again()} inbox --limit N")
    if found and call.args.ack is None:
        out.note(f"shown is not read: {call.again()} inbox --ack ID, or they are unread again later")
    if found:
        last = found[-1].body
        text = "bid '{\"eta_s\": 600}'" if last.type == "call" else '"TEXT"'
        out.note(
            f"to {'bid' if last.type == 'call' else 'answer'}: {call.again()} send - {text} --reply-to {short(last.id)}"
        )


def _letter_page(out: Out, item: Delivery, now: int) -> None:
    body = item.body
    words = [
        out.paint(short(body.id), "bold"),
        f"from {one_line(body.sender.agent, 80)}",
        ago(body.created, now),
        one_line(access.kind(body.type), 80),
    ]
    words += [f"on {body.channel}"] if not is_inbox(body.channel) else []
    words += [f"open for {duration(body.deadline - now)}"] if body.type == "call" and body.deadline > now else []
    words += [out.paint("urgent", "red")] if body.priority > 0 else []
    words += [f"answers {one_line(short(body.reply_to), 40)}"] if body.reply_to else []
    words += [f"shown {item.offers} times"] if item.offers > 1 else []
    words += [f"{item.newer} newer from the same sender"] if item.newer else []
    out.line("  ".join(words))
    if item.verified:  # In a line of its own, which no sender's name can begin.
        out.line(f"verified: {one_line(item.verified, 200)}")
    if body.title:
        out.line(one_line(body.title, 200))
    for text in quote(body.content):
        out.line(text)


# --- trace --------------------------------------------------------------------------------


def declare_trace(parser: Parser) -> None:
    """Declare the options of `trace`."""
    parser.add_argument("id", metavar="ID", help="the message")


def trace(call: Call) -> int:
    """Show what became of a message, as far as it can be shown."""
    from mcp_bus.traces import trace as find_trace

    with call.bus() as bus:
        found, now = find_trace(bus, call.args.id), bus.source.now()
    if call.out.as_json:
        call.out.json(_trace(found))
        return OK
    body = found.task.body
    who = f"from {one_line(body.sender.agent, 80)} to {one_line(found.to, 120)}"
    call.out.line(f"{found.task.id}  {one_line(body.type, 40)} {who}")
    for reader in found.readers:
        _reader(call.out, reader, now)
    if not found.readers:
        call.out.line("queued; nobody reads this topic yet")
    return OK


def _reader(out: Out, reader: Reader, now: int) -> None:
    seen = f"last seen {ago(reader.last_seen, now)}" if reader.last_seen else "never seen here"
    out.line(f"{one_line(reader.agent, 120)}: {out.paint(reader.state, 'bold')}; {reader.live} live, {seen}")
    for step in reader.steps:
        how = f" ({one_line(step.how)})" if step.how else ""
        word = "to" if step.what == "offered" else "by"
        out.line(f"  {ago(step.at, now):>9}  {step.what} {word} {one_line(step.who, 80)}{how}")


def _trace(found: Trace) -> dict[str, Any]:
    from mcp_bus import traces

    made = traces.fields(found)
    for shown, reader in zip(made["readers"], found.readers, strict=True):
        shown |= {"live_sessions": reader.live, "last_seen": fields.stamp(reader.last_seen)}
    return made


VERBS = {
    "send": Verb(
        declare_send, send, 'mcp-bus send planner "the build is green"\nmcp-bus send broadcast signal @note.json'
    ),
    "inbox": Verb(declare_inbox, inbox, "mcp-bus inbox\nmcp-bus inbox --ack 1f3a90c2\nmcp-bus inbox --wait 5m --ack"),
    "trace": Verb(declare_trace, trace, "mcp-bus trace 1f3a90c2"),
}
