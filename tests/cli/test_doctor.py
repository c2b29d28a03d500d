"""doctor: finds what is wrong, names one thing to do for each, and does what is safe if it is told to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from mcp_bus.clients import jsonc
from mcp_bus.server.tools import TOOLS

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def findings(cli: Cli, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    return {item["about"]: item for item in cli.json("doctor", *words, code=code)["findings"]}


def test_where_all_is_well_it_says_so(with_cursor: Cli) -> None:
    with_cursor.main("install", "cursor", "--yes")
    code, out, err = with_cursor.main("-q", "doctor")
    assert code == 0, err
    assert "✗" not in out
    assert f"it lists {len(TOOLS)} tools" in out
    found = findings(with_cursor)
    assert found["Cursor"]["level"] == "good"
    assert found["dead letter"]["said"] == "empty"


def test_a_client_that_does_not_know_the_bus_is_told_with_the_command_that_mends_it(with_cursor: Cli) -> None:
    found = findings(with_cursor)["Cursor"]
    assert (found["level"], found["fix"]) == ("warning", "mcp-bus install cursor")
    assert list((with_cursor.home / ".cursor").iterdir()) == [], "looking changes nothing"


def test_an_entry_that_starts_what_is_gone_is_renewed_by_fix_and_nothing_else_is(with_cursor: Cli) -> None:
    with_cursor.main("install", "cursor", "--yes")
    path = with_cursor.home / ".cursor" / "mcp.json"
    old = json.loads(path.read_text())
    old["mcpServers"]["bus"]["command"] = "/gone/mcp-bus"
    old["mcpServers"]["other"] = {"command": "/gone/too"}
    path.write_text(json.dumps(old))
    found = findings(with_cursor, code=1)["Cursor"]
    assert (found["level"], "not there any more" in found["said"]) == ("bad", True)
    with_cursor.main("doctor", "--fix")
    now: Any = jsonc.parse(path.read_text()).data
    assert Path(now["mcpServers"]["bus"]["command"]).is_file()
    assert now["mcpServers"]["other"] == {"command": "/gone/too"}


def test_an_entry_without_a_path_is_something_to_know(with_cursor: Cli) -> None:
    (with_cursor.home / ".cursor" / "mcp.json").write_text('{"mcpServers": {"bus": {"command": "mcp-bus"}}}')
    found = findings(with_cursor)["Cursor"]
    assert (found["level"], "by its name" in found["said"]) == ("warning", True)


def test_settings_that_cannot_be_read_are_told_and_left(with_cursor: Cli) -> None:
    path = with_cursor.home / ".cursor" / "mcp.json"
    path.write_text("{")
    assert "it is not JSON" in findings(with_cursor, code=1)["Cursor"]["said"]
    with_cursor.main("doctor", "--fix")
    assert path.read_text() == "{"


def test_dead_tasks_and_files_put_aside_need_a_person(with_cursor: Cli) -> None:
    task_id = with_cursor.post("work", "x", "--max-attempts", "1")
    _, token = with_cursor.claim("work")
    with_cursor.main("submit", task_id, "--token", token, "--failed", "no")
    (with_cursor.bus / "quarantine" / "odd").write_text("what is this")
    found = findings(with_cursor, code=6)
    assert task_id[-8:] in found["dead letter"]["said"]
    assert found["dead letter"]["fix"].endswith(f"show {task_id[-8:]}")
    assert found["quarantine"]["level"] == "person"
    assert with_cursor.main("doctor", "--fix")[0] == 6
    assert with_cursor.state(task_id) == "dead", "that is for a person to decide"


def test_a_lease_that_is_long_over_is_swept_by_fix(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = with_cursor.post("work", "x")
    with open_bus(with_cursor.bus, agent="gone") as bus:
        assert bus.claim(["work"], lease_s=1) is not None
    monkeypatch.setattr("mcp_bus.cli.checkups.OVERDUE", -10_000)
    assert findings(with_cursor)["leases"]["level"] == "warning"
    monkeypatch.setattr("mcp_bus.clock.System.now", lambda _: int(__import__("time").time() * 1000) + 60_000)
    with_cursor.main("doctor", "--fix")
    assert with_cursor.state(task_id) in ("scheduled", "ready")


def test_where_there_is_no_bus_it_is_made_by_fix_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MCP_BUS_DIR", str(cli.home / "new"))
    assert findings(cli)["bus"]["level"] == "warning"
    assert not (cli.home / "new").exists()
    cli.main("doctor", "--fix")
    assert (cli.home / "new" / "bus.json").exists()


def test_a_server_that_does_not_start_is_broken(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = with_cursor.home / "bin" / "mcp-bus"
    broken.parent.mkdir()
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no module named mcp')\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(broken)])
    assert "no module named mcp" in findings(with_cursor, code=1)["server"]["said"]


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("bus: /x/mcp-bus serve - ✔ Connected", "good"),
        ("bus: ✗ Failed to connect", "warning"),
        ("no servers", "warning"),
    ],
)
def test_a_client_is_asked_itself_if_that_is_wanted(with_cursor: Cli, said: str, level: str) -> None:
    program = with_cursor.home / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    program.chmod(0o755)
    assert "Claude Code itself" not in findings(with_cursor)
    assert findings(with_cursor, "--clients")["Claude Code itself"]["level"] == level
    assert os.access(program, os.X_OK)
