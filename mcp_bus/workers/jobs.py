"""One task, one command: run it, keep the lease, and say what became of the task.

J1  Nothing that others wrote is ever on a command line, and no shell reads any: it travels by stdin, file and
    environment.
J2  A task whose lease is lost is not worked on: the command's group is ended, and nothing is submitted.
J3  Exit code 0 is a result.  75 (EX_TEMPFAIL) is not now: the task is given back, which costs no attempt.  65
    (EX_DATAERR) is never: the task is dead at once.  Any other code, a signal, or the end of its time is a failed
    attempt.
J4  A result is checked against its contract before it is submitted; an agent may correct it once.
J5  A message of type `eval` is not run unless the operator allows its sender.
J6  What a finished command has left is told to the bus however long that cannot be reached, until the worker gives up.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import checking, command
from mcp_bus.encrypted import PRIVATE
from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    Gone,
    InvalidRequest,
    LeaseLost,
    NotFound,
    ResultRejected,
    StoreUnavailable,
)
from mcp_bus.find import short
from mcp_bus.plain import clean
from mcp_bus.workers import prompts, readers, runs
from mcp_bus.workers.fates import REASON, Fate, Told, judged
from mcp_bus.workers.patience import NONE
from mcp_bus.workers.readers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, Task
    from mcp_bus.workers.patience import Patience
    from mcp_bus.workers.runs import Log, Place

# How often a running command is looked after.
PULSE_S = 0.5
LOOK_S = 2.0
# Files are read whole to be named in a result, at least at this many bytes a second; so few need no more time for it.
READ_PER_S = 50_000_000
SOON_READ = 64 * 1024 * 1024


class Recipe(NamedTuple):
    """How tasks are worked on.

    Attributes:
        words: the command.
        folder: where it runs.
        environment: what it sees besides the task.
        reader: how its output becomes a result, see `readers`.
        role: what it is to be; empty for none.
        is_handler: whether it is given the message as JSON and as a file, rather than a prompt.
        is_plain: whether it is given the task's text alone.
        corrects: whether it is asked once more when its result was refused.
        answers: whether a failure is an answer too, with the status `error`, rather than a failed attempt (abq).
        lease_s: how long a claim lasts unless it is renewed, which it is.
        evals: patterns of senders whose messages of type `eval` it may be given.
    """

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    reader: str = "text"
    role: str = ""
    is_handler: bool = False
    is_plain: bool = False
    corrects: bool = False
    answers: bool = False
    timeout_s: float = 1800.0
    lease_s: float = 120.0
    evals: tuple[str, ...] = ()


class Run(NamedTuple):
    """What one attempt has beside what it is asked: where it writes, and who may end it.

    Attributes:
        stop: a text that it returns is why the command is ended.
        is_private: whether nothing that the command says may be written down elsewhere.
    """

    place: Place
    log: Log
    kept: runs.Runs
    stop: Callable[[], str]
    is_private: bool


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
        self._look_at = 0.0
        self._patience = NONE

    def do(self, stop: Callable[[], str], patience: Patience = NONE) -> Told:
        """Run the command and say what became of the task.

        Args:
            stop: a text that it returns is why the command is ended, and the task given back.
            patience: how long the bus is told of the end while it cannot be reached (rule J6).

        Raises:
            NotStarted: the command cannot be started; the task was given back.
            StoreUnavailable: the medium failed before the command began; the task was given back, or lapses if that
                failed too.
        """
        self._patience = patience
        why = refused(self._task.body, self._recipe)
        if why:
            return self._end(Told(Fate.DEAD, why))
        mark = self._bus.source.token(4)
        try:
            return self._work(mark, self._asked(mark), stop)
        except (CorruptRecord, NotFound) as error:
            return self._end(Told(Fate.FAILED, str(error)))
        except (StoreUnavailable, Conflict) as error:
            with suppress(BusError):
                self._ended(Told(Fate.RELEASED, str(error)))
            raise

    def _work(self, mark: str, asked: str, stop: Callable[[], str]) -> Told:
        with runs.Runs(runs.root_of(self._bus, self._root, self._task.body), self._bus.source) as kept:
            place, log = kept.begin(self._task.id, self._task.slot.attempt, asked.encode())
            with log:
                run = Run(place, log, kept, stop, self._task.body.encrypted is not None)
                found = self._accepted(asked, mark, run)
                return self._submit(found, run) if isinstance(found, Answer) else self._end(found)

    # --- asking -----------------------------------------------------------------------------------------

    def _asked(self, mark: str) -> str:
        """Return what the command reads on stdin."""
        if self._recipe.is_handler:
            return prompts.message(self._task.body)
        if self._recipe.is_plain:
            return self._task.body.content
        told = self._task._replace(history=self._bus.get(self._task.id).history)
        return prompts.render(told, role=self._recipe.role, mark=mark)

    def _accepted(self, asked: str, mark: str, run: Run) -> Answer | Told:
        """Return an answer that meets the task's contract, or why there is none; it may be corrected once (rule J4)."""
        found = self._answer(asked, run)
        wrong = self._wrong(found)
        if wrong and isinstance(found, Answer) and self._recipe.corrects:
            run.kept.set_aside(run.place)
            found = self._answer(prompts.corrected(asked, found.text, wrong, mark), run)
            wrong = self._wrong(found)
        return Told(Fate.FAILED, wrong, found.usage) if wrong else found

    def _wrong(self, found: Answer | Told) -> str:
        """Return how an answer breaks the task's contract; empty if it does not, or is none."""
        if isinstance(found, Answer):
            try:
                checking.of(self._task.body, found.text)
            except (ResultRejected, InvalidRequest) as error:
                return str(error)
        return ""

    def _answer(self, asked: str, run: Run) -> Answer | Told:
        """Run the command once, under the task's lease."""
        task = self._task
        told = prompts.environment(self._root, self._bus.identity.agent, task.body, run.place)
        told |= {"MCP_BUS_TOKEN": task.ticket.token, "MCP_BUS_ATTEMPT": str(task.slot.attempt)}

        def renewed() -> Told | None:
            why = run.stop()
            return Told(Fate.RELEASED, why) if why else self._renewed()

        try:
            return answer(self._recipe, asked, told, run, renewed)
        except NotStarted as error:
            self._end(Told(Fate.RELEASED, str(error)))
            raise

    def _renewed(self) -> Told | None:
        """Renew the lease when a third of it has passed; return that it is lost, if it is (rule J2)."""
        now = self._bus.source.monotonic()
        if now < self._renew_at:
            return self._looked(now)
        self._renew_at = now + self._recipe.lease_s / 3
        try:
            self._bus.renew(self._task.ticket, lease_s=self._recipe.lease_s)
        except (LeaseLost, NotFound, Gone) as error:
            return Told(Fate.LOST, str(error))
        except BusError:
            self._renew_at = now + 1  # The medium may come back before the lease ends.
        return None

    def _looked(self, now: float) -> Told | None:
        """See now and then whether the task was cancelled or taken away, long before its lease is renewed."""
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_S
        try:
            task = self._bus.get(self._task.id)
        except NotFound as error:
            return Told(Fate.LOST, str(error))
        except BusError:
            return None  # The renewal tells.
        is_mine = task.slot.lease is not None and task.slot.lease.token == self._task.ticket.token
        return None if is_mine else Told(Fate.LOST, f"{task.id!r} is {task.state}, and not held here any more")

    # --- answering --------------------------------------------------------------------------------------

    def _submit(self, found: Answer, run: Run) -> Told:
        kept = list[str]()

        def waits() -> str:
            kept.append(run.kept.keep(run.place, found.text))
            return f"{short(self._task.id)} is finished; its result waits until the bus can be reached"

        try:
            return self._patience.insist(lambda: self._submitted(found, run), waits)
        except StoreUnavailable as error:
            return Told(Fate.UNTOLD, f"{error}; its result is kept in {kept[0]}", found.usage)

    def _submitted(self, found: Answer, run: Run) -> Told:
        made, ticket = run.kept.made(run.place), self._task.ticket
        try:
            if made.size > SOON_READ:
                self._bus.renew(ticket, lease_s=self._recipe.lease_s + made.size / READ_PER_S)
            # What a plain command printed is its result; an agent's log is what it did for it.
            log = [str(run.place.log)] if self._recipe.reader in readers.PRESETS else []
            self._bus.ack(ticket, found.text, artifacts=[*made.paths, *log], usage=found.usage)
        except LeaseLost as error:
            return Told(Fate.LOST, str(error), found.usage)
        except StoreUnavailable:
            raise
        except BusError as error:  # Also what its children, which have not ended, forbid.
            return self._ended(Told(Fate.FAILED, f"{error}; {error.hint}".removesuffix("; "), found.usage))
        more = f"{made.left} of its files are not named in the result" if made.left else ""
        return Told(Fate.DONE, more, found.usage, found.text[:200])

    def _end(self, told: Told) -> Told:
        """End the claim as it was told, once the bus can be; return what really became of the task."""
        said = f"{short(self._task.id)} is over; the bus is told when it can be reached"
        try:
            return self._patience.insist(lambda: self._ended(told), lambda: said)
        except StoreUnavailable as error:
            why = f"{told.fate}: {told.why}; {error}, so it comes back when its lease ends"
            return Told(Fate.UNTOLD, why, told.usage)

    def _ended(self, told: Told) -> Told:
        try:
            if self._recipe.answers and told.fate in (Fate.FAILED, Fate.DEAD, Fate.BLOCKED):
                try:
                    self._bus.ack(self._task.ticket, _why(told), error=_why(told) or told.fate)
                except (Conflict, InvalidRequest) as error:  # Its children have not ended: it is no answer yet.
                    return self._failed(Told(Fate.FAILED, f"{told.why}; {error}", told.usage))
                return told
            return self._failed(told)
        except (LeaseLost, NotFound, CorruptRecord) as error:
            return Told(Fate.LOST, str(error), told.usage)

    def _failed(self, told: Told) -> Told:
        ticket, why = self._task.ticket, PRIVATE if self._task.body.encrypted else _why(told)
        if told.fate is Fate.FAILED:
            task = self._bus.nack(ticket, why)
            return told._replace(fate=Fate.DEAD) if task.state == "dead" else told
        if told.fate is Fate.DEAD:
            self._bus.nack(ticket, why, final=True)
        elif told.fate is Fate.BLOCKED:
            self._bus.block(ticket, why)
        elif told.fate in (Fate.RELEASED, Fate.LIMITED):
            self._bus.release(ticket, why)
        return told


