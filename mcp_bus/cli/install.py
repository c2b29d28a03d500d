"""install, uninstall: our server into the settings of agent clients, and out of them again."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.cli.arguments import Verb, shell
from mcp_bus.cli.codes import ERROR, OK, code_of
from mcp_bus.cli.output import clean
from mcp_bus.errors import BusError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.clients.edits import Change
    from mcp_bus.clients.known import Client, Home, Server

OWN_LIMIT_S = 60


def declare_install(parser: Parser) -> None:
    """Declare the options of `install`."""
    _declare(parser, "the clients; those that are found here, if none is named")
    parser.add_argument("--print", action="store_true", help="print each entry and where it goes, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace a server of the same name that is not ours")


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


class _Step(NamedTuple):
    """What is to be done for one client: a change of its settings, or calls of its own command that make it."""

    client: Client
    change: Change | None = None
    calls: tuple[tuple[str, ...], ...] = ()
    error: BusError | None = None

    def shown(self) -> dict[str, Any]:
        """Return it as JSON."""
        made: dict[str, Any] = {"client": self.client.name, "error": str(self.error) if self.error else None}
        if self.change is not None:
            made |= {"file": str(self.change.path), "what": self.change.what}
        return made | ({"commands": [list(words) for words in self.calls]} if self.calls else {})


def install(call: Call) -> int:
    """Put the server into the settings of clients."""
    from mcp_bus.clients import edits, known

    home, args = home_here(), call.args
    if args.list:
        return _list(call, home)
    server = server_of(call)
    chosen = _chosen(call) or found_here(home)
    if not chosen:
        msg = "no client was found here"
        raise NotFound(msg, hint=f"name one: {', '.join(known.CLIENTS)}")
    if args.print:
        return _print(call, chosen, home, server)

    def step(client: Client) -> _Step:
        entry = client.entry(named(server, client))
        change = edits.adding(client, _place(call, client, home), entry, is_forced=args.force)
        return _Step(client, change, _own(client, args.scope, change, json.dumps(entry)))

    return _do(call, home, [_tried(client, step) for client in chosen], server)


def uninstall(call: Call) -> int:
    """Take the server out of the settings of clients."""
    from mcp_bus.clients import edits

    home, args = home_here(), call.args
    if args.list:
        return _list(call, home)

    def step(client: Client) -> _Step:
        change = edits.removing(client, _place(call, client, home), home)
        return _Step(client, change, _own(client, args.scope, change, ""))

    chosen = _chosen(call)
    steps = [_tried(client, step) for client in chosen or _all(args.scope)]
    if not chosen:
        steps = [step for step in steps if step.change is None or step.change.what != edits.ABSENT]
        steps = [step for step in steps if step.error is None]
    return _do(call, home, steps, None)


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


def _all(scope: str) -> list[Client]:
    from mcp_bus.clients.known import CLIENTS, USER

    return [client for client in CLIENTS.values() if scope == USER or client.project]


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
    place = client.user(home)
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
    env = {"MCP_BUS_DIR": str(call.config.path)} if call.config.origins["bus"] == "flag" else {}
    if command:
        return Server(command, ("serve",), env)
    return Server(sys.executable, ("-m", "mcp_bus", "serve"), env)


def named(server: Server, client: Client) -> Server:
    """Return the server as a client starts it, under the client's name."""
    return server._replace(env={"MCP_BUS_AGENT": client.name, **server.env})


def _place(call: Call, client: Client, home: Home) -> Path:
    return client.place(home, call.args.scope, Path.cwd())


def _own(client: Client, scope: str, change: Change, entry: str) -> tuple[tuple[str, ...], ...]:
    """Return the calls of a client's own command that make a change; none if it has none, or nothing is to do."""
    import shutil

    from mcp_bus.clients.edits import ADDED
    from mcp_bus.clients.known import USER

    program = shutil.which(client.command) if client.own and scope == USER else None
    if program is None or client.own is None or change.is_none:
        return ()
    add, remove = ((program, *words) for words in client.own)
    if not entry:
        return (remove,)
    return ((*add, entry),) if change.what == ADDED else (remove, (*add, entry))


def _tried(client: Client, step: Callable[[Client], _Step]) -> _Step:
    try:
        return step(client)
    except BusError as error:
        return _Step(client, error=error)


# --- showing and doing ----------------------------------------------------------------------------------


def _list(call: Call, home: Home) -> int:
    from mcp_bus.clients.known import CLIENTS

    here = {client.name for client in found_here(home)}
    if call.out.as_json:
        rows = [
            {"client": name, "is_here": name in here, "file": str(client.user(home))}
            for name, client in CLIENTS.items()
        ]
        call.out.json({"clients": rows})
        return OK
    heads = ("CLIENT", "HERE", "SETTINGS")
    call.out.table(heads, [(name, "yes" if name in here else "-", str(c.user(home))) for name, c in CLIENTS.items()])
    return OK


