"""State <-> file name, and which names are allowed at all.  Pure.

A task's path inside its channel says everything that changes about it (`docs/protocol.md`, N1 to
N6).  `place` makes the path of a slot, `parse` reads one back; they are inverse to each other.
Parsing is strict: a name that is not exactly what `place` would make is foreign, and None.
"""

import re
from functools import cache
from typing import NamedTuple

from mcp_bus.errors import InvalidRequest
from mcp_bus.model import PRIORITIES, Lease, Slot, State

CHANNEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
# An agent's inbox, or that of one of its sessions: a channel that only its owner reads.
INBOX = r"@[a-z0-9][a-z0-9._-]{0,63}(?:\+[0-9a-f]{16})?(?:~[0-9a-z]{1,16})?\Z"
TASK_ID = re.compile(r"req_[0-9a-f]{8,48}\Z")
KEY = r"[0-9a-f]{64}\Z"
_DIGITS = r"\+[0-9a-f]{8}\Z"
HOLDER = r"[A-Za-z0-9_@+~-]{1,64}\Z"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"
IN_NAME = r"req_[0-9a-f]{8,48}"
# Recipients that nobody else may be called.
HUMAN, BROADCAST = "human", "broadcast"
RESERVED = frozenset({HUMAN, BROADCAST})
# The type of a call for proposals, and the queue that awarded tasks wait in.
CALL, AWARDS = "call", "awards"
# Where such a task says on which topic its call was.
TOPIC = "topic"
# What a capability begins with that one agent alone has: a task that needs it is addressed to that agent.
ADDRESSED = "to:"
# Names Windows cannot have, with any extension.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})

FOLDERS = {
    State.SCHEDULED: "delayed",
    State.READY: "requests",
    State.LEASED: "processing",
    State.DEAD: "dead",
    State.DONE: "archive",
    State.CANCELLED: "archive",
    State.EXPIRED: "archive",
}
STATES = {"delayed": State.SCHEDULED, "requests": State.READY, "processing": State.LEASED, "dead": State.DEAD}
CHANNEL_FOLDERS = ("requests", "delayed", "processing", "responses", "archive", "dead", "attempts")
REASON = ".reason.json"

_ID = r"(?P<id>req_[0-9a-f]{8,48})"
# Digits are spelt out: to `\d` the digits of other alphabets are digits too.
_NUMBER = r"(?:0|[1-9][0-9]{0,14})"
_MARKS = (
    r"(?:\.p(?P<priority>-?[1-9]))?"
    r"(?:\.a(?P<attempt>[1-9][0-9]{0,8}))?"
    r"(?:\.m(?P<budget>[1-9][0-9]{0,8}))?"
    r"(?:\.r(?P<releases>[1-9][0-9]{0,8}))?"
    r"(?:\.t(?P<deadline>[1-9][0-9]{0,14}))?"
)
_HELD = r"\.(?P<holder>[A-Za-z0-9_@+~-]{1,64})\.(?P<token>[0-9a-f]{4,32})"
_WAITING = rf"{_ID}{_MARKS}\.json\Z"
_DELAYED = rf"(?P<not_before>{_NUMBER})\.{_ID}{_MARKS}\.json\Z"
_LEASED = rf"{_ID}{_MARKS}{_HELD}\.(?P<expires>{_NUMBER})\.json\Z"
_ARCHIVED = rf"{_ID}{_MARKS}(?:{_HELD})?_(?P<end>request|cancelled|discarded|expired)\.json\Z"
_STAGED = rf"{_ID}{_MARKS}{_HELD}\.json\Z"


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """Compile a form of file names; many verbs meet none, and to compile all would take a tenth of their time."""
    return re.compile(form)


_OUTPUT = rf"{_ID}_result\.md\Z"
_ENDS = {"request": State.DONE, "cancelled": State.CANCELLED, "discarded": State.CANCELLED, "expired": State.EXPIRED}


class Place(NamedTuple):
    """A path inside a channel: `folder` (with the day, for the archive) and file `name`."""

    folder: str
    name: str


def marks(slot: Slot) -> str:
    """Return the id and every mark that is not at its default, the common head of all names."""
    parts = [slot.id]
    if slot.priority:
        parts.append(f"p{slot.priority}")
    if slot.attempt:
        parts.append(f"a{slot.attempt}")
    if slot.budget:
        parts.append(f"m{slot.budget}")
    if slot.releases:
        parts.append(f"r{slot.releases}")
    if slot.deadline:
        parts.append(f"t{slot.deadline}")
    return ".".join(parts)


