"""A bus in a folder of its own, and the command line as people and scripts start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli.main import main
from mcp_bus.clients import probe
from tests.fakes import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0


class Cli:
    """Runs verbs on one bus, as processes or in this one."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.bus = home / "bus"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MCP_BUS_DIR": str(self.bus),
            "MCP_BUS_AGENT": "tester",
        }
        self._capture = capture

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a verb as a process."""
        env = self.env | options.pop("env", {})
        given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        given.setdefault("cwd", self.home)
        return subprocess.Popen([sys.executable, "-m", "mcp_bus", *words], env=env, text=True, **given)

    def run(self, *words: str, text: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb as a process, to its end."""
        with self.start(*words, **options) as process:
            try:
                out, err = process.communicate(text, timeout=WAIT_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def main(self, *words: str) -> tuple[int, str, str]:
        """Run a verb in this process: exit code, stdout, stderr."""
        self._capture.readouterr()
        code = main(words)
        out, err = self._capture.readouterr()
        return code, out, err

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a verb in this process, check its exit code and return its JSON document."""
        got, out, err = self.main("--json", "--quiet", *words)
        assert got == code, (got, out, err)
        return json.loads(out)

    def post(self, channel: str = "work", body: str = "do it", *options: str) -> str:
        """Post a task; return its full id."""
        task_id: str = self.json("post", *options, "--", channel, body)["id"]
        return task_id

    def claim(self, *words: str) -> tuple[str, str]:
        """Claim a task; return what its other verbs need: id and token."""
        ticket = self.json("claim", *words)["ticket"]
        return ticket["id"], ticket["token"]

    def state(self, task_id: str) -> str:
        """Return the state of a task."""
        state: str = self.json("show", task_id)["state"]
        return state

    def dead(self, note: str = "it broke") -> str:
        """Post a task and let it die; return its id."""
        self.post("work", "do it", "--max-attempts", "1", "--priority", "9")
        task_id, token = self.claim()
        self.json("submit", task_id, "--token", token, "--failed", note)
        return task_id

    def files(self) -> Sequence[str]:
        """Return the relative names of all files on the bus that say where tasks are."""
        found = (path.relative_to(self.bus).as_posix() for path in self.bus.rglob("*") if path.is_file())
        return sorted(name for name in found if not name.startswith(("journal/", "manifest")))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    made = Cli(tmp_path, capsys)
    for name in [name for name in os.environ if name.startswith("MCP_BUS_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "MCP_BUS_DIR", "MCP_BUS_AGENT"):
        monkeypatch.setenv(name, made.env[name])
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--quiet"]) == 0
    capsys.readouterr()
    return made


@pytest.fixture
def with_cursor(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A bus, and a home in which Cursor was used; no client's program can be found."""
    monkeypatch.setenv("PATH", str(cli.home / "bin"))
    (cli.home / ".cursor").mkdir()
    return cli


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers without being started, which takes a second and is not what these tests are about."""
    monkeypatch.setattr("mcp_bus.clients.probe.ask", lambda *_: probe.Answer(("a_tool",), 0.1))
    monkeypatch.setattr("mcp_bus.stores.trial.between_processes", lambda *_: AT_ONCE)
