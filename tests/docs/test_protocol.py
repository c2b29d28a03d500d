"""The page about the protocol shows the state machine as it is, and cites only rules that it states."""

from __future__ import annotations

import re

import pytest

from mcp_bus import names, policies
from mcp_bus.model import Lease, Policy, Slot, State
from mcp_bus.stores import layout
from tests.docs.executed import ROOT
from tools import draw_lifecycle

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
STATED = re.findall(r"^(?:- )?\*\*\[([A-Z]+\d)\]", PAGE, re.MULTILINE)
LEASE = Lease("<holder>", "<token>", 4)
EXAMPLES = {
    State.READY: Slot("<marks>", "c", State.READY),
    State.SCHEDULED: Slot("<marks>", "c", State.SCHEDULED, not_before=4),
    State.LEASED: Slot("<marks>", "c", State.LEASED, lease=LEASE),
    State.DEAD: Slot("<marks>", "c", State.DEAD),
    State.DONE: Slot("<marks>", "c", State.DONE, lease=LEASE, day="<day>"),
    State.CANCELLED: Slot("<marks>", "c", State.CANCELLED, day="<day>"),
    State.EXPIRED: Slot("<marks>", "c", State.EXPIRED, day="<day>"),
}


def test_it_holds_the_drawing_of_the_table() -> None:
    assert draw_lifecycle.page() in PAGE, "put in what `python -m tools.draw_lifecycle` prints"


def test_each_rule_is_stated_once_and_each_cited_rule_is_stated() -> None:
    assert sorted(set(STATED)) == sorted(STATED)
    assert set(re.findall(r"\[([A-Z]+\d)\]", PAGE)) <= set(STATED)


def test_it_is_short_enough_to_be_read() -> None:
    assert len(PAGE.splitlines()) <= 350


@pytest.mark.parametrize("state", list(State))
def test_the_path_of_each_state_is_the_one_that_is_made(state: State) -> None:
    place = names.place(EXAMPLES[state])
    made = f"{place.folder}/{place.name}"
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {state} | `"))
    said = row.split("`")[1].replace("<not before, ms>", "4").replace("<lease end, ms>", "4")
    assert said == made


def test_marks_come_in_the_order_of_the_page() -> None:
    full = Slot("req_00000000", "c", State.READY, priority=1, attempt=2, budget=3, releases=4, deadline=5)
    letters = re.findall(r"\.([a-z])\d", names.marks(full))
    assert letters == re.findall(r"^\| `\.([a-z])<", PAGE, re.MULTILINE)


def test_every_folder_of_a_new_bus_and_of_a_channel_is_in_the_layout() -> None:
    said = PAGE.partition("## Layout")[2].partition("## Names")[0]
    for folder in (*layout.FOLDERS, *names.CHANNEL_FOLDERS):
        assert f"{folder}/" in said, folder


def test_the_policy_has_the_fields_and_defaults_of_the_page() -> None:
    said = PAGE.partition("**[B6] Policy.**")[2].partition("\n\n")[0]
    for name, value in policies.fields(Policy()).items():
        shown = f" {value:g}" if isinstance(value, int | float) else ""
        shown = " false" if value is False else shown
        assert re.search(rf"`{name}`{shown}\b" if shown else rf"`{name}`", " ".join(said.split())), name
