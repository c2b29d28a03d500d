"""What became of each attempt at a task, and the page a person reads when it is dead.

Written before the move it tells of, for people: no decision reads it but who follows an edited retry.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import names, wire
from mcp_bus.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.model import Attempt, Slot
    from mcp_bus.stores.tree import Tree


def note(tree: Tree, slot: Slot, entry: Attempt, *, sync: bool) -> None:
    """Write a line of history; the same line twice is one line."""
    at = tree.fd(f"channels/{slot.channel}/attempts/{slot.id}", make=True)
    data = wire.dumps(wire.attempt_fields(entry))
    if entry.outcome is Outcome.PROGRESS:  # Only the latest word counts, and it need not survive a power cut.
        draft, tmp = f"progress.{tree.token(6)}", tree.fd("tmp", make=True)
        tree.fs.create(draft, tmp, data, sync=False)
        tree.fs.rename(draft, tmp, f"{entry.attempt:04d}-progress.json", at)
        return
    # As a claim that a power cut forgets, so an offer: the message is unread again.
    sync = sync and entry.outcome is not Outcome.OFFERED
    with suppress(FileExistsError):
        tree.fs.create(f"{entry.attempt:04d}-{entry.outcome}-{entry.at}.json", at, data, sync=sync)


def reason(tree: Tree, slot: Slot, history: Sequence[Attempt], *, sync: bool) -> None:
    """Write the page a person reads first: why a task is dead, with everything before."""
    at, tmp = tree.fd(f"channels/{slot.channel}/dead", make=True), tree.fd("tmp", make=True)
    lines = [wire.attempt_fields(line) for line in history]
    last = lines[-1] if lines else {}
    page = {"id": slot.id, "reason": last.get("note", ""), "outcome": last.get("outcome", ""), "attempts": lines}
    draft = f"reason.{tree.token(6)}"
    tree.fs.create(draft, tmp, wire.dumps(page), sync=sync)
    tree.fs.rename(draft, tmp, slot.id + names.REASON, at)
