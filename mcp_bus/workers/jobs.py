"""One task, one command: run it, keep the lease, and say what became of the task.

J1  Nothing of a message is ever on a command line, and no shell reads any: it travels by stdin, file and environment.
J2  A task whose lease is lost is not worked on: the command's group is ended, and nothing is submitted.
J3  Exit code 0 is a result.  75 (EX_TEMPFAIL) is not now: the task is given back, which costs no attempt.  65
    (EX_DATAERR) is never: the task is dead at once.  Any other code, a signal, or the end of its time is a failed
    attempt.
J4  A result is checked against its contract before it is submitted; an agent may correct it once.
J5  A message of type `eval` is not run unless the operator allows its sender.
"""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import command, contracts, wire
from mcp_bus.errors import BusError, Gone, InvalidRequest, LeaseLost, NotFound, ResultRejected, StoreUnavailable
from mcp_bus.model import NOTHING
from mcp_bus.plain import clean
from mcp_bus.workers import prompts, readers, runs
from mcp_bus.workers.readers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.command import Ended
    from mcp_bus.model import Task
    from mcp_bus.workers.runs import Log, Place

NOT_NOW, NEVER = 75, 65
# How often a running command is looked after, and how much of a message fits into an environment variable.
PULSE_S = 0.5
MAX_VARIABLE = 64 * 1024
REASON = 1500
# How an agent, whose exit code is not its own, says that it cannot do a task.
BLOCKED, FAILED = "MCP_BUS_BLOCKED:", "MCP_BUS_FAILED:"


class Recipe(NamedTuple):
    """How tasks are worked on.

    Attributes:
        words: the command.
        folder: where it runs.
        environment: what it sees besides the task.
        reader: how its output becomes a result, see `readers`.
        role: what it is to be; empty for none.
        is_handler: whether it is given the message as JSON and as a file, rather than a prompt.
        corrects: whether it is asked once more when its result was refused.
        lease_s: how long a claim lasts unless it is renewed, which it is.
        evals: patterns of senders whose messages of type `eval` it may be given.
    """

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    reader: str = "text"
    role: str = ""
    is_handler: bool = False
    corrects: bool = False
    timeout_s: float = 1800.0
    lease_s: float = 120.0
    evals: tuple[str, ...] = ()


class Fate(StrEnum):
    """What became of a task that was worked on."""

    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    BLOCKED = "blocked"
    RELEASED = "released"
    LIMITED = "limited"
    LOST = "lost"


class Told(NamedTuple):
    """What became of a task, and why."""

    fate: Fate
    why: str = ""
    usage: Mapping[str, float] = NOTHING


class _Run(NamedTuple):
    """What one attempt has beside its task: where it writes, and who may end it."""

    place: Place
    log: Log
    kept: runs.Runs
    stop: Callable[[], str]


class NotStarted(BusError):
    """The command cannot be started, or cannot work at all: no task's fault, and the end of the worker."""

    code = "not_started"


