"""Signatures beside the tasks of signed channels, each a file of its own.

    signatures/<id>.jws                    of a body, durable before anything names the task
    signatures/<id>.<digest>.jws           of a result with that sha256, durable before it is staged

Written before what they are of, so that nobody ever sees that without its signature; whatever a crash leaves
over is of nothing, and a sweep removes it.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from mcp_bus import cursors, names, wire
from mcp_bus.errors import CorruptRecord, NotFound, Unreadable, Untrusted, Unverified
from mcp_bus.model import DAY, OPEN, Policy, State
from mcp_bus.policies import INBOX
from mcp_bus.stores import foreign, graves, publish
from mcp_bus.stores.base import Claim, Guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Result, Slot, Task
    from mcp_bus.stores.base import Guard, Verdict
    from mcp_bus.stores.tree import Tree

FOLDER = "signatures"
MAX_SEAL = 8192
# A message without an end of its own is not handed out for ever.
LASTING = 366 * DAY
# A signature of nothing is left to whoever is about to post for this long.
ABANDONED = 3_600_000
_NAME = r"(?P<id>req_[0-9a-f]{8,48})(?:\.[0-9a-f]{32})?\.jws\Z"


class Seals:
    """The signatures of one bus directory."""

    def __init__(self, tree: Tree, source: Source, policy: Callable[[str], Policy], guard: Guard | None) -> None:
        """Keep them below `tree`; `policy` says which channels need them, `guard` makes and checks them."""
        self._tree = tree
        self._source = source
        self._policy = policy
        self.guard = guard
        # Channels that are signed no longer, and what is older than that.
        self._past: dict[str, int] = {}
        # To whom channels say that they are encrypted.
        self._said: dict[str, tuple[str, ...]] = {}

    # --- which channels -----------------------------------------------------------------------

    def ruled(self, channel: str, policy: Policy) -> Policy:
        """Return a policy as it holds: what this user remembers as signed and encrypted is, whatever the file says."""
        base = _base(channel)
        above = self._above(base) if base != channel else policy
        is_signed, to = policy.signed or above.signed, policy.encrypt_to or above.encrypt_to
        self._said[channel] = self._said.get(base, to) if base != channel else to
        if self.guard is not None:
            is_signed, self._past[channel] = self.guard.ruled(base, said=is_signed)
            to = self.guard.readers(base, to)
        return policy._replace(signed=is_signed, encrypt_to=to)

    def _above(self, channel: str) -> Policy:
        try:
            return self._policy(channel)
        except NotFound:
            return INBOX

    def guarded(self, channel: str) -> Guarded:
        """See `Store.guarded`."""
        base, doubt = _base(channel), None
        try:
            policy = self._policy(channel)
        except (NotFound, CorruptRecord) as error:  # What is not there says nothing; what is remembered does.
            doubt = error if isinstance(error, CorruptRecord) else None
            self._said.pop(channel, None)
            if base != channel:
                above = self.guarded(base)
                return above._replace(doubt=doubt or above.doubt)
            policy = self.ruled(channel, Policy())
        said, to = self._said.get(channel, ()), policy.encrypt_to
        return Guarded(policy.signed, to, doubt if said in ((), to) else _other(channel, said, to))

    def readers(self, channel: str) -> tuple[str, ...]:
        """Return the agents that what is posted on a channel is encrypted to (rule EN9); none where it is plain text.

        Raises:
            Untrusted: the channel's rule names others than this user remembers.
        """
        known = self.guarded(channel)
        if isinstance(known.doubt, Untrusted):
            raise known.doubt
        return known.to

    def remember(self, channel: str, policy: Policy) -> None:
        """Remember what a policy that is about to be written says: whoever changes the file meanwhile changes nothing.

        Raises:
            Untrusted: this is not the bus that keys were trusted for.
        """
        if self.guard is not None and (policy.signed or policy.encrypt_to):
            names.check_place(channel)  # It is a file's name there, too.
            self.guard.remember(_base(channel), signed=policy.signed, to=policy.encrypt_to)

    def needs(self, channel: str, task_id: str) -> bool:
        """Tell whether a task must be signed: its channel is, or was when the task was made.

        Raises:
            Untrusted: it must, and nobody here knows any key.
        """
        is_signed = self.guarded(channel).signed
        if is_signed and self.guard is None:
            msg = f"{channel!r} is signed, and this program was started without keys"
            raise Untrusted(msg, hint="open the bus with `open_bus`")
        until = self._past.get(channel, 0) or self._past.get(_base(channel), 0)
        return is_signed or bool(until and cursors.time_of(task_id) < until)

    # --- making -------------------------------------------------------------------------------

    def sign_body(self, body: Body, data: bytes) -> bool:
        """Sign a body before it is posted, where it must be; tell whether it was.

        Raises:
            NoKey: its sender has no key here.
        """
        if not self.needs(body.channel, body.id):
            return False
        assert self.guard is not None
        if self._tree.fs.stat(f"{body.id}.json", self._tree.fd("tasks")) is not None:
            return False  # That task is there already, with its own.
        self._write(f"{body.id}.jws", self.guard.seal(claim(body), data))
        return True

    def sign_result(self, slot: Slot, result: Result, data: bytes) -> bool:
        """Sign a result before it is staged, where it must be; tell whether it was.

        A result that is in its place before its task's lease ended, and that nobody signed, is put aside: it is
        not the first one.

        Raises:
            NoKey: its worker has no key here.
        """
        if not self.needs(slot.channel, slot.id):
            return False
        assert self.guard is not None
        self._write(_name(slot.id, data), self.guard.seal(result_claim(slot, result), data))
        held, folder = names.place(slot), self._tree.live(f"channels/{slot.channel}/processing")
        if folder is None or self._tree.fs.stat(held.name, folder) is None:
            return True  # The lease was lost: what is there may be the result of whoever has it.
        try:
            self.response(slot)
        except Unreadable:
            return True
        except CorruptRecord as error:
            there = publish.responses(slot.channel)
            foreign.quarantine(self._tree, there, f"{slot.id}.json", str(error), self._source.now())
        return True

    def _write(self, name: str, seal: bytes) -> None:
        """Write a signature where nobody looks for it yet: what it is of comes after it."""
        at, fs, sync = self._tree.fd(FOLDER, make=True), self._tree.fs, self._tree.sync
        try:
            fs.create(name, at, seal, sync=sync)
        except FileExistsError:
            draft, tmp = f"seal.{self._tree.token(8)}", self._tree.fd("tmp", make=True)
            fs.create(draft, tmp, seal, sync=sync)
            fs.rename(draft, tmp, name, at)
        if sync:
            fs.fsync(at)

    def drop(self, task_id: str) -> None:
        """Remove the signature of a body that was not posted after all."""
        self._tree.drop(FOLDER, f"{task_id}.jws")

    def over(self, slot: Slot) -> None:
        """Remember that a task was finished, where that matters."""
        if self.guard is not None and self.needs(slot.channel, slot.id):
            self.guard.over(slot.id)

    # --- checking -----------------------------------------------------------------------------

    def body(self, body: Body, data: bytes, at: Slot | None = None) -> str:
        """Return whose a body is, as people are told; empty where it need not be signed.

        Args:
            at: where it waits or is worked on: then it must neither have expired nor be over.

        Raises:
            Unverified: it is nobody's, or not for here and now.
        """
        if not self.needs(body.channel, body.id):
            return ""
        verdict = self._checked(claim(body), data, f"{body.id}.jws")
        if at is not None and at.state in OPEN:
            self._check_replay(at)
        if at is not None and at.state is State.READY and 0 < verdict.expires <= self._source.now():
            what = f"its signature was good until {wire.stamp(verdict.expires)}"
            raise Unverified(what)
        return verdict.by

    def _check_replay(self, slot: Slot) -> None:
        assert self.guard is not None
        ended = "finished before" if self.guard.is_over(slot.id) else graves.tombstone(self._tree, slot.id)
        if ended is None:
            try:
                ended = "done before" if self.response(slot) else None
            except CorruptRecord:
                return  # Whoever put that there did not finish it.
        if ended is not None:
            what = f"it is shown again, and was {ended}"
            raise Unverified(what)

    def response(self, slot: Slot) -> str:
        """Return whose the result in its final place is; empty if there is none, or it need not be signed.

        Raises:
            CorruptRecord: there is one that cannot be read, or is nobody's.
        """
        at = self._tree.live(publish.responses(slot.channel))
        try:
            found = None if at is None else self._tree.fs.read(f"{slot.id}.json", at, wire.MAX_FILE)
        except FileNotFoundError:
            return ""
        return self.result(slot, wire.load_result(found.data), found.data) if found is not None else ""

    def result(self, slot: Slot, result: Result, data: bytes) -> str:
        """Return whose a result is, as people are told; empty where it need not be signed.

        Raises:
            Unverified: it is nobody's, or of another task.
        """
        if not self.needs(slot.channel, slot.id):
            return ""
        if result.id != slot.id:
            what = f"it is the result of {result.id!r}"
            raise Unverified(what)
        return self._checked(result_claim(slot, result), data, _name(slot.id, data)).by

    def _checked(self, claim: Claim, data: bytes, name: str) -> Verdict:
        assert self.guard is not None
        try:
            found = self._tree.fs.read(name, self._tree.fd(FOLDER), MAX_SEAL)
        except FileNotFoundError:
            raise Unverified(self._unsigned(name)) from None
        except Unreadable:
            raise
        except CorruptRecord as error:
            what = f"its signature cannot be read: {error}"
            raise Unverified(what) from None
        return self.guard.check(claim, data, found.data)

    def missing(self, task_id: str, result: bytes | None = None) -> str:
        """Return that there is no signature of a body, or of a result, for who has no keys; empty if there is one."""
        name = f"{task_id}.jws" if result is None else _name(task_id, result)
        at = self._tree.live(FOLDER)
        about = None if at is None else self._tree.fs.stat(name, at)
        return "" if about is not None and stat.S_ISREG(about.st_mode) else self._unsigned(name)

    def _unsigned(self, name: str) -> str:
        """Say of what no signature is there; a result's is named after its bytes, so that one of others tells more."""
        task_id, own = name.partition(".")[0], name.count(".") == 1
        others = () if own else self._tree.names(FOLDER)
        if any(other.startswith(f"{task_id}.") and other.count(".") > 1 and re.match(_NAME, other) for other in others):
            return "it is not what was signed: it was altered, or another was put in its place"
        return "it is not signed"

    # --- sweeping -----------------------------------------------------------------------------

    def mend(self, now: int) -> list[str]:
        """Remove signatures of what was never posted, or is pruned."""
        listed = self._tree.names(FOLDER)
        known = frozenset(self._tree.names("tasks")) if listed else frozenset[str]()
        done = list[str]()
        for name in listed:
            match = re.match(_NAME, name)
            about = (
                None if match and f"{match['id']}.json" in known else self._tree.fs.stat(name, self._tree.fd(FOLDER))
            )
            if about is not None and now - int(max(about.st_mtime, about.st_ctime) * 1000) > ABANDONED:
                self._tree.drop(FOLDER, name)
                done.append(f"removed the signature {name!r} of nothing")
        return done