def staged(slot: Slot) -> str:
    """Return the name of a result on its way: it carries the token it was made under."""
    assert slot.lease is not None
    return f"{marks(slot)}.{slot.lease.holder}.{slot.lease.token}.json"


def place(slot: Slot) -> Place:
    """Return where a slot's file is."""
    state, stem = slot.state, marks(slot)
    if state is State.READY or state is State.DEAD:
        return Place(FOLDERS[state], stem + ".json")
    if state is State.SCHEDULED:
        return Place("delayed", f"{slot.not_before}.{stem}.json")
    if state is State.LEASED:
        assert slot.lease is not None
        held = slot.lease
        if not held.token:  # A claim of another program: the plain name, and no token to check.
            return Place("processing", stem + ".json")
        return Place("processing", f"{stem}.{held.holder}.{held.token}.{held.expires}.json")
    end = {State.DONE: "request", State.EXPIRED: "expired"}.get(state, "discarded" if slot.discarded else "cancelled")
    if slot.lease is not None and slot.lease.token:
        stem = f"{stem}.{slot.lease.holder}.{slot.lease.token}"
    return Place(f"archive/{slot.day}" if slot.day else "archive", f"{stem}_{end}.json")


def _slot(match: re.Match[str], channel: str, state: State) -> Slot:
    if match.lastindex == 1:  # The id and no mark: the name of most waiting tasks.
        return Slot(match[1], channel, state)
    found = match.groupdict()

    def number(key: str) -> int:
        return int(found.get(key) or 0)

    lease = None
    if found.get("token"):
        lease = Lease(found["holder"], found["token"], number("expires"))
    return Slot(
        id=found["id"],
        channel=channel,
        state=state,
        priority=number("priority"),
        attempt=number("attempt"),
        budget=number("budget"),
        releases=number("releases"),
        deadline=number("deadline"),
        not_before=number("not_before"),
        lease=lease,
        discarded=found.get("end") == "discarded",
    )


def parse(channel: str, folder: str, name: str) -> Slot | None:
    """Read a path back into a slot; None when the name is foreign.

    A plain name in `processing` is a claim by a program that keeps no leases (abq): it comes back
    as leased with an empty token, and whoever lists it gives it a deadline.

    Args:
        folder: as in `Place`; `archive/<day>` for the archive.
    """
    if folder in ("requests", "dead", "delayed"):
        match = _pattern(_DELAYED if folder == "delayed" else _WAITING).match(name)
        return _slot(match, channel, STATES[folder]) if match else None
    if folder == "processing":
        held, plain = _pattern(_LEASED).match(name), _pattern(_WAITING).match(name)
        if held:
            return _slot(held, channel, State.LEASED)
        return _slot(plain, channel, State.LEASED)._replace(lease=Lease("abq", "", 0)) if plain else None
    ended, (top, _, day) = _pattern(_ARCHIVED).match(name), folder.partition("/")
    if not ended or top != "archive" or (folder != top and not re.match(DAY, day)):
        return None
    return _slot(ended, channel, _ENDS[ended["end"]])._replace(day=day)


def parse_staged(name: str, channel: str) -> Slot | None:
    """Read the name of a staged result: a leased slot whose deadline is unknown (0)."""
    match = _pattern(_STAGED).match(name)
    return _slot(match, channel, State.LEASED) if match else None


def output(task_id: str) -> str:
    """Return the name of a result as Markdown; the names sort by when their tasks were posted."""
    return f"{task_id}_result.md"


def of_output(name: str) -> str:
    """Return the id of the task whose result a name in `outputs` says it is; empty for any other name."""
    match = _pattern(_OUTPUT).match(name)
    return match["id"] if match else ""


def is_identity(name: str) -> bool:
    """Tell whether a name in `tasks/` is that of a task; anything may lie there."""
    return name.endswith(".json") and TASK_ID.match(name[:-5]) is not None


def end_of(name: str) -> State | None:
    """Return the state that the end of an archived task's name tells, without reading the rest."""
    stem, _, end = name.removesuffix(".json").rpartition("_")
    return _ENDS.get(end) if stem and name.endswith(".json") else None


