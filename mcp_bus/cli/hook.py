"""hook: tells an agent, through its client's own hooks, who it is, what it holds and what waits for it.

The client calls this with JSON on stdin and shows its model what is printed, if that has the form which this very
honours: see `hooks.forms`, and `hooks.telling` for what is said.  A hook never fails its agent, nor makes a bus.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_bus import config
from mcp_bus.bus import Bus
from mcp_bus.cli.codes import ERROR, OK
from mcp_bus.cli.output import one_line
from mcp_bus.errors import InvalidRequest
from mcp_bus.hooks import forms
from mcp_bus.hooks.forms import CALLED, CLIENTS, is_meant, reply
from mcp_bus.hooks.telling import speak
from mcp_bus.identity import process
from mcp_bus.plain import clean
from mcp_bus.stores.modes import is_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.hooks.forms import Event
    from mcp_bus.presence import Presence, Seen

# How much a client may say, and how long it may pause while it does.
MAX_STDIN, STDIN_S = 16 * 1024 * 1024, 1.0
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ash", "ksh"})


# --- the verb -------------------------------------------------------------------------------------


def __getattr__(name: str) -> object:
    """Return what `--help` needs; whoever is called by a client does not wait for a parser to be loaded."""
    if name != "VERBS":
        raise AttributeError(name)
    from mcp_bus.cli.arguments import Verb

    def run(call: Call) -> int:
        return main([call.args.client, call.args.event], call.out)

    return {"hook": Verb(_declare, run, "mcp-bus hook claude-code SessionStart")}


def _declare(parser: Parser) -> None:
    parser.add_argument("client", metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument(
        "event",
        metavar="EVENT",
        help="an event of it: " + "; ".join(f"{name}: {', '.join(events)}" for name, events in CLIENTS.items()),
    )


def main(words: Iterable[str], out: Out) -> int:
    """Answer a client's hook; return the exit code, which is 0 whatever happens to the bus.

    Raises:
        InvalidRequest: no such client or event, and no client is calling.  To one that calls, code 2 would be the
            order to hold its agent up.
    """
    flags, rest = _flags(words)
    said = _stdin()
    try:
        event = _event(rest)
    except InvalidRequest as error:
        if "hook_event_name" not in said:
            raise
        out.warn(f"mcp-bus: {clean(str(error))}; {error.hint}")
        return ERROR
    try:
        text = _speak(rest[0], event, said, flags)
    except Exception as error:  # noqa: BLE001  whatever it is, an agent must not be kept from its work by it
        out.warn(f"mcp-bus: hook {rest[0]} {rest[1]}: {one_line(str(error) or type(error).__name__)}")
        return OK
    if text:
        out.line(reply(event.form, rest[1], text))
    return OK


def _flags(words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Tell the options that every verb has from the words; the parser that knows them would cost more than this."""
    flags, rest, wanted = dict[str, str](), list[str](), ""
    for word in words:
        name, is_whole, value = word.partition("=")
        if wanted:
            flags[wanted], wanted = word, ""
        elif name in ("--bus", "--agent"):
            wanted = "" if is_whole else name[2:]
            flags |= {name[2:]: value} if is_whole else {}
        elif word not in ("-q", "--quiet", "--json"):
            rest.append(word)
    return flags, rest


def _event(words: list[str]) -> Event:
    return forms.event(words[0] if words else "", " ".join(words[1:]))


def _stdin() -> dict[str, Any]:
    """Return what the client says; nothing if that is no JSON object, or does not come."""
    data = b""
    with suppress(OSError, ValueError, AttributeError):
        fd = sys.stdin.fileno()
        while not os.isatty(fd) and len(data) <= MAX_STDIN and select.select([fd], [], [], STDIN_S)[0]:
            part = os.read(fd, 65_536)
            if not part:
                break
            data += part
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _speak(client: str, event: Event, said: Mapping[str, Any], flags: Mapping[str, str]) -> str:
    """Return what the agent should be told; empty for nothing."""
    if not said:
        msg = "there is no JSON object on stdin"
        raise InvalidRequest(msg)
    if not is_meant(event, said):
        return ""
    settings = config.load(flags, cwd=_cwd(said))
    if not is_there(settings.path / "bus.json"):
        return ""
    called = CALLED.get(client, client)
    with config.open_from(settings, client=called, tell=lambda _: None, is_asking=False) as opened:
        called = CALLED.get(client, client)
        own = _own(
            item
            for item in opened.roster.all()
            if settings["agent"] in ("", item.presence.agent) and item.presence.client in ("", called)
        )
        who = opened.identity
        who = who._replace(agent=own.agent, session=own.session, holder=own.holder) if own else who
        bus = Bus(opened.store, who, opened.source)
        key = str(said.get("session_id") or said.get("conversation_id") or "")
        session = who.session if own or settings["session"] else ""
        return speak(bus, event, key, session=session, remembers=not settings["read_only"])


def _cwd(said: Mapping[str, Any]) -> Path:
    roots = said.get("workspace_roots")
    for place in (said.get("cwd"), *(roots if isinstance(roots, list) else ())):
        if isinstance(place, str) and "\0" not in place and os.path.isabs(place) and os.path.isdir(place):  # noqa: PTH112, PTH117  a Path is made for one of them only
            return Path(place)
    return Path.cwd()


# --- who speaks -----------------------------------------------------------------------------------


def _own(seen: Iterable[Seen]) -> Presence | None:
    """Return the session of the client that calls: its server and this process have the same parent, or nearly.

    What the server was told of its name, a hook need not know.  None where that cannot be told: before the first
    tool is called, without /proc, or when a launcher stands in between.
    """
    parent = _process(os.getpid())[1]
    name, above_it = _process(parent)
    # A client starts its hooks itself, or through a shell; whatever else stands between is another client.
    above = {parent, above_it if name in SHELLS else 0} - {0, 1}
    here = process.host()
    live = [item.presence for item in seen if item.is_live]
    found = [presence for presence in live if presence.host == here and _process(presence.pid)[1] in above]
    return found[0] if len(found) == 1 else None


def _process(pid: int) -> tuple[str, int]:
    """Return what a process is called, and its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "", 0
    head, _, rest = stat.rpartition(b")")
    return head.partition(b"(")[2].decode("ascii", "replace"), int(rest.split()[1])