def _base(channel: str) -> str:
    """Return the inbox that has the rule for a session's own; any other channel has its own."""
    return channel.partition("~")[0] if names.is_inbox(channel) else channel


def _other(channel: str, said: tuple[str, ...], to: tuple[str, ...]) -> Untrusted:
    told, known = (", ".join(map(repr, agents)) or "nobody" for agents in (said, to))
    msg = f"{channel!r} says that it is encrypted to {told}, and {known} is remembered here"
    hint = f"if a person changed it: in a terminal, `mcp-bus channel set {_base(channel)} encrypt_to=…`"
    return Untrusted(msg, hint=hint)


def _name(task_id: str, data: bytes) -> str:
    import hashlib  # noqa: PLC0415  loads OpenSSL, which unsigned channels do not need

    return f"{task_id}.{hashlib.sha256(data).hexdigest()[:32]}.jws"


def claim(body: Body) -> Claim:
    """Return what a signature says of a body."""
    agent = body.extra.get("agent")
    to = f"@{agent}" if names.is_inbox(body.channel) and isinstance(agent, str) else body.channel
    expires = body.deadline or max(body.created, body.not_before) + LASTING
    return Claim("body", body.id, body.channel, to, body.sender.agent, body.created, expires)


def result_claim(slot: Slot, result: Result) -> Claim:
    """Return what a signature says of a result."""
    return Claim("result", slot.id, slot.channel, slot.channel, result.sender.agent, result.at)


def is_past(task: Task, now: int) -> bool:
    """Tell whether what a message was signed for is over: then it is not shown as one that waits or is held."""
    return bool(task.verified) and 0 < claim(task.body).expires <= now
