"""What became of a task that was worked on, and what a command's end means for it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.model import NOTHING
from mcp_bus.plain import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.command import Ended
    from mcp_bus.workers.readers import Answer

NOT_NOW, NEVER = 75, 65
REASON = 1500
# How an agent, whose exit code is not its own, says that it cannot do a task.
BLOCKED, FAILED = "MCP_BUS_BLOCKED:", "MCP_BUS_FAILED:"


class Fate(StrEnum):
    """What became of a task that was worked on; `UNTOLD`: the bus could not be told."""

    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    BLOCKED = "blocked"
    RELEASED = "released"
    LIMITED = "limited"
    LOST = "lost"
    UNTOLD = "untold"


class Told(NamedTuple):
    """What became of a task, and why; `output` is the beginning of its result."""

    fate: Fate
    why: str = ""
    usage: Mapping[str, float] = NOTHING
    output: str = ""


def _end_first(output: str) -> str:
    """Return the end of an output in one line, its last line first: it mostly says why, and some see no more."""
    lines = [line.strip() for line in output.strip()[-REASON:].splitlines() if line.strip()]
    return "; before that: ".join(filter(None, (lines[-1], " | ".join(lines[:-1])))) if lines else ""


def judged(done: Ended, found: Answer, tail: str) -> Answer | Told:
    """Say what a command's end means: an answer, or why there is none (rule J3)."""
    said = clean(found.error.strip()[-REASON:] or _end_first(tail), multiline=True).strip()
    fate, why = Fate.FAILED, ""
    if found.is_limited:
        fate, why = Fate.LIMITED, "it is out of its rate limit"
    elif done.why:
        why = done.why
    elif done.code == NOT_NOW:
        fate, why = Fate.RELEASED, f"not now (exit code {NOT_NOW})"
    elif done.code == NEVER:
        fate, why = Fate.DEAD, f"never (exit code {NEVER})"
    elif done.code or found.error:
        why = f"ended by signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    if why:
        return Told(fate, f"{why}: {said}" if said else why, found.usage)
    for word, meant in ((BLOCKED, Fate.BLOCKED), (FAILED, Fate.FAILED)):
        if found.text.startswith(word):
            return Told(meant, found.text.removeprefix(word).strip() or "without a reason", found.usage)
    return found
