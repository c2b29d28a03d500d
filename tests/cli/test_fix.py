"""retry, requeue, discard, undo, cancel, sweep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus.bus import Bus
from mcp_bus.errors import NotFound

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_a_cancelled_task_comes_back_with_undo(cli: Cli) -> None:
    task_id = cli.post()
    code, out, _ = cli.main("cancel", task_id, "--reason", "done by hand")
    assert (code, out) == (0, f"{task_id[-8:]} cancelled\n")
    assert cli.main("claim")[0] == 4
    assert cli.main("undo", task_id)[:2] == (0, f"{task_id[-8:]} ready\n")
    history = cli.json("show", task_id)["history"]
    assert [(line["outcome"], line["note"], line["by"]) for line in history] == [
        ("cancelled", "done by hand", "tester"),
        ("undone", "", "tester"),
    ]


def test_a_discarded_task_comes_back_with_undo_as_dead(cli: Cli) -> None:
    task_id = cli.dead()
    assert cli.json("discard", task_id)["tasks"][0]["task"]["state"] == "cancelled"
    assert cli.json("undo", task_id)["tasks"][0]["task"]["state"] == "dead"
    assert any(name.startswith("channels/work/dead/") for name in cli.files())


def test_requeue_takes_a_task_from_its_worker(cli: Cli) -> None:
    cli.post()
    task_id, token = cli.claim()
    assert cli.main("requeue", task_id)[:2] == (0, f"{task_id[-8:]} ready\n")
    assert cli.main("submit", task_id, "--token", token, "--done", "late")[0] == 5
    assert any(name.startswith("rejected/") for name in cli.files()), "a late result is kept for a person"


def test_requeue_makes_a_scheduled_task_ready(cli: Cli) -> None:
    task_id = cli.post("work", "x", "--delay", "1d")
    cli.json("requeue", task_id)
    assert cli.claim()[0] == task_id


def test_retry_gives_a_fresh_budget_and_keeps_the_note(cli: Cli) -> None:
    task_id = cli.dead()
    assert cli.main("retry", task_id, "--note", "try again")[0] == 0
    found = cli.json("claim")
    assert (found["id"], found["attempt"]) == (task_id, 2)
    assert found["history"][-1]["note"] == "try again"


def test_retry_with_another_body_posts_a_task_in_its_place(cli: Cli) -> None:
    old = cli.dead()
    made = cli.json("retry", old, "--body", "do it well", "--note", "clearer")["tasks"][0]["task"]
    assert (made["retry_of"], made["body"], made["state"]) == (old, "do it well", "ready")
    assert cli.state(old) == "cancelled"
    assert cli.main("undo", old)[0] == 5


def test_retry_takes_its_body_from_stdin(cli: Cli) -> None:
    done = cli.run("retry", cli.dead(), "--body", "-", "--json", text="from stdin")
    assert json.loads(done.stdout)["tasks"][0]["task"]["body"] == "from stdin"


def test_an_edited_body_goes_with_one_task(cli: Cli) -> None:
    one, two = cli.dead(), cli.dead()
    assert cli.main("retry", one, two, "--body", "x")[0] == 2
    assert [cli.state(one), cli.state(two)] == ["dead", "dead"]


def test_each_id_is_reported_and_the_highest_code_counts(cli: Cli) -> None:
    one, two = cli.post(), cli.post()
    code, out, err = cli.main("cancel", one, "deadbeef", "!", two, one)
    assert code == 3
    assert out == f"{one[-8:]} cancelled\n{two[-8:]} cancelled\n"
    assert "there is no task 'deadbeef'" in err
    assert "'!' is not a task id" in err
    made = cli.json("undo", one, "deadbeef", code=3)["tasks"]
    assert [item["error"] and item["error"]["code"] for item in made] == [None, "not_found"]


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("cancel", "post a new task"), ("requeue", "its result is final"), ("discard", ""), ("undo", ""), ("retry", "")],
)
def test_a_finished_task_is_refused_with_what_to_do_instead(cli: Cli, verb: str, hint: str) -> None:
    cli.post()
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", "x")
    code, out, err = cli.main(verb, task_id)
    assert (code, out) == (5, "")
    assert f"cannot {verb}" in err
    assert hint in err
    assert cli.state(task_id) == "done"


def test_reprioritise_moves_a_waiting_task_forward(cli: Cli) -> None:
    first, second = cli.post(), cli.post()
    assert cli.main("reprioritise", second, "--priority", "5")[:2] == (0, f"{second[-8:]} ready\n")
    code, _, err = cli.main("reprioritise", first, "--priority", "10")
    assert code == 2
    assert err == (
        "mcp-bus: '10' is not a priority\n"
        "  next: a whole number from -9, which goes last, to 9, which goes first; tasks have 0\n"
    )
    assert cli.claim()[0] == second
    assert cli.main("reprioritise", second, "--priority", "1")[0] == 5


def test_reprioritise_may_be_spelt_with_a_z(cli: Cli) -> None:
    first, second = cli.post(), cli.post()
    assert cli.main("reprioritize", second, "--priority", "-1")[0] == 0
    assert cli.main("reprioritize", second, "--priority", "+1")[0] == 0
    assert [cli.claim()[0], cli.claim()[0]] == [second, first]


def test_hints_of_each_id_name_the_bus_of_the_call(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_bus: Bus, _name: str, _reason: str) -> None:
        msg = "no"
        raise NotFound(msg, hint="see `mcp-bus find`")

    monkeypatch.setattr(Bus, "cancel", refuse)
    assert "next: see `mcp-bus find`" in cli.main("cancel", "abcd")[2]
    assert f"next: see `mcp-bus --bus {cli.bus} find`" in cli.main("cancel", "abcd", "--bus", str(cli.bus))[2]


def test_sweep_brings_back_a_lapsed_lease(cli: Cli) -> None:
    cli.post("work", "x", "--backoff", "0")
    task_id, _ = cli.claim()
    held = next((cli.bus / "channels/work/processing").iterdir())
    held.rename(held.with_name(".".join([*held.name.split(".")[:-2], "1000", "json"])))
    code, out, _ = cli.main("sweep")
    assert code == 0
    assert f"{task_id} came back from tester~" in out
    assert cli.state(task_id) == "ready"
    assert cli.main("sweep")[1] == ""


@pytest.mark.parametrize("verb", ["cancel", "retry", "requeue", "discard", "undo", "wait", "show", "submit", "post"])
def test_a_verb_without_its_words_is_a_usage_error(cli: Cli, verb: str) -> None:
    code, out, err = cli.main(verb)
    assert (code, out) == (2, "")
    assert f"next: mcp-bus {verb} --help" in err
