"""On one directory with abq: what it writes we take, what we write it can take, by its documented formats.

abq itself is not needed: its program is a few moves of files, made here as its documentation says.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from tests.abq.conftest import ours

if TYPE_CHECKING:
    from pathlib import Path

    from tests.abq.conftest import Abq
    from tests.cli.conftest import Cli

FIELDS = {"id", "version", "type", "from", "to", "content", "timestamp", "ttl"}


# --- each way -----------------------------------------------------------------------------------------


def test_what_abq_sends_is_received_and_answered_and_abq_finds_the_answer(cli: Cli, abq: Abq) -> None:
    name = abq.send("app", "signal", '{"signal": "tests_passed"}')
    assert ours(cli, "recv", "app").splitlines() == [
        f"ID: {name}", "Type: signal", "From: github.com/o/r/main", 'Content: {"signal": "tests_passed"}',
    ]  # fmt: skip
    assert ours(cli, "respond", "app", name, "--result", "deployed") == f"Response sent: {name} [success]\n"
    found = abq.response("app", name)
    assert found is not None
    assert {key: found[key] for key in ("id", "version", "status", "result", "error")} == {
        "id": name, "version": "1.0.0", "status": "success", "result": "deployed", "error": None,
    }  # fmt: skip
    with open_bus(cli.bus) as bus:
        result = bus.get(name).result
        assert result is not None, "abq put it into the archive, and it can be read all the same"
        assert result.content == "deployed"


def test_what_we_send_abq_receives_and_answers_and_our_waiter_is_told(cli: Cli, abq: Abq) -> None:
    name = ours(cli, "send", "app", "command", "run lint").removeprefix("Sent: ").partition(" ")[0]
    got = abq.recv("app")
    assert got is not None
    assert got.keys() == FIELDS
    assert (got["id"], got["type"], got["to"], got["content"], got["ttl"]) == (name, "command", "app", "run lint", 300)
    abq.respond("app", name, "clean")
    assert cli.main("wait", name, "--timeout", "5s")[0] == 0
    assert cli.json("show", name)["result"]["content"] == "clean"
    assert ours(cli, "ls", "app", "responses", "--count") == "1\n"
    assert ours(cli, "status").splitlines()[-2:] == [
        "  app: 0 pending, 0 processing, 1 responses", "  broadcast: 0 pending, 0 processing, 0 responses",
    ]  # fmt: skip


def test_a_task_of_ours_can_be_done_by_abq_too(cli: Cli, abq: Abq) -> None:
    task_id = cli.post("app", "do it")
    got = abq.recv("app")
    assert got is not None
    abq.respond("app", task_id, "done", "error")
    assert cli.json("show", task_id)["result"]["status"] == "error"


def test_what_abq_received_can_be_answered_by_us(cli: Cli, abq: Abq) -> None:
    name = abq.send("app", "command", "x")
    assert abq.recv("app") is not None
    ours(cli, "respond", "app", name, "--status", "error", "--error", "no such file")
    found = abq.response("app", name)
    assert found is not None
    assert (found["status"], found["error"]) == ("error", "no such file")


@pytest.mark.parametrize(
    ("one", "other"),
    [("team/ann", "team-ann"), ("a-b/c", "a/b-c"), ("x" * 80 + "/main", "y" * 80 + "/main")],
    ids=["a slash", "two slashes", "long"],
)
def test_only_who_received_a_message_answers_it_however_alike_the_names_look(
    cli: Cli, abq: Abq, one: str, other: str
) -> None:
    name = abq.send("app", "command", "x")
    with open_bus(cli.bus, agent=one) as bus:
        assert bus.claim(["app"]) is not None
    code, _, err = cli.main("--agent", other, "abq", "respond", "app", name, "-r", "not mine")
    assert (code, f"No processing message with id {name}" in err) == (1, True), err
    assert abq.response("app", name) is None
    assert cli.main("--agent", one, "abq", "respond", "app", name, "-r", "mine")[0] == 0
    found = abq.response("app", name)
    assert found is not None
    assert found["result"] == "mine"


def test_a_handler_that_fails_while_a_child_is_open_is_tried_again_and_the_watch_goes_on(cli: Cli, abq: Abq) -> None:
    script = cli.home / "parent.py"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\nfrom mcp_bus import open_bus\n"
        "if os.environ['ABQ_MSG_CONTENT'] == 'parent':\n"
        "    with open_bus(os.environ['MCP_BUS_DIR']) as bus:\n"
        "        bus.post('other', 'a child', parent=os.environ['MCP_BUS_TASK'])\n    sys.exit(3)\nprint('fine')\n"
    )
    script.chmod(0o755)
    first, second = (abq.send("app", "command", text) for text in ("parent", "next"))
    env = {"ABQ_HOME": str(cli.bus), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    watching = cli.start("abq", "watch", "app", "--handler", str(script), env=env)
    end = time.monotonic() + 30
    while abq.response("app", second) is None:
        assert time.monotonic() < end
        assert watching.poll() is None, watching.communicate()
    watching.terminate()
    watching.communicate(timeout=30)
    assert abq.response("app", first) is None
    history = cli.json("show", first)["history"]
    assert any("exit code 3" in line.get("note", "") and "have not ended" in line["note"] for line in history)


def test_abq_s_gc_leaves_what_has_no_end_alone(cli: Cli, abq: Abq) -> None:
    task_id = cli.post("app", "for ever")
    claimed, _ = cli.claim("app")
    assert claimed == task_id
    cli.post("app", "another")
    assert abq.gc() == 0
    assert cli.state(task_id) == "leased"


def test_waiting_for_a_response_works_each_way(cli: Cli, abq: Abq) -> None:
    sent = cli.start("abq", "send", "app", "command", "x", "--wait", "--timeout", "20", env={"ABQ_HOME": str(cli.bus)})
    end = time.monotonic() + 20
    while (got := abq.recv("app")) is None:
        assert time.monotonic() < end
    abq.respond("app", got["id"], "y")
    out, err = sent.communicate(timeout=30)
    assert (sent.returncode, out.splitlines()) == (
        0, [f"Sent: {got['id']} -> app", "Waiting for response (timeout: 20s)...", "Response [success]: y"],
    ), err  # fmt: skip
    code, out, err = cli.main("abq", "send", "app", "command", "x", "--wait", "--timeout", "0")
    assert (code, "Timeout waiting for response" in err) == (1, True)


@pytest.mark.timeout(180)
def test_large_messages_written_in_pieces_beside_our_claims_are_received_whole_and_none_is_stuck(
    cli: Cli, abq: Abq
) -> None:
    bodies = {f"{number} " + "x" * 20_000 for number in range(60)}
    writer = threading.Thread(target=lambda: [abq.send("app", "command", body, pieces=20) for body in sorted(bodies)])
    writer.start()
    got: list[str] = []
    with open_bus(cli.bus, durability="none") as bus:
        end = time.monotonic() + 120
        while len(got) < len(bodies):
            assert time.monotonic() < end, len(got)
            task = bus.claim(["app"])
            if task is not None:
                got.append(task.body.content)
                bus.ack(task, "ok")
    writer.join()
    assert sorted(got) == sorted(bodies)
    assert list((cli.bus / "quarantine").iterdir()) == []


# --- its verbs ----------------------------------------------------------------------------------------


def test_a_home_of_abq_becomes_a_bus_and_its_channels_are_there(cli: Cli, abq: Abq) -> None:
    before = (cli.bus / "registry.json").read_text()
    assert ours(cli, "init") == f"Agent bus initialized at {cli.bus}\n"
    assert ours(cli, "channel", "list").splitlines() == ["app", "broadcast"]
    assert (cli.bus / "registry.json").read_text() == before
    assert ours(cli, "channel", "create", "new") == f"Channel 'new' created at {cli.bus}/channels/new\n"
    assert abq.folder("new", "requests").is_dir()


def test_the_program_under_abq_s_name_is_abq(cli: Cli, tmp_path: Path) -> None:
    link = tmp_path / "abq"
    link.write_text(f"#!{sys.executable}\nfrom mcp_bus.cli.main import run\nrun()\n")
    link.chmod(0o755)
    import subprocess

    env = cli.env | {"ABQ_HOME": str(tmp_path / "home")}
    del env["MCP_BUS_DIR"]
    for words in (["init"], ["channel", "create", "a"], ["send", "a", "signal", "-"]):
        done = subprocess.run([link, *words], env=env, input="{}", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "home" / "channels" / "a" / "requests").iterdir())) == 1


def test_json_is_abq_s_json(cli: Cli, abq: Abq) -> None:
    assert abq.home.exists()
    sent = json.loads(ours(cli, "send", "app", "signal", "{}", "--reply-to", "me", "--ttl", "9", "--json"))
    assert sent.keys() == FIELDS | {"reply_to"}
    assert (sent["ttl"], sent["reply_to"], sent["from"]["agent"]) == (9, "me", "tester")
    assert json.loads(ours(cli, "ls", "app", "--json")) == sent
    assert json.loads(ours(cli, "recv", "app", "--json")) == sent
    answer = json.loads(ours(cli, "respond", "app", sent["id"], "-r", "ok", "--json"))
    assert answer.keys() == {"id", "version", "status", "from", "result", "error", "timestamp"}
    assert ours(cli, "recv", "app") == "", "nothing, and no error"


def test_gc_puts_aside_what_waited_too_long_and_requeue_what_nobody_works_on_and_neither_what_is_in_work(
    cli: Cli, abq: Abq
) -> None:
    stale, worked = abq.send("app", "signal", "old"), abq.send("app", "signal", "in work")
    with open_bus(cli.bus, agent="worker", session="7") as bus:
        assert {bus.claim(["app"], only=lambda body: body.content == "in work").id} == {worked}  # type: ignore[union-attr]  # it is there
        assert ours(cli, "gc", "-v").splitlines() == [f"Archived: {stale}", "Archived 1 stale message(s)"]
        assert ours(cli, "requeue") == "Requeued 0 message(s)\n"
        assert cli.state(worked) == "leased"
        bus.roster.arrive()
        bus.roster.leave()
    assert "1 message(s) stuck in processing" in ours(cli, "check")
    assert ours(cli, "requeue", "app", "-v").splitlines() == [f"Requeued: {worked}", "Requeued 1 message(s)"]
    assert cli.state(worked) == "ready"


def test_self_and_parent_are_agents_by_their_git_context(cli: Cli, abq: Abq) -> None:
    assert abq.home.exists()
    agent = "github.com/o/r/worktrees/fix"
    for address, to in (("@self", agent), ("@parent", "github.com/o/r/main")):
        code, _, err = cli.main("--agent", agent, "abq", "send", address, "signal", address)
        assert code == 0, err
        with open_bus(cli.bus, agent=to) as bus:
            (got,) = bus.mail.read()
            assert got.body.content == address
            bus.mail.ack()


def test_whether_somebody_serves_a_channel_is_told_by_the_exit_code(cli: Cli, abq: Abq, tmp_path: Path) -> None:
    assert abq.home.exists()
    assert cli.main("abq", "check", "--channel", "app", "--alive")[0] == 1
    running = cli.start("abq", "watch", "app", "--handler", "cat", env={"ABQ_HOME": str(cli.bus)}, cwd=tmp_path)
    end = time.monotonic() + 30
    while cli.main("abq", "check", "--channel", "app", "--alive")[0]:
        assert time.monotonic() < end
    running.terminate()
    running.communicate(timeout=30)
    assert cli.main("abq", "check", "--channel", "app", "--alive")[0] == 1


HANDLER = """#!/bin/sh
test -f "$1" || exit 9
case "$ABQ_MSG_TYPE" in
  signal) echo "$ABQ_MSG_ID $ABQ_MSG_FROM $ABQ_CHANNEL: $ABQ_MSG_CONTENT" ;;
  eval) touch ran; echo ran ;;
  *) echo "cannot" >&2; exit 3 ;;
