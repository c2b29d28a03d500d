"""What `install` and `uninstall` do: which part goes into or out of which file; shown, asked about, and done."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import steps as stepping
from mcp_bus.cli.arguments import shell
from mcp_bus.cli.codes import ERROR, OK, code_of
from mcp_bus.cli.output import clean
from mcp_bus.cli.steps import Job, Step
from mcp_bus.clients import edits, extras, known, masking
from mcp_bus.clients.parts import AGENTS_MD, HOOKS, REMOVED, SERVER, SKILL, Entry
from mcp_bus.errors import BusError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mcp_bus.cli.arguments import Call
    from mcp_bus.clients.known import Client, Home, Server
    from mcp_bus.clients.parts import Part

NONE = {
    HOOKS: "no hooks of it are known here that tell its model something",
    AGENTS_MD: "it reads no instructions in a project",
    SKILL: "no folder of it for skills is known here",
}


# --- which part, which file -----------------------------------------------------------------------------


def wanted(call: Call, home: Home, chosen: Sequence[Client], server: Server) -> tuple[list[Job], list[Step]]:
    """Return what is to be put where, and for whom something cannot be.

    What is not asked for and is there already is renewed with the rest.
    """
    jobs, steps, scope = list[Job](), list[Step](), call.args.scope
    for client in chosen:
        mine = _started(call, server, client)
        try:
            jobs.append(Job(client, client.place(home, scope, Path.cwd()), Entry(client, _entry(call, client, mine))))
        except BusError as error:
            steps.append(Step((client,), error=error))
            continue
        for kind in extras.KINDS:
            places, part = _places(call, home, client, kind), extras.part(client, kind, mine)
            if not _is_asked(call, kind):
                jobs += [Job(client, path, part) for path in places if edits.has(path, part, home)]
            elif places:
                jobs.append(Job(client, places[0], part))
            elif call.args.clients:
                hint = "the server alone goes into its settings"
                steps.append(Step((client,), error=InvalidRequest(NONE[kind], hint=hint)))
            else:
                steps.append(Step((client,), note=NONE[kind]))
    return jobs, steps


def present(call: Call, home: Home, chosen: Sequence[Client]) -> tuple[list[Job], list[Step]]:
    """Return what may be where, and for whom nothing can be; in the order in which folders are left empty."""
    jobs, steps, nobody = list[Job](), list[Step](), known.Server("mcp-bus", ("serve",), {})
    for client in chosen:
        for kind in reversed(extras.KINDS):
            part = extras.part(client, kind, nobody)
            jobs += [Job(client, path, part) for path in _places(call, home, client, kind)]
        try:
            jobs.append(Job(client, client.place(home, call.args.scope, Path.cwd()), Entry(client, {})))
        except BusError as error:
            steps.append(Step((client,), error=error))
    going = {job.path for job in jobs if job.part.name == SERVER}
    for path in {job.path: None for job in jobs if job.part.name == AGENTS_MD}:
        other = _other_reader(call, home, going, path)
        if other is not None:
            readers = tuple(job.client for job in jobs if job.path == path)
            if edits.has(path, next(job.part for job in jobs if job.path == path), home):
                steps.append(Step(readers, note=f"{path} stays as it is: {other.title} reads it, too"))
            jobs = [job for job in jobs if job.path != path]
    return jobs, steps


def _other_reader(call: Call, home: Home, going: Collection[Path], path: Path) -> Client | None:
    """Return a client that reads a file of instructions, and has our server elsewhere than where it goes now."""
    readers = [one for one in known.CLIENTS.values() if path in _places(call, home, one, AGENTS_MD)]
    for client, scope in [(client, scope) for client in readers for scope in (known.USER, known.PROJECT)]:
        with suppress(BusError):
            place = client.place(home, scope, Path.cwd())
            if place not in going and edits.has(place, Entry(client, {}), home):
                return client
    return None


def _is_asked(call: Call, kind: str) -> bool:
    return bool(getattr(call.args, kind.replace("-", "_")))


def _places(call: Call, home: Home, client: Client, kind: str) -> list[Path]:
    from mcp_bus.identity import git

    here = Path.cwd()
    checkout = git.find(here) if kind == AGENTS_MD else None
    return extras.places(client, kind, home, call.args.scope, checkout.top if checkout else here)


def named(server: Server, client: Client) -> Server:
    """Return the server as a client starts it, under the client's name."""
    return server._replace(env={"MCP_BUS_AGENT": client.name, **server.env})


