"""doctor: looks at everything that can be wrong, and says of each thing what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli import checkclients, checkrules, checkups, install, installing, mounts
from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.checkups import BAD, GOOD, PERSON, WARNING, Finding
from mcp_bus.cli.codes import ERROR, OK
from mcp_bus.cli.codes import PERSON as NEEDS_PERSON
from mcp_bus.cli.output import clean
from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.cli.arguments import Call, Parser

MARKS = {GOOD: "✓", WARNING: "!", BAD: "✗", PERSON: "✗"}
STYLES = {GOOD: "green", WARNING: "yellow", BAD: "red", PERSON: "red"}


def declare(parser: Parser) -> None:
    """Declare the options of `doctor`."""
    parser.add_argument("--fix", action="store_true", help="do what is safe to do without asking")
    parser.add_argument("--clients", action="store_true", help="also let each client start the server; takes longer")
    mounts.declare(parser)


def doctor(call: Call) -> int:
    """Look at everything; return 6 if a person is needed, else 1 if something does not work, else 0."""
    if mounts.is_asked(call):
        return mounts.probe(call)
    if call.args.fix:
        _fix(call, list(_all(call)))
    found = list[Finding]()
    for item in _all(call):  # After a fix, what is left of it.
        found.append(item)
        if not call.out.as_json:
            _show(call, item)
    levels = {item.level for item in found}
    if call.out.as_json:
        call.out.json({"findings": [item._asdict() for item in found], "levels": sorted(levels)})
    elif levels <= {GOOD}:
        call.out.line("all is well")
    return NEEDS_PERSON if PERSON in levels else ERROR if BAD in levels else OK


def _all(call: Call) -> Iterator[Finding]:
    """Look at one thing after another; what cannot be looked at is a finding too."""
    server, home = install.server_of(call), install.home_here()
    yield from checkups.program(server)
    yield from checkups.machine()
    yield from _bus(call)
    for one in install.found_here(home):
        yield checkclients.client(one, home, installing.named(server, one))
        reached = checkclients.through(one, home) if call.args.clients else None
        if reached is not None:
            yield reached
    left = checkclients.drafts(home)
    if left is not None:
        yield left


def _bus(call: Call) -> Iterator[Finding]:
    """Look at the bus; of one that cannot be used its first line says so, so that comes once the rest was tried."""
    if call.config.remote is not None:
        from mcp_bus.cli import checkremote

        away = list(checkremote.remote(call))
        yield from away
        if not checkremote.is_usable(away[-1]):
            return
    place, found = list(checkups.place(call)), list[Finding]()
    if place[0].level == GOOD:
        found += checkups.rights(call)
        try:
            found += _used(call)
        except BusError as error:
            place[0] = Finding("bus", BAD, str(error), error.hint)
    yield from place
    yield from found


def _used(call: Call) -> Iterator[Finding]:
    """Look at what is on the bus and who works there.

    Raises:
        BusError: it cannot be used.
    """
    with call.bus() as bus:
        seen, leased = bus.roster.all(), checkups.held(bus)
        yield checkups.clock(call, bus, seen)
        if call.config.remote is None:
            yield checkups.listings(call)
        yield checkups.drafts(call, bus)
        yield from checkrules.rules(call, bus)
        yield from checkups.work(call, bus, leased)
        yield from checkups.agents(call, seen, leased)
    looked = "results, signatures, hard links, keys"
    yield Finding("files", GOOD, f"`{call.again()} fsck` looks at every file: {looked}; this did not")


def _show(call: Call, item: Finding) -> None:
    out = call.out
    out.line(f"{out.paint(MARKS[item.level], STYLES[item.level])} {item.about:<14} {clean(item.said)}")
    if item.fix:
        out.line(f"  {'':<14} next: {clean(item.fix)}")


def _fix(call: Call, found: list[Finding]) -> None:
    """Do what is safe: make a bus, sweep it, renew an entry of ours that starts what is not there, remove drafts."""
    from mcp_bus.clients.known import CLIENTS
    from mcp_bus.recovery import sweep

    safe = [item for item in found if item.is_safe]
    if any(item.about == checkups.RIGHTS for item in safe):
        call.out.note(f"fixed: the modes of {checkups.mend_rights(call)} files and folders")
    if any(item.about in ("bus", "leases", "drafts") for item in safe):
        with call.bus(create=True) as bus:
            done = sweep(bus)
        call.out.note(f"fixed: swept the bus, {len(done)} things done")
    home, server = install.home_here(), install.server_of(call)
    about = {item.about for item in safe}
    for one in (client for client in CLIENTS.values() if client.title in about):
        try:
            checkclients.renew(one, home, installing.named(server, one))
        except BusError as error:
            call.out.warn(f"mcp-bus: {one.title}: {clean(str(error))}")
            continue
        call.out.note(f"fixed: {one.title} starts {server.command}; {one.again}")
    if any(item.about == checkclients.DRAFTS for item in safe):
        call.out.note(f"fixed: removed {checkclients.tidy(home)} drafts")
    if not safe:
        call.out.note("there is nothing that is safe to fix without asking")


VERBS = {
    "doctor": Verb(
        declare, doctor, "mcp-bus doctor\nmcp-bus doctor --fix\nmcp-bus doctor --ask /mnt/shared --word 3f2a90c1"
    )
}
