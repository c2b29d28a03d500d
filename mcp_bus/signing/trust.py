"""Whom this user trusts on one bus: which key speaks for which agent, which channels are signed, what is over.

    keys/<kid>.json                        a key of this user's own, private
    trust/places/<sha256>.json             which bus is at a place
    trust/<bus>/keys/<kid>.json            a pin: a key and the agent that it speaks for
    trust/<bus>/first/<sha256>.json        an agent whose first key is believed
    trust/<bus>/signed/<channel>.json      a channel that is signed, since when and until when
    trust/<bus>/encrypted/<channel>.json   a channel that is encrypted, and to whom
    trust/<bus>/over/<yyyy-mm>/<id>        a task that was finished here: whoever shows it again replays it
    trust/<bus>/secret/<yyyy-mm>/<id>      a task that was encrypted when it was posted, or handed out, here

None of it is on the bus: whoever may write there must not be able to change whom its readers believe.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import cursors
from mcp_bus.errors import InvalidRequest, NotFound, Untrusted
from mcp_bus.model import DAY, day_of
from mcp_bus.signing import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.signing.vault import Vault

BUS = r"bus_[0-9a-f]{8,64}\Z"
PLACES = "trust/places"
FRESH_S = 1.0
# Ids are remembered for longer than the signature of any message that was ever posted holds.
KEPT = 1200 * DAY


def is_bus(text: str) -> bool:
    """Tell whether a text is the id of a bus."""
    return re.match(BUS, text) is not None


class Pin(NamedTuple):
    """A key that speaks for an agent.

    Attributes:
        since: when that was said.
        revoked: when that was taken back; 0 for never.
        before: what it signed before this time counts all the same.
    """

    agent: str
    public: bytes
    since: int
    revoked: int = 0
    before: int = 0


class Rule(NamedTuple):
    """Since when, and until when, a channel is signed; `until` is 0 while it is."""

    since: int
    until: int


class Trust:
    """What one user's vault says about the bus with an id at a place."""

    def __init__(self, vault: Vault, bus: str, root: str, clock: Callable[[], float]) -> None:
        """Look into `vault`; nothing is read yet.

        Args:
            clock: tells when what was read of the place is a second old, and read again.
        """
        self._vault = vault
        self._clock = clock
        self._place: tuple[float, str, bool] | None = None
        self._root = root
        self._word = hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()
        self._bus = bus if re.match(BUS, bus) else ""

    # --- which bus this is ------------------------------------------------------------------------

    def remembered(self) -> str:
        """Return the id of the bus that was trusted at this place; empty if none was."""
        return self._here()[0]

    def _folder(self, kind: str) -> str:
        """Return where facts of a kind are: of the bus that was at this place when they were written down."""
        return f"trust/{self._here()[0] or self._bus or 'bus_unknown'}/{kind}"

    def _here(self) -> tuple[str, bool]:
        """Return which bus was trusted at this place, if one was, and whether this one was trusted anywhere."""
        now = self._clock()
        if self._place is None or now >= self._place[0] + FRESH_S:
            found = self._vault.read(PLACES, self._word)
            known = self._known(found) if found is not None else ""
            self._place = (now, known, bool(known) or self._vault.has(f"trust/{self._bus}"))
        return self._place[1:]

    def _known(self, found: dict[str, object]) -> str:
        bus = found.get("bus")
        if not isinstance(bus, str) or not re.match(BUS, bus):
            msg = f"what {str(self._vault.root)!r} says about {self._root!r} is damaged"
            raise Untrusted(msg, hint="remove trust/ there, and trust the keys anew")
        return bus

    def check(self) -> None:
        """Make sure that this is the bus that its keys were trusted for.

        Raises:
            Untrusted: it says that it is another one, or is a copy at another place.
        """
        if not self._bus:
            msg = f"the bus {self._root!r} has no id, so that nothing can be signed for it"
            raise Untrusted(msg, hint="make a new bus with `mcp-bus init`")
        known, is_trusted = self._here()
        if known not in ("", self._bus):
            msg = f"bus.json at {self._root!r} says {self._bus!r}, and keys were trusted there for {known!r}"
            raise Untrusted(msg, hint="find out who changed it; `mcp-bus key trust --here` accepts it as it is")
        if not known and is_trusted:
            msg = f"the bus {self._bus!r} was trusted at another place than {self._root!r}: it was moved, or is a copy"
            raise Untrusted(msg, hint="`mcp-bus key trust --here` accepts it here")

    def here(self) -> None:
        """Accept the bus as it is at this place."""
        if not self._bus:
            self.check()
        self._vault.write(PLACES, self._word, {"bus": self._bus, "root": self._root[:4000]})
        self._place = None

    def _begin(self) -> str:
        """Note which bus is here, before the first fact about it is written down; return its folder."""
        self.check()
        if not self._here()[0]:
            self.here()
        return f"trust/{self._bus}"

    # --- keys -------------------------------------------------------------------------------------

    def key(self, kid: str) -> Pin | None:
        """Return the pin of a key, or None if nobody said whose it is."""
        found = self._vault.read(self._folder("keys"), f"{kid}.json") if re.match(keys.KID, kid) else None
        if found is None:
            return None
        agent, jwk, times = found.get("agent"), found.get("jwk"), [found.get(k) for k in ("since", "revoked", "before")]
        try:
            public = keys.public_of(jwk if isinstance(jwk, dict) else {})
        except InvalidRequest:
            public = b""
        if (
            not isinstance(agent, str)
            or not public
            or keys.kid_of(public) != kid
            or any(type(t) is not int for t in times)
        ):
            msg = f"the pin of the key {keys.short(kid)} in {str(self._vault.root)!r} is damaged"
            raise Untrusted(msg, hint="remove it, and trust the key anew")
        return Pin(agent, public, *(t for t in times if isinstance(t, int)))

    def keys(self) -> dict[str, Pin]:
        """Return all pins by thumbprint."""
        names = [name.removesuffix(".json") for name in self._vault.names(self._folder("keys"))]
        return {kid: pin for kid in names if (pin := self.key(kid)) is not None}

    def pin(self, agent: str, public: bytes, now: int) -> Pin:
        """Say that a key speaks for an agent; harmless if that was said before.

        Raises:
            InvalidRequest: it speaks for another agent, or was revoked.
        """
        folder, kid = self._begin(), keys.kid_of(public)
        known = self.key(kid)
        if known is None:
            made = {"agent": agent, "jwk": keys.jwk(public), "since": now, "revoked": 0, "before": 0}
            self._vault.write(f"{folder}/keys", f"{kid}.json", made, is_new=True)
            known = self.key(kid) or Pin(agent, public, now)
        if known.revoked:
            msg = f"the key {keys.short(kid)} was revoked"
            raise InvalidRequest(msg, hint="a revoked key stays revoked: trust a new one")
        if known.agent != agent:
            msg = f"the key {keys.short(kid)} speaks for {known.agent!r} here, and a key speaks for one agent"
            slip = f"if it was trusted under that name by mistake: `mcp-bus key forget {keys.short(kid)}`, then again"
            raise InvalidRequest(msg, hint=f"make one for each; {slip}")
        return known

    def revoke(self, kid: str, now: int, *, before: int = 0) -> Pin:
        """Take back that a key speaks for its agent; what it signed before a time may count all the same.

        Raises:
            NotFound: no such key is pinned.
        """
        folder, pin = self._begin(), self.key(kid)
        if pin is None:
            msg = f"no key {kid[:60]!r} is trusted on this bus"
            raise NotFound(msg, hint="`mcp-bus key list` shows them")
        first = min(before, pin.before) if pin.revoked else before  # Never a later time than was said before.
        made = pin._replace(revoked=pin.revoked or now, before=first)
        data = {"agent": made.agent, "jwk": keys.jwk(made.public), "since": made.since}
        self._vault.write(f"{folder}/keys", f"{kid}.json", data | {"revoked": made.revoked, "before": made.before})
        return made

    def forget(self, kid: str) -> Pin:
        """Let a key be unknown again, as one that was trusted under a wrong name; return what was known of it.

        Raises:
            NotFound: no such key is pinned.
            InvalidRequest: it was revoked, and whoever forgets that may trust it again.
        """
        folder, pin = self._begin(), self.key(kid)
        if pin is None:
            msg = f"no key {kid[:60]!r} is trusted on this bus"
            raise NotFound(msg, hint="`mcp-bus key list` shows them")
        if pin.revoked:
            msg = f"the key {keys.short(kid)} of {pin.agent!r} was revoked, and that is not forgotten"
            raise InvalidRequest(msg, hint="trust a new one")
        self._vault.remove(f"{folder}/keys", f"{kid}.json")
        return pin

    def expect(self, agent: str) -> None:
        """Believe the first key with which a message of an agent is signed.

        Raises:
            InvalidRequest: one is known already, so that none that comes would be the first.
        """
        known = next((kid for kid, pin in self.keys().items() if pin.agent == agent), None)
        if known is not None:
            msg = f"a key of {agent!r} is known here already, {keys.short(known)}"
            raise InvalidRequest(msg, hint="`mcp-bus key list` shows it; another one is trusted by `key trust`")
        self._vault.write(f"{self._begin()}/first", f"{_word(agent)}.json", {"agent": agent})

    def is_expected(self, agent: str) -> bool:
        """Tell whether the first key of an agent is believed: it was asked for, and none was ever pinned."""
        is_asked = self._vault.has(self._folder("first"), f"{_word(agent)}.json")
        return is_asked and all(pin.agent != agent for pin in self.keys().values())

    def expected(self) -> list[str]:
        """Return the agents whose first key is believed once it comes, sorted."""
        folder = self._folder("first")
        found = [data.get("agent") for name in self._vault.names(folder) if (data := self._vault.read(folder, name))]
        return sorted(name for name in found if isinstance(name, str) and self.is_expected(name))

    # --- channels and tasks -----------------------------------------------------------------------

    def rule(self, channel: str) -> Rule | None:
        """Return since when and until when a channel is signed; None if it never was, as far as is remembered."""
        found = self._vault.read(self._folder("signed"), f"{channel}.json")
        if found is None:
            return None
        since, until = found.get("since"), found.get("until")
        if type(since) is not int or type(until) is not int:
            msg = f"what {str(self._vault.root)!r} remembers of the channel {channel!r} is damaged"
            raise Untrusted(msg, hint="correct or remove it")
        return Rule(since, until)

    def begin(self, channel: str, now: int) -> None:
        """Remember that a channel is signed."""
        self._vault.write(f"{self._begin()}/signed", f"{channel}.json", {"since": now, "until": 0})

    def end(self, channel: str, now: int) -> None:
        """Remember that a channel is signed no longer: what is older than this still has to be."""
        rule = self.rule(channel) or Rule(now, 0)
        self._vault.write(f"{self._begin()}/signed", f"{channel}.json", {"since": rule.since, "until": now})

    def readers(self, channel: str) -> tuple[str, ...] | None:
        """Return the agents that a channel is encrypted to; none if no longer, None if it never was."""
        found = self._vault.read(self._folder("encrypted"), f"{channel}.json")
        to = found.get("to") if found is not None else None
        if found is not None and not (isinstance(to, list) and all(isinstance(name, str) for name in to)):
            msg = f"what {str(self._vault.root)!r} remembers of the readers of {channel!r} is damaged"
            raise Untrusted(msg, hint="correct or remove it")
        return tuple(to) if isinstance(to, list) else None

    def readdress(self, channel: str, to: tuple[str, ...], now: int) -> None:
        """Remember to whom a channel is encrypted."""
        self._vault.write(f"{self._begin()}/encrypted", f"{channel}.json", {"to": list(to), "since": now})

    def over(self, task_id: str, now: int) -> None:
        """Remember that a task was finished."""
        self._note("over", task_id, now)

    def is_over(self, task_id: str) -> bool:
        """Tell whether a task was finished here."""
        return self._is_noted("over", task_id)

    def secret(self, task_id: str, now: int) -> None:
        """Remember that a task is encrypted."""
        self._note("secret", task_id, now)

    def is_secret(self, task_id: str) -> bool:
        """Tell whether a task was encrypted here."""
        return self._is_noted("secret", task_id)

    def has_secrets(self) -> bool:
        """Tell whether any task was ever encrypted here."""
        return self._vault.has(self._folder("secret"))

    def _note(self, kind: str, task_id: str, now: int) -> None:
        """Note a fact about a task, and forget those of long ago; that its file is gone is no reason to."""
        folder, month = f"{self._begin()}/{kind}", _month(task_id)
        if not self._vault.has(f"{folder}/{month}"):
            for old in self._vault.names(folder):
                if old < day_of(now - KEPT)[:7]:
                    self._vault.remove(folder, old)
        self._vault.mark(f"{folder}/{month}", task_id)

    def _is_noted(self, kind: str, task_id: str) -> bool:
        return self._vault.has(self._folder(f"{kind}/{_month(task_id)}"), task_id)


def _word(agent: str) -> str:
    return hashlib.sha256(agent.encode(errors="surrogateescape")).hexdigest()


def _month(task_id: str) -> str:
    return day_of(cursors.time_of(task_id))[:7]
