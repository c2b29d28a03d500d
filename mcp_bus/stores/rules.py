"""The rules of channels: `channel.json`, and what makes a directory a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import names, policies, wire
from mcp_bus.errors import CorruptRecord, NotFound, Unreadable, Unverified
from mcp_bus.stores.layout import once

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Policy
    from mcp_bus.stores.tree import Tree

# A policy is read at most once in so many seconds.
FRESH_S = 1.0
TO_LOOK = "put the file right, or remove it, and the defaults hold; `mcp-bus fsck` looks at every file"


class Rules:
    """The policies of one bus directory."""

    def __init__(self, tree: Tree, source: Source) -> None:
        """Read and write below `tree`."""
        self._tree = tree
        self._source = source
        self._known: dict[str, tuple[float, Policy]] = {}
        # Turns what the file says into what holds.
        self.holds: Callable[[str, Policy], Policy] = lambda _, policy: policy

    def policy(self, channel: str) -> Policy:
        """See `Store.policy`.  Read at most once a second."""
        now, tree = self._source.monotonic(), self._tree
        known = self._known.get(channel)
        if known and now - known[0] < FRESH_S:
            return known[1]
        names.check_place(channel)
        with tree.words():
            if tree.live(f"channels/{channel}/requests") is None:
                tree.fd("tasks")
                msg = f"there is no channel {channel!r}"
                raise NotFound(msg, hint="the first post makes a queue of that name, `mcp-bus subscribe` a topic")
            try:
                found = tree.fs.read("channel.json", tree.fd(f"channels/{channel}"), 65536)
                policy = policies.load(found.data, channel)
            except FileNotFoundError:
                policy = policies.make({})
            except Unreadable:
                raise
            except CorruptRecord as error:
                what = f"the rules of {channel!r}, 'channels/{channel}/channel.json', cannot be read: {error}"
                raise CorruptRecord(what, hint=TO_LOOK) from None
        policy = self.holds(channel, policy)
        self._known[channel] = (now, policy)
        return policy

    def limits(self, channel: str) -> bool:
        """Tell whether a channel does not let everyone post."""
        try:
            return bool(self.policy(channel).post_by)
        except (CorruptRecord, NotFound):
            return False

    def admit(self, body: Body) -> None:
        """Refuse what its sender may not post there (rule B6): it came past the check, by hand.

        Raises:
            Unverified: on a signed channel, where that is as good as forged.
            CorruptRecord: elsewhere.
        """
        for _ in range(2):  # Nothing is put aside by a rule that was changed a moment ago.
            try:
                policy = self.policy(body.channel)
            except (CorruptRecord, NotFound):
                return  # What cannot be read lets nobody claim, and puts nothing aside.
            if policies.lets(policy.post_by, body.sender.agent):
                return
            self._known.pop(body.channel, None)
        what = f"{body.sender.agent[:160]!r} may not post on {body.channel!r}"
        raise (Unverified if policy.signed else CorruptRecord)(what)

    def declare(self, channel: str, policy: Policy | None, *, is_default: bool, sync: bool) -> None:
        """See `Store.declare`."""
        names.check_place(channel)
        tree, fs = self._tree, self._tree.fs
        with tree.words():
            tree.check()  # Never makes a bus out of nothing, nor writes into one that was renamed away.
            tree.live(f"channels/{channel}")  # What was removed and is open still would be taken for it.
            for part in names.CHANNEL_FOLDERS:
                tree.fd(f"channels/{channel}/{part}", make=True)
            at, tmp = tree.fd(f"channels/{channel}"), tree.fd("tmp", make=True)
            is_default = is_default or policy is None
            if is_default and fs.stat("channel.json", at) is not None:
                return
            draft = f"channel.{self._source.token(6)}"
            data = wire.dumps(policies.fields(policy or policies.make({})))
            fs.create(draft, tmp, data, sync=sync)
            if is_default:  # Never over a policy that someone sets at the same time.
                once(tree, draft, "channel.json", at)
            else:
                fs.rename(draft, tmp, "channel.json", at)
            if sync:
                fs.fsync(at)
        self._known.pop(channel, None)