def _why(told: Told) -> str:
    return clean(told.why, multiline=True)[:REASON]


def refused(body: Body, recipe: Recipe) -> str:
    """Return why a message is not given to a command at all (rule J5); empty if it is."""
    if body.type != "eval" or any(fnmatchcase(body.sender.agent, pattern) for pattern in recipe.evals):
        return ""
    return f"a message of type eval from {body.sender.agent!r} is not run here; --allow-eval SENDER allows it"


def answer(
    recipe: Recipe, asked: str, told: Mapping[str, str], run: Run, look: Callable[[], Told | None] | None = None
) -> Answer | Told:
    """Run a command once; return what it answered, or why there is no answer.

    Args:
        asked: what it reads on stdin.
        told: what its environment has beside the operator's.
        look: called now and then; what it returns ends the command, and is returned.

    Raises:
        NotStarted: it cannot be started, or cannot work at all.
    """
    words = recipe.words
    if recipe.is_handler:
        words = (*words, str(Path(told["MCP_BUS_DIR"]) / "tasks" / f"{told['MCP_BUS_TASK']}.json"))
    seen = {**recipe.environment, **told}
    asked_for = command.Command(words, recipe.folder, seen, asked.encode(), recipe.timeout_s, readers.MAX_OUTPUT)
    ended: list[Told] = []

    def pulse() -> str:
        why = run.stop()
        found = look() if look is not None else Told(Fate.RELEASED, why) if why else None
        ended[:] = [found] if found is not None else []
        return (found.why or found.fate) if found is not None else ""

    try:
        done = command.run(asked_for, sink=run.log.write, pulse=pulse, pulse_s=PULSE_S)
    except OSError as error:
        msg = f"the command {clean(words[0])!r} cannot be started: {error.strerror}"
        if error.errno == errno.E2BIG:  # It is the message that is too long: another one would fare better.
            return Told(Fate.FAILED, msg)
        raise NotStarted(msg, hint="mend the command, or the folder it runs in; the task was given back") from None
    if ended:
        return ended[0]
    try:
        written = run.kept.answer(run.place)
    except BusError as error:
        return Told(Fate.FAILED, str(error))
    found = readers.read(recipe.reader, done, written, run.log.tail)
    if found.is_unable:
        said = PRIVATE if run.is_private else clean(found.error or run.log.tail)[-REASON:]
        msg = f"{clean(words[0])!r} cannot work here: {said}"
        raise NotStarted(msg, hint="log it in, or do what it asks for; the task was given back")
    return judged(done, found, run.log.tail)
