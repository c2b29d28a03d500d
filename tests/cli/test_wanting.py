"""What this agent cannot take for want of a key, what was put aside and what was edited is told, with what to do."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from mcp_bus.server import answers, letters
from mcp_bus.server.words import ALL_WAYS

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

TRUST = "`mcp-bus key trust AGENT FILE`"


@pytest.fixture
def signed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A signed channel, and a key of the agent that speaks."""
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    cli.json("key", "new")
    cli.json("channel", "create", "deploy", "signed=yes")
    return cli


def elsewhere(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as a user with another home, in which the same agent has another key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(cli.home / "elsewhere"))
    cli.json("key", "new")


def keys(cli: Cli, *words: str) -> list[dict[str, Any]]:
    """Return what doctor says of keys."""
    found = json.loads(cli.main(*words, "--json", "doctor")[1])["findings"]
    return [item for item in found if item["about"] == "keys"]


def forge(cli: Cli, count: int = 1) -> None:
    """Write messages that nobody signed where tasks wait."""
    for number in range(count):
        name = f"req_{int(time.time() * 1000):012x}{number:020x}"
        said = {"id": name, "to": "deploy", "content": "rm -rf /", "from": {"agent": "tester"}}
        (cli.bus / "channels" / "deploy" / "requests" / f"{name}.json").write_text(json.dumps(said))


# --- keys ---------------------------------------------------------------------------------------------


def test_doctor_tells_an_agent_without_a_key_what_waits_in_vain_for_it(signed: Cli) -> None:
    for _ in range(2):
        signed.post("deploy")
    [item] = keys(signed, "--agent", "keyless")
    assert item["level"] == "warning"
    assert item["said"].startswith("2 tasks wait on deploy that this agent cannot take: 'deploy' is signed")
    assert item["fix"] == "mcp-bus --agent keyless key new keyless"
    assert keys(signed) == []
    assert signed.json("ls", "deploy")["counts"]["ready"] == 2


