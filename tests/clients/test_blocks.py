"""The block of instructions and the skill: in which file, put in, put in again, taken out to the byte."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clients import blocks, edits, extras, parts
from mcp_bus.clients.blocks import BEGIN, END, Block
from mcp_bus.clients.known import CLIENTS, Home, Server
from mcp_bus.errors import InvalidRequest
from mcp_bus.server.tools import TOOLS

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = Block(blocks.text())
OLD = f"{BEGIN}\nwhat an older version said\n{END}\n"
STARTS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "one empty line": b"\n",
    "blank": b"\n\n",
    "rules": b"# Rules\n\nBe good.\n",
    "no end of line": b"# Rules\n\nBe good.",
    "empty lines at the end": b"# Rules\n\n\n\n",
    "CRLF": b"# Rules\r\n\r\nBe good.\r\n",
    "CRLF without an end": b"# Rules\r\n\r\nBe good.",
    "a byte order mark": b"\xef\xbb\xbf# R\xc3\xa9gles\n",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "odd line breaks": b"# Rules\x0cnew\xe2\x80\xa8page\x0b\n",
    "a fence that is open": b"# Rules\n\n```\ncode\n",
}


def put(path: Path, home: Home, part: parts.Part, **options: Any) -> str:
    change = edits.adding(path, [part], home, **options)
    edits.write(change, home)
    return change.what


def take(path: Path, home: Home, part: parts.Part) -> str:
    change = edits.removing(path, [part], home)
    edits.write(change, home)
    return change.what


@pytest.mark.parametrize("start", STARTS)
def test_the_block_is_added_at_the_end_and_undone_to_the_byte(start: str, home: Home) -> None:
    path, before = home.home / "AGENTS.md", STARTS[start]
    if before is not None:
        path.write_bytes(before)
    assert put(path, home, Block(OLD)) == parts.ADDED
    assert put(path, home, BLOCK) == parts.REPLACED
    made = path.read_bytes()
    assert made.startswith(before or b"")
    assert (b"\r\n" in made) == (b"\r\n" in (before or b""))
    assert b"\r\n" not in made or made.count(b"\n") == made.count(b"\r\n")
    text = made.decode().replace("\r\n", "\n")
    assert text.endswith(BLOCK.text)
    assert text.removesuffix(BLOCK.text).removeprefix("\ufeff")[-2:] in ("", "\n\n"), "after an empty line"
    assert edits.adding(path, [BLOCK], home).is_none
    assert take(path, home, BLOCK) == parts.REMOVED
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("start", STARTS)
def test_without_a_record_of_before_the_block_alone_is_cut_out(start: str) -> None:
    before = (STARTS[start] or b"").decode()
    made, _ = BLOCK.put(before, is_known=False, is_forced=False)
    after, what = BLOCK.drop(made, is_known=False)
    assert what == parts.REMOVED
    line = "\r\n" if "\r\n" in before else "\n"
    assert after == (before + line if before.removeprefix("\ufeff") and not before.endswith("\n") else before)


@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("after", ["", "\n", "\nMore.\n", "More."])
def test_a_block_stays_where_somebody_moved_it(line: str, after: str) -> None:
    def lines(text: str) -> str:
        return text.replace("\n", line)

    text = lines(f"# Rules\n\n{OLD.rstrip() if not after else OLD}{after}")
    made, what = BLOCK.put(text, is_known=False, is_forced=False)
    assert what == parts.REPLACED
    assert made == lines(f"# Rules\n\n{BLOCK.text.rstrip() if not after else BLOCK.text}{after}")
    assert BLOCK.put(made, is_known=False, is_forced=False) == (made, parts.SAME)
    assert BLOCK.drop(made, is_known=False) == (lines(f"# Rules\n{after}"), parts.REMOVED)


def test_what_others_wrote_around_it_since_stays(home: Home) -> None:
    path = home.home / "AGENTS.md"
    path.write_bytes(b"# Rules\r\n")
    put(path, home, BLOCK)
    path.write_bytes(b"# Title\r\n" + path.read_bytes() + b"\r\nLater.\r\n")
    assert take(path, home, BLOCK) == parts.REMOVED
    assert path.read_bytes() == b"# Title\r\n# Rules\r\n\r\nLater.\r\n"


def test_a_file_that_was_made_for_it_goes_although_an_empty_line_was_added(home: Home) -> None:
    path = home.home / "new" / "AGENTS.md"
    put(path, home, BLOCK)
    path.write_text(path.read_text() + "\n")
    take(path, home, BLOCK)
    assert not path.parent.exists()


def test_an_empty_file_that_was_there_stays(home: Home) -> None:
    path = home.home / "AGENTS.md"
    path.touch()
    put(path, home, BLOCK)
    path.write_text(path.read_text() + "\n")
    take(path, home, BLOCK)
    assert path.read_text() == "\n"


@pytest.mark.parametrize(
    "text",
    [
        f"# Rules\n{BEGIN}\nmine\n", f"{END}\n", f"{END}\n{BEGIN}\n", f"{OLD}{BEGIN}\n", f"{OLD}{OLD}",
        f"{BEGIN}\n{OLD}", f"\ufeff{BEGIN}\n",
    ],
)  # fmt: skip
def test_marks_that_do_not_fit_are_left_as_they_are(text: str, home: Home) -> None:
    path = home.home / "AGENTS.md"
    path.write_text(text)
    for change in (put, take):
        with pytest.raises(InvalidRequest, match="left as it is: it has not one") as refused:
            change(path, home, BLOCK)
        assert str(path) in str(refused.value)
    assert path.read_text() == text


def test_a_mark_in_a_line_of_something_else_is_text(home: Home) -> None:
    path = home.home / "AGENTS.md"
    path.write_text(f"Between `{BEGIN}` and the end.\n")
    assert put(path, home, BLOCK) == parts.ADDED


def test_a_file_that_is_no_text_is_left_as_it_is(home: Home) -> None:
    path = home.home / "AGENTS.md"
    path.write_bytes(b"\xff\xfe#\0")
    with pytest.raises(edits.Unwritable, match="not UTF-8"):
        put(path, home, BLOCK)


def test_it_is_short_and_names_only_tools_that_there_are() -> None:
    lines = BLOCK.text.splitlines()
    assert (lines[0], lines[-1], len(lines) <= 12) == (BEGIN, END, True)
    named = set(re.findall(r"`([a-z]+_[a-z]+)`", BLOCK.text))
    assert named <= {tool.name for tool in TOOLS}
    assert {"claim_next", "submit_result", "post_task", "await_results", "read_inbox"} <= named


# --- in which file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "files", "place"),
    [
        ("codex", {}, "AGENTS.md"),
        ("cursor", {"CLAUDE.md": ""}, "AGENTS.md"),
        ("gemini-cli", {"AGENTS.md": ""}, "GEMINI.md"),
        ("gemini-cli", {"GEMINI.md": "See @./AGENTS.md\n"}, "AGENTS.md"),
        ("qwen", {}, "QWEN.md"),
        ("claude-code", {}, "AGENTS.md"),
        ("claude-code", {"AGENTS.md": ""}, "AGENTS.md"),
        ("claude-code", {"CLAUDE.md": ""}, "CLAUDE.md"),
        ("claude-code", {"CLAUDE.md": "# Mine\n\n@AGENTS.md\n"}, "AGENTS.md"),
        ("claude-code", {"CLAUDE.md": "read @AGENTS.md."}, "AGENTS.md"),
        ("claude-code", {"CLAUDE.md": "`@AGENTS.md` is not read, me@AGENTS.md not, @AGENTS.md.bak not"}, "CLAUDE.md"),
        ("claude-code", {"CLAUDE.md": "```\n@AGENTS.md\n```\n\n    @AGENTS.md\n"}, "CLAUDE.md"),
        ("claude-code", {"CLAUDE.md": "`see @AGENTS.md` or ``a @AGENTS.md``"}, "CLAUDE.md"),
        ("claude-code", {"CLAUDE.md": "```\na\n```\n\n@AGENTS.md\n"}, "AGENTS.md"),
        ("claude-code", {".claude/CLAUDE.md": "mine"}, ".claude/CLAUDE.md"),
        ("claude-code", {".claude/CLAUDE.md": "@../AGENTS.md"}, "AGENTS.md"),
        ("claude-desktop", {}, None),
    ],
)
def test_the_block_goes_where_the_client_reads_it(
    client: str, files: dict[str, str], place: str | None, home: Home
) -> None:
    for name, text in files.items():
        (home.home / name).parent.mkdir(exist_ok=True)
        (home.home / name).write_text(text)
    found = extras.places(CLIENTS[client], parts.AGENTS_MD, home, "user", home.home)
    assert found[:1] == ([home.home / place] if place else [])


# --- files that are all ours -------------------------------------------------------------------------------

SKILLED = ["claude-code", "codex", "gemini-cli", "cursor", "opencode"]
NEW = Server("/new/mcp-bus", ("serve",), {})


@pytest.mark.parametrize("client", SKILLED)
@pytest.mark.parametrize("scope", ["user", "project"])
def test_the_skill_is_copied_renewed_and_goes_with_the_folders_made_for_it(client: str, scope: str, home: Home) -> None:
    (path,) = extras.places(CLIENTS[client], parts.SKILL, home, scope, home.home / "project")
    assert path.parts[-3:] == ("skills", "mcp-bus", "SKILL.md")
    part = extras.part(CLIENTS[client], parts.SKILL, NEW)
    assert put(path, home, parts.Whole(parts.SKILL, "what an older version said")) == parts.ADDED
    assert put(path, home, part) == parts.REPLACED, "what we wrote is ours"
    assert path.read_text("utf-8") == extras.skill()
    assert edits.adding(path, [part], home).is_none
    assert take(path, home, part) == parts.REMOVED
    assert [path.name for path in home.home.iterdir()] == [".local"], "and that is where we keep things"


@pytest.mark.parametrize("kind", [parts.SKILL, parts.HOOKS])
def test_a_file_of_somebody_else_in_its_place_is_left_alone_unless_forced(kind: str, home: Home) -> None:
    client = CLIENTS["opencode"]
    (path,) = extras.places(client, kind, home, "user", home.home)
    part = extras.part(client, kind, NEW)
    path.parent.mkdir(parents=True)
    path.write_text("theirs\n")
    with pytest.raises(InvalidRequest, match="somebody else's"):
        put(path, home, part)
    assert take(path, home, part) == parts.OTHERS
    assert path.read_text() == "theirs\n"
    assert put(path, home, part, is_forced=True) == parts.REPLACED
    assert take(path, home, part) == parts.REMOVED
    assert path.read_text() == "theirs\n", "and comes back"


def test_a_skill_that_somebody_changed_is_theirs(home: Home) -> None:
    (path,) = extras.places(CLIENTS["codex"], parts.SKILL, home, "user", home.home)
    part = extras.part(CLIENTS["codex"], parts.SKILL, NEW)
    put(path, home, part)
    path.write_text(path.read_text() + "- And be kind.\n")
    with pytest.raises(InvalidRequest, match="changed by hand"):
        put(path, home, parts.Whole(parts.SKILL, "newer"))
    assert take(path, home, part) == parts.OTHERS
    assert "be kind" in path.read_text()


def test_the_plugin_of_opencode_is_ours_under_any_path_and_without_a_record(home: Home) -> None:
    (path,) = extras.places(CLIENTS["opencode"], parts.HOOKS, home, "user", home.home)
    path.parent.mkdir(parents=True)
    old = extras.part(CLIENTS["opencode"], parts.HOOKS, Server("/old/mcp-bus", ("serve",), {}))
    path.write_text(old.put("", is_known=False, is_forced=False)[0])
    part = extras.part(CLIENTS["opencode"], parts.HOOKS, NEW)
    assert put(path, home, part) == parts.REPLACED
    assert '["/new/mcp-bus"]' in path.read_text()
    assert take(path, home, part) == parts.REMOVED
    assert not path.exists(), "what was there was ours, too"


def test_folders_that_variables_name_are_those_that_are_used(home: Home) -> None:
    said = home._replace(environment={"CODEX_HOME": "/c", "CLAUDE_CONFIG_DIR": "/d", "XDG_CONFIG_HOME": "/x"})
    found = {
        (client, kind): str(extras.places(CLIENTS[client], kind, said, "user", home.home)[0])
        for client in ("codex", "claude-code", "opencode")
        for kind in (parts.HOOKS, parts.SKILL)
    }
    assert found == {
        ("codex", "hooks"): "/c/hooks.json",
        ("codex", "skill"): "/c/skills/mcp-bus/SKILL.md",
        ("claude-code", "hooks"): "/d/settings.json",
        ("claude-code", "skill"): "/d/skills/mcp-bus/SKILL.md",
        ("opencode", "hooks"): "/x/opencode/plugins/mcp-bus.js",
        ("opencode", "skill"): "/x/opencode/skills/mcp-bus/SKILL.md",
    }


def test_what_cannot_be_read_any_more_beside_what_else_goes_into_a_file_is_not_written(home: Home) -> None:
    client, path = CLIENTS["cursor"], home.home / "one.md"
    with pytest.raises(InvalidRequest, match=r"left as it is: .*(not JSON|in one file)"):
        edits.adding(path, [parts.Entry(client, client.entry(NEW)), BLOCK], home)
    whole = parts.Whole(parts.SKILL, f"{BEGIN}\n{END}")
    with pytest.raises(InvalidRequest, match="left as it is: what would go into it cannot be in one file"):
        edits.adding(path, [BLOCK, whole], home, is_forced=True)
    assert not path.exists()


@pytest.mark.parametrize(("begin", "end"), [("```", "```"), ("~~~~ html", "~~~~~"), (" ```md", "```  ")])
def test_marks_in_a_block_of_code_are_an_example(begin: str, end: str) -> None:
    text = f"# Rules\n\n{begin}\n{OLD}```x\n{end}\n\n    {BEGIN}\n    {END}\n"
    assert BLOCK.drop(text, is_known=False) == (text, parts.ABSENT)
    made, what = BLOCK.put(text, is_known=False, is_forced=False)
    assert (what, made) == (parts.ADDED, f"{text}\n{BLOCK.text}")
    assert BLOCK.drop(made, is_known=False) == (text, parts.REMOVED)
