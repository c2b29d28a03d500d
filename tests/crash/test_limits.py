"""No descriptor is left, or no memory to spare: a clear error, no false word, and nothing that grows (P14, P21)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import find
from mcp_bus.cli.codes import ERROR
from mcp_bus.errors import BusError, StoreUnavailable
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.fsops import Found, Fs
from tests.crash import auditor
from tests.crash.crowd import quick
from tests.crash.test_kill_verbs import CHANNEL, VERBS, check, repeat, worked_off
from tests.crash.victim import Faulty, Steps, copy, ended, fork, open_at, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus

ROOT = Path(__file__).resolve().parents[2]
only_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no way to count descriptors")


class Exhausted(Fs):
    """Fails at an opening call, by number: once, or from then on until mended; everything else is real."""

    def __init__(self, step: int, code: int, *, sticky: bool = False) -> None:
        self.count = self.failed = 0
        self._step = step
        self._code = code
        self._sticky = sticky

    def mend(self) -> None:
        self._step = -1

    def _open(self, name: str) -> None:
        number, self.count = self.count, self.count + 1
        if number == self._step or (self._sticky and 0 <= self._step < number):
            self.failed += 1
            raise OSError(self._code, os.strerror(self._code), name)

    def open_dir(self, name: str, at: int | None) -> int:
        self._open(name)
        return super().open_dir(name, at)

    def open_new(self, name: str, at: int) -> int:
        self._open(name)
        return super().open_new(name, at)

    def open_append(self, name: str, at: int) -> int:
        self._open(name)
        return super().open_append(name, at)

    def read(self, name: str, at: int, limit: int) -> Found:
        self._open(name)
        return super().read(name, at, limit)

    def names(self, fd: int) -> list[str]:
        self._open("")  # `os.listdir` opens the folder once more.
        return super().names(fd)

    def fsync(self, fd: int) -> None:
        """Opens nothing."""

    def sync_name(self, name: str, at: int) -> None:
        del at  # Nothing that is looked at here depends on it.
        self._open(name)


MODES = {
    "once": ("ENFILE", False, "too many open files"),
    "from then on": ("EMFILE", True, "too many open files"),
    "unreadable": ("EIO", False, "input/output error"),
}


# One of each way of going about it: making, moving, ending, writing history, making a second task.
SOME = (
    "keyed post to a new channel", "claim", "renew", "ack", "nack to dead", "cancel of a leased one", "edited retry",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SOME)
def test_a_verb_that_cannot_open_something_is_done_or_refused(disk: Path, name: str, mode: str) -> None:
    verb, start, (code, sticky, why) = VERBS[name], disk / "bus", MODES[mode]
    layout.create(start, fs=Steps())
    with open_at(start) as bus:
        ticket = verb.prepare(bus)
    before = auditor.sound(start).names
    for step in range(200):
        fs = Exhausted(step, getattr(errno, code), sticky=sticky)
        root = copy(start, disk / f"step-{step}")
        error = refusal(lambda root=root, fs=fs: served(root, fs, lambda bus: verb.request(bus, ticket)))  # type: ignore[misc]  # defaults in a lambda
        where = f"{code} at opening {step}, {mode}: {error!r}"
        if error is not None:
            assert isinstance(error, StoreUnavailable), where
            assert why in str(error), where
            assert error.hint, where
        else:
            assert auditor.look(root).names != before, f"a false word: {where}"
        repeat(verb, root, ticket, offset=0, said=where)
        worked_off(root)
        check(verb, root, ticket, where)
        if not fs.failed:
            print(f"{step} openings")
            assert step >= 3
            return
    pytest.fail("two hundred openings and no end")


def served(root: Path, fs: Fs, work: Callable[[Bus], object]) -> None:
    """Open a bus, do one thing and close it, as the command line does."""
    with open_at(root, fs) as bus:
        work(bus)


# --- a real limit --------------------------------------------------------------------------------


def commanded(limit: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process that may have so many descriptors."""
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}));"
        "sys.argv[0] = 'mcp-bus'; runpy.run_module('mcp_bus', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60, stdin=0
    )


@pytest.mark.parametrize(
    ("verb", "has_folder"),
    [("post", False), ("claim", False), ("submit", False), ("claim", True)],
    ids=["post", "claim", "submit", "claim of a user with a private folder"],
)
def test_a_verb_under_a_low_limit_of_descriptors_is_done_or_says_what_to_raise(
    disk: Path, verb: str, monkeypatch: pytest.MonkeyPatch, *, has_folder: bool
) -> None:
    start = disk / "start"
    monkeypatch.setenv("HOME", str(disk))
    if has_folder:
        (disk / ".local/state/mcp-bus/trust/places").mkdir(parents=True)
    layout.create(start, fs=Steps())
    with open_at(start) as bus:
        bus.post(CHANNEL, "x", backoff_s=0)
        task = bus.claim([CHANNEL], lease_s=3000)
        assert task is not None
        bus.post(CHANNEL, "y", backoff_s=0)
    words = {
        "post": (CHANNEL, "z"),
        "claim": (CHANNEL,),
        "submit": (task.id, "--token", task.lease.token, "--done", "the answer"),
    }
    before, codes = auditor.sound(start).names, list[int]()
    for limit in (5, 6, 8, 10, 13, 64):
        root = copy(start, disk / f"limit-{limit}")
        done = commanded(limit, "--bus", str(root), verb, *words[verb])
        codes.append(done.returncode)
        audit = auditor.sound(root)
        if done.returncode == 0:
            assert audit.names != before, f"{limit} descriptors: a false word: {done.stdout}"
        else:
            assert done.returncode == ERROR, done.stderr
            assert "oo many open files" in done.stderr
            assert audit.results == {}
        if limit > 7 and done.returncode:  # With fewer, the interpreter may be the one who speaks.
            assert "next: raise `ulimit -n`" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        worked_off(root)
        assert set(auditor.settled(root).count()) == {"done"}
    assert codes[0] == ERROR
    assert codes[-1] == 0
    assert codes == sorted(codes, reverse=True), "what is enough stays enough"


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  only the number counts


