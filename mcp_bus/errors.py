"""Every exception the package raises on purpose.

Each error says what happened, why, and what to do next.  `str(error)` is the fact,
`error.hint` the next step; `code` is stable and goes into `--json` output.  Where errors
leave the package they are translated in three places only: `server/errors`, `cli/main` and a
worker's loop.
"""

from __future__ import annotations

import errno

# What helps when the system refuses whatever file it is; what else it refuses depends on which file.
ADVICE = {
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "close some programs, then repeat the call",
    errno.ENOSPC: "free some space, then repeat the call",
    errno.EDQUOT: "free some space, then repeat the call",
}


class BusError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        code: a stable word for programs.
        retryable: whether the same call can succeed later without being changed.
        hint: what to do next, one sentence in lower case; may be empty.
    """

    code = "error"
    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep `message` (the fact, lower case) and `hint` (the next step)."""
        super().__init__(message)
        self.hint = hint


class InvalidRequest(BusError):
    """The caller asked for something that can never work."""

    code = "invalid_request"


class IllegalTransition(InvalidRequest):
    """The task is in a state this verb does not apply to."""

    code = "illegal_transition"


class ResultRejected(InvalidRequest):
    """A result does not meet its task's contract; it was not accepted, and counted as an attempt."""

    code = "result_rejected"


class NotFound(BusError):
    """No such task, channel or file."""

    code = "not_found"


class Gone(NotFound):
    """The task existed and was pruned after its retention time."""

    code = "gone"


class Conflict(BusError):
    """Someone else was first; look again and decide again."""

    code = "conflict"
    retryable = True


class DuplicateTask(Conflict):
    """The idempotency key is taken by a task with another body."""

    code = "duplicate_task"
    retryable = False


class Overloaded(BusError):
    """Too much is waiting already, or comes too fast; nothing was written."""

    code = "overloaded"
    retryable = True


class NotAllowed(BusError):
    """The rules of the channel do not let this agent do that; nothing was changed."""

    code = "not_allowed"


class LeaseLost(Conflict):
    """The caller no longer holds the task; what it wrote was not accepted."""

    code = "lease_lost"
    retryable = False


class Untrusted(BusError):
    """The bus, or something in it, belongs to someone who must not be trusted."""

    code = "untrusted"


class CorruptRecord(BusError):
    """Bytes in the bus are not what the protocol says they are."""

    code = "corrupt_record"


class Unreadable(CorruptRecord):
    """The mode of a file keeps this user from it; it is left where it is, for its owner to let others in."""

    code = "unreadable"


class Unverified(CorruptRecord):
    """On a signed channel: bytes that carry no signature which holds; they are not delivered."""

    code = "unverified"


class UnknownKey(Unverified):
    """The signature may be good, but nobody here has said that its key speaks for its agent."""

    code = "unknown_key"


class NoKey(BusError):
    """The agent has no key to sign with, or what signing needs is not installed."""

    code = "no_key"


class StoreUnavailable(BusError):
    """The medium failed: full, read-only, gone, or not fit for a bus.

    When this is raised by a write the outcome may be unknown; repeating the call with the same
    idempotency key or token is always safe.
    """

    code = "store_unavailable"
    retryable = True