esac
"""


def test_a_handler_is_run_for_each_message_and_its_output_is_the_response(cli: Cli, abq: Abq, tmp_path: Path) -> None:
    script = tmp_path / "handler.sh"
    script.write_text(HANDLER)
    script.chmod(0o755)
    good, bad, evil = (abq.send("app", kind, "x") for kind in ("signal", "command", "eval"))
    running = cli.start("abq", "watch", "app", "-H", "./handler.sh", env={"ABQ_HOME": str(cli.bus)}, cwd=tmp_path)
    found: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + 60
    while len(found) < 3:
        assert time.monotonic() < end
        found |= {name: got for name in (good, bad, evil) if (got := abq.response("app", name)) is not None}
    running.terminate()
    out, _ = running.communicate(timeout=30)
    assert found[good]["result"] == f"{good} github.com/o/r/main app: x"
    assert (found[bad]["status"], found[bad]["error"]) == ("error", "exit code 3: cannot")
    assert found[evil]["status"] == "error"
    assert "is not run here" in found[evil]["error"]
    assert not (tmp_path / "ran").exists()
    assert out.splitlines()[:2] == ["Watching channel: app", "Handler: ./handler.sh"]
    assert f"Processing: {good}" in out.splitlines()


def test_a_channel_is_removed_only_when_nothing_on_it_would_be_lost(cli: Cli, abq: Abq) -> None:
    name = abq.send("app", "signal", "x")
    code, _, err = cli.main("abq", "channel", "rm", "app")
    assert (code, "1 messages that wait" in err) == (1, True)
    ours(cli, "recv", "app")
    assert cli.main("abq", "channel", "rm", "app")[0] == 1
    ours(cli, "respond", "app", name, "-r", "ok")
    assert ours(cli, "channel", "rm", "app") == "Channel 'app' removed\n"
    assert not abq.folder("app", "requests").exists()
    cli.main("sweep")
    assert cli.main("show", name)[0] == 3, "and it does not come back"
    assert ours(cli, "channel", "list") == "broadcast\n"


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["send", "nope", "signal", "x"], 1, "Channel 'nope' does not exist. Create with: abq channel create nope"),
        (["send", "app", "bogus", "x"], 2, "invalid choice"),
        (["recv", "nope"], 1, "does not exist"),
        (["respond", "app", "req_00000000"], 1, "Error: "),
        (["watch", "nope", "--handler", "cat"], 1, "does not exist"),
        (["watch", "app", "--handler", "./missing"], 1, "there is no command"),
        (["channel", "rm", "nope"], 1, "not found"),
        (["channel", "create"], 1, "channel name required"),
        (["ls", "nope"], 1, "does not exist"),
        (["check", "--alive"], 1, "go together"),
        (["frobnicate"], 2, "invalid choice"),
    ],
)
def test_what_cannot_be_is_an_error_as_abq_has_it(cli: Cli, abq: Abq, words: list[str], code: int, why: str) -> None:
    assert abq.home.exists()
    got, out, err = cli.main("abq", *words)
    assert (got, why in err) == (code, True), (got, out, err)


def test_what_abq_received_is_answered_by_nobody_who_may_not_claim_there(cli: Cli, abq: Abq) -> None:
    ours(cli, "status")
    cli.json("channel", "set", "app", "claim_by=bob")
    name = abq.send("app", "command", "x")
    assert abq.recv("app") is not None
    code, _, err = cli.main("abq", "respond", "app", name, "--result", "mine")
    assert code != 0
    assert "may not claim on 'app'" in err
    assert cli.state(name) == "leased"
