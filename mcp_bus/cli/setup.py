"""init, config, channel, version: what there is once, before work begins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import meant
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, one_line
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.model import POLICY_FIELDS, Policy

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.identity.git import Checkout
    from mcp_bus.stores.probe import Verdict


# --- init -----------------------------------------------------------------------------------------


def declare_init(parser: Parser) -> None:
    """Declare the options of `init`."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="the directory to make; as --bus")
    parser.add_argument(
        "--here", action="store_true", help=".mcp-bus in this repository, shared by its worktrees, unseen by git"
    )
    parser.add_argument(
        "--group",
        nargs="?",
        const="",
        metavar="NAME",
        help="share it with a Unix group of yours; without NAME your primary group, unless that is yours alone",
    )


def init(call: Call) -> int:
    """Make a bus, or complete one that is there."""
    from mcp_bus.stores import layout, modes, probe

    root, checkout = _root(call)
    group = None if call.args.group is None else modes.group_of(call.args.group)
    is_new = not modes.is_there(root / "bus.json")
    place = next(path for path in (root, *root.parents) if modes.is_there(path))
    probe.judge(probe.kind_of(place)).check(root)  # Before anything is made.
    verdict = layout.create(root, group=group)
    excluded = _exclude(checkout) if checkout else None
    if call.out.as_json:
        disk = verdict.fields()
        hidden = str(excluded) if excluded else None
        made = {"bus": str(root), "created": is_new, "filesystem": disk, "excluded_in": hidden}
        call.out.json(made | ({} if group is None else {"group": group}))
    else:
        _made(call, root, verdict, is_new=is_new)
    if verdict.warning:
        call.out.warn(f"mcp-bus: WARNING: {verdict.warning}")
    if group is not None:
        _shared(call, root, group)
    if checkout:
        call.out.note("`git clean -fdx` would delete it with all that git ignores; `git clean -fd` leaves it alone")
    if checkout and excluded is None:
        call.out.warn("mcp-bus: git was not told to overlook .mcp-bus; add it to .gitignore")
    return OK


def _shared(call: Call, root: Path, group: int) -> None:
    """Say whom the bus is shared with, and what keeps them from it."""
    from mcp_bus.stores import modes

    name = modes.group_name(group)
    call.out.note(f"shared with group {clean(name)}: whoever is in it may post, claim and answer, and read everything")
    closed = modes.closed_above(root, group)
    if closed is not None:
        call.out.warn(
            f"mcp-bus: WARNING: group {clean(name)} cannot get there: {clean(str(closed))} does not let it in"
        )
        call.out.warn(f"  next: chmod o+x {clean(str(closed))}, or make the bus elsewhere")


def _root(call: Call) -> tuple[Path, Checkout | None]:
    args, config = call.args, call.config
    if sum((bool(args.path), bool(args.here), bool(args.bus))) > 1:
        msg = "a path, --here and --bus each name the place"
        raise InvalidRequest(msg, hint="give one of them")
    if args.path:
        return config.cwd / args.path, None
    if not args.here:
        return config.path, None
    from mcp_bus.config import FOLDER
    from mcp_bus.identity import git

    checkout = git.find(config.cwd)
    if checkout is None:
        msg = f"{str(config.cwd)!r} is in no git repository"
        raise InvalidRequest(msg, hint="go into one, or name a directory: mcp-bus init PATH")
    return checkout.home / FOLDER, checkout


def _made(call: Call, root: Path, verdict: Verdict, *, is_new: bool) -> None:
    call.out.line(clean(str(root)))
    why = "PATH" if call.args.path else "--here" if call.args.here else ""
    call.out.note(f"bus: {clean(str(root))} ({why})" if why else f"bus: {call.place()}")
    call.out.note(f"{'made a bus' if is_new else 'there was a bus already'}; the file system is {verdict.kind}")
    from mcp_bus.config import load

    used = load(cwd=call.config.cwd)  # Asked again: now that it is there, it may be the one.
    if root != used.path:
        place = f"{clean(str(used.path))} ({clean(used.origins['bus'])})"
        call.out.note(f"used from here is {place}; set MCP_BUS_DIR or pass --bus for the new one")


def _exclude(checkout: Checkout) -> Path | None:
    """Keep git from offering the bus for a commit, without touching a file that is shared."""
    path, line = checkout.common / "info" / "exclude", "/.mcp-bus/"
    if checkout.home == checkout.common:
        return path  # A bare repository: the bus is beside its objects, where git lists nothing.
    try:
        known = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        known = ""
    if line in known.splitlines():
        return path
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if known and not known.endswith("\n") else "") + line + "\n")
    except OSError:
        return None
    return path


# --- config ---------------------------------------------------------------------------------------


def declare_config(parser: Parser) -> None:
    """Declare the options of `config`."""
    parser.add_argument("action", nargs="?", choices=("list", "get"), default="list", help="list unless told")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the setting to get")
    parser.add_argument("--show-origin", action="store_true", help="as git: ORIGIN, a tab, NAME=VALUE")


