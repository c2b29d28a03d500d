"""Nothing that others wrote acts on a terminal; tables and ages read well."""

from __future__ import annotations

import pytest

from mcp_bus.cli.arguments import seconds, shell
from mcp_bus.cli.output import Out, ago, clean, duration, fit, one_line, quote, width

DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]8;;http://x\x1b\\click", "\\x1b]8;;http://x\\x1b\\click"),
        ("over\rwritten", "over\\x0dwritten"),
        ("a\x08\x08b", "a\\x08\\x08b"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud800", "\\ud800"),
        ("line\u2028sep\u2029", "line\\u2028sep\\u2029"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("two\nlines\ttab", "two\\x0alines\\x09tab"),
        ("äöü 日本 👍", "äöü 日本 👍"),
    ],
)
def test_what_acts_is_made_visible(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert one_line(text) == shown


def test_only_bodies_keep_line_feeds_and_tabs() -> None:
    assert clean("\u2764\ufe0f \u2764\ufe0f\ufe0e\ufe0f") == "\u2764\ufe0f \u2764\ufe0f\\ufe0e\\ufe0f"
    hidden = "\ufe00\U000e0100\u034f\u115f\u2800\u3164"
    assert clean(hidden).isascii(), "what is drawn as nothing can hide a text"
    assert clean("a\n\tb\r\n", multiline=True) == "a\n\tb\\x0d\n"
    assert quote("a\nnext  b") == ["  | a", "  | next  b"]


def test_one_line_is_short_however_long_the_text() -> None:
    assert len(one_line("\x1b" * 10_000, 50)) == 50


def test_a_cell_takes_the_columns_it_is_given() -> None:
    assert fit("abc", 5) == "abc  "
    assert fit("abcdef", 4) == "abc…"
    for text in ("日本語のタイトル", "e\u0301" * 9, "mixed 日本 text", ""):
        for size in (1, 2, 5, 30):
            assert width(fit(text, size)) == size, (text, size)


def test_ages_are_said_as_people_say_them() -> None:
    spans = {0: "0 s", 59_000: "59 s", 90_000: "90 s", 120_000: "2 min", 3_600_000: "60 min", 5_400_000: "90 min",
             7_300_000: "2 h", DAY: "24 h", 3 * DAY: "3 d", -5: "0 s"}  # fmt: skip
    assert {ms: duration(ms) for ms in spans} == spans
    assert [ago(0, 5), ago(1000, 61_000), ago(61_000, 1000)] == ["", "60 s ago", "in 60 s"]


def test_time_spans_are_read_in_every_unit() -> None:
    assert [seconds(text) for text in ("90", "90s", "5m", "2h", "3d", "1.5h", "0")] == [
        90.0, 90.0, 300.0, 7200.0, 259_200.0, 5400.0, 0.0,
    ]  # fmt: skip


def test_words_are_quoted_for_a_shell_when_they_need_it() -> None:
    assert [shell(text) for text in ("/a/b-c.d_e", "a b", "$(x)", "")] == ["/a/b-c.d_e", "'a b'", "'$(x)'", "''"]


def test_an_answer_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    out = Out()
    out.table(("A", "B"), [("1", "x"), ("22", "y")])
    out.flush()
    out.flush()
    assert capsys.readouterr().out == "A   B\n1   x\n22  y\n"
