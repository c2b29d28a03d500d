"""Hosts, each a home with skills in it, that meet at a bare repository."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli.main import main
from tests.git.hosts import bare, git

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "---\nname: {0}\ndescription: What {0} is for.\n---\n\n# {0}\n"


class Host:
    """A person's machine: a home, and the command line there."""

    def __init__(
        self, home: Path, remote: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.home, self.remote = home, remote
        self.skills = home / ".claude" / "skills"
        self.skills.mkdir(parents=True)
        self._patch, self._capture = patch, capture

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Run the command; return what it says to programs and to people."""
        self._patch.setenv("HOME", str(self.home))
        self._patch.setenv("MCP_BUS_DIR", str(self.home / "bus"))
        self._patch.setenv("MCP_BUS_AGENT", self.home.name)
        self._patch.setenv("MCP_BUS_SKILLS_REPO", str(self.remote))
        self._patch.chdir(self.home)
        self._capture.readouterr()
        got = main(words)
        out, err = self._capture.readouterr()
        assert got == code, (got, out, err)
        return out, err

    def sync(self, *words: str, code: int = 0) -> str:
        """Synchronize; return what it says to programs."""
        return self.run("skills", "sync", *words, code=code)[0]

    def steps(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Synchronize; return what was done with each skill, as JSON says it."""
        return {item["name"]: item for item in json.loads(self.sync("--json", *words, code=code))["skills"]}

    def put(self, name: str, text: str = "", **files: str) -> Path:
        """Write a skill, with a text of its own, and files; `a__b_sh` is `a/b.sh`."""
        place = self.skills / name
        place.mkdir(exist_ok=True)
        (place / "SKILL.md").write_text(TEXT.format(name) + text)
        for path, content in files.items():
            there = place / path.replace("__", "/").replace("_", ".")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text(content)
        return place

    def text(self, name: str) -> str:
        """Return the `SKILL.md` of a skill, without what all have."""
        return (self.skills / name / "SKILL.md").read_text().removeprefix(TEXT.format(name))


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty repository."""
    return tmp_path / bare(tmp_path / "skills.git")


@pytest.fixture
def hosts(
    tmp_path: Path, remote: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Host, Host]:
    """Two hosts."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    one, two = (Host(tmp_path / name, remote, monkeypatch, capsys) for name in ("ann", "bob"))
    return one, two


def listed(remote: Path) -> dict[str, str]:
    """Return the modes of all that the repository has, by path."""
    lines = git("--git-dir", str(remote), "ls-tree", "-r", "main").splitlines()
    return {path: about.split(" ")[0] for about, _, path in (line.partition("\t") for line in lines)}


def everything(root: Path) -> dict[str, bytes]:
    """Return all files below a folder, with their bytes, without the clone of the repository."""
    found = (path for path in root.rglob("*") if path.is_file() and "repo.git" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}
