"""What a subscriber has seen of a topic, as pure functions of (cursor, ids, time).

Rules, numbered so that tests and comments can cite them:

T1  A message is unread until its subscriber acked it, however often it was offered.
T2  Ids become visible out of order: the watermark only passes ids older than `SETTLE`, and a sender that took
    longer than that to make its message visible sends it again under a new id.
T3  The watermark never passes a message that is retained and was not acked.
T4  A watermark later than now is no watermark: it would hide what is still to come.
T5  Merging is harmless to repeat, so that two sessions may write one cursor.
T6  What was passed by the watermark was acked, or not asked for, or ended unread: which of these is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.errors import CorruptRecord
from mcp_bus.model import NOTHING
from mcp_bus.names import TASK_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# How long after its id was made a message may become visible, in milliseconds.
SETTLE = 60_000
# Marks of acked messages that are kept in full, for the trace; of older ones only that there was one.
KEEP = 128
# Characters of an id of ours.  Shorter ones, of other programs, sort in no order with these: no watermark passes them.
FULL = 36
MAX_MATCH = 8


class Mark(NamedTuple):
    """When something happened to a message, in which session, and by which path."""

    at: int
    session: str
    path: str = ""


class Cursor(NamedTuple):
    """What one subscriber has seen of one topic.

    Attributes:
        agent: whose it is, in full.
        watermark: every retained message up to this id was acked.
        acked: messages above the watermark that were acked.
        offered: messages above the watermark that were shown; the latest showing.
        match: only messages whose fields have these values are wanted; see `wants`.
        is_active: False once unsubscribed; kept, because a topic may be one that everyone gets.
    """

    agent: str
    watermark: str = ""
    acked: Mapping[str, Mark] = NOTHING
    offered: Mapping[str, Mark] = NOTHING
    match: Mapping[str, str] = NOTHING
    is_active: bool = True


def first_of(ms: int) -> str:
    """Return what ids that were made at a time, or later, come after."""
    return f"req_{max(0, ms):012x}"


def time_of(message_id: str) -> int:
    """Return when an id was made, in milliseconds, by its maker's clock."""
    return int(message_id[4:16], 16)


def unread(cursor: Cursor, ids: Iterable[str]) -> list[str]:
    """Return the ids that were not acked, oldest first (rule T1)."""
    return sorted(i for i in ids if is_unread(cursor, i))


def is_unread(cursor: Cursor, message: str) -> bool:
    """Tell whether a message was not acked, and not passed."""
    return message not in cursor.acked and not is_passed(cursor, message)


def is_passed(cursor: Cursor, message: str) -> bool:
    """Tell whether the watermark is beyond a message (rule T6)."""
    return len(message) == FULL and message <= cursor.watermark


def offer(cursor: Cursor, ids: Iterable[str], mark: Mark) -> Cursor:
    """Note that messages were shown."""
    shown = {i: mark for i in ids if is_unread(cursor, i)}
    return cursor._replace(offered={**cursor.offered, **shown})


def take_back(cursor: Cursor, ids: Iterable[str], session: str) -> Cursor:
    """Note that messages were not shown after all; what another session was shown stays so."""
    gone = {i for i in ids if i in cursor.offered and cursor.offered[i].session == session}
    return cursor._replace(offered={i: mark for i, mark in cursor.offered.items() if i not in gone})


def ack(cursor: Cursor, ids: Iterable[str], mark: Mark) -> Cursor:
    """Note that messages were read; the first to say so stays (rule T5)."""
    told = {i: mark for i in ids if is_unread(cursor, i)}
    return cursor._replace(acked={**cursor.acked, **told})


def advance(cursor: Cursor, retained: Sequence[str], *, now: int) -> Cursor:
    """Move the watermark over what is acked and settled, and forget what is not retained (rules T2, T3).

    Args:
        retained: every message the topic has; a listing, which may lack one that moves just now.
    """
    there, settled = set(retained), now - SETTLE
    acked = {i: mark for i, mark in cursor.acked.items() if i in there or time_of(i) > settled}
    watermark, spare = cursor.watermark, len(acked) - KEEP
    for i in sorted(i for i in there | acked.keys() if len(i) == FULL and i > watermark):
        if i not in acked or time_of(i) > settled or spare <= 0:
            break
        watermark, spare = i, spare - 1
        del acked[i]
    latest = sorted(acked, key=lambda i: acked[i].at)[-KEEP:]
    acked |= {i: Mark(0, "", acked[i].path) for i in acked.keys() - set(latest)}
    marked = cursor._replace(watermark=watermark, acked=acked)
    offered = {i: mark for i, mark in cursor.offered.items() if i in there and (is_unread(marked, i) or i in latest)}
    return marked._replace(offered=offered)


def wants(cursor: Cursor, fields: Mapping[str, Any]) -> bool:
    """Tell whether a message is one the subscriber asked for: each named field has the wanted value as its text."""
    return all(_text(fields.get(name)) == value for name, value in cursor.match.items())


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def fields(cursor: Cursor) -> dict[str, Any]:
    """Return a cursor as JSON data."""
    return {
        "agent": cursor.agent,
        "watermark": cursor.watermark,
        "acked": {i: list(mark) for i, mark in cursor.acked.items() if mark.at},
        "seen": {
            path: [i for i, mark in cursor.acked.items() if not mark.at and mark.path == path]
            for path in _paths(cursor)
        },
        "offered": {i: list(mark) for i, mark in cursor.offered.items()},
        "match": dict(cursor.match),
        "active": cursor.is_active,
    }


def load(data: Mapping[str, Any], *, now: int) -> Cursor:
    """Read a cursor; one whose watermark lies in the future starts again from what is retained (rule T4).

    Raises:
        CorruptRecord: it is not a cursor.
    """
    agent, watermark, match = data.get("agent"), data.get("watermark"), data.get("match")
    if not isinstance(agent, str) or not isinstance(watermark, str) or not isinstance(match, dict):
        what = "the cursor has no agent, watermark or match"
        raise CorruptRecord(what)
    if not TASK_ID.match(watermark) or time_of(watermark) > now + SETTLE:
        watermark = ""
    wanted = {str(name): str(value) for name, value in match.items()}
    is_active = data.get("active") is not False
    acked = _seen(data.get("seen")) | _marks(data.get("acked"), now)
    return Cursor(agent, watermark, acked, _marks(data.get("offered"), now), wanted, is_active)


def _paths(cursor: Cursor) -> set[str]:
    return {mark.path for mark in cursor.acked.values() if not mark.at}


def _seen(value: object) -> dict[str, Mark]:
    made: dict[str, Mark] = {}
    for path, ids in value.items() if isinstance(value, dict) else ():
        for name in ids if isinstance(ids, list) else ():
            if isinstance(name, str) and TASK_ID.match(name):
                made[name] = Mark(0, "", path)
    return made


def _marks(value: object, now: int) -> dict[str, Mark]:
    """Read marks; one from the future is none, for it would hold for as long (rule T4)."""
    made: dict[str, Mark] = {}
    for name, mark in value.items() if isinstance(value, dict) else ():
        if not TASK_ID.match(name) or not isinstance(mark, list) or len(mark) != 3 or type(mark[0]) is not int:
            continue
        if 0 < mark[0] <= now + SETTLE:
            made[name] = Mark(mark[0], str(mark[1]), str(mark[2]))
    return made
