"""worker up, ps, logs, stop: what the command line runs, shows and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus
from mcp_bus.identity import process

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "workers.toml"
FLEET = '[workers.count]\ncommand = ["wc", "-w"]\nchannels = ["text"]\n'


@pytest.fixture
def file(cli: Cli, tmp_path: Path) -> Path:
    cli.main("init", str(cli.bus))
    path = tmp_path / "workers.toml"
    path.write_text(FLEET)
    return path


def running(cli: Cli) -> dict[str, int]:
    end = time.monotonic() + 30
    while not (found := [item for item in cli.json("worker", "ps")["workers"] if item["state"] == "running"]):
        assert time.monotonic() < end
    return {item["name"]: item["pid"] for item in found}


def test_a_fleet_is_run_looked_at_and_ended(cli: Cli, file: Path) -> None:
    up = cli.start("worker", "up", str(file))
    pid = running(cli)["count"]
    task_id = cli.post("text", "one two three")
    assert cli.main("wait", task_id, "--timeout", "30s")[0] == 0
    assert int(cli.json("show", task_id)["result"]["content"]) > 3, "of its prompt"
    code, out, _ = cli.main("worker", "ps")
    assert (code, f"count   running  {pid}" in out) == (0, True), out
    assert f"{task_id[-8:]} done" in cli.main("worker", "logs", "count")[1]
    assert len(cli.main("worker", "logs", "count", "-n", "1")[1].splitlines()) == 1
    assert cli.main("worker", "stop")[0] == 0
    out, err = up.communicate(timeout=30)
    assert (up.returncode, "count ended" in err) == (0, True), err
    assert not process.started(pid)
    assert cli.json("worker", "ps") == {"workers": [], "fleets": []}
    assert cli.main("worker", "stop")[0] == 3


def test_a_worker_that_is_stopped_by_name_stays_so(cli: Cli, file: Path) -> None:
    file.write_text(FLEET + FLEET.replace("count", "other").replace("text", "else"))
    up = cli.start("worker", "up", str(file))
    while len(running(cli)) < 2:
        continue
    assert cli.main("worker", "stop", "count")[0] == 0
    end = time.monotonic() + 30
    while "count" in running(cli):
        assert time.monotonic() < end
    assert list(running(cli)) == ["other"]
    assert cli.main("worker", "stop", "nobody")[0] == 3
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=30)


def test_who_is_stopped_by_name_is_noted_for_its_supervisor_until_it_has_ended(cli: Cli, file: Path) -> None:
    file.write_text(FLEET.replace('"wc", "-w"', '"sleep", "2"'))
    up = cli.start("worker", "up", str(file))
    running(cli)
    task_id = cli.post("text", "x")
    end = time.monotonic() + 30
    while cli.state(task_id) != "leased":
        assert time.monotonic() < end
    assert cli.main("worker", "stop", "count")[0] == 0
    with open_bus(cli.bus, agent="onlooker") as bus:
        (noted,) = bus.store.records.names("stops")
        assert noted.startswith("count~")
        assert up.wait(30) == 0
        assert bus.store.records.names("stops") == []
    up.communicate()
    assert cli.state(task_id) == "done"


def test_a_fleet_that_gives_up_says_so_and_has_a_code_of_its_own(cli: Cli, file: Path) -> None:
    script = file.with_name("broken.sh")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    file.write_text("max_restarts = 0\n" + FLEET.replace('"wc", "-w"', '"./broken.sh"'))
    cli.post("text", "x")
    run = cli.run("worker", "up", str(file))
    assert run.returncode == 6
    assert "gave up: count ended with exit code 1" in run.stderr
    assert "cannot be started" in cli.main("worker", "logs", "count")[1]


@pytest.mark.parametrize(
    ("old", "new", "code", "why"),
    [
        ('"wc", "-w"', '"./missing.sh"', 2, "[workers.count] there is no command './missing.sh'"),
        ("channels", 'cwd = "nowhere"\nchannels', 2, "nowhere' is no folder"),
        ("channels", 'role = "ghost"\nchannels', 3, "[workers.count] there is no role 'ghost'"),
        ('channels = ["text"]', 'watch = "Bad Name"', 2, "'Bad Name' is not a channel name"),
        ('channels = ["text"]', 'watch = "human"', 2, "'human' is nobody's to watch"),
        (
            "channels",
            'instances = 2\n[workers.count-1]\ncommand = ["true"]\nchannels',
            2,
            "also one of [workers.count]",
        ),
    ],
)
def test_a_worker_that_could_not_begin_is_told_before_any_is_started(
    cli: Cli, file: Path, old: str, new: str, code: int, why: str
) -> None:
    file.write_text(FLEET.replace(old, new) + FLEET.replace("count", "good"))
    run = cli.run("worker", "up", str(file))
    assert (run.returncode, why in run.stderr, "started" in run.stderr) == (code, True, False), run.stderr


def test_the_fleet_to_start_from_runs_on_a_bus_that_has_nothing_yet(cli: Cli) -> None:
    up = cli.start("worker", "up", str(EXAMPLE))
    task_id = cli.post("text", "one two three")
    assert cli.main("wait", task_id, "--timeout", "30s")[0] == 0
    assert cli.json("show", task_id)["result"]["content"] in ("3", "ONE TWO THREE")
    end = time.monotonic() + 30
    while len(running(cli)) < 4:
        assert time.monotonic() < end
    up.terminate()
    _, err = up.communicate(timeout=30)
    assert (up.returncode, "anew" in err) == (0, False), err


def test_of_two_fleets_with_one_name_both_workers_are_told_to_end(cli: Cli, file: Path) -> None:
    ups = [cli.start("worker", "up", str(file)) for _ in range(2)]
    end = time.monotonic() + 30
    while len([item for item in cli.json("worker", "ps")["workers"] if item["state"] == "running"]) < 2:
        assert time.monotonic() < end
    code, out, err = cli.main("worker", "stop", "count")
    assert (code, "(2 of that name)" in out) == (0, True), err
    assert [up.wait(30) for up in ups] == [0, 0]
    for up in ups:
        up.communicate()


def test_a_worker_without_a_fleet_is_listed_too(cli: Cli, file: Path) -> None:
    assert file.exists()
    alone = cli.start("worker", "run", "text", "--", "cat")
    assert running(cli) == {"tester": alone.pid}
    alone.send_signal(signal.SIGTERM)
    alone.communicate(timeout=30)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["up"], 2, "takes a workers file"),
        (["up", "missing.toml"], 2, "cannot read"),
        (["up", "/"], 2, "cannot read"),
        (["up", "a", "b"], 2, "takes a workers file"),
        (["logs"], 2, "takes the name of a worker"),
        (["logs", "nobody"], 3, "there is no log of 'nobody'"),
        (["logs", "../../x"], 3, "there is no log of"),
        (["ps", "--", "true"], 2, "takes no command"),
        (["stop", "nobody"], 3, "no worker 'nobody' runs"),
    ],
)
def test_what_cannot_be_is_refused(cli: Cli, file: Path, words: list[str], code: int, why: str) -> None:
    assert file.exists()
    got, _, err = cli.main("worker", *words)
    assert (got, why in err) == (code, True), err


def test_a_file_with_an_error_names_line_and_key_and_starts_nothing(cli: Cli, file: Path) -> None:
    file.write_text(FLEET + "instances = 0\n")
    code, _, err = cli.main("worker", "up", str(file))
    assert (code, "line 4: [workers.count] instances: it is not a whole number" in err) == (2, True)
    assert not (cli.bus / "logs").exists()


def test_a_log_that_grew_large_is_put_aside_when_its_worker_starts(cli: Cli, file: Path) -> None:
    folder = cli.bus / "logs" / "workers"
    folder.mkdir(parents=True)
    (folder / "count.log").write_bytes(b"old\n")
    os.truncate(folder / "count.log", 11 * 1024 * 1024)
    up = cli.start("worker", "up", str(file))
    running(cli)
    assert (folder / "count.1.log").stat().st_size == 11 * 1024 * 1024
    up.terminate()
    up.communicate(timeout=30)


@pytest.mark.parametrize("lie", ["without a start", "with its start", "a group"])
def test_a_record_that_names_another_s_process_has_nobody_stopped(cli: Cli, file: Path, lie: str) -> None:
    up = cli.start("worker", "up", str(file))
    running(cli)
    end = time.monotonic() + 30
    while (
        "Ctrl-C ends" not in cli.main("worker", "logs", "count")[1]
    ):  # By now its supervisor rests, and writes nothing.
        assert time.monotonic() < end
    with subprocess.Popen(["sleep", "600"]) as other, open_bus(cli.bus, agent="mallory") as bus:
        try:
            worker = {"name": "count", "state": "running", "pid": other.pid, "holder": "x"}
            worker |= {"started": process.started(other.pid)} if lie == "with its start" else {}
            worker |= {"pid": -other.pid} if lie == "a group" else {}
            data = {
                "pid": other.pid, "started": process.started(other.pid), "host": process.host(),
                "boot": process.boot_id(), "file": "w.toml", "workers": [worker],
            }  # fmt: skip
            bus.store.records.write("fleets", "evil", data, after=0, durable=False)
            ((name, record),) = [item for item in bus.store.records.all("fleets").items() if item[0] != "evil"]
            changed = {**record.data, "workers": [worker]}
            bus.store.records.write("fleets", name, changed, after=record.revision, durable=False)
            assert cli.main("worker", "stop", "count")[0] == 3
            assert other.poll() is None
            assert cli.main("worker", "stop")[1].count("was told to end") == 1, "the fleet alone"
            assert other.poll() is None
        finally:
            other.kill()
            up.terminate()
            up.communicate(timeout=30)


def test_a_worker_of_another_host_is_named_with_it_and_neither_shown_nor_ended_here(cli: Cli) -> None:
    with open_bus(cli.bus, agent="far") as bus:
        here = bus.roster.arrive(serves=("work",))
        (record,) = (cli.bus / "agents").iterdir()
        record.write_text(record.read_text().replace(f'"{here.host}"', '"elsewhere"'))
        (made,) = cli.json("worker", "ps")["workers"]
        assert (made["name"], made["host"]) == ("far", "elsewhere")
        assert f"{os.getpid()} on elsewhere" in cli.main("worker", "ps")[1]
        for verb in ("logs", "stop"):
            code, out, err = cli.main("worker", verb, "far")
            assert (code, out) == (3, "")
            assert "'far' runs on 'elsewhere'" in err
            assert f"mcp-bus worker {verb} far" in err
