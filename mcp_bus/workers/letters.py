"""Running a command for each message of a topic or an inbox: acked once it was handled, and not before.

Messages are not tasks: nobody claims them, and they have no attempts.  Here one is held, offered and not acked, until
its command ended well, tried again after a pause, and given up after a few tries, which the human is told.  What is
not the message's fault, the medium or a command that cannot be started or that says "not now", is no try.
"""

from __future__ import annotations

import os
import select
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.encrypted import PRIVATE
from mcp_bus.errors import BusError, Conflict, CorruptRecord, DuplicateTask, NotFound, Overloaded, StoreUnavailable
from mcp_bus.find import short
from mcp_bus.names import HUMAN
from mcp_bus.notify import Hint
from mcp_bus.presence import BEAT_S
from mcp_bus.watch import interval
from mcp_bus.workers import jobs, prompts, runs
from mcp_bus.workers.fates import Fate, Told
from mcp_bus.workers.jobs import NotStarted

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body
    from mcp_bus.workers.jobs import Recipe
    from mcp_bus.workers.loop import Watcher

# How often a message is tried, and the pause before it is tried again: the first, which doubles, and the longest.
TRIES = 3
PAUSE_S, MOST_PAUSE_S = 5.0, 300.0
PATH = "watch"
# Messages that wait to be tried again; while there are as many, nothing new is taken.
HELD = 1000


class Source(NamedTuple):
    """Which messages are handled.

    Attributes:
        only: what `Mail.read` takes: a topic, or the inbox.
        channels: where they come from, to be told of changes.
        replies: whether what a command prints is sent to whoever wrote.
        concurrency, most, idle_s, drain_s: as of `loop.Scope`.
    """

    only: str
    channels: tuple[str, ...]
    replies: bool = False
    concurrency: int = 1
    most: int = 0
    idle_s: float = 0.0
    drain_s: float = 300.0


class _Held(NamedTuple):
    """A message that is to be handled.

    Attributes:
        body: as it was handed out: whoever writes its file later changes nothing that is done.
        tries: how often its command failed.
        rounds: how often it was run at all.
        due: from when on it is tried again.
        done: how its command ended, if all that is left is to say so.
    """

    body: Body
    tries: int = 0
    rounds: int = 0
    due: float = 0.0
    done: _Done | None = None


class _Done(NamedTuple):
    """How a run ended: `text` is what was answered, `end` why nothing more can be run at all."""

    told: Told
    text: str = ""
    end: NotStarted | None = None


# Of the bus, and not of what is said: worth another try.
_PASSING = (StoreUnavailable, Conflict, Overloaded)


