"""What somebody may have meant whose word is not known: a verb, an option, a channel, a worker's ability."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import names, routing
from mcp_bus.errors import BusError, InvalidRequest, NotFound
from mcp_bus.find import public, queues
from mcp_bus.model import State
from mcp_bus.plain import cut, near

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Policy

# Channels that a hint names, and waiting tasks of a channel whose needs are read for one.
SOME = 8
# What stands for a text of several words in the help of an option.
TEXTS = frozenset({"TEXT", "REASON", "RESULT", "QUESTION", "BODY"})


def verb(name: str, known: Iterable[str]) -> str:
    """Return what to do about a verb that is not there: the likeliest first."""
    names = list(known)
    close = near(name, names) or [other for other in names if len(name) > 1 and other.startswith(name[:2])]
    return f"{' or '.join(close)}?" if close else "mcp-bus --help lists them"


def words(extra: Sequence[str], options: Iterable[str], places: Iterable[str]) -> str:
    """Return what to do about words that a verb does not take; empty when nothing comes to mind.

    Args:
        options: those the verb has.
        places: what the help calls the values the verb takes.
    """
    unknown = next((word.partition("=")[0] for word in extra if word.startswith("-")), "")
    if unknown:
        close = near(unknown.lstrip("-"), (option.lstrip("-") for option in options if option.startswith("--")))
        return f"did you mean --{close[0]}?" if close else ""
    found = TEXTS.intersection(places)
    if "BODY" in found:
        return 'quote the body, it is one word for the shell: "two words"'
    return 'quote a text of several words: "two words"' if found else ""


def channel(bus: Bus, name: str) -> Policy:
    """Return the policy of a channel that is there.

    Raises:
        NotFound: it is not; the hint names those one may have meant.
    """
    try:
        return bus.store.policy(name)
    except NotFound as error:
        error.hint = like(bus, name) or error.hint or "`mcp-bus ls` lists channels; the first post makes one"
        raise


def like(bus: Bus, name: str) -> str:
    """Return a question that names the channels one may have meant, or else what channels there are."""
    known = public(bus.store)
    close = near(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"channels: {', '.join(known[:SOME])}{', …' if len(known) > SOME else ''}" if known else ""


def ability(bus: Bus, channels: Sequence[str], able: Sequence[str]) -> str:
    """Return what a claimer could say it is able to do to get the next task, `a,b`; empty when that is not why."""
    known = queues(bus.store)
    for name in [name for name in channels if name in known] if channels else known:
        for slot in bus.store.scan(name, State.READY, limit=SOME):
            try:
                task = bus.store.get(slot.id, at=slot)
            except BusError:
                continue  # It moved, or cannot be read.
            missing = routing.missing(task.body.requires, frozenset(able)) if task else ()
            if missing and not any(word.startswith(names.ADDRESSED) for word in missing):
                return cut(",".join(sorted({*able, *missing})), 300)
    return ""


def priority(text: str) -> int:
    """Return a priority.

    Raises:
        InvalidRequest: it is none.
    """
    if text.lstrip("+-").isdecimal() and text.isascii() and len(text) <= 3 and -9 <= int(text) <= 9:
        return int(text)
    msg = f"{text[:40]!r} is not a priority"
    raise InvalidRequest(msg, hint="a whole number from -9, which goes last, to 9, which goes first; tasks have 0")
