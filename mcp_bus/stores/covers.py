"""Encrypted bodies and results: covered before they are written, opened where they are read.

    outside    the envelope of a message, which scans, sweeps and plans need; its content is the ciphertext
    inside     a signature, a newline, and the whole message, as it would be kept in plain text

The message inside is signed before it is encrypted, for the bus, channel, recipient and id; so who posts another's
ciphertext anew, as its own or in another place, is found out by whoever opens it, on unsigned channels too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mcp_bus import encrypted, wire
from mcp_bus.errors import CorruptRecord, InvalidRequest, NoKey, StoreUnavailable, Untrusted, Unverified
from mcp_bus.model import MAX_CONTENT, State
from mcp_bus.stores import seals

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Result, Secret, Slot
    from mcp_bus.stores.base import Claim, Guard, Verdict

# What a signature inside an encrypted message says that it is of: never what one beside a file says.
BODY, RESULT = "encrypted-body", "encrypted-result"


Whole = TypeVar("Whole")


class Opened(NamedTuple):
    """What was found inside, and whose it is, as people are told; nobody's where it is not open to this agent."""

    body: Body
    by: str = ""


class Covers:
    """The encryption of one bus directory."""

    def __init__(self, known: seals.Seals, source: Source) -> None:
        """Use the guard of `known`, which also says which channels are encrypted."""
        self._seals = known
        self.source = source

    # --- writing ------------------------------------------------------------------------------

    def body(self, body: Body) -> tuple[Body, Body]:
        """Return a body as its poster knows it and as it is kept; twice itself if it is not to be encrypted.

        Raises:
            NoKey: there is nobody's key to encrypt it to, or none to sign it with.
            Untrusted: to whom the channel is encrypted is in doubt.
            InvalidRequest: encrypted, it is over the limit.
        """
        to = body.encrypted.to if body.encrypted is not None else self._seals.readers(body.channel)
        if not to:
            return body, body
        claim = seals.claim(body)._replace(use=BODY)
        secret = self._addressed(claim, to)
        whole = body._replace(encrypted=secret)
        text = self._covered(claim, wire.dump_body(whole), secret, "body")
        self._remember(body.id)
        return whole, encrypted.body(whole, text)

    def result(self, slot: Slot, result: Result) -> Result:
        """Return a result as it is kept; itself if it is not to be encrypted.

        Raises:
            NoKey, InvalidRequest: as of `body`.
        """
        if result.encrypted is None:
            return result
        claim = seals.result_claim(slot, result)._replace(use=RESULT)
        secret = self._addressed(claim, result.encrypted.to)
        whole = result._replace(encrypted=secret)
        return encrypted.result(whole, self._covered(claim, wire.dump_result(whole), secret, "result"))

    def _addressed(self, claim: Claim, to: tuple[str, ...]) -> Secret:
        guard = self._seals.guard
        if guard is None:
            msg = f"what is posted on {claim.channel!r} is encrypted, and this program was started without keys"
            raise Untrusted(msg, hint="open the bus with `open_bus`")
        return guard.addressed(claim, to)

    def _covered(self, claim: Claim, data: bytes, secret: Secret, what: str) -> str:
        assert self._seals.guard is not None
        text = self._seals.guard.conceal(claim, data, secret.kids)
        if len(text) > MAX_CONTENT:
            msg = f"the {what} has {len(text)} bytes once it is encrypted, the limit is {MAX_CONTENT}"
            raise InvalidRequest(msg, hint="it adds a third and more; put large data in a file and send its path")
        return text

    def _remember(self, task_id: str) -> None:
        """Remember that a task is encrypted, before it is posted or handed out (rule EN11)."""
        assert self._seals.guard is not None
        self._seals.guard.secret(task_id)

    # --- reading ------------------------------------------------------------------------------

    def open(self, kept: Body, at: Slot | None = None) -> Opened:
        """Return what is inside a body (rule EN6), or the body with why this agent does not read it (rule EN7).

        Args:
            at: where it waits: then what it was signed for must not have ended.

        Raises:
            Unverified: it is open to this agent, and not what its sender wrote for here; or it was encrypted, and is
                plain text.
        """
        guard = self._seals.guard
        if kept.encrypted is None:
            if guard is not None and guard.is_secret(kept.id):
                what = "it is plain text now, and was encrypted when it was posted or handed out here"
                raise Unverified(what)
            return Opened(kept)
        found = self._found(seals.claim(kept)._replace(use=BODY), kept.content, kept.encrypted)
        if isinstance(found, str):
            return Opened(encrypted.unread(kept, found))
        data, verdict = found
        whole = _loaded(wire.load_body, data)
        if encrypted.body(whole, kept.content) != kept:
            what = "what is encrypted in it is another message than it is shown as"
            raise Unverified(what)
        if at is not None and at.state is State.READY and 0 < verdict.expires <= self.source.now():
            what = f"its signature was good until {wire.stamp(verdict.expires)}"
            raise Unverified(what)
        if at is not None:
            try:
                self._remember(kept.id)
            except (StoreUnavailable, Untrusted) as error:  # As one who cannot use its keys.
                return Opened(encrypted.unread(kept, f"{encrypted.whom(kept.encrypted)}; {error}"))
        return Opened(whole, verdict.by)

    def open_result(self, slot: Slot, body: Body, kept: Result) -> tuple[Result, str]:
        """Return what is inside a result, as `open` does of a body, and whose it is.

        Args:
            body: of its task: whose result must be encrypted if the task is.

        Raises:
            Unverified: as of `open`.
        """
        if kept.encrypted is None:
            if body.encrypted is not None:
                what = "it is plain text, and its task is encrypted"
                raise Unverified(what)
            return kept, ""
        found = self._found(seals.result_claim(slot, kept)._replace(use=RESULT), kept.content, kept.encrypted)
        if isinstance(found, str):
            return encrypted.unread_result(kept, found), ""
        whole = _loaded(wire.load_result, found[0])
        if encrypted.result(whole, kept.content) != kept:
            what = "what is encrypted in it is another result than it is shown as"
            raise Unverified(what)
        return whole, found[1].by

    def _found(self, claim: Claim, text: str, secret: Secret) -> tuple[bytes, Verdict] | str:
        """Return what this agent's keys open, and whose it is; or why they do not."""
        guard: Guard | None = self._seals.guard
        try:
            found = guard.reveal(claim, text, secret.kids) if guard is not None else None
        except (NoKey, StoreUnavailable, Untrusted) as error:
            # Who cannot use its keys is one who has none: it passes this over, and goes on with what is plain.
            return f"{encrypted.whom(secret)}; {error}"
        return found if found is not None else f"{encrypted.whom(secret)}; this agent has no key for it"


def _loaded(load: Callable[[bytes], Whole], data: bytes) -> Whole:
    try:
        return load(data)
    except CorruptRecord as error:
        what = f"what is encrypted in it is no message: {error}"
        raise Unverified(what) from None
