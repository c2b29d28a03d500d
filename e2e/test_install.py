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
from e2e.conftest import Stage
from e2e.model import Step
from e2e.settings import ROOT
from mcp_bus import open_bus
from mcp_bus.clients import extras

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Somebody with one client and an empty home, which has a blank in its name."""

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


@pytest.fixture
def stage(installed: tuple[Client, Path], tmp_path: Path) -> Iterator[Stage]:
    """Give a client and a bus in a folder with a blank in its name."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not there: `make e2e` installs it")
    folder = tmp_path / "a folder"
    folder.mkdir()
    with open_bus(folder / "bus", agent="ann") as bus:
        yield Stage(*installed, folder, bus)


@pytest.mark.timeout(600)
def test_the_model_sees_what_install_put_in_and_no_longer_when_it_is_taken_out(stage: Stage) -> None:
    name = stage.client.name
    primer, block, skill = f'mcp-bus: you are "{name}"', "`claim_next` gives a task", _described(extras.skill())
    stage.bus.mail.send(f"@{name}", "a secret")
    stage.play(Step("list_channels"), Step(), install=["--hooks", "--agents-md", "--skill"])
    assert primer in stage.seen[0]
    assert 'Unread: 1 message, from "ann".' in stage.seen[0]
    assert block in stage.seen[0]
    assert skill in stage.seen[0] + stage.told[0]
    (here,) = [seen.presence.agent for seen in stage.bus.roster.all()]
    assert here == name, "the server and its hooks have one name"
    assert "removed" in stage.uninstall()
    stage.play(Step())
    assert [said in stage.seen[0] + stage.told[0] for said in (primer, block, skill)] == [False] * 3


def _described(skill: str) -> str:
    """Return the beginning of what a skill says of itself."""
    return skill.partition("description: ")[2][:60]


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
