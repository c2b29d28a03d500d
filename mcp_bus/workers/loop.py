"""A worker: claims what it is able to do, works on several tasks at once, and ends without losing any.

W1  A worker that is told to end claims nothing more and lets what it works on end; told again, or when its time for
    that is up, it ends that too and gives it back.
W2  A rate limit is the agent's, not the task's: the task is given back, and nothing is claimed for a while.
W3  What keeps a command from being started ends the worker: another task would fare no better.
W4  While a bus cannot be reached, a result waits for it, as long as the worker is not to end what it works on.
"""

from __future__ import annotations

import os
import select
import threading
from collections import Counter
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mcp_bus.errors import BusError, Conflict, StoreUnavailable
from mcp_bus.model import Task
from mcp_bus.presence import BEAT_S
from mcp_bus.watch import wait_for
from mcp_bus.workers import runs
from mcp_bus.workers.fates import Fate
from mcp_bus.workers.jobs import Job
from mcp_bus.workers.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body
    from mcp_bus.workers.fates import Told
    from mcp_bus.workers.jobs import Recipe

FOR_EVER = 3e9
# The pause after an error of the medium: the first, and the longest.
TROUBLE_S, MOST_TROUBLE_S = 2.0, 60.0
# The pause after a rate limit: the first, and the longest.
LIMIT_S, MOST_LIMIT_S = 30.0, 900.0


class Scope(NamedTuple):
    """What a worker takes, and for how long.

    Attributes:
        channels: where it looks; everywhere if empty.
        only: which messages it takes; None for all.
        most: it ends after so many tasks; 0 for no end.
        idle_s: it ends when it found nothing for so long; 0 for no end.
        drain_s: what is worked on may take so long when it is told to end.
    """

    channels: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    concurrency: int = 1
    only: Callable[[Body], bool] | None = None
    most: int = 0
    idle_s: float = 0.0
    drain_s: float = 300.0


class Watcher(Protocol):
    """Who is told what a worker does."""

    def begun(self, body: Body) -> None:
        """Tell that a command runs for a task or message."""
        ...

    def ended(self, body: Body, told: Told) -> None:
        """Tell what became of it."""
        ...

    def say(self, text: str) -> None:
        """Tell of trouble with the bus, or that the worker was told to end."""
        ...


class _End(Enum):
    """What a look for a task returns when none is wanted any more."""

    END = "end"


