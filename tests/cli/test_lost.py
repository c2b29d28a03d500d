"""A done task whose result is gone: every place that shows it says so, and the way out is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus
from mcp_bus.find import LOST, ending
from mcp_bus.server import answers
from mcp_bus.server.words import ALL_WAYS, Ways

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def lost(cli: Cli) -> str:
    """A task that is done, without the file of its result."""
    task = cli.post("work")
    _, token = cli.claim("work")
    cli.json("submit", task, "--token", token, "--done", "swordfish")
    (cli.bus / "channels" / "work" / "responses" / f"{task}.json").unlink()
    return task


def test_a_wait_for_a_lost_result_needs_a_person(cli: Cli, lost: str) -> None:
    code, out, err = cli.main("wait", lost)
    assert (code, f" lost: {LOST}\n" in out) == (6, True), out
    assert f"discard {lost[-8:]}` gives the result up" in err
    [item] = cli.json("wait", lost, code=6)["tasks"]
    assert item["error"] == {"code": "lost", "message": LOST}
    assert (item["task"]["result"], item["task"]["lost"]) == (None, LOST)


@pytest.mark.parametrize("words", [("find", "--state", "done"), ("export", "--format", "md"), ("show",)], ids=" ".join)
def test_what_is_lost_is_called_so_wherever_it_is_shown(cli: Cli, lost: str, words: tuple[str, ...]) -> None:
    code, out, _ = cli.main(*words, *([lost] if words == ("show",) else []))
    assert (code, "lost" in out) == (0, True), out
    if words == ("show",):
        assert f"LOST: {LOST}" in out


def test_what_has_its_result_is_not_called_lost(cli: Cli) -> None:
    task = cli.post("work")
    _, token = cli.claim("work")
    cli.json("submit", task, "--token", token, "--done", "lovely")
    assert cli.main("wait", task)[0] == 0
    assert "lost" not in cli.json("show", task)
    assert "lost" not in cli.main("find")[1]


def test_an_agent_is_not_told_to_use_what_is_lost(cli: Cli, lost: str) -> None:
    with open_bus(cli.bus, agent="tester") as bus:
        told = answers.awaited(bus, [ending(bus, lost)], "0011", 0, ALL_WAYS)
        assert "done, and its result is LOST" in told
        assert "use the results" not in told
        assert told.endswith(f"there is no result of {lost[-8:]}: {answers.GIVE_UP}")
        assert answers.shown(bus, bus.get(lost), "0011", 0, ALL_WAYS).endswith(answers.GIVE_UP)
        few = Ways(frozenset({"control_task"}))
        assert answers.awaited(bus, [ending(bus, lost)], "0011", 0, few).endswith(answers.PERSON_LOOKS)


def test_what_is_lost_can_be_ended_and_done_once_more(cli: Cli, lost: str) -> None:
    assert cli.json("fsck", code=6)["anomalies"][0]["kind"] == "done-without-result"
    code, _, err = cli.main("retry", lost)
    assert (code, "next: discard gives that result up" in err) == (5, True)
    cli.json("discard", lost)
    assert cli.json("fsck")["anomalies"] == []
    cli.json("retry", lost)
    _, token = cli.claim("work")
    cli.json("submit", lost, "--token", token, "--done", "marlin")
    assert "marlin" in cli.main("wait", lost)[1]
