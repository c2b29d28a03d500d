"""What a store is: five verbs over records, and nothing that decides.

The rules every store keeps are in `contract`, a test suite that any store runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mcp_bus.errors import BusError
    from mcp_bus.model import Attempt, Body, Policy, Result, Secret, Slot, State, Task
    from mcp_bus.stores.away import Away
    from mcp_bus.stores.beside import Outputs, Records

T = TypeVar("T")


class Claim(NamedTuple):
    """What a signature says besides the bytes that it is for: what they are, whose, and where they belong.

    Attributes:
        use: `body` or `result`, or either `encrypted-`.
        id, channel: of the task.
        to: whom it is for: the channel, or the agent of an inbox as `@name`.
        agent: who says so; not in the signature itself, which names a key.
        at, expires: when it was signed, by the signer's clock, and until when it is handed out; 0 for ever.
    """

    use: str
    id: str
    channel: str
    to: str
    agent: str
    at: int
    expires: int = 0


class Guarded(NamedTuple):
    """How a channel is guarded.

    Attributes:
        signed: whether what is posted there is signed.
        to: the agents that it is encrypted to; none where it is plain text.
        doubt: why that may be wrong: its rules cannot be read, or name other agents than are remembered.
    """

    signed: bool = False
    to: tuple[str, ...] = ()
    doubt: BusError | None = None


class Verdict(Protocol):
    """A signature that holds: whose it is, as people are told, and until when it may be handed out (0: for ever)."""

    @property
    def by(self) -> str:
        """Whose it is."""
        ...

    @property
    def expires(self) -> int:
        """Until when what it is of may be handed out."""
        ...


class Guard(Protocol):
    """What a store asks about signatures; `signing.guard` has the one there is."""

    def ruled(self, channel: str, *, said: bool) -> tuple[bool, int]:
        """Return whether a channel is signed, and until when it was if it is no longer.

        Args:
            said: whether its policy says so: then that is remembered, and the policy's word no longer needed.
        """
        ...

    @property
    def private(self) -> Path:
        """The folder that nobody but this user can read."""
        ...

    def readers(self, channel: str, said: tuple[str, ...]) -> tuple[str, ...]:
        """Return the agents that a channel is encrypted to, as far as is remembered.

        Args:
            said: whom its policy names: that is remembered if nothing is yet.
        """
        ...

    def remember(self, channel: str, *, signed: bool, to: tuple[str, ...]) -> None:
        """Remember what a channel is about to be, before anyone can read it there.

        Args:
            to: whom it is encrypted to: what is remembered of that already stays.

        Raises:
            Untrusted: this is not the bus that keys were trusted for.
        """
        ...

    def readdress(self, channel: str, to: tuple[str, ...]) -> None:
        """Let a channel be encrypted to other agents, or to none, from now on; a person's decision."""
        ...

    def addressed(self, claim: Claim, to: tuple[str, ...]) -> Secret:
        """Return with which keys something is encrypted that a claim's agent writes to some others (rule EN5).

        Raises:
            NoKey: one of them, or the agent itself, has no key that is trusted here.
        """
        ...

    def conceal(self, claim: Claim, data: bytes, kids: tuple[str, ...]) -> str:
        """Return some bytes signed and then encrypted, as text.

        Raises:
            NoKey: what that needs is not installed.
        """
        ...

    def reveal(self, claim: Claim, text: str, kids: tuple[str, ...]) -> tuple[bytes, Verdict] | None:
        """Return what `conceal` was given, and whose it is; None if no key of this agent's is among those named.

        Raises:
            Unverified: it is nobody's, was altered, or is not for this.
            NoKey, StoreUnavailable, Untrusted: keys cannot be used here.
        """
        ...

    def forget(self, channel: str) -> None:
        """Let a channel be unsigned from now on; a person's decision."""
        ...

    def signs(self, agent: str) -> bool:
        """Tell whether there is a key of an agent to sign with."""
        ...

    def seal(self, claim: Claim, data: bytes) -> bytes:
        """Return a signature of some bytes by the newest key of the agent that a claim names.

        Raises:
            NoKey: there is none.
        """
        ...

    def check(self, claim: Claim, data: bytes, found: bytes) -> Verdict:
        """Return whose signature some bytes have.

        Raises:
            Unverified: it does not hold, or not for this.
            Untrusted: the private folder, or the bus, is not what it was.
        """
        ...

    def is_over(self, task_id: str) -> bool:
        """Tell whether a task was finished here before."""
        ...

    def over(self, task_id: str) -> None:
        """Remember that a task was finished."""
        ...

    def is_secret(self, task_id: str) -> bool:
        """Tell whether a task is remembered as encrypted."""
        ...

    def secret(self, task_id: str) -> None:
        """Remember that a task is encrypted."""
        ...


