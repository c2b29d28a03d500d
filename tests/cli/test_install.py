"""install, uninstall: what a person sees, is asked, and finds in the settings of clients afterwards."""

from __future__ import annotations

import json
import os
import pty
import stat
import sys
from base64 import b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import pytest

from mcp_bus.clients import jsonc
from mcp_bus.clients.known import CLIENTS
from mcp_bus.config import load
from mcp_bus.stores.git.place import Address, note

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("answering")


def settings(cli: Cli) -> Path:
    return cli.home / ".cursor" / "mcp.json"


def servers(path: Path) -> Any:
    found: Any = jsonc.parse(path.read_text()).data
    return found["mcpServers"]


def program(cli: Cli, name: str, code: str) -> Path:
    """Put a program on PATH."""
    path = cli.home / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("words", [("--dry-run",), ("--print",), ("--list",)])
def test_looking_writes_nothing(with_cursor: Cli, words: tuple[str, ...]) -> None:
    code, out, err = with_cursor.main("install", "cursor", *words)
    assert code == 0, err
    assert "cursor" in (out + err).lower()
    assert list((with_cursor.home / ".cursor").iterdir()) == []
    assert not (with_cursor.home / ".local").exists()


def test_what_is_printed_is_the_entry_for_those_who_write_it_themselves(with_cursor: Cli) -> None:
    (shown,) = with_cursor.json("install", "codex", "--print")["clients"]
    assert shown["entry"]["required"] is True
    out = with_cursor.main("install", "codex", "--print")[1]
    assert "[mcp_servers.bus]" in out


def test_a_link_carries_the_entry_for_clients_that_take_one(with_cursor: Cli) -> None:
    cursor, vscode = with_cursor.json("install", "cursor", "vscode", "--print")["clients"]
    address, _, query = cursor["link"].partition("?")
    given = parse_qs(query)
    assert address == "cursor://anysphere.cursor-deeplink/mcp/install"
    assert (given["name"], json.loads(b64decode(given["config"][0]))) == (["bus"], cursor["entry"])
    address, _, query = vscode["link"].partition("?")
    assert (address, json.loads(unquote(query))) == ("vscode:mcp/install", {"name": "bus", **vscode["entry"]})
    assert cursor["link"] in with_cursor.main("install", "cursor", "--print")[1]
    assert "link" not in with_cursor.json("install", "codex", "--print")["clients"][0]


def test_where_nobody_can_be_asked_nothing_is_written(with_cursor: Cli) -> None:
    run = with_cursor.run("install", "cursor", text="y\n", env={"PATH": ""})
    assert (run.returncode, "nobody can be asked" in run.stderr) == (2, True)
    assert not settings(with_cursor).exists()


