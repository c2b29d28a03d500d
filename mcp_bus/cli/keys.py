"""key: what an agent signs with, and whose keys are believed on this bus.  All of it is in the private folder."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus.cli.arguments import Verb, content
from mcp_bus.cli.codes import OK
from mcp_bus.cli.fields import stamp
from mcp_bus.cli.output import one_line
from mcp_bus.clock import span
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.signing import jws, keys
from mcp_bus.signing.guard import Guard
from mcp_bus.wire import loads, unstamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.signing.keys import Key
    from mcp_bus.signing.trust import Pin

FILE = "name a file that has the key, as `mcp-bus key export` prints it"
# Action: how many words may follow it.
WORDS = {
    "new": (0, 1),
    "list": (0, 0),
    "show": (0, 1),
    "export": (0, 1),
    "trust": (0, 2),
    "revoke": (1, 1),
    "forget": (1, 1),
    "rotate": (0, 1),
}


def declare_key(parser: Parser) -> None:
    """Declare the options of `key`."""
    parser.add_argument("action", choices=tuple(WORDS), help="what to do")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="an agent; for trust also a key; for revoke and forget a key's kid"
    )
    parser.add_argument("--first-use", action="store_true", help="trust: believe the first key the agent signs with")
    parser.add_argument("--here", action="store_true", help="trust: accept the bus at this place, moved or copied")
    parser.add_argument(
        "--before", metavar="TIME", help="revoke: what it signed before counts: 2h ago, or 2026-11-27T12:00Z"
    )


def key(call: Call) -> int:
    """Make keys, and say whose are believed."""
    args = call.args
    least, most = WORDS[args.action]
    if not least <= len(args.words) <= most:
        takes = f"{most if least == most else f'{least} to {most}'} word{'' if most == 1 else 's'}"
        msg = f"key {args.action} takes {takes}, not {len(args.words)}"
        raise InvalidRequest(msg, hint="mcp-bus key --help")
    if (args.action != "trust" and (args.first_use or args.here)) or (args.action != "revoke" and args.before):
        msg = "--first-use and --here are for trust, --before is for revoke"
        raise InvalidRequest(msg, hint="mcp-bus key --help")
    with call.bus() as bus:
        return _ACTIONS[args.action](call, bus, _guard(bus))


def _guard(bus: Bus) -> Guard:
    found = bus.store.guard
    if not isinstance(found, Guard):
        msg = "this user has no private folder for keys"
        raise InvalidRequest(msg, hint="set XDG_STATE_HOME or HOME")
    return found


def _agent(call: Call, bus: Bus) -> str:
    from mcp_bus.identity.session import check_agent

    name: str = call.args.words[0] if call.args.words else bus.identity.agent
    check_agent(name, is_program=False)
    return name


# --- own keys -------------------------------------------------------------------------------------


def _new(call: Call, bus: Bus, guard: Guard) -> int:
    made = guard.make(_agent(call, bus))
    guard.trust.pin(made.agent, made.public, bus.source.now())
    if call.out.as_json:
        call.out.json(_own(made))
        return OK
    call.out.line(made.kid)
    call.out.note(
        f"{one_line(made.agent, 160)} signs with it from now on; it is in {one_line(str(guard.vault.root), 300)}"
    )
    return OK


def _own(found: Key) -> dict[str, Any]:
    return {"kid": found.kid, "agent": found.agent, "created": stamp(found.created), "jwk": keys.jwk(found.public)}


def _public(call: Call, bus: Bus, guard: Guard) -> bytes:
    """Return the key that an agent signs with: the user's own, else the one that was trusted last."""
    agent = _agent(call, bus)
    own = guard.newest(agent)
    if own is not None:
        return own.public
    trusted = [pin for pin in guard.trust.keys().values() if pin.agent == agent and not pin.revoked]
    if not trusted or guard.own(agent):
        raise _missing(bus, guard, agent)
    if len(trusted) > 1:
        call.out.note(f"{len(trusted)} keys of {one_line(agent, 160)} are trusted: `mcp-bus key list` shows them")
    return max(trusted, key=lambda pin: pin.since).public


def _missing(bus: Bus, guard: Guard, agent: str) -> NotFound:
    hint = f"`mcp-bus key new {agent!r}` makes one"
    if guard.own(agent):
        return NotFound(f"the newest key of {agent!r} was revoked, and it signs with no older one", hint=hint)
    if agent != bus.identity.agent:
        hint = f"`mcp-bus key trust {agent!r} FILE`, with what `mcp-bus key export` prints where it runs"
    return NotFound(f"there is no key of {agent!r} here, and none is trusted", hint=hint)


