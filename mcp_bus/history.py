"""Lines of a task's history <-> JSON, strict in both directions; see `wire`."""

from __future__ import annotations

from typing import Any

from mcp_bus.errors import CorruptRecord
from mcp_bus.model import Attempt, Outcome
from mcp_bus.names import TASK_ID
from mcp_bus.wire import loads, stamp, unstamp


def fields(entry: Attempt) -> dict[str, Any]:
    """Return a line of history as JSON data."""
    made: dict[str, Any] = {"attempt": entry.attempt, "outcome": str(entry.outcome), "at": stamp(entry.at)}
    made |= {"by": entry.by, "note": entry.note}
    return made | {key: value for key in ("token", "successor") if (value := getattr(entry, key))}


def load(data: bytes) -> Attempt:
    """Read a line of history.

    Raises:
        CorruptRecord: it is not one.
    """
    outer, why = loads(data), ""
    attempt, outcome = outer.get("attempt"), str(outer.get("outcome"))
    words = [str(outer.get(key) or "") for key in ("by", "note", "token", "successor")]
    if outcome not in list(Outcome):
        why = "'outcome' is not known"
    elif words[-1] and not TASK_ID.match(words[-1]):
        why = "'successor' is not an id"
    if why or not isinstance(attempt, int) or isinstance(attempt, bool):
        raise CorruptRecord(why or "'attempt' is not a number")
    return Attempt(attempt, Outcome(outcome), unstamp(outer.get("at")), *words)
