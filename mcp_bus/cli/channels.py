"""channel: makes channels, and sets their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus.cli import meant
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import one_line, word
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.model import POLICY_FIELDS, Policy
from mcp_bus.plain import near

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser

UNSIGNED = "whoever can write the bus is believed there again; what is older than this still has to be signed"


def declare_channel(parser: Parser) -> None:
    """Declare the options of `channel`."""
    parser.add_argument("action", choices=("create", "list", "show", "set"))
    parser.add_argument("name", nargs="?", metavar="NAME", help="the channel")
    known = ", ".join(name for name in Policy._fields if name != "kind")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help=f"{known}; those in _s take 10m too")


def channel(call: Call) -> int:
    """Make channels and set their rules."""
    args = call.args
    if (args.action == "list") != (args.name is None):
        msg = f"channel {args.action} takes {'no name' if args.action == 'list' else 'the name of a channel'}"
        raise InvalidRequest(msg, hint="mcp-bus channel --help")
    if args.settings and args.action not in ("create", "set"):
        msg = f"channel {args.action} changes no settings"
        raise InvalidRequest(msg, hint=f"mcp-bus channel set {args.name} …")
    if args.action == "list":
        return _list(call)
    settings = dict(_setting(text) for text in args.settings)
    with call.bus() as bus:
        if args.action == "set" and not args.name.startswith("@"):
            meant.channel(bus, args.name)  # Nothing is advised about one that is not there.
        if args.action == "set" and not settings:
            msg = "there is nothing to set"
            raise InvalidRequest(msg, hint=f"for example lease_s=10m; mcp-bus channel show {args.name}")
        is_new = args.action == "create" and args.name not in bus.store.channels()
        policy = meant.channel(bus, args.name) if args.action == "show" else _set(call, bus, settings, is_new=is_new)
    _rules(call, args.name, policy, is_new=is_new)
    if settings == {"signed": False} and args.action == "set":
        call.out.note(UNSIGNED)
    if settings and policy.outputs and policy.encrypt_to:
        call.out.note("outputs writes nothing of what is encrypted: those results are for who has a key")
    return OK


def _set(call: Call, bus: Bus, settings: dict[str, object], *, is_new: bool) -> Policy:
    """Set rules; what is written back with them, for somebody took it out of the file, is said."""
    from mcp_bus import access, names, policies
    from mcp_bus.cli.differing import differences
    from mcp_bus.cli.speaker import is_terminal
    from mcp_bus.signing import switch

    asked, is_set = call.args.name, call.args.action == "set"
    channel, edited = names.inbox(asked[1:]) if asked.startswith("@") else asked, dict[str, str]()
    if not is_new and channel in bus.store.channels():
        known = bus.store.policy(channel)
        edited = differences(call.config.path, channel, known)
        access.check_rules(bus, channel, known, policies.make(settings, known))
    if is_set and settings == {"signed": False}:
        policy = _unsigned(call, bus)
    elif is_set and settings.keys() == {"encrypt_to"} and is_terminal():
        policy = switch.readdress(bus.store, asked, settings["encrypt_to"])
    else:
        policy = bus.create_channel(asked, **settings)
    for setting, said in edited.items():
        if setting not in settings:
            call.out.warn(f"mcp-bus: {said}; that is written back")
    return policy


def _unsigned(call: Call, bus: Bus) -> Policy:
    """End signatures on a channel, which a person may do and no program."""
    from mcp_bus.cli.speaker import is_terminal
    from mcp_bus.signing import switch

    if not is_terminal():
        msg = "to end signatures is a person's decision, and this is no terminal"
        raise InvalidRequest(msg, hint=f"in a terminal: `mcp-bus channel set {call.args.name} signed=no`")
    return switch.off(bus.store, call.args.name)


def _setting(text: str) -> tuple[str, object]:
    """Read `lease_s=10m`; the value's type is the one the setting has."""
    from argparse import ArgumentTypeError

    name, given, value = text.partition("=")
    if not given or name not in POLICY_FIELDS:
        msg = f"{text[:60]!r} is not a setting of a channel"
        close = near(name, Policy._fields)
        hint = f"did you mean {close[0]}?" if close and given else "NAME=VALUE with one of " + ", ".join(Policy._fields)
        raise InvalidRequest(msg, hint=hint)
    try:
        if name.endswith("_s"):
            return name, seconds(value)
        if isinstance(getattr(Policy(), name), bool):
            return name, _switch(value)
        if isinstance(getattr(Policy(), name), tuple):
            return name, [part for part in value.replace(",", " ").split(" ") if part]
        return name, _whole(value) if isinstance(getattr(Policy(), name), int) else value
    except (ValueError, ArgumentTypeError) as error:
        msg = f"{value[:60]!r} is not a value for {name}: {error}"
        raise InvalidRequest(msg, hint=f"for example {name}={word(getattr(Policy(), name))}") from None


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        msg = "it is a whole number"
        raise ValueError(msg) from None


def _switch(value: str) -> bool:
    if value.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        msg = "it is yes or no"
        raise ValueError(msg)
    return value.lower() in ("1", "true", "yes", "on")


def _list(call: Call) -> int:
    with call.bus() as bus:
        found: list[tuple[str, Policy]] = []
        for name in bus.store.channels():
            try:
                found.append((name, bus.store.policy(name)))
            except NotFound:
                continue
    if call.out.as_json:
        call.out.json({"channels": [{"name": name} | _fields(policy) for name, policy in found]})
        return OK
    for name, policy in found:
        call.out.line(f"{name}  {one_line(policy.description)}".rstrip())
    if not found:
        call.out.note("no channels yet; the first post makes one")
    return OK


def _fields(policy: Policy) -> dict[str, Any]:
    from mcp_bus import policies

    made: dict[str, Any] = policies.fields(policy)
    return made


def _rules(call: Call, name: str, policy: Policy, *, is_new: bool) -> None:
    if call.out.as_json:
        call.out.json({"name": name, "created": is_new} | _fields(policy))
        return
    call.out.line(call.out.paint(name, "bold"))
    for key, value in _fields(policy).items():
        call.out.line(f"  {key:<15} {word(value) or ('everyone' if key.endswith('_by') else '-')}")
    if is_new:
        call.out.note("made")


VERBS = {
    "channel": Verb(
        declare_channel,
        channel,
        "mcp-bus channel create review lease_s=10m max_attempts=2\nmcp-bus channel show review",
    ),
}