def _export(call: Call, bus: Bus, guard: Guard) -> int:
    call.out.line(_text(keys.jwk(_public(call, bus, guard))))
    return OK


def _text(jwk: dict[str, str]) -> str:
    from mcp_bus.wire import text_of

    return text_of(jwk)


def _rotate(call: Call, bus: Bus, guard: Guard) -> int:
    agent = _agent(call, bus)
    old = guard.newest(agent)
    if old is None:
        raise _missing(bus, guard, agent)
    new = guard.make(old.agent)
    guard.trust.pin(new.agent, new.public, bus.source.now())
    said = keys.rotation(old, new)
    if call.out.as_json:
        call.out.json(_own(new) | {"follows": old.kid, "rotation": said})
        return OK
    call.out.line(said)
    call.out.note(f"{keys.short(new.kid)} follows {keys.short(old.kid)}, which still counts until it is revoked")
    call.out.note("whoever trusts the old one accepts the line above: mcp-bus key trust AGENT FILE")
    return OK


# --- what is believed -----------------------------------------------------------------------------


def _list(call: Call, bus: Bus, guard: Guard) -> int:
    own = {item.kid: item for item in guard.own()}
    pins, awaited = guard.trust.keys(), guard.trust.expected()
    signing = {key.kid for agent in {item.agent for item in own.values()} if (key := guard.newest(agent))}
    found = [_about(kid, pins.get(kid), own.get(kid)) | {"signs": kid in signing} for kid in {**own, **pins}]
    if call.out.as_json:
        call.out.json({"keys": found, "first_use": awaited})
        return OK
    rows = [_row(said, bus.identity.agent) for said in found]
    rows += [("-", one_line(agent, 80), "another's", "the first that comes is trusted") for agent in awaited]
    if rows:
        call.out.table(("KEY", "AGENT", "WHOSE", "STANDS"), rows)
    else:
        call.out.note("no keys yet: `mcp-bus key new` makes one")
    return OK


def _about(kid: str, pin: Pin | None, own: Key | None) -> dict[str, Any]:
    made = {"kid": kid, "agent": pin.agent if pin else own.agent if own else "", "own": own is not None}
    made |= {"trusted": pin is not None and not pin.revoked, "since": stamp(pin.since) if pin else None}
    return made | {"revoked": stamp(pin.revoked) if pin else None, "counts_before": stamp(pin.before) if pin else None}


def _row(said: dict[str, Any], me: str) -> tuple[str, str, str, str]:
    whose = "own" if said["own"] else "own, not here" if said["agent"] == me else "another's"
    stands = "trusted" if said["trusted"] else f"revoked {said['revoked']}" if said["revoked"] else "not used here yet"
    stands += f"; counts before {said['counts_before']}" if said["counts_before"] else ""
    return keys.short(said["kid"]), one_line(said["agent"], 80), whose, stands + (", signs" if said["signs"] else "")


def _show(call: Call, bus: Bus, guard: Guard) -> int:
    asked = call.args.words[0] if call.args.words else ""
    pins = guard.trust.keys()
    kid = next((name for name in pins if len(asked) >= keys.SHORT and name.startswith(asked)), "")
    public = pins[kid].public if kid else _public(call, bus, guard)
    kid = keys.kid_of(public)
    if call.out.as_json:
        own = next((item for item in guard.own() if item.kid == kid), None)
        call.out.json(_about(kid, pins.get(kid), own) | {"jwk": keys.jwk(public)})
        return OK
    call.out.line(_text(keys.jwk(public)))
    call.out.line(f"kid     {kid}")
    return OK