class Job:
    """A task that was claimed, and the command that is to do it."""

    def __init__(self, bus: Bus, task: Task, recipe: Recipe, root: Path) -> None:
        """Work on `task`, which `bus` claimed; the bus is at `root`."""
        self._bus = bus
        self._task = task
        self._recipe = recipe
        self._root = root
        self._renew_at = bus.source.monotonic() + recipe.lease_s / 3

    def do(self, stop: Callable[[], str]) -> Told:
        """Run the command and say what became of the task.

        Args:
            stop: a text that it returns is why the command is ended, and the task given back.

        Raises:
            NotStarted: the command cannot be started; the task was given back.
            StoreUnavailable: the medium failed; the task lapses unless it could be ended.
        """
        refused = self._refused()
        if refused:
            return self._end(Told(Fate.DEAD, refused))
        mark = self._bus.source.token(4)
        asked = self._asked(mark)
        with runs.Runs(self._root, self._bus.source) as kept:
            place, log = kept.begin(self._task.id, self._task.slot.attempt, asked.encode())
            with log:
                answer = self._accepted(asked, mark, _Run(place, log, kept, stop))
        return self._submit(answer, place) if isinstance(answer, Answer) else self._end(answer)

    def _refused(self) -> str:
        """Return why a task is not run at all (rule J5)."""
        body = self._task.body
        if body.type != "eval" or any(fnmatchcase(body.sender.agent, pattern) for pattern in self._recipe.evals):
            return ""
        return f"a message of type eval from {body.sender.agent!r} is not run here; --allow-eval SENDER allows it"

    # --- asking -----------------------------------------------------------------------------------------

    def _asked(self, mark: str) -> str:
        """Return what the command reads on stdin."""
        if self._recipe.is_handler:
            return wire.dump_body(self._task.body).decode()
        return prompts.render(self._bus.get(self._task.id), role=self._recipe.role, mark=mark)

    def _environment(self, place: Place) -> dict[str, str]:
        body, task = self._task.body, self._task
        told = {
            "MCP_BUS_DIR": str(self._root), "MCP_BUS_AGENT": self._bus.identity.agent, "MCP_BUS_TASK": task.id,
            "MCP_BUS_TOKEN": task.ticket.token, "MCP_BUS_ATTEMPT": str(task.slot.attempt),
            "MCP_BUS_CHANNEL": task.channel, "MCP_BUS_TYPE": body.type, "MCP_BUS_FROM": body.sender.agent,
            "MCP_BUS_TITLE": body.title, "MCP_BUS_PLAN": body.plan, "MCP_BUS_STEP": body.node,
            "MCP_BUS_RESULT": str(place.result), "MCP_BUS_FILES": str(place.files),
            "ABQ_MSG_ID": task.id, "ABQ_MSG_TYPE": body.type, "ABQ_MSG_FROM": body.sender.agent,
            "ABQ_MSG_CONTENT": body.content, "ABQ_CHANNEL": task.channel, "ABQ_HOME": str(self._root),
        }  # fmt: skip
        # No variable can hold a NUL, or as much as would keep the command from being started.
        fit = {name: text.replace("\0", "\ufffd") for name, text in told.items() if len(text) <= MAX_VARIABLE}
        return {**self._recipe.environment, **fit}

    def _accepted(self, asked: str, mark: str, run: _Run) -> Answer | Told:
        """Return an answer that meets the task's contract, or why there is none; it may be corrected once (rule J4)."""
        answer = self._answer(asked, run)
        wrong = self._wrong(answer)
        if wrong and isinstance(answer, Answer) and self._recipe.corrects:
            answer = self._answer(prompts.corrected(asked, answer.text, wrong, mark), run)
            wrong = self._wrong(answer)
        return Told(Fate.FAILED, wrong, answer.usage) if wrong else answer

    def _wrong(self, answer: Answer | Told) -> str:
        """Return how an answer breaks the task's contract; empty if it does not, or is none."""
        if isinstance(answer, Answer):
            try:
                contracts.of(self._task.body, answer.text)
            except (ResultRejected, InvalidRequest) as error:
                return str(error)
        return ""

    def _answer(self, asked: str, run: _Run) -> Answer | Told:
        """Run the command once; return what it answered, or why there is no answer."""
        recipe = self._recipe
        words = recipe.words
        if recipe.is_handler:
            words = (*words, str(self._root / "tasks" / f"{self._task.id}.json"))
        asked_for = command.Command(
            words, recipe.folder, self._environment(run.place), asked.encode(), recipe.timeout_s, readers.MAX_OUTPUT
        )
        ended: list[Told] = []

        def pulse() -> str:
            why = run.stop()
            ended[:] = [Told(Fate.RELEASED, why)] if why else self._renewed()
            return ended[0].why if ended else ""

        try:
            done = command.run(asked_for, sink=run.log.write, pulse=pulse, pulse_s=PULSE_S)
        except OSError as error:
            msg = f"the command {clean(words[0])!r} cannot be started: {error.strerror}"
            self._end(Told(Fate.RELEASED, msg))
            raise NotStarted(msg, hint="mend the command, or the folder it runs in; the task was given back") from None
        if ended:
            return ended[0]
        try:
            written = run.kept.answer(run.place)
        except BusError as error:
            return Told(Fate.FAILED, str(error))
        answer = readers.read(recipe.reader, done, written, run.log.tail)
        if answer.is_unable:
            msg = f"{clean(words[0])!r} cannot work here: {clean(answer.error or run.log.tail)[-REASON:]}"
            self._end(Told(Fate.RELEASED, msg))
            raise NotStarted(msg, hint="log it in, or do what it asks for; the task was given back")
        return _judged(done, answer, run.log.tail)

    def _renewed(self) -> list[Told]:
        """Renew the lease when a third of it has passed; return that it is lost, if it is (rule J2)."""
        now = self._bus.source.monotonic()
        if now < self._renew_at:
            return []
        self._renew_at = now + self._recipe.lease_s / 3
        try:
            self._bus.renew(self._task.ticket, lease_s=self._recipe.lease_s)
        except (LeaseLost, NotFound, Gone) as error:
            return [Told(Fate.LOST, str(error))]
        except BusError:
            self._renew_at = now + 1  # The medium may come back before the lease ends.
        return []

    # --- answering --------------------------------------------------------------------------------------

    def _submit(self, answer: Answer, place: Place) -> Told:
        paths, left = runs.made(place)
        try:
            self._bus.ack(self._task.ticket, answer.text, artifacts=[*paths, str(place.log)], usage=answer.usage)
        except LeaseLost as error:
            return Told(Fate.LOST, str(error), answer.usage)
        except StoreUnavailable:
            raise
        except BusError as error:  # Also what its children, which have not ended, forbid.
            return self._end(Told(Fate.FAILED, str(error), answer.usage))
        more = f"{left} of its files are not named in the result" if left else ""
        return Told(Fate.DONE, more, answer.usage)

    def _end(self, told: Told) -> Told:
        """End the claim as it was told; return what really became of the task."""
        ticket, why = self._task.ticket, clean(told.why, multiline=True)[:REASON]
        try:
            if told.fate is Fate.FAILED:
                task = self._bus.nack(ticket, why)
                return told._replace(fate=Fate.DEAD) if task.state == "dead" else told
            if told.fate is Fate.DEAD:
                self._bus.nack(ticket, why, final=True)
            elif told.fate is Fate.BLOCKED:
                self._bus.block(ticket, why)
            elif told.fate in (Fate.RELEASED, Fate.LIMITED):
                self._bus.release(ticket, why)
        except (LeaseLost, NotFound) as error:
            return Told(Fate.LOST, str(error), told.usage)
        return told


def _judged(done: Ended, answer: Answer, tail: str) -> Answer | Told:
    """Say what a command's end means: an answer, or why there is none (rule J3)."""
    said = clean((answer.error or tail).strip()[-REASON:], multiline=True).strip()
    fate, why = Fate.FAILED, ""
    if answer.is_limited:
        fate, why = Fate.LIMITED, "it is out of its rate limit"
    elif done.why:
        why = done.why
    elif done.code == NOT_NOW:
        fate, why = Fate.RELEASED, f"not now (exit code {NOT_NOW})"
    elif done.code == NEVER:
        fate, why = Fate.DEAD, f"never (exit code {NEVER})"
    elif done.code or answer.error:
        why = f"ended by signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    if why:
        return Told(fate, f"{why}: {said}" if said else why, answer.usage)
    for word, meant in ((BLOCKED, Fate.BLOCKED), (FAILED, Fate.FAILED)):
        if answer.text.startswith(word):
            return Told(meant, answer.text.removeprefix(word).strip() or "without a reason", answer.usage)
    return answer
