"""Every changing call fails once, from then on, or after it was done: an error, never a false word (P14, P15)."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.errors import BusError, Conflict, IllegalTransition, LeaseLost, StoreUnavailable
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.test_kill_verbs import ANSWER, CHANNEL, dead, drained, leased, nothing, ready
from tests.crash.victim import HOUR, Faulty, Steps, Stingy, copy, errnos, open_at
from tests.tally import FAULTS
from tests.tally import tried as attempted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Ticket


class Verb(NamedTuple):
    """A request, the state it starts from, and the states its task may be in once it was accepted."""

    prepare: Callable[[Bus], Ticket]
    request: Callable[[Bus, Ticket], object]
    accepted: frozenset[str]


VERBS = {
    "post": Verb(nothing, lambda bus, _: bus.post(CHANNEL, "x", key="k"), frozenset({"ready"})),
    "post to a new channel": Verb(nothing, lambda bus, _: bus.post("new", "x", key="k"), frozenset({"ready"})),
    "claim": Verb(ready, lambda bus, _: bus.claim([CHANNEL]), frozenset({"leased"})),
    "ack": Verb(leased, lambda bus, t: bus.ack(t, ANSWER), frozenset({"done"})),
    "nack": Verb(leased, lambda bus, t: bus.nack(t, "no"), frozenset({"ready"})),
    "cancel": Verb(ready, lambda bus, t: bus.cancel(t.id), frozenset({"cancelled"})),
    "retry": Verb(dead, lambda bus, t: bus.retry(t.id), frozenset({"ready"})),
}
# Late: the call was made, and an error came back all the same.
MODES = {"once": (False, False), "from then on": (False, True), "done": (True, False)}
CASES = [(mode, code) for mode in MODES for code in (errnos() if mode == "once" else ("EIO", "ENOSPC"))]


@pytest.mark.parametrize(("mode", "code"), CASES)
@pytest.mark.parametrize("name", VERBS)
def test_a_failing_call_is_told_and_costs_nothing(disk: Path, name: str, mode: str, code: str) -> None:
    verb, root, (late, sticky) = VERBS[name], disk / "bus", MODES[mode]
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        ticket = verb.prepare(bus)
    for step in range(100):
        at = copy(root, disk / f"step-{step}")
        fs = Faulty(step, errnos()[code], late=late, sticky=sticky)
        said = f"{code} at step {step}, {mode}"
        with open_at(at, fs) as bus:
            is_accepted = tried(verb, bus, ticket, said)
            if is_accepted:
                audit = auditor.look(at)
                assert set(audit.states.values()) == verb.accepted, f"{said}: a false acknowledgement"
            failed = list(fs.failed)
            fs.mend()
            if not is_accepted:
                again(verb, bus, ticket)
        if not failed:
            break
        drained(at, offset=6 * HOUR)
        audit = auditor.settled(at)
        assert len(audit.states) == 1, said
        if name == "ack":
            assert audit.results == {ticket.id: ANSWER}, said
    else:
        pytest.fail("a hundred steps and no end")
    assert step >= 2


def tried(verb: Verb, bus: Bus, ticket: Ticket, said: str) -> bool:
    """Make a request on a failing disk; tell whether it was accepted."""
    told: BusError | None = None
    try:
        verb.request(bus, ticket)
    except BusError as error:
        told = error
    if told is not None:
        assert isinstance(told, StoreUnavailable | Conflict), f"{said}: {told!r}"
        assert str(told), said
        assert told.hint, said
    return told is None


def again(verb: Verb, bus: Bus, ticket: Ticket) -> None:
    """Repeat it once the disk is well; a refusal may only mean that it was done the first time."""
    try:
        verb.request(bus, ticket)
    except (LeaseLost, IllegalTransition):
        assert verb.request is not VERBS["ack"].request, "a repeated ack finds its own result"


@pytest.mark.parametrize("name", ["post", "ack"])
def test_a_file_whose_fsync_failed_is_dropped_and_never_synced_again(disk: Path, name: str) -> None:
    verb, root = VERBS[name], disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        ticket = verb.prepare(bus)

    class BadSync(Faulty):
        """Fails the first fsync of a file's content, and remembers what came after."""

        said: list[str]

        def before(self, number: int, op: object) -> None:
            call, path = str(op).split(" ")[:2]
            self.said = getattr(self, "said", [])
            if call == "fsync" and path.startswith("tmp/") and not self.failed:
                self._step = number
            self.said.append(f"{call} {path}")
            super().before(number, op)  # type: ignore[arg-type]  # an Op, which is what it gets

    fs = BadSync(-1, errno.EIO)
    with open_at(root, fs) as bus:
        with pytest.raises(StoreUnavailable, match="input/output"):
            verb.request(bus, ticket)
        assert len(fs.failed) == 1
        bad = fs.failed[0].path
        after = fs.said[fs.said.index(f"fsync {bad}") + 1 :]
        assert after[0] == f"unlink {bad}", "its name goes first"
        assert [line for line in after[1:] if bad in line] == [], "and nobody touches it again"
        assert not (root / bad).exists()
        verb.request(bus, ticket)
        assert [line for line in fs.said if line == f"fsync {bad}"] == [f"fsync {bad}"]
    audit = auditor.sound(root)
    assert set(audit.states.values()) == verb.accepted