def cycle(bus: Bus, number: int) -> None:
    """Post, send, work and end in one of several ways."""
    bus.post(CHANNEL, str(number), key=f"k{number}")
    task = bus.claim([CHANNEL])
    assert task is not None
    bus.renew(task, progress="half")
    ends: tuple[Callable[[], object], ...] = (
        lambda: bus.ack(task, "x"),
        lambda: bus.nack(task, "no"),
        lambda: bus.release(task),
        lambda: bus.cancel(task.id),
    )
    ends[number % len(ends)]()
    bus.get(task.id)


@only_proc
def test_a_thousand_operations_leave_no_descriptor_open(disk: Path) -> None:
    layout.create(disk / "bus", fs=Steps())
    before = opened()
    with quick(disk / "bus", "ann") as bus:
        for number in range(20):
            cycle(bus, number)
        sweep(bus)
        warm = opened()
        for number in range(20, 170):  # Each is seven operations.
            cycle(bus, number)
        sweep(bus)
        # An open folder for each task's history is kept for a while, within the limit of the store.
        assert opened() - warm <= 96
        assert opened() - before <= 110
    assert opened() == before


@only_proc
@pytest.mark.parametrize(("how", "code"), [(Exhausted, "EMFILE"), (Exhausted, "EIO"), (Faulty, "ENOSPC")])
def test_operations_that_fail_leave_no_descriptor_open(disk: Path, how: type[Exhausted | Faulty], code: str) -> None:
    layout.create(disk / "bus", fs=Steps())
    before, failed = opened(), 0
    for step in range(120):
        fs = how(step, getattr(errno, code))
        with contextlib.suppress(BusError), open_at(disk / "bus", fs) as bus:
            for number in range(3):
                cycle(bus, step * 10 + number)
            sweep(bus)
        failed += bool(fs.failed)
        assert opened() == before, f"{code} at step {step}"
    assert failed > 50
    auditor.sound(disk / "bus")


# --- memory --------------------------------------------------------------------------------------

WAITING = 100_000
# What such a listing may take: some hundred bytes for each name.
MOST_MIB = 60


@pytest.fixture
def wide(disk: Path) -> Path:
    """A bus on which 100,000 tasks wait; only the first has a body of its own, for only it is claimed."""
    root, made = disk / "bus", list[str]()
    layout.create(root, fs=Steps())
    with quick(root, "ann") as bus:
        made = [bus.post(CHANNEL, str(number)).id for number in range(4)]
    folder = root / "channels" / CHANNEL / "requests"
    at = os.open(folder, os.O_RDONLY)
    for number in range(WAITING - len(made)):
        # A file may have 65,000 names.
        os.link(f"{made[1 + number % 3]}.json", f"req_7{number:031x}.json", src_dir_fd=at, dst_dir_fd=at)
    os.close(at)
    return root


WORK: dict[str, Callable[[Bus], object]] = {
    "claim": lambda bus: bus.claim([CHANNEL]),
    "a page of a listing": lambda bus: list(islice(find.tasks(bus, state="ready"), 4)),
    "counting": lambda bus: bus.store.count(CHANNEL),
    "a page of the store": lambda bus: list(bus.store.scan(CHANNEL, State.READY, limit=50)),
    "a sweep": lambda bus: sweep(bus, thorough=False),
}


def weigh(root: Path) -> dict[str, int]:
    """Return how many MiB each work takes at most, each in a process of its own, forked from this one."""
    ear, mouth = os.pipe()

    def measured(work: Callable[[Bus], object]) -> None:
        with quick(root, "bob") as bus:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert work(bus) is not None
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(mouth, json.dumps((after - before) // 1024).encode())

    took = dict[str, int]()
    for name, work in WORK.items():
        assert ended(fork(lambda work=work: measured(work))) == 0  # type: ignore[misc]  # a default argument in a lambda
        took[name] = int(os.read(ear, 100))
    os.close(ear)
    os.close(mouth)
    return took


def test_a_hundred_thousand_waiting_tasks_take_bounded_memory(wide: Path) -> None:
    # From a fresh process: one that ran other tests has room left in its heap, and takes no more.
    code = "import json, pathlib, sys; from tests.crash import test_limits as here;"
    code += "print(json.dumps(here.weigh(pathlib.Path(sys.argv[1]))))"
    words = [sys.executable, "-c", code, str(wide)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    took = json.loads(done.stdout)
    print(f"MiB for {WAITING} waiting tasks: {took}")
    assert max(took.values()) < MOST_MIB
    assert sum(took.values()) > 0, "nothing was measured"
