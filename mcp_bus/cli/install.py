"""install, uninstall: our server, and what goes with it, into the settings of agent clients, and out of them again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean
from mcp_bus.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.clients.known import Client, Home, Server


def declare_install(parser: Parser) -> None:
    """Declare the options of `install`."""
    _declare(parser, "the clients; those that are found here, if none is named")
    parser.add_argument("--print", action="store_true", help="print each entry and where it goes, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace what has the name of ours and is not ours")
    parser.add_argument("--hooks", action="store_true", help="also the hooks that tell the model what waits for it")
    parser.add_argument(
        "--agents-md", action="store_true", help="also a block about the bus in the project's AGENTS.md, or CLAUDE.md"
    )
    parser.add_argument("--skill", action="store_true", help="also the skill that says how to work over the bus")


def declare_uninstall(parser: Parser) -> None:
    """Declare the options of `uninstall`."""
    _declare(parser, "the clients; all that have it, if none is named")


def _declare(parser: Parser, which: str) -> None:
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=which)
    parser.add_argument(
        "--scope", choices=("user", "project"), default="user", help="for you (default), or this folder"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--list", action="store_true", help="list the clients that are known, and which are here")


def install(call: Call) -> int:
    """Put the server, and what more is asked for, into the settings of clients."""
    from mcp_bus.cli import installing
    from mcp_bus.cli import steps as stepping
    from mcp_bus.clients import edits, known

    home, args = home_here(), call.args
    if args.list:
        return _list(call, home)
    server = server_of(call)
    chosen = _chosen(call) or found_here(home)
    if not chosen:
        msg = "no client was found here"
        raise NotFound(msg, hint=f"name one: {', '.join(known.CLIENTS)}")
    _check_text(server)
    if args.print:
        return installing.show(call, home, chosen, _printed(call, server))
    _check_password(call)
    jobs, steps = installing.wanted(call, home, chosen, server)
    steps += stepping.decided(
        jobs,
        lambda path, parts: edits.adding(path, parts, home, is_forced=args.force),
        is_user=args.scope == known.USER,
    )
    return installing.do(call, home, steps, server)


def _check_text(server: Server) -> None:
    """Refuse what no settings can hold.

    Raises:
        InvalidRequest: a path is no text.
    """
    for said in (server.command, *server.env.values()):
        try:
            said.encode()
        except UnicodeEncodeError:
            msg = f"{said!r} is not UTF-8, and no client's settings can hold it"
            raise InvalidRequest(msg, hint="name another bus, or a symlink to it") from None


def _printed(call: Call, server: Server) -> Server:
    """Return a server as it is printed: without a password in the address of its bus."""
    remote = call.config.remote
    if remote is None or remote.shown == str(remote) or not server.env:
        return server
    call.out.note("the password in the address is not printed: put it in for ***")
    return server._replace(env={"MCP_BUS_DIR": remote.shown})


def _check_password(call: Call) -> None:
    """Refuse a password in the settings of a project, which go with its code.

    Raises:
        InvalidRequest: it would get there.
    """
    remote = call.config.remote
    if call.args.scope == "project" and remote is not None and remote.shown != str(remote):
        msg = "the address of the bus has a password, and a project's settings are for everyone who has its code"
        raise InvalidRequest(msg, hint="name it without, and let a credential helper of git know the password")


def uninstall(call: Call) -> int:
    """Take all of ours out of the settings of clients."""
    from mcp_bus.cli import installing
    from mcp_bus.cli import steps as stepping
    from mcp_bus.clients import edits, known

    home, args = home_here(), call.args
    if args.list:
        return _list(call, home)
    named = _chosen(call)
    chosen = named or [client for client in known.CLIENTS.values() if args.scope == known.USER or client.project]
    jobs, steps = installing.present(call, home, chosen)
    steps += stepping.decided(
        jobs, lambda path, parts: edits.removing(path, parts, home), is_user=args.scope == known.USER
    )
    return installing.do(call, home, [step for step in steps if step.matters(is_named=bool(named))], None)


def home_here() -> Home:
    """Return the home of whoever runs this.

    Raises:
        InvalidRequest: there is none.
    """
    from mcp_bus.clients.known import Home
    from mcp_bus.config import environment, home

    seen = environment()
    return Home(home(seen), seen, sys.platform)


# --- which clients, and what server ---------------------------------------------------------------------


def _chosen(call: Call) -> list[Client]:
    """Return the clients that were named, by our names or by those of their programs."""
    from mcp_bus.clients.known import CLIENTS
    from mcp_bus.plain import near

    called = {client.command: client for client in CLIENTS.values() if client.command} | CLIENTS
    for name in call.args.clients:
        if name not in called:
            close = near(name, CLIENTS) or [other for other in CLIENTS if name in other or other in name]
            msg = f"there is no client {clean(name)[:40]!r} that is known here"
            raise NotFound(msg, hint=f"did you mean {close[0]}?" if close else f"known: {', '.join(CLIENTS)}")
    return list({called[name].name: called[name] for name in call.args.clients}.values())


def found_here(home: Home) -> list[Client]:
    """Return the clients that were ever used here."""
    from mcp_bus.clients.known import CLIENTS

    return [client for client in CLIENTS.values() if _is_here(client, home)]


def _is_here(client: Client, home: Home) -> bool:
    """Tell whether a client was ever used here: its program, its settings, or a folder of it is there."""
    import shutil

    if client.command and shutil.which(client.command, path=home.environment.get("PATH")):
        return True
    # The folder of settings, not only the file: a fresh client has none yet.  A home is a folder of everybody's.
    place = client.at_home(home)
    folders = [home.home / trace for trace in client.traces]
    folders += [place.parent] if place.parent != home.home else []
    return place.is_file() or any(folder.is_dir() for folder in folders)


def server_of(call: Call) -> Server:
    """Return how clients start this very program: by its absolute path, for not all of them have a PATH."""
    import shutil

    from mcp_bus.clients.known import Server

    mine = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).parent / "mcp-bus"
    found = next((path for path in (mine, beside) if path.name == "mcp-bus" and path.is_file()), None)
    command = str(found) if found else shutil.which("mcp-bus")
    named = str(call.config.remote or call.config.path)
    env = {"MCP_BUS_DIR": named} if call.config.origins["bus"] == "flag" else {}
    if command:
        return Server(command, ("serve",), env)
    return Server(sys.executable, ("-m", "mcp_bus", "serve"), env)


# --- showing ---------------------------------------------------------------------------------------------


def _list(call: Call, home: Home) -> int:
    from mcp_bus.clients.known import CLIENTS

    here = {client.name for client in found_here(home)}
    if call.out.as_json:
        rows = [
            {"client": name, "is_here": name in here, "file": str(client.at_home(home))}
            for name, client in CLIENTS.items()
        ]
        call.out.json({"clients": rows})
        return OK
    heads = ("CLIENT", "HERE", "SETTINGS")
    call.out.table(heads, [(name, "yes" if name in here else "-", str(c.at_home(home))) for name, c in CLIENTS.items()])
    return OK


VERBS = {
    "install": Verb(
        declare_install,
        install,
        "mcp-bus install                        # every client that is found here\n"
        "mcp-bus install claude-code codex --yes\n"
        "mcp-bus install claude-code --hooks --agents-md --skill\n"
        "mcp-bus install cursor --scope project --dry-run",
    ),
    "uninstall": Verb(declare_uninstall, uninstall, "mcp-bus uninstall codex"),
}
