"""The id of a bus that has lost its `bus.json`: for it keys were trusted and signatures made, so it is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import BusError, CorruptRecord
from mcp_bus.signing import jws
from mcp_bus.signing.guard import Guard
from mcp_bus.signing.trust import is_bus
from mcp_bus.stores.seals import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.stores import base
    from mcp_bus.stores.tree import Tree


class Found(NamedTuple):
    """An id, empty if there is none to be had, and where it is from, as people are told."""

    bus: str
    said: str


def bus_id(tree: Tree, keys: Callable[[str], base.Guard] | None) -> Found:
    """Return the id that a bus had: as this user remembers it for this place, else as all its signatures name it.

    Args:
        keys: makes the guard of this user; without it nothing is remembered.
    """
    known = _remembered(keys)
    if known:
        return Found(known, f"{known} is remembered for this place in your private folder, and is kept")
    names = tree.names(FOLDER)
    named = {_named(tree, name) for name in names} - {""}
    if len(named) == 1:
        (bus,) = named
        return Found(bus, f"all signatures name {bus}, which is kept")
    if not names:
        return Found(
            "", "it gets a new id, for nothing here names the old one; what is encrypted for that is not believed then"
        )
    why = "name different ids" if named else "cannot be read"
    return Found(
        "", f"it gets a new id, for its signatures {why}: none of them holds then, and keys must be trusted anew"
    )


def _remembered(keys: Callable[[str], base.Guard] | None) -> str:
    guard = keys("") if keys is not None else None
    if not isinstance(guard, Guard):
        return ""
    try:
        return guard.trust.remembered()
    except BusError:  # A private folder that cannot be used remembers nothing; whoever signs is told why.
        return ""


def _named(tree: Tree, name: str) -> str:
    """Return the id of the bus that a signature is for; empty if it cannot be read."""
    try:
        bus = jws.read(tree.fs.read(name, tree.fd(FOLDER), jws.MAX_SEAL).data).header["bus"]
    except (CorruptRecord, OSError):
        return ""
    return str(bus) if is_bus(bus) else ""
