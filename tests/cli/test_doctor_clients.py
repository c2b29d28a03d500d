"""doctor knows by which way a client has the bus, and its hooks; after a fix it says what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.clients import probe
from tests.cli.test_doctor import findings
from tests.fakes import AT_ONCE

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_bus.clients.probe.ask", lambda *_: probe.Answer(("a_tool",), 0.1))
    monkeypatch.setattr("mcp_bus.stores.trial.between_processes", lambda *_: AT_ONCE)


def test_hooks_that_start_what_is_gone_are_found_and_renewed(with_cursor: Cli) -> None:
    with_cursor.main("install", "cursor", "--hooks", "--yes")
    path = with_cursor.home / ".cursor" / "hooks.json"
    text = path.read_text()
    command = json.loads((with_cursor.home / ".cursor" / "mcp.json").read_text())["mcpServers"]["bus"]["command"]
    path.write_text(text.replace(command, "/gone/mcp-bus"))
    found = findings(with_cursor, code=1)["Cursor"]
    assert (found["level"], found["fix"]) == ("bad", "mcp-bus install cursor --hooks")
    assert findings(with_cursor, "--fix")["Cursor"]["level"] == "good", "it says what is left"
    assert path.read_text() == text


def test_a_plugin_is_a_way_to_know_the_bus(with_cursor: Cli) -> None:
    folder = with_cursor.home / ".claude"
    folder.mkdir()
    assert "does not know the bus" in findings(with_cursor)["Claude Code"]["said"]
    for plugins, level in (({"mcp-bus@mcp-bus": True}, "good"), ({"mcp-bus@mcp-bus": False}, "warning")):
        (folder / "settings.json").write_text(json.dumps({"enabledPlugins": plugins}))
        assert findings(with_cursor)["Claude Code"]["level"] == level


def test_so_is_a_project_and_an_address(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    here = with_cursor.home / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    with_cursor.main("install", "cursor", "--scope", "project", "--yes")
    found = findings(with_cursor)["Cursor"]
    assert (found["level"], found["said"]) == ("good", f"knows the bus in this project: {here}/.cursor/mcp.json")
    monkeypatch.chdir(with_cursor.home.parent)
    mine = with_cursor.home / ".cursor" / "mcp.json"
    for url, level in (("http://127.0.0.1:8931/mcp/ann", "good"), ("https://example.com/mcp", "bad")):
        mine.write_text(json.dumps({"mcpServers": {"bus": {"url": url}}}))
        assert findings(with_cursor, code=0 if level == "good" else 1)["Cursor"]["level"] == level


def test_after_a_fix_it_says_what_is_left(with_cursor: Cli) -> None:
    assert not with_cursor.bus.exists() or Path(with_cursor.bus, "bus.json").exists()
    fresh = with_cursor.home / "fresh"
    found = with_cursor.json("--bus", str(fresh), "doctor", "--fix")
    about = {item["about"]: item["level"] for item in found["findings"]}
    assert about["bus"] == "good"
    assert (fresh / "bus.json").exists()