def _print(call: Call, chosen: Sequence[Client], home: Home, server: Server) -> int:
    from mcp_bus.clients import texts
    from mcp_bus.clients.known import NAME

    made = list[dict[str, Any]]()
    for client in chosen:
        entry, place = client.entry(named(server, client)), _place(call, client, home)
        link = client.link(entry) if client.link is not None and call.args.scope == "user" else ""
        made.append({"client": client.name, "file": str(place), "entry": entry} | ({"link": link} if link else {}))
        if not call.out.as_json:
            call.out.line(f"# {client.title}: {clean(str(place))}")
            text = texts.put("", client.form, (*client.path, NAME), entry)
            call.out.line(clean(text.rstrip(), multiline=True))
            if link:
                call.out.line(f"# or open: {link}")
    if call.out.as_json:
        call.out.json({"clients": made})
    return OK


def _do(call: Call, home: Home, steps: Sequence[_Step], server: Server | None) -> int:
    """Show what would be done, ask, do it, and say what was done."""
    for step in steps:
        _show(call, step)
    open_steps = [step for step in steps if step.change is not None and not step.change.is_none]
    is_done = not call.args.dry_run and bool(open_steps)
    if is_done and not call.args.yes:
        _ask(call, len(open_steps))
    done = [_done(call, step, home) if is_done else step for step in steps]
    codes = [code_of(step.error) for step in done if step.error is not None]
    tools: dict[str, Any] = {}
    if server is not None and not call.args.dry_run:
        tools["tools"] = _probe(call, server)
        codes += [ERROR] if tools["tools"] is None else []
    if call.out.as_json:
        call.out.json({"clients": [step.shown() for step in done], "written": is_done, **tools})
    elif not steps:
        call.out.note("no client has it")
    return max([OK, *codes])


def _show(call: Call, step: _Step) -> None:
    """Show what a step would do, as a diff of the settings."""
    if step.error is not None:
        call.out.warn(f"mcp-bus: {step.client.title}: {clean(str(step.error))}")
        if step.error.hint:
            call.out.warn(f"  next: {clean(step.error.hint)}")
        return
    change = step.change
    assert change is not None
    call.out.note(f"{step.client.title}: {change.what}: {clean(str(change.path))}")
    for words in step.calls:
        call.out.note("  by its own command: " + clean(" ".join(map(shell, words)))[:300])
    if not step.calls and not call.out.quiet:
        for line in _diff(change):
            call.out.note(f"  {clean(line)}")


def _diff(change: Change) -> list[str]:
    before, after = ((data or b"").decode(errors="replace").splitlines() for data in (change.before, change.after))
    return [
        line for line in difflib.unified_diff(before, after, lineterm="", n=2) if not line.startswith(("---", "+++"))
    ]


def _ask(call: Call, count: int) -> None:
    """Go on if the person says yes.

    Raises:
        InvalidRequest: nobody can be asked, or the answer is no; nothing was written.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        msg = "nobody can be asked here whether to write this"
        raise InvalidRequest(msg, hint="--yes does not ask; --dry-run only shows")
    call.out.warn(f"Write {'this' if count == 1 else f'these {count}'}? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        msg = "nothing was written"
        raise InvalidRequest(msg, hint="repeat it, and answer y")


def _done(call: Call, step: _Step, home: Home) -> _Step:
    """Do a step; return it with what went wrong, if anything did."""
    from mcp_bus.clients import edits

    change = step.change
    if change is None or change.is_none:
        return step
    try:
        for words in step.calls:
            _run(words)
        kept = None if step.calls else edits.write(change, home)
    except BusError as error:
        call.out.warn(f"mcp-bus: {step.client.title}: {clean(str(error))}")
        return step._replace(error=error)
    if not call.out.as_json:
        call.out.line(f"{step.client.title}: {change.what}; {step.client.again}")
    if kept is not None and change.what != edits.REMOVED:
        call.out.note(f"  what was there before is kept: {clean(str(kept))}")
    return step


def _run(words: Sequence[str]) -> None:
    """Run a client's own command.

    Raises:
        BusError: it failed; says what it wrote.
    """
    import subprocess

    from mcp_bus.clients.edits import Unwritable

    try:
        done = subprocess.run(  # noqa: S603  the client's own program, found on PATH
            words, capture_output=True, check=False, timeout=OWN_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{words[0]!r} cannot be run: {error}"
        raise Unwritable(msg) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
        msg = f"its own command failed ({done.returncode}): {said}"
        raise Unwritable(msg, hint=" ".join(words[:3]) + " --help")


def _probe(call: Call, server: Server) -> int | None:
    from mcp_bus.clients import probe
    from mcp_bus.config import environment

    try:
        answer = probe.ask(server, environment())
    except BusError as error:
        call.out.warn(f"mcp-bus: {clean(str(error))}")
        call.out.warn(f"  next: {clean(error.hint)}")
        return None
    call.out.note(f"the server answers: {len(answer.tools)} tools after {answer.took_s:.1f} s ({server.command})")
    return len(answer.tools)


VERBS = {
    "install": Verb(
        declare_install,
        install,
        "mcp-bus install                        # every client that is found here\n"
        "mcp-bus install claude-code codex --yes\n"
        "mcp-bus install cursor --scope project --dry-run",
    ),
    "uninstall": Verb(declare_uninstall, uninstall, "mcp-bus uninstall codex"),
}
