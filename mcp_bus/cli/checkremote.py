"""What `doctor` looks at of a bus at a git remote: git, the remote, who may push there, and this host's clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import shell
from mcp_bus.cli.checkups import BAD, GOOD, OVERDUE, PERSON, TO_SET, WARNING, Finding
from mcp_bus.cli.output import clean, duration
from mcp_bus.errors import BusError, StoreUnavailable, Untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.cli.arguments import Call
    from mcp_bus.clock import Source
    from mcp_bus.stores.git.store import GitStore

OLDEST = (2, 36)
VERSION_LIMIT_S = 10.0
MIB = 1 << 20


def remote(call: Call) -> Iterator[Finding]:
    """Look at all of that; the last finding is not good if the bus cannot be used."""
    from mcp_bus.config import environment

    found = version(environment())
    yield found
    if found.level == BAD:
        return
    where = call.config.remote.shown if call.config.remote is not None else ""
    try:
        bus = call.bus()
    except Untrusted as error:
        yield Finding("remote", PERSON, str(error), _aimed(call, error))
        return
    except BusError as error:
        yield Finding("remote", BAD, f"{where}: {error}", _aimed(call, error))
        return
    with bus:
        from mcp_bus.stores.git.store import GitStore

        assert isinstance(bus.store, GitStore)
        yield from _answering(call, bus.store, bus.source)


def is_usable(found: Finding) -> bool:
    """Tell whether what comes after the last finding of `remote` can be looked at."""
    return found.about == "clone"


def version(env: dict[str, str]) -> Finding:
    """Look at which git there is."""
    try:
        done = subprocess.run(
            ["git", "--version"],  # noqa: S607  wherever PATH has it, as everything here starts it
            env=env, capture_output=True, text=True, errors="replace", timeout=VERSION_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return Finding("git", BAD, "git is not installed, or not on PATH", "install git 2.36 or newer")
    match = re.search(r"(\d{1,6})\.(\d{1,6})", done.stdout)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        said = f"git 2.36 or newer is needed; this one says {clean(done.stdout.strip()[:80])!r}"
        return Finding("git", BAD, said, "install git 2.36 or newer")
    return Finding("git", GOOD, clean(done.stdout.strip()[:80]))


def _answering(call: Call, store: GitStore, source: Source) -> Iterator[Finding]:
    """Look at a bus that could be opened, though perhaps only at what is known of it here."""
    again, repo = call.again(), store.repo
    began = source.monotonic()
    try:
        store.shared.ask()  # Also where it did not answer a moment ago, when opening leaves it alone.
    except Untrusted as error:
        yield Finding("remote", PERSON, str(error), _aimed(call, error))
        return
    except StoreUnavailable as error:
        yield Finding("remote", BAD, f"{store.address}: {error}", _aimed(call, error))
    else:
        took = (source.monotonic() - began) * 1000
        yield Finding("remote", GOOD, f"{store.address} answers after {took:.0f} ms")
        if store.shared.files is not None:
            yield _pushing(call, store)
    if store.shared.files is None:
        said = f"nothing is known here of a bus on the branch {repo.branch!r}"
        yield Finding("branch", WARNING, said, f"{again} init")
        return
    head = store.shared.head
    away, now = store.away, source.now()
    old = max(0, now - away.asked)
    level = WARNING if old > OVERDUE else GOOD
    said = f"what is known here is of {duration(old)} ago"
    yield Finding("age", level, said, f"{again} sync" if level == WARNING else "")
    if away.unsent:
        yield Finding("unsent", WARNING, f"{away.unsent} of this host wait for the remote", f"{again} sync")
    else:
        yield Finding("unsent", GOOD, "no post of this host waits for the remote")
    ahead = repo.made(head) - now
    if ahead > OVERDUE:
        said = f"the newest commit is from {duration(ahead)} in the future: clocks of hosts differ"
        yield Finding("commits", WARNING, said, TO_SET.get(sys.platform, "sudo timedatectl set-ntp true"))
    else:
        yield Finding("commits", GOOD, f"the newest was made {duration(max(0, -ahead))} ago, by its host's clock")
    yield _clone(call, repo.folder)


def _pushing(call: Call, store: GitStore) -> Finding:
    """See whether this user may push, by a push of what is there that is not carried out."""
    try:
        store.repo.may_push(store.shared.head)
    except BusError as error:
        return Finding("pushing", BAD, str(error), _aimed(call, error))
    path = Path(store.repo.remote.removeprefix("file://"), "objects")
    if path.is_absolute() and path.exists() and not os.access(path, os.W_OK | os.X_OK):  # A dry run writes nothing.
        return Finding("pushing", BAD, f"this user may not write to {path}", f"ls -ld {shell(str(path))}")
    return Finding("pushing", GOOD, "the remote lets this user push, as far as can be told without a change")


def _clone(call: Call, folder: Path) -> Finding:
    """Look at how much this host keeps of the branch."""
    from mcp_bus.stores.git.repo import PACKS

    packs = list((folder / "objects" / "pack").glob("*.pack"))
    size = sum(path.stat().st_size for path in (folder / "objects").rglob("*") if path.is_file())
    said = f"{size / MIB:.1f} MiB in {len(packs)} packs: {folder}"
    if len(packs) > 2 * PACKS:  # A sweep puts them together long before.
        return Finding("clone", WARNING, said, f"{call.again()} sweep")
    return Finding("clone", GOOD, said)


def _aimed(call: Call, error: BusError) -> str:
    """Return what to do, for the bus of this call."""
    return call.aimed(error.hint)
