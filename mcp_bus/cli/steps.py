"""One step of `install`, `uninstall` or `doctor --fix`: what a file of a client becomes, shown and written."""

from __future__ import annotations

import difflib
import json
import os
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.cli import following
from mcp_bus.clients import edits, masking, texts
from mcp_bus.clients.files import MAX_SETTINGS, NoFile, contents
from mcp_bus.clients.known import NAME
from mcp_bus.clients.parts import ABSENT, ADDED, AGENTS_MD, REMOVED, SERVER, Entry
from mcp_bus.errors import BusError, Conflict
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mcp_bus.clients.edits import Change
    from mcp_bus.clients.known import Client, Home
    from mcp_bus.clients.parts import Part

OWN_LIMIT_S = 60
TRIES = 3


class Job(NamedTuple):
    """A part that is to go into a file of a client, or out of it."""

    client: Client
    path: Path
    part: Part


class Step(NamedTuple):
    """What is to be done: a change of one file, or calls of a client's own command that make it; or why nothing is."""

    clients: tuple[Client, ...]
    change: Change | None = None
    calls: tuple[tuple[str, ...], ...] = ()
    error: BusError | None = None
    note: str = ""
    path: Path | None = None
    again: Callable[[], Change] | None = None

    @property
    def title(self) -> str:
        """What its clients call themselves; of a file that many of them read, its name."""
        if self.change is not None and AGENTS_MD in self.change.parts:
            return self.change.path.name
        return ", ".join(client.title for client in self.clients)

    @property
    def said(self) -> str:
        """What becomes of what: of a server or a block alone, only that."""
        found = self.change.parts if self.change else {}
        some = {name: what for name, what in found.items() if what != ABSENT}
        if {*some} <= {SERVER} or {*some} == {AGENTS_MD}:
            return next(iter(some.values()), ABSENT)
        return ", ".join(f"{name} {what}" for name, what in some.items())

    def matters(self, *, is_named: bool) -> bool:
        """Tell whether somebody who takes things out wants to hear of it."""
        if self.change is not None:
            return self.change.what != ABSENT or (is_named and SERVER in self.change.parts)
        if is_named or self.error is None:
            return True
        with suppress(OSError, NoFile):
            return self.path is not None and b"mcp-bus" in contents(self.path, MAX_SETTINGS)
        return False

    def shown(self) -> dict[str, Any]:
        """Return it as JSON."""
        made: dict[str, Any] = {"client": self.clients[0].name, "error": str(self.error) if self.error else None}
        made |= {"clients": [client.name for client in self.clients]} if len(self.clients) > 1 else {}
        if self.change is not None:
            made |= {"file": str(self.change.path), "what": self.change.what, "parts": self.change.parts}
            made |= {"diff": diff(self.change)}
        made |= {"file": str(self.path)} if self.path is not None else {}
        made |= {"note": self.note} if self.note else {}
        return made | ({"commands": [list(map(masking.masked, words)) for words in self.calls]} if self.calls else {})


# --- deciding --------


def decided(jobs: Sequence[Job], decide: Callable[[Path, Sequence[Part]], Change], *, is_user: bool) -> list[Step]:
    """Return what is to be done, one step for each file, whoever reads it.

    Args:
        is_user: whether it is about a person's settings, which a client's own command may change.
    """
    files = dict[str, list[Job]]()
    for job in jobs:
        files.setdefault(os.path.realpath(job.path), []).append(job)
    made = list[Step]()
    for found in files.values():
        clients = tuple({job.client.name: job.client for job in found}.values())
        some = list({job.part.name: job.part for job in found}.values())
        try:
            for job in found:
                following.follow(job.path, job.part.name, is_user=is_user)
            again = partial(_decided, decide, found[0].path, some, is_user=is_user)
            change = again()
        except BusError as error:
            made.append(Step(clients, error=error, path=found[0].path))
            continue
        entry = next((part for part in some if isinstance(part, Entry)), None)
        calls = _own(clients[0], change) if is_user and entry and len(some) == 1 else ()
        made.append(Step(clients, change, calls, again=again))
    return made


