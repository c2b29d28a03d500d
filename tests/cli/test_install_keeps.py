"""install, uninstall and doctor --fix leave what a person changed in our entry, and what is not ours at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clients import probe
from tests.cli.test_doctor import findings
from tests.cli.test_install import program, servers, settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

MINE = {
    "command": "mcp-bus",
    "args": ["serve", "--read-only"],
    "env": {"MCP_BUS_DIR": "/srv/team-bus", "MCP_BUS_AGENT": "ann"},
    "disabled": True,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_bus.clients.probe.ask", lambda *_: probe.Answer(("a_tool",), 0.1))


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
