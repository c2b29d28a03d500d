"""Encrypted bodies as agents and people meet them: the command line as a process, the MCP server in both eras."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from examples import audit
from tests.cli.conftest import Cli
from tests.server.support import claim_in, desk

if TYPE_CHECKING:
    from pathlib import Path

WORD = "swordfish"
NOTE = "encrypted to 'worker'; this agent has no key for it"


def leaks(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line on a bus where planner and worker have keys."""
    made = Cli(tmp_path, capsys)
    for name in ("HOME", "MCP_BUS_DIR", "MCP_BUS_AGENT"):
        monkeypatch.setenv(name, made.env[name])
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert made.main("init", "--quiet")[0] == 0
    for agent in ("planner", "worker"):
        assert made.main("--agent", agent, "key", "new")[0] == 0
    return made


def test_processes_post_claim_answer_and_wait_and_a_third_one_reads_nothing(cli: Cli) -> None:
    done = cli.run("--agent", "planner", "post", "vault", WORD, "--title", WORD, "--encrypt-to", "worker", "--json")
    i = json.loads(done.stdout)["id"]
    empty = cli.run("--agent", "other", "claim", "vault")
    assert (empty.returncode, NOTE in empty.stderr) == (4, True)
    shown = json.loads(cli.run("--agent", "other", "show", i, "--json").stdout)
    assert shown["encrypted"] == {"to": ["worker"], "hidden": NOTE}
    assert (shown["body"], shown["title"], shown["hidden"]) == (f"({NOTE})", "", NOTE)
    claimed = json.loads(cli.run("--agent", "worker", "claim", "vault", "--json").stdout)
    assert (claimed["body"], claimed["encrypted"]) == (WORD, {"to": ["worker"], "hidden": None})
    token = claimed["ticket"]["token"]
    assert cli.run("--agent", "worker", "submit", i, "--token", token, "--done", f"{WORD}!").returncode == 0
    assert f"| {WORD}!" in cli.run("--agent", "planner", "wait", i, "--timeout", "0").stdout
    for words in (("show", i), ("wait", i, "--timeout", "0"), ("find", WORD), ("export", "vault")):
        told = cli.run("--agent", "other", *words)
        assert WORD not in told.stdout.replace("nothing found", "") + told.stderr.replace(f"'{WORD}'", ""), words
    assert leaks(cli.bus) == []


def test_a_letter_is_encrypted_to_its_reader_and_so_is_the_answer(cli: Cli) -> None:
    assert cli.main("--agent", "planner", "send", "@worker", WORD, "--encrypt-to", "worker")[0] == 0
    (letter,) = cli.json("--agent", "worker", "inbox")["messages"]
    assert (letter["body"], letter["encrypted"]["to"], letter["verified"][:9]) == (WORD, ["worker"], "planner (")
    assert cli.main("--agent", "worker", "send", "-", f"{WORD}!", "--reply-to", letter["id"])[0] == 0
    (answer,) = cli.json("--agent", "planner", "inbox")["messages"]
    assert (answer["body"], answer["encrypted"]["to"]) == (f"{WORD}!", ["planner"])
    assert leaks(cli.bus) == []


def test_without_a_key_for_the_recipient_nothing_is_posted_and_what_helps_is_said(cli: Cli) -> None:
    code, _, err = cli.main("--agent", "planner", "post", "vault", WORD, "--encrypt-to", "nobody")
    assert code != 0
    assert "no key of 'nobody' is trusted here" in err
    assert "mcp-bus key trust nobody FILE" in err
    assert leaks(cli.bus) == []


def test_a_program_cannot_change_whom_a_channel_is_encrypted_to(cli: Cli) -> None:
    assert cli.json("channel", "create", "vault", "encrypt_to=worker,planner")["encrypt_to"] == ["worker", "planner"]
    code, _, err = cli.main("channel", "set", "vault", "encrypt_to=")
    assert code != 0
    assert "only a person" in err
    assert cli.json("channel", "show", "vault")["encrypt_to"] == ["worker", "planner"]


