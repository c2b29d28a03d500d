"""init, config, version: what there is once, before work begins."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb, shell
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean, word
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.identity.git import Checkout
    from mcp_bus.stores.probe import Verdict


# --- init -----------------------------------------------------------------------------------------


def declare_init(parser: Parser) -> None:
    """Declare the options of `init`."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="the directory to make, or git+REMOTE; as --bus")
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
    from mcp_bus.stores import layout, mistaken, modes, probe

    _address_as_bus(call)
    if call.config.remote is not None and not call.args.path and not call.args.here:
        return _at_remote(call)
    root, checkout = _root(call)
    if call.args.group and os.sep in call.args.group and not call.args.path:
        msg = f"--group took {call.args.group[:200]!r} for the name of a group"
        raise InvalidRequest(msg, hint=f"the place comes first: `mcp-bus init {shell(call.args.group)} --group`")
    group = None if call.args.group is None else modes.group_of(call.args.group)
    is_new = not modes.is_there(root / "bus.json")
    if is_new and checkout is None:
        mistaken.check_missing(root)
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


def _address_as_bus(call: Call) -> None:
    """Take an address that is given as PATH for what `--bus` names; refuse one without `git+`.

    Raises:
        InvalidRequest: it is one, or `--bus` or `--here` names a place as well.
    """
    from mcp_bus.config import load
    from mcp_bus.stores import mistaken
    from mcp_bus.stores.away import SCHEME

    args = call.args
    if not args.path:
        return
    mistaken.check_name(args.path, call.config.cwd)
    if args.path.startswith(SCHEME) and not args.here and not args.bus:
        call.config = load({"bus": args.path, "agent": args.agent}, cwd=call.config.cwd)
        args.path = None


def _at_remote(call: Call) -> int:
    """Make a bus on a branch of a git remote, or complete one that is there."""
    from mcp_bus.stores.git.store import GitStore

    if call.args.group is not None:
        msg = "a bus at a git remote is shared with whoever may push there, and with no group"
        raise InvalidRequest(msg, hint="leave --group away")
    with call.bus() as bus:
        assert isinstance(bus.store, GitStore)
        is_new = bus.store.create()
    where = bus.store.address
    if call.out.as_json:
        call.out.json({"bus": where, "created": is_new, "here": str(call.config.path)})
    else:
        call.out.line(f"{'made a bus' if is_new else 'there is a bus'} at {clean(where)}")
        call.out.note(f"this host's part of it is {clean(str(call.config.path))}: either names the bus for --bus")
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
    from mcp_bus.config import agent_of
    from mcp_bus.settings import SETTINGS

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
            out.line(f"{clean(_where(call, name, origin))}\t{'' if args.name else f'{name}='}{word(value)}")
    elif args.name:
        out.line(word(values[args.name][0]))
        out.note(f"from {clean(values[args.name][1])}")
    else:
        rows = [
            (name, word(value) or "-", clean(origin), SETTINGS[name].env, SETTINGS[name].about)
            for name, (value, origin) in values.items()
        ]
        out.table(("NAME", "VALUE", "FROM", "VARIABLE", "WHAT IT IS"), rows)
    return OK


def _where(call: Call, name: str, origin: str) -> str:
    """Return where a setting was set, as git says it: `file:` and its path, `environment:VARIABLE`, `flag:--bus`."""
    from mcp_bus.settings import SETTINGS

    if origin == "flag":
        return f"flag:--{name.replace('_', '-')}"
    if origin == SETTINGS[name].env:
        return f"environment:{origin}"
    if origin.endswith(".toml"):
        return f"file:{call.config.cwd / origin}"
    return f"default:{'' if origin == 'default' else origin.removeprefix('default: ')}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


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
    "version": Verb(declare_version, version, "mcp-bus version --json"),
}
