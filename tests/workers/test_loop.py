"""A worker claims, works on several tasks at once, and ends without losing any."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from mcp_bus.model import State
from mcp_bus.workers import jobs, loop
from mcp_bus.workers.jobs import NotStarted
from mcp_bus.workers.loop import Loop, Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body
    from mcp_bus.workers.fates import Told
    from tests.workers.conftest import Work

SOON_S = 30.0


class Watched:
    """What a worker said it did."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.ends: list[str] = []
        self.troubles: list[str] = []
        self.most = 0

    def begun(self, body: Body) -> None:
        self.starts.append(body.id)
        self.most = max(self.most, len(self.starts) - len(self.ends))

    def ended(self, body: Body, told: Told) -> None:
        del told
        self.ends.append(body.id)

    def say(self, text: str) -> None:
        self.troubles.append(text)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PULSE_S", 0.02)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def worker(work: Work, place: Path, watched: Watched) -> Callable[..., Loop]:
    def make(code: str, recipe: dict[str, Any] | None = None, **scope: Any) -> Loop:
        def opened() -> Bus:
            return open_bus(place, create=False, agent="worker", session="2", durability="none")

        made = work.recipe(code, **(recipe or {}))
        return Loop(opened, place, made, Scope(**{"idle_s": 0.3, **scope}), watched)

    return make


def until(what: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SOON_S
    while not what():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.01)


def states(work: Work, ids: list[str]) -> Counter[State]:
    return Counter(work.bus.get(task_id).state for task_id in ids)


def test_a_worker_does_all_there_is_and_ends_when_nothing_comes(work: Work, worker: Callable[..., Loop]) -> None:
    ids = [work.post(f"task {number}") for number in range(5)]
    made = worker("print('done')")
    made.run()
    assert states(work, ids) == {State.DONE: 5}
    assert made.fates == {"done": 5}


def test_it_works_on_as_many_at_once_as_it_may_and_no_more(
    work: Work, worker: Callable[..., Loop], watched: Watched
) -> None:
    ids = [work.post(f"task {number}") for number in range(6)]
    code = (  # Each waits until three have come together, which only happens when three run at once.
        "import os, time\nname = os.environ['MCP_BUS_TASK']\nopen('here-' + name, 'w').close()\n"
        "end = time.monotonic() + 30\n"
        "while len([n for n in os.listdir('.') if n.startswith('here-')]) < 3 and time.monotonic() < end: pass\n"
        "print(time.monotonic() < end)"
    )
    worker(code, concurrency=3).run()
    assert states(work, ids) == {State.DONE: 6}
    assert {work.bus.get(task_id).result.content for task_id in ids} == {"True"}  # type: ignore[union-attr]  # all are done
    assert watched.most == 3


def test_it_takes_no_more_than_it_was_told_to(work: Work, worker: Callable[..., Loop]) -> None:
    ids = [work.post(f"task {number}") for number in range(6)]
    worker("print('done')", most=4, concurrency=3).run()
    assert states(work, ids) == {State.DONE: 4, State.READY: 2}


def test_what_it_is_not_able_to_do_or_does_not_want_it_leaves_to_others(
    work: Work, worker: Callable[..., Loop]
) -> None:
    other, mine = work.post("x", requires=["gpu"]), work.post("x", requires=["python"])
    skipped = work.post("x", type="signal")

    def only(body: Body) -> bool:
        return body.type == "task"

    worker("print('done')", capabilities=("python",), only=only).run()
    assert [work.bus.get(task_id).state for task_id in (other, mine, skipped)] == ["ready", "done", "ready"]
    assert work.bus.get(skipped).slot.releases == 0, "it was not even claimed"


def test_it_says_that_it_is_there_with_what_it_can_do_and_where(
    work: Work, worker: Callable[..., Loop], watched: Watched
) -> None:
    work.post()
    made = worker("import time; time.sleep(600)", capabilities=("python",), channels=("work",))
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: bool(watched.starts))
    (seen,) = [item for item in work.bus.roster.all() if item.presence.session == "2"]
    assert (seen.is_live, seen.presence.capabilities, seen.presence.serves) == (True, ("python",), ("work",))
    made.stop()
    made.stop()
    thread.join(SOON_S)
    (seen,) = [item for item in work.bus.roster.all() if item.presence.session == "2"]
    assert seen.why == "its session has ended"


