"""The demo's actors and its script's bookkeeping: start, ask, kill, check, tell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from mcp_bus.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No answer of an agent may take longer.
ANSWER_S = 30.0
_CLAIMED = re.compile(r"^task (?P<task>\w+) token (?P<token>\w+) on \S+, attempt (?P<attempt>\d+)", re.MULTILINE)
_POSTED = re.compile(r"^posted (?P<task>\w+) on ")


class DemoError(Exception):
    """A step did not show what it promises."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task as `claim_next` handed it out."""

    task: str
    token: str
    attempt: int
    text: str


class Actor:
    """An agent process with a server process of its own."""

    def __init__(self, bus: Path, name: str, era: str) -> None:
        """Start both; `hello` waits for them."""
        self.name = name
        self._lines: Queue[str] = Queue()
        command = [sys.executable, "-m", "mcp_bus.demo.agent", str(bus), name, era]
        self._process = subprocess.Popen(  # noqa: S603  our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        Thread(target=self._read, daemon=True).start()
        self.about: dict[str, Any] = {}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def hello(self) -> dict[str, Any]:
        """Wait until agent and server talk to each other; return what they said about themselves."""
        self.about = self._next()
        return self.about

    def ask(self, tool: str, **args: object) -> None:
        """Send a tool call without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"tool": tool, "args": args}) + "\n")
        self._process.stdin.flush()

    def answer(self, *, fails: bool = False) -> str:
        """Wait for the answer to the oldest open call."""
        said = self._next()
        if said["failed"] != fails:
            msg = f"{self.name}'s call {'did not fail' if fails else 'failed'}: {said['text']}"
            raise DemoError(msg)
        return str(said["text"])

    def call(self, tool: str, **args: object) -> str:
        """Call a tool and wait for its answer."""
        self.ask(tool, **args)
        return self.answer()

    def post(self, channel: str, body: str, **args: object) -> str:
        """Post a task; return its short id."""
        return match(_POSTED, self.call("post_task", channel=channel, body=body, **args))["task"]

    def claimed(self) -> Claimed:
        """Read the answer to `claim_next` as a task."""
        text = self.answer()
        found = match(_CLAIMED, text)
        return Claimed(found["task"], found["token"], int(found["attempt"]), text)

    def claim(self, channel: str, wait_s: float = 20) -> Claimed:
        """Wait for a task on a channel and claim it."""
        self.ask("claim_next", channels=[channel], wait_s=wait_s)
        return self.claimed()

    def submit(self, claimed: Claimed, result: str, status: str = "done") -> str:
        """End an attempt."""
        return self.call("submit_result", task=claimed.task, token=claimed.token, status=status, result=result)

    def kill(self) -> list[int]:
        """Kill the server, then the agent, with -9; return the ids of the dead."""
        victims = [*self.about["server"], self._process.pid]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        code = self._process.wait(ANSWER_S)
        check(code == -signal.SIGKILL, f"{self.name} died of {code}, not of kill -9")
        return victims

    def leave(self) -> int:
        """End stdin, wait for the process, return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(ANSWER_S)

    def stop(self) -> None:
        """End whatever still runs; for cleaning up after a failure."""
        if self._process.poll() is None:
            # The server would otherwise write to the bus while that is being removed.
            for pid in self.about.get("server", ()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait(ANSWER_S)

    def _next(self) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(self._lines.get(timeout=ANSWER_S))
        except Empty:
            msg = f"{self.name} said nothing for {ANSWER_S:.0f} s"
            raise DemoError(msg) from None
        return said


class Troupe(list[Actor]):
    """All actors; whoever still runs at the end is stopped."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        for actor in self:
            actor.stop()


def match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    """Find a pattern that an answer must have."""
    found = pattern.search(text)
    if found is None:
        msg = f"unexpected answer: {text}"
        raise DemoError(msg)
    return found


def check(fact: object, claim: str) -> None:
    """Fail the demo when a fact it claims is not one."""
    if not fact:
        raise DemoError(claim)


def command(bus: Path, agent: str, *words: str) -> str:
    """Run the command line as somebody; return the JSON that it printed."""
    told = ["--bus", str(bus), "--agent", agent, "--json", *words]
    done = subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", "mcp_bus", *told], capture_output=True, encoding="utf-8", timeout=ANSWER_S, check=False
    )
    check(done.returncode == 0, f"mcp-bus {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def clock(at: int) -> str:
    """Return the time of day of a time in milliseconds, as the journal has it."""
    return stamp(at)[11:23]


@dataclass(slots=True)
class Story:
    """What has been shown so far; prints as it goes unless JSON is wanted."""

    as_json: bool
    steps: list[dict[str, Any]] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    def step(self, title: str, lines: list[str], **facts: object) -> None:
        """Note a step that held, with what was seen."""
        at = round(time.monotonic() - self._start, 2)
        self.steps.append({"step": title, "ok": True, "at_s": at, **facts})
        if not self.as_json:
            print(f"\n[{at:5.1f} s] {len(self.steps)}. {title}")
            for line in lines:
                print(f"    {line}")

    def failed(self, error: Exception) -> None:
        """Note the step that did not hold."""
        self.steps.append({"step": "failed", "ok": False, "error": f"{type(error).__name__}: {error}"})
        print(f"\nDEMO FAILED after step {len(self.steps) - 1}: {error}", file=sys.stderr)

    @property
    def ok(self) -> bool:
        """Whether every step held."""
        return all(step["ok"] for step in self.steps)

    def finish(self, *, bus: str, kept: bool) -> None:
        """Print the end of the story, or the JSON document."""
        if self.as_json:
            print(json.dumps({"ok": self.ok, "bus": bus, "kept": kept, "steps": self.steps}, indent=2))
        elif kept:
            print(f"\nThe bus is kept at {bus}; look at it with: mcp-bus --bus {bus} status")
        elif self.ok:
            print(f"\nAll {len(self.steps)} steps held. Run it with --keep to look at the files.")


def tree(root: Path, below: str = "") -> Iterator[str]:
    """List a bus as `ls` would, folders first, without the journal's and boot marker's names."""
    for path in sorted((root / below).iterdir(), key=lambda item: (item.is_file(), item.name)):
        if path.is_dir():
            names = sorted(item.name for item in path.iterdir())
            yield f"{path.name}/  {'  '.join(names[:4])}{'  …' if len(names) > 4 else ''}"
        else:
            yield path.name
