"""Nothing in a text of others acts on who reads it, and what a person can read stays as it is."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import plain
from tests.hidden import ACTS, acting


def test_no_character_that_acts_is_left_of_all_there_are() -> None:
    for start in range(0, sys.maxunicode + 1, 256):
        page = "".join(map(chr, range(start, start + 256)))
        assert not acting(plain.clean(page, multiline=True)), f"{start:04x}"
        for char in ACTS.findall(page):
            shown = plain.clean(char, multiline=True)
            assert shown.isascii(), f"{ord(char):04x} is shown by its number"
            assert f"{ord(char):x}" in shown


@given(st.text(alphabet=st.characters(), max_size=60))
def test_no_text_acts(text: str) -> None:
    assert not acting(plain.clean(text, multiline=True))
    one = plain.clean(text)
    assert not acting(one)
    assert not set("\n\t") & set(one)


@pytest.mark.parametrize(
    "text",
    [
        "plain", "Grüße, 你好, नमस्ते, שלום, العربية", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👩\u200d🚀 ❤\ufe0f", "a\\x1b b", "naïve \u00a0 end",
    ],
)  # fmt: skip
def test_what_people_write_stays(text: str) -> None:
    assert plain.clean(text) == text
