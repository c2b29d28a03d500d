"""A fleet is kept alive: who dies is started anew, who dies too often ends it, and no task is lost by it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus, presence
from mcp_bus.identity import process
from mcp_bus.model import State
from mcp_bus.workers import fleet, remains, supervisor
from mcp_bus.workers.supervisor import Host, Supervisor
from tests.crash.victim import IS_SOAK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 60.0


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not what():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.02)


class Up:
    """A fleet that runs in a thread of the test."""

    def __init__(self, bus: Bus, root: Path, text: str) -> None:
        self.said: list[str] = []
        env = {
            "PATH": os.environ["PATH"], "HOME": str(root.parent), "PYTHONPATH": str(ROOT), "MCP_BUS_DURABILITY": "none",
        }  # fmt: skip
        host = Host((sys.executable, "-m", "mcp_bus"), env, root.parent, root, self.said.append)
        self.supervisor = Supervisor(bus, fleet.parse(text, "w.toml"), host, "w.toml")
        self.gave_up: list[str] = []
        self.thread = threading.Thread(target=lambda: self.gave_up.append(self.supervisor.run()))

    def pid(self, name: str) -> int:
        """Return the process of a worker that runs; 0 while it does not."""
        child = next(child for child in self.supervisor.children if child.name == name)
        running = child.process
        return running.pid if running is not None and child.state == "running" else 0

    def ready(self, bus: Bus, name: str) -> int:
        """Wait until a worker says that it is there; return its process."""

        def pids() -> list[int]:
            return [seen.presence.pid for seen in bus.roster.all() if seen.is_live and seen.presence.agent == name]

        until(lambda: self.pid(name) in pids())
        return self.pid(name)

    def end(self) -> None:
        if self.thread.is_alive():
            self.supervisor.stop()
            self.supervisor.stop()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()


@pytest.fixture
def up(here: Bus, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    assert here.identity  # The bus is made.
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.05)
    monkeypatch.setattr(supervisor, "MOST_PAUSE_S", 0.2)
    made: list[Up] = []

    def start(text: str) -> Up:
        bus = open_bus(  # A thread of its own has a bus of its own.
            place, agent="supervisor", durability="none"
        )
        made.append(Up(bus, place, text))
        made[-1].thread.start()
        return made[-1]

    yield start
    for item in made:
        item.end()


WORKER = '[workers.{name}]\nchannels = ["work"]\nlease = 60\ncommand = {command}\n'


def worker(name: str, *command: str, more: str = "") -> str:
    return WORKER.format(name=name, command=json.dumps(command)) + more + "\n"


def test_workers_do_tasks_under_their_own_names_and_end_when_told(up: Any, here: Bus) -> None:
    ids = [here.post("work", f"task {number}").id for number in range(6)]
    running = up(worker("count", "wc", "-c", more="instances = 2"))
    until(lambda: all(here.get(task_id).state is State.DONE for task_id in ids))
    results = [here.get(task_id).result for task_id in ids]
    assert {result.sender.agent for result in results if result is not None} <= {"count-1", "count-2"}
    running.supervisor.stop()
    running.thread.join(SOON_S)
    assert running.gave_up == [""]
    assert [child.state for child in running.supervisor.children] == ["ended", "ended"]
    assert here.store.records.names(supervisor.KIND) == []


def test_one_that_dies_is_started_anew_and_what_it_held_goes_back_at_once(up: Any, here: Bus) -> None:
    running = up(worker("slow", "sleep", "600") + worker("other", "true").replace('"work"', '"else"'))
    first, other = running.ready(here, "slow"), running.ready(here, "other")
    task_id = here.post("work", "x", max_attempts=3, backoff_s=600).id
    until(lambda: here.get(task_id).state is State.LEASED)
    os.kill(first, signal.SIGKILL)
    until(lambda: running.pid("slow") not in (0, first))
    task = here.get(task_id)
    assert (task.state, task.slot.attempt) == (State.SCHEDULED, 1), "long before its lease was over"
    assert task.history[-1].note == "its worker slow died"
    assert running.pid("other") == other, "one_for_one"


def test_its_commands_end_with_one_that_dies(up: Any, here: Bus, place: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    running = up(worker("slow", sys.executable, "-c", code))
    here.post("work", "x")
    path = place.parent / "pid"
    until(lambda: path.exists() and path.read_text() != "")
    pid = int(path.read_text())
    os.kill(running.pid("slow"), signal.SIGKILL)
    until(lambda: not process.started(pid))


def test_with_rest_for_one_those_after_it_are_started_again_and_those_before_are_not(up: Any, here: Bus) -> None:
    text = 'strategy = "rest_for_one"\n' + "".join(worker(name, "true") for name in ("a", "b", "c"))
    running = up(text)
    before = {name: running.ready(here, name) for name in "abc"}
    os.kill(before["b"], signal.SIGKILL)
    until(lambda: running.pid("b") not in (0, before["b"]) and running.pid("c") not in (0, before["c"]))
    assert running.pid("a") == before["a"]
    counts = {child.name: child.restarts for child in running.supervisor.children}
    assert counts == {"a": 0, "b": 1, "c": 0}


def test_with_rest_for_one_what_drains_is_told_once_and_nobody_starts_before_it_has_ended(
    up: Any, here: Bus, place: Path
) -> None:
    code = "import time; open('on', 'w').close(); time.sleep(1); print('done')"  # Longer than the pause of who died.
    slow = worker("slow", sys.executable, "-c", code).replace('"work"', '"own"')
    running = up('strategy = "rest_for_one"\n' + worker("a", "true") + worker("b", "true") + slow)
    first, second = running.ready(here, "a"), running.ready(here, "b")
    task_id = here.post("own", "x").id
    until((place.parent / "on").exists)
    os.kill(second, signal.SIGKILL)
    until(lambda: any("b was ended by signal 9" in line for line in running.said))
    os.kill(first, signal.SIGKILL)

    def is_over() -> bool:
        os.write(running.supervisor._wake[1], b"w")  # It looks again, and must not start what is due already.
        return len([line for line in running.said if line.startswith("slow started")]) == 2

    until(is_over)
    task = here.get(task_id)
    assert (task.state, task.slot.attempt, task.slot.releases) == (State.DONE, 1, 0)
    said = [" ".join(line.split()[:2]).strip(",") for line in running.said if "started," in line or "ended" in line]
    assert said[3:] == ["b was", "a was", "slow ended", "a started", "b started", "slow started"]


def test_one_that_a_person_told_to_end_is_not_hurried_and_stays_so_when_one_before_it_dies(
    up: Any, here: Bus, place: Path
) -> None:
    code = "import time; open('on', 'w').close(); time.sleep(1.5); print('done')"
    slow = worker("slow", sys.executable, "-c", code).replace('"work"', '"own"')
    running = up('strategy = "rest_for_one"\n' + worker("a", "true") + slow + worker("c", "true"))
    first, pid = running.ready(here, "a"), running.ready(here, "slow")
    running.ready(here, "c")
    task_id = here.post("own", "x").id
    until((place.parent / "on").exists)
    holder = next(child.holder for child in running.supervisor.children if child.name == "slow")
    here.store.records.write(supervisor.STOPS, holder, {}, after=0, durable=False)  # As `worker stop slow` does.
    os.kill(pid, signal.SIGTERM)
    os.kill(first, signal.SIGKILL)
    until(lambda: running.pid("a") not in (0, first) and running.pid("c") != 0)
    task = here.get(task_id)
    assert (task.state, task.slot.attempt, task.slot.releases) == (State.DONE, 1, 0)
    states = {child.name: child.state for child in running.supervisor.children}
    assert states == {"a": "running", "slow": "ended", "c": "running"}
    assert here.store.records.names(supervisor.STOPS) == []


def test_while_a_fleet_waits_for_one_to_be_due_it_rests(up: Any, here: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_S", 1.5)
    monkeypatch.setattr(supervisor, "MOST_PAUSE_S", 1.5)
    running = up('strategy = "rest_for_one"\n' + worker("a", "true") + worker("b", "true"))
    pid = running.ready(here, "a")
    running.ready(here, "b")
    looks = 0
    look = running.supervisor._look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    running.supervisor._look = counted
    os.kill(pid, signal.SIGKILL)
    until(lambda: running.pid("a") not in (0, pid))
    assert looks < 50


def test_one_that_dies_too_often_ends_the_fleet_and_the_human_is_told(up: Any, here: Bus) -> None:
    running = up("max_restarts = 2\n" + worker("a", "true") + worker("bad", "./no-such-program"))
    running.thread.join(SOON_S)
    assert not running.thread.is_alive()
    assert "bad ended with exit code 2; 3 deaths in 60 s, 2 are allowed" in running.gave_up[0]
    assert [child.state for child in running.supervisor.children] == ["ended", "failed"]
    (told,) = [here.get(task_id) for task_id in here.store.ids() if here.get(task_id).channel == "@human"]
    assert "the fleet of w.toml gave up: bad" in told.body.content


def test_one_that_is_told_to_end_stays_so_and_its_fleet_goes_on(up: Any, here: Bus) -> None:
    running = up(worker("a", "true") + worker("b", "true"))
    pid, other = running.ready(here, "a"), running.ready(here, "b")
    os.kill(pid, signal.SIGTERM)
    until(lambda: running.supervisor.children[0].state == "ended")
    assert running.pid("b") == other
    assert running.supervisor.children[0].restarts == 0


def test_one_that_gives_no_sign_of_life_is_killed_and_started_anew(
    up: Any, here: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = up(worker("hung", "true"))
    pid = running.ready(here, "hung")
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(presence, "SILENT", 0)
    monkeypatch.setattr(supervisor, "BEAT_S", 0.1)
    running.supervisor._beaten = 0.0
    os.write(running.supervisor._wake[1], b"w")
    until(lambda: running.pid("hung") not in (0, pid))
    assert any("gave no sign of life" in line for line in running.said)


def test_a_supervisor_that_is_killed_takes_its_workers_along(here: Bus, place: Path) -> None:
    path = place.parent / "w.toml"
    path.write_text(worker("a", "true"))
    env = {"PATH": os.environ["PATH"], "HOME": str(place.parent), "PYTHONPATH": str(ROOT), "MCP_BUS_DIR": str(place)}
    running = subprocess.Popen([sys.executable, "-m", "mcp_bus", "worker", "up", str(path)], env=env)

    def pids() -> list[int]:
        return [seen.presence.pid for seen in here.roster.all() if seen.is_live and seen.presence.agent == "a"]

    until(lambda: bool(pids()))
    (pid,) = pids()
    running.kill()
    running.wait()
    until(lambda: not process.started(pid))


def test_only_what_has_the_mark_is_ended() -> None:
    def start(mark: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sleep", "600"], env={"PATH": os.environ["PATH"], "MARK": mark}, start_new_session=True
        )

    mine, other = start("one 1"), start("one 11")
    try:
        until(lambda: b"MARK" in Path(f"/proc/{mine.pid}/environ").read_bytes())
        assert remains.end("MARK=one 1") == [mine.pid]
        assert mine.wait(SOON_S) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        mine.poll()


@pytest.mark.timeout(300)
def test_a_fleet_under_random_kills_does_every_task_within_its_attempts(up: Any, here: Bus) -> None:
    tasks, budget = 500 if IS_SOAK else 200, 12
    here.create_channel("work", max_attempts=budget, backoff_s=0)
    ids = [here.post("work", f"task {number}").id for number in range(tasks)]
    running = up("max_restarts = 1000\n" + worker("w", "sh", "-c", "sleep 0.05; wc -c", more="instances = 3"))
    chance, killed = random.Random(1), 0  # noqa: S311  tests need repeatable chance

    def done() -> int:
        return here.store.count("work")[State.DONE]

    end = time.monotonic() + 240
    while done() < tasks:
        assert time.monotonic() < end, here.store.count("work")
        pid = running.pid(f"w-{chance.randint(1, 3)}")
        if pid and killed < 60:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        threading.Event().wait(chance.uniform(0.02, 0.15))
    assert killed >= 20, "nobody was killed"
    found = [here.get(task_id) for task_id in ids]
    assert Counter(task.state for task in found) == {State.DONE: tasks}
    assert all(1 <= task.slot.attempt <= budget for task in found)
    lost = [line for task in found for line in task.history if line.outcome == "lapsed"]
    assert lost, "no task was ever held by one that died"