def name_priority(name: str) -> int:
    """Return the priority written in a waiting task's name without parsing the rest."""
    at = name.find(".p")
    if at < 0:
        return 0
    end = name.find(".", at + 2)
    try:
        value = int(name[at + 2 : end])
    except ValueError:
        return 0
    return value if value in PRIORITIES else 0


def is_inbox(channel: str) -> bool:
    """Tell an inbox from a channel that anyone may post to and claim from."""
    return channel.startswith("@")


def inbox(agent: str, session: str = "") -> str:
    """Return the channel that is an agent's inbox: `planner` has `@planner`.

    A name that is no channel's name, such as `github.com/acme/app/main`, becomes its readable part and digits of
    its hash, with a mark between them that no channel has, so that two agents never share an inbox.

    Args:
        session: for the inbox of just this session of the agent, `@planner~7f3a90c2`.
    """
    word = agent
    if not CHANNEL.match(agent):
        import hashlib  # noqa: PLC0415  loads OpenSSL, which agents with plain names do not need

        readable = re.sub(r"[^a-z0-9._-]+", "-", agent.lower()).strip("-._")
        digits = hashlib.sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        word = f"{readable[-44:].strip('-._') or 'agent'}+{digits}"
    return f"@{word}~{session}" if session else f"@{word}"


def addressed(agent: str) -> str:
    """Return what only this agent is able to do: the tasks that are addressed to it."""
    return ADDRESSED + inbox(agent)[1:]


def is_place(name: str) -> bool:
    """Tell whether a name is that of a channel or of an inbox."""
    return CHANNEL.match(name) is not None or re.match(INBOX, name) is not None


def check_place(name: object) -> str:
    """Return the name of a channel or an inbox, if it is one.

    Raises:
        InvalidRequest: it is neither.
    """
    return name if isinstance(name, str) and re.match(INBOX, name) else check_channel(name)


def check_channel(name: object) -> str:
    """Return a channel's name if it is one; an inbox is not, for nobody else may post to it or claim from it.

    Lower case, because two names that differ in case are one folder on some file systems.

    Raises:
        InvalidRequest: it is not 1 to 64 characters of a-z, 0-9, dot, dash, underscore.
    """
    if isinstance(name, str) and CHANNEL.match(name) and name.split(".")[0] not in _DEVICES:
        return name
    shown = repr(name) if len(repr(name)) <= 80 else repr(name)[:77] + "..."
    hint = "use 1 to 64 of a-z 0-9 . _ - and start with a letter or digit, for example 'code-review'"
    if isinstance(name, str) and re.match(INBOX, name):
        hint = "that is an inbox: send to it, and read your own"
    if isinstance(name, str) and CHANNEL.match(name.lower()) and name.lower().split(".")[0] not in _DEVICES:
        hint = f"channel names are lower case: {name.lower()!r}"
    if isinstance(name, str) and name.lower().split(".")[0] in _DEVICES:
        hint = "that is a device on Windows, where a bus could not have it; choose another"
    msg = f"{shown} is not a channel name"
    raise InvalidRequest(msg, hint=hint)


def holder(agent: str, session: str) -> str:
    """Return the word that stands for one session of an agent in a lease's file name.

    Readable first, unique by the session: `planner`, `7f3a90c2` give `planner~7f3a90c2`.  A name that cannot stand
    there as it is becomes its readable part and digits of its checksum, as `acme-app-main+89ab45cd~7f3a90c2`: nobody
    may finish what another agent holds because their names look alike.
    """
    word, room = re.sub(r"[^A-Za-z0-9_@+]+", "-", agent).strip("-"), 63 - len(session)
    if word != agent or len(word) > room or re.search(_DIGITS, word):
        from binascii import crc32  # noqa: PLC0415  agents with plain names do not need it

        digits = f"{crc32(agent.encode('utf-8', 'surrogatepass')):08x}"
        # The end tells agents apart (branch, client), the beginning is the same for all.
        word = f"{word[9 - room :].lstrip('-') or 'agent'}+{digits}"
    return f"{word}~{session}"


def is_of(holder_word: str, agent: str) -> bool:
    """Tell whether a holder is a session of an agent."""
    return holder(agent, holder_word.rpartition("~")[2]) == holder_word
