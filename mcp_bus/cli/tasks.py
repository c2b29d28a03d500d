"""post, claim, heartbeat, submit: what those who hand out and do work need."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from mcp_bus import encrypted
from mcp_bus.cli import fields, meant, pages, speaker
from mcp_bus.cli.arguments import BODY_HELP, Verb, content, given, seconds, shell, word, words
from mcp_bus.cli.codes import NOTHING, OK
from mcp_bus.cli.output import clean, duration
from mcp_bus.errors import BusError, Conflict, CorruptRecord, InvalidRequest, LeaseLost, NotFound
from mcp_bus.find import public, put_aside, resolve, short, step, why_empty
from mcp_bus.model import ENDED, State, Ticket
from mcp_bus.plain import near

if TYPE_CHECKING:
    from mcp_bus.bus import Bus, Posted
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.interrupts import Interrupts
    from mcp_bus.cli.output import Out
    from mcp_bus.model import Task


# --- post -----------------------------------------------------------------------------------------


def declare_post(parser: Parser) -> None:
    """Declare the options of `post`."""
    parser.add_argument("channel", metavar="CHANNEL", help="where to; made if it is new")
    parser.add_argument("body", metavar="BODY", help=BODY_HELP)
    parser.add_argument("--title", metavar="TEXT", help="one line for lists")
    parser.add_argument("--priority", type=meant.priority, metavar="N", help="-9 to 9; higher goes first")
    parser.add_argument("--delay", type=seconds, metavar="TIME", help="not before this has passed: 90, 5m, 2h")
    parser.add_argument("--ttl", type=seconds, metavar="TIME", help="expires when nobody took it for so long")
    parser.add_argument("--key", metavar="KEY", help="the same key again posts nothing a second time")
    parser.add_argument("--requires", type=words, metavar="A,B", help="what a worker must be able to do")
    parser.add_argument("--max-attempts", type=int, metavar="N", help="tries before it is dead")
    parser.add_argument("--backoff", type=seconds, metavar="TIME", help="pause after the first failure")
    parser.add_argument("--thread", metavar="TEXT", help="what it belongs to")
    parser.add_argument("--reply-to", metavar="TEXT", help="where an answer should go")
    parser.add_argument("--type", metavar="TYPE", help="task unless told")
    parser.add_argument("--encrypt-to", action="append", metavar="AGENT", help="who can read it; may be repeated")
    parser.add_argument("--parent", metavar="ID", help="a task that you hold, which cannot end before this one")
    parser.add_argument(
        "--result-schema", metavar="JSON", help="a JSON Schema that the result must meet: JSON, - or @FILE"
    )
    parser.add_argument("--claims", action="store_true", default=None, help="its result must label what it claims")


def post(call: Call) -> int:
    """Hand out a task; on disk for good when this returns."""
    args = call.args
    body = content(args.body)
    options = given(
        title=args.title, priority=args.priority, delay_s=args.delay, ttl_s=args.ttl, key=args.key,
        requires=args.requires, max_attempts=args.max_attempts, backoff_s=args.backoff, thread=args.thread,
        reply_to=args.reply_to, type=args.type, parent=args.parent, claims=args.claims, encrypt_to=args.encrypt_to,
        result_schema=None if args.result_schema is None else _schema(args.result_schema),
    )  # fmt: skip
    with call.bus(create=True) as bus:
        posted = bus.post(args.channel, body, **options)
        others = near(posted.channel, public(bus.store)) if posted.new_channel else []
        task = _now(bus, posted) if call.out.as_json or not posted.created else None
    if posted.new_channel:
        meant = f"; did you mean {' or '.join(others)}?" if others else ""
        call.out.warn(f"mcp-bus: this made the channel {posted.channel}{meant}")
    _posted(call, posted, task)
    return OK


def _schema(text: str) -> dict[str, object]:
    """Return the JSON object that an option is.

    Raises:
        InvalidRequest: it is none.
    """
    from mcp_bus.wire import loads

    try:
        return loads(content(text).encode(errors="surrogatepass"))
    except CorruptRecord as error:
        msg = f"--result-schema is no JSON Schema: {error}"
        raise InvalidRequest(msg, hint='for example \'{"type": "object", "required": ["passed"]}\', or @FILE') from None


def _now(bus: Bus, posted: Posted) -> Task | None:
    """Return a task as it is by now, if it can be read: whatever that brings, the post succeeded."""
    with suppress(BusError):
        return bus.get(posted.id)
    return None


def _posted(call: Call, posted: Posted, task: Task | None) -> None:
    if call.out.as_json:
        state = str(task.state) if task else None
        call.out.json(posted._asdict() | {"short": short(posted.id), "state": state})
        return
    call.out.line(f"{short(posted.id)} {posted.channel}")
    if posted.created or task is None:
        return
    # Who posts to have work done must know that nobody is going to do it.
    tell = call.out.warn if task.state in ENDED else call.out.note
    tell(f"mcp-bus: posted before under that key, and nothing new: that task is {fields.state(task)}")
    if task.state in ENDED:
        again = "" if task.state is State.DONE else f"{call.again()} retry {short(task.id)}, or "
        tell(f"  next: {again}post with another key, if it is to be done again")


# --- claim ----------------------------------------------------------------------------------------


def declare_claim(parser: Parser) -> None:
    """Declare the options of `claim`."""
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="where to look; everywhere if none is named")
    parser.add_argument("--capability", type=words, metavar="X,Y", help="what you are able to do")
    parser.add_argument("--lease", type=seconds, metavar="TIME", help="how long to keep it: 90, 10m")
    parser.add_argument("--wait", type=seconds, metavar="TIME", default=0.0, help="wait so long for a task")


def claim(call: Call) -> int:
    """Take the next task; given back when its taker cannot learn of it."""
    from mcp_bus.cli.interrupts import Interrupts
    from mcp_bus.watch import wait_for

    args = call.args
    channels = args.channels or list(call.config["channels"])

    def look() -> Task | None:
        with interrupts.held_back():
            try:
                return bus.claim(channels, capabilities=args.capability, lease_s=args.lease)
            except Conflict:
                if not args.wait:
                    raise
                return None  # Something moved; there is time to look again.

    with call.bus() as bus, ExitStack() as stack, Interrupts() as interrupts:
        if args.capability is not None or bus.capabilities:
            # A step that nobody is able to do is skipped: who asks for work says what they can.
            bus.capabilities = tuple(args.capability) if args.capability is not None else bus.capabilities
            stack.enter_context(speaker.present(bus))
        if args.wait:
            call.out.note(f"waiting up to {duration(int(args.wait * 1000))} for a task")
        try:
            task = wait_for(bus, look, channels=channels, timeout_s=args.wait)
            if task is not None:
                _claimed(call, bus, task)
            else:
                _nothing(call, bus, channels)
            call.out.flush()
        except BaseException:
            _give_back(bus, call.out, interrupts)
            raise
    return NOTHING if task is None else OK


def _nothing(call: Call, bus: Bus, channels: list[str]) -> None:
    """Say why there is no task, and what would change that."""
    out = call.out
    able = bus.capabilities if call.args.capability is None else call.args.capability
    why = why_empty(bus, channels, able)
    if out.as_json:
        out.json({"ticket": None, "why": why})
    out.note(clean(why))
    if helps := step(bus, channels):
        out.note(f"  next: {clean(call.aimed(helps))}")
    lacking = meant.ability(bus, channels, able)
    if lacking:
        there = "".join(f" {shell(name)}" for name in channels)
        command = f"{call.again()} claim{there} --capability {shell(clean(lacking))}"
        out.note(f"  next: if you are able to do it: {command}")
    strange = [name for name in channels if name not in bus.store.channels()]
    for name in strange[:1]:
        out.note(f"  next: {meant.like(bus, name) or 'the first post makes a channel'}")


def _give_back(bus: Bus, out: Out, interrupts: Interrupts) -> None:
    """Undo what was claimed, unless the taker was told: then it is theirs, whatever came after."""
    if out.is_told:
        return
    with interrupts.held_back():
        for task in bus.held():
            with suppress(LeaseLost, NotFound):
                bus.unclaim(task.ticket, "whoever claimed it could not be told")


def _claimed(call: Call, bus: Bus, task: Task) -> None:
    if aside := put_aside(bus):
        call.out.note(clean(aside))
    task = task._replace(history=pages.before(bus, task))
    if call.out.as_json:
        call.out.json(fields.claimed(task))
    else:
        pages.claimed(call.out, bus, task, call.again())


# --- heartbeat, submit ----------------------------------------------------------------------------


def _declare_ticket(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="the task")
    parser.add_argument("--token", required=True, type=word, metavar="T", help="the token that claim showed")


def declare_heartbeat(parser: Parser) -> None:
    """Declare the options of `heartbeat`."""
    _declare_ticket(parser)
    parser.add_argument("--lease", type=seconds, metavar="TIME", help="how long to keep it from now")
    parser.add_argument("--progress", default="", metavar="TEXT", help="a word for those who wait")


def heartbeat(call: Call) -> int:
    """Keep a task for longer."""
    args = call.args
    with call.bus() as bus:
        task = bus.renew(Ticket(args.id, args.token), lease_s=args.lease, progress=args.progress)
        speaker.seen(bus)
        left = task.lease.expires - bus.source.now()
    if call.out.as_json:
        call.out.json(fields.claimed(task))
    else:
        call.out.line(f"{short(task.id)} is yours for {duration(left)}, until {fields.stamp(task.lease.expires)}")
    return OK


def declare_submit(parser: Parser) -> None:
    """Declare the options of `submit`."""
    _declare_ticket(parser)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--done", nargs="?", const="", metavar="RESULT", help=f"finished: {BODY_HELP}")
    how.add_argument(
        "--failed", metavar="REASON", help="tried again after a pause, or dead if it was the last try; never encrypted"
    )
    how.add_argument("--release", nargs="?", const="", metavar="REASON", help="given back untouched; never encrypted")
    how.add_argument("--blocked", metavar="QUESTION", help="a person must answer first; never encrypted")
    parser.add_argument(
        "--artifact", action="append", default=[], metavar="PATH", help="a file of the result; repeat it"
    )
    parser.add_argument("--retry-in", type=seconds, metavar="TIME", help="the pause after --failed")


def submit(call: Call) -> int:
    """Finish a task, or say why not."""
    args, done = call.args, None if call.args.done is None else content(call.args.done)
    with call.bus() as bus:
        ticket = Ticket(resolve(bus.store, args.id), args.token)
        speaker.seen(bus)
        if done is not None:
            start = bus.source.now()
            kept = bus.ack(ticket, done, artifacts=args.artifact)
            if kept.content != done and kept.at < start:
                call.out.warn("mcp-bus: an earlier result of this claim is final; this one was not taken")
        elif args.failed is not None:
            bus.nack(ticket, args.failed, retry_in_s=args.retry_in)
        elif args.release is not None:
            bus.release(ticket, args.release)
        else:
            bus.block(ticket, args.blocked)
        task = bus.get(ticket.id)
        now = bus.source.now()
        if task.body.plan:
            from mcp_bus.report import moved

            call.out.note(moved(bus, task))
    said = args.failed or args.release or args.blocked
    if said and task.body.encrypted is not None:
        call.out.warn(f"mcp-bus: {encrypted.CLEAR}")
    if call.out.as_json:
        call.out.json(fields.full(task))
    else:
        later = f", again in {duration(task.slot.not_before - now)}" if task.state is State.SCHEDULED else ""
        call.out.line(f"{short(task.id)} {call.out.state(fields.state(task))}{later}")
    return OK


VERBS = {
    "post": Verb(declare_post, post, 'mcp-bus post review "look at src/app.py" --title "review app" --priority 3'),
    "claim": Verb(declare_claim, claim, "mcp-bus claim review docs --capability python --wait 30s"),
    "heartbeat": Verb(declare_heartbeat, heartbeat, "mcp-bus heartbeat 1f3a90c2 --token 5b0c93aa10de --lease 10m"),
    "submit": Verb(
        declare_submit,
        submit,
        'mcp-bus submit 1f3a90c2 --token 5b0c93aa10de --done "looks good"\n'
        'mcp-bus submit 1f3a90c2 --token 5b0c93aa10de --failed "tests do not start" --retry-in 5m',
    ),
}
