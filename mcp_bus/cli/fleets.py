"""worker up, ps, logs, stop: a fleet that is kept alive from one file."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import running
from mcp_bus.cli.codes import NOT_FOUND, OK, PERSON
from mcp_bus.cli.output import ago, clean, one_line
from mcp_bus.errors import BusError, InvalidRequest, NotFound
from mcp_bus.find import short
from mcp_bus.identity import process

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.workers.fleet import Fleet

MAX_FILE = 256 * 1024
LINES = 40
FOLLOW_S = 0.5


def up(call: Call) -> int:
    """Keep the workers of a file alive."""
    from mcp_bus.config import environment
    from mcp_bus.workers import fleet
    from mcp_bus.workers.supervisor import Host, Supervisor

    name = _one(call, "a workers file")
    path = Path(name).absolute()
    made = fleet.parse(_text(path), name)
    seen = environment()
    seen.pop("MCP_BUS_SESSION", None)
    with call.bus(create=True) as bus:
        _check(made, path.parent, seen, bus)
        host = Host(
            (sys.executable, "-m", "mcp_bus"),
            {**seen, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            path.parent,
            call.config.path,
            lambda text: call.out.note(clean(text)),
        )
        supervisor = Supervisor(bus, made, host, str(path))
        names = ", ".join(child.name for child in supervisor.children)
        call.out.note(f"{made.strategy}: {names}; Ctrl-C ends them after what they work on")
        with running.signals(supervisor):
            gave_up = supervisor.run()
    if gave_up:
        call.out.warn(f"mcp-bus: gave up: {clean(gave_up)}")
        call.out.warn(f"  next: {call.again()} worker logs NAME, mend it, and start the fleet again")
        return PERSON
    return OK


def _check(made: Fleet, folder: Path, seen: dict[str, str], bus: Bus) -> None:
    """Refuse a fleet of which a worker could not even begin: it would die again and again, and take the others along.

    Raises:
        InvalidRequest: a command or a folder is missing; says whose.
        NotFound: a role is.
    """
    from mcp_bus.workers.readers import PRESETS

    for spec in made.workers:
        words = PRESETS[spec.preset].words if spec.preset else spec.command
        try:
            running.program(words[0], folder / spec.cwd, seen)
            if spec.role:
                running.role(bus, spec.role)
        except (InvalidRequest, NotFound) as error:
            msg = f"[workers.{spec.name}] {error}"
            raise type(error)(msg, hint=error.hint) from None


def _one(call: Call, what: str) -> str:
    if len(call.args.names) != 1:
        msg = f"worker {call.args.action} takes {what}"
        raise InvalidRequest(msg, hint="mcp-bus worker --help")
    return str(call.args.names[0])


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) <= MAX_FILE:
            return data.decode()
        why = f"it has more than {MAX_FILE} bytes"
    except OSError as error:
        why = error.strerror or str(error)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    msg = f"cannot read {str(path)[:200]!r}: {why}"
    raise InvalidRequest(msg, hint="name a workers file; examples/workers.toml is one")


# --- looking --------------------------------------------------------------------------------------------


def fleets(bus: Bus) -> list[dict[str, Any]]:
    """Return the fleets that run on this machine, as their supervisors wrote them down."""
    from mcp_bus.workers.supervisor import KIND

    found = []
    for record in bus.store.records.all(KIND).values():
        data = dict(record.data)
        here = data.get("host") == process.host() and data.get("boot") == process.boot_id()
        pid, started = data.get("pid"), data.get("started")
        if here and type(pid) is int and type(started) is int and process.is_running(pid, started):
            if not _runs(pid, "worker", "up"):
                continue  # The record lies where others can write, and names somebody else's process.
            data["workers"] = [item for item in data.get("workers", ()) if isinstance(item, dict)]
            found.append(data)
    return found


def _runs(pid: int, *what: str) -> bool:
    """Tell whether a process runs a verb of ours, as far as its command line is told."""
    found = process.words(pid)
    return found is None or set(what) <= set(found)


def ps(call: Call) -> int:
    """List workers: those of fleets, and others that are there."""
    with call.bus() as bus:
        now, known, tasks = bus.source.now(), fleets(bus), _held(bus)
        live = [seen.presence for seen in bus.roster.all() if seen.is_live]
    made = [item | {"host": process.host(), "is_supervised": True} for fleet in known for item in fleet["workers"]]
    supervised = {item.get("holder") for item in made}
    for who in live:
        if who.holder not in supervised and (who.serves or tasks.get(who.holder)):
            about = {"name": who.agent, "state": "running", "pid": who.pid, "since": who.since, "holder": who.holder}
            made.append(about | {"host": who.host, "restarts": 0, "why": "", "is_supervised": False})
    made = [item | {"tasks": tasks.get(str(item.get("holder")), [])} for item in made]
    if call.out.as_json:
        rest = [{key: value for key, value in fleet.items() if key != "workers"} for fleet in known]
        call.out.json({"workers": made, "fleets": rest})
    elif made:
        heads = ("WORKER", "STATE", "PID", "SINCE", "RESTARTS", "WORKS ON", "WHY")
        call.out.table(heads, [_row(item, now) for item in made])
    else:
        call.out.note("no workers; mcp-bus worker run, or mcp-bus worker up workers.toml")
    return OK


def _row(item: dict[str, Any], now: int) -> tuple[str, ...]:
    return (
        one_line(str(item.get("name")), 40), one_line(str(item.get("state")), 20), _process(item),
        ago(_number(item, "since"), now), str(_number(item, "restarts") or ""),
        " ".join(map(short, item["tasks"])), one_line(str(item.get("why") or ""), 120),
    )  # fmt: skip


def _process(item: dict[str, Any]) -> str:
    """Return which process a worker is; a number means nothing without its host."""
    where = "" if item["host"] in ("", process.host()) else f" on {one_line(item['host'], 40)}"
    return f"{_number(item, 'pid') or ''}{where}"


def _elsewhere(bus: Bus, name: str) -> str:
    """Return another host on which somebody of that name is there; empty if there is none."""
    others = {seen.presence.host for seen in bus.roster.all() if seen.is_live and seen.presence.agent == name}
    return min(others - {"", process.host()}, default="")


def _number(worker: dict[str, Any], name: str) -> int:
    value = worker.get(name)
    return value if type(value) is int else 0


def _held(bus: Bus) -> dict[str, list[str]]:
    """Return which tasks are held, by holder."""
    from mcp_bus.find import queues
    from mcp_bus.model import State

    made: dict[str, list[str]] = {}
    for channel in queues(bus.store):
        for slot in bus.store.scan(channel, State.LEASED):
            if slot.lease is not None:
                made.setdefault(slot.lease.holder, []).append(slot.id)
    return made


def logs(call: Call) -> int:
    """Show the end of a worker's log; go on with it if that is wanted."""
    from mcp_bus.workers.fleet import NAME
    from mcp_bus.workers.logs import Reading

    name, reading = _one(call, "the name of a worker"), None
    with call.bus() as bus:
        if NAME.match(name):
            with suppress(FileNotFoundError):
                reading = Reading(call.config.path, name, bus.source, lines=call.args.lines)
        host = _elsewhere(bus, name) if reading is None else ""
    if host:
        msg = f"{name[:60]!r} runs on {host[:60]!r}, and its log is there"
        raise NotFound(msg, hint=f"on that host: `mcp-bus worker logs {name}`")
    if reading is None:
        msg = f"there is no log of {name[:60]!r}"
        raise NotFound(msg, hint="`mcp-bus worker ps` lists workers; those of a fleet have a log")
    try:
        while True:
            for line in reading.more().decode(errors="replace").splitlines():
                call.out.line(clean(line))
            call.out.flush()
            if not call.args.follow:
                return OK
            select.select([], [], [], FOLLOW_S)
    finally:
        reading.close()