def config(call: Call) -> int:
    """Show settings, and where each was set."""
    from mcp_bus.config import SETTINGS, agent_of

    args, found, out = call.args, call.config, call.out
    if (args.action == "get") != (args.name is not None):
        msg = "get takes the name of a setting, and list takes none"
        raise InvalidRequest(msg, hint="mcp-bus config get bus")
    if args.name is not None and args.name not in SETTINGS:
        msg = f"{args.name[:40]!r} is not a setting"
        raise InvalidRequest(msg, hint="known settings: " + ", ".join(SETTINGS))
    values = {name: (found[name], found.origins[name]) for name in ([args.name] if args.name else SETTINGS)}
    if "agent" in values:
        values["agent"] = agent_of(found)  # Never empty: without a setting, git says who this is.
    if out.as_json:
        made = {
            name: {"value": _plain(value), "origin": origin}
            | ({"where": _where(call, name, origin)} if args.show_origin else {})
            for name, (value, origin) in values.items()
        }
        out.json(made[args.name] | {"name": args.name} if args.name else made)
    elif args.show_origin:
        for name, (value, origin) in values.items():
            out.line(f"{clean(_where(call, name, origin))}\t{'' if args.name else f'{name}='}{_word(value)}")
    elif args.name:
        out.line(_word(values[args.name][0]))
        out.note(f"from {clean(values[args.name][1])}")
    else:
        rows = [
            (name, _word(value) or "-", clean(origin), SETTINGS[name].env, SETTINGS[name].about)
            for name, (value, origin) in values.items()
        ]
        out.table(("NAME", "VALUE", "FROM", "VARIABLE", "WHAT IT IS"), rows)
    return OK


def _where(call: Call, name: str, origin: str) -> str:
    """Return where a setting was set, as git says it: `file:` and its path, `environment:VARIABLE`, `flag:--bus`."""
    from mcp_bus.config import SETTINGS

    if origin == "flag":
        return f"flag:--{name.replace('_', '-')}"
    if origin == SETTINGS[name].env:
        return f"environment:{origin}"
    if origin.endswith(".toml"):
        return f"file:{call.config.cwd / origin}"
    return f"default:{'' if origin == 'default' else origin.removeprefix('default: ')}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(
        ",".join(value) if isinstance(value, tuple | list) else f"{value:g}" if isinstance(value, float) else str(value)
    )


# --- channel --------------------------------------------------------------------------------------


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
    from mcp_bus.cli.speaker import is_terminal
    from mcp_bus.signing import switch

    settings = dict(_setting(text) for text in args.settings)
    with call.bus() as bus:
        if settings == {"signed": False} and args.action == "set":
            _unsign(call, bus)
            return OK
        is_new = args.action == "create" and args.name not in bus.store.channels()
        if args.action == "set":
            if not args.name.startswith("@"):
                meant.channel(bus, args.name)
            if not settings:
                msg = "there is nothing to set"
                raise InvalidRequest(msg, hint=f"for example lease_s=10m; mcp-bus channel show {args.name}")
        if settings.keys() == {"encrypt_to"} and args.action == "set" and is_terminal():
            _rules(call, args.name, switch.readdress(bus.store, args.name, settings["encrypt_to"]), is_new=False)
            return OK
        policy = meant.channel(bus, args.name) if args.action == "show" else bus.create_channel(args.name, **settings)
    _rules(call, args.name, policy, is_new=is_new)
    return OK


def _unsign(call: Call, bus: Bus) -> None:
    """End signatures on a channel, which a person may do and no program."""
    from mcp_bus.cli.speaker import is_terminal
    from mcp_bus.signing import switch

    if not is_terminal():
        msg = "to end signatures is a person's decision, and this is no terminal"
        raise InvalidRequest(msg, hint=f"in a terminal: mcp-bus channel set {call.args.name} signed=no")
    name = call.args.name
    _rules(call, name, switch.off(bus.store, name), is_new=False)
    call.out.note("whoever can write the bus is believed there again; what is older than this still has to be signed")


def _setting(text: str) -> tuple[str, object]:
    """Read `lease_s=10m`; the value's type is the one the setting has."""
    from argparse import ArgumentTypeError

    name, given, value = text.partition("=")
    if not given or name not in POLICY_FIELDS:
        msg = f"{text[:60]!r} is not a setting of a channel"
        raise InvalidRequest(msg, hint="NAME=VALUE with one of " + ", ".join(Policy._fields))
    try:
        if name.endswith("_s"):
            return name, seconds(value)
        if isinstance(getattr(Policy(), name), bool):
            return name, _switch(value)
        if isinstance(getattr(Policy(), name), tuple):
            return name, [part for part in value.replace(",", " ").split(" ") if part]
        return name, int(value) if isinstance(getattr(Policy(), name), int) else value
    except (ValueError, ArgumentTypeError) as error:
        msg = f"{value[:60]!r} is not a value for {name}: {error}"
        raise InvalidRequest(msg, hint=f"for example {name}={_word(getattr(Policy(), name))}") from None


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
        call.out.line(f"  {key:<15} {_word(value) or ('everyone' if key.endswith('_by') else '-')}")
    if is_new:
        call.out.note("made")


# --- version --------------------------------------------------------------------------------------


def declare_version(_parser: Parser) -> None:
    """Take no options but those of every verb."""


def installed() -> str:
    """Return the version that is installed; `unknown` when it runs from a folder."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mcp-bus")
    except PackageNotFoundError:
        return "unknown"


def version(call: Call) -> int:
    """Say what is installed."""
    from mcp_bus import wire

    python = ".".join(map(str, sys.version_info[:3]))
    made = {"version": installed(), "format": wire.FORMAT, "python": python}
    if call.out.as_json:
        call.out.json(made)
    else:
        call.out.line(f"mcp-bus {made['version']}, bus format {made['format']}, Python {made['python']}")
    return OK


VERBS = {
    "init": Verb(declare_init, init, "mcp-bus init\nmcp-bus init --here\nmcp-bus init --group devs /srv/bus"),
    "config": Verb(declare_config, config, "mcp-bus config list --show-origin\nmcp-bus config get bus"),
    "channel": Verb(
        declare_channel,
        channel,
        "mcp-bus channel create review lease_s=10m max_attempts=2\nmcp-bus channel show review",
    ),
    "version": Verb(declare_version, version, "mcp-bus version --json"),
}
