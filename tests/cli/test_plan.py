"""plan: what the command line runs, shows, and answers with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

SCHEMA = {"type": "object", "required": ["passed"]}
STEPS: list[dict[str, Any]] = [
    {"name": "gather", "body": "look"},
    {"name": "lint", "body": "lint {{gather}}", "after": "gather", "result_schema": SCHEMA},
    {"name": "paint", "body": "paint", "capability": "paint"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"goal": "check it", "grace_s": 0, "steps": STEPS}))
    return path


def posted(cli: Cli, file: Path) -> str:
    return str(cli.json("plan", "run", str(file), "--no-wait")["short"])


def do(cli: Cli, result: str) -> None:
    ticket = cli.json("claim")["ticket"]
    cli.json("submit", ticket["id"], "--token", ticket["token"], "--done", result)


def stages(cli: Cli, plan: str) -> dict[str, str]:
    return {step["name"]: step["state"] for step in cli.json("plan", "show", plan)["steps"]}


def test_a_plan_is_run_shown_and_told_of(cli: Cli, file: Path) -> None:
    plan = posted(cli, file)
    assert stages(cli, plan) == {"gather": "ready", "lint": "waiting", "paint": "skipped"}
    do(cli, "three files")
    shown = cli.json("claim")
    assert shown["step"] == "lint"
    assert shown["inputs"][0]["result"] == "three files"
    assert shown["result_schema"] == SCHEMA
    code, _, err = cli.main("submit", shown["id"], "--token", shown["ticket"]["token"], "--done", "fine")
    assert code == 2
    assert "attempts left: 2" in err
    cli.json("submit", shown["id"], "--token", shown["ticket"]["token"], "--done", '{"passed": true}')
    made = cli.json("plan", "show", plan)
    assert (made["state"], made["missing"], made["counts"]["done"]) == ("partial", ["paint"], 2)
    assert {step["name"]: step["attempts"] for step in made["steps"]} == {"gather": 1, "lint": 2, "paint": 0}
    (listed,) = cli.json("plan", "list")["plans"]
    assert (listed["short"], listed["state"]) == (plan, "partial")
    code, out, _ = cli.main("plan", "report", plan)
    assert (code, "No worker could do: paint." in out) == (0, True)


@pytest.mark.parametrize("form", ["table", "tree", "mermaid", "dot", "svg", "json"])
def test_a_plan_is_shown_in_each_format(cli: Cli, file: Path, form: str) -> None:
    plan = posted(cli, file)
    code, out, _ = cli.main("plan", "show", plan, "--format", form)
    assert code == 0
    assert all(step["name"] in out for step in STEPS)


def test_a_worker_that_claims_says_what_it_can_do_and_is_waited_for(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("goal: g\ngrace_s: 30\nsteps:\n- {name: paint, body: x, capability: paint}\n")
    cli.main("init", str(cli.bus))
    assert cli.main("claim", "--capability", "paint")[0] == 4
    with open_bus(cli.bus, agent="ann") as bus:
        (seen,) = bus.mail.roster.all()
        assert seen.presence.capabilities == ("paint",)
    plan = posted(cli, path)
    assert cli.json("claim", "--capability", "paint")["step"] == "paint"
    assert stages(cli, plan) == {"paint": "leased"}


def test_a_plan_that_is_waited_for_ends_with_its_workers(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"goal": "g", "steps": STEPS[:1]}))
    running = cli.start("plan", "run", str(path), "--timeout", "30s")
    while not (claimed := cli.main("claim", "--wait", "10s", "--json"))[1].strip():
        assert claimed[0] == 4
    ticket = json.loads(claimed[1])["ticket"]
    cli.json("submit", ticket["id"], "--token", ticket["token"], "--done", "three files")
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert "done: 1 of 1 steps done" in out
    assert "gather done by" in err


def test_time_that_is_up_a_person_that_is_needed_and_a_plan_that_failed_have_codes_of_their_own(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"goal": "g", "steps": [STEPS[0] | {"max_attempts": 1}]}))
    assert cli.main("plan", "run", str(path), "--timeout", "0", "--key", "k")[0] == 4
    plan = cli.json("plan", "list")["plans"][0]["short"]
    ticket = cli.json("claim")["ticket"]
    cli.json("submit", ticket["id"], "--token", ticket["token"], "--blocked", "which one?")
    code, _, err = cli.main("plan", "resume", plan)
    assert (code, "waits for a person" in err) == (6, True)
    cli.main("retry", ticket["id"], "--note", "the red one")
    ticket = cli.json("claim")["ticket"]
    cli.json("submit", ticket["id"], "--token", ticket["token"], "--failed", "broken")
    assert cli.main("plan", "resume", plan)[0] == 1
    assert cli.main("plan", "run", str(path), "--key", "k")[0] == 1, "the same key is the same plan"
    assert len(cli.json("plan", "list")["plans"]) == 1
    assert cli.main("plan", "retry", plan, "--no-wait")[0] == 0
    do(cli, "done")
    assert cli.main("plan", "resume", plan)[0] == 0


def test_a_plan_is_cancelled_with_a_reason(cli: Cli, file: Path) -> None:
    plan = posted(cli, file)
    assert cli.main("plan", "cancel", plan, "--reason", "no longer wanted")[0] == 0
    made = cli.json("plan", "show", plan)
    assert (made["state"], made["why"].partition(": ")[2]) == ("cancelled", "no longer wanted")
    assert cli.json("claim", code=4)["ticket"] is None
    assert cli.main("plan", "cancel", plan)[0] == 5


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["run"], 2, "plan run takes a file"),
        (["show"], 2, "plan show takes a plan"),
        (["run", "nowhere.yaml"], 2, "No such file"),
        (["show", "deadbeef"], 3, "there is no plan 'deadbeef'"),
        (["cancel", "deadbeef"], 3, "there is no plan"),
        (["show", "deadbeef", "step"], 2, "takes no steps"),
        (["dance"], 2, "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_said(cli: Cli, words: list[str], code: int, complaint: str) -> None:
    cli.main("init", str(cli.bus))
    found, _, err = cli.main("plan", *words)
    assert (found, complaint in err) == (code, True), err


def test_a_plan_comes_from_stdin_too_and_a_bad_one_posts_nothing(cli: Cli) -> None:
    command = [sys.executable, "-m", "mcp_bus", "--json", "plan", "run", "-", "--no-wait"]
    data = {"goal": "g", "steps": STEPS[:1]}
    for text, code in ((json.dumps(data), 0), (json.dumps(data | {"steps": []}), 2), ("{", 2)):
        done = subprocess.run(
            command, input=text, env=cli.env, cwd=cli.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
    assert len(cli.json("plan", "list")["plans"]) == 1


def test_a_check_is_run_only_where_it_is_allowed_and_only_for_its_owner(cli: Cli, tmp_path: Path) -> None:
    path, ran = tmp_path / "plan.json", tmp_path / "ran"
    check = [sys.executable, "-c", f"open({str(ran)!r}, 'w').write('ran')"]
    path.write_text(json.dumps({"goal": "g", "steps": [{"name": "build", "body": "x", "verify": check}]}))
    plan = posted(cli, path)
    do(cli, "built")
    assert stages(cli, plan) == {"build": "unverified"}
    assert not ran.exists()
    code, _, err = cli.main("--agent", "mallory", "plan", "resume", plan, "--allow-verify")
    assert (code, "whose commands are not run here" in err) == (2, True)
    assert not ran.exists()
    code, _, err = cli.main("plan", "resume", plan, "--allow-verify")
    assert (code, ran.read_text()) == (0, "ran"), err
    assert "will check build by: " in err
    assert stages(cli, plan) == {"build": "done"}


def test_a_file_of_a_result_is_named_with_its_hash(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    task, token = cli.post(), ""
    token = cli.json("claim")["ticket"]["token"]
    made = cli.json("submit", task, "--token", token, "--done", "built", "--artifact", str(tmp_path / "report.html"))
    assert [(item["path"], item["size"]) for item in made["result"]["artifacts"]] == [
        (str(tmp_path / "report.html"), 6)
    ]
    assert "report.html  6 bytes  sha256 " in cli.main("show", task)[1]
