"""The nouns: values that never change, which every layer passes around.

Named tuples, not frozen dataclasses (docs/decisions/0006): a verb of the command line lives for some
tens of milliseconds, of which making the classes would take a fifth.

All times are integers, milliseconds since the epoch, and end in no suffix; durations in seconds
end in `_s`.  Nothing here reads a clock, a file or a random number.
"""

# Annotations are values here, not texts as elsewhere: of a text, the making of a named tuple compiles each.
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from mcp_bus.errors import InvalidRequest

NOTHING: Mapping[str, Any] = MappingProxyType({})
DAY = 86_400_000
# Kinds of records, see `stores.base`, that are looked for where plans are not loaded.
PLANS, PROGRESS = "plans", "progress"
MAX_CONTENT = 256 * 1024
PRIORITIES = range(-9, 10)


class State(StrEnum):
    """Where a task is in its life; each state is a folder of its channel."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


WAITING = (State.READY, State.SCHEDULED)
OPEN = (State.READY, State.SCHEDULED, State.LEASED)
ENDED = (State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED)
ARCHIVED = (State.DONE, State.CANCELLED, State.EXPIRED)


class Outcome(StrEnum):
    """How one attempt at a task ended, or what a person did to the task."""

    FAILED = "failed"
    LAPSED = "lapsed"
    BLOCKED = "blocked"
    RELEASED = "released"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"
    RETRIED = "retried"
    UNDONE = "undone"
    EXPIRED = "expired"
    PROGRESS = "progress"
    OFFERED = "offered"
    ACKED = "acked"
    SUPERSEDED = "superseded"
    UNDELIVERABLE = "undeliverable"


class Sender(NamedTuple):
    """Who wrote a message: `agent` is a name, `pid` and `pwd` say where it ran."""

    agent: str
    pid: int = 0
    pwd: str = ""


class Secret(NamedTuple):
    """To whom a body or result is encrypted: agents, and those keys, of theirs and of the writer, that open it.

    `why` says why what it says is not here: for lack of a key, mostly; empty where it is here.
    """

    to: tuple[str, ...]
    kids: tuple[str, ...] = ()
    why: str = ""


class Body(NamedTuple):
    """What was posted.  Written once, never changed.

    Attributes:
        content: text; a JSON value posted as data is stored as its JSON text.
        created: when the sender posted it, by the sender's clock.
        not_before: earliest time it may be claimed; 0 for at once.
        deadline: when it expires unclaimed; 0 for never.
        max_attempts, backoff_s: None leaves them to the channel's policy.
        requires: capabilities a worker must have, sorted.
        key: sha256 of sender and idempotency key, in hex; empty without one.
        retry_of: the dead task this one replaces, when it was edited.
        supersedes: an earlier message of the same sender that this one makes void.
        hops: answers to answers that led to this message.
        plan, node: the plan and the step of it that this task is; empty for none.
        inputs: what the steps before it brought, see `conductor`.
        parent: the task whose worker posted it; empty for none.
        depth: how many tasks and plans it is nested in.
        result_schema, claims: the contract its result must meet, see `contracts`.
        ttl: seconds after which abq's `gc` may put it aside while it waits; 0 for never.  It ends nothing by itself.
        encrypted: to whom, if it is encrypted where it is kept; here it is opened, as far as its `why` is empty.
        extra: fields under `bus` that this version does not know, kept as they were.
    """

    id: str
    channel: str
    content: str
    sender: Sender
    created: int
    type: str = "task"
    reply_to: str = ""
    title: str = ""
    thread: str = ""
    priority: int = 0
    not_before: int = 0
    deadline: int = 0
    max_attempts: int | None = None
    backoff_s: float | None = None
    requires: tuple[str, ...] = ()
    key: str = ""
    retry_of: str = ""
    supersedes: str = ""
    hops: int = 0
    plan: str = ""
    node: str = ""
    parent: str = ""
    depth: int = 0
    inputs: tuple[Mapping[str, Any], ...] = ()
    result_schema: Mapping[str, Any] | None = None
    claims: bool = False
    ttl: int = 0
    encrypted: Secret | None = None
    extra: Mapping[str, Any] = NOTHING

    @property
    def has_contract(self) -> bool:
        """Whether its result has to meet something; a step of a plan always has."""
        return self.result_schema is not None or self.claims or bool(self.plan)


class Lease(NamedTuple):
    """A claim on a task: `token` proves it, `expires` ends it unless renewed."""

    holder: str
    token: str
    expires: int


class Slot(NamedTuple):
    """Where a task is: everything that changes, and nothing else.

    For files a slot is exactly one path, so two slots are equal when their paths are.

    Attributes:
        attempt: hand-overs so far; the current one counts from the moment it is claimed.
        budget: attempts allowed, when a retry raised it above what the body says; else 0.
        releases: hand-backs that did not cost an attempt.
        deadline: when it expires unclaimed; 0 for never.
        not_before: when it becomes ready (only while scheduled).
        lease: who holds it (only while leased); kept, without an expiry, in the done name.
        day: the archive folder, `yyyy-mm-dd` (only for done, cancelled and expired).
        discarded: cancelled out of the dead letter, so undo puts it back there.
    """

    id: str
    channel: str
    state: State
    priority: int = 0
    attempt: int = 0
    budget: int = 0
    releases: int = 0
    deadline: int = 0
    not_before: int = 0
    lease: Lease | None = None
    day: str = ""
    discarded: bool = False


class Attempt(NamedTuple):
    """One line of a task's history: what ended an attempt, who said so, and why.

    `successor` is the id of the edited task that took this one's place, if one did.
    """

    attempt: int
    outcome: Outcome
    at: int
    by: str
    note: str = ""
    token: str = ""
    successor: str = ""


class Artifact(NamedTuple):
    """A file that a result names, as it was when that was submitted: absolute path, bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