def test_a_person_at_a_terminal_can_change_whom_a_channel_is_encrypted_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.json("channel", "create", "vault", "encrypt_to=worker,planner")
    monkeypatch.setattr("mcp_bus.cli.speaker.is_terminal", lambda: True)
    assert cli.json("channel", "set", "vault", "encrypt_to=worker")["encrypt_to"] == ["worker"]
    assert cli.json("channel", "set", "vault", "encrypt_to=")["encrypt_to"] == []
    assert cli.main("channel", "set", "nowhere", "encrypt_to=worker")[0] != 0
    assert cli.json("channel", "set", "@worker", "encrypt_to=worker")["encrypt_to"] == ["worker"]


def test_doctor_fsck_and_the_audit_know_it_and_open_nothing(cli: Cli) -> None:
    cli.json("channel", "create", "vault", "encrypt_to=worker")
    cli.json("--agent", "planner", "post", "vault", WORD)
    i, token = cli.claim("--agent", "worker", "vault")
    cli.json("--agent", "worker", "submit", i, "--token", token, "--done", WORD)
    assert cli.main("--agent", "planner", "fsck")[0] == 0
    assert audit.look(cli.bus).problems == []
    told = [json.loads(cli.main("--agent", name, "--json", "doctor")[1])["findings"] for name in ("planner", "visitor")]
    fine, lacking = ([item["said"] for item in found if item["about"] == "encryption"] for found in told)
    assert fine == []
    assert "a key of 'visitor'" in lacking[0]
    response = cli.bus / "channels" / "vault" / "responses" / f"{i}.json"
    kept = response.read_text()
    response.write_text(kept.replace('"encrypted"', '"unknown"'))
    assert audit.look(cli.bus).problems == [f"{i} is encrypted, and its result is plain text"]
    response.write_text(kept)
    body = cli.bus / "tasks" / f"{i}.json"
    body.write_text(body.read_text().replace('"encrypted":{"to":["worker"]', '"encrypted":{"to":[]'))
    code, out, _ = cli.main("fsck")
    assert code != 0
    assert "bus.encrypted does not say to whom" in out


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_an_agent_is_told_that_its_reason_is_in_clear_and_of_a_plain_task_it_is_not(cli: Cli, era: str) -> None:
    clear = "that is written down in plain text"
    async with desk(cli.home, era, agent="worker") as worker:
        for to, status in (("worker", "failed"), ("worker", "blocked"), ("", "failed")):
            options = ["--encrypt-to", to] if to else []
            assert cli.main("--agent", "worker", "post", "vault", WORD, *options, "--max-attempts", "1")[0] == 0
            claim = claim_in(await worker.call("claim_next", channels=["vault"]))
            told = await worker.call(
                "submit_result", task=claim.task, token=claim.token, status=status, result="because"
            )
            assert (clear in told) == bool(to), told


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_an_agent_over_mcp_needs_no_parameter_for_it(cli: Cli, era: str) -> None:
    cli.json("channel", "create", "vault", "encrypt_to=worker")
    async with (
        desk(cli.home, era, agent="planner") as planner,
        desk(cli.home, era, agent="worker") as worker,
        desk(cli.home, era, agent="other") as other,
    ):
        await planner.call("post_task", channel="vault", body=WORD, title=WORD)
        assert NOTE in await other.call("claim_next", channels=["vault"])
        claim = claim_in(await worker.call("claim_next", channels=["vault"]))
        assert f"\n{WORD}\n" in claim.text
        hidden = await other.call("get_task", task=claim.task)
        assert NOTE in hidden
        assert WORD not in hidden
        await worker.call("submit_result", task=claim.task, token=claim.token, result=f"{WORD}!")
        assert f"\n{WORD}!\n" in await planner.call("await_results", tasks=[claim.task])
        told = await other.call("await_results", tasks=[claim.task])
        assert WORD not in told
        read = await other.client.read_resource(f"bus://tasks/{claim.task}")
        assert WORD not in str(read)
    assert leaks(cli.bus) == []
