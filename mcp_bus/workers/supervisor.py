"""Keeping workers alive, in the sense of Erlang's supervisors: let it crash, and start it anew.

V1  A worker that ends with exit code 0, or by SIGTERM before it could listen to that, has ended as it was told to, and
    stays so.  One that ends otherwise, or gives no sign of life, has died, and is started anew after a pause that
    doubles.
V2  `one_for_one`: nobody else is touched.  `rest_for_one`: those after it in the file are ended, each told so once,
    and once they have ended all are started again, in order.
V3  More than `max_restarts` restarts in `within_s` seconds: the fleet gives up, ends all, and tells the human.
V4  What a worker held when it died goes back at once, its attempt counted: nobody can finish it any more.
V5  A supervisor that is gone takes its workers with it: each holds the other end of a pipe.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import names
from mcp_bus.errors import BusError
from mcp_bus.identity import process
from mcp_bus.names import HUMAN
from mcp_bus.presence import BEAT_S, SILENCE
from mcp_bus.workers import logs, remains

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.workers.fleet import Fleet, Spec

KIND = "fleets"
# What `worker stop` leaves for the supervisor of a worker, by the name under which it holds tasks.
STOPS = "stops"
# The pause before a restart: the first, and the longest.
PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
# One that lived for so long is started anew as after a first death.
WELL_S = 60.0
# What a worker is given beyond its own time to end before it is killed.
PATIENCE_S = 10.0
# How often workers are looked at where their end is not told.
LOOK_S = 0.2


class Child:
    """One worker: its process, while there is one, and how it fared."""

    def __init__(self, spec: Spec, name: str, session: str) -> None:
        """Nothing is started yet."""
        self.spec = spec
        self.name = name
        self.session = session
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "waiting"
        self.since = 0
        self.started = 0
        self.restarts = 0
        self.why = ""
        self.due = 0.0
        self.kill_at = 0.0
        self.failures = 0

    @property
    def holder(self) -> str:
        """The name under which it holds tasks."""
        return names.holder(self.name, self.session)


class Host(NamedTuple):
    """What workers are started with.

    Attributes:
        program: the words before those of a worker.
        environment: all that they see; who they are is added.
        folder: where they run.
        root: the bus directory.
        say: is told what happens.
    """

    program: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    root: Path
    say: Callable[[str], None]


class Supervisor:
    """A fleet that is being kept alive."""

    def __init__(self, bus: Bus, fleet: Fleet, host: Host, about: str) -> None:
        """Prepare; `about` is the file that the fleet was read from."""
        self._bus = bus
        self._fleet = fleet
        self._host = host
        self._about = about
        self._token = bus.source.token(4)
        self._restarts: deque[float] = deque()
        self._wake = os.pipe()
        self._leash, self._held = os.pipe()
        self._asked = 0
        self._beaten = 0.0
        self._gave_up = ""
        self.children = [Child(spec, name, bus.source.token(4)) for spec in fleet.workers for name in spec.names()]

    def stop(self) -> None:
        """Let the workers end; the second time, end what they work on.  A signal handler may call it."""
        os.write(self._wake[1], b"s")

    def run(self) -> str:
        """Keep the workers alive until all have ended or the fleet is told to; return why it gave up, if it did."""
        now = self._bus.source.monotonic()
        for child in self.children:
            child.due = now
        try:
            while True:
                self._look()
                self._start()
                if not any(child.process or child.state == "waiting" for child in self.children):
                    return self._gave_up
                if self._bus.source.monotonic() - self._beaten >= BEAT_S:
                    self._beaten = self._bus.source.monotonic()
                    self._check_health()
                    self._note()
                self._wait()
        finally:
            for child in self.children:
                self._kill(child)
            with suppress(BusError):
                self._bus.store.records.remove(KIND, self._token)

    # --- starting and ending ------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what is due, unless the fleet ends."""
        now = self._bus.source.monotonic()
        for child in self.children:
            if child.state != "waiting" or child.process is not None:
                continue
            if self._asked or self._gave_up:
                child.state = "ended"
            elif child.due <= now and not self._is_held_up(child):
                self._launch(child)
            elif self._fleet.strategy == "rest_for_one":
                break  # In order.
        self._note()

    def _is_held_up(self, child: Child) -> bool:
        """Tell whether those that come after a worker have to end before it is started anew (rule V2)."""
        rest = self.children[self.children.index(child) + 1 :]
        return self._fleet.strategy == "rest_for_one" and any(other.process is not None for other in rest)

    def _launch(self, child: Child) -> None:
        words = [*self._host.program, "--bus", str(self._host.root), "--agent", child.name, *child.spec.words()]
        at = words.index("--") if "--" in words else len(words)
        words[at:at] = ["--leash", str(self._leash)]
        child.session = self._bus.source.token(4)
        seen = {
            **self._host.environment,
            "MCP_BUS_DIR": str(self._host.root), "MCP_BUS_AGENT": child.name, "MCP_BUS_SESSION": child.session,
            "MCP_BUS_SUPERVISED": f"{child.name} {child.session}",
        }  # fmt: skip
        with logs.opened(self._host.root, child.name, self._bus.source) as log:
            child.process = subprocess.Popen(  # noqa: S603  the operator's file says what is run
                words,
                cwd=self._host.folder,
                env=seen,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._leash,),
                start_new_session=True,
            )
        child.started = process.started(child.process.pid)
        child.state, child.since, child.why, child.kill_at = "running", self._bus.source.now(), "", 0.0
        self._host.say(f"{child.name} started, process {child.process.pid}")

    def _end(self, child: Child, *, because: str, again: bool = False) -> None:
        """Ask a worker to end; it is killed when it takes longer than its own time for that.

        Args:
            again: ask once more if it was asked before, by which it ends what it works on.
        """
        if child.process is None:
            return
        if because == _ORDER and self._is_stopped(child):
            return  # It is ending, and not to be started again.
        child.why = because
        if child.kill_at and not again:
            return
        child.process.terminate()
        drain = 300.0 if child.spec.drain_s is None else child.spec.drain_s
        child.kill_at = child.kill_at or self._bus.source.monotonic() + drain + PATIENCE_S

    def _is_stopped(self, child: Child) -> bool:
        """Tell whether a person has told a worker to end, by its name."""
        with suppress(BusError):
            return self._bus.store.records.read(STOPS, child.holder) is not None
        return False

    def _kill(self, child: Child) -> None:
        """End a worker and what its commands left, whatever it says."""
        if child.process is not None:
            _signal(child, signal.SIGKILL)
            child.process.wait()
            self._gone(child)

    def _gone(self, child: Child) -> int:
        """Note that a worker's process has ended; end what it left, and give back what it held (rule V4)."""
        assert child.process is not None
        code, child.process = child.process.returncode, None
        child.kill_at = 0.0
        with suppress(BusError):
            self._bus.store.records.remove(STOPS, child.holder)
        if code:
            remains.end(f"MCP_BUS_SUPERVISED={child.name} {child.session}")
            with suppress(BusError):
                remains.give_back(self._bus, child.holder, f"its worker {child.name} died")
        return code

    # --- looking ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See who has ended, and decide what follows."""
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child)
            elif child.process is not None and child.kill_at and self._bus.source.monotonic() >= child.kill_at:
                self._host.say(f"{child.name} does not end, and is killed")
                child.kill_at = 0.0
                _signal(child, signal.SIGKILL)

    def _ended(self, child: Child) -> None:
        is_ending = bool(self._asked or self._gave_up) or self._is_stopped(child)
        code, because = self._gone(child), child.why
        if code not in (0, -signal.SIGTERM) and not is_ending and because != _ORDER:
            self._died(child, because or _how(code))
            return
        child.state = "waiting" if because == _ORDER and not is_ending else "ended"
        child.due = self._bus.source.monotonic()
        self._host.say(f"{child.name} ended")

    def _died(self, child: Child, why: str) -> None:
        """Start a worker anew, or give up (rules V1 to V3)."""
        now = self._bus.source.monotonic()
        self._restarts.append(now)
        while self._restarts and now - self._restarts[0] > self._fleet.within_s:
            self._restarts.popleft()
        if self._bus.source.now() - child.since > WELL_S * 1000:
            child.failures = 0
        if len(self._restarts) > self._fleet.max_restarts:
            child.state, child.why = "failed", why
            many = f"{len(self._restarts)} deaths in {self._fleet.within_s:g} s, {self._fleet.max_restarts} are allowed"
            self._give_up(f"{child.name} {why}; {many}")
            return
        pause = min(MOST_PAUSE_S, PAUSE_S * 2.0**child.failures)
        child.failures += 1
        child.restarts += 1
        child.state, child.why, child.due = "waiting", why, now + pause
        self._host.say(f"{child.name} {why}; starting it anew in {pause:g} s")
        if self._fleet.strategy == "rest_for_one":
            for other in self.children[self.children.index(child) + 1 :]:
                self._end(other, because=_ORDER)

    def _give_up(self, why: str) -> None:
        self._gave_up = why
        self._host.say(f"giving up: {why}; logs: mcp-bus worker logs NAME")
        for child in reversed(self.children):
            self._end(child, because="the fleet gave up")
        with suppress(BusError):
            text = f"the fleet of {self._about} gave up: {why}"
            self._bus.mail.send(HUMAN, text[:2000], type="status", priority=1)

    def _check_health(self) -> None:
        """Kill workers whose processes run and that give no sign of life (rule V1)."""
        silent = {seen.presence.holder for seen in self._bus.roster.all() if seen.why == SILENCE}
        for child in self.children:
            if child.process is not None and child.holder in silent and child.process.poll() is None:
                child.why = "gave no sign of life"
                _signal(child, signal.SIGKILL)

    def _wait(self) -> None:
        """Wait until a worker ends, is due, or somebody says a word."""
        now = self._bus.source.monotonic()
        waiting = [child for child in self.children if child.state == "waiting" and child.process is None]
        if self._fleet.strategy == "rest_for_one":
            waiting = [child for child in waiting[:1] if not self._is_held_up(child)]
        due = [child.due - now for child in waiting]
        due += [child.kill_at - now for child in self.children if child.process is not None and child.kill_at]
        with remains.Ends([child.process.pid for child in self.children if child.process is not None]) as ends:
            longest = BEAT_S if ends.are_told else LOOK_S
            told = select.select([self._wake[0], *ends.fds], [], [], max(0.0, min([longest, *due])))[0]
        if self._wake[0] in told:
            for _ in range(os.read(self._wake[0], 64).count(b"s")):
                self._asked += 1
                self._host.say("ending: workers may end what they work on; told again, that is given back")
                for child in reversed(self.children):
                    self._end(child, because="told to end", again=self._asked > 1)

    def _note(self) -> None:
        """Write down how the fleet stands, for `worker ps`."""
        data: dict[str, Any] = {
            "pid": os.getpid(), "started": process.started(os.getpid()),
            "host": process.host(), "boot": process.boot_id(),
            "file": self._about, "strategy": self._fleet.strategy,
            "workers": [
                {
                    "name": child.name, "state": child.state, "pid": child.process.pid if child.process else 0,
                    "started": child.started if child.process else 0, "since": child.since,
                    "restarts": child.restarts, "why": child.why, "holder": child.holder,
                }
                for child in self.children
            ],
        }  # fmt: skip
        records = self._bus.store.records
        with suppress(BusError):
            known = records.read(KIND, self._token)
            if known is None or dict(known.data) != data:
                records.write(KIND, self._token, data, after=known.revision if known else 0, durable=False)
            else:
                records.touch(KIND, self._token)


_ORDER = "one before it died"


def _signal(child: Child, number: signal.Signals) -> None:
    """Send a signal to a worker's group; its process was not waited for yet, so the number is its own."""
    if child.process is not None and child.process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, number)


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
