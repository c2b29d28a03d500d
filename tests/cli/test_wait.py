"""wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_wait_shows_results_as_they_come_and_exits_with_0(cli: Cli) -> None:
    first, second = cli.post(), cli.post()
    with cli.start("wait", first, second[-8:], "--timeout", "60s") as waiter:
        assert waiter.stderr
        assert waiter.stdout
        assert [waiter.stderr.readline()[:5], waiter.stderr.readline()[:7]] == ["bus: ", "waiting"]
        for answer in ("one", "two"):
            task_id, token = cli.claim()
            cli.json("submit", task_id, "--token", token, "--done", answer)
            assert waiter.stdout.readline() == f"{task_id[-8:]} done\n"
            assert waiter.stdout.readline().startswith("result  success by tester")
            assert waiter.stdout.readline() == f"  | {answer}\n"
        waiter.communicate(timeout=30)
    assert waiter.returncode == 0


def test_wait_exits_with_4_when_time_is_up(cli: Cli) -> None:
    task_id = cli.post()
    made = cli.json("wait", task_id, "--timeout", "0", code=4)
    assert made["timed_out"] is True
    assert made["tasks"][0]["over"] is False
    assert "not ended yet" in cli.main("wait", task_id, "--timeout", "0")[2]


def test_wait_exits_with_6_for_dead_and_blocked_tasks(cli: Cli) -> None:
    dead = cli.dead("out of ideas")
    cli.post()
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--blocked", "which one?")
    for name, word in ((dead, "dead: out of ideas"), (task_id, "blocked: which one?")):
        code, out, _ = cli.main("wait", name)
        assert code == 6
        assert word in out


def test_what_has_ended_is_shown_and_not_waited_for(cli: Cli) -> None:
    dead = cli.dead("no")
    code, out, err = cli.main("wait", dead)
    assert (code, out) == (6, f"{dead[-8:]} dead: no\n")
    assert "waiting" not in err
    ready = cli.post()
    assert "waiting for 1 to end" in cli.main("wait", dead, ready, "--timeout", "0")[2]


def test_wait_exits_with_1_for_a_cancelled_task(cli: Cli) -> None:
    task_id = cli.post()
    cli.json("cancel", task_id)
    assert cli.json("wait", task_id, code=1)["tasks"][0]["task"]["state"] == "cancelled"


def test_wait_follows_a_task_that_was_edited_and_retried(cli: Cli) -> None:
    old = cli.dead()
    cli.json("retry", old, "--body", "better")
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", "at last")
    found = cli.json("wait", old)["tasks"][0]
    assert (found["task"]["id"], found["task"]["result"]["content"]) == (task_id, "at last")


def test_wait_waits_for_the_good_ids_and_reports_the_bad_ones(cli: Cli) -> None:
    dead = cli.dead()
    made = cli.json("wait", "deadbeef", "!!", dead, code=6)
    assert [item["error"] and item["error"]["code"] for item in made["tasks"]] == [
        "not_found",
        "invalid_request",
        None,
    ]
    assert cli.main("wait", "deadbeef")[0] == 3
