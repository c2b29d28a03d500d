"""What `doctor` looks at: the program, the bus, and who works on it; each finding with one thing to do.

The clients are in `checkclients`.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli import aside
from mcp_bus.cli.arguments import shell
from mcp_bus.errors import BusError, StoreUnavailable
from mcp_bus.find import public, queues, short
from mcp_bus.identity import process
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.clients.known import Server
    from mcp_bus.clock import Source
    from mcp_bus.fsck.rights import Wrong
    from mcp_bus.model import Slot
    from mcp_bus.presence import Seen

GOOD, WARNING, BAD, PERSON = "good", "warning", "bad", "person"
# A server that takes longer to start is given up by some clients, or found late.
SLOW_S = 5.0
WATCHES = 8192
# A lease that ended so long ago, in milliseconds, should have been taken back by whoever uses the bus.
OVERDUE = 120_000
# Clocks that are kept by NTP differ by less, in milliseconds.
SKEW = 2_000
# How many tasks of a channel are looked at, for one from the future.
SAMPLE = 1000
RIGHTS = "rights"
FEW = 3
TO_SET = {"darwin": "sudo sntp -sS pool.ntp.org"}


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
    from mcp_bus.stores import layout, modes, probe

    root, origin = call.config.path, call.config.origins["bus"]
    closed = next((path for path in reversed(root.parents) if not os.access(path, os.X_OK) and path.is_dir()), None)
    if closed is not None:
        said = f"the one at {root} ({origin}) is below a folder that this user may not enter: {closed}"
        yield Finding("bus", BAD, said, f"ls -ld {shell(str(closed))}")
        return
    if layout.is_headless(root):
        yield Finding(
            "bus", BAD, f"the one at {root} ({origin}) has lost its bus.json", f"{call.again()} fsck --repair"
        )
        return
    if not modes.is_there(root / "bus.json"):
        yield Finding("bus", WARNING, f"there is none at {root} ({origin}) yet", f"{call.again()} init", is_safe=True)
        return
    yield Finding("bus", GOOD, f"{root} ({origin})")
    verdict = probe.judge(probe.kind_of(root))
    if verdict.refusal:
        yield Finding("file system", BAD, f"{verdict.kind}: {verdict.refusal}", probe.INSTEAD)
    else:
        yield Finding("file system", WARNING if verdict.warning else GOOD, verdict.warning or verdict.kind)


def rights(call: Call) -> Iterator[Finding]:
    """Look at whose the bus is, and at the modes of what is on it: of all folders, and of a sample of files."""
    from mcp_bus.clock import System
    from mcp_bus.fsck import rights as core
    from mcp_bus.stores.acls import CURE
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.modes import HAS_USERS, group_name
    from mcp_bus.stores.tree import Tree

    root = call.config.path
    if not HAS_USERS:
        return
    try:
        tree = Tree(root, Fs(), System(), is_repair=True)
    except BusError as error:
        yield Finding(RIGHTS, BAD, str(error), error.hint)
        return
    try:
        mode, modes = stat.S_IMODE(root.stat().st_mode), tree.fs.modes
        bad = [item for item in core.wrong(tree, SAMPLE * 5) if item.path != "."]
        has_list = core.has_list(tree, "", ".")
    finally:
        tree.close()
    if mode & stat.S_IWOTH:
        said = f"everyone on this machine may write the bus (mode {mode:o}), so it is not used"
        yield Finding(RIGHTS, BAD, said, f"chmod o-w {root}", is_safe=True)
    elif mode & (0o007 if modes.is_shared else 0o077):
        others = "may write" if mode & 0o022 and not modes.is_shared else "may look at"
        yield Finding(RIGHTS, WARNING, f"others {others} the bus (mode {mode:o})", f"chmod {modes.folder:o} {root}")
    elif has_list:
        yield Finding(RIGHTS, BAD, "the bus has an access control list, so it is not used", f"{CURE} {root}")
    elif not bad:
        said = f"shared with group {group_name(modes.group)}" if modes.is_shared else "its user's alone"
        yield Finding(RIGHTS, GOOD, said)
    mine, theirs = [item for item in bad if item.is_mine], [item for item in bad if not item.is_mine]
    if mine:
        yield Finding(RIGHTS, WARNING, _some_wrong(mine), f"{call.again()} doctor --fix", is_safe=True)
    if theirs:
        fix = f"ls -ld {root / theirs[0].path}" if modes.is_shared else f'sudo chown -R "$(id -un)" {root}'
        yield Finding(RIGHTS, PERSON, _some_wrong(theirs), fix)


def _some_wrong(found: Sequence[Wrong]) -> str:
    return f"{len(found)} with a wrong mode, group or owner, such as {found[0].path}: {found[0].said}"


def mend_rights(call: Call) -> int:
    """Put right the modes of what this user owns; return of how much."""
    from mcp_bus.clock import System
    from mcp_bus.fsck import rights as core
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.tree import Tree

    tree = Tree(call.config.path, Fs(), System(), is_repair=True)
    try:
        names = core.Names(tree)
        return sum(core.mend(tree, item.path, names) for item in list(core.wrong(tree, SAMPLE * 5)))
    finally:
        tree.close()


def clock(call: Call, bus: Bus, seen: Sequence[Seen]) -> Finding:
    """Compare the clock of this machine with those of the file system and of other machines, and with tasks."""
    now, said = bus.source.now(), list[str]()
    try:
        ahead = _of_disk(call.config.path, bus.source)
    except OSError as error:
        folder = call.config.path / "tmp"
        return Finding("clock", BAD, f"nothing can be written to {folder}: {error.strerror}", f"ls -ld {folder}")
    if abs(ahead) > SKEW:
        which = "ahead of" if ahead > 0 else "behind"
        said.append(f"the file system's is {abs(ahead) // 1000} s {which} this machine's")
    said += [f"that of {host!r} is {by // 1000} s ahead of this machine's" for host, by in _of_hosts(seen, now)]
    late = _newest(bus) - now
    if late > OVERDUE:
        said.append(f"a task is from {late // 1000} s in the future")
    if said:
        fix = TO_SET.get(sys.platform, "sudo timedatectl set-ntp true")
        return Finding("clock", WARNING, f"clocks differ: {'; '.join(said)}", fix)
    return Finding("clock", GOOD, "this machine and its file system agree; no session and no task is from the future")


def _of_disk(root: Path, source: Source) -> int:
    """Return by how many milliseconds the file system's clock is ahead; what the calls take counts for neither."""
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.tree import Tree

    fs, name, tree = Fs(), f"clock.{source.token(6)}", Tree(root, Fs(), source)
    try:
        at = tree.fd("tmp", make=True)
        before = source.now()
        fs.create(name, at, b"", sync=False)
        about, after = fs.stat(name, at), source.now()
        fs.unlink(name, at)
    finally:
        tree.close()
    made = int(about.st_mtime * 1000) if about else before
    return min(0, made - before) or max(0, made - after)


