"""abq's verbs for whoever looks after a bus: channel, status, ls, check, gc, requeue."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus import find, wire
from mcp_bus.cli.codes import ERROR, OK
from mcp_bus.cli.output import clean, cut
from mcp_bus.errors import BusError, Conflict, CorruptRecord, InvalidRequest, NotFound
from mcp_bus.model import State

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.cli.output import Out
    from mcp_bus.config import Config
    from mcp_bus.model import Slot, Task

# abq's folders, and the states of what is in them.
FOLDERS: dict[str, tuple[State, ...]] = {
    "requests": (State.READY, State.SCHEDULED),
    "processing": (State.LEASED,),
    "responses": (State.DONE,),
    "archive": (State.DONE, State.CANCELLED, State.EXPIRED),
}


def channel(args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    """Make, list or remove channels."""
    if args.action == "list":
        for name in find.public(bus.store):
            out.line(clean(name))
        return OK
    if not args.name:
        msg = "channel name required"
        raise InvalidRequest(msg)
    place = settings.path / "channels" / args.name
    if args.action == "create":
        bus.create_channel(args.name)
        out.line(f"Channel '{clean(args.name)}' created at {clean(str(place))}")
        return OK
    if args.name not in find.public(bus.store):
        msg = f"Channel '{args.name}' not found"
        raise NotFound(msg)
    _removed(bus, settings, args.name)
    out.line(f"Channel '{clean(args.name)}' removed")
    return OK


def _removed(bus: Bus, settings: Config, name: str) -> None:
    """Remove a channel with what has ended on it; nothing that waits, is worked on, or needs a person is lost.

    Raises:
        Conflict: there is such a thing.
    """
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.tree import Tree

    counts = bus.store.count(name)
    left = sum(counts[state] for state in (State.READY, State.SCHEDULED, State.LEASED, State.DEAD))
    if left:
        msg = f"channel '{name}' has {left} messages that wait, are worked on, or are dead; answer or cancel them first"
        raise Conflict(msg)
    for state in FOLDERS["archive"]:
        for slot in list(bus.store.scan(name, state)):
            with suppress(Conflict):
                bus.store.swap(slot, None)
    tree = Tree(settings.path, Fs(), bus.source)
    try:
        with tree.words():
            tree.fs.rmtree(name, tree.fd("channels"))
    finally:
        tree.close()


def _slots(bus: Bus, name: str, folder: str) -> list[Slot]:
    return sorted((slot for state in FOLDERS[folder] for slot in bus.store.scan(name, state)), key=lambda slot: slot.id)


def status(_args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    """Show every channel with its counts."""
    from mcp_bus.identity import git

    checkout = git.find(settings.cwd)
    for text in (
        "Agent Bus Queue Status", "======================", f"Home: {clean(str(settings.path))}",
        f"Agent: {clean(bus.identity.agent)}", f"PWD: {clean(str(settings.cwd))}",
        f"Worktree: {bool(checkout and checkout.is_worktree)}", "", "Channels:",
    ):  # fmt: skip
        out.line(text)
    for name in find.public(bus.store):
        counts = bus.store.count(name)
        sums = [sum(counts[state] for state in FOLDERS[folder]) for folder in ("requests", "processing", "responses")]
        out.line(f"  {clean(name)}: {sums[0]} pending, {sums[1]} processing, {sums[2]} responses")
    return OK


def ls(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    """List the messages of a channel, the latest first."""
    from mcp_bus.cli.abq import existing

    found = _slots(bus, existing(bus, args.channel), args.subdir)
    found = found if args.oldest_first else found[::-1]
    if args.count:
        out.line(str(len(found)))
        return OK
    for task in _tasks(bus, found[: max(0, args.limit)]):
        out.line(_line(task, args.subdir, as_json=args.json))
    return OK


def _tasks(bus: Bus, slots: list[Slot]) -> Iterator[Task]:
    for slot in slots:
        with suppress(BusError):
            yield bus.get(slot.id)


def _line(task: Task, folder: str, *, as_json: bool) -> str:
    from mcp_bus.cli.abq import as_message, as_response

    is_response = folder == "responses" and task.result is not None
    made: dict[str, Any] = as_response(task.result) if is_response and task.result else as_message(task.body)
    if as_json:
        return json.dumps(made)
    kind = str(made.get("status") if is_response else made.get("type"))
    content, sender = str(made.get("result" if is_response else "content")), str(made["from"]["agent"])
    stamp = str(made["timestamp"])[:19]
    return f"{task.id[:20]}  {stamp}  {clean(kind):8}  {clean(cut(sender, 30))}  {clean(cut(content, 60))}"


# --- care -----------------------------------------------------------------------------------------------


def _stale(bus: Bus) -> list[Task]:
    """Return what waits longer than its ttl, as whoever sent it by abq said."""
    now = bus.source.now()
    ready = [slot for name in find.queues(bus.store) for slot in bus.store.scan(name, State.READY)]
    tasks = (_read(bus, slot) for slot in ready)
    return [task for task in tasks if task and task.body.ttl and now - task.body.created > task.body.ttl * 1000]


def _read(bus: Bus, slot: Slot) -> Task | None:
    with suppress(BusError):
        return bus.store.get(slot.id, at=slot)
    return None


def _stuck(bus: Bus, channel: str = "") -> list[Slot]:
    """Return what nobody works on any more: its lease is over, or its holder's process has certainly ended."""
    now = bus.source.now()
    over = {seen.presence.holder for seen in bus.roster.all() if seen.is_over}
    names = [channel] if channel else find.queues(bus.store)
    return [
        slot
        for name in names
        for slot in bus.store.scan(name, State.LEASED)
        if slot.lease is not None and (slot.lease.expires <= now or slot.lease.holder in over) and slot.lease.token
    ]