class Result(NamedTuple):
    """What a worker answered.  The first published result of a task is final.

    `token` is the one of the lease it was made under, so that a worker that repeats itself after a
    lost answer is recognised; `place` is the path of the done task in its channel; `usage` is what it took by the
    worker's own word, such as `input_tokens`, `output_tokens` and `cost_usd`.
    """

    id: str
    content: str
    sender: Sender
    at: int
    attempt: int = 0
    status: str = "success"
    error: str = ""
    token: str = ""
    place: str = ""
    artifacts: tuple[Artifact, ...] = ()
    usage: Mapping[str, float] = NOTHING
    encrypted: Secret | None = None


class Ticket(NamedTuple):
    """The right to write to a task: its id and the token of a lease on it."""

    id: str
    token: str


class Proof(NamedTuple):
    """What signatures show on a signed channel: whose `body` and `result` are, as `ann (kP3x9Q2a)`, or the doubt."""

    body: str = ""
    result: str = ""
    doubt: str = ""
    broken: str = ""  # What is in doubt of the body: nobody acts on what it says.
    hint: str = ""  # What would lift the doubt, where only its key is not known here.


class Task(NamedTuple):
    """A task as one reader saw it: body, place, and, once ended, result and history; on a signed channel, proof.

    `hidden` says why its text, result and notes are not shown to this reader; empty if they are.
    """

    body: Body
    slot: Slot
    result: Result | None = None
    history: tuple[Attempt, ...] = ()
    proof: Proof | None = None
    hidden: str = ""

    @property
    def id(self) -> str:
        """The full id, `req_…`."""
        return self.body.id

    @property
    def channel(self) -> str:
        """The channel it was posted on."""
        return self.slot.channel

    @property
    def state(self) -> State:
        """The state it was seen in."""
        return self.slot.state

    @property
    def verified(self) -> str:
        """Whose signature its body has; empty on channels that are not signed."""
        return self.proof.body if self.proof is not None else ""

    @property
    def doubt(self) -> str:
        """Why its body or its result is not verified, where it should be; empty if it is."""
        return self.proof.doubt if self.proof is not None else ""

    @property
    def ticket(self) -> Ticket:
        """What a worker must show to write to the task: its id and the lease's token."""
        return Ticket(self.id, self.lease.token)

    @property
    def lease(self) -> Lease:
        """The lease it was claimed under.

        Raises:
            InvalidRequest: nobody holds it.
        """
        if self.slot.lease is None:
            msg = f"{self.id!r} is {self.state}, nobody holds it"
            raise InvalidRequest(msg)
        return self.slot.lease

    @property
    def question(self) -> Attempt | None:
        """What a blocked task waits for a person to answer, as the last word of its history; None if it is not."""
        said = [line for line in self.history if line.outcome is not Outcome.PROGRESS]
        is_asked = self.state is State.DEAD and bool(said) and said[-1].outcome is Outcome.BLOCKED
        return said[-1] if is_asked else None


