"""What `doctor` looks at: the program, the bus, who works on it, and the clients; each finding with one thing to do."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.cli import fields
from mcp_bus.cli.output import clean
from mcp_bus.errors import BusError
from mcp_bus.find import public, queues, short
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.clients.known import Client, Home, Server

GOOD, WARNING, BAD, PERSON = "good", "warning", "bad", "person"
# A server that takes longer to start is given up by some clients, or found late.
SLOW_S = 5.0
WATCHES = 8192
OWN_LIMIT_S = 60
# A lease that ended so long ago, in milliseconds, should have been taken back by whoever uses the bus.
OVERDUE = 120_000
FEW = 3


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        level: `GOOD`; `WARNING`, something to know; `BAD`, something does not work; `PERSON`, a person has to decide.
        fix: a command that mends it, or is the first step; empty if there is nothing to do.
        is_safe: whether `--fix` may run it.
    """

    about: str
    level: str
    said: str
    fix: str = ""
    is_safe: bool = False


# --- the program and the machine ------------------------------------------------------------------------


def program(server: Server) -> Iterator[Finding]:
    """Look at the program: which Python, and whether the server starts and lists its tools."""
    from mcp_bus import wire
    from mcp_bus.clients import probe
    from mcp_bus.config import environment

    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("program", GOOD, f"mcp-bus, bus format {wire.VERSION}, Python {version}: {server.command}")
    try:
        answer = probe.ask(server, environment())
    except BusError as error:
        yield Finding("server", BAD, str(error), error.hint)
        return
    level = WARNING if answer.took_s > SLOW_S else GOOD
    yield Finding("server", level, f"it lists {len(answer.tools)} tools {answer.took_s:.1f} s after its start")


def machine() -> Iterator[Finding]:
    """Look at what the kernel allows: watches, without which waiting falls back to looking again and again."""
    path = Path("/proc/sys/fs/inotify/max_user_watches")
    with suppress(OSError, ValueError):
        allowed = int(path.read_text("ascii"))
        level = GOOD if allowed >= WATCHES else WARNING
        fix = "" if level == GOOD else f"sudo sysctl fs.inotify.max_user_watches={WATCHES * 8}"
        yield Finding("waiting", level, f"{allowed} folders can be watched for changes", fix)


# --- the bus --------------------------------------------------------------------------------------------


def place(call: Call) -> Iterator[Finding]:
    """Look at where the bus is: that it is there, and on what."""
    from mcp_bus.stores import probe

    root, origin = call.config.path, call.config.origins["bus"]
    if not (root / "bus.json").is_file():
        yield Finding("bus", WARNING, f"there is none at {root} ({origin}) yet", f"{call.again()} init", is_safe=True)
        return
    yield Finding("bus", GOOD, f"{root} ({origin})")
    verdict = probe.judge(probe.kind_of(root))
    if verdict.refusal:
        yield Finding("file system", BAD, f"{verdict.kind}: {verdict.refusal}", probe.INSTEAD)
    else:
        yield Finding("file system", WARNING if verdict.warning else GOOD, verdict.warning or verdict.kind)


def clock(bus: Bus) -> Iterator[Finding]:
    """Compare the clock of this machine with that of the file system, and with the newest task."""
    from mcp_bus.cursors import time_of

    newest = max(bus.store.ids(), default="")
    ahead = time_of(newest) - bus.source.now() if newest else 0
    if ahead > OVERDUE:
        said = f"a task is from {ahead // 1000} s in the future: clocks of machines that share the bus differ"
        yield Finding("clock", WARNING, said, "set the clocks by NTP")
    else:
        yield Finding("clock", GOOD, "no task is from the future")