@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
def test_a_sweep_that_fails_at_any_step_is_finished_by_the_next(disk: Path, code: str) -> None:
    root = disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        bus.post(CHANNEL, "lapses", backoff_s=0)
        bus.claim([CHANNEL], lease_s=60)
        bus.post(CHANNEL, "due", delay_s=60)
        bus.post(CHANNEL, "expires", ttl_s=60)
    for step in range(100):
        at = copy(root, disk / f"step-{step}")
        fs = Faulty(step, errnos()[code])
        with open_at(at, fs, offset=2 * HOUR) as bus:
            with contextlib.suppress(BusError):
                sweep(bus)
            if not fs.failed:
                return
            sweep(bus)
            assert auditor.sound(at).count() == {"ready": 2, "expired": 1}, f"step {step}"
    pytest.fail("a hundred steps and no end")


def test_short_writes_leave_whole_files(disk: Path) -> None:
    root, long = disk / "bus", "täst " * 4000
    layout.create(root, fs=Stingy())
    with open_at(root, Stingy()) as bus:
        bus.post(CHANNEL, long)
        task = bus.claim([CHANNEL])
        assert task is not None
        assert task.body.content == long
        bus.ack(task, long)
        result = bus.get(task.id).result
    assert result is not None
    assert result.content == long
    assert auditor.settled(root).results == {task.id: long}


def test_a_tombstone_that_does_not_fit_keeps_the_task(disk: Path) -> None:
    root = disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        posted = bus.post(CHANNEL, "x")
        bus.cancel(posted.id)
        slot = bus.get(posted.id).slot
    with open_at(root, Stingy()) as bus, pytest.raises(StoreUnavailable, match="full"):
        bus.store.swap(slot, None)
    with open_at(root) as bus:
        assert bus.get(posted.id).state == "cancelled"
        bus.store.swap(slot, None)
    assert auditor.traces_of(root, posted.id) == []
    with open_at(root) as bus, pytest.raises(BusError, match="cancelled on"):
        bus.get(posted.id)


@pytest.mark.parametrize("name", VERBS)
def test_a_close_that_fails_is_told_or_costs_nothing(disk: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb, root, close = VERBS[name], disk / "bus", os.close
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        ticket = verb.prepare(bus)
    for step in range(100):
        at, left = copy(root, disk / f"step-{step}"), [step]

        def failing(fd: int, left: list[int] = left) -> None:
            close(fd)  # As Linux does, whatever it then says.
            left[0] -= 1
            if left[0] == -1:
                attempted(FAULTS)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        said = f"closing fails at {step}"
        with open_at(at) as bus:
            with monkeypatch.context() as patched:
                patched.setattr(os, "close", failing)
                is_accepted = tried(verb, bus, ticket, said)
            if is_accepted:
                assert set(auditor.look(at).states.values()) == verb.accepted, f"{said}: a false acknowledgement"
            else:
                again(verb, bus, ticket)
        if left[0] >= 0:
            break
        drained(at, offset=6 * HOUR)
        assert len(auditor.settled(at).states) == 1, said
    else:
        pytest.fail("a hundred closings and no end")
    assert step >= 1
