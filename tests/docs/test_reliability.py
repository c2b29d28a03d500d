"""The page that says what is promised: every promise has a row, and what is said to show it is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tally import ROWS

ROOT = Path(__file__).resolve().parents[2]
# The table of promises; figures, which name them too, come after it.
PAGE = (ROOT / "docs/reliability.md").read_text().partition("## How it is shown")[0]
# Of what is not built yet there is nothing to promise.
LATER = {"P24"}


def rows() -> dict[str, str]:
    """Return the row of each promise."""
    return {found[1]: found[0] for found in re.finditer(r"^\| (P\d+) \|.*$", PAGE, re.MULTILINE)}


def test_each_promise_has_a_row_in_their_order() -> None:
    assert list(rows()) == [f"P{n}" for n in range(1, 28) if f"P{n}" not in LATER]


def test_what_shows_a_promise_is_there() -> None:
    named = [
        (promise, path) for promise, row in rows().items() for path in re.findall(r"`((?:tests|examples)/[^`]+)`", row)
    ]
    assert {promise for promise, _ in named} == set(rows()), "a promise without a test"
    assert [(promise, path) for promise, path in named if not list(ROOT.glob(path))] == []


def test_the_table_that_a_run_prints_counts_each_promise() -> None:
    counted = {promise for row in ROWS for promise in row.promises.split()}
    assert sorted(set(rows()) - counted) == []