class Identity(NamedTuple):
    """Who is speaking.

    Attributes:
        agent: the name others see and address, such as `github.com/acme/app/main`.
        session: 8 hex digits; two sessions of one agent differ in it.
        holder: the word for this session in a lease's file name.
    """

    agent: str
    session: str
    holder: str
    client: str = ""
    pwd: str = ""
    pid: int = 0


class Policy(NamedTuple):
    """The rules of a channel, kept in its `channel.json`.

    Attributes:
        kind: `queue`, each task goes to one worker; `topic`, each message goes to every subscriber;
            `inbox`, an agent's own.
        max_attempts: hand-overs before a task goes to the dead letter.
        backoff_s: pause after the first failure; doubles with each, up to `max_backoff_s`.
        lease_s: how long a claim lasts unless renewed.
        max_lease_s: how long a server renews by itself without a sign of life from its model.
        ttl_s: lifetime of an unclaimed task; 0 for ever.
        max_releases: hand-backs that do not cost an attempt.
        retention_days: how long ended tasks are kept; 0 for ever.  Dead letters are kept.
        outputs: whether each result is also written as Markdown, for people; see `outputs`.
        signed: whether what has no signature that holds is not delivered; see `signing`.
        post_by, claim_by, read_by: patterns of the agents that may; empty for everyone; see `access`.
        encrypt_to: the agents that what is posted is encrypted to; empty for plain text; see `stores.covers`.
        max_waiting, max_waiting_by_sender: how many tasks may wait, also of one agent; 0 for any number; see `quotas`.
    """

    kind: str = "queue"
    max_attempts: int = 3
    backoff_s: float = 5.0
    max_backoff_s: float = 300.0
    lease_s: float = 300.0
    max_lease_s: float = 7200.0
    ttl_s: float = 0.0
    max_releases: int = 10
    retention_days: int = 14
    outputs: bool = False
    signed: bool = False
    post_by: tuple[str, ...] = ()
    claim_by: tuple[str, ...] = ()
    read_by: tuple[str, ...] = ()
    encrypt_to: tuple[str, ...] = ()
    max_waiting: int = 0
    max_waiting_by_sender: int = 0
    description: str = ""


class PostOptions(TypedDict, total=False):
    """What a post may say besides channel and content; all optional.

    `delay_s` and `ttl_s` count from now; `key` makes a repeat harmless: the same key from the same
    sender is the same task.  `parent` is a task that this session holds: it cannot be finished before what it posted.
    `encrypt_to` names the agents that can read it, instead of those of the channel's rule.
    """

    title: str
    thread: str
    reply_to: str
    priority: int
    delay_s: float
    ttl_s: float
    max_attempts: int
    backoff_s: float
    requires: tuple[str, ...] | list[str]
    key: str
    type: str
    result_schema: Mapping[str, Any]
    claims: bool
    parent: str
    encrypt_to: tuple[str, ...] | list[str]


POST_OPTIONS = frozenset(PostOptions.__annotations__)
POLICY_FIELDS = frozenset(Policy._fields)


def day_of(ms: int) -> str:
    """Return the UTC day of a time, `yyyy-mm-dd`."""
    return date.fromordinal(max(1, min(719_163 + ms // DAY, date.max.toordinal()))).isoformat()