# --- stopping -------------------------------------------------------------------------------------------


def stop(call: Call) -> int:
    """Let workers end: all of this machine's fleets, or those that are named."""
    names, code = list(dict.fromkeys(call.args.names)), OK
    with call.bus() as bus:
        known = fleets(bus)
        workers = [item for fleet in known for item in fleet["workers"]]
        _note(bus, [item for item in workers if item.get("name") in names])
        hosts = {name: _elsewhere(bus, name) for name in names}
    if not names:
        for fleet in known:
            os.kill(fleet["pid"], signal.SIGTERM)
            call.out.line(f"the fleet of {one_line(str(fleet.get('file')), 200)} was told to end")
        if not known:
            call.out.note("no fleet runs here")
        return OK if known else NOT_FOUND
    for name in names:
        # Several fleets may have one of that name.  A record lies where others can write: it may name any process.
        told = [pid for item in workers if item.get("name") == name and (pid := _pid(item, name)) and _told(pid)]
        if told:
            call.out.line(f"{name} was told to end" + (f" ({len(told)} of that name)" if len(told) > 1 else ""))
            continue
        code = NOT_FOUND
        if hosts[name]:
            call.out.warn(f"mcp-bus: {clean(name)[:60]!r} runs on {one_line(hosts[name], 60)!r}, not here")
            call.out.warn(f"  next: on that host, {call.again()} worker stop {clean(name)}; or end its process there")
        else:
            call.out.warn(f"mcp-bus: no worker {clean(name)[:60]!r} runs in a fleet here")
    return code


def _note(bus: Bus, workers: list[dict[str, Any]]) -> None:
    """Leave word for supervisors that these were told to end, and are not to be started again."""
    from mcp_bus.workers.supervisor import STOPS

    for item in workers:
        with suppress(BusError):
            bus.store.records.write(STOPS, str(item.get("holder")), {"at": bus.source.now()}, after=0, durable=False)


def _pid(worker: dict[str, Any], name: str) -> int:
    """Return the process of a worker; 0 if it is none, or somebody else's."""
    pid = _number(worker, "pid")
    is_its = process.is_running(pid, _number(worker, "started")) and _runs(pid, "--leash", name)
    return pid if is_its else 0


def _told(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        return True
    return False
