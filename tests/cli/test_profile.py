"""The shared profile from the command line: one text on every host, and a model where two have changed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

# Answers as a model would: the lines of both versions, each once.
MODEL = """
import sys
lines = sys.stdin.read().splitlines()
mark = next(line for line in lines if line.startswith("--- the shared")).split("until ")[1].split()[0]
print("Here it is:"); print("BEGIN", mark)
print("\\n".join(dict.fromkeys(line for line in lines if line.startswith("- fact"))))
print("END", mark)
"""


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    (tmp_path / "model.py").write_text(MODEL)
    return [sys.executable, str(tmp_path / "model.py")]


def test_hosts_come_to_one_text_and_a_model_is_asked_only_where_both_changed(
    cli: Cli, tmp_path: Path, model: list[str]
) -> None:
    one, two, never = tmp_path / "one.md", tmp_path / "two.md", ["false"]
    one.write_text("- fact a\n")
    assert cli.json("profile", "sync", str(one), "--", *never)["did"] == "sent"
    assert cli.json("profile", "sync", str(two), "--", *never)["did"] == "taken from the bus"
    assert two.read_text() == "- fact a\n"
    two.write_text("- fact a\n- fact b\n")
    assert cli.json("profile", "sync", str(two), "--", *never)["did"] == "sent", "nobody else has changed it"
    assert cli.json("profile", "sync", str(one), "--", *never)["did"] == "taken from the bus"
    one.write_text("- fact a\n- fact b\n- fact c\n")
    two.write_text("- fact b\n- fact d\n")
    assert cli.json("profile", "sync", str(one), "--", *never)["did"] == "sent"
    assert cli.json("profile", "sync", str(two), "--", *model)["did"] == "merged"
    assert two.read_text() == "- fact a\n- fact b\n- fact c\n- fact d\n"
    assert cli.json("profile", "sync", str(one), "--", *never)["did"] == "taken from the bus"
    assert cli.json("profile", "sync", str(two), "--", *never)["did"] == "the same here"
    assert one.read_text() == two.read_text() == cli.json("profile", "show")["text"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((), "no command was given"),
        (("false",), "exit code 1"),
        (("/no/such/program",), "could not be started"),
        (("echo", "I cannot\a do that"), "`END "),
        (("echo", "I cannot\a do that"), "but with: I cannot\\x07 do that\n"),
        (("true",), "but with: nothing\n"),
    ],
)
def test_a_merge_that_fails_changes_nothing(cli: Cli, tmp_path: Path, command: tuple[str, ...], why: str) -> None:
    mine = tmp_path / "USER.md"
    mine.write_text("- fact a\n")
    cli.json("profile", "write", str(mine), "--base", "0")
    mine.write_text("- fact b\n")
    code, _, err = cli.main("profile", "sync", str(mine), *(["--", *command] if command else []))
    assert (code, why in err) == (2, True), err
    assert mine.read_text() == "- fact b\n"
    assert cli.json("profile", "show")["text"] == "- fact a\n"


def test_merge_prints_what_sync_asks_and_says_where_the_answer_is_to_stand(cli: Cli, tmp_path: Path) -> None:
    mine, seen = tmp_path / "USER.md", tmp_path / "seen"
    mine.write_text("- fact a\n")
    cli.json("profile", "write", str(mine), "--base", "0")
    mine.write_text("- fact b\n")
    cli.main("profile", "sync", str(mine), "--", "sh", "-c", f"cat > {seen}")
    printed = cli.main("profile", "merge", str(mine))[1]
    marks = [re.findall("`(?:BEGIN|END) ([0-9a-f]{12})`", text) for text in (printed, seen.read_text())]
    assert [len(set(some)) for some in marks] == [1, 1]
    assert printed.replace(marks[0][0], marks[1][0]) == seen.read_text()


def test_a_folder_that_is_not_there_is_a_slip_and_not_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "USER.md").write_text("- fact a\n")
    cli.json("profile", "write", str(tmp_path / "USER.md"), "--base", "0")
    code, out, err = cli.main("profile", "sync", str(tmp_path / "nosuch" / "USER.md"))
    assert (code, out, "there is no folder" in err) == (3, "", True)
    assert not (tmp_path / "nosuch").exists()


def test_a_file_that_changed_while_it_was_merged_is_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "USER.md"
    mine.write_text("- fact a\n")
    cli.json("profile", "write", str(mine), "--base", "0")
    mine.write_text("- fact b\n")
    script = MODEL + f"\nopen({str(mine)!r}, 'w').write('- fact of the user, just now')\n"
    code, _, err = cli.main("profile", "sync", str(mine), "--", sys.executable, "-c", script)
    assert (code, "was changed meanwhile" in err) == (5, True), err
    assert mine.read_text() == "- fact of the user, just now"
    assert cli.json("profile", "show")["text"] == "- fact a\n- fact b\n"


def test_somebody_who_writes_while_a_model_thinks_is_merged_with_too(cli: Cli, tmp_path: Path) -> None:
    mine, theirs, done = tmp_path / "USER.md", tmp_path / "theirs.md", tmp_path / "done"
    mine.write_text("- fact a\n")
    cli.json("profile", "write", str(mine), "--base", "0")
    mine.write_text("- fact b\n")
    theirs.write_text("- fact a\n- fact c\n")
    words = ["profile", "write", str(theirs), "--base", "1"]
    writes = f"""
import os, subprocess, sys
if not os.path.exists({str(done)!r}):
    open({str(done)!r}, "w")
    subprocess.run([sys.executable, "-m", "mcp_bus", *{words!r}], check=True, stdout=2)
"""
    ended = cli.run("profile", "sync", str(mine), "--json", "--", sys.executable, "-c", writes + MODEL)
    assert ended.returncode == 0, ended.stderr
    assert "once more" in ended.stderr
    assert cli.json("profile", "show") | {"at": ""} == {
        "revision": 3, "by": "tester", "at": "", "text": "- fact a\n- fact c\n- fact b\n",
    }  # fmt: skip


def test_it_is_announced_to_everyone_who_listens(cli: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "USER.md"
    mine.write_text("- fact a\n")
    cli.json("--agent", "bob", "inbox", code=4)
    assert cli.json("profile", "write", str(mine), "--base", "0", "--announce")["announced"] is True
    [message] = cli.json("--agent", "bob", "inbox")["messages"]
    assert message["title"] == "shared USER.md updated"
    assert cli.json("profile", "write", str(mine), "--base", "1", "--announce")["announced"] is False, "nothing is new"


def test_bad_input_is_told_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli.main("profile", "show")
    assert (code, "`mcp-bus profile write USER.md --base 0` makes one" in err) == (3, True)
    for words in (["show", "x"], ["write", "x"], ["merge", "x", "--base", "1"], ["merge"], ["show", "--", "cat"]):
        assert cli.main("profile", *words)[0] == 2, words
    assert "cannot read" in cli.main("profile", "merge", str(tmp_path))[2]
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "it is not UTF-8" in cli.main("profile", "write", str(tmp_path / "bytes"), "--base", "0")[2]
    assert cli.main("profile", "sync", str(tmp_path / "none"))[0] == 3