def check(args: argparse.Namespace, bus: Bus, settings: Config, out: Out) -> int:
    """Check the health of the bus; or whether a watcher or worker of a channel is there."""
    if args.alive or args.channel:
        if not (args.alive and args.channel):
            msg = "--channel and --alive go together"
            raise InvalidRequest(msg)
        live = [seen.presence for seen in bus.roster.all() if seen.is_live and args.channel in seen.presence.serves]
        out.line(f"{clean(args.channel)}: {'alive, ' + clean(live[0].agent) if live else 'nobody is there'}")
        return OK if live else ERROR
    passed, issues, warnings, advice = ["ABQ home exists", "Channels directory exists"], list[str](), list[str](), []
    stale, stuck = len(_stale(bus)), len(_stuck(bus))
    if stale:
        warnings.append(f"{stale} stale message(s) past TTL")
        advice.append(f"abq gc           # archive {stale} stale message(s)")
    else:
        passed.append("No stale messages")
    if stuck:
        warnings.append(f"{stuck} message(s) stuck in processing")
        advice.append(f"abq requeue      # retry {stuck} stuck message(s)")
    else:
        passed.append("No stuck messages in processing")
    try:
        wire.loads((settings.path / "registry.json").read_bytes())
        passed.append("Registry is valid JSON")
    except FileNotFoundError:
        passed.append("No registry (optional)")
    except (CorruptRecord, OSError) as error:
        issues.append(f"Registry JSON invalid: {clean(str(error))}")
    _told(out, passed if args.verbose else [], issues, warnings, len(passed))
    for text in ["", "Suggested actions:", *(f"  {item}" for item in advice)] if advice else []:
        out.line(text)
    return ERROR if issues else OK


def _told(out: Out, shown: list[str], issues: list[str], warnings: list[str], passed: int) -> None:
    for text in [*(f"✓ {item}" for item in shown), ""]:
        out.line(text)
    for found, mark, noun in ((issues, "✗", "issue"), (warnings, "⚠", "warning")):
        if found:
            out.line(f"{mark} {len(found)} {noun}(s):")
            for item in found:
                out.line(f"  • {item}")
    if issues or warnings:
        out.line(f"\n{passed}/{passed + len(issues)} checks passed")
    else:
        out.line(f"✓ All {passed} checks passed")


def gc(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    """Put aside what waits longer than its ttl; nothing that is worked on."""
    count = 0
    for task in _stale(bus):
        with suppress(Conflict):
            bus.store.swap(task.slot, _cancelled(bus, task.slot))
            count += 1
            if args.verbose:
                out.line(f"Archived: {task.id}")
    out.line(f"Archived {count} stale message(s)")
    return OK


def _cancelled(bus: Bus, slot: Slot) -> Slot:
    from mcp_bus import lifecycle

    return lifecycle.cancel(slot, now=bus.source.now())


def requeue(args: argparse.Namespace, bus: Bus, _settings: Config, out: Out) -> int:
    """Make ready again what nobody works on any more; nothing that somebody does."""
    from mcp_bus.cli.abq import existing

    place, count = existing(bus, args.channel) if args.channel else "", 0
    for slot in _stuck(bus, place):
        with suppress(BusError):
            bus.requeue(slot.id, "requeued")
            count += 1
            if args.verbose:
                out.line(f"Requeued: {slot.id}")
    out.line(f"Requeued {count} message(s)")
    return OK
