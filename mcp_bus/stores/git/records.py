"""Records of a git bus: a write is pushed, and when one was touched stands in it, for git keeps no times of files."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus.errors import Conflict, StoreUnavailable
from mcp_bus.stores.beside import AT, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp_bus.clock import Source
    from mcp_bus.stores.beside import Records
    from mcp_bus.stores.file import FileStore
    from mcp_bus.stores.git.shared import Shared

# What hooks have told, whom a supervisor keeps alive, what a file here was made of, is of this host: no other needs it.
LOCAL = frozenset({"told", "fleets", "stops", "user-sync.hosts"})
# A touch is pushed if the last one is as old as this: each would be a commit.
TOUCH_MS = 600_000
# Signs of life that were not pushed, of sessions of this host.
ALIVE, AGENTS = "alive", "agents"


class GitRecords:
    """The records of a bus at a remote, and those of this host."""

    def __init__(self, shared: Shared, local: Records, source: Source) -> None:
        """Keep them where `shared` keeps tasks, but for those of this host, which `local` keeps."""
        self._shared, self._local, self._source = shared, local, source

    def _read(self, kind: str, verb: Callable[[Records], Any]) -> Any:  # noqa: ANN401  what the verb returns
        if _is_local(kind):
            return verb(self._local)
        return self._shared.read(lambda bus: verb(bus.records))

    def names(self, kind: str) -> list[str]:
        """See `Records.names`."""
        found: list[str] = self._read(kind, lambda records: records.names(kind))
        return found

    def all(self, kind: str) -> dict[str, Record]:
        """See `Records.all`."""
        found: dict[str, Record] = self._read(kind, lambda records: records.all(kind))
        here = self._local.all(ALIVE) if kind == AGENTS else {}
        return {name: _told(record, here.get(name)) for name, record in found.items()}

    def read(self, kind: str, name: str) -> Record | None:
        """See `Records.read`."""
        found: Record | None = self._read(kind, lambda records: records.read(kind, name))
        return _told(found, self._local.read(ALIVE, name) if kind == AGENTS else None) if found is not None else None

    def write(self, kind: str, name: str, data: Mapping[str, Any], *, after: int, durable: bool) -> int:
        """See `Records.write`."""
        if _is_local(kind):
            return self._local.write(kind, name, data, after=after, durable=durable)
        kept = {**data, AT: self._source.now()}

        def writes(bus: FileStore) -> int:
            return bus.records.write(kind, name, kept, after=after, durable=durable)

        try:
            return self._shared.do(f"{kind}: {name}", writes)
        except StoreUnavailable as error:
            if durable:
                raise
            return self._shared.here(error, writes)  # Who is there is worth no refusal of what is done.

    def touch(self, kind: str, name: str) -> bool:
        """See `Records.touch`: kept on this host, where that is enough, and pushed now and then."""
        if _is_local(kind):
            return self._local.touch(kind, name)
        found: Record | None = self._read(kind, lambda records: records.read(kind, name))
        if found is None:
            return False
        if kind == AGENTS and not self._local.touch(ALIVE, name):
            with suppress(Conflict):  # Of this session nobody else writes; and if so, it is there.
                self._local.write(ALIVE, name, {}, after=0, durable=False)
        known = _told(found)
        if self._source.now() - known.touched >= TOUCH_MS:
            try:
                self.write(kind, name, known.data, after=known.revision, durable=False)
            except Conflict:  # Whoever wrote it meanwhile touched it.
                return self.read(kind, name) is not None
        return True

    def remove(self, kind: str, name: str) -> None:
        """See `Records.remove`."""
        if _is_local(kind):
            self._local.remove(kind, name)
        else:
            if kind == AGENTS:
                self._local.remove(ALIVE, name)
            try:
                self._shared.do(f"{kind}: {name} is forgotten", lambda bus: bus.records.remove(kind, name))
            except StoreUnavailable as error:
                self._shared.here(error, lambda bus: bus.records.remove(kind, name))

    def write_text(self, kind: str, name: str, text: str) -> None:
        """See `Records.write_text`."""
        if _is_local(kind):
            self._local.write_text(kind, name, text)
        else:
            self._shared.do(f"{kind}: {name}.md", lambda bus: bus.records.write_text(kind, name, text))

    def text(self, kind: str, name: str) -> str | None:
        """See `Records.text`."""
        found: str | None = self._read(kind, lambda records: records.text(kind, name))
        return found


def _is_local(kind: str) -> bool:
    return kind.partition("/")[0] in LOCAL


def _told(record: Record, here: Record | None = None) -> Record:
    """Return a record with the time that stands in it, or a later one that was not pushed."""
    at = record.data.get(AT)
    if type(at) is not int:
        return record
    at = max(at, here.touched) if here is not None else at
    return Record(record.revision, {name: value for name, value in record.data.items() if name != AT}, at)
