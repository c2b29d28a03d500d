"""What is on a bus, by name, for whoever types: looked up without a trace.

Listings and plain reads alone: nothing is swept, adopted, put aside or made, as by other ways to open a bus and to
read its documents.
"""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from mcp_bus import config, wire
from mcp_bus import find as finding
from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.model import Slot, State

# Names of a kind, at most: nobody chooses from more.
MANY = 200
MAX_DOCUMENT = 1 << 20


class Known:
    """The names on the bus that a command line speaks to.

    Every method raises a `BusError` or `OSError` when there is no bus, or it cannot be read.
    """

    def __init__(self, flags: dict[str, str]) -> None:
        """Look nowhere yet; `flags` are settings that the command line names."""
        self._flags = flags

    @cached_property
    def _store(self) -> FileStore:
        return FileStore(config.load(self._flags).path, durable=False)

    def close(self) -> None:
        """Close the bus, if it could be opened."""
        if "_store" in vars(self):
            self._store.close()

    def tasks(self, states: Sequence[State], begin: str) -> list[tuple[str, str]]:
        """Return ids that begin with a word, whole or short as it is, and what each is: state, channel and holder."""
        named = "req_".startswith(begin[:4]) and begin != ""
        names = finding.queues(self._store)
        slots = (slot for state in states for name in names for slot in self._store.scan(name, state))
        ids = ((slot.id if named else finding.short(slot.id), slot) for slot in slots)
        return [(word, _about(slot)) for word, slot in islice((i for i in ids if i[0].startswith(begin)), MANY)]

    def channels(self) -> list[str]:
        """Return the channels that tasks are posted to."""
        return finding.queues(self._store)

    def topics(self) -> list[str]:
        """Return the channels that everyone reads who subscribed."""
        return finding.topics(self._store)

    def agents(self) -> list[str]:
        """Return who is there, or was."""
        return [str(found.get("agent", "")) for found in self._documents("agents")]

    def workers(self) -> list[str]:
        """Return the workers of fleets."""
        fleets = self._documents("fleets")
        workers = (found.get("workers") for found in fleets)
        items = (item for some in workers if isinstance(some, list) for item in some if isinstance(item, dict))
        return [str(item.get("name", "")) for item in items]

    def logs(self) -> list[str]:
        """Return the workers that have a log."""
        found = self._store.tree.names("logs/workers")
        return [name.removesuffix(".log") for name in found if name.endswith(".log") and not name.endswith(".1.log")]

    def plans(self) -> list[str]:
        """Return the short ids of plans."""
        return [finding.short(name) for name in self._store.records.names("plans")]

    def pipes(self) -> list[str]:
        """Return the named pipes."""
        return self._store.tree.names("pipes")

    def roles(self) -> list[str]:
        """Return the roles that somebody wrote down."""
        return [name.removesuffix(".md") for name in self._store.tree.names("agents") if name.endswith(".md")]

    def _documents(self, kind: str) -> Iterator[dict[str, Any]]:
        tree = self._store.tree
        for name in islice((name for name in tree.names(kind) if name.endswith(".json")), MANY):
            try:
                yield wire.loads(tree.fs.read(name, tree.fd(kind), MAX_DOCUMENT).data)
            except (CorruptRecord, FileNotFoundError):
                continue


def _about(slot: Slot) -> str:
    held = f", held by {slot.lease.holder}" if slot.lease else ""
    return f"{slot.state} on {slot.channel}{held}"