@pytest.mark.parametrize(("answer", "is_written"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_sees_the_change_and_is_asked(with_cursor: Cli, answer: str, *, is_written: bool) -> None:
    person, terminal = pty.openpty()
    with with_cursor.start("install", "cursor", stdin=terminal, env={"PATH": ""}) as process:
        os.write(person, answer.encode())
        out, err = process.communicate(timeout=60)
    os.close(person)
    os.close(terminal)
    assert '+    "bus": {' in err
    assert "Write this? [y/N]" in err
    assert settings(with_cursor).exists() == is_written
    assert (process.returncode, "Cursor: added" in out) == ((0, True) if is_written else (2, False))


def test_a_bus_that_was_named_is_the_one_the_client_gets(with_cursor: Cli) -> None:
    with_cursor.main("--bus", str(with_cursor.home / "other"), "install", "cursor", "--yes")
    assert servers(settings(with_cursor))["bus"]["env"]["MCP_BUS_DIR"] == str(with_cursor.home / "other")


def test_a_bus_at_a_remote_is_written_by_its_address_whatever_named_it(with_cursor: Cli) -> None:
    address = "git+ssh://git@host/shared.git"
    with_cursor.main("--bus", address, "install", "cursor", "--hooks", "--yes")
    assert servers(settings(with_cursor))["bus"]["env"]["MCP_BUS_DIR"] == address
    assert f"--bus {address} " in (with_cursor.home / ".cursor" / "hooks.json").read_text()
    here = load({"bus": address}).path
    note(here, Address("ssh://git@host/shared.git"))
    with_cursor.main("--bus", str(here), "install", "cursor", "--yes")
    assert servers(settings(with_cursor))["bus"]["env"]["MCP_BUS_DIR"] == address


def test_a_password_in_the_address_of_the_bus_is_written_and_not_shown(with_cursor: Cli) -> None:
    address = "git+https://me:geheim@host/shared.git"
    for words in (("--print",), ("--print", "--json"), ("--dry-run", "--hooks"), ("--hooks", "--yes")):
        _, out, err = with_cursor.main("--bus", address, "install", "cursor", *words)
        links = [b64decode(unquote(word.partition("config=")[2])) for word in out.split() if "config=" in word]
        assert "geheim" not in out + err + str(links), words
    assert servers(settings(with_cursor))["bus"]["env"]["MCP_BUS_DIR"] == address
    project = with_cursor.main("--bus", address, "install", "vscode", "--scope", "project", "--yes")
    assert (project[0], "a project's settings are for everyone" in project[2]) == (2, True)
    assert not (with_cursor.home / ".vscode").exists()


def test_a_project_s_settings_are_those_of_the_folder_one_is_in(with_cursor: Cli) -> None:
    with_cursor.json("install", "cursor", "vscode", "--scope", "project", "--yes")
    assert "bus" in servers(with_cursor.home / ".cursor" / "mcp.json")
    assert "bus" in json.loads((with_cursor.home / ".vscode" / "mcp.json").read_text())["servers"]
    code, _, err = with_cursor.main("install", "goose", "--scope", "project", "--yes")
    assert (code, "Goose: it keeps no settings in a project" in err) == (2, True)


def test_one_client_that_cannot_be_changed_holds_up_no_other(with_cursor: Cli) -> None:
    settings(with_cursor).write_text('{"mcpServers": ')
    made = with_cursor.json("install", "cursor", "gemini", "gemini-cli", "--yes", code=2)
    assert len(made["clients"]) == 2, "a client may be called by its program's name"
    assert "is left as it is: it is not JSON" in made["clients"][0]["error"]
    assert settings(with_cursor).read_text() == '{"mcpServers": '
    assert "bus" in servers(with_cursor.home / ".gemini" / "settings.json")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("install", "cursr"), 3, "did you mean cursor?"),
        (("install", "claude-cod"), 3, "did you mean claude-code?"),
        (("install", "emacs"), 3, "known: claude-code"),
        (("uninstall", "emacs"), 3, "known: claude-code"),
    ],
)
def test_a_client_that_is_not_known_is_told_from_those_that_are(
    with_cursor: Cli, words: tuple[str, ...], code: int, why: str
) -> None:
    got, _, err = with_cursor.main(*words)
    assert (got, why in err) == (code, True), err


def test_where_no_client_is_the_known_ones_are_named(with_cursor: Cli) -> None:
    (with_cursor.home / ".cursor").rmdir()
    code, _, err = with_cursor.main("install", "--yes")
    assert (code, "no client was found here" in err, "cursor" in err) == (3, True, True)
    assert with_cursor.json("uninstall", "--yes") == {"clients": [], "written": False}


CLAUDE = """
import json, os, sys
path = os.path.join(os.environ["HOME"], ".claude.json")
found = json.load(open(path)) if os.path.exists(path) else {}
servers = found.setdefault("mcpServers", {})
if sys.argv[1:6] == ["mcp", "add-json", "--scope", "user", "bus"]:
    if "bus" in servers:
        sys.exit("MCP server bus already exists in user config")
    servers["bus"] = json.loads(sys.argv[6])
elif sys.argv[1:] == ["mcp", "remove", "--scope", "user", "bus"]:
    del servers["bus"]
else:
    sys.exit(f"what is {sys.argv[1:]}?")
json.dump(found, open(path, "w"))
"""


def test_a_client_with_a_command_of_its_own_for_this_is_asked_to_do_it(with_cursor: Cli) -> None:
    program(with_cursor, "claude", CLAUDE)
    (with_cursor.home / ".claude.json").write_text('{"theme": "dark"}')
    (step,) = with_cursor.json("install", "claude-code", "--yes")["clients"]
    assert step["commands"][0][1:3] == ["mcp", "add-json"]
    path = with_cursor.home / ".claude.json"
    entry = servers(path)["bus"]
    assert (entry["type"], entry["alwaysLoad"]) == ("stdio", True)
    assert with_cursor.json("install", "claude-code", "--yes")["clients"][0]["what"] == "as it was"
    with_cursor.json("--bus", str(with_cursor.home / "b"), "install", "claude-code", "--yes")
    assert servers(path)["bus"]["env"]["MCP_BUS_DIR"] == str(with_cursor.home / "b"), "an older entry gives way"
    with_cursor.json("uninstall", "claude-code", "--yes")
    assert json.loads(path.read_text()) == {"theme": "dark", "mcpServers": {}}