def _started(call: Call, server: Server, client: Client) -> Server:
    """Return the server as a client starts it; in a project, which others have elsewhere, by its name alone."""
    mine = named(server, client)
    return mine if call.args.scope == known.USER else mine._replace(command="mcp-bus", args=("serve",))


def _entry(call: Call, client: Client, server: Server) -> dict[str, Any]:
    made = client.entry(server)
    # Who has not installed this is not to be kept from working in a project.
    return made if call.args.scope == known.USER else {name: said for name, said in made.items() if name != "required"}


# --- showing --------------------------------------------------------------------------------------------


def show(call: Call, home: Home, chosen: Sequence[Client], server: Server) -> int:
    """Print what would be put where, and write nothing."""
    made = list[dict[str, Any]]()
    for client in chosen:
        mine, place = _started(call, server, client), client.place(home, call.args.scope, Path.cwd())
        entry = _entry(call, client, mine)
        link = client.link(entry) if client.link is not None and call.args.scope == known.USER else ""
        row = {"client": client.name, "file": str(place), "entry": entry} | ({"link": link} if link else {})
        texts = [(f"# {client.title}: {clean(str(place))}", _alone(Entry(client, entry)))]
        for kind in extras.KINDS:
            places = _places(call, home, client, kind) if _is_asked(call, kind) else []
            if places:
                text = _alone(extras.part(client, kind, mine))
                row[kind] = {"file": str(places[0]), "text": text}
                texts.append((f"# {client.title}, {kind}: {clean(str(places[0]))}", text))
        made.append(row)
        if not call.out.as_json:
            for head, text in texts:
                call.out.line(head)
                call.out.line(clean(text.rstrip(), multiline=True))
            if link:
                call.out.line(f"# or open: {link}")
    if call.out.as_json:
        call.out.json({"clients": made})
    return OK


def _alone(part: Part) -> str:
    return part.put("", is_known=False, is_forced=False)[0]


def _show(call: Call, step: Step) -> None:
    """Show what a step would do, as a diff of the settings: to who only wants to see it, as the answer."""
    tell = call.out.line if call.args.dry_run and not call.out.as_json else call.out.note
    if step.error is not None:
        call.out.warn(f"mcp-bus: {step.title}: {clean(str(step.error))}")
        if step.error.hint:
            call.out.warn(f"  next: {clean(step.error.hint)}")
        return
    change = step.change
    if change is None:
        tell(f"{step.title}: {clean(step.note)}")
        return
    tell(f"{step.title}: {step.said}: {clean(str(change.path))}")
    for words in step.calls:
        tell("  by its own command: " + clean(" ".join(shell(masking.masked(word)) for word in words))[:300])
    if not step.calls:
        for line in stepping.diff(change):
            tell(f"  {clean(line.expandtabs(4))}")


# --- doing ----------------------------------------------------------------------------------------------


def do(call: Call, home: Home, steps: Sequence[Step], server: Server | None) -> int:
    """Show what would be done, ask, do it, and say what was done."""
    for step in steps:
        _show(call, step)
    if server is not None:
        _warn(call)
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


def _warn(call: Call) -> None:
    """Say what a person may not expect of an install from here."""
    import shutil

    if call.config.origins["bus"] == "MCP_BUS_DIR":
        call.out.note("MCP_BUS_DIR holds for this shell alone and is not written; --bus DIR is")
    if call.args.scope == known.PROJECT and shutil.which("mcp-bus") is None:
        call.out.warn("mcp-bus: in a project it is started by its name, and there is no mcp-bus on PATH here")


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


def _done(call: Call, step: Step, home: Home) -> Step:
    """Do a step; return it with what went wrong, if anything did."""
    change = step.change
    if change is None or change.is_none:
        return step
    try:
        kept = stepping.write(step, home)
    except BusError as error:
        call.out.warn(f"mcp-bus: {step.title}: {clean(str(error))}")
        return step._replace(error=error)
    if not call.out.as_json:
        call.out.line(f"{step.title}: {step.said}; {step.clients[0].again}")
    if change.what != REMOVED and HOOKS in change.parts and step.clients[0].name == "codex":
        call.out.note("  it runs them when you have trusted them there: /hooks")
    if kept is not None:
        call.out.note(f"  what was there before is kept: {clean(str(kept))}")
    return step


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
