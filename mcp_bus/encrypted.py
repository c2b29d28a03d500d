"""What of a message is hidden when it is encrypted, to whom its answer goes, and what others are told.  Pure.

An encrypted body is a whole body of its own inside the one that is kept: what is kept follows from it, so that a
reader who has opened it compares the two, and nobody can show it as another message than it was written as.
"""

from __future__ import annotations

from mcp_bus.errors import NotAllowed
from mcp_bus.model import Body, Result, Secret
from mcp_bus.plain import cut

# What a result that could not be reached is called outside, where its reason is hidden.
ERROR = "(encrypted)"
# Whatever a command said of an encrypted task stays where it ran.
PRIVATE = "what it said is not written down here, for the task is encrypted"

# A reason, a question or a note is written as it is, for whoever looks after the bus.
CLEAR = "that is written down in plain text: only the task and its result are encrypted"


def body(whole: Body, text: str) -> Body:
    """Return what is kept of an encrypted body (rule EN2): `text` is the ciphertext."""
    return whole._replace(content=text, title="", inputs=(), result_schema=None)


def result(whole: Result, text: str) -> Result:
    """Return what is kept of an encrypted result."""
    return whole._replace(content=text, error=ERROR if whole.error else "", artifacts=())


def answer_to(task: Body) -> Secret | None:
    """Return to whom the result of a task is encrypted, besides its worker: to who posted it (rule EN8).

    Of a task that somebody edited and retried also to whom the task itself is: who posted it first waits for it.

    Raises:
        NotAllowed: the task was not opened, and nobody can answer what it did not read.
    """
    if task.encrypted is None:
        return None
    _check_read(task)
    more = task.encrypted.to if task.retry_of else ()
    return Secret(tuple(dict.fromkeys((task.sender.agent, *more))))


def reply_to(parent: Body, agent: str) -> Secret | None:
    """Return to whom the answer to a message is encrypted: its one recipient, or all who can read the message.

    Raises:
        NotAllowed: as of `answer_to`.
    """
    if parent.encrypted is None:
        return None
    _check_read(parent)
    return Secret((agent,) if agent else tuple(dict.fromkeys((parent.sender.agent, *parent.encrypted.to))))


def same_readers(old: Body) -> Secret | None:
    """Return to whom what takes the place of a message is encrypted: to those who could read that.

    Raises:
        NotAllowed: as of `answer_to`.
    """
    _check_read(old)
    return Secret(old.encrypted.to) if old.encrypted is not None else None


def _check_read(task: Body) -> None:
    if task.encrypted is not None and task.encrypted.why:
        msg = f"{task.id!r} cannot be answered by who cannot read it: {task.encrypted.why}"
        raise NotAllowed(msg, hint="release it, or work as an agent that can")


def whom(secret: Secret) -> str:
    """Return to whom something is encrypted, for people."""
    return f"encrypted to {cut(', '.join(map(repr, secret.to)), 300)}"


def unread(kept: Body, why: str) -> Body:
    """Return a body that is not opened here, with the reason in the place of what it says."""
    secret = kept.encrypted or Secret(())  # Its encryption was taken off.
    return body(kept, f"({why})")._replace(encrypted=secret._replace(why=why))


def unread_result(kept: Result, why: str) -> Result:
    """Return a result that is not opened here, with the reason in the place of what it says."""
    assert kept.encrypted is not None
    return result(kept, f"({why})")._replace(encrypted=kept.encrypted._replace(why=why))
