"""A wrong example is noticed, whatever is wrong with it; a right one is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.executed import links, problems

if TYPE_CHECKING:
    from pathlib import Path


def page(folder: Path, *blocks: str) -> Path:
    """Write a page; `~` stands for the backtick that would end a fence."""
    path = folder / "page.md"
    path.write_text("# A page\n\n" + "\n\n".join(blocks).replace("~~~", "```") + "\n")
    return path


RIGHT = {
    "the output fits": "~~~console\n$ echo one; echo two\none\ntwo\n~~~",
    "dots stand for anything": "~~~console\n$ echo id 4711 made; seq 9\nid ... made\n1\n...\n9\n~~~",
    "output left out is not compared": "~~~console\n$ echo whatever\n~~~",
    "a command goes on in the next line": "~~~console\n$ echo one \\\n  two\none two\n~~~",
    "a prompt of its own continues": "~~~console\n$ cat <<EOF\n> in here\n> EOF\nin here\n~~~",
    "a failure that is announced": "~~~console\n$ (exit 3)  # exits 3\n~~~",
    "the shell remembers": "~~~console\n$ mkdir a; cd a; export B=c\n$ echo $(basename $PWD) $B\na c\n~~~",
    "across blocks": "~~~console\n$ B=c\n~~~\n\nText.\n\n~~~console\n$ echo $B\nc\n~~~",
    "home is empty": "~~~console\n$ ls -A ~ | wc -l | tr -d ' '\n0\n~~~",
    "what runs in the background does not hold it up": "~~~console\n$ sleep 600 &\n$ echo on\non\n~~~",
    "python goes on where python was": "~~~python\nx = 1\n~~~\n\n~~~python\nassert x == 1\n~~~",
    "python and the shell share a folder": "~~~console\n$ touch f\n~~~\n\n~~~python\nimport os; os.stat('f')\n~~~",
    "json": '~~~json\n{"a": 1}\n~~~',
    "toml": "~~~toml\na = 1\n~~~",
    "text is only read": "~~~text\n$ false\n~~~",
    "an excuse with a reason": "<!-- not run: needs a server -->\n\n~~~console\n$ false\n~~~",
    "in a list": "1. Do\n\n   ~~~console\n   $ echo one\n   one\n   ~~~",
}

WRONG = {
    "other output": ("~~~console\n$ echo two\none\n~~~", "page.md:4: `echo two`"),
    "more output": ("~~~console\n$ echo one; echo two\none\n~~~", "it prints\none\ntwo"),
    "less output": ("~~~console\n$ echo one\none\ntwo\n~~~", "page.md:4"),
    "a failing command": ("~~~console\n$ echo one\n$ false\n~~~", "page.md:5: `false` exited with 1, not 0"),
    "a failure that does not happen": ("~~~console\n$ true  # exits 3\n~~~", "exited with 0, not 3"),
    "a word bash does not know": ("~~~console\n$ no-such-command\n~~~", "exited with 127"),
    "broken quoting": ("~~~console\n$ echo 'one\n~~~", "page.md:4"),
    "the end of the shell": ("~~~console\n$ exit\n$ echo\n~~~", "`exit` did not end"),
    "output before a command": ("~~~console\none\n~~~", "starts with `$ `"),
    "an empty console": ("~~~console\n~~~", "starts with `$ `"),
    "python that raises": ("~~~python\nx = 1\n1 / 0\n~~~", 'File "page.md", line 5'),
    "python that is none": ("~~~python\ndef\n~~~", "SyntaxError"),
    "json with a comment": ("~~~json\n{} // no\n~~~", "page.md:4: json that does not parse"),
    "toml that is none": ("~~~toml\na\n~~~", "toml that does not parse"),
    "another language": ("~~~bash\ntrue\n~~~", "page.md:4: bash is nothing that can be run"),
    "no language": ("~~~\ntrue\n~~~", "without a language"),
    "an indented block": ("    $ true", "an indented block"),
    "an excuse without a reason": ("<!-- not run: -->\n~~~console\n$ true\n~~~", "no reason"),
    "an excuse above text": ("<!-- not run: later -->\n\nText\n\n~~~console\n$ true\n~~~", "no block follows"),
    "an excuse at the end": ("<!-- not run: later -->", "no block follows"),
    "an excuse for one block only": (
        "<!-- not run: it fails -->\n~~~console\n$ false\n~~~\n\n~~~console\n$ false\n~~~",
        "page.md:9: `false` exited",
    ),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_a_right_example_passes(tmp_path: Path, text: str) -> None:
    assert problems(page(tmp_path, text)) == []


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_example_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(problems(page(tmp_path, text)))


def test_a_command_that_hangs_is_told_and_ends_the_page(tmp_path: Path) -> None:
    found = problems(page(tmp_path, "~~~json\n{\n~~~", "~~~console\n$ sleep 600\n$ false\n~~~"), limit_s=0.5)
    assert [line.splitlines()[0].partition(": Exp")[0].partition(" did")[0] for line in found] == [
        "page.md:4: json that does not parse",
        "page.md: line 8: `sleep 600`",
    ]


def test_one_wrong_example_does_not_hide_the_next(tmp_path: Path) -> None:
    assert len(problems(page(tmp_path, "~~~console\n$ false\n$ false\n~~~", "~~~json\n{\n~~~"))) == 3


def test_examples_see_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_BUS_LEFT_OVER", "1")
    shell = "~~~console\n$ echo [$MCP_BUS_LEFT_OVER]\n[]\n~~~"
    assert (
        problems(page(tmp_path, shell, "~~~python\nimport os; assert 'MCP_BUS_LEFT_OVER' not in os.environ\n~~~")) == []
    )


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    text = "[a](there.md#part) [b](gone.md) [c](https://example.org/) [d](#here) ![e](gone.png)"
    assert list(links(page(tmp_path, text))) == ["gone.md", "gone.png"]
