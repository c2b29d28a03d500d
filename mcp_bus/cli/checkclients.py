"""What `doctor` looks at in clients' settings: that each starts this program, and what a killed install left there."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_bus.cli.checkups import BAD, FEW, GOOD, WARNING, Finding
from mcp_bus.cli.output import clean
from mcp_bus.errors import BusError
from mcp_bus.identity import process

if TYPE_CHECKING:
    from mcp_bus.clients.known import Client, Home, Server

OWN_LIMIT_S = 60
# What says its version takes a tenth of this; what has to be fetched first takes longer.
VERSION_LIMIT_S = 10.0
# A draft that is younger, in seconds, may be of an install that has just ended, or on a machine that has just started.
ABANDONED_S = 60
# No process has an id as great as this, on any system that is known (proc(5): pid_max).
PIDS = 2**22
DRAFTS = "settings"
UNKNOWN = "it is here, and does not know the bus"
_DRAFT = re.compile(r"\.(?P<name>.+)\.mcp-bus-(?P<pid>[1-9][0-9]{0,6})(?:-[0-9a-f]{8})?\Z")


def client(one: Client, home: Home, server: Server) -> Finding:
    """Look at one client's settings: that our entry is there, and starts this program by a path that there is."""
    from mcp_bus.clients import edits, parts

    about, fix = one.title, f"mcp-bus install {one.name}"
    try:
        change = edits.adding(one.at_home(home), [parts.Entry(one, one.entry(server))], home)
    except BusError as error:
        url = _url(one, one.at_home(home))
        return Finding(about, GOOD, f"reaches {url}") if url else Finding(about, BAD, str(error), error.hint)
    if change.what == parts.SAME:
        return _hooks(one, home, server) or Finding(about, GOOD, f"starts this program: {change.path}")
    if change.what == parts.ADDED:
        other = _elsewhere(one, home)
        return Finding(about, GOOD, other) if other else Finding(about, WARNING, UNKNOWN, fix)
    return _started(one, (change.before or b"").decode(), home, server)


def _started(one: Client, settings: str, home: Home, server: Server) -> Finding:
    """Look at an entry of ours that is another than this program's."""
    from mcp_bus.clients import started, texts
    from mcp_bus.clients.known import NAME

    about, fix = one.title, f"mcp-bus install {one.name}"
    entry = texts.entry(texts.read(settings, one.form), (*one.path, NAME))
    command = str(started.words(entry)[0])
    if not Path(command).is_absolute():
        # It may be meant so; and whoever has it so has the program somewhere.
        said = f"starts {command!r} by its name, and may have no PATH to find it"
        return Finding(about, WARNING, said, fix)
    if not Path(command).is_file():
        said = f"starts {command}, which is not there any more"
    elif command == server.command:
        return Finding(about, GOOD, f"starts {command}, with other settings than `install` writes")
    else:
        return _other(about, entry, home, fix)
    return Finding(about, BAD, said, fix, is_safe=True)


def _hooks(one: Client, home: Home, server: Server) -> Finding | None:
    """Look at hooks that an install put in: None if they start this program, or there are none."""
    from mcp_bus.clients import edits, extras, parts
    from mcp_bus.clients.known import USER

    for path in extras.places(one, parts.HOOKS, home, USER, home.home):
        part = extras.part(one, parts.HOOKS, server)
        with suppress(BusError):
            if edits.has(path, part, home) and edits.adding(path, [part], home).what != parts.SAME:
                said = f"its hooks do not start this program: {path}"
                return Finding(one.title, BAD, said, f"mcp-bus install {one.name} --hooks", is_safe=True)
    return None


def renew(one: Client, home: Home, server: Server) -> None:
    """Have a client's entry, and its hooks if it has some of ours, start this program, by the way of `install`.

    Raises:
        BusError: its settings cannot be changed.
    """
    from mcp_bus.cli import steps as stepping
    from mcp_bus.clients import edits, extras, parts
    from mcp_bus.clients.known import USER

    jobs = [stepping.Job(one, one.at_home(home), parts.Entry(one, one.entry(server)))]
    for path in extras.places(one, parts.HOOKS, home, USER, home.home):
        hooks = extras.part(one, parts.HOOKS, server)
        jobs += [stepping.Job(one, path, hooks)] if edits.has(path, hooks, home) else []
    for step in stepping.decided(jobs, lambda path, some: edits.adding(path, some, home), is_user=True):
        if step.error is not None:
            raise step.error
        stepping.write(step, home)


def _elsewhere(one: Client, home: Home) -> str:
    """Say by what else than a person's settings a client knows the bus; empty if by nothing that is looked at here."""
    from mcp_bus.clients import edits, parts
    from mcp_bus.clients.known import PROJECT, claude_home

    if one.name == "claude-code" and _has_plugin(claude_home(home) / "settings.json"):
        return "knows the bus by the plugin"
    with suppress(BusError):
        place = one.place(home, PROJECT, Path.cwd())
        if edits.has(place, parts.Entry(one, {}), home):
            return f"knows the bus in this project: {place}"
        url = _url(one, place)
        if url:
            return f"reaches {url} in this project"
    return ""