class Letters:
    """Handles messages until it is told to end."""

    def __init__(self, bus: Bus, root: Path, recipe: Recipe, source: Source, watcher: Watcher) -> None:
        """Prepare to read as the agent that `bus` speaks for, which is subscribed if `source` is a topic."""
        self._bus = bus
        self._root = root
        self._recipe = recipe
        self._source = source
        self._watcher = watcher
        self._wake = os.pipe()
        self._waiting: list[_Held] = []
        self._running: dict[str, _Held] = {}
        self._ended: deque[tuple[str, _Done]] = deque()
        self._trouble: NotStarted | None = None
        self._ending_at = 0.0
        self._is_aborting = False
        self._begun = 0
        self.fates: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()

    def stop(self) -> None:
        """Take nothing more; the second time, end what is handled too.  A signal handler may call it."""
        os.write(self._wake[1], b"s")

    def run(self, leash: int = -1) -> None:
        """Handle messages until told to end, or until there is no more to do.

        Args:
            leash: as of `Loop.run`.

        Raises:
            BusError: the bus cannot be used, or the command cannot be started.
        """
        bus = self._bus
        runs.tidy(bus, self._root)
        bus.roster.arrive(bus.capabilities, self._source.channels)
        try:
            with Hint(()) as hint:
                self._attend(hint, leash)
        finally:
            self._is_aborting = True
            while self._running:
                os.read(self._wake[0], 1)
                self._settle()
            with suppress(BusError):
                bus.mail.give_back("its handler has ended")
                bus.roster.leave()
        if self._trouble is not None:
            raise self._trouble

    def _attend(self, hint: Hint, leash: int) -> None:
        now, words = self._bus.source.monotonic, [self._wake[0], *([leash] if leash >= 0 else [])]
        idle_since, beaten = now(), now()
        while True:
            with suppress(StoreUnavailable):
                hint.watch(self._bus.store.paths(self._source.channels))
            self._settle()
            if not self._ending_at:
                self._begin()
            if self._running or self._waiting:
                idle_since = now()
            is_idle = bool(self._source.idle_s) and now() - idle_since >= self._source.idle_s
            if not self._running and (self._ending_at or is_idle or (self._is_done() and not self._waiting)):
                return
            if self._ending_at and now() >= self._ending_at:
                self._is_aborting = True
            self._wait(hint, words)
            if now() - beaten >= BEAT_S:
                beaten = now()
                with suppress(BusError):
                    self._bus.roster.beat()

    def _is_done(self) -> bool:
        return bool(self._source.most) and self._begun >= self._source.most

    def _wait(self, hint: Hint, words: list[int]) -> None:
        """Wait until something may have changed: messages, a command's end, a word from outside."""
        fds = [*words, *([hint.fileno()] if hint.fileno() >= 0 else [])]
        dues = [held.due - self._bus.source.monotonic() for held in self._waiting]
        # What is due and finds no room waits for an end, which is told.
        longest = interval(hint) if len(self._running) >= self._source.concurrency else min([interval(hint), *dues])
        told = select.select(fds, [], [], max(0.0, longest))[0]
        if hint.fileno() in told:
            hint.wait(0)
        asked = os.read(self._wake[0], 64).count(b"s") if self._wake[0] in told else 0
        for leash in [fd for fd in words[1:] if fd in told and not os.read(fd, 64)]:
            words.remove(leash)  # Whoever started this is gone, which is told for ever.
            asked += 1
        for _ in range(asked):
            self._told_to_end()

    def _told_to_end(self) -> None:
        if not self._ending_at:
            self._ending_at = self._bus.source.monotonic() + self._source.drain_s
            self._watcher.say("ending: nothing more is taken; told again, what is handled is given back")
        elif not self._is_aborting:
            self._is_aborting = True
            self._watcher.say("ending: what is handled is given back")

    # --- one message after another ------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start commands for what is due, and for what is new, as far as there is room."""
        now = self._bus.source.monotonic()
        for held in [held for held in self._waiting if held.due <= now]:
            if held.done is not None or len(self._running) < self._source.concurrency:
                self._waiting.remove(held)
                self._again(held)
        while len(self._running) < self._source.concurrency and len(self._waiting) < HELD and not self._is_done():
            try:
                found = self._bus.mail.read(limit=1, path=PATH, only=self._source.only)
            except StoreUnavailable as error:
                self._watcher.say(f"{error}; going on when that is over")
                return
            if not found:
                return
            body = found[0].body
            if body.id in self._running or any(held.body.id == body.id for held in self._waiting):
                continue  # It took longer than an offer lasts, and is offered here once more.
            self._begun += 1
            self._start(_Held(body))

    def _again(self, held: _Held) -> None:
        try:
            self._bus.whole(held.body.id)  # It may be gone meanwhile.
        except (NotFound, CorruptRecord) as error:
            self._watcher.say(f"{error}; it is not tried again")
        except BusError as error:
            self._watcher.say(f"{error}; going on when that is over")
            self._hold(held)
        else:
            if held.done is None:
                self._start(held)
            else:
                self._conclude(held, held.done)

    def _start(self, held: _Held) -> None:
        self._running[held.body.id] = held
        self._watcher.begun(held.body)
        threading.Thread(target=self._handle, args=(held,), name=f"letter-{short(held.body.id)}").start()

    def _handle(self, held: _Held) -> None:
        """Run the command for a message; by a thread of its own, which does not touch the bus."""
        try:
            done = self._run(held)
        except NotStarted as error:
            done = _Done(Told(Fate.RELEASED, str(error)), end=error)
        except (BusError, OSError) as error:
            done = _Done(Told(Fate.RELEASED, str(error)))
        self._ended.append((held.body.id, done))
        os.write(self._wake[1], b"e")

    def _run(self, held: _Held) -> _Done:
        body = held.body
        refused = jobs.refused(body, self._recipe)
        if refused:
            return _Done(Told(Fate.DEAD, refused))
        with runs.Runs(runs.root_of(self._bus, self._root, body), self._bus.source) as kept:
            asked = prompts.message(body)
            place, log = kept.begin(body.id, held.tries + 1, asked.encode())
            with log:
                run = jobs.Run(place, log, kept, self._why_to_stop, body.encrypted is not None)
                told = prompts.environment(self._root, self._bus.identity.agent, body, place)
                found = jobs.answer(self._recipe, asked, told, run)
        return _Done(found) if isinstance(found, Told) else _Done(Told(Fate.DONE, "", found.usage), found.text)

    def _why_to_stop(self) -> str:
        return "its handler was told to end" if self._is_aborting else ""

    def _settle(self) -> None:
        """Go on with what has ended."""
        while self._ended:
            message, done = self._ended.popleft()
            held = self._running.pop(message)
            if done.end is not None and self._trouble is None:
                self._trouble = done.end  # Another message would fare no better.
                self._ending_at = self._ending_at or self._bus.source.monotonic() + self._source.drain_s
            self._conclude(held._replace(rounds=held.rounds + 1), done)

    def _conclude(self, held: _Held, done: _Done) -> None:
        """Say what has to be said of a run and ack its message, or hold it to be tried again.

        What is said comes first: a message that is acked is not handled again, and nobody would say it.
        """
        body, told, tries = held.body, done.told, held.tries
        try:
            told = self._answered(body, done)
            tries += told.fate is Fate.FAILED
            if told.fate in (Fate.DONE, Fate.DEAD, Fate.BLOCKED) or tries >= TRIES:
                told = self._over(body, told)
            elif not self._is_aborting and self._trouble is None:
                self._hold(_Held(body, tries, held.rounds))
        except _PASSING as error:
            self._watcher.say(f"{error}; {short(body.id)} is settled when that is over")
            self._hold(held._replace(done=done))
            return
        except BusError as error:
            told = Told(Fate.FAILED, f"{told.why}; {error}".strip("; "), told.usage)
        self.fates[told.fate] += 1
        self.usage.update(told.usage)
        self._watcher.ended(body, told)

    def _hold(self, held: _Held) -> None:
        pause = min(MOST_PAUSE_S, PAUSE_S * 2.0 ** min(max(held.rounds - 1, 0), 10))
        self._waiting.append(held._replace(due=self._bus.source.monotonic() + pause))
        if len(self._waiting) == HELD:
            self._watcher.say(f"{HELD} messages wait to be tried again; nothing new is taken until one of them is over")

    def _answered(self, body: Body, done: _Done) -> Told:
        """Send what a command answered, if that is wanted; what cannot be sent is a failed try."""
        told = done.told
        if told.fate is not Fate.DONE or not self._source.replies or not done.text:
            return told
        try:
            self._bus.mail.send("", done.text, reply_to=body.id, key=f"answer to {body.id}")
        except DuplicateTask:
            return told  # It was answered before, and not acked.
        except _PASSING:
            raise
        except BusError as error:
            return Told(Fate.FAILED, f"its answer cannot be sent: {error}", told.usage)
        return told

    def _over(self, body: Body, told: Told) -> Told:
        """Ack a message; of one that is given up, tell the human first."""
        if told.fate is not Fate.DONE:
            program = self._recipe.words[0].rpartition("/")[2]
            why = PRIVATE if body.encrypted else told.why
            note = f"{program} gave up on {body.id} of {body.sender.agent}: {why}"[:2000]
            with suppress(DuplicateTask):
                self._bus.mail.send(HUMAN, note, type="status", key=f"gave up on {body.id}")
            told = told._replace(fate=Fate.DEAD)
        self._bus.mail.ack([body.id])
        return told