def _trust(call: Call, bus: Bus, guard: Guard) -> int:
    args = call.args
    wanted = 0 if args.here else 1 if args.first_use else 2
    if len(args.words) != wanted or (args.here and args.first_use):
        msg = "trust takes an agent and its key, or --first-use and an agent, or --here alone"
        raise InvalidRequest(msg, hint="mcp-bus key trust planner planner.jwk")
    if args.here:
        guard.trust.here()
        call.out.json({"here": True}) if call.out.as_json else call.out.line("trusted as it is at this place")
        return OK
    agent, now = _agent(call, bus), bus.source.now()
    if args.first_use:
        guard.trust.expect(agent)
        made = {"agent": agent, "first_use": True}
        call.out.json(made) if call.out.as_json else call.out.line(
            f"the first key that {one_line(agent, 160)} signs with is believed"
        )
        return OK
    public = _offered(guard, agent, args.words[1])
    guard.trust.pin(agent, public, now)
    kid = keys.kid_of(public)
    made = {"kid": kid, "agent": agent}
    call.out.json(made) if call.out.as_json else call.out.line(f"{keys.short(kid)} speaks for {one_line(agent, 160)}")
    return OK


def _offered(guard: Guard, agent: str, source: str) -> bytes:
    """Return the key that is to be believed: a JWK, or one that a trusted key of the agent says follows it."""
    text = (
        source if source.startswith(("{", "eyJ")) else content(source if source == "-" else f"@{source}", hint=FILE)
    ).strip()
    if text.startswith("{"):
        return keys.public_of(loads(text.encode(errors="surrogatepass")))
    said, signed, signature = keys.read_rotation(text)
    pin = guard.trust.key(said.old)
    if pin is None or pin.agent != agent or said.agent != agent or pin.revoked:
        msg = f"that key follows {keys.short(said.old)!r}, which is not trusted to speak for {agent!r}"
        raise InvalidRequest(msg, hint="have the new key from its owner, and trust it itself")
    if not jws.check(pin.public, signature, signed.encode()):
        msg = f"the key {keys.short(said.old)} did not sign this"
        raise InvalidRequest(msg, hint="have it again from its owner")
    return said.public


def _moment(text: str, now: int) -> int:
    """Return a moment in milliseconds: `2h` ago, or a date and time.

    Raises:
        InvalidRequest: it is neither.
    """
    with suppress(ValueError):
        return now - int(span(text) * 1000)
    made = unstamp(text)
    if not made:
        msg = f"{text[:40]!r} is not a time"
        raise InvalidRequest(msg, hint="so long ago, as 2h or 3d, or a date, as 2026-11-27T12:00:00Z")
    return made


def _meant(call: Call, guard: Guard) -> str:
    """Return the one key whose kid begins as was asked."""
    asked, pins = call.args.words[0], guard.trust.keys()
    found = [kid for kid in pins if len(asked) >= keys.SHORT and kid.startswith(asked)]
    if len(found) != 1:
        msg = f"{asked[:60]!r} is not one key that is trusted here"
        raise NotFound(msg, hint=f"give at least {keys.SHORT} characters; `mcp-bus key list` shows them")
    return found[0]


def _forget(call: Call, _bus: Bus, guard: Guard) -> int:
    kid = _meant(call, guard)
    if any(key.kid == kid for key in guard.own()):
        msg = f"the key {keys.short(kid)} is your own, and trusted as long as it is here"
        raise InvalidRequest(msg, hint=f"`mcp-bus key revoke {keys.short(kid)}` ends that")
    pin = guard.trust.forget(kid)
    if call.out.as_json:
        call.out.json(_about(kid, None, None) | {"agent": pin.agent})
    else:
        call.out.line(f"{keys.short(kid)} of {one_line(pin.agent, 160)} is not known any more")
    return OK


def _revoke(call: Call, bus: Bus, guard: Guard) -> int:
    kid = _meant(call, guard)
    before = _moment(call.args.before, bus.source.now()) if call.args.before else 0
    pin = guard.trust.revoke(kid, bus.source.now(), before=before)
    if before > pin.before:
        call.out.note("it was revoked before, and a later time brings nothing back")
    if call.out.as_json:
        call.out.json(_about(kid, pin, None))
    else:
        kept = f"; what it signed before {stamp(pin.before)} counts" if pin.before else ""
        call.out.line(f"{keys.short(kid)} of {one_line(pin.agent, 160)} is revoked{kept}")
    return OK


_ACTIONS: dict[str, Callable[[Call, Bus, Guard], int]] = {
    "new": _new, "list": _list, "show": _show, "export": _export, "trust": _trust, "revoke": _revoke, "rotate": _rotate,
    "forget": _forget,
}  # fmt: skip
VERBS = {
    "key": Verb(
        declare_key,
        key,
        "mcp-bus key new\nmcp-bus key export > planner.jwk\nmcp-bus key trust planner planner.jwk\nmcp-bus key list",
    ),
}
