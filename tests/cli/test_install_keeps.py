"""install, uninstall and doctor --fix leave what a person changed in our entry, and what is not ours at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli import steps
from mcp_bus.clients import edits, jsonc
from mcp_bus.clients.known import CLIENTS, Home, Server
from mcp_bus.clients.parts import Entry
from tests.cli.test_doctor import findings
from tests.cli.test_install import CLAUDE, program, servers, settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("answering")

MINE = {
    "command": "mcp-bus",
    "args": ["serve", "--read-only"],
    "env": {"MCP_BUS_DIR": "/srv/team-bus", "MCP_BUS_AGENT": "ann"},
    "disabled": True,
}


def having(cli: Cli, entry: object) -> str:
    """Write an entry into the settings; return them."""
    settings(cli).write_text(json.dumps({"mcpServers": {"bus": entry}}))
    return settings(cli).read_text()


def test_an_entry_that_is_started_by_name_is_told_and_left_by_fix(with_cursor: Cli) -> None:
    before = having(with_cursor, MINE)
    found = findings(with_cursor, "--fix")["Cursor"]
    assert (found["level"], found["fix"], found["is_safe"]) == ("warning", "mcp-bus install cursor", False)
    assert settings(with_cursor).read_text() == before


@pytest.mark.parametrize("words", [("install", "cursor", "--yes"), ("doctor", "--fix")])
def test_what_a_person_changed_stays_when_the_command_is_renewed(with_cursor: Cli, words: tuple[str, ...]) -> None:
    having(with_cursor, {**MINE, "command": "/gone/mcp-bus"})
    with_cursor.main(*words)
    now = servers(settings(with_cursor))["bus"]
    assert Path(now["command"]).is_file()
    head = now["args"][:-2]
    assert (head in ([], ["-m", "mcp_bus"]), now) == (True, {**MINE, "command": now["command"], "args": now["args"]})
    assert now["args"][-2:] == ["serve", "--read-only"]
    assert with_cursor.json("install", "cursor", "--yes")["clients"][0]["what"] == "as it was"
    assert findings(with_cursor)["Cursor"]["level"] == "good"
    with_cursor.json("--bus", str(with_cursor.home / "b"), "install", "cursor", "--yes")
    env = {**MINE["env"], "MCP_BUS_DIR": str(with_cursor.home / "b")}  # type: ignore[dict-item]  # it is one
    assert servers(settings(with_cursor))["bus"] == {**now, "env": env}
    with_cursor.json("install", "cursor", "--force", "--yes")
    assert servers(settings(with_cursor))["bus"]["env"] == {"MCP_BUS_AGENT": "cursor"}, "and this writes it anew"


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["-y", "@acme/mcp-bus"], "env": {"KEY": "x"}},
        {"command": "uv", "args": ["run", "--directory", "/home/you/mcp-bus", "audio-bus"]},
    ],
)
def test_a_stranger_s_server_is_left_alone_by_all(with_cursor: Cli, entry: Any) -> None:
    before = having(with_cursor, entry)
    found = findings(with_cursor, "--fix", code=1)["Cursor"]
    assert (found["level"], "starts something else" in found["said"]) == ("bad", True)
    assert with_cursor.json("uninstall", "--yes") == {"clients": [], "written": False}
    code, _, err = with_cursor.main("install", "cursor", "--yes")
    assert (code, "--force replaces it" in err) == (2, True), err
    assert settings(with_cursor).read_text() == before


def test_doctor_starts_nothing_but_mcp_bus_and_tells_it_nothing_else(with_cursor: Cli) -> None:
    trace = with_cursor.home / "trace"
    tool = program(with_cursor, "tool", f"import sys; open({str(trace)!r}, 'a').write(repr(sys.argv[1:]) + chr(10))")
    having(with_cursor, {"command": str(tool), "args": ["--rm-all", "/x/mcp-bus"]})
    with_cursor.main("doctor", "--fix")
    assert not trace.exists()
    runner = tool.rename(tool.with_name("uvx"))
    having(with_cursor, {"command": str(runner), "args": ["mcp-bus", "--log", "x", "serve", "--all"]})
    with_cursor.main("doctor", "--fix")
    assert set(trace.read_text().splitlines()) == {"['mcp-bus', 'version', '--json']"}


@pytest.mark.parametrize("args", [5, True])
def test_arguments_that_are_none_are_refused(with_cursor: Cli, args: object) -> None:
    before = having(with_cursor, {"command": "mcp-bus", "args": args})
    for verb in ("install", "uninstall"):
        code, _, err = with_cursor.main(verb, "cursor", "--yes")
        assert (code, "'args' that is no list" in err) == (2, True), err
    assert findings(with_cursor, code=1)["Cursor"]["level"] == "bad"
    assert settings(with_cursor).read_text() == before


# --- Claude Code's own command ---------------------------------------------------------------------------------

FAILING = CLAUDE.replace('    if "bus" in servers:', "    HOW\n    if 'bus' in servers:")
OLD = {
    "command": "/gone/mcp-bus",
    "args": ["serve", "--read-only"],
    "env": {"MCP_BUS_AGENT": "ann"},
    "alwaysLoad": True,
}


def with_claude(cli: Cli, how: str, entry: object = OLD) -> Path:
    """Put a `claude` on PATH that does something when an entry is added, and an entry into its settings."""
    program(cli, "claude", FAILING.replace("HOW", how))
    path = cli.home / ".claude.json"
    path.write_text(json.dumps({"theme": "dark", "mcpServers": {"bus": entry}}))
    return path


@pytest.mark.parametrize("entry", [OLD, {"command": "other"}], ids=["ours", "forced"])
def test_what_its_own_command_took_out_before_it_failed_is_put_back(with_cursor: Cli, entry: Any) -> None:
    path = with_claude(with_cursor, "sys.exit('no disk')", entry)
    words = ["--force"] if entry != OLD else []
    code, _, err = with_cursor.main("install", "claude-code", "--yes", *words)
    assert (code, "failed (1): no disk; what was there before was put back" in err) == (1, True), err
    found: Any = jsonc.parse(path.read_text()).data
    assert found == {"theme": "dark", "mcpServers": {"bus": entry}}


def test_where_that_cannot_be_it_is_kept_and_said_where(with_cursor: Cli) -> None:
    path = with_claude(with_cursor, "open(path, 'w').write('{'); sys.exit('no disk')")
    code, _, err = with_cursor.main("install", "claude-code", "--yes")
    assert (code, "what was there before is not, for" in err, path.read_text()) == (1, True, "{"), err
    (kept,) = (with_cursor.home / ".local").rglob("claude-code-bus-*.json")
    assert f"it is kept: {kept}" in err
    assert json.loads(kept.read_text()) == OLD
    assert kept.stat().st_mode & 0o077 == 0


def test_an_interrupt_in_between_loses_nothing_either(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_claude(with_cursor, "pass")
    run, calls = steps._run, list[Any]()

    def once(words: Any) -> None:
        calls.append(words)
        if len(calls) > 1:
            raise KeyboardInterrupt
        run(words)

    monkeypatch.setattr("mcp_bus.cli.steps._run", once)
    with pytest.raises(KeyboardInterrupt):
        steps.write(*changed(with_cursor))
    assert servers(path)["bus"] == OLD


def changed(cli: Cli) -> tuple[steps.Step, Home]:
    """Return the step that renews the entry of Claude Code."""
    home, client = Home(cli.home, {}, "linux"), CLIENTS["claude-code"]
    job = steps.Job(client, client.at_home(home), Entry(client, client.entry(Server("/new/mcp-bus", ("serve",), {}))))
    (step,) = steps.decided([job], lambda path, some: edits.adding(path, some, home), is_user=True)
    return step, home


@pytest.mark.parametrize("words", [("install", "claude-code", "--yes"), ("doctor", "--fix")])
def test_its_own_command_is_given_the_entry_with_what_a_person_set_by_all(
    with_cursor: Cli, words: tuple[str, ...]
) -> None:
    path = with_claude(with_cursor, f"open({str(with_cursor.home / 'trace')!r}, 'w').close()")
    code, _, err = with_cursor.main(*words)
    entry = servers(path)["bus"]
    assert (code, entry["args"][-1], entry["env"]) == (0, "--read-only", {"MCP_BUS_AGENT": "ann"}), err
    assert Path(entry["command"]).is_file()
    assert (with_cursor.home / "trace").exists(), "and nobody else writes its file"


def test_a_fix_that_fails_is_told_and_holds_up_nothing(with_cursor: Cli) -> None:
    with_claude(with_cursor, "sys.exit('no disk')")
    having(with_cursor, {**MINE, "command": "/gone/mcp-bus"})
    code, out, err = with_cursor.main("doctor", "--fix")
    assert (code, "Claude Code: its own command failed" in err, "not there any more" in out) == (1, True, True)
    assert Path(servers(settings(with_cursor))["bus"]["command"]).is_file()


# --- what is shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "name", "text"),
    [
        ("cursor", ".cursor/mcp.json", '{"mcpServers":{"gh":{"command":"gh","env":{"GITHUB_TOKEN":"ghp_MINE"}}}}'),
        ("codex", ".codex/config.toml", '[mcp_servers.gh.env]\nGITHUB_TOKEN = "ghp_MINE"\n'),
        ("goose", ".config/goose/config.yaml", "extensions:\n  gh:\n    envs: {GITHUB_TOKEN: ghp_MINE}\n"),
    ],
)
def test_a_diff_shows_no_secret_and_the_file_keeps_it(with_cursor: Cli, client: str, name: str, text: str) -> None:
    path = with_cursor.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for verb in ("install", "uninstall"):
        for words in (("--dry-run",), ("--dry-run", "--json"), ("--yes",)):
            code, out, err = with_cursor.main(verb, client, *words)
            assert (code, "MINE" in out + err, "***" in out + err) == (0, False, True), (words, out, err)
        assert "ghp_MINE" in path.read_text()


def test_nor_does_the_call_of_a_client_s_own_command(with_cursor: Cli) -> None:
    path = with_claude(with_cursor, "pass", {**OLD, "env": {"GITHUB_TOKEN": "MINE"}})
    for words in (("--dry-run",), ("--json", "--yes")):
        code, out, err = with_cursor.main("install", "claude-code", *words)
        assert (code, "MINE" in out + err, "***" in out + err) == (0, False, True), (out, err)
    assert servers(path)["bus"]["env"] == {"GITHUB_TOKEN": "MINE", "MCP_BUS_AGENT": "claude-code"}
