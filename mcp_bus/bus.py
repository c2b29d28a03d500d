"""The verbs everyone uses, and the one write path.

Server, command line and scripts all come through here: parse at the edge, decide in `lifecycle`,
then one `swap`.  A verb that finds the task moved looks again and decides again; a worker's verb
that finds its lease gone raises `LeaseLost` and changes nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self, Unpack

from mcp_bus import access, children, draft, names, policies, wire
from mcp_bus.errors import DuplicateTask, InvalidRequest
from mcp_bus.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.mail import Mail
    from mcp_bus.model import Identity, Policy, PostOptions
    from mcp_bus.presence import Roster
    from mcp_bus.stores.base import Store


class Posted(NamedTuple):
    """What became of a post: the task's id, and whether it is new (False: the key was used before)."""

    id: str
    channel: str
    created: bool
    new_channel: bool


class Bus(Worker):
    """A bus, as one session of one agent sees it.

    Not for several threads at once; open one per thread.  Every method raises `StoreUnavailable`
    when the medium fails and `InvalidRequest` for arguments that can never work.

    Args:
        tend: called now and then while claiming, so that expired leases and due tasks come back
            without a daemon; `open_bus` passes the sweep.
    """

    def __init__(
        self, store: Store, identity: Identity, source: Source, *, tend: Callable[[Bus], None] | None = None
    ) -> None:
        """See the class."""
        super().__init__(store, identity, source)
        self._tend = tend
        self.since = source.now()

    # A verb of the command line that needs neither of these does not load what they are made of.

    @cached_property
    def roster(self) -> Roster:
        """Who is there, and this session among them."""
        from mcp_bus.presence import Roster  # noqa: PLC0415  as above

        return Roster(self.store, self.identity, self.source)

    @cached_property
    def mail(self) -> Mail:
        """The mailbox of this session, which began when the bus was opened."""
        from mcp_bus.mail import Mail  # noqa: PLC0415  as above

        return Mail(self)

    def close(self) -> None:
        """Close the store.  Leases stay; `release_all` first gives them back at once."""
        self.store.close()

    def __enter__(self) -> Self:
        """Return the bus itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store."""
        self.close()

    def tend(self) -> None:
        """Sweep if the last sweep is long enough ago; waiters call it between looks."""
        if self._tend is not None:
            self._tend(self)

    # --- posting ------------------------------------------------------------------------------

    def post(self, channel: str, body: object, **options: Unpack[PostOptions]) -> Posted:
        """Hand a task to whoever can do it; on disk for good when this returns.

        The channel is made if it is new; on a topic the task is a call for proposals, see `bidding`.
        With a `key`, repeating the call, also after a crash or an error whose outcome is unknown,
        posts nothing a second time.

        Args:
            channel: 1 to 64 of a-z 0-9 . _ -
            body: text, or JSON data, which is stored as its JSON text; at most 256 KiB.
            **options: see `PostOptions`.

        Raises:
            DuplicateTask: the key was used for another body.
            NotAllowed: the channel does not let this agent post.
            NoKey: it is to be signed or encrypted, and a key for that is not here.
            Overloaded: more tasks wait there than the channel's rules allow.
        """
        names.check_channel(channel)
        checked = draft.check(dict(options))
        content = draft.check_content(wire.text_of(body), checked)
        if channel in names.RESERVED:
            msg = f"nobody works on {channel!r}"
            raise InvalidRequest(msg, hint="send a message to it, or name another channel")
        policy = self._policy(channel)
        is_new = policy is None
        if policy is None:
            from mcp_bus import addresses  # noqa: PLC0415  as above

            addresses.check_new(channel, self)
            access.check_keys(self, channel, checked.get("encrypt_to", ()))
            self.store.declare(channel)
            policy = self.store.policy(channel)
        access.check_post(channel, policy, self.identity.agent)
        access.check_kind(checked.get("type", "task"), may_eval=self.may_eval)
        parent = children.parent_of(self, checked["parent"]) if checked.get("parent") else None
        made = draft.body(
            self.ids.next(), channel, content, self.sender(), checked, now=self.source.now(), policy=policy
        )
        if policy.kind == "topic":
            from mcp_bus import bidding  # noqa: PLC0415  as above

            made = bidding.open_call(made, policy)
        if parent is not None:
            made = made._replace(parent=parent.id, depth=parent.body.depth + 1)
            self._check_put(made)  # Before its parent counts on it.
            children.add(self, parent.id, made.id)
        kept = self.put(made)
        if kept.id != made.id and not draft.same(kept, made):
            msg = f"the key {checked.get('key')!r} was used for {kept.id!r}, which has another body"
            raise DuplicateTask(msg, hint="use a new key for new work, or post the same body again")
        if policy.kind == "topic":
            self.mail.topics.wrote(channel, kept.id)
        return Posted(kept.id, channel, created=kept.id == made.id, new_channel=is_new)

    def create_channel(self, channel: str, **settings: object) -> Policy:
        """Make a channel, or change the settings of one; see `Policy` for their names.

        An agent's inbox, as `@name`, has `signed` and `encrypt_to` alone.  The first is switched off by
        `signing.switch.off`, the second changed by `signing.switch.readdress`, and by nothing else.

        Returns:
            The policy that holds now.

        Raises:
            Conflict: it is to be signed, and unsigned tasks wait there; or tasks of who may not post then.
            NotAllowed: its rules say who may, and this agent is not among those.
        """
        if channel.startswith("@") or settings.keys() & {"signed", "encrypt_to"}:
            from mcp_bus.signing import switch  # noqa: PLC0415  as above

            if channel.startswith("@"):
                return switch.inbox(self.store, channel, settings)
            switch.check(self.store, channel, settings)
        known = self._policy(names.check_channel(channel))
        if known is None and channel in names.RESERVED:
            msg = f"the channel {channel!r} makes itself, when the first message comes"
            raise InvalidRequest(msg, hint="choose another name")
        policy = policies.make(settings, known)
        if policy.kind == "inbox" or (known is not None and known.kind != policy.kind):
            msg = f"{channel!r} cannot become a channel of kind {policy.kind!r}"
            raise InvalidRequest(msg, hint="choose 'queue' or 'topic' when a channel is made, and keep it")
        if known is not None:
            access.check_rules(self, channel, known, policy)
        if known is not None and policy.post_by not in ((), known.post_by):
            access.check_senders(self.store, channel, policy.post_by)
        self.store.declare(channel, policy)
        return self.store.policy(channel)
