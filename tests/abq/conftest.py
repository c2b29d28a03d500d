"""The command line, as for its own tests, on a home of abq, and what abq itself does there."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import Cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line on a folder of its own."""
    made = Cli(tmp_path, capsys)
    for name in ("MCP_BUS_DIR", "ABQ_HOME", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


_numbers = count(1)


class Abq:
    """abq's side: each verb as it moves files, written in place, without a rename."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def folder(self, channel: str, name: str) -> Path:
        return self.home / "channels" / channel / name

    def init(self, *channels: str) -> None:
        for channel in ("broadcast", *channels):
            for name in ("requests", "responses", "processing", "archive"):
                self.folder(channel, name).mkdir(parents=True, exist_ok=True)
        for name in ("agents", "logs"):
            (self.home / name).mkdir()
        about = {"version": "1.0.0", "created": "2026-01-01T00:00:00+00:00", "agents": {}, "channels": {}}
        (self.home / "registry.json").write_text(json.dumps(about))

    def send(self, channel: str, kind: str, content: str, *, ttl: int = 300, pieces: int = 1) -> str:
        name = f"req_{int(time.time() * 1000):012x}{next(_numbers):010x}"
        message = {
            "id": name, "version": "1.0.0", "type": kind,
            "from": {"agent": "github.com/o/r/main", "pid": 1, "pwd": "/r"},
            "to": channel, "content": content, "timestamp": "2026-01-01T00:00:00+00:00", "ttl": ttl,
        }  # fmt: skip
        text = json.dumps(message, indent=2)
        with (self.folder(channel, "requests") / f"{name}.json").open("w") as file:
            for at in range(pieces):
                file.write(text[at * len(text) // pieces : (at + 1) * len(text) // pieces])
                file.flush()
                os.sched_yield()
        return name

    def recv(self, channel: str) -> dict[str, Any] | None:
        for path in sorted(self.folder(channel, "requests").glob("*.json")):
            place = self.folder(channel, "processing") / path.name
            try:
                path.rename(place)
            except FileNotFoundError:
                continue
            found: dict[str, Any] = json.loads(place.read_text())
            return found
        return None

    def respond(self, channel: str, name: str, result: str, status: str = "success") -> None:
        place = self.folder(channel, "processing") / f"{name}.json"
        assert place.exists()
        response = {
            "id": name, "version": "1.0.0", "status": status, "from": {"agent": "github.com/o/r/main", "pid": 1},
            "result": result, "error": None, "timestamp": "2026-01-01T00:00:01+00:00",
        }  # fmt: skip
        (self.folder(channel, "responses") / f"{name}.json").write_text(json.dumps(response, indent=2))
        place.rename(self.folder(channel, "archive") / f"{name}_request.json")

    def response(self, channel: str, name: str) -> dict[str, Any] | None:
        """Return the response that `send --wait` waits for; it is then put into the archive."""
        path = self.folder(channel, "responses") / f"{name}.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        path.rename(self.folder(channel, "archive") / f"{name}_response.json")
        return found

    def gc(self) -> int:
        """Put aside what is older than its ttl, whatever somebody does with it."""
        moved = 0
        for folder in self.home.glob("channels/*/*"):
            for path in folder.glob("*.json") if folder.name in ("requests", "processing", "responses") else ():
                found = json.loads(path.read_text())
                sent = time.mktime(time.strptime(found["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
                if time.time() - sent > found.get("ttl", 300):
                    path.rename(folder.parent / "archive" / f"{path.stem}_{folder.name}.json")
                    moved += 1
        return moved


@pytest.fixture
def abq(cli: Cli) -> Abq:
    made = Abq(cli.bus)
    made.init("app")
    return made


def ours(cli: Cli, *words: str) -> str:
    code, out, err = cli.main("abq", *words)
    assert code == 0, err
    return out
