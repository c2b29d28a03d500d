"""Whom a message is for: an agent, one session of it, a topic, a channel, everyone, or the human."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import find, names
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.names import BROADCAST, HUMAN, RESERVED
from mcp_bus.plain import near
from mcp_bus.presence import Roster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.operate import Operator
    from mcp_bus.presence import Seen
    from mcp_bus.stores.base import Store


class Address(NamedTuple):
    """Where a message goes.

    Attributes:
        kind: `agent`, `session`, `topic` or `channel`.
        channel: the channel it is put into; of an agent, its inbox.
        agent: the agent's name, for an agent or a session.
        session: the session, for one.
    """

    kind: str
    channel: str
    agent: str = ""
    session: str = ""


def resolve(to: object, seen: Sequence[Seen], store: Store) -> Address:
    """Return whom a name is for.

    `@name` is always an agent, also one that was never here; `#name` is always a channel or topic.
    A plain name must be known, so that a slip does not become a message that nobody reads.

    Args:
        seen: the sessions that are remembered.

    Raises:
        NotFound: nobody has that name; the hint says who has a similar one.
        InvalidRequest: it is no name, or stands for an agent and a channel.
    """
    if not isinstance(to, str) or not to or len(to) > 200 or not to.isprintable() or not to.lstrip("@").strip():
        msg = f"{str(to)[:60]!r} is not a recipient"
        raise InvalidRequest(msg, hint="name an agent, a channel, a topic, 'broadcast' or 'human'")
    if to[to.startswith(("@", "#")) :] == BROADCAST:
        return Address("topic", BROADCAST)
    if to in (HUMAN, f"#{HUMAN}"):
        return Address("agent", names.inbox(HUMAN), HUMAN)  # Whatever channel is called so.
    if to.startswith("#"):
        return _channel(names.check_channel(to[1:]), store)
    agent = _agent(to.removeprefix("@"), seen, store, is_said=to.startswith("@"))
    if to.startswith("@") and agent is not None:
        return agent
    channel = _channel(to, store) if names.CHANNEL.match(to) and to in store.channels() else None
    if agent and channel:
        msg = f"{to!r} is an agent and a {channel.kind}"
        raise InvalidRequest(msg, hint=f"write '@{to}' for the agent, '#{to}' for the {channel.kind}")
    found = agent or channel
    if found is None:
        raise _unknown(to, seen, store)
    return found


def check_new(channel: str, bus: Operator) -> None:
    """Refuse to make a channel that would be taken for an agent, and the agent for it.

    Raises:
        InvalidRequest: the human, or an agent that was here, is called so.
    """
    agents = {HUMAN, *(seen.presence.agent for seen in Roster(bus.store, bus.identity, bus.source).all())}
    if channel in agents:
        msg = f"{channel!r} is an agent, and a channel of that name would be taken for it"
        raise InvalidRequest(msg, hint="send it a message, or choose another name for the channel")


def _agent(name: str, seen: Sequence[Seen], store: Store, *, is_said: bool) -> Address | None:
    for session in seen:
        here = session.presence
        if name in (here.holder, f"{here.agent}~{here.session}"):
            if here.ended:
                msg = f"the session {name!r} has ended"
                raise NotFound(msg, hint=f"send to {here.agent!r}, whose next session will read it")
            return Address("session", names.inbox(here.agent, here.session), here.agent, here.session)
    owner, _, ending = name.rpartition("~")
    if ending and any(item.presence.agent == owner for item in seen):
        msg = f"{owner!r} has no session {ending!r}"
        raise NotFound(msg, hint=f"send to {owner!r}, which any session of it reads")
    if is_said and ("~" in name or name[:1] in ("@", "#")):
        msg = f"no agent can be called {name!r}"
        raise InvalidRequest(msg, hint="an agent's name has no ~, and does not begin with @ or #")
    inbox = names.inbox(name)
    is_known = name == HUMAN or any(session.presence.agent == name for session in seen) or inbox in store.channels()
    return Address("agent", inbox, name) if is_known or is_said else None


def _channel(name: str, store: Store) -> Address:
    """Return a channel or topic that there is.

    Raises:
        NotFound: there is none of that name.
    """
    kind = store.policy(name).kind
    return Address("topic" if kind == "topic" else "channel", name)


def _unknown(to: str, seen: Sequence[Seen], store: Store) -> NotFound:
    if to == "-":
        return NotFound("'-' stands for nobody here", hint="with reply_to it is the sender of that message")
    # Who is there first, for the list is cut.
    agents = sorted((not session.is_live, session.presence.agent) for session in seen)
    known = list(dict.fromkeys([*(agent for _, agent in agents), *find.public(store), *RESERVED]))
    close, more = near(to, known), f" and {len(known) - 12} more" if len(known) > 12 else ""
    listed = f"known: {', '.join(map(repr, known[:12]))}{more}"
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else listed
    return NotFound(f"nobody is called {to!r}", hint=f"{hint}; '@{to}' leaves a message for an agent not yet seen")
