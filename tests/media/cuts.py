"""Real power cuts: processes work on a mounted file system that is stopped under them, and what they were told counts.

Each process writes down outside that file system what was acknowledged to it, and when.  The file system is cut at a
random moment; only what was acknowledged before the cut began counts.  Then it is mounted again, which recovers its
journal as after a reboot, and the bus is mended by a new process and audited.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import Conflict, IllegalTransition, Overloaded, StoreUnavailable
from mcp_bus.model import PostOptions
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.fsops import Fs
from tests.crash.victim import HOUR, ended, fork, open_at
from tests.media.facts import CHANNEL, Facts, text
from tests.tally import CUTS, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.crash import auditor
    from tests.media.mounts import Medium

PATIENCE_S = 30.0
# Cuts of one bus: it must also live through what earlier ones left.
PER_BUS = 10


class Told(NamedTuple):
    """One line of a process: when it asked, when it was answered, what happened to which task, with which text."""

    asked: int
    answered: int
    event: str
    task_id: str = ""
    seed: int = 0


class NoSync(Fs):
    """A file system whose user forgets every fsync."""

    def fsync(self, fd: int) -> None:
        """Do nothing."""

    def sync_name(self, name: str, at: int) -> None:
        """Do nothing."""


# --- what a process does until the file system is gone ---------------------------------------


def post(bus: Bus, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    seed = chance.randrange(10**9)
    options = PostOptions(backoff_s=0, max_attempts=1000)
    if chance.random() < 0.5:
        options["key"] = f"k{seed}"
    yield "post", bus.post(CHANNEL, text(seed), **options).id, seed


def finish(bus: Bus, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    task = bus.claim([CHANNEL], lease_s=600)
    if task is None:
        return
    yield "claim", task.id, 0
    if chance.random() < 0.1:
        bus.nack(task, "no")
        return
    seed = chance.randrange(10**9)
    bus.ack(task, text(seed))
    yield "ack", task.id, seed


def cancel(bus: Bus, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    posted = bus.post(CHANNEL, text(chance.randrange(10**9)))
    with suppress(IllegalTransition):  # The other process may have finished it already.
        bus.cancel(posted.id)
        yield "cancel", posted.id, 0


def send(bus: Bus, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    seed = chance.randrange(10**9)
    yield "send", bus.mail.send("@bob", text(seed)).id, seed


def read(bus: Bus, chance: random.Random) -> Iterator[tuple[str, str, int]]:
    del chance
    if bus.identity.agent == "bob":
        bus.mail.read(limit=2)
        for done in bus.mail.ack():
            yield "read", done.id, 0


VERBS: tuple[Callable[[Bus, random.Random], Iterator[tuple[str, str, int]]], ...] = (
    post, post, post, finish, finish, finish, cancel, send, read,
)  # fmt: skip
# What a process may be told once there is no disk.
ENDS = ("input/output error", "read-only")


def work(root: Path, tell: int, seed: int, fs: Fs) -> None:
    """Do one thing after another until the file system is gone, and write down what was acknowledged."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    asked, end = time.monotonic_ns(), time.monotonic() + PATIENCE_S

    def say(*what: object) -> None:
        nonlocal asked
        os.write(tell, json.dumps([asked, time.monotonic_ns(), *what]).encode() + b"\n")
        asked = time.monotonic_ns()

    try:
        with open_at(root, fs, agent=("ann", "bob")[seed % 2]) as bus:
            while time.monotonic() < end:
                one(bus, chance, say)
    except StoreUnavailable as error:
        say(f"end: {error}")


def one(bus: Bus, chance: random.Random, say: Callable[..., None]) -> None:
    with suppress(Conflict, Overloaded):
        for event in chance.choice(VERBS)(bus, chance):
            say(*event)


# --- the cut ---------------------------------------------------------------------------------


