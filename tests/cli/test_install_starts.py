"""install starts the server that it has written, as a client will."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.server.tools import TOOLS
from tests.cli.test_install import program, servers, settings

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Cli


def test_one_command_finds_the_clients_writes_their_settings_and_starts_the_server(with_cursor: Cli) -> None:
    made = with_cursor.json("install", "--yes")
    assert [item["client"] for item in made["clients"]] == ["cursor"]
    assert (made["written"], made["tools"]) == (True, len(TOOLS))
    entry = servers(settings(with_cursor))["bus"]
    assert Path(entry["command"]).is_absolute()
    assert entry["env"] == {"MCP_BUS_AGENT": "cursor"}
    before = settings(with_cursor).read_bytes()
    again = with_cursor.json("install", "--yes")
    assert (again["clients"][0]["what"], again["written"]) == ("as it was", False)
    assert settings(with_cursor).read_bytes() == before
    assert with_cursor.json("uninstall", "--yes")["clients"][0]["what"] == "removed"
    assert not settings(with_cursor).exists()


def test_a_server_that_does_not_answer_is_told_with_what_it_said(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(with_cursor, "mcp-bus", "import sys; sys.exit('no module named mcp')")
    monkeypatch.setattr(sys, "argv", [str(broken)])
    code, _, err = with_cursor.main("install", "cursor", "--yes")
    assert (code, "no module named mcp" in err) == (1, True), err
