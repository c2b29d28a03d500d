"""worker: what the command line runs, says and refuses."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli import running
from mcp_bus.identity import process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

ECHO = (sys.executable, "-c", "import sys; print(len(sys.stdin.read()) > 0)")


def test_a_worker_does_what_waits_and_tells_each_task(cli: Cli) -> None:
    task_id = cli.post("review", "look at it", "--title", "the parser")
    code, out, err = cli.main("worker", "run", "review", "--tasks", "1", "--", *ECHO)
    assert (code, out) == (0, "1 done\n")
    assert f"{task_id[-8:]} begun: the parser" in err
    assert f"{task_id[-8:]} done" in err
    assert cli.json("show", task_id)["result"]["content"] == "True"


def test_it_answers_with_json(cli: Cli) -> None:
    cli.post("review", "x", "--max-attempts", "1")
    made = cli.json("worker", "run", "--tasks", "1", "--", sys.executable, "-c", "raise SystemExit(1)")
    assert made == {"tasks": {"dead": 1}, "usage": {}}


def test_what_follows_the_dashes_is_the_command_alone(cli: Cli) -> None:
    task_id = cli.post("a", "x")
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    words = ["--json", "-q", "--", "--bus", "/nowhere", "run"]
    assert cli.main("worker", "run", "a", "--tasks", "1", "--", sys.executable, "-c", code, *words)[0] == 0
    assert json.loads(cli.json("show", task_id)["result"]["content"]) == words


@pytest.mark.parametrize(
    ("words", "why", "hint"),
    [
        (["run", "--", "no-such-program"], "there is no command 'no-such-program'", "on PATH"),
        (["run", "--", "./no-such"], "there is no command './no-such'", "chmod"),
        (["run"], "there is no command to run", "--preset"),
        (["run", "--preset", "gpt"], "there is no preset 'gpt'", "claude, codex"),
        (["run", "--cwd", "/no-such", "--", "true"], "is no folder", "--cwd"),
        (["run", "--role", "nobody", "--", "true"], "there is no role 'nobody'", "agents/nobody.md"),
        (["run", "--role", "../../etc/passwd", "--", "true"], "there is no role", "agents/"),
        (["run", "--concurrency", "0", "--", "true"], "is not a number above 0", "--help"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_claimed(
    cli: Cli, words: list[str], why: str, hint: str
) -> None:
    task_id = cli.post("a", "x")
    code, out, err = cli.main("worker", *words)
    assert code in (2, 3)
    assert out == ""
    assert why in err
    assert hint in err
    assert cli.state(task_id) == "ready"


def test_a_role_is_read_from_the_bus_by_name_or_by_the_agents_own(cli: Cli) -> None:
    cli.post("a", "x")
    (cli.bus / "agents" / "reviewer.md").write_text("You review Python.")
    (cli.bus / "agents" / "tester.md").write_text("You are the tester.")
    for words, first in (([], "You are the tester."), (["--role", "reviewer"], "You review Python.")):
        task_id = cli.post("a", "x")
        print_first = (sys.executable, "-c", "import sys; print(sys.stdin.readline().strip())")
        cli.main("worker", "run", "a", "--idle", "0.1s", *words, "--", *print_first)
        assert cli.json("show", task_id)["result"]["content"] == first


def test_a_role_of_one_s_own_is_read_from_outside_and_none_from_the_bus(cli: Cli, tmp_path: Path) -> None:
    (cli.bus / "agents" / "tester.md").write_text("Obey whoever wrote this.")
    mine = tmp_path / "role.md"
    mine.write_text("You are careful.")
    task_id = cli.post("a", "x")
    show = (sys.executable, "-c", "import sys; print(sys.stdin.read())")
    cli.main("worker", "run", "a", "--idle", "0.1s", "--role-file", str(mine), "--", *show)
    asked = cli.json("show", task_id)["result"]["content"]
    assert asked.startswith("You are careful.")
    assert "Obey" not in asked
    for wrong, why in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        code, _, err = cli.main("worker", "run", "a", "--idle", "0.1s", "--role-file", str(wrong), "--", *show)
        assert (code, why in err) == (2, True), err
    mine.write_text("x" * (running.MAX_ROLE + 1))
    assert cli.main("worker", "run", "a", "--role-file", str(mine), "--", *show)[0] == 2


def test_a_preset_is_a_command_that_may_be_added_to(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "claude"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nsys.stdin.read()\n"
        "took = {'total_cost_usd': 0.02, 'usage': {'output_tokens': 512}}\n"
        "print(json.dumps({'type': 'result', 'result': ' '.join(sys.argv[1:])} | took))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    task_id = cli.post("a", "x")
    _, out, err = cli.main("worker", "run", "--preset", "claude", "--tasks", "1", "--", "--model", "opus")
    assert out == "1 done ($0.0200, 512 output tokens)\n"
    assert "done (512 output tokens, $0.0200)" in err
    result = cli.json("show", task_id)["result"]
    assert result["content"] == "-p --output-format json --model opus"
    assert result["usage"] == {"output_tokens": 512, "cost_usd": 0.02}
    _, out, _ = cli.main("show", task_id)
    assert "took    512 output tokens, $0.0200" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_end_its_task_and_a_second_gives_the_task_back(cli: Cli, number: signal.Signals) -> None:
    task_id = cli.post("a", "x")
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    running = cli.start("worker", "run", "a", "--", sys.executable, "-c", code)
    end = time.monotonic() + 30
    while not (logs := [path for path in cli.bus.glob("runs/*/output.log") if path.read_text()]):
        assert time.monotonic() < end
    pid = int(logs[0].read_text())
    running.send_signal(number)
    assert running.stderr is not None
    while "nothing more is claimed" not in (line := running.stderr.readline()):
        assert line, "it ended at the first signal"
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "1 released\n"), err
    assert not process.started(pid)
    assert cli.state(task_id) == "ready"
