"""What `mcp-bus install` writes is taken by the clients themselves, and `uninstall` leaves them without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.clients import CLIENTS, RUN_S
from e2e.settings import ROOT

if TYPE_CHECKING:
    from e2e.clients import Client

PROGRAM = Path(sys.executable).parent / "mcp-bus"
# How each is asked what it knows, and what it says of a server that it has started, or of the entry if it starts none.
ASKED = {
    "claude-code": (["mcp", "get", "bus"], "✔ Connected"),
    "codex": (["mcp", "get", "bus", "--json"], '"tool_timeout_sec": 120'),
    "gemini-cli": (["mcp", "list"], "Connected"),
    "opencode": (["mcp", "list"], "connected"),
}


class Person:
    """Somebody with one client and an empty home."""

    def __init__(self, client: Client, command: Path, home: Path) -> None:
        self.home = home
        self.project = home / "project"
        self.project.mkdir()
        node = Path(shutil.which("node") or "/usr/bin/node").parent
        self.env = {
            "HOME": str(home), "PATH": os.pathsep.join(map(str, (command.parent, node, "/usr/bin", "/bin"))),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1",
        }  # fmt: skip
        if client.name == "gemini-cli":  # Elsewhere it starts servers only in folders that a person trusts.
            (home / ".gemini").mkdir()
            (home / ".gemini" / "settings.json").write_text(
                '{\n  // mine\n  "security": {"folderTrust": {"enabled": false}}\n}\n'
            )

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.env, cwd=self.project, capture_output=True, text=True, timeout=RUN_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout + done.stderr


@pytest.fixture
def person(installed: tuple[Client, Path], tmp_path: Path) -> Person:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not there: `make e2e` installs it")
    return Person(*installed, tmp_path)


def test_a_client_takes_what_install_wrote_and_loses_it_again(installed: tuple[Client, Path], person: Person) -> None:
    client, command = installed
    asked, said = ASKED[client.name]
    assert ": added" in person.run(str(PROGRAM), "install", "--yes"), "it is found by its program or its settings"
    assert said in person.run(str(command), *asked)
    assert "as it was" in person.run(str(PROGRAM), "install", client.name, "--yes"), "it kept the entry whole"
    assert "removed" in person.run(str(PROGRAM), "uninstall", client.name, "--yes")
    assert said not in person.run(str(command), *asked)
    assert "not there" in person.run(str(PROGRAM), "uninstall", client.name, "--dry-run")


@pytest.mark.parametrize("installed", CLIENTS[:1], indirect=True, ids=str)
def test_claude_code_finds_nothing_wrong_with_the_plugin_and_installs_it(
    installed: tuple[Client, Path], person: Person
) -> None:
    command = str(installed[1])
    for folder in (ROOT, ROOT / "plugin"):
        assert "Validation passed" in person.run(command, "plugin", "validate", str(folder))
    person.run(command, "plugin", "marketplace", "add", str(ROOT))
    person.run(command, "plugin", "install", "mcp-bus@mcp-bus")
    assert "mcp-bus@mcp-bus" in person.run(command, "plugin", "list")