def test_told_to_end_it_lets_what_it_works_on_end_and_takes_nothing_more(
    work: Work, worker: Callable[..., Loop], watched: Watched, place: Path
) -> None:
    ids = [work.post(f"task {number}") for number in range(2)]
    made = worker(
        "import os, time\nend = time.monotonic() + 30\n"
        "while not os.path.exists('go') and time.monotonic() < end: pass\nprint('done')"
    )
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: bool(watched.starts))
    made.stop()
    (place.parent / "go").touch()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert states(work, ids) == {State.DONE: 1, State.READY: 1}


@pytest.mark.parametrize("how", ["told again", "time is up", "its starter is gone"])
def test_told_again_or_out_of_time_it_ends_its_commands_and_gives_their_tasks_back(
    work: Work, worker: Callable[..., Loop], watched: Watched, how: str
) -> None:
    task_id = work.post()
    made = worker("import time; time.sleep(600)", drain_s=600.0 if how == "told again" else 0.2)
    leash, holder = os.pipe()
    thread = threading.Thread(target=made.run, args=(leash,))
    thread.start()
    until(lambda: bool(watched.starts))
    if how == "its starter is gone":
        os.close(holder)
    else:
        made.stop()
    if how == "told again":
        made.stop()
    thread.join(SOON_S)
    assert not thread.is_alive()
    task = work.bus.get(task_id)
    assert (task.state, task.slot.attempt) == (State.READY, 0)
    assert task.history[-1].note == "its worker was told to end"
    os.close(leash)


def test_a_command_that_cannot_be_started_ends_the_worker_and_costs_no_attempt(
    work: Work, worker: Callable[..., Loop]
) -> None:
    ids = [work.post(f"task {number}") for number in range(3)]
    made = worker("", idle_s=0.0)
    made._recipe = made._recipe._replace(words=("./no-such-program",))
    with pytest.raises(NotStarted):
        made.run()
    assert states(work, ids) == {State.READY: 3}
    assert {work.bus.get(task_id).slot.attempt for task_id in ids} == {0}


def test_a_worker_that_is_not_logged_in_ends_rather_than_use_up_every_task(
    work: Work, worker: Callable[..., Loop]
) -> None:
    task_id = work.post()
    made = worker("import sys; sys.exit('Not logged in. Please run /login')", {"reader": "claude"}, idle_s=0.0)
    with pytest.raises(NotStarted, match=r"cannot work here: .*Not logged in"):
        made.run()
    task = work.bus.get(task_id)
    assert (task.state, task.slot.attempt) == (State.READY, 0)


def test_after_a_rate_limit_nothing_is_claimed_for_a_while_and_the_task_is_given_back(
    work: Work, worker: Callable[..., Loop], watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LIMIT_S", 0.5)
    ids = [work.post(f"task {number}") for number in range(2)]
    code = (
        "import os, sys\nif not os.path.exists('limited'):\n"
        "    open('limited', 'w').close(); sys.exit('429: too many requests')\nprint('done')"
    )
    made = worker(code, {"reader": "claude"}, idle_s=5.0, most=2)
    start = time.monotonic()
    made.run()
    assert time.monotonic() - start >= 0.5
    assert made.fates == {"limited": 1, "done": 2}
    assert watched.starts[0] == watched.starts[1], "the same task once more"
    assert [work.bus.get(task_id).slot.attempt for task_id in ids] == [1, 1]


def test_what_commands_took_is_summed(work: Work, worker: Callable[..., Loop]) -> None:
    ids = [work.post(f"task {number}") for number in range(3)]
    said = '{"type": "result", "result": "ok", "total_cost_usd": 0.5, "usage": {"input_tokens": 7}}'
    made = worker(f"print({said!r})", {"reader": "claude"})
    made.run()
    assert made.usage == {"cost_usd": 1.5, "input_tokens": 21}
    result = work.bus.get(ids[0]).result
    assert result is not None
    assert dict(result.usage) == {"cost_usd": 0.5, "input_tokens": 7}


def test_trouble_with_the_medium_is_told_and_waited_out(
    work: Work, worker: Callable[..., Loop], watched: Watched, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TROUBLE_S", 0.05)
    made = worker("print('done')", idle_s=0.0, most=1)
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: any(item.presence.session == "2" for item in work.bus.roster.all()))
    away = place.with_name("away")
    place.rename(away)
    until(lambda: bool(watched.troubles))
    away.rename(place)
    task_id = work.post()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert work.bus.get(task_id).state is State.DONE
    assert "there is no bus" in watched.troubles[0]
