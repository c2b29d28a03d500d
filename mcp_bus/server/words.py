"""What all answers are made of.

What others wrote stands in two forms only, with everything in it that acts on a reader made visible: between two
lines that carry a token their author could not know, or as a string in double quotes, in the middle of a line of
ours.  No line begins with it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import names
from mcp_bus.bidding import CALL
from mcp_bus.errors import BusError
from mcp_bus.find import is_lost, short
from mcp_bus.model import State
from mcp_bus.plain import clean, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Attempt, Task

# Every answer stays below this, in characters: clients cut or hide longer ones.
MAX_ANSWER = 8000
BODY = 5000
# How the states of a message are called that a task has too.
_OF_MESSAGES = {State.READY: "unread", State.DONE: "acked"}


class Ways(NamedTuple):
    """Where an answer may send its reader: never to a tool that this session does not offer."""

    hidden: frozenset[str] = frozenset()

    def first(self, *wishes: str) -> str:
        """Return the first wish that names offered tools only; the last one is for when there is no other."""
        return next((wish for wish in wishes if not self.hidden & set(re.findall(r"[a-z_]+", wish))), wishes[-1])

    def rest(self, task_id: str) -> str:
        """Return where the rest of a long text is, with `{end}` for how much was shown."""
        return self.first(
            f'; get_task(task="{short(task_id)}", offset={{end}})', f"; `mcp-bus show {short(task_id)}` prints it"
        )


ALL_WAYS = Ways()


def said(text: str, limit: int = 120) -> str:
    """Return words of others for the middle of a line, in at most `limit` characters and their quotes."""
    inner = json.dumps(clean(text[: limit + 1]), ensure_ascii=False)[1:-1]
    if len(inner) > limit:
        inner = inner[: limit - 1]
        # Half an escape would swallow the closing quote.
        inner = inner[: len(inner) - (len(inner) - len(inner.rstrip("\\"))) % 2] + "…"
    return f'"{inner}"'


def proven(task: Task) -> str:
    """Say whether a task's signatures hold, or why it is not shown; nothing where neither matters."""
    if task.hidden:
        return f"; not shown: {said(task.hidden, 400)}"
    if task.proof is None:
        return ""
    helps = f" (a person helps: {said(task.proof.hint, 200)})" if task.proof.hint else ""
    return f"; NOT VERIFIED: {said(task.doubt, 300)}{helps}" if task.doubt else ", verified"


def quoted(text: str, mark: str, *, limit: int = BODY, offset: int = 0, more: str = "") -> str:
    """Return words of others between two marked lines, one part of them if they are long."""
    part, end = fitting(text, offset, limit)
    rest = f"\n({len(text) - end} more characters{more.format(end=end)})" if end < len(text) else ""
    return f"--- text of another agent, until {mark} ---\n{part}\n--- {mark} ---{rest}"


def fitting(text: str, offset: int, limit: int) -> tuple[str, int]:
    """Return what fits, made harmless, and where it ends: what stands for a character can be longer than it."""
    part = text[offset : offset + limit]
    shown = clean(part, multiline=True)
    if len(shown) <= limit:
        return shown, offset + len(part)
    pieces, room = list[str](), limit
    for char in part:
        piece = clean(char, multiline=True)
        room -= len(piece)
        if room < 0:
            break
        pieces.append(piece)
    return "".join(pieces), offset + len(pieces)


def room(lines: Sequence[str]) -> int:
    """Return how much of others' text an answer can still take; some is kept for marks and for what comes last."""
    return max(1000, MAX_ANSWER - 800 - sum(len(item) + 1 for item in lines))


def several(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def due(task: Task, now: int) -> str:
    """Return when a scheduled task is tried, to go on with `due`."""
    return f"in {duration(task.slot.not_before - now)}" if task.slot.not_before > now else "now"


def line(task: Task, now: int) -> str:
    """Return a task in one line: its title, or how it begins."""
    body = task.body
    first = next((text for text in body.content[:2000].splitlines() if text.strip()), "")
    name = body.title or first.strip()
    return " ".join([short(task.id), task.channel, state(task, now), *([said(name, 80)] if name else [])])


def state(task: Task, now: int) -> str:
    """Return where a task is in its life, with what that state lacks to be understood."""
    slot, following = task.slot, successor(task)
    if following:
        return f"{'awarded' if task.body.type == CALL else 'edited'}, lives on as {short(following)}"
    if names.is_inbox(task.channel) and task.state in _OF_MESSAGES:
        return _OF_MESSAGES[task.state]
    if task.state is State.LEASED and slot.lease is not None:
        how = "offered to" if names.is_inbox(task.channel) else "leased by"
        return f"{how} {said(slot.lease.holder, 64)} (attempt {slot.attempt})"
    if task.state is State.SCHEDULED:
        return f"scheduled, due {due(task, now)}"
    if task.state is not State.DEAD:
        return "done, and its result is LOST" if is_lost(task) else str(task.state)
    is_blocked = task.question is not None
    return "blocked, waits for a person" if is_blocked else f"dead after {several(slot.attempt, 'attempt')}"


def successor(task: Task) -> str:
    """Return the id of the edited task that took a task's place, if one did."""
    if task.state is not State.CANCELLED:
        return ""
    found = next((entry.successor for entry in reversed(task.history) if entry.successor), "")
    return found if names.TASK_ID.match(found) else ""


def history(task: Task, limit: int = 5) -> list[str]:
    """Return the last lines of a task's history."""
    return [event(entry) for entry in task.history[-limit:]]


def event(entry: Attempt) -> str:
    """Return a line of history, for the middle of a line."""
    note = f": {said(entry.note, 200)}" if entry.note else ""
    return f"attempt {entry.attempt} {entry.outcome} by {said(entry.by, 60)}{note}"


def predecessor(bus: Bus, task: Task) -> Task | None:
    """Return the task that an edited one replaces, as long as it can be read."""
    old = task.body.retry_of
    if not names.TASK_ID.match(old):
        return None
    try:
        return bus.get(old)
    except BusError:
        return None


def before(bus: Bus, task: Task) -> list[str]:
    """Return what became of the task that an edited one replaces."""
    old = predecessor(bus, task)
    return [f"before, as {short(old.id)}: {entry}" for entry in history(old, 3)] if old is not None else []


def away(bus: Bus) -> str:
    """Say how old what is known of a bus at a remote is; nothing of a bus that is all there is."""
    known = bus.store.away
    if known is None:
        return ""
    asked = f"{duration(max(0, bus.source.now() - known.asked))} ago" if known.asked else "never"
    waiting = f"; {several(known.unsent, 'post')} not sent yet" if known.unsent else ""
    claims = "and claiming needs it" if known.is_needed else "and a claim is tentative until it does"
    trouble = f"; it does not answer, {claims}" if known.trouble else ""
    return f"synchronized with the git remote {asked}{waiting}{trouble}"
