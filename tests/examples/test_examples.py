"""Each example runs, and shows what its header says."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import State, Task, open_bus, wait_for
from mcp_bus.workers import fleet
from tests.docs.executed import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mcp_bus import Bus

EXAMPLES = ROOT / "examples"
LIMIT_S = 100
# Less than any example waits for the other side.
SLOW_S = 50


def surroundings(place: Path) -> dict[str, str]:
    """Return an environment in which only this test's bus is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    here = {"HOME": str(place), "MCP_BUS_DIR": str(place / "bus"), "PYTHONPATH": str(ROOT), "PATH": path}
    return kept | here


def run(place: Path, *command: str, code: int = 0) -> str:
    """Run an example to its end; return what it printed."""
    done = subprocess.run(
        command, cwd=place, env=surroundings(place), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def python(place: Path, name: str, *arguments: str) -> str:
    return run(place, sys.executable, str(EXAMPLES / name), *arguments)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with open_bus(tmp_path / "bus", agent="ann", durability="none") as opened:
        yield opened


def until(bus: Bus, look: Callable[[], Task | None]) -> Task:
    found = wait_for(bus, look, timeout_s=LIMIT_S)
    assert found is not None
    return found


def in_state(bus: Bus, task_id: str, state: State) -> Callable[[], Task | None]:
    def look() -> Task | None:
        bus.tend()
        task = bus.get(task_id)
        return task if task.state is state else None

    return look


def test_every_example_is_in_the_readme() -> None:
    listed = set(re.findall(r"^\| \[(\S+)\]", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE))
    there = {path.name for path in [*EXAMPLES.iterdir(), *(EXAMPLES / "plans").iterdir()] if path.is_file()}
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"plans", "__pycache__"}
    assert {name for name in listed if "/" not in name} == there - {"README.md"}
    assert {name.partition("/")[0] for name in listed if "/" in name} == folders


def test_two_processes_hand_over_a_task(tmp_path: Path) -> None:
    assert "ann reads 'two nits, see line 40', by bob" in python(tmp_path, "handover.py")


def test_a_handover_is_one_task(tmp_path: Path) -> None:
    python(tmp_path, "handover.py", str(tmp_path / "bus"))
    with open_bus(tmp_path / "bus", agent="ann") as bus:
        assert [bus.get(task_id).state for task_id in bus.store.ids()] == [State.DONE]


def test_a_note_is_answered_a_topic_is_filtered_and_traces_tell_of_both(tmp_path: Path) -> None:
    said = python(tmp_path, "messages.py", "bus")
    note = re.search(r"^ann sent (\w{8}) to bob, who has 0 live sessions: it waits$", said, re.MULTILINE)
    assert note is not None
    name = note[1]
    assert f"    {name} for bob: queued\nbob reads 'which port" in said
    assert f"    {name} for bob: queued, offered, acked\nann reads '8080' from bob\n    that answers {name}\n" in said
    assert '"signal":"failed"' in said
    assert '"signal":"started"' not in said
    with open_bus(tmp_path / "bus", agent="bob") as bus:
        assert bus.mail.unread().messages == 0


def test_a_client_works_through_two_servers(tmp_path: Path) -> None:
    said = python(tmp_path, "mcp_client.py")
    assert re.search(r'success by "?bob"?', said)
    assert said.rstrip().endswith("next: use the results")