def _of_hosts(seen: Sequence[Seen], now: int) -> list[tuple[str, int]]:
    """Return other machines whose sessions gave a sign of life later than now, and by how much at least."""
    found: dict[str, int] = {}
    for item in seen:
        host, ahead = item.presence.host, item.presence.beat - now
        if host != process.host() and ahead > SKEW:
            found[host] = max(ahead, found.get(host, 0))
    return sorted(found.items())


def _newest(bus: Bus) -> int:
    """Return when the latest task was made, of a sample of those that wait or are held: others may be very many."""
    from mcp_bus.cursors import time_of

    states = (State.READY, State.SCHEDULED, State.LEASED)
    found = (bus.store.scan(name, state, limit=SAMPLE) for name in bus.store.channels() for state in states)
    return max((time_of(slot.id) for slots in found for slot in slots), default=0)


def listings(call: Call) -> Finding:
    """Measure how old a listing of the bus is that another process is shown."""
    from mcp_bus.clock import System
    from mcp_bus.stores import probe, trial
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.tree import Tree
    from mcp_bus.stores.visibility import Place

    root, source = call.config.path, System()
    try:
        tree = Tree(root, Fs(), source)
        try:
            at = tree.fd("tmp", make=True)
            measured = trial.between_processes(root / "tmp", Place(tree.fs, at, source))
        finally:
            tree.close()
    except OSError as error:
        return Finding("listings", BAD, f"nothing can be tried in {root / 'tmp'}: {error.strerror}", f"ls -ld {root}")
    except StoreUnavailable as error:
        return Finding("listings", WARNING, str(error), error.hint)
    why = measured.why()
    if why:
        return Finding("listings", BAD, why, probe.INSTEAD)
    return Finding("listings", GOOD, f"another process sees a change after {measured.worst[0] * 1000:.0f} ms")