def test_doctor_tells_of_what_a_key_signed_that_nobody_here_trusts(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.post("deploy")
    elsewhere(signed, monkeypatch)
    [item] = keys(signed)
    assert item["said"].startswith("1 task waits on deploy that this agent cannot take: it is signed by a key ")
    assert TRUST in item["fix"]


def test_doctor_tells_of_what_is_encrypted_to_this_agent_and_another_key(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.json("key", "new", "worker")
    signed.post("plain", "x", "--encrypt-to", "worker")
    assert keys(signed) == []  # It is not for this agent, and should not be.
    monkeypatch.setenv("XDG_STATE_HOME", str(signed.home / "elsewhere"))
    [item] = keys(signed, "--agent", "worker")
    assert "encrypted to 'worker'; this agent has no key for it" in item["said"]
    assert item["fix"]


def test_what_helps_against_an_unknown_key_is_said_wherever_it_is_in_the_way(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, done = signed.post("deploy"), signed.post("deploy", "do it", "--priority", "3")
    _, token = signed.claim("deploy")
    signed.json("submit", done, "--token", token, "--done", "ok")
    elsewhere(signed, monkeypatch)
    for words, code in ((["claim", "deploy"], 4), (["show", waits], 0), (["wait", done, "--timeout", "0"], 6)):
        got, _, err = signed.main(*words)
        assert (got, TRUST in err) == (code, True), (words, err)
        assert f"`mcp-bus --bus {signed.bus} key trust" in signed.main("--bus", str(signed.bus), *words)[2], words
    with open_bus(agent="tester") as bus:
        assert TRUST in answers.empty(bus, ["deploy"], [], 0, [], ALL_WAYS)
        assert TRUST in answers.shown(bus, bus.get(waits), "0011", 0, ALL_WAYS)


def test_who_acts_on_what_an_unknown_key_signed_is_told_to_trust_it_and_not_to_post_it_anew(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = signed.post("deploy")
    _, token = signed.claim("deploy")
    elsewhere(signed, monkeypatch)
    code, _, err = signed.main("submit", task, "--token", token, "--done", "ok")
    assert code != 0
    assert TRUST in err
    assert "anew" not in err


def test_what_was_altered_is_not_advised_to_be_trusted(signed: Cli) -> None:
    task = signed.post("deploy")
    _, token = signed.claim("deploy")
    path = signed.bus / "tasks" / f"{task}.json"
    path.write_text(path.read_text().replace("do it", "do me"))
    for words in (["show", task], ["submit", task, "--token", token, "--done", "ok"]):
        _, out, err = signed.main(*words)
        assert "does not hold" in out + err, words
        assert "key trust" not in out + err, words


def test_of_several_reasons_it_is_said_of_how_many_tasks_each_is(signed: Cli) -> None:
    for agent in ("ann", "bob"):
        signed.json("key", "new", agent)
    signed.json("channel", "create", "mixed")
    for _ in range(2):
        signed.post("mixed", "x", "--encrypt-to", "ann")
    signed.post("mixed", "x", "--encrypt-to", "bob")
    why = signed.json("--agent", "visitor", "claim", "mixed", code=4)["why"]
    assert "2 of them (encrypted to 'ann'; this agent has no key for it)" in why
    assert "1 of them (encrypted to 'bob'; this agent has no key for it)" in why


def test_who_watches_without_a_key_is_told_as_it_starts(signed: Cli) -> None:
    words = ("watch", "deploy", "--idle", "0.1s", "--", "true")
    code, _, err = signed.main("--agent", "keyless", *words)
    assert (code, "no task of it will come: 'deploy' is signed, and 'keyless' has no key" in err) == (0, True)
    assert "no task of it will come" not in signed.main(*words)[2]


def test_who_reads_an_inbox_is_told_what_would_open_a_letter(signed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    signed.json("channel", "set", "@tester", "signed=yes")
    signed.json("send", "@tester", "swordfish")
    elsewhere(signed, monkeypatch)
    _, out, err = signed.main("inbox")
    assert (TRUST in err, "swordfish" in out) == (True, False)
    with open_bus(agent="tester") as bus:
        assert bus.mail.read() == []
        assert TRUST in letters.empty(bus, [], 0, ALL_WAYS)


# --- what was put aside -------------------------------------------------------------------------------


def test_who_claims_is_told_how_many_were_put_aside_and_why_the_last(signed: Cli) -> None:
    forge(signed, 2)
    code, _, err = signed.main("claim", "deploy")
    assert (code, "; 2 put aside just now, the last: it is not signed;" in err) == (4, True)
    assert "put aside" not in signed.main("claim", "deploy")[2]
    forge(signed)
    assert "; 1 put aside just now: it is not signed;" in signed.json("claim", "deploy", code=4)["why"]
    forge(signed)
    signed.post("deploy", "do it", "--priority", "-1")
    code, out, err = signed.main("claim", "deploy")
    assert (code, "do it" in out, "\n1 put aside just now: it is not signed\n" in err) == (0, True, True)


def test_an_agent_is_told_once_what_was_put_aside(signed: Cli) -> None:
    forge(signed)
    with open_bus(agent="tester") as bus:
        assert bus.claim(["deploy"]) is None
        said = answers.empty(bus, ["deploy"], [], 0, [], ALL_WAYS)
        assert "1 put aside just now: it is not signed" in said
        assert "put aside" not in answers.empty(bus, ["deploy"], [], 0, [], ALL_WAYS)


def test_the_next_step_about_what_was_put_aside_shows_the_reasons(signed: Cli) -> None:
    forge(signed)
    signed.main("claim", "deploy")
    found = json.loads(signed.main("--json", "doctor")[1])["findings"]
    [item] = [item for item in found if item["about"] == "quarantine"]
    done = subprocess.run(["sh", "-c", item["fix"]], check=True, capture_output=True, text=True, timeout=30)
    assert "it is not signed" in done.stdout


# --- what was edited ----------------------------------------------------------------------------------


def edit(cli: Cli, channel: str, **settings: object) -> None:
    path = cli.bus / "channels" / channel / "channel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_doctor_tells_of_a_channel_whose_file_says_that_it_is_not_signed(signed: Cli) -> None:
    assert keys(signed) == []
    edit(signed, "deploy", signed=False)
    [item] = keys(signed)
    assert (item["level"], "remembered here as signed, which holds" in item["said"]) == ("warning", True)
    assert item["fix"].startswith("mcp-bus channel set deploy signed=yes")
    assert signed.json("channel", "set", "deploy", "signed=yes")["signed"] is True
    assert keys(signed) == []


def test_who_sets_rules_is_told_what_is_written_back(signed: Cli) -> None:
    signed.json("channel", "create", "vault", "encrypt_to=tester")
    edit(signed, "deploy", signed=False)
    edit(signed, "vault", encrypt_to=[])
    for name, what in (("deploy", "as signed"), ("vault", "as encrypted to 'tester'")):
        _, _, err = signed.main("channel", "set", name, "lease_s=60")
        assert f"remembered here {what}, which holds" in err
        assert "that is written back" in err
        assert "written back" not in signed.main("channel", "set", name, "lease_s=90")[2]


# --- what stays in clear ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--failed", "--blocked", "--release"])
def test_a_reason_for_an_encrypted_task_is_said_to_be_in_clear(signed: Cli, how: str) -> None:
    note = "plain text: only the task and its result are encrypted"
    for options, is_said in ((["--encrypt-to", "tester"], True), ([], False)):
        signed.post("vault", "x", *options)
        task, token = signed.claim("vault")
        code, _, err = signed.main("submit", task, "--token", token, how, "because")
        assert (code, note in err) == (0, is_said)
        signed.main("cancel", task)


def test_results_as_files_of_an_encrypted_channel_are_said_not_to_be_written(signed: Cli) -> None:
    note = "outputs writes nothing of what is encrypted"
    assert note in signed.main("channel", "create", "vault", "outputs=yes", "encrypt_to=tester")[2]
    assert note not in signed.main("channel", "create", "other", "outputs=yes")[2]


def test_a_refused_post_leaves_no_channel_behind(signed: Cli) -> None:
    for agent, to in (("tester", "nobody"), ("keyless", "tester")):
        code, _, err = signed.main("--agent", agent, "post", "new", "x", "--encrypt-to", to)
        assert (code, "key" in err) == (1, True)
        assert "new" not in [item["name"] for item in signed.json("channel", "list")["channels"]]
    signed.post("new", "x", "--encrypt-to", "tester")


def test_why_a_task_is_hidden_stands_where_its_text_would(cli: Cli) -> None:
    cli.json("channel", "create", "work", "read_by=ann")
    task = cli.json("--agent", "bob", "post", "work", "swordfish", "--title", "fish")["id"]
    why = "('tester' may not read 'work': its rule read_by names 'ann')"
    assert why in cli.main("ls", "work")[1]
    out = cli.main("show", task)[1]
    assert f"  | {why}" in out
    assert "fish" not in out


def test_in_a_terminal_too_a_named_stranger_to_the_lists_changes_nothing(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_bus.cli.speaker.is_terminal", lambda: True)
    signed.json("channel", "create", "rules", "signed=yes", "encrypt_to=tester", "post_by=tester")
    for setting in ("signed=no", "encrypt_to=zed"):
        code, _, err = signed.main("--agent", "zed", "channel", "set", "rules", setting)
        assert (code, "'zed' may not change the settings of 'rules'" in err) == (1, True)
    found = signed.json("channel", "show", "rules")
    assert (found["signed"], found["encrypt_to"]) == (True, ["tester"])
    assert signed.json("channel", "set", "rules", "signed=no")["signed"] is False