def work(call: Call, bus: Bus) -> Iterator[Finding]:
    """Look at what waits for somebody: leases that are over, dead tasks, files that were put aside."""
    now, again = bus.source.now(), call.again()
    leased = [slot for name in public(bus.store) for slot in bus.store.scan(name, State.LEASED)]
    late = [slot.id for slot in leased if slot.lease and slot.lease.expires + OVERDUE < now]
    if late:
        yield Finding(
            "leases", WARNING, f"{len(late)} are over and were not taken back", f"{again} sweep", is_safe=True
        )
    else:
        yield Finding("leases", GOOD, f"{len(leased)} held, none that is long over")
    dead = [slot.id for name in queues(bus.store) for slot in bus.store.scan(name, State.DEAD)]
    if dead:
        some = ", ".join(map(short, dead[:FEW])) + (", …" if len(dead) > FEW else "")
        yield Finding(
            "dead letter", PERSON, f"{len(dead)} tasks need a person: {some}", f"{again} show {short(dead[0])}"
        )
    else:
        yield Finding("dead letter", GOOD, "empty")
    for folder, what in (("quarantine", "that are no messages"), ("rejected", "of workers that had lost their lease")):
        count = fields.aside(call.config.path / folder)
        said = f"{count} files {what}: {call.config.path / folder}" if count else "empty"
        yield Finding(folder, PERSON if count else GOOD, said, f"ls {call.config.path / folder}" if count else "")


def agents(bus: Bus) -> Iterator[Finding]:
    """Look at who is there, and who holds something without being there."""
    seen = bus.roster.all()
    live = sorted({item.presence.agent for item in seen if item.is_live})
    yield Finding("agents", GOOD, f"{len(live)} there: {', '.join(live[:10])}" if live else "none is there now")
    over = {item.presence.holder for item in seen if item.is_over}
    orphans = [
        slot.id
        for name in public(bus.store)
        for slot in bus.store.scan(name, State.LEASED)
        if slot.lease is not None and slot.lease.holder in over
    ]
    if orphans:
        some = ", ".join(map(short, orphans[:FEW]))
        said = (
            f"{len(orphans)} tasks are held by sessions that have ended: {some}; they come back when their leases end"
        )
        yield Finding("orphans", WARNING, said, f"mcp-bus requeue {short(orphans[0])}")


# --- the clients ----------------------------------------------------------------------------------------


def client(one: Client, home: Home, server: Server) -> Finding:
    """Look at one client's settings: that our entry is there, and starts this program by a path that there is."""
    from mcp_bus.clients import edits, parts, texts
    from mcp_bus.clients.known import NAME

    about, fix = one.title, f"mcp-bus install {one.name}"
    try:
        change = edits.adding(one.user(home), [parts.Entry(one, one.entry(server))], home)
    except BusError as error:
        return Finding(about, BAD, str(error), error.hint)
    if change.what == parts.SAME:
        return Finding(about, GOOD, f"starts this program: {change.path}")
    if change.what == parts.ADDED:
        return Finding(about, WARNING, "it is here, and does not know the bus", fix)
    found = texts.read((change.before or b"").decode(), one.form)
    command = _command(texts.entry(found, (*one.path, NAME)))
    if not Path(command).is_absolute():
        said = f"starts {command!r} by its name, and may have no PATH to find it"
    elif not Path(command).is_file():
        said = f"starts {command}, which is not there any more"
    else:
        return Finding(about, GOOD, f"starts {command}, with other settings than `install` writes")
    return Finding(about, BAD if Path(command).is_absolute() else WARNING, said, fix, is_safe=True)


def _command(entry: Any) -> str:  # noqa: ANN401  whatever somebody wrote
    found = entry.get("command", entry.get("cmd")) if isinstance(entry, dict) else ""
    return str(found[0] if isinstance(found, list) and found else found)


# How a client is asked to start its servers and to say which it reached.
_LISTS = {"claude-code": "claude", "gemini-cli": "gemini", "qwen": "qwen", "opencode": "opencode"}


def through(one: Client, home: Home) -> Finding | None:
    """Let a client start the server itself, if it is one that does so on being asked; None if not."""
    import shutil
    import subprocess

    program_of = shutil.which(_LISTS.get(one.name, ""), path=home.environment.get("PATH"))
    if not program_of:
        return None
    about = f"{one.title} itself"
    try:
        done = subprocess.run(  # noqa: S603  the client's own program, found on PATH
            [program_of, "mcp", "list"], capture_output=True, timeout=OWN_LIMIT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(about, WARNING, f"`mcp list` could not be run: {error}")
    said = (done.stdout + done.stderr).decode(errors="replace")
    line = next((clean(line).strip() for line in said.splitlines() if "bus" in line.split(":")[0].lower()), "")
    if "connected" in line.lower() and "disconnected" not in line.lower():
        return Finding(about, GOOD, "has started the server and reached it")
    return Finding(about, WARNING, f"says: {line or 'nothing of a server called bus'}", f"mcp-bus install {one.name}")