def drafts(call: Call, bus: Bus) -> Finding:
    """Look at what writers that were killed have left half-way; a sweep finishes or removes it."""
    from mcp_bus.stores.mend import ABANDONED

    now, left, fresh = bus.source.now(), list[int](), 0
    tmp, staged = (_files(call.config.path / folder) for folder in ("tmp", "staged"))
    # The sweep's own measure: another name proves that its writer came further than drafting.
    ages = [(int(about.st_mtime * 1000), OVERDUE if about.st_nlink > 1 else ABANDONED) for about in tmp]
    ages += [(int(about.st_ctime * 1000), OVERDUE) for about in staged]
    for made, patience in ages:
        if now - made > patience:
            left.append(now - made)
        else:
            fresh += 1
    if left:
        said = f"{len(left)} files of writers that were cut off, the oldest {max(left) // 60_000} min ago"
        return Finding("drafts", WARNING, said, f"{call.again()} sweep", is_safe=True)
    return Finding("drafts", GOOD, f"{fresh} on their way" if fresh else "none")


def _files(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            about = path.lstat()
            if not stat.S_ISDIR(about.st_mode):
                yield about


def held(bus: Bus) -> list[Slot]:
    """Return all tasks that are held."""
    return [slot for name in public(bus.store) for slot in bus.store.scan(name, State.LEASED)]


def work(call: Call, bus: Bus, leased: Sequence[Slot]) -> Iterator[Finding]:
    """Look at what waits for somebody: leases that are over, dead tasks, files that were put aside."""
    now, again = bus.source.now(), call.again()
    late = [slot.id for slot in leased if slot.lease and slot.lease.expires + bus.store.leeway + OVERDUE < now]
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
        found = aside.of(call, bus, folder)
        said = f"{found.files} files {what}: {found.path}" if found.files else "empty"
        look = found.look if folder == "rejected" else found.why
        yield Finding(folder, PERSON if found.files else GOOD, said, look if found.files else "")


def agents(call: Call, seen: Sequence[Seen], leased: Sequence[Slot]) -> Iterator[Finding]:
    """Look at who is there, and who holds something without being there."""
    live = sorted({item.presence.agent for item in seen if item.is_live})
    yield Finding("agents", GOOD, f"{len(live)} there: {', '.join(live[:10])}" if live else "none is there now")
    over = {item.presence.holder for item in seen if item.is_over}
    orphans = [slot.id for slot in leased if slot.lease is not None and slot.lease.holder in over]
    if orphans:
        some = ", ".join(map(short, orphans[:FEW]))
        said = (
            f"{len(orphans)} tasks are held by sessions that have ended: {some}; they come back when their leases end"
        )
        yield Finding("orphans", WARNING, said, f"{call.again()} requeue {short(orphans[0])}")
