"""A word that is not known is answered with the one that was likely meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.main import VERBS, usage

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def following(err: str) -> str:
    """Return the next step that an error names."""
    return next(line.removeprefix("  next: ") for line in err.splitlines() if line.startswith("  next: "))


@pytest.mark.parametrize(
    ("word", "step"),
    [
        ("stat", "status?"), ("clam", "claim?"), ("sumbit", "submit?"), ("reprioritze", "reprioritise?"),
        ("post-task", "post?"), ("hlep", "help?"), ("xyzzy", "mcp-bus --help lists them"),
        ("q", "mcp-bus --help lists them"),
    ],
)  # fmt: skip
def test_an_unknown_verb_names_the_likeliest_first(cli: Cli, word: str, step: str) -> None:
    code, out, err = cli.main(word)
    assert (code, out) == (2, "")
    assert following(err) == step


def test_help_is_a_word_too(cli: Cli) -> None:
    assert cli.main("help") == (0, usage() + "\n", "")
    for verb in VERBS:
        assert cli.main("help", verb) == cli.main(verb, "--help")
    assert cli.main("help", "reprioritize")[0] == 0
    code, _, err = cli.main("help", "clam")
    assert (code, following(err)) == (2, "claim?")


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["post", "a", "b", "--prio", "3"], "did you mean --priority?  (mcp-bus post --help)"),
        (["post", "a", "b", "--tilte=x"], "did you mean --title?  (mcp-bus post --help)"),
        (["claim", "--capabilities", "x"], "did you mean --capability?  (mcp-bus claim --help)"),
        (["ls", "--zzzzzz"], "mcp-bus ls --help"),
        (["ls", "one", "two"], "mcp-bus ls --help"),
        (["post", "a", "look", "at", "it"],
         'quote the body, it is one word for the shell: "two words"  (mcp-bus post --help)'),
        (["submit", "abcd", "--token", "ab", "--done", "looks", "good"],
         'quote a text of several words: "two words"  (mcp-bus submit --help)'),
    ],
)  # fmt: skip
def test_words_that_a_verb_does_not_take_are_answered_with_what_was_meant(
    cli: Cli, words: list[str], step: str
) -> None:
    before = cli.files()
    code, out, err = cli.main(*words)
    assert (code, out) == (2, "")
    assert following(err) == step
    assert cli.files() == before


@pytest.mark.parametrize(
    "words",
    [["ls"], ["find", "--channel"], ["channel", "show"], ["log", "--channel"]],
)
def test_an_unknown_channel_is_answered_with_those_that_are_like_it_or_all(cli: Cli, words: list[str]) -> None:
    assert cli.main(*words, "nope")[0] == 3
    cli.post("review", "x")
    cli.post("deploy", "x")
    for name, step in (("revie", "did you mean review?"), ("nope", "channels: deploy, review")):
        code, out, err = cli.main(*words, name)
        assert (code, out, following(err)) == (3, "", step)


def test_setting_a_channel_that_is_not_there_names_the_one_that_is_like_it(cli: Cli) -> None:
    cli.post("review", "x")
    code, _, err = cli.main("channel", "set", "reviews", "lease_s=5")
    assert (code, following(err)) == (3, "did you mean review?")


@pytest.mark.parametrize("text", ["10", "-10", "x", "1.5", "", "1" * 5000, "\u0663"])
def test_a_priority_out_of_range_says_which_there_are(cli: Cli, text: str) -> None:
    code, _, err = cli.main("post", "work", "x", f"--priority={text}")
    assert code == 2
    assert following(err).startswith("a whole number from -9, which goes last, to 9")
    assert not any("requests/" in name for name in cli.files())


def test_no_text_of_the_command_line_names_a_tool_of_the_server() -> None:
    from pathlib import Path

    from mcp_bus import cli
    from mcp_bus.server.tools import TOOLS

    texts = {path.name: path.read_text("utf-8") for path in Path(cli.__path__[0]).glob("*.py")}
    names = {str(tool.name) for tool in TOOLS if "_" in str(tool.name)}
    assert {name: found for name, text in texts.items() if (found := [tool for tool in names if tool in text])} == {}
    assert len(texts) > 10
