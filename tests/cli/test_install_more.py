"""install --hooks, --agents-md, --skill, and uninstall of all that: what a person sees, and what is in files after."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clients import blocks, extras, hooking, jsonc
from mcp_bus.clients.known import CLIENTS
from tests.cli.test_install import CLAUDE, program, settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("answering")

ALL = ("--hooks", "--agents-md", "--skill")
GEMINI = '{\n  // mine\n  "hooks": {\n    "AfterTool": [{"hooks": [{"type": "command", "command": "date"}]}]\n  }\n}\n'


def tree(cli: Cli) -> dict[str, bytes]:
    """Return all that is in the home but for the bus and what we keep of before."""
    found = dict[str, bytes]()
    for path in sorted(cli.home.rglob("*")):
        name = path.relative_to(cli.home).as_posix()
        if name.split("/")[0] not in ("bus", "bin", ".local"):
            found[name] = path.read_bytes() if path.is_file() else b""
    return found


def commands(path: Path) -> list[str]:
    found: Any = jsonc.parse(path.read_text()).data
    return [
        hook["command"] for items in found["hooks"].values() for item in items for hook in item.get("hooks", [item])
    ]


def rows(made: Any) -> list[tuple[str, str, dict[str, str]]]:
    return [(row["client"], Path(row["file"]).name, row["parts"]) for row in made["clients"]]


def test_everything_goes_in_with_one_command_and_out_with_another(with_cursor: Cli) -> None:
    clients = ["claude-code", "codex", "gemini-cli", "cursor", "opencode"]
    (with_cursor.home / ".gemini").mkdir()
    (with_cursor.home / ".gemini" / "settings.json").write_text(GEMINI)
    (with_cursor.home / "AGENTS.md").write_bytes(b"# Rules\r\n")
    before = tree(with_cursor)
    made = with_cursor.json("install", *clients, *ALL, "--yes")
    assert [row["error"] for row in made["clients"]] == [None] * len(made["clients"])
    assert rows(made) == [
        ("claude-code", ".claude.json", {"server": "added"}),
        ("claude-code", "settings.json", {"hooks": "added"}),
        ("claude-code", "AGENTS.md", {"agents-md": "added"}),
        ("claude-code", "SKILL.md", {"skill": "added"}),
        ("codex", "config.toml", {"server": "added"}),
        ("codex", "hooks.json", {"hooks": "added"}),
        ("codex", "SKILL.md", {"skill": "added"}),
        ("gemini-cli", "settings.json", {"server": "added", "hooks": "added"}),
        ("gemini-cli", "GEMINI.md", {"agents-md": "added"}),
        ("gemini-cli", "SKILL.md", {"skill": "added"}),
        ("cursor", "mcp.json", {"server": "added"}),
        ("cursor", "hooks.json", {"hooks": "added"}),
        ("cursor", "SKILL.md", {"skill": "added"}),
        ("opencode", "opencode.json", {"server": "added"}),
        ("opencode", "mcp-bus.js", {"hooks": "added"}),
        ("opencode", "SKILL.md", {"skill": "added"}),
    ]
    assert made["clients"][2]["clients"] == ["claude-code", "codex", "cursor", "opencode"], "one file for all of them"
    after = tree(with_cursor)
    again = with_cursor.json("install", *clients, *ALL, "--yes")
    assert {row["what"] for row in again["clients"]} == {"as it was"}
    assert (again["written"], tree(with_cursor)) == (False, after)
    made = with_cursor.json("uninstall", "--yes")
    assert {row["what"] for row in made["clients"]} == {"removed"}
    assert tree(with_cursor) == before
    assert with_cursor.json("uninstall", "--yes") == {"clients": [], "written": False}


@pytest.mark.parametrize("words", [("--dry-run",), ("--print",)])
def test_looking_at_more_writes_nothing_and_shows_it_all(with_cursor: Cli, words: tuple[str, ...]) -> None:
    before = tree(with_cursor)
    code, out, err = with_cursor.main("install", "gemini", "opencode", *ALL, *words)
    assert code == 0, err
    for said in ("hook gemini-cli AfterTool", "export const McpBus", blocks.BEGIN, "name: mcp-bus", "GEMINI.md"):
        assert said in out + err
    assert tree(with_cursor) == before
    assert not (with_cursor.home / ".local").exists()


def test_what_is_printed_for_a_program_is_what_would_be_in_each_file(with_cursor: Cli) -> None:
    (row,) = with_cursor.json("install", "codex", *ALL, "--print")["clients"]
    with_cursor.json("install", "codex", *ALL, "--yes")
    for kind in ("hooks", "agents-md", "skill"):
        assert Path(row[kind]["file"]).read_text("utf-8") == row[kind]["text"]


@pytest.mark.parametrize("client", ["claude-code", "codex", "gemini-cli", "cursor"])
def test_the_hooks_are_those_of_the_page_by_an_absolute_path_and_under_the_name_of_the_server(
    with_cursor: Cli, client: str
) -> None:
    made = with_cursor.json("--bus", str(with_cursor.home / "my bus"), "install", client, "--hooks", "--yes")
    (path,) = [Path(row["file"]) for row in made["clients"] if "hooks" in row["parts"]]
    found: Any = jsonc.parse(path.read_text()).data
    command = shlex.split(commands(path)[0])[0]
    assert Path(command).is_absolute()
    words = [command, "--bus", str(with_cursor.home / "my bus"), "--agent", client]
    assert found["hooks"] == hooking.shown(client, words)["hooks"]


def test_the_hook_that_was_installed_runs_from_any_shell_and_tells_of_the_agent(with_cursor: Cli) -> None:
    home = with_cursor.home / "a home"
    home.mkdir()
    tool = program(with_cursor, "mcp-bus", "import sys; from mcp_bus.cli.main import run; sys.exit(run())")
    tool = tool.rename(home / "mcp-bus")
    made = with_cursor.run("--json", "install", "codex", "--hooks", "--yes", env={"HOME": str(home), "PATH": str(home)})
    path = next(Path(row["file"]) for row in json.loads(made.stdout)["clients"] if "hooks" in row["parts"])
    assert path == home / ".codex" / "hooks.json"
    said = subprocess.run(
        ["sh", "-c", commands(path)[0]], capture_output=True, text=True, check=True, timeout=30,
        input='{"hook_event_name": "SessionStart", "session_id": "x"}', env=with_cursor.env | {"MCP_BUS_AGENT": ""},
        cwd=with_cursor.home,
    )  # fmt: skip
    assert 'you are \\"codex\\"' in said.stdout, (said, commands(path), tool)


def test_a_plain_install_after_a_move_renews_what_is_there_and_adds_nothing(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cursor.json("install", "codex", "opencode", "--hooks", "--yes")
    before = tree(with_cursor).keys()
    moved = program(with_cursor, "mcp-bus", "")
    monkeypatch.setattr("sys.argv", [str(moved)])
    with_cursor.json("install", "codex", "opencode", "--yes")
    assert tree(with_cursor).keys() == before
    hooks = with_cursor.home / ".codex" / "hooks.json"
    assert commands(hooks)[0] == f"{moved} --agent codex hook codex SessionStart"
    assert str(moved) in (with_cursor.home / ".config" / "opencode" / "plugins" / "mcp-bus.js").read_text()
    with_cursor.json("uninstall", "--yes")
    assert not hooks.exists()


# --- clients that have none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--hooks", "no hooks of it are known"),
        ("--skill", "no folder of it for skills is known"),
        ("--agents-md", "it reads no instructions in a project"),
    ],
)
def test_a_client_that_has_none_says_so_and_was_asked_for_is_an_error(with_cursor: Cli, option: str, why: str) -> None:
    code, out, err = with_cursor.main("install", "claude-desktop", option, "--yes")
    assert (code, f"Claude Desktop: {why}" in err) == (2, True), err
    assert "Claude Desktop: added" in out, "the server is put in all the same"
    with_cursor.json("uninstall", "--yes")
    (with_cursor.home / ".cursor").rmdir()
    (with_cursor.home / ".config" / "Claude").mkdir(parents=True)
    code, out, err = with_cursor.main("install", option, "--yes")
    assert (code, f"Claude Desktop: {why}" in err, "Claude Desktop: added" in out) == (0, True, True), err
    made = with_cursor.json("install", option, "--yes")
    assert made["clients"][0]["error"] is None
    assert why in made["clients"][0]["note"]


# --- instructions ------------------------------------------------------------------------------------------


def test_the_block_goes_to_the_top_of_the_checkout(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (with_cursor.home / ".git").mkdir()
    (with_cursor.home / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    below = with_cursor.home / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with_cursor.json("install", "cursor", "--agents-md", "--yes")
    assert (with_cursor.home / "AGENTS.md").read_text() == blocks.text()
    assert list(below.iterdir()) == []
    with_cursor.json("uninstall", "cursor", "--yes")
    assert not (with_cursor.home / "AGENTS.md").exists()


@pytest.mark.parametrize("is_link", [True, False])
def test_claude_code_s_file_that_is_or_reads_the_other_is_not_written_twice(with_cursor: Cli, *, is_link: bool) -> None:
    own = with_cursor.home / "CLAUDE.md"
    if is_link:
        (with_cursor.home / "AGENTS.md").write_text("# Rules\n")
        own.symlink_to("AGENTS.md")
    else:
        own.write_text("@AGENTS.md\n")
    before = tree(with_cursor)
    with_cursor.json("install", "claude-code", "codex", "--agents-md", "--yes")
    assert (with_cursor.home / "AGENTS.md").read_text().count(blocks.BEGIN) == 1
    assert own.is_symlink() == is_link
    assert is_link or own.read_text() == "@AGENTS.md\n"
    with_cursor.json("uninstall", "--yes")
    assert {name: text for name, text in tree(with_cursor).items() if text} == {k: v for k, v in before.items() if v}


def test_a_block_that_another_client_reads_stays_until_that_one_goes(with_cursor: Cli) -> None:
    with_cursor.json("install", "cursor", "codex", "--agents-md", "--yes")
    code, _, err = with_cursor.main("uninstall", "codex", "--yes")
    assert (code, "stays as it is: Cursor reads it, too" in err) == (0, True), err
    assert (with_cursor.home / "AGENTS.md").read_text() == blocks.text()
    with_cursor.json("uninstall", "cursor", "--yes")
    assert not (with_cursor.home / "AGENTS.md").exists()


@pytest.mark.parametrize("words", [("install", "cursor", "--agents-md"), ("uninstall", "cursor"), ("uninstall",)])
def test_a_file_with_a_begin_alone_is_refused_untouched(with_cursor: Cli, words: tuple[str, ...]) -> None:
    text = f"# Rules\n{blocks.BEGIN}\nmine\n"
    (with_cursor.home / "AGENTS.md").write_text(text)
    code, _, err = with_cursor.main(*words, "--yes")
    assert (code, "is left as it is: it has not one" in err) == (2, True), err
    assert (with_cursor.home / "AGENTS.md").read_text() == text


def test_a_link_that_leads_to_no_markdown_is_not_followed(with_cursor: Cli) -> None:
    (with_cursor.home / "rc").write_text("alias x=y\n")
    (with_cursor.home / "AGENTS.md").symlink_to("rc")
    made = with_cursor.json("install", "cursor", "--agents-md", "--yes", code=2)
    assert "which is no Markdown" in made["clients"][1]["error"]
    assert made["clients"][1]["file"] == str(with_cursor.home / "AGENTS.md")
    assert (with_cursor.home / "rc").read_text() == "alias x=y\n"


# --- what somebody else did --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"hooks": []}', '{"hooks": null}', '{"hooks": {"stop": "x"}}', '{"hooks": '])
def test_hooks_of_the_wrong_shape_are_refused_and_hold_up_nothing_else(with_cursor: Cli, text: str) -> None:
    path = with_cursor.home / ".cursor" / "hooks.json"
    path.write_text(text)
    code, out, err = with_cursor.main("install", "cursor", "--hooks", "--yes")
    assert (code, "is left as it is: " in err, "Cursor: added" in out) == (2, True, True), err
    assert path.read_text() == text
    made = with_cursor.json("uninstall", "--yes")
    assert [row["what"] for row in made["clients"]] == ["removed"], "what cannot be ours is not spoken of"
    assert path.read_text() == text


def test_a_file_with_a_server_that_is_refused_gets_no_hooks(with_cursor: Cli) -> None:
    path = with_cursor.home / ".gemini" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"mcpServers": {"bus": {"command": "other"}}}')
    before = tree(with_cursor)
    code, _, err = with_cursor.main("install", "gemini", "--hooks", "--yes")
    assert (code, "starts something else" in err) == (2, True)
    assert tree(with_cursor) == before


def test_a_skill_of_somebody_else_is_refused_told_of_and_replaced_if_forced(with_cursor: Cli) -> None:
    path = with_cursor.home / ".codex" / "skills" / "mcp-bus" / "SKILL.md"
    path.parent.mkdir(parents=True)
    path.write_text("theirs\n")
    code, _, err = with_cursor.main("install", "codex", "--skill", "--yes")
    assert (code, "it is somebody else's" in err, "--force replaces it" in err) == (2, True, True), err
    assert "Codex: skill somebody else's" in with_cursor.main("uninstall", "--yes")[2]
    assert path.read_text() == "theirs\n"
    with_cursor.json("install", "codex", "--skill", "--force", "--yes")
    assert path.read_text("utf-8") == extras.skill()
    with_cursor.json("uninstall", "--yes")
    assert path.read_text() == "theirs\n"


@pytest.mark.parametrize("what", ["read-only", "a folder", "binary"])
def test_a_file_of_hooks_that_cannot_be_written_is_left_alone(with_cursor: Cli, what: str) -> None:
    path = with_cursor.home / ".cursor" / "hooks.json"
    if what == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff" if what == "binary" else b"{}")
        path.chmod(0o400 if what == "read-only" else 0o600)
    code, _, err = with_cursor.main("install", "cursor", "--hooks", "--yes")
    assert (code, "is left as it is: " in err) == (1, True), err
    assert not path.is_file() or path.read_bytes() in (b"{}", b"\xff")


def test_a_link_to_a_file_of_hooks_stays_one(with_cursor: Cli) -> None:
    path, real = with_cursor.home / ".cursor" / "hooks.json", with_cursor.home / "dotfiles.json"
    real.write_text('{"version": 1, "hooks": {}}')
    path.symlink_to(real)
    with_cursor.json("install", "cursor", "--hooks", "--yes")
    assert (path.is_symlink(), "mcp-bus" in real.read_text()) == (True, True)
    with_cursor.json("uninstall", "--yes")
    assert (path.is_symlink(), real.read_text()) == (True, '{"version": 1, "hooks": {}}')


def test_a_file_that_somebody_changes_between_reading_and_writing_is_not_overwritten(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_cursor.home / ".cursor" / "hooks.json"

    def ask(*_: object) -> None:
        path.write_text('{"hooks": {"stop": []}}')

    monkeypatch.setattr("mcp_bus.cli.installing._ask", ask)
    code, out, err = with_cursor.main("install", "cursor", "--hooks")
    assert (code, "was changed by somebody else" in err, "Cursor: added" in out) == (5, True, True), (code, err)
    assert path.read_text() == '{"hooks": {"stop": []}}'


def test_two_installs_at_once_leave_each_hook_once(with_cursor: Cli) -> None:
    made = list[int]()

    def one() -> None:
        made.append(with_cursor.run("install", "codex", *ALL, "--yes").returncode)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 0 in made, "who comes first is not held up"
    assert set(made) <= {0, 5}, "and who finds another there is told so"
    assert len(commands(with_cursor.home / ".codex" / "hooks.json")) == 4
    assert (with_cursor.home / "AGENTS.md").read_text() == blocks.text()


def test_without_a_home_no_hooks_are_put_anywhere(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    before = tree(with_cursor)
    code, _, err = with_cursor.main("--bus", "b", "install", "cursor", *ALL, "--yes")
    assert (code, "HOME is not set" in err) == (2, True), err
    assert tree(with_cursor) == before


def test_claude_code_s_own_command_puts_in_the_server_and_we_the_rest(with_cursor: Cli) -> None:
    program(with_cursor, "claude", CLAUDE)
    made = with_cursor.json("install", "claude-code", "--hooks", "--yes")
    assert ["commands" in row for row in made["clients"]] == [True, False]
    assert len(commands(with_cursor.home / ".claude" / "settings.json")) == 4
    made = with_cursor.json("uninstall", "--yes")
    assert sorted(map(str, (row["parts"] for row in made["clients"]))) == [
        "{'hooks': 'removed'}", "{'server': 'removed'}",
    ]  # fmt: skip
    assert not (with_cursor.home / ".claude").exists()


def test_a_project_s_hooks_and_skill_are_in_its_folder(with_cursor: Cli) -> None:
    clients = ["claude-code", "codex", "gemini-cli", "cursor", "opencode"]
    before = tree(with_cursor)
    with_cursor.json("install", *clients, "--hooks", "--skill", "--scope", "project", "--yes")
    names = {name for name, text in tree(with_cursor).items() if text}
    assert names - before.keys() >= {
        ".mcp.json", ".claude/settings.json", ".claude/skills/mcp-bus/SKILL.md", ".codex/hooks.json",
        ".gemini/settings.json", ".cursor/hooks.json", ".opencode/plugins/mcp-bus.js", "opencode.json",
    }  # fmt: skip
    with_cursor.json("uninstall", "--scope", "project", "--yes")
    assert tree(with_cursor) == before


def test_only_what_was_asked_for_is_put_in(with_cursor: Cli) -> None:
    with_cursor.json("install", "cursor", "--yes")
    assert list((with_cursor.home / ".cursor").iterdir()) == [settings(with_cursor)]
    assert set(CLIENTS) >= {"cursor"}
