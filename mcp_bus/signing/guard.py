"""What a store asks about signatures: which channels need them, to make one, and whether one holds."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import InvalidRequest, NoKey, StoreUnavailable, UnknownKey, Untrusted, Unverified
from mcp_bus.model import Secret
from mcp_bus.plain import cut
from mcp_bus.signing.vault import Vault
from mcp_bus.wire import MAX_READERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from mcp_bus.clock import Source
    from mcp_bus.signing.jws import Seal
    from mcp_bus.signing.keys import Key
    from mcp_bus.signing.trust import Pin, Trust
    from mcp_bus.stores.base import Claim

KEYS = "keys"
TRUST = "`mcp-bus key trust AGENT FILE` trusts one, as `mcp-bus key export` prints it there"
LOOK_S = 1.0


class Verdict(NamedTuple):
    """A signature that holds: whose it is, as people are told, and until when it may be handed out (0: for ever)."""

    by: str
    expires: int


class Guard:
    """The keys and the trust of one user, for one bus.

    Until a channel is signed, or was, nothing of this loads more than itself, or looks further than whether
    the user has ever trusted anything.
    """

    def __init__(self, folder: Path, bus: str, root: Path, source: Source, agent: str = "") -> None:
        """Guard the bus that says it is `bus` and is at `root`, with what `folder` knows.

        Args:
            agent: whose keys open what is encrypted; empty for those of all agents of this user.
        """
        self.vault = Vault(folder)
        self._agent = agent
        self._bus = bus
        self._root = root
        self._source = source
        self._trust: Trust | None = None
        # Whether any task is remembered as encrypted, and when that is looked at again while none is.
        self._has_secrets, self._look_at = False, 0.0
        # Agents that were seen to have a key to sign with.
        self._signing = set[str]()

    @property
    def trust(self) -> Trust:
        """Whom the user trusts on this bus."""
        if self._trust is None:
            from mcp_bus.signing.trust import Trust  # noqa: PLC0415  loads what unsigned channels do not need

            self._trust = Trust(self.vault, self._bus, str(self._root.resolve()), self._source.monotonic)
        return self._trust

    # --- channels and tasks -----------------------------------------------------------------------

    def ruled(self, channel: str, *, said: bool) -> tuple[bool, int]:
        """Return whether a channel is signed, and until when it was if it is no longer.

        Args:
            said: whether its policy says so: then that is remembered, and the policy's word no longer needed.
        """
        if not said and not self._trusts():
            return False, 0
        rule = self.trust.rule(channel)
        if said and (rule is None or rule.until):
            with suppress(Untrusted):  # Then it is signed all the same, and nothing on it is believed.
                self.trust.begin(channel, self._source.now())
            return True, 0
        return (not rule.until, rule.until) if rule is not None else (False, 0)

    def remember(self, channel: str, *, signed: bool, to: tuple[str, ...]) -> None:
        """See `stores.base.Guard`."""
        rule = self.trust.rule(channel)
        if signed and (rule is None or rule.until):
            self.trust.begin(channel, self._source.now())
        if to and self.trust.readers(channel) is None:
            self.trust.readdress(channel, to, self._source.now())

    def _trusts(self) -> bool:
        """Tell whether this user has ever trusted anything.

        A home that is none, or is closed to this user, remembers nothing, and must not keep anyone from an unsigned
        channel.  One that a failing disk or a stale mount keeps from being read may remember: nothing is known then.
        """
        try:
            return self.vault.has("trust")
        except (Untrusted, StoreUnavailable):
            try:
                os.lstat(self.vault.root / "trust")
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return False
            except OSError:
                pass
            raise

    def forget(self, channel: str) -> None:
        """Let a channel be unsigned from now on; a person's decision."""
        self.trust.end(channel, self._source.now())

    def is_over(self, task_id: str) -> bool:
        """Tell whether a task was finished here before."""
        return self.trust.is_over(task_id)

    def over(self, task_id: str) -> None:
        """Remember that a task was finished."""
        self.trust.over(task_id, self._source.now())

    def is_secret(self, task_id: str) -> bool:
        """Tell whether a task is remembered as encrypted; looked into only where anything is."""
        now = self._source.monotonic()
        if not self._has_secrets and now >= self._look_at:
            self._has_secrets, self._look_at = self._trusts() and self.trust.has_secrets(), now + LOOK_S
        return self._has_secrets and self.trust.is_secret(task_id)

    def secret(self, task_id: str) -> None:
        """Remember that a task is encrypted."""
        self.trust.secret(task_id, self._source.now())
        self._has_secrets = True

    # --- signing ----------------------------------------------------------------------------------

    def own(self, agent: str = "") -> list[Key]:
        """Return this user's own keys, of one agent or of all, oldest first.

        Raises:
            Untrusted: one of them may be read by others.
        """
        from mcp_bus.signing import jws, keys  # noqa: PLC0415  as above

        found: list[Key] = []
        for name in self.vault.names(KEYS):
            data = self.vault.read(KEYS, name) if name.endswith(".json") else None
            if data is None:
                continue
            try:
                key = keys.Key(data["agent"], data["created"], jws.unb64(data["jwk"]["d"]), keys.public_of(_open(data)))
            except (KeyError, TypeError, ValueError, AttributeError, InvalidRequest):
                key = None
            if key is None or name != f"{key.kid}.json" or type(key.created) is not int:
                msg = f"{str(self.vault.root / KEYS / name)!r} is no key"
                raise Untrusted(msg, hint="remove it; `mcp-bus key new` makes another")
            found.append(key)
        return sorted((key for key in found if agent in ("", key.agent)), key=lambda key: key.created)

    def newest(self, agent: str) -> Key | None:
        """Return the key that an agent signs with, or None: its newest here, unless that was revoked.

        Never an older one then: those who retired it when it was followed would refuse what it signs.
        """
        own = self.own(agent)
        pin = self.trust.key(own[-1].kid) if own else None
        return own[-1] if own and (pin is None or not pin.revoked) else None

    def signs(self, agent: str) -> bool:
        """Tell whether an agent has a key here to sign with; that it has one is asked once."""
        if agent not in self._signing and self.newest(agent) is not None:
            self._signing.add(agent)
        return agent in self._signing

    def make(self, agent: str) -> Key:
        """Make a key for an agent, and keep it; the agent signs with its newest one."""
        from mcp_bus.signing import jws, keys  # noqa: PLC0415  as above

        private, public = jws.new()
        while not keys.kid_of(public)[0].isalnum():  # A name that begins with a dash would be taken for an option.
            private, public = jws.new()
        # A clock that went back must not let an older key be the newest.
        last = max((key.created for key in self.own(agent)), default=0)
        key = keys.Key(agent, max(self._source.now(), last + 1), private, public)
        secret = keys.jwk(public) | {"d": jws.b64(private)}
        self.vault.write(KEYS, f"{key.kid}.json", {"agent": agent, "created": key.created, "jwk": secret}, is_new=True)
        return key

    def seal(self, claim: Claim, data: bytes) -> bytes:
        """Return a signature of some bytes by the newest key of the agent that a claim names.

        Raises:
            NoKey: there is none, or it was revoked.
        """
        from mcp_bus.signing import jws, keys  # noqa: PLC0415  as above

        key = self.signer(claim)
        header = self._said(claim) | {"exp": claim.expires, "iat": claim.at}
        return jws.make(key.private, {"kid": key.kid, "jwk": keys.jwk(key.public), **header}, data)

    def signer(self, claim: Claim) -> Key:
        """Return the newest key of the agent that a claim names, which is trusted then.

        Raises:
            NoKey: there is none, or it was revoked.
        """
        self.trust.check()
        key = self.newest(claim.agent)
        if key is None:
            why = "was revoked" if self.own(claim.agent) else "is not here"
            how = "to be encrypted" if claim.use.startswith("encrypted") else "signed"
            msg = f"what is posted on {claim.channel!r} is {how}, and a key of {claim.agent!r} to sign with {why}"
            raise NoKey(msg, hint=f"`mcp-bus key new {claim.agent!r}` makes one, where that agent runs")
        if self.trust.key(key.kid) is None:  # Who has the private key knows whose it is.
            self.trust.pin(claim.agent, key.public, self._source.now())
        return key

    def _said(self, claim: Claim) -> dict[str, Any]:
        return {"bus": self._bus, "channel": claim.channel, "use": claim.use, "id": claim.id, "to": claim.to}

    # --- encrypting -------------------------------------------------------------------------------

    @property
    def private(self) -> Path:
        """See `stores.base.Guard`."""
        return self.vault.root

    def readers(self, channel: str, said: tuple[str, ...]) -> tuple[str, ...]:
        """See `stores.base.Guard`."""
        if not said and not self._trusts():
            return ()
        known = self.trust.readers(channel)
        if known is None and said:
            with suppress(Untrusted):  # Then it is encrypted all the same, as far as its own word goes.
                self.trust.readdress(channel, said, self._source.now())
        return said if known is None else known

    def readdress(self, channel: str, to: tuple[str, ...]) -> None:
        """See `stores.base.Guard`."""
        self.trust.readdress(channel, to, self._source.now())

    def addressed(self, claim: Claim, to: tuple[str, ...]) -> Secret:
        """See `stores.base.Guard`."""
        own, pins = self.signer(claim).kid, self.trust.keys()
        made = {own: None}
        for agent in dict.fromkeys((*to, claim.agent)):
            good = [kid for kid, pin in pins.items() if pin.agent == agent and not pin.revoked]
            if not good:
                msg = f"no key of {agent!r} is trusted here, so that nothing can be encrypted to it"
                hint = f"`mcp-bus key trust {agent} FILE`, with what `mcp-bus key export` prints there"
                raise NoKey(msg, hint=hint)
            made |= dict.fromkeys(good)
        if len(made) > MAX_READERS:
            msg = f"{len(made)} keys are trusted of those that this is for, and it can be encrypted to {MAX_READERS}"
            raise InvalidRequest(msg, hint="name fewer agents, or revoke keys that are not used any more")
        return Secret(tuple(dict.fromkeys(to)), tuple(sorted(made)))

    def conceal(self, claim: Claim, data: bytes, kids: tuple[str, ...]) -> str:
        """See `stores.base.Guard`."""
        from mcp_bus.signing import age  # noqa: PLC0415  as above

        pins = [self.trust.key(kid) for kid in kids]
        return age.encrypt(self.seal(claim, data) + b"\n" + data, [pin.public for pin in pins if pin is not None])

    def reveal(self, claim: Claim, text: str, kids: tuple[str, ...]) -> tuple[bytes, Verdict] | None:
        """See `stores.base.Guard`."""
        own = [key for key in self.own(self._agent) if key.kid in kids]
        if not own:
            return None
        from mcp_bus.signing import age  # noqa: PLC0415  as above

        seal, _, data = age.decrypt(text, [key.private for key in own]).partition(b"\n")
        return data, self.check(claim, data, seal)

    # --- checking ---------------------------------------------------------------------------------

    def check(self, claim: Claim, data: bytes, found: bytes) -> Verdict:
        """Return whose signature some bytes have.

        Args:
            claim: what they are, whose they say they are, and where they were found.
            found: the signature, as it was found.

        Raises:
            Unverified: it does not hold, or not for this.
            UnknownKey: its key is not the agent's, as far as was said here.
            Untrusted: this is not the bus that keys were trusted for.
        """
        from mcp_bus.signing import jws, keys  # noqa: PLC0415  as above

        self.trust.check()
        seal = jws.read(found)
        for name, wanted in self._said(claim).items():
            if seal.header[name] != wanted:
                what = f"it was signed for the {name} {cut(seal.header[name], 80)!r}, not for {wanted!r}"
                raise Unverified(what)
        kid = seal.header["kid"]
        pin = self.trust.key(kid) or self._first(claim, seal, data)
        if not jws.holds(pin.public, seal, data):
            what = "its signature does not hold: it was altered"
            raise Unverified(what)
        if pin.agent != claim.agent:
            what = f"it is signed by a key of {pin.agent!r}, and says that it is from {cut(claim.agent, 80)!r}"
            raise UnknownKey(what)
        if pin.revoked and seal.header["iat"] >= pin.before:
            what = f"it is signed by the key {keys.short(kid)} of {pin.agent!r}, which was revoked"
            raise Unverified(what)
        return Verdict(f"{pin.agent} ({keys.short(kid)})", seal.header["exp"])

    def _first(self, claim: Claim, seal: Seal, data: bytes) -> Pin:
        """Believe the first key of an agent of which that was asked for, if it signed this.

        Raises:
            Unverified: the key that it names as its own did not, so that it is wrong for everybody.
            UnknownKey: it did, and that was not asked for.
        """
        from mcp_bus.signing import jws, keys  # noqa: PLC0415  as above

        kid = seal.header["kid"]
        try:
            public = keys.public_of(seal.header["jwk"])
        except InvalidRequest:
            public = b""
        if not public or keys.kid_of(public) != kid or not jws.holds(public, seal, data):
            what = "its signature does not hold: it was altered"
            raise Unverified(what)
        if self.trust.is_expected(claim.agent):
            return self.trust.pin(claim.agent, public, self._source.now())
        what = f"it is signed by a key {cut(kid, 8)} that nobody here trusts to be {cut(claim.agent, 80)!r}"
        raise UnknownKey(what, hint=TRUST)


def _open(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data["jwk"].items() if name != "d"}
