"""The examples of several agents at work do what their headers say, on any bus, and leave nothing running."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import State, open_bus
from tests.examples.test_examples import EXAMPLES, LIMIT_S, run, surroundings

if TYPE_CHECKING:
    from mcp_bus import Task

RUNS = ("ci-signals", "test-runner", "supervisor")


def script(place: Path, name: str, *words: str, code: int = 0) -> str:
    return run(place, str(EXAMPLES / name), *words, code=code)


def tasks(place: Path, channel: str) -> list[Task]:
    """Return all tasks of a channel, the oldest first."""
    with open_bus(place / "bus", agent="looker", create=False) as bus:
        found = [bus.get(task_id) for task_id in sorted(bus.store.ids())]
    return [task for task in found if task.channel == channel]


def alive(place: Path) -> list[str]:
    """Return the command lines of the processes that were told of this place, as far as Linux tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"MCP_BUS_DIR={place / 'bus'}\0".encode() in seen:
            found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_an_example_of_agents_at_work_leaves_nothing_running_and_runs_again(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        script(tmp_path, f"{name}/run.sh")
        assert alive(tmp_path) == []


def test_a_release_is_kept_where_its_tests_pass_and_its_build_goes_by_the_answer(tmp_path: Path) -> None:
    said = script(tmp_path, "ci-signals/run.sh")
    codes = {line[-1] for line in said.splitlines() if "ended with" in line and ("0.2.0" in line or "0.4.0" in line)}
    assert codes == {"0"}
    codes = {line[-1] for line in said.splitlines() if "ended with" in line and ("0.3.0" in line or "0.5.0" in line)}
    assert codes == {"1"}
    assert said.partition("what app took over:\n")[2].split() == ["lib", "0.1.0", "lib", "0.2.0", "lib", "0.4.0"]
    assert [task.body.sender.agent for task in tasks(tmp_path, "builds")] == ["git.example/acme/lib/main"] * 2
    answers = [json.loads(task.result.content)["signal"] for task in tasks(tmp_path, "app-agent") if task.result]
    assert answers == ["tests_passed", "tests_failed"]


@pytest.mark.parametrize(
    "content", ['{"version": "1; touch hit"}', '{"version": "../../x"}', '{"version": "--upload-pack=x"}', "{}", "so"]
)
def test_a_signal_that_names_no_version_is_never_handled(tmp_path: Path, content: str) -> None:
    done = subprocess.run(
        [str(EXAMPLES / "ci-signals" / "on-build.sh")], cwd=tmp_path, timeout=LIMIT_S, capture_output=True, check=False,
        env=surroundings(tmp_path) | {"ABQ_MSG_CONTENT": content},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (65, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_nobody_answers_ends_with_exit_code_4(tmp_path: Path) -> None:
    (lib := tmp_path / "lib").mkdir()
    text = (EXAMPLES / "ci-signals" / "build.sh").read_text("utf-8").replace("60s", "0.1s").replace("out 60", "out 0")
    (lib / "build.sh").write_text(text)
    who = {f"GIT_{role}_{what}": "ci" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = surroundings(tmp_path) | who
    subprocess.run(["git", "init", "-q"], cwd=lib, check=True, timeout=LIMIT_S)
    with open_bus(tmp_path / "bus", agent="ann") as bus:
        bus.create_channel("app-agent")
        bus.create_channel("builds", kind="topic")
    for version, how in (("1.0", "topic"), ("1.1", "abq")):
        (lib / "lib.sh").write_text(version)
        done = subprocess.run(["sh", "build.sh", version, how], cwd=lib, env=env, check=False, timeout=LIMIT_S)
        assert done.returncode == 4, how


def test_an_agent_mends_what_is_red_until_it_is_green(tmp_path: Path) -> None:
    assert "green at attempt 2" in script(tmp_path, "test-runner/run.sh")
    (asked,), fixes = tasks(tmp_path, "tests"), tasks(tmp_path, "fixes")
    assert (asked.state, [task.state for task in fixes]) == (State.DONE, [State.DONE] * 2)
    assert [(task.body.depth, task.body.sender.agent) for task in fixes] == [(1, "test-runner")] * 2
    assert [fix.result and json.loads(fix.result.content)["changed"] for fix in fixes] == [["shop.py"]] * 2


def test_a_test_runner_gives_up_when_its_attempts_are_spent(tmp_path: Path) -> None:
    script(tmp_path, "test-runner/run.sh", "1", code=6)
    (asked,) = tasks(tmp_path, "tests")
    assert (asked.state, len(tasks(tmp_path, "fixes"))) == (State.DEAD, 1)
    assert asked.history[-1].note.endswith("FAILED (failures=1)")


def test_a_fleet_of_which_one_dies_does_all_its_tasks(tmp_path: Path) -> None:
    said = script(tmp_path, "supervisor/run.sh")
    found = [*tasks(tmp_path, "text"), *tasks(tmp_path, "glass")]
    assert [task.state for task in found] == [State.DONE] * 8
    assert [task.slot.attempt for task in found] == [1, 1, 1, 1, 1, 2, 1, 2]
    (clumsy,) = [line.split() for line in said.splitlines() if line.startswith("clumsy  ")]
    assert (clumsy[1], clumsy[-1]) == ("running", "2")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A repository, and on PATH a `claude` that notes where it runs and with which options."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "claude"
    stand_in.write_text(
        "#!/bin/sh\ncat >/dev/null\npwd >where.txt\n"
        'echo "$@" >options.txt\necho \'{"type": "result", "result": "ok"}\'\n'
    )
    stand_in.chmod(0o755)
    (made := tmp_path / "app").mkdir()
    who = ["-c", "user.name=ann", "-c", "user.email=ann@git.example"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "begin"]):
        subprocess.run(["git", *words], cwd=made, check=True, timeout=LIMIT_S)
    return made


def test_claude_code_works_in_a_worktree_beside_the_repository_which_is_used_again(app: Path, tmp_path: Path) -> None:
    tree = tmp_path / "app-claude"
    env = surroundings(tmp_path)
    env["PATH"] = os.pathsep.join([str(tmp_path / "bin"), env["PATH"]])
    for number in range(3):
        with open_bus(tmp_path / "bus", agent="ann") as bus:
            posted = bus.post("work", f"task {number}")
            worker = [str(EXAMPLES / "claude-worker" / "worker.sh"), "work", "--tasks", "1"]
            subprocess.run(worker, cwd=app, env=env, timeout=LIMIT_S, check=True, stdout=subprocess.DEVNULL)
            assert bus.get(posted.id).state is State.DONE
        assert (tree / "where.txt").read_text().strip() == str(tree)
        assert "--restricted" in (tree / "options.txt").read_text()
        head = subprocess.run(
            ["git", "branch", "--show-current"], cwd=tree, capture_output=True, timeout=LIMIT_S, check=True
        )
        assert head.stdout == b"claude\n"
        if number == 1:  # Somebody removed it; its branch is kept.
            for path in tree.iterdir():
                path.unlink()
            tree.rmdir()
    assert sorted(path.name for path in app.iterdir()) == [".git"]
