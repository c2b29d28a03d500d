"""Running a command that somebody else wrote: in a process group of its own, with a time limit, its output bounded.

No shell reads it.  Whatever it started and left behind in its group ends with it; what has made itself a session of
its own is out of reach.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Sink = Callable[[bytes], object]
    Pulse = Callable[[], str]

# What a group is given between being asked to end and being killed.
PATIENCE_S = 5.0
# Where a process cannot be waited for together with its output, it is looked at this often.
LOOK_S = 0.05
# Output that is still in a pipe when a command has ended is read for at most this long: others may hold the pipe.
DRAIN_S = 1.0
CHUNK = 64 * 1024
# One wait; not every system can be asked to wait for as long as a float can say.
LONGEST_S = 3600.0


class Command(NamedTuple):
    """What is run, and within which limits.

    Attributes:
        words: the program and its arguments, each as it is.
        environment: all that it sees, and nothing else.
        stdin: what it can read.
        limit_s: seconds until it is ended.
        keep: bytes of its stdout that are kept: the last ones.
        joins: whether its stderr is taken for stdout.
    """

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    stdin: bytes = b""
    limit_s: float = 600.0
    keep: int = 64 * 1024
    joins: bool = False


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code; minus the signal's number if a signal ended it.
        output: the last bytes of its stdout, at most as many as were to be kept.
        size: how many bytes it wrote to stdout.
        why: why it was ended from outside; empty when it ended by itself.
    """

    code: int
    output: bytes
    size: int
    why: str


def run(command: Command, *, sink: Sink | None = None, pulse: Pulse | None = None, pulse_s: float = 1.0) -> Ended:
    """Run a command until it ends, is out of time, or is not wanted any more; return how it ended.

    Args:
        sink: is given all it writes, as it comes.
        pulse: called every `pulse_s`; a text that it returns is why the command is ended.

    Raises:
        OSError: it could not be started.
    """
    with tempfile.TemporaryFile() as stdin:
        stdin.write(command.stdin)
        stdin.seek(0)
        process = subprocess.Popen(  # noqa: S603  the caller vouches for the words, and no shell reads them
            list(command.words),
            cwd=command.folder,
            env=dict(command.environment),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if command.joins else subprocess.PIPE,
            start_new_session=True,
        )
    with _Running(process, command.keep, sink) as running:
        why = running.watch(command.limit_s, pulse, pulse_s)
        running.end(softly=bool(why))
        return Ended(process.returncode, bytes(running.kept), running.size, why)


class _Running:
    """A process that runs: what it writes, and its end."""

    def __init__(self, process: subprocess.Popen[bytes], keep: int, sink: Sink | None) -> None:
        self.kept = bytearray()
        self.size = 0
        self._process = process
        self._is_finished = False
        self._keep = keep
        self._sink = sink
        self._pipes = selectors.DefaultSelector()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._pipes.register(pipe, selectors.EVENT_READ)
        self._exit = _exit_of(process.pid)
        if self._exit >= 0:
            self._pipes.register(self._exit, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """End what is left, whatever went wrong."""
        self._finish()
        self._pipes.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        if self._exit >= 0:
            os.close(self._exit)

    def watch(self, limit_s: float, pulse: Pulse | None, pulse_s: float) -> str:
        """Wait until the process has ended; return why it should be ended instead, if it should."""
        start = time.monotonic()
        next_pulse = start + pulse_s
        while not self._has_ended():
            now = time.monotonic()
            if now - start >= limit_s:
                return f"it did not end within {limit_s:g} s"
            if pulse is not None and now >= next_pulse:
                why = pulse()
                if why:
                    return why
                next_pulse = now + pulse_s
            left = min(start + limit_s, next_pulse if pulse is not None else start + limit_s) - now
            self._read(min(LONGEST_S, max(0.0, left)))
        return ""

    def end(self, *, softly: bool) -> None:
        """End the group; let it end by itself first if it is asked softly.  Read what is left of its output."""
        if softly:
            self._kill(signal.SIGTERM)
            end = time.monotonic() + PATIENCE_S
            while not self._has_ended() and time.monotonic() < end:
                self._read(end - time.monotonic())
        self._finish()
        end = time.monotonic() + DRAIN_S
        while self._is_open() and time.monotonic() < end:
            self._read(end - time.monotonic())

    def _finish(self) -> None:
        """Kill the group and take the process's id from it: after that, both numbers may be another's."""
        if not self._is_finished:
            self._kill(signal.SIGKILL)
            self._process.wait()
            self._is_finished = True

    def _has_ended(self) -> bool:
        """Tell whether the process has ended, without taking its id from it where that can be: it names the group."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # Darwin: a group of ended processes may not be signalled.
            os.killpg(self._process.pid, number)

    def _is_open(self) -> bool:
        return any(key.fileobj != self._exit for key in self._pipes.get_map().values())

    def _read(self, wait_s: float) -> None:
        """Take what was written; wait for it, or for the end, for at most so long."""
        if self._exit < 0:
            wait_s = min(wait_s, LOOK_S)
        for key, _ in self._pipes.select(wait_s):
            if key.fileobj == self._exit:
                self._pipes.unregister(self._exit)
            else:
                self._take(key.fileobj)  # type: ignore[arg-type]  # only pipes are left

    def _take(self, pipe: IO[bytes]) -> None:
        try:
            data = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._pipes.unregister(pipe)
            return
        if self._sink is not None:
            self._sink(data)
        if pipe is self._process.stdout:
            self.size += len(data)
            self.kept += data
            del self.kept[: max(0, len(self.kept) - self._keep)]


def _exit_of(pid: int) -> int:
    """Return a descriptor that can be read once a process has ended; -1 where there is none such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
