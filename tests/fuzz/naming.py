"""What must hold of file names: a name and its slot stand for one another, and no name leads anywhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import Lease, Slot, State

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 225
DAY = "2026-11-21"
PLACES = ("requests", "delayed", "processing", "dead", "archive", f"archive/{DAY}")
_HOLDER = "azAZ09_@+~-"


def check_names(data: bytes) -> bool:
    """Check the bytes as a path, as two agents, and as two slots."""
    text = data.decode("utf-8", "surrogateescape")
    folder, _, name = text.rpartition("/")
    is_ours = _check_name(folder, name)
    _check_others(name)
    _check_agents(*text.partition("\0")[::2])
    half = len(data) // 2
    _check_slots(made(data[:half]), made(data[half:]))
    return is_ours


def _check_name(folder: str, name: str) -> bool:
    """Check what a name is in its folder, and that it is something else in each other."""
    seen = list[Slot]()
    for place in dict.fromkeys((folder, *PLACES)):
        slot = names.parse("work", place, name)
        if slot is not None:
            assert names.place(slot) == (place, name), f"{name!r} in {place!r} is {slot!r}"
            assert slot not in seen, f"{slot!r} has two names"
            _check_harmless(name)
            _check_shortcuts(slot, name)
            seen.append(slot)
    return bool(seen)


def _check_harmless(name: str) -> None:
    assert not {"/", "\\", "\0", "\n"} & set(name), f"{name!r} leads elsewhere"
    assert not re.search(r"^\.|\.\.", name), f"{name!r} leads up, or is not seen"
    assert name.isascii(), f"{name!r} is spelt otherwise on some file systems"
    assert len(name) <= LONGEST, f"{name!r} is longer than every file system takes"


def _check_shortcuts(slot: Slot, name: str) -> None:
    """Check what tells something of a name without reading all of it."""
    if slot.state in (State.READY, State.SCHEDULED):
        assert names.name_priority(name) == slot.priority
    if slot.state in (State.DONE, State.CANCELLED, State.EXPIRED):
        assert names.end_of(name) is slot.state


def _check_others(name: str) -> None:
    """Check the names of staged results, of outputs and of identities."""
    staged = names.parse_staged(name, "work")
    if staged is not None:
        assert names.staged(staged) == name, f"{name!r} is {staged!r}"
        _check_harmless(name)
    task_id = names.of_output(name)
    assert not task_id or names.output(task_id) == name
    if names.is_identity(name):
        _check_harmless(name)
    refusal: InvalidRequest | None = None
    try:
        assert names.check_place(name) == name
    except InvalidRequest as error:
        refusal = error
    if refusal is None:
        assert names.is_place(name)
        _check_channel(name)
    else:
        assert refusal.hint
        assert len(str(refusal)) < LONGEST


def _check_channel(name: str) -> None:
    assert not {"/", "\\", "\0", "\n"} & set(name), f"{name!r} leads elsewhere"
    assert not name.startswith("."), f"{name!r} is not seen"
    assert len(name.encode()) <= LONGEST, f"{name!r} is longer than every file system takes"
    assert name == name.lower(), "two names are one where case does not count"


def _check_agents(one: str, two: str) -> None:
    """Check that an agent, whatever it is called, has a word and an inbox, and no other agent the same ones."""
    session = "7f3a90c2"
    for agent in (one, two):
        word, inbox = names.holder(agent, session), names.inbox(agent)
        assert re.match(names.HOLDER, word), f"{agent!r} has the word {word!r}"
        assert names.is_of(word, agent)
        assert names.is_place(inbox), f"{agent!r} has the inbox {inbox!r}"
        _check_channel(inbox[1:])
    if one != two:
        assert names.holder(one, session) != names.holder(two, session), f"{one!r} and {two!r} are one holder"
        assert names.inbox(one) != names.inbox(two), f"{one!r} and {two!r} have one inbox"


def _check_slots(one: Slot, two: Slot) -> None:
    """Check that each slot comes back out of its name, and that two slots have two."""
    for slot in (one, two):
        place = names.place(slot)
        assert names.parse(slot.channel, *place) == slot, f"{slot!r} became {place!r}"
        _check_harmless(place.name)
        if slot.state is State.LEASED and slot.lease is not None:
            back = names.parse_staged(names.staged(slot), slot.channel)
            assert back == slot._replace(lease=slot.lease._replace(expires=0)), f"{slot!r} is staged as {back!r}"
    assert (one == two) == (names.place(one) == names.place(two)), f"{one!r} and {two!r} share a name"


def made(data: bytes) -> Slot:
    """Return a slot that the bytes choose; any that there may be."""
    left = _numbers(data)

    def number(most: int) -> int:
        return next(left) % (most + 1)

    def digits(least: int, most: int) -> str:
        size = least + number(most - least)
        return f"{next(left) * 0x9E3779B97F4A7C15 % 16**size:0{size}x}"

    small, large, state = 10**9 - 1, 10**15 - 1, list(State)[number(6)]
    slot = Slot("req_" + digits(8, 48), "work", state, number(18) - 9, number(small), number(small), number(small))
    slot = slot._replace(deadline=number(large))
    if state is State.SCHEDULED:
        return slot._replace(not_before=number(large))
    if state in (State.READY, State.DEAD):
        return slot
    word = "".join(_HOLDER[number(len(_HOLDER) - 1)] for _ in range(1 + number(63)))
    lease = Lease(word, digits(4, 32), number(large) if state is State.LEASED else 0)
    if state is State.LEASED:
        return slot._replace(lease=lease)
    slot = slot._replace(day=("", DAY)[number(1)], lease=lease if state is State.DONE and number(1) else None)
    return slot._replace(discarded=state is State.CANCELLED and bool(number(1)))


def _numbers(data: bytes) -> Iterator[int]:
    """Return numbers without end: a byte tells how many bytes the next one has, and after the last come zeros."""
    at = 0
    while True:
        size = data[at] % 9 if at < len(data) else 0
        yield int.from_bytes(data[at + 1 : at + 1 + size], "big")
        at += 1 + size
