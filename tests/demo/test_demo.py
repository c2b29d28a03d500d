"""The demo tells the truth about itself: what does not hold is said, and seen in the exit code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import Conflict
from mcp_bus.demo import script
from mcp_bus.demo.stage import DemoError, check, command, match

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.demo.stage import Story


def playing(monkeypatch: pytest.MonkeyPatch, play: Callable[[Story], None]) -> None:
    """Put something quick in the script's place."""

    def stand_in(_bus: object, _root: object, story: Story, _actors: object) -> None:
        play(story)

    monkeypatch.setattr(script, "_play", stand_in)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_demo_whose_steps_held_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    playing(monkeypatch, lambda story: story.step("a step", ["seen"], fact=1))
    assert script.main() == 0
    assert "1. a step\n    seen\n" in capsys.readouterr().out
    assert script.main(as_json=True) == 0
    document = told(capsys)
    assert (document["ok"], [step["fact"] for step in document["steps"]]) == (True, [1])


@pytest.mark.parametrize(
    "error", [DemoError("no"), Conflict("no"), OSError("no")], ids=lambda error: type(error).__name__
)
def test_a_step_that_does_not_hold_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def play(story: Story) -> None:
        story.step("a step", [])
        raise error

    playing(monkeypatch, play)
    assert script.main() == 1
    said = capsys.readouterr()
    assert "DEMO FAILED after step 1: no" in said.err
    assert "steps held" not in said.out
    assert script.main(as_json=True) == 1
    document = told(capsys)
    assert (document["ok"], [step["ok"] for step in document["steps"]]) == (False, [True, False])


def test_what_is_no_fact_and_an_answer_without_its_pattern_are_errors() -> None:
    with pytest.raises(DemoError, match="somebody is there"):
        check([], "somebody is there")
    with pytest.raises(DemoError, match="unexpected answer: nothing"):
        match(re.compile("something"), "nothing")


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    assert json.loads(command(tmp_path / "bus", "human", "send", "broadcast", "x"))["state"] == "queued"
    with pytest.raises(DemoError, match="nobody is called 'broadcats'"):
        command(tmp_path / "bus", "human", "send", "broadcats", "x")
