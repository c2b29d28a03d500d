"""What one host did without the remote, and what of it is on the tree that its processes see until a push takes it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import policies, wire
from mcp_bus.errors import BusError, Gone
from mcp_bus.model import State
from mcp_bus.stores.git.tentative import Tentative
from mcp_bus.stores.git.unsent import Unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Policy, Slot
    from mcp_bus.stores.file import FileStore
    from mcp_bus.stores.git.tentative import Claimed

# Channels that a post made: they come to be with it.
CHANNELS = "unsent.channels"


class _Seen(NamedTuple):
    """What waits, as it was looked at: names of posts, claims by task, channels."""

    posts: list[str]
    claims: dict[str, Claimed]
    channels: list[str]


_NOTHING = _Seen([], {}, [])


class Waiting:
    """Posts, claims and new channels of this host that wait for the remote.

    Attributes:
        lost: tasks that were claimed without the remote, and are somebody else's, as far as this process has seen.
        tentative: the claims.
    """

    def __init__(self, local: FileStore, source: Source) -> None:
        """Keep them in this host's own directory."""
        self._unsent, self.tentative = Unsent(local.tree, source), Tentative(local.records)
        self._records, self._source = local.records, source
        self._looked = _NOTHING
        self._posts, self._claims, self._channels = list[str](), list[str](), list[str]()
        self.lost = list[str]()

    @property
    def posts(self) -> int:
        """How many posts wait."""
        return len(self._unsent.names())

    @property
    def is_shown(self) -> bool:
        """Whether something of it is on the tree."""
        return bool(self._posts or self._claims or self._channels)

    def show(self, files: FileStore, undo: Callable[[], None]) -> None:
        """Put on the tree what waits, unless that is there already.

        Args:
            undo: takes away what was put there before: some of it was sent by another process meanwhile.
        """
        seen = _Seen(self._unsent.names(), self.tentative.all(), self._records.names(CHANNELS))
        now = self._source.now()
        is_over = any(claim.is_over(now) for claim in self._looked.claims.values())
        if seen == self._looked and not is_over:
            return
        if self.is_shown:
            undo()
        for name in seen.channels:
            record = self._records.read(CHANNELS, name)
            with suppress(BusError):
                policy = policies.load(wire.dumps(dict(record.data)), name) if record is not None else None
                files.declare(name, policy, is_default=True)
                self._channels.append(name)
        for name in seen.posts:
            body = self._unsent.read(name)
            with suppress(BusError):  # Its channel is gone: it stays, and is told as not sent.
                if body is not None and (_is_over(body, files) or files.add(body)):
                    self._posts.append(name)
        for name, claim in seen.claims.items():
            if self._is_valid(claim, files):
                self._claims.append(name)
            elif _is_pushed(claim, files):
                self.tentative.drop(name)
            else:
                self.tentative.lose(name, claim)
                self.lost += [name] if name not in self.lost else []
        self._looked = seen._replace(claims={name: seen.claims[name] for name in self._claims})

    def _is_valid(self, claim: Claimed, files: FileStore) -> bool:
        """Claim on the tree what was claimed without the remote; False if it ran out, or somebody else was first."""
        if claim.is_over(self._source.now()):
            return False
        try:
            files.swap(claim.old, claim.new)
        except BusError:
            return False
        return True

    def post(self, body: Body) -> None:
        """Keep a post that is on the tree; on this disk for good when it returns."""
        self._unsent.keep(body)
        names = self._unsent.names()
        self._posts += [name for name in names if name not in self._looked.posts]
        self._looked = self._looked._replace(posts=names)

    def declare(self, channel: str, policy: Policy | None) -> None:
        """Keep that a channel comes to be with what is posted there, which is on the tree."""
        if self._records.read(CHANNELS, channel) is None:
            data = policies.fields(policy or policies.make({}))
            self._records.write(CHANNELS, channel, data, after=0, durable=True)
        self._channels.append(channel)
        self._looked = self._looked._replace(channels=self._records.names(CHANNELS))

    def claim(self, old: Slot, new: Slot) -> None:
        """Keep a claim or its renewal, which is shown next; or that it was given back.

        Raises:
            Conflict: another process of this host was faster.
        """
        if new.state is State.LEASED:
            self.tentative.keep(old, new)
        else:
            self.tentative.drop(old.id)

    def told(self) -> str:
        """Say what is on the tree, and goes to the remote with the next push."""
        counts = {"post": len(self._posts), "claim": len(self._claims)}
        parts = [f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items() if count]
        return f"{' and '.join(parts) or 'nothing'} made while the remote did not answer"

    def sent(self) -> None:
        """Forget what a push has taken."""
        self._unsent.sent(self._posts)
        for name in self._claims:
            self.tentative.sent(name, self._looked.claims[name])
        for name in self._channels:
            self._records.remove(CHANNELS, name)
        self.undone()

    def undone(self) -> None:
        """Note that nothing of it is on the tree any more."""
        self._looked, self._posts, self._claims, self._channels = _NOTHING, [], [], []


def _is_over(body: Body, files: FileStore) -> bool:
    """Tell whether a post got there, though its answer was lost, and was done and pruned since."""
    try:
        files.get(body.id)
    except Gone:
        return True
    return False


def _is_pushed(claim: Claimed, files: FileStore) -> bool:
    """Tell whether a claim is at the remote already: who pushed it was killed before it said so."""
    with suppress(BusError):
        task = files.get(claim.old.id)
        return task is not None and task.slot.lease is not None and task.lease.token == claim.token
    return False