class Pipe:
    """The lines of several processes, read with a limit."""

    def __init__(self) -> None:
        self.ear, self.mouth = os.pipe()
        self.said: list[Told] = []
        self._rest = b""

    def read(self, until: float) -> bool:
        """Read what there is by a time of the monotonic clock; False at the end of all."""
        if not select.select([self.ear], [], [], max(0.0, until - time.monotonic()))[0]:
            return True
        data = os.read(self.ear, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.said += [Told(*json.loads(line)) for line in lines]
        return bool(data)

    def close(self) -> None:
        os.close(self.ear)
        if self.mouth >= 0:
            os.close(self.mouth)


class Cuts:
    """One file system, cut again and again; `problems` is what should not have been."""

    def __init__(self, medium: Medium, *, seed: int = 0, workers: int = 2, fs: Callable[[], Fs] = Fs) -> None:
        self.medium = medium
        self.problems: list[str] = []
        self.acknowledged = 0
        self.cuts = 0
        self._fs = fs
        self._workers = workers
        self._chance = random.Random(seed)  # noqa: S311  repeatable, not secret
        self._facts = Facts()
        self._root = medium.point / "none"

    def run(self, count: int) -> Cuts:
        """Cut so many times; stop at the first that lost something."""
        while self.cuts < count and not self.problems:
            if self.cuts % PER_BUS == 0:
                self._new_bus()
            self.cuts += 1
            tried(CUTS)
            self._one()
            if self.cuts % PER_BUS == 0 and not self.problems:
                self._drained()
        return self

    def _new_bus(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        self._root, self._facts = self.medium.point / f"bus-{self.cuts}", Facts()
        layout.create(self._root)
        with open_at(self._root, Fs()) as bus:
            bus.create_channel(CHANNEL, max_attempts=1000)

    def _one(self) -> None:
        told, before, after = self._cut(lambda tell, n: work(self._root, tell, self.cuts * 100 + n, self._fs()))
        for line in told:
            is_told = any(why in line.event for why in ENDS)
            if line.event.startswith("end: ") and (line.answered < before or not is_told):
                self._problem(f"a process ended with {line.event}")
            if line.asked > after and not line.event.startswith("end: "):
                self._problem(f"{line.event} was acknowledged by a file system that was not there")
            if line.answered < before and line.task_id and line.event != "claim":
                self._facts.add(line.task_id, line.event, line.seed)
                self.acknowledged += 1
        self.medium.reboot()
        if self._chance.random() < 0.25:  # The power fails again, while what it did the first time is mended.
            self._cut(lambda tell, _: self._recover(tell), at=0, workers=1)
            self.medium.reboot()
        self._forked(self._recover)
        self._audit()

    def _cut(self, job: Callable[[int, int], None], *, at: int = -1, workers: int = 0) -> tuple[list[Told], int, int]:
        """Start processes, and cut when they have said some lines and a moment more."""
        pipe, pids = Pipe(), list[int]()
        lines = self._chance.randrange(12) if at < 0 else at
        moment = self._chance.uniform(0, 0.02)
        try:
            for number in range(workers or self._workers):
                pids.append(fork(lambda n=number: job(pipe.mouth, n)))  # type: ignore[misc]  # a default argument in a lambda
            os.close(pipe.mouth)
            pipe.mouth, end = -1, time.monotonic() + PATIENCE_S
            while len(pipe.said) < lines and pipe.read(end):
                assert time.monotonic() < end, "it takes too long"
            end = time.monotonic() + moment
            while time.monotonic() < end and pipe.read(end):
                pass
            before = time.monotonic_ns()
            self.medium.cut()
            after, end = time.monotonic_ns(), time.monotonic() + PATIENCE_S
            while pipe.read(end):
                assert time.monotonic() < end, "a process goes on without a disk"
            for pid in list(pids):
                if ended(pid) != 0:
                    self._problem("a process failed; its words are on stderr")
                pids.remove(pid)
        finally:
            pipe.close()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                ended(pid)
        return pipe.said, before, after

    # --- afterwards ----------------------------------------------------------------------------

    def _forked(self, job: Callable[[], None]) -> None:
        if ended(fork(job)) != 0:
            self._problem("recovery failed; its words are on stderr")

    def _recover(self, tell: int = -1) -> None:
        """Mend as after a start of the machine: patiently, or only after a worker took what was there at once."""
        try:
            for mark in (self._root / "boots").glob("*"):
                mark.unlink()  # A machine that started anew has another one.
            if self.cuts % 2:
                self._rash()
            with open_at(self._root, Fs(), agent="eve", offset=10_000) as bus:
                sweep(bus)
        except (StoreUnavailable, OSError):
            if tell < 0:
                raise  # Nobody cut it off.

    def _rash(self) -> None:
        """Claim before the sweep has the patience to mend anything, and look at what is done."""
        with open_at(self._root, Fs(), agent="eve") as bus:
            sweep(bus)
            task = bus.claim([CHANNEL])
            if task is not None:
                assert task.id not in self._facts.done(), f"{task.id} was done, and is handed out"
                bus.release(task)
            for task_id in self._facts.done()[-3:]:
                result = bus.get(task_id).result
                assert result is not None, f"{task_id} is seen done, and its result is not"

    def _drained(self) -> None:
        """Let time pass and finish everything: then nothing is left half done."""

        def drain() -> None:
            for hours in (2, 4):
                with open_at(self._root, Fs(), agent="eve", offset=hours * HOUR) as bus:
                    sweep(bus)
                    while (task := bus.claim([CHANNEL])) is not None:
                        bus.ack(task, text(hours))

        self._forked(drain)
        audit = self._audit()
        if audit is not None and audit.leftovers:
            self._problem(f"left over: {audit.leftovers}")

    def _audit(self) -> auditor.Audit | None:
        audit, problems = self._facts.check(self._root)
        for problem in problems:
            self._problem(problem)
        return audit

    def _problem(self, what: str) -> None:
        self.problems.append(f"cut {self.cuts} of {self.medium.kind}: {what}")