@pytest.mark.parametrize("words", [(), ("nowhere",), (".",), ("bus", "more")], ids=" ".join)
def test_the_auditor_says_what_is_no_bus(tmp_path: Path, words: tuple[str, ...]) -> None:
    open_bus(tmp_path / "bus", agent="ann").close()
    command = [sys.executable, str(EXAMPLES / "audit.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.startswith("usage: audit.py")) == (2, "", True), done
    assert "usage: audit.py" in python(tmp_path, "audit.py", "--help")
    assert python(tmp_path, "audit.py", "bus") == "0 tasks, 0 problems\n"


def test_a_pipeline_gets_its_answer(tmp_path: Path) -> None:
    assert "the answer is: pass" in run(tmp_path, str(EXAMPLES / "ci_signal.sh"))


@pytest.mark.parametrize("name", ["handover.py", "messages.py", "mcp_client.py", "ci_signal.sh"])
def test_an_example_runs_a_second_time_on_the_same_bus(tmp_path: Path, name: str) -> None:
    command = [str(EXAMPLES / name)] if name.endswith(".sh") else [sys.executable, str(EXAMPLES / name), "bus"]
    ran: list[float] = []
    for _ in range(2):
        start = time.monotonic()
        run(tmp_path, *command)
        ran.append(time.monotonic() - start)
    assert max(ran) < SLOW_S, "one side waited in vain for the other"


def test_two_agents_hand_over_also_when_an_earlier_run_left_something(bus: Bus, tmp_path: Path) -> None:
    left = bus.post("review", "left behind")
    assert "ann reads 'two nits, see line 40', by bob" in python(tmp_path, "handover.py", "bus")
    assert bus.get(left.id).state is State.DONE


def test_a_pipeline_stops_at_a_bad_answer(tmp_path: Path) -> None:
    script, place = str(EXAMPLES / "ci_signal.sh"), surroundings(tmp_path)
    checker = subprocess.Popen(
        [script, "answer", "false"], cwd=tmp_path, env=place | {"MCP_BUS_CHANNELS": ""}, stdout=subprocess.DEVNULL
    )
    try:
        assert "the answer is: fail" in run(tmp_path, script, "ask", "revision-2", code=1)
        assert checker.wait(LIMIT_S) == 0
    finally:
        checker.kill()
        checker.wait()


def test_a_worker_does_what_waits_and_ends(bus: Bus, tmp_path: Path) -> None:
    good, bad = bus.post("count", "one two\nthree"), bus.post("count", "", title="no text", max_attempts=1)
    python(tmp_path, "worker.py", "count", "--once")
    done = bus.get(good.id)
    assert done.result is not None
    assert done.result.content == '{"words":[2,1]}'
    assert bus.get(bad.id).state is State.DEAD
    assert bus.get(bad.id).history[-1].note == "there is nothing to count"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_gives_its_task_back(bus: Bus, tmp_path: Path, number: signal.Signals) -> None:
    posted = bus.post("count", "line\n" * 20_000)
    command = [sys.executable, str(EXAMPLES / "worker.py"), "count"]
    worker = subprocess.Popen(command, cwd=tmp_path, env=surroundings(tmp_path), stdout=subprocess.DEVNULL)
    try:
        until(bus, in_state(bus, posted.id, State.LEASED))
        worker.send_signal(number)
        assert worker.wait(LIMIT_S) == 0
    finally:
        worker.kill()
        worker.wait()
    task = bus.get(posted.id)
    assert (task.state, task.slot.attempt, task.slot.releases) == (State.READY, 0, 1)


def worker(path: Path, lease_s: float, handle: Callable[..., object]) -> Any:
    """Return the example's worker with a lease and a handler of the test."""
    made = runpy.run_path(str(EXAMPLES / "worker.py"), run_name="worker")
    # The functions of a module that was run look names up in its own dictionary.
    made["Worker"].run.__globals__.update(LEASE_S=lease_s, handle=handle)
    return made["Worker"](str(path), "count"), made["Stopped"]


def test_a_worker_renews_the_lease_of_a_long_task(bus: Bus, tmp_path: Path) -> None:
    posted, ends = bus.post("count", "long"), list[int]()

    def handle(task: Task, enough: Any) -> object:
        with open_bus(tmp_path / "bus", agent="watcher") as watcher:

            def renewed() -> Task | None:
                now = watcher.get(task.id)
                return now if now.lease.expires > task.lease.expires + 1000 else None

            ends.append(until(watcher, renewed).lease.expires)
        assert not enough.is_set()
        return "kept"

    looped, _ = worker(tmp_path / "bus", 1.5, handle)
    looped.run(once=True)
    done = bus.get(posted.id)
    assert done.result is not None
    assert (done.result.content, done.slot.attempt) == ("kept", 1)
    assert ends


def test_a_worker_drops_a_task_that_was_cancelled(bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    posted = bus.post("count", "long")

    def handle(task: Task, enough: Any) -> object:
        bus.cancel(task.id, "not wanted")
        assert enough.wait(LIMIT_S)
        raise stopped

    looped, stopped = worker(tmp_path / "bus", 1.5, handle)
    looped.run(once=True)
    assert bus.get(posted.id).state is State.CANCELLED
    assert "lost: " in capsys.readouterr().out


def test_the_example_of_a_fleet_is_one() -> None:
    made = fleet.parse((ROOT / "examples" / "workers.toml").read_text(encoding="utf-8"), "workers.toml")
    assert [spec.name for spec in made.workers] == ["count", "shout", "on-build"]
