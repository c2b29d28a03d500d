"""plan: what the command line runs, shows, and answers with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus, plans
from mcp_bus.cli import plancheck
from mcp_bus.errors import InvalidRequest
from mcp_bus.identity import process

if TYPE_CHECKING:
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
    assert (code, "No worker could do: `paint`." in out) == (0, True)


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
        (seen,) = bus.roster.all()
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
    assert f"will check build in {Path.cwd()} by: " in err
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


@pytest.mark.parametrize("verb", ["show", "wait", "cancel", "retry"])
def test_a_verb_for_tasks_that_is_given_a_plan_says_what_to_do_and_does_nothing(
    cli: Cli, file: Path, verb: str
) -> None:
    plan = posted(cli, file)
    before = stages(cli, plan)
    full = cli.json("plan", "show", plan)["id"]
    for name in (plan, full):
        code, _, err = cli.main(verb, name)
        assert code == 3
        assert f"it is a plan: `mcp-bus plan show {name}`" in err
    assert stages(cli, plan) == before


def test_a_list_of_plans_says_where_a_person_is_needed(cli: Cli, file: Path) -> None:
    posted(cli, file)
    assert cli.json("plan", "list")["plans"][0]["blocked"] == 0
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--blocked", "which one?")
    assert cli.json("plan", "list")["plans"][0]["blocked"] == 1
    _, out, _ = cli.main("plan", "list")
    head, row = out.splitlines()
    assert row[head.index("BLOCKED")] == "1"


def test_why_a_step_is_not_done_is_told_in_full_on_a_narrow_terminal(cli: Cli, file: Path) -> None:
    plan = posted(cli, file)
    _, out, _ = cli.main("plan", "show", plan)
    assert "paint skipped: worker_absent: no live worker can do paint" in out.splitlines()


def test_a_report_says_what_was_left_out_by_choice_and_names_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    steps = [STEPS[0], {"name": "fix", "after": "gather", "when": "gather.bad == true", "body": "x"}]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"goal": "g", "steps": steps}))
    plan = posted(cli, path)
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", "{}", "--artifact", str(tmp_path / "a.txt"))
    report = cli.json("plan", "report", plan)["report"]
    assert "Left out by choice: fix." in report
    assert "## Gaps" not in report
    assert "a.txt`, 4 bytes, sha256 `982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1`" in report


def test_a_task_is_posted_with_a_contract_and_for_a_parent(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    cli.post("work", "the whole")
    parent, token = cli.claim()
    for given in (json.dumps(SCHEMA), f"@{tmp_path / 'schema.json'}"):
        child = cli.post("parts", f"a part by {given[:1]}", "--parent", parent, "--result-schema", given, "--claims")
        code, _, err = cli.main("submit", parent, "--token", token, "--done", "all")
        assert (code, "have not ended" in err) == (5, True)
        part, other = cli.claim("parts")
        assert part == child
        assert cli.main("submit", part, "--token", other, "--done", "x")[0] == 2
        assert cli.main("submit", part, "--token", other, "--done", '{"passed": true}')[0] == 2
        cli.json("submit", part, "--token", other, "--done", '{"passed": true, "claims": []}')
    cli.json("submit", parent, "--token", token, "--done", "all")


@pytest.mark.parametrize("schema", ["{", "[]", "7", "null", '{"type": 7}', '{"type": "object", "type": "string"}'])
def test_a_schema_that_is_none_posts_nothing(cli: Cli, schema: str) -> None:
    assert cli.main("post", "work", "x", "--result-schema", schema)[0] == 2
    assert cli.main("claim", "work")[0] == 4


def test_a_plan_that_waits_for_a_check_says_that_a_person_is_needed(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"goal": "g", "steps": [{"name": "build", "body": "x", "verify": ["true"]}]}))
    plan = posted(cli, path)
    do(cli, "built")
    code, _, err = cli.main("plan", "resume", plan)
    assert (code, f"plan resume {plan} --allow-verify runs the checks" in err) == (6, True)
    assert cli.json("plan", "list")["plans"][0]["blocked"] == 1


def test_a_plan_belongs_to_the_task_that_is_held(cli: Cli, file: Path) -> None:
    cli.post("boss", "the whole")
    parent, token = cli.claim("boss")
    made = cli.json("plan", "run", str(file), "--no-wait", "--parent", parent[-8:])
    assert made["parent"] == parent
    assert cli.main("submit", parent, "--token", token, "--done", "all")[0] == 5
    cli.main("plan", "cancel", made["short"])
    assert cli.main("submit", parent, "--token", token, "--done", "all")[0] == 0


def test_a_worker_of_the_command_line_is_at_work_between_its_calls(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    steps = [{"name": name, "body": "x", "capability": "paint"} for name in ("a", "b")]
    path.write_text(json.dumps({"goal": "g", "grace_s": 0, "steps": steps}))
    cli.main("init", str(cli.bus))
    assert cli.main("claim", "--capability", "paint")[0] == 4
    (record,) = (cli.bus / "agents").glob("*.json")
    path.write_text(path.read_text().replace('"grace_s": 0', '"grace_s": 60'))
    posted(cli, path)
    task_id, token = cli.claim("--capability", "paint")
    for words in (("heartbeat", task_id, "--token", token), ("submit", task_id, "--token", token, "--done", "red")):
        (record,) = (cli.bus / "agents").glob("*.json")
        os.utime(record, (1, 1))
        assert cli.main(*words)[0] == 0
        assert record.stat().st_mtime > 1, words[0]


def test_a_result_that_was_not_taken_is_told_also_to_who_wants_it_quiet(cli: Cli) -> None:
    cli.post("work", "x")
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", "first")
    code, _, err = cli.main("-q", "submit", task_id, "--token", token, "--done", "second")
    assert (code, "an earlier result of this claim is final" in err) == (0, True)
    assert cli.json("show", task_id)["result"]["content"] == "first"


def test_a_key_that_was_used_is_told(cli: Cli, file: Path) -> None:
    for told in ("3 steps", "posted before under that key"):
        _, _, err = cli.main("plan", "run", str(file), "--no-wait", "--key", "k")
        assert told in err


def test_what_will_be_run_is_announced_in_full_and_nothing_else_is_run(cli: Cli, tmp_path: Path) -> None:
    path, ran = tmp_path / "plan.json", tmp_path / "ran"
    long = "true" + " " * 300 + "; exit 0"
    path.write_text(json.dumps({"goal": "g", "steps": [{"name": "a", "body": "x", "verify": ["sh", "-c", long]}]}))
    plan = posted(cli, path)
    do(cli, "built")
    _, _, err = cli.main("plan", "show", plan, "--watch", "--allow-verify")
    assert f"by: sh -c '{long}'" in err, "what is not seen was not allowed"
    with open_bus(cli.bus, agent="tester") as bus:
        made = plans.read(bus, plans.resolve(bus, plan))
        checks = plancheck.Checks(bus, made.id, {"a": made.steps[0].verify}, time.monotonic() + 30)
        (task,) = (bus.get(name) for name in bus.store.ids())
        assert checks(made.steps[0], task) == ""
        for step in (made.steps[0]._replace(verify=("touch", str(ran))), made.steps[0]._replace(name="b")):
            with pytest.raises(InvalidRequest, match="is not the one that was announced"):
                checks(step, task)
    assert not ran.exists()


def test_a_check_ends_with_whoever_runs_it(cli: Cli, tmp_path: Path) -> None:
    path, started = tmp_path / "plan.json", tmp_path / "started"
    code = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    step = {"name": "a", "body": "x", "verify": [sys.executable, "-c", code]}
    path.write_text(json.dumps({"goal": "g", "steps": [step]}))
    plan = posted(cli, path)
    do(cli, "built")
    running = cli.start("plan", "resume", plan, "--allow-verify")
    end = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < end
    pid = int(started.read_text())
    running.terminate()
    running.communicate(timeout=30)
    assert not process.started(pid)
    assert stages(cli, plan) == {"a": "unverified"}


def test_while_a_check_runs_time_goes_on_for_the_rest_of_the_plan(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    check = [sys.executable, "-c", "import time; time.sleep(600)"]
    steps = [{"name": "a", "body": "x", "verify": check}, {"name": "b", "body": "x", "timeout_s": 1}]
    path.write_text(json.dumps({"goal": "g", "steps": steps}))
    plan = posted(cli, path)
    do(cli, "built")
    start = time.monotonic()
    assert cli.main("plan", "resume", plan, "--allow-verify", "--timeout", "4s")[0] == 6
    assert time.monotonic() - start < 20
    assert stages(cli, plan) == {"a": "unverified", "b": "failed"}


def test_a_plan_that_is_cut_off_is_not_run(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    steps = "".join(f"- {{name: s{number}, body: {'ж' * 20_000}}}\n" for number in range(30))
    path.write_text(f"goal: g\nsteps:\n{steps}")
    code, _, err = cli.main("plan", "run", str(path), "--no-wait")
    assert (code, "is larger than" in err) == (2, True)
    path.write_bytes(b"goal: \xff")
    with path.open("rb") as file, cli.start("plan", "run", "-", "--no-wait", stdin=file) as running:
        _, err = running.communicate(timeout=30)
    assert (running.returncode, "is not UTF-8" in err) == (2, True)
    assert cli.json("plan", "list")["plans"] == []
