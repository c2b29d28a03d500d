"""What became of each attempt at a task, and the page a person reads when it is dead.

Written before the move it tells of, for people: no decision reads it but who follows an edited retry.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mcp_bus import history, names, wire
from mcp_bus.errors import CorruptRecord
from mcp_bus.model import Attempt, Outcome
from mcp_bus.stores import foreign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.model import Slot
    from mcp_bus.stores.tree import Tree


def note(tree: Tree, slot: Slot, entry: Attempt, *, sync: bool) -> None:
    """Write a line of history, numbered after those that are there: a clock is too coarse to tell their order."""
    folder = f"channels/{slot.channel}/attempts/{slot.id}"
    at, data = _folder(tree, slot, entry.at), wire.dumps(history.fields(entry))
    if entry.outcome is Outcome.PROGRESS:  # Only the latest word counts, and it need not survive a power cut.
        draft, tmp = f"progress.{tree.token(6)}", tree.fd("tmp", make=True)
        tree.fs.create(draft, tmp, data, sync=False)
        tree.fs.rename(draft, tmp, f"{entry.attempt:04d}-progress.json", at)
        return
    # As a claim that a power cut forgets, so an offer: the message is unread again.
    sync = sync and entry.outcome is not Outcome.OFFERED
    number = 1 + max((_number(name) for name in tree.names(folder)), default=0)
    while True:
        try:
            tree.fs.create(f"{number:06d}-{entry.attempt}-{entry.outcome}.json", at, data, sync=sync)
        except FileExistsError:
            number += 1  # Someone else wrote at the same moment.
            continue
        return


def _folder(tree: Tree, slot: Slot, now: int) -> int:
    """Open a task's folder of history, putting aside what has its name and is none: nothing may stop a move."""
    parent = f"channels/{slot.channel}/attempts"
    try:
        return tree.fd(f"{parent}/{slot.id}", make=True)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    foreign.quarantine(tree, parent, slot.id, "it is where a task's history belongs", now)
    return tree.fd(f"{parent}/{slot.id}", make=True)


def _number(name: str) -> int:
    """Return the number of a line; 0 for progress, and for what is none."""
    digits, dash, rest = name.partition("-")
    return int(digits) if dash and rest != "progress.json" and digits.isascii() and digits.isdecimal() else 0


def lines(tree: Tree, slot: Slot) -> tuple[Attempt, ...]:
    """Return a task's history, oldest line first, as far as it can be read."""
    folder, found = f"channels/{slot.channel}/attempts/{slot.id}", list[Attempt]()
    progress = list[Attempt]()
    for name in sorted(tree.names(folder)):
        try:
            entry = history.load(tree.fs.read(name, tree.fd(folder), 65536).data)
        except (CorruptRecord, FileNotFoundError):
            continue  # Cut off in a crash, or being written: history is for people.
        (found if _number(name) else progress).append(entry)
    for entry in progress:  # It has no number, for it is replaced: it comes before what ended its attempt.
        later = (place for place, line in enumerate(found) if line.attempt >= entry.attempt and line.at >= entry.at)
        found.insert(next(later, len(found)), entry)
    return tuple(found)


def reason(tree: Tree, slot: Slot, said: Sequence[Attempt], *, sync: bool) -> None:
    """Write the page a person reads first: why a task is dead, with everything before."""
    at, tmp = tree.fd(f"channels/{slot.channel}/dead", make=True), tree.fd("tmp", make=True)
    lines = [history.fields(line) for line in said]
    last = lines[-1] if lines else {}
    page = {"id": slot.id, "reason": last.get("note", ""), "outcome": last.get("outcome", ""), "attempts": lines}
    draft = f"reason.{tree.token(6)}"
    tree.fs.create(draft, tmp, wire.dumps(page), sync=sync)
    tree.fs.rename(draft, tmp, slot.id + names.REASON, at)
