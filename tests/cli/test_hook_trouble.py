"""hook: it never holds an agent up, whatever is wrong with the bus, the settings or what the client says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli import hook
from mcp_bus.cli.arguments import Parser
from mcp_bus.hooks import forms, telling
from tests.cli.conftest import ROOT
from tests.cli.hooked import EVENTS, SAID, Client, send, unread
from tests.cli.test_imports import HEAVY, SPY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def client(cli: Cli) -> Client:
    return Client(cli)


@pytest.mark.parametrize("said", ["", "{", "[]", "null", '"text"', "\x00", "[" * 100_000, "{} {}"])
def test_stdin_that_is_not_what_a_client_says_costs_one_line_and_nothing_else(client: Client, said: str) -> None:
    done = client.call("claude-code", "SessionStart", said=said)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "mcp-bus: hook claude-code SessionStart: there is no JSON object on stdin\n"


def test_a_client_that_says_nothing_and_does_not_close_stdin_is_not_waited_for(cli: Cli) -> None:
    with cli.start("hook", "claude-code", "Stop") as process:
        assert process.wait(timeout=30) == 0


def test_fields_of_wrong_kinds_hurt_nothing(client: Client) -> None:
    send(client.cli, priority=1)
    wrong: dict[str, Any] = {"cwd": ["\0"], "session_id": {"a": 1}, "workspace_roots": "x", "stop_hook_active": None}
    assert "1 urgent" in client.told("claude-code", "Stop", **wrong)
    assert "1 urgent" in client.told("cursor", "stop", workspace_roots=[7, "\0", "relative", "/nowhere/at/all"])


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["emacs", "SessionStart"], "claude-code, codex, gemini-cli, cursor, opencode"),
        (["claude-code", "stop"], "SessionStart, UserPromptSubmit, PostToolUse, Stop"),
        (["cursor", "beforeSubmitPrompt"], "sessionStart, postToolUse, stop"),
        (["gemini-cli", "PreCompress"], "SessionStart, BeforeAgent, AfterTool, AfterAgent"),
        (["codex"], "SessionStart, UserPromptSubmit, PostToolUse, Stop"),
        (["codex", "Stop", "now"], "SessionStart, UserPromptSubmit, PostToolUse, Stop"),
        ([], "claude-code, codex, gemini-cli, cursor, opencode"),
    ],
)
def test_a_client_or_event_without_a_known_hook_is_a_usage_error(cli: Cli, words: list[str], known: str) -> None:
    done = cli.run("hook", *words, text="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"  next: known: {known}"
    # To a client, 2 is the order to hold its agent up: not for a word that somebody mistyped in its settings.
    called = cli.run("hook", *words, text='{"hook_event_name": "Stop"}')
    assert (called.returncode, called.stdout) == (1, "")
    assert known in called.stderr


def test_a_missing_bus_stays_missing_and_is_no_error(client: Client, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for name, event in EVENTS:
        assert client.told(name, event, env={"MCP_BUS_DIR": str(nowhere)}) == ""
    assert not nowhere.exists()


@pytest.mark.parametrize("harm", ["bus.json", "format", "settings", "name"])
def test_a_broken_bus_or_setting_costs_one_line_and_nothing_else(client: Client, harm: str) -> None:
    cli, env = client.cli, dict[str, str]()
    if harm == "bus.json":
        (cli.bus / "bus.json").write_text("{")
    elif harm == "format":
        (cli.bus / "bus.json").write_text('{"format": 99}')
    elif harm == "settings":
        (cli.home / "mcp-bus.toml").write_text("lease = \x01")
    else:
        env = {"MCP_BUS_AGENT": "broadcast"}
    for event in SAID["claude-code"]:
        done = client.call("claude-code", event, env=env)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"mcp-bus: hook claude-code {event}: ")
        assert done.stderr.count("\n") == 1


def test_records_that_are_none_are_read_as_if_nothing_was_told(client: Client) -> None:
    send(client.cli)
    folder = client.cli.bus / telling.KIND
    for text in ("{", "[]", '{"sessions": 7}', '{"sessions": {"5e5c": [1, [7, "x"]], "b": 7}}'):
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / "tester.1.json").write_text(text)
        assert "1 message" in client.told("claude-code", "PostToolUse")
        assert client.told("claude-code", "PostToolUse") == ""


def test_a_bus_that_cannot_be_written_is_spoken_of_at_a_start_alone(client: Client) -> None:
    send(client.cli, priority=1)
    (client.cli.bus / telling.KIND).write_text("no folder: nothing can be remembered")
    before = unread(client.cli)
    assert "1 urgent" in client.told("claude-code", "SessionStart")
    for event in ("UserPromptSubmit", "PostToolUse", "Stop"):
        assert client.told("claude-code", event) == ""
    assert unread(client.cli) == before


def test_whoever_may_only_read_leaves_no_record(client: Client) -> None:
    send(client.cli, priority=1)
    before, env = client.cli.files(), {"MCP_BUS_READ_ONLY": "yes"}
    assert "1 urgent" in client.told("claude-code", "SessionStart", env=env)
    assert client.told("claude-code", "PostToolUse", env=env) == ""
    assert client.cli.files() == before


def test_the_settings_on_the_page_call_every_event_of_every_client() -> None:
    page = (ROOT / "docs" / "waking.md").read_text("utf-8")
    for client, events in forms.CLIENTS.items():
        if client != "opencode":
            (shown,) = [b for b in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if f"hook {client} " in b]
            named = {event: json.dumps(entry) for event, entry in json.loads(shown)["hooks"].items()}
            commands = {event: re.findall(r'"command": "([^"]*)"', entry) for event, entry in named.items()}
            assert commands == {event: [f"mcp-bus hook {client} {event}"] for event in events}
    (plugin,) = re.findall(r"```text\n// .*?mcp-bus\.js\n(.*?)```", page, re.DOTALL)
    assert set(re.findall(r'await hook\("(.*?)"', plugin)) == set(forms.CLIENTS["opencode"])


def test_options_of_every_verb_are_understood_without_a_parser(client: Client, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert client.cli.main("--bus", str(other), "init", "-q")[0] == 0
    client.cli.json("--bus", str(other), "--agent", "ann", "send", "@zed", "hello")
    for flags in (["--bus", str(other), "--agent", "zed", "-q"], [f"--bus={other}", "--agent=zed", "--json"]):
        done = client.call("claude-code", "SessionStart", *flags)
        assert 'you are \\"zed\\"' in done.stdout
        assert "Unread: 1 message" in done.stdout


def test_what_the_help_declares_is_what_is_understood(cli: Cli) -> None:
    verb = import_module("mcp_bus.cli.hook").VERBS["hook"]
    parser = Parser("hook", "", verb.example)
    verb.declare(parser)
    args = parser.parse_args(["--bus", "b", "codex", "Stop"])
    assert (args.client, args.event, args.bus) == ("codex", "Stop", "b")
    assert all(name in cli.main("hook", "--help")[1] for name in forms.CLIENTS)
    with pytest.raises(AttributeError):
        _ = hook.nothing


def test_a_hook_that_speaks_loads_nothing_heavy_and_no_parser(client: Client) -> None:
    send(client.cli)
    done = subprocess.run(
        [sys.executable, "-c", SPY, "hook", "claude-code", "PostToolUse"],
        env=client.cli.env, cwd=client.cli.home, input='{"session_id": "x"}', capture_output=True, text=True,
        timeout=30, check=True,
    )  # fmt: skip
    assert "1 message" in done.stdout
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    tops = modules | {name.partition(".")[0] for name in modules}
    assert tops & (HEAVY | {"argparse", "gettext", "socket", "mcp_bus.cli.arguments", "mcp_bus.server"}) == set()
