"""install and uninstall in a project, a home or a file system that is out to make trouble."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.clients import blocks
from mcp_bus.server import token
from tests.cli.test_install import servers, settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("answering")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", ["a FIFO", "a device", "without an end"])
def test_a_project_s_instructions_that_are_no_file_hang_nobody(with_cursor: Cli, what: str) -> None:
    place = with_cursor.home / "CLAUDE.md"
    if what == "a FIFO":
        os.mkfifo(place)
    elif what == "a device":
        place.symlink_to("/dev/zero")
    else:
        with place.open("wb") as file:
            file.truncate(1 << 40)
    assert with_cursor.main("install", "cursor", "claude-code", "--yes")[0] == 0
    code, _, err = with_cursor.main("install", "claude-code", "--agents-md", "--yes")
    assert (code != 0, "CLAUDE.md" in err) == (True, True), err
    assert with_cursor.main("uninstall", "--yes")[0] == 0
    assert not settings(with_cursor).exists()


@pytest.fixture
def project(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in a home, and the folder one is in."""
    made = with_cursor.home / "project"
    (made / ".git").mkdir(parents=True)
    (made / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (".claude/skills/mcp-bus/SKILL.md", ("claude-code", "--skill", "--scope", "project")),
        (".mcp.json", ("claude-code", "--scope", "project")),
        (".cursor/hooks.json", ("cursor", "--hooks", "--scope", "project")),
        ("AGENTS.md", ("cursor", "--agents-md")),
    ],
)
@pytest.mark.parametrize("there", ["mine.md", "project/.git/mine.md"])
def test_no_link_in_a_project_leads_out_of_it(
    with_cursor: Cli, project: Path, link: str, there: str, words: tuple[str, ...]
) -> None:
    (project / link).parent.mkdir(parents=True, exist_ok=True)
    (project / link).symlink_to(with_cursor.home / there)
    code, _, err = with_cursor.main("install", *words, "--yes")
    assert (code, "which is not of the project" in err) == (2, True), err
    assert not (with_cursor.home / there).exists()
    (with_cursor.home / there).write_text("{}" if link.endswith("json") else blocks.text())
    before = (with_cursor.home / there).read_bytes()
    with_cursor.main("install", *words, "--yes", "--force")
    with_cursor.main("uninstall", words[0], "--scope", "project", "--yes")
    assert (with_cursor.home / there).read_bytes() == before


def test_a_link_within_a_project_is_followed(with_cursor: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "inner"
    inner.mkdir()
    (project / "shared.json").write_text("{}")
    (inner / ".mcp.json").symlink_to("../shared.json")
    monkeypatch.chdir(inner)
    with_cursor.json("install", "claude-code", "--scope", "project", "--yes")
    assert "bus" in json.loads((project / "shared.json").read_text())["mcpServers"]


def test_a_home_that_is_a_checkout_makes_no_project_of_what_is_in_it(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_cursor.home / ".git").mkdir()
    (with_cursor.home / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    unpacked = with_cursor.home / "unpacked"
    unpacked.mkdir()
    (unpacked / ".mcp.json").symlink_to(settings(with_cursor))
    monkeypatch.chdir(unpacked)
    code, _, err = with_cursor.main("install", "claude-code", "--scope", "project", "--yes")
    assert (code, "which is not of the project" in err) == (2, True), err
    assert with_cursor.main("install", "cursor", "--agents-md", "--yes")[0] == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_instructions_and_settings_are_not_put_into_one_file(with_cursor: Cli, *, is_there: bool) -> None:
    if is_there:
        settings(with_cursor).write_text("{}")
    (with_cursor.home / "AGENTS.md").symlink_to(settings(with_cursor))
    code, _, err = with_cursor.main("install", "cursor", "--agents-md", "--yes")
    assert (code, "which is no Markdown" in err) == (2, True), err
    assert settings(with_cursor).exists() == is_there


@pytest.mark.parametrize("link", ["home", "state", "state/mcp-bus"])
def test_a_home_and_its_folders_may_be_links(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, link: str
) -> None:
    away = tmp_path_factory.mktemp("away")
    if link == "home":
        (away / ".cursor").mkdir()
        home = with_cursor.home / "linked"
        home.symlink_to(away)
        monkeypatch.setenv("HOME", str(home))
    else:
        home = with_cursor.home
        (home / ".local" / link).parent.mkdir(parents=True)
        (home / ".local" / link).symlink_to(away)
    with_cursor.json("install", "cursor", "--yes")
    assert "bus" in servers(home / ".cursor" / "mcp.json")
    token.ensure(home / ".local" / "state" / "mcp-bus" / "http-token")
    with_cursor.json("uninstall", "cursor", "--yes")


def test_where_nothing_can_be_kept_that_folder_is_named(with_cursor: Cli) -> None:
    (with_cursor.home / ".local").write_text("")
    code, _, err = with_cursor.main("install", "cursor", "--yes")
    assert (code != 0, "what was there before cannot be kept in" in err, ".local" in err) == (True, True, True), err
    assert not settings(with_cursor).exists()


def test_a_bus_whose_path_is_no_text_is_refused(with_cursor: Cli) -> None:
    run = with_cursor.run("--bus", os.fsdecode(b"b\xff"), "install", "cursor", "--yes", env={"PATH": ""})
    assert (run.returncode, "is not UTF-8, and no client's settings can hold it" in run.stderr) == (2, True), run.stderr
    assert not settings(with_cursor).exists()


def test_a_project_whose_path_is_no_text_is_taken(with_cursor: Cli) -> None:
    here = with_cursor.home / os.fsdecode(b"p\xff")
    here.mkdir()
    for words in (("install", "cursor", "--agents-md"), ("uninstall", "cursor")):
        run = with_cursor.run(*words, "--scope", "project", "--yes", env={"PATH": ""}, cwd=here)
        assert run.returncode == 0, run.stderr
    assert not list(here.iterdir())