class Store(Protocol):
    """Keeps tasks, channels and records.

    The five verbs are `add`, `get`, `scan`, `swap` and `changes`; the rest keeps the channels'
    policies and repairs what a crash cut off.  A store is used by one thread at a time; any number
    of stores, in any number of processes, may share a medium.
    """

    @property
    def records(self) -> Records:
        """The small documents beside the tasks."""
        ...

    @property
    def outputs(self) -> Outputs:
        """The results as text for people."""
        ...

    @property
    def guard(self) -> Guard | None:
        """Who makes and checks signatures; None where there are none."""
        ...

    @property
    def durable(self) -> bool:
        """Whether `add` and `swap` return only once the medium has it for good."""
        ...

    @property
    def away(self) -> Away | None:
        """Where else the bus is; None where what is read is all there is."""
        ...

    @property
    def leeway(self) -> int:
        """How long after its end a lease is respected, in milliseconds: others may hear late of its renewal."""
        ...

    @property
    def silence(self) -> int:
        """How long a sign of life from another host may take to be seen here, in milliseconds."""
        ...

    @property
    def part(self) -> str:
        """What tells this host's part of a bus from those of others of its name; empty where there are no parts."""
        ...

    def together(self, told: Callable[[T], str], work: Callable[[], T]) -> T:
        """Do several verbs; where what is changed has to travel, it does so at once.

        Args:
            told: says in words that a person reads what was done, from what `work` returned.
            work: calls verbs of this store, and is called again if others were faster: harmless to do twice.
                No verb in it is acknowledged before this returns.

        Raises:
            BusError: whatever `work` raises; where what is changed has to travel, nothing was changed then.
        """
        ...

    def add(self, body: Body) -> Body:
        """Keep a new task in the slot `lifecycle.first` gives it.

        Returns:
            The body itself, or the one kept earlier under the same id or key, unchanged.

        Raises:
            NotFound: its channel was not declared.
        """
        ...

    def has_key(self, key: str) -> bool:
        """Tell whether `Body.key` names a task that was posted, or is being posted."""
        ...

    def get(self, task_id: str, at: Slot | None = None, *, near: Slot | None = None) -> Task | None:
        """Return a task, or None when there was never one of that id.

        Args:
            at: a slot that `scan` gave: read just the body there, and no result or history.
            near: a slot that `scan` gave: look there first, which spares a search through listings.

        Raises:
            Gone: it was pruned.
            Conflict: it is not at `at` any more.
            CorruptRecord: what is kept under that id is not a task.
            Unverified: at `at`, on a signed channel: it has no signature that holds, and was put aside.
        """
        ...

    def scan(self, channel: str, state: State, *, after: str = "", limit: int = 0) -> Iterator[Slot]:
        """List the slots of one state: waiting ones in claim order, others by id.

        A hint about where to try, never a lock and never a proof of absence.

        Args:
            after, limit: only ids greater than this one, and at most so many; 0 for all.
        """
        ...

    def swap(self, old: Slot, new: Slot | None, entry: Attempt | Result | None = None) -> None:
        """Move a task from one slot to another, if it is still there.

        Args:
            new: None forgets the task, with its output, and leaves a tombstone.
            entry: what goes with the move: the result (to done), else a line of history.

        Raises:
            Conflict: the task is not at `old` any more; nothing was changed, and a result that came
                too late is kept aside for a person.
        """
        ...

    def changes(self, channels: Sequence[str]) -> object:
        """Return a value that is equal to an earlier one only while nothing moved in the channels."""
        ...

    def paths(self, channels: Sequence[str]) -> list[Path]:
        """Return the directories whose entries change when a task of the channels moves; may be empty."""
        ...

    def channels(self) -> list[str]:
        """Return the names of all channels, sorted."""
        ...

    def policy(self, channel: str) -> Policy:
        """Return a channel's policy.

        Raises:
            NotFound: there is no such channel.
        """
        ...

    def guarded(self, channel: str) -> Guarded:
        """Return whether a channel is signed and to whom it is encrypted, by what this user remembers first.

        The one place that says so: also where the channel's file or folder is gone, was swapped, or cannot be read.
        """
        ...

    def declare(self, channel: str, policy: Policy | None = None, *, is_default: bool = False) -> None:
        """Make a channel, or give an existing one another policy.

        Args:
            policy: None leaves the policy of an existing channel as it is.
            is_default: so does this; the policy is for a channel that is new.
        """
        ...

    def count(self, channel: str) -> dict[State, int]:
        """Return how many tasks of a channel are in each state, as far as a listing can tell."""
        ...

    def strangers(self, channel: str) -> list[str]:
        """Return the paths of what lies among the tasks of a channel that have not ended well, and is none."""
        ...

    def ids(self) -> list[str]:
        """Return the ids of all tasks that were not pruned, in no order."""
        ...

    def mend(self, now: int) -> list[str]:
        """Finish or undo what a crash cut off, put foreign bytes aside; say what was done.

        Safe at any time, by many at once, and safe to kill.
        """
        ...

    def write_manifest(self, data: bytes) -> None:
        """Replace the derived index for people, and note that a thorough sweep was made."""
        ...

    def manifest_age(self, now: int) -> int:
        """Return how long ago the index was written, in milliseconds; very long if it is missing."""
        ...

    def close(self) -> None:
        """Give back descriptors; the tasks stay."""
        ...