def _has_plugin(settings: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        plugins = json.loads(settings.read_text("utf-8"))["enabledPlugins"]
        return any(name.partition("@")[0] == "mcp-bus" and said for name, said in plugins.items())
    return False


def _url(one: Client, settings: Path) -> str:
    """Return the address by which a client reaches a bus over HTTP on this machine; empty for none."""
    from mcp_bus.clients import texts
    from mcp_bus.clients.known import NAME

    with suppress(OSError, ValueError, BusError):
        entry = texts.entry(texts.read(settings.read_text("utf-8"), one.form), (*one.path, NAME))
        told = entry if isinstance(entry, dict) else {}
        url = str(told.get("url", told.get("httpUrl", "")))
        return clean(url) if re.match(r"http://(127\.0\.0\.1|localhost):\d+/mcp(/|\Z)", url) else ""
    return ""


def _other(about: str, entry: Any, home: Home, fix: str) -> Finding:  # noqa: ANN401  as above
    """Look at an entry that starts another mcp-bus than this: whether the two are of one version and format."""
    from mcp_bus import wire
    from mcp_bus.cli.setup import installed
    from mcp_bus.clients import started

    words, mine = [str(word) for word in started.words(entry)], installed()
    command = words[0]
    try:
        told = _version(words[: started.head(words)], {**home.environment, **started.environment(entry)})
    except (OSError, ValueError) as error:
        why = "in time" if isinstance(error, TimeoutError) else f"when it was asked ({clean(str(error))})"
        return Finding(about, WARNING, f"starts {command}, which did not say its version {why}", fix)
    theirs = str(told.get("version"))[:40]
    said = f"starts {command}, mcp-bus {theirs}; this one is {mine}"
    if told.get("format") != wire.FORMAT:
        return Finding(about, BAD, f"{said}, and their buses have different formats", fix)
    if theirs != mine:
        return Finding(about, WARNING, said, fix)
    return Finding(about, GOOD, f"starts {command}, of the same version, with other settings than `install` writes")


def _version(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Ask the program that these words start for its version: they are ours, and nothing else is told to it.

    Raises:
        OSError, ValueError: it says none; TimeoutError: none in time.
    """
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603  what the client itself starts at every session
            [*words, "version", "--json"], capture_output=True, timeout=VERSION_LIMIT_S, check=False,
            stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    told = json.loads(done.stdout)
    if not isinstance(told, dict):
        msg = "no object"
        raise ValueError(msg)  # noqa: TRY004  as of all that is no version
    return told


# --- what an install left -------------------------------------------------------------------------------


def drafts(home: Home) -> Finding | None:
    """Look for half-written settings of an install that was killed; None if there are none."""
    left = abandoned(home)
    if not left:
        return None
    some = ", ".join(map(str, left[:FEW])) + (", …" if len(left) > FEW else "")
    return Finding(
        DRAFTS, WARNING, f"{len(left)} drafts of an install that was killed: {some}", f"rm {shlex.quote(str(left[0]))}",
        is_safe=True,
    )  # fmt: skip


def abandoned(home: Home) -> list[Path]:
    """Return the drafts beside clients' settings, and beside what is kept of them, whose writer is no more."""
    from mcp_bus.clients import edits
    from mcp_bus.clients.known import CLIENTS

    found = {path for path in _within(edits.kept_in(home)) if _DRAFT.match(path.name)}
    for client in CLIENTS.values():
        with suppress(OSError, RuntimeError):
            real = client.at_home(home).resolve()
            found |= {
                path
                for path in _within(real.parent)
                if (match := _DRAFT.match(path.name)) and match["name"] == real.name
            }
    return sorted(filter(_is_abandoned, found))


def _within(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _is_abandoned(draft: Path) -> bool:
    """Tell whether a file is what an install that is no more left; one that only has such a name is somebody's."""
    match = _DRAFT.match(draft.name)
    pid = int(match["pid"]) if match else 0
    if not 0 < pid < PIDS or process.is_running(pid, 0):
        return False
    with suppress(OSError):
        about = draft.lstat()
        is_mine = stat.S_ISREG(about.st_mode) and (not hasattr(os, "geteuid") or about.st_uid == os.geteuid())
        return is_mine and time.time() - about.st_mtime > ABANDONED_S
    return False


def tidy(home: Home) -> int:
    """Remove the drafts of installs that were killed; return how many."""
    from mcp_bus.stores.fsops import Fs

    fs, done = Fs(), 0
    for draft in abandoned(home):
        with suppress(OSError):
            at = fs.open_dir(str(draft.parent), None)
            try:
                fs.unlink(draft.name, at)
                done += 1
            finally:
                fs.close(at)
    return done


# --- what a client says itself --------------------------------------------------------------------------

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
    line = next((clean(line).strip() for line in said.splitlines() if re.search(r"\bbus\b", line.lower())), "")
    if "connected" in line.lower() and "disconnected" not in line.lower():
        return Finding(about, GOOD, "has started the server and reached it")
    return Finding(about, WARNING, f"says: {line or 'nothing of a server called bus'}", f"mcp-bus install {one.name}")