def _decided(
    decide: Callable[[Path, Sequence[Part]], Change], path: Path, parts: Sequence[Part], *, is_user: bool
) -> Change:
    change = decide(path, parts)
    return change._replace(is_shared=not is_user or AGENTS_MD in change.parts)


def _own(client: Client, change: Change) -> tuple[tuple[str, ...], ...]:
    """Return the calls of a client's own command that make a change; none if it has none, or nothing is to do."""
    import shutil

    program = shutil.which(client.command) if client.own else None
    if program is None or client.own is None or change.is_none:
        return ()
    add, remove = ((program, *words) for words in client.own)
    if change.what == REMOVED:
        return (remove,)
    # As it becomes: with what a person has set in one that is there.
    adding = (*add, json.dumps(_entry(client, change.after)))
    return (adding,) if change.what == ADDED else (remove, adding)


def diff(change: Change) -> list[str]:
    """Return what a change does to a file, line by line, with what looks secret masked."""
    form = masking.FORMS.get(change.path.suffix.lower())
    before, after = ((data or b"").decode(errors="replace") for data in (change.before, change.after))
    if form:
        before, after = masking.masked(before, form), masking.masked(after, form)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return [*lines][2:]  # Without the names of the files.


# --- writing --------------------------------------------------------------------------------------------


def write(step: Step, home: Home) -> Path | None:
    """Do what a step says; return where the bytes of before are kept, if there were any and it is we who wrote.

    Where a client's own command does it and fails half-way, the entry that was there is put back.

    Raises:
        BusError: it was not done.
    """
    if step.change is None:
        return None
    if not step.calls:
        try:
            return edits.write(step.change, home)
        except Conflict:  # Whoever was faster may have done the very same.
            if step.again is None or not step.again().is_none:
                raise
            return None
    try:
        for words in step.calls:
            _run(words)
    except BusError as error:
        msg = f"{error}{_back(step.clients[0], step.change, home)}"
        raise edits.Unwritable(msg, hint=error.hint) from None
    except BaseException:
        _back(step.clients[0], step.change, home)
        raise
    return None


def _back(client: Client, change: Change, home: Home) -> str:
    """Put back the entry that a client's own command took out before it failed; return what there is to say of it."""
    entry = _entry(client, change.before)
    if entry is None or change.what == REMOVED:
        return ""
    why = ""
    for _ in range(TRIES):
        try:
            now = edits.adding(change.path, [Entry(client, entry)], home)
            if now.what != ADDED:
                return ""  # Something is there: it was not taken out, or the new one is in.
            edits.write(now, home)
        except Conflict as error:  # The client writes at the same time.
            why = str(error)
        except BusError as error:
            why = str(error)
            break
        else:
            return "; what was there before was put back"
    return f"; what was there before is not, for {why}{_kept(client, entry, home)}"


def _kept(client: Client, entry: object, home: Home) -> str:
    """Keep a copy of an entry; return where it is, as a clause."""
    folder, name = edits.kept_in(home), f"{client.name}-{NAME}-{secrets.token_hex(4)}.json"
    with suppress(OSError):
        fs = Fs()
        with fs.folder(folder) as at:
            fs.create(name, at, json.dumps(entry).encode(), sync=True)
        return f"; it is kept: {folder / name}"
    return "; nor could it be kept"


def _entry(client: Client, data: bytes | None) -> Any:  # noqa: ANN401  whatever is there
    with suppress(BusError, UnicodeDecodeError):
        return texts.entry(texts.read((data or b"").decode(), client.form), (*client.path, NAME))
    return None


def _run(words: Sequence[str]) -> None:
    """Run a client's own command.

    Raises:
        BusError: it failed; says what it wrote.
    """
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603  the client's own program, found on PATH
            words, capture_output=True, check=False, timeout=OWN_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{words[0]!r} cannot be run: {error}"
        raise edits.Unwritable(msg) from None
    if done.returncode:
        said = masking.masked(" ".join((done.stderr or done.stdout).decode(errors="replace").split()))[-300:]
        msg = f"its own command failed ({done.returncode}): {said}"
        raise edits.Unwritable(msg, hint=" ".join(words[:3]) + " --help")