def test_what_its_own_command_says_when_it_fails_is_told(with_cursor: Cli) -> None:
    program(with_cursor, "claude", "import sys; sys.exit('not logged in')")
    code, _, err = with_cursor.main("install", "claude-code", "--yes")
    assert (code, "its own command failed (1): not logged in" in err) == (1, True), err


def test_what_is_kept_of_settings_is_for_nobody_else_to_read(with_cursor: Cli) -> None:
    settings(with_cursor).write_text('{"token": "secret"}')
    settings(with_cursor).chmod(0o644)
    with_cursor.json("install", "cursor", "--yes")
    assert stat.S_IMODE(settings(with_cursor).stat().st_mode) == 0o644
    kept = [path for path in (with_cursor.home / ".local").rglob("*") if path.is_file()]
    assert any(path.read_text() == '{"token": "secret"}' for path in kept)
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in kept if path.name != "lock"} == {0}


def test_without_a_home_nothing_is_guessed(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    code, _, err = with_cursor.main("--bus", "b", "install", "cursor", "--yes")
    assert (code, "HOME is not set" in err) == (2, True), err


def test_every_client_has_what_a_table_of_them_shows() -> None:
    assert len(CLIENTS) == 14
    assert all(client.title and client.path and client.again for client in CLIENTS.values())


def test_what_goes_into_a_project_works_for_others_too(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    here = with_cursor.home / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    before = os.umask(0o022)
    try:
        code, _, err = with_cursor.main("install", "cursor", "codex", "--scope", "project", "--hooks", "--yes")
    finally:
        os.umask(before)
    assert code == 0, err
    assert "there is no mcp-bus on PATH here" in err
    assert servers(here / ".cursor" / "mcp.json")["bus"]["command"] == "mcp-bus"
    codex = (here / ".codex" / "config.toml").read_text()
    assert 'command = "mcp-bus"' in codex
    assert "required" not in codex, "who has not installed it can work here as well"
    made = [path for path in here.rglob("*") if path.is_file()]
    assert len(made) == 4
    for path in made:
        assert str(with_cursor.home) not in path.read_text().replace(str(with_cursor.bus), ""), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755, path
    with_cursor.main("install", "cursor", "--yes")
    assert stat.S_IMODE(settings(with_cursor).stat().st_mode) == 0o600, "a person's own are private"


def test_claude_code_s_settings_are_where_a_person_says_they_are(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = with_cursor.home / "elsewhere"
    there.mkdir()
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(there))
    with_cursor.json("install", "claude-code", "--yes")
    assert "bus" in servers(there / ".claude.json")
    assert not (with_cursor.home / ".claude.json").exists()
    with_cursor.json("uninstall", "claude-code", "--yes")
    assert not (there / ".claude.json").exists()


def test_opencode_s_settings_with_comments_are_the_ones_it_obeys(with_cursor: Cli) -> None:
    folder = with_cursor.home / ".config" / "opencode"
    folder.mkdir(parents=True)
    text = '{\n  // mine\n  "mcp": {"docs": {"type": "local", "command": ["docs"]}}\n}\n'
    (folder / "opencode.jsonc").write_text(text)
    with_cursor.json("install", "opencode", "--yes")
    assert not (folder / "opencode.json").exists()
    found: Any = jsonc.parse((folder / "opencode.jsonc").read_text()).data
    assert {*found["mcp"]} == {"docs", "bus"}
    with_cursor.json("uninstall", "opencode", "--yes")
    assert (folder / "opencode.jsonc").read_text() == text


def test_a_dry_run_answers_with_the_change_itself(with_cursor: Cli) -> None:
    code, out, _ = with_cursor.main("-q", "install", "cursor", "--dry-run")
    assert code == 0
    assert f"Cursor: added: {settings(with_cursor)}" in out
    assert '+    "bus": {' in out
    (row,) = with_cursor.json("install", "cursor", "--dry-run")["clients"]
    assert '+    "bus": {' in row["diff"]
    assert not settings(with_cursor).exists()


def test_a_bus_that_only_the_shell_names_is_said_not_to_be_written(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_BUS_DIR", str(with_cursor.bus))
    _, _, err = with_cursor.main("install", "cursor", "--dry-run")
    assert "MCP_BUS_DIR holds for this shell alone" in err
    _, _, err = with_cursor.main("--bus", str(with_cursor.bus), "install", "cursor", "--dry-run")
    assert "MCP_BUS_DIR holds" not in err
