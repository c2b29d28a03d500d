"""Who is there: sessions say so, and whoever asks judges for himself whether it is still true."""

# Annotations are values here, see `model`.
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.clock import Source
from mcp_bus.errors import Conflict
from mcp_bus.identity import process
from mcp_bus.model import DAY, Identity
from mcp_bus.names import holder
from mcp_bus.stores.beside import Record

if TYPE_CHECKING:
    from mcp_bus.stores.base import Store

KIND = "agents"
# A session says that it is there this often, and counts as gone when it was silent for three times as long.
BEAT_S = 15.0
SILENT = 45_000
# Sessions that are over are remembered this long, and the last of an agent longer, so that mail to it waits.
REMEMBERED = DAY // 24
KNOWN = 30 * DAY
SILENCE = "it gave no sign of life for too long"
# Numbers in a record are times in milliseconds, or smaller.
MOST = 10**15


class Presence(NamedTuple):
    """One session of an agent, as it said it is there.

    Attributes:
        host, boot, pid, started: which process it is: this machine since it was started, and the process's own
            start by the kernel's clock, for pids come back; `started` is 0 where it cannot be told.
        serves: the channels it takes work from; empty for all that there are, or none.
        since: when it came.
        ended: when it went, by its own word; 0 while it is there.
        beat: the last sign of life.
        part: of a bus at a remote, its host's part of that: names of hosts may be the same.
    """

    agent: str
    session: str
    holder: str
    client: str = ""
    capabilities: tuple[str, ...] = ()
    host: str = ""
    boot: str = ""
    pid: int = 0
    started: int = 0
    pwd: str = ""
    since: int = 0
    ended: int = 0
    beat: int = 0
    serves: tuple[str, ...] = ()
    part: str = ""


class Seen(NamedTuple):
    """A session as one observer sees it now.

    Attributes:
        why: why it does not count as live; empty if it does.
        is_here: whether it is silent, though its process runs on this machine.
    """

    presence: Presence
    why: str
    is_here: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it is there, as far as can be told."""
        return not self.why

    @property
    def is_over(self) -> bool:
        """Whether it is certain that it is not, for silence may end."""
        return bool(self.why) and self.why != SILENCE


class Roster:
    """The sessions on a bus, and this one among them."""

    def __init__(self, store: "Store", identity: Identity, source: Source) -> None:
        """Speak of `identity`; nothing is written until it arrives."""
        self._store, self._records = store, store.records
        self._identity = identity
        self._source = source
        self._here: Presence | None = None

    def arrive(self, capabilities: Sequence[str] = (), serves: Sequence[str] = ()) -> Presence:
        """Say that this session is there; `beat` keeps that true, `leave` ends it.

        Args:
            capabilities: what it can do.
            serves: the channels it takes work from.
        """
        who, pid = self._identity, self._identity.pid
        self._here = Presence(
            who.agent,
            who.session,
            who.holder,
            who.client,
            tuple(capabilities),
            host=process.host(),
            boot=process.boot_id(),
            pid=pid,
            started=process.started(pid),
            pwd=who.pwd,
            since=self._source.now(),
            serves=tuple(serves),
            part=self._store.part,
        )
        self._write(self._here)
        return self._here

    def beat(self) -> None:
        """Say that this session is still there, if it ever arrived."""
        if self._here is not None and not self._records.touch(KIND, self._here.holder):
            self._write(self._here)  # Somebody tidied it away.

    def leave(self) -> None:
        """Say that this session ends, if it ever arrived."""
        here, self._here = self._here, None
        if here is not None:
            self._write(here._replace(ended=self._source.now()))

    def _write(self, here: Presence) -> None:
        for _ in range(3):
            known = self._records.read(KIND, here.holder)
            try:
                self._records.write(
                    KIND, here.holder, _fields(here), after=known.revision if known else 0, durable=False
                )
            except Conflict:
                continue
            return

    def all(self) -> list[Seen]:
        """Return every session that is remembered, the latest sign of life first."""
        now, here = self._source.now(), (self._store.part, process.host())
        found = []
        for name, record in self._records.all(KIND).items():
            presence = _load(record)
            if presence is not None and presence.holder == name == holder(presence.agent, presence.session):
                is_here = here == (presence.part, presence.host)
                why = _why(presence, now, is_here=is_here, silence=self._store.silence)
                found.append(Seen(presence, why, is_here=is_here and why == SILENCE))
        return sorted(found, key=lambda seen: -seen.presence.beat)

    def forget(self) -> list[str]:
        """Remove sessions that are long over; return their names.  The last of an agent is kept longer."""
        now, kept, gone = self._source.now(), set[str](), []
        for seen in self.all():
            agent, age = seen.presence.agent, abs(now - seen.presence.beat)
            is_last = agent not in kept
            kept.add(agent)
            if not seen.is_live and age > (KNOWN if is_last else REMEMBERED):
                self._records.remove(KIND, seen.presence.holder)
                gone.append(seen.presence.holder)
        return gone


def _why(presence: Presence, now: int, *, is_here: bool, silence: int) -> str:
    """Say why a session does not count as live: only what can be shown.

    Args:
        is_here: whether its process is, or was, one of this machine.
        silence: how long its signs of life may take from another one, in milliseconds.
    """
    if presence.ended:
        return "its session has ended"
    if is_here:
        if presence.boot != process.boot_id():
            return "the machine was started anew"
        if not process.is_running(presence.pid, presence.started):
            return "its process has ended"
    return SILENCE if abs(now - presence.beat) > SILENT + (0 if is_here else silence) else ""


def _fields(presence: Presence) -> dict[str, Any]:
    made = presence._asdict()
    del made["beat"]  # When the record was last touched.
    return made | {"capabilities": list(presence.capabilities), "serves": list(presence.serves)}


def _load(record: Record) -> Presence | None:
    """Read a record; None if it is none: anything may lie in the folder, and nobody depends on it."""
    data: Mapping[str, Any] = record.data
    made: dict[str, Any] = {}
    for name, default in Presence._field_defaults.items() | {("agent", ""), ("session", ""), ("holder", "")}:
        value = data.get(name, default)
        if isinstance(default, tuple):
            value = tuple(str(word) for word in value) if isinstance(value, list) else ()
        if type(value) is not type(default) or (isinstance(value, int) and not 0 <= value < MOST):
            return None
        made[name] = value
    return Presence(**made | {"beat": record.touched}) if made["agent"] and made["holder"] else None