class Loop:
    """A worker that runs until it is told to end."""

    def __init__(
        self,
        opened: Callable[[], Bus],
        root: Path,
        recipe: Recipe,
        scope: Scope,
        watcher: Watcher,
    ) -> None:
        """Prepare; nothing is claimed yet.

        Args:
            opened: opens the bus once more; each thread has its own.
            root: the bus directory.
            watcher: is told what happens; by several threads.
        """
        self._opened = opened
        self._root = root
        self._recipe = recipe
        self._scope = scope
        self._watcher = watcher
        self._lock = threading.Lock()
        self._draining = threading.Event()
        self._aborting = threading.Event()
        self._wake = os.pipe()
        self._claimed = 0
        self._limits = 0
        self._troubles = 0
        self._resume_at = 0.0
        self._trouble: BusError | None = None
        self.fates: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()

    def stop(self) -> None:
        """Claim nothing more; the second time, end what is worked on too (rule W1).  A signal handler may call it."""
        os.write(self._wake[1], b"s")

    def run(self, leash: int = -1) -> None:
        """Work until told to end, or until there is no more to do.

        Args:
            leash: a descriptor whose end of input tells the worker to end: whoever started it is gone.

        Raises:
            NotStarted: the command cannot be started.
            BusError: the bus cannot be used.
        """
        with self._opened() as bus:
            runs.tidy(bus, self._root)
            roster = bus.roster
            roster.arrive(self._scope.capabilities, self._scope.channels)
            threads = [threading.Thread(target=self._slot, name=f"slot-{n}") for n in range(self._scope.concurrency)]
            for thread in threads:
                thread.start()
            try:
                self._attend(bus, leash)
            finally:
                self._draining.set()
                self._aborting.set()
                for thread in threads:
                    thread.join()
                with suppress(BusError):
                    roster.leave()
        if self._trouble is not None:
            raise self._trouble

    # --- the first thread: presence, and being told to end --------------------------------------------------

    def _attend(self, bus: Bus, leash: int) -> None:
        """Say that the worker is there until its threads have ended."""
        watched = [self._wake[0], *([leash] if leash >= 0 else [])]
        deadline, left_over = 0.0, self._scope.concurrency
        while left_over:
            left = max(0.0, deadline - bus.source.monotonic()) if deadline and not self._aborting.is_set() else BEAT_S
            told = select.select(watched, [], [], min(BEAT_S, left))[0]
            if leash in told and not os.read(leash, 64):
                watched.remove(leash)
                self._told_to_end()
            if self._wake[0] in told:
                came = os.read(self._wake[0], 64)
                left_over -= came.count(b"e")
                for _ in range(came.count(b"s")):
                    self._told_to_end()
            if self._draining.is_set() and not deadline:
                deadline = bus.source.monotonic() + self._scope.drain_s
            if deadline and bus.source.monotonic() >= deadline:
                self._aborting.set()
            with suppress(BusError):
                bus.roster.beat()

    def _told_to_end(self) -> None:
        if not self._draining.is_set():
            self._draining.set()
            self._watcher.say("ending: nothing more is claimed; told again, what is worked on is given back")
        elif not self._aborting.is_set():
            self._aborting.set()
            self._watcher.say("ending: what is worked on is given back")

    def _why_to_stop(self) -> str:
        return "its worker was told to end" if self._aborting.is_set() else ""

    # --- the other threads: one task after another --------------------------------------------------------

    def _slot(self) -> None:
        try:
            while not self._draining.is_set():
                try:
                    self._work()
                    break
                except (StoreUnavailable, Conflict) as error:
                    self._watcher.say(f"{error}; going on when that is over")
                    self._draining.wait(self._pause())
        except BusError as error:
            with self._lock:
                self._trouble = self._trouble or error
            self._draining.set()  # Another task would fare no better (rule W3).
        finally:
            os.write(self._wake[1], b"e")

    def _pause(self) -> float:
        with self._lock:
            self._troubles = min(self._troubles + 1, 10)
            return min(MOST_TROUBLE_S, TROUBLE_S * 2.0 ** (self._troubles - 1))

    def _gives_up(self) -> bool:
        """Wait a while for the bus, so often that a lease is not over in between; tell whether that is enough."""
        return self._aborting.wait(min(self._pause(), max(TROUBLE_S, self._recipe.lease_s / 3)))

    def _work(self) -> None:
        patience = Patience(self._gives_up, self._watcher.say)
        with self._opened() as bus:
            while (task := self._next(bus)) is not None:
                self._watcher.begun(task.body)
                told = Job(bus, task, self._recipe, self._root).do(self._why_to_stop, patience)
                self._count(bus, told)
                self._watcher.ended(task.body, told)

    def _next(self, bus: Bus) -> Task | None:
        """Return the next task; None when this thread is to end."""
        scope = self._scope
        limit = scope.idle_s or FOR_EVER
        found = wait_for(bus, lambda: self._look(bus), channels=scope.channels, timeout_s=limit)
        return found if isinstance(found, Task) else None

    def _look(self, bus: Bus) -> Task | _End | None:
        scope = self._scope
        with self._lock:
            if self._draining.is_set() or (scope.most and self._claimed >= scope.most):
                return _End.END
            if bus.source.monotonic() < self._resume_at:
                bus.tend()
                return None
            self._claimed += 1  # Before it is claimed, or several threads would take too many.
        task: Task | None = None
        try:
            task = bus.claim(
                scope.channels, capabilities=scope.capabilities, lease_s=self._recipe.lease_s, only=scope.only
            )
        except Conflict:
            return None
        finally:
            if task is None:
                with self._lock:
                    self._claimed -= 1
        return task

    def _count(self, bus: Bus, told: Told) -> None:
        with self._lock:
            self._troubles = 0
            self.fates[told.fate] += 1
            self.usage.update(told.usage)
            if told.fate is Fate.LIMITED:
                self._resume_at = bus.source.monotonic() + min(MOST_LIMIT_S, LIMIT_S * 2.0**self._limits)
                self._limits = min(self._limits + 1, 10)
                self._claimed -= 1  # It was given back.
            elif told.fate is Fate.DONE:
                self._limits = 0
