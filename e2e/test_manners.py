"""What each client does about tools of its own accord: asks before it calls them, gives them up, hides them.

`docs/clients-in-depth.md` tells people of each; a version that does otherwise is found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.clients import ALL
from e2e.model import Step
from mcp_bus import State
from mcp_bus.server.tools import TOOLS

if TYPE_CHECKING:
    from e2e.conftest import Stage

pytestmark = pytest.mark.timeout(600)
BY_NAME = {client.name: client for client in ALL}
# A wait tells of its progress every five seconds.
# The limit of opencode is one for its start as well.
WAIT_S, LIMIT_S, BRIEF_S = 20, 13, 4
MAX_WAIT_S = 50
GAVE_UP = {
    "claude-code": f'MCP server "bus" tool "claim_next" timed out after {LIMIT_S}s',
    "codex": f"timed out awaiting tools/call after {LIMIT_S}s",
    "gemini-cli": "MCP error -32001: Request timed out",
    "qwen": "Request timed out",
}


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test with these clients."""
    return pytest.mark.parametrize("installed", [BY_NAME[name] for name in names], indirect=True, ids=str)


@only(*BY_NAME)
def test_a_limit_that_is_set_counts_and_for_two_of_them_progress_begins_it_anew(stage: Stage) -> None:
    stage.speak(Step("claim_next", lambda _: {"wait_s": WAIT_S}), Step(), limit_s=LIMIT_S)
    (said,) = stage.offers[-1].results
    assert GAVE_UP.get(stage.client.name, f"waited {WAIT_S} s") in said


@only("copilot")
def test_copilot_cli_gives_up_a_call_that_tells_of_no_progress_for_so_long(stage: Stage) -> None:
    stage.speak(Step("claim_next", lambda _: {"wait_s": WAIT_S}), Step(), limit_s=BRIEF_S)
    (said,) = stage.offers[-1].results
    assert "Request timed out" in said


@only(*BY_NAME)
def test_the_longest_wait_is_within_each_client_s_own_limit(stage: Stage) -> None:
    stage.speak(Step("claim_next", lambda _: {"wait_s": MAX_WAIT_S}), Step())
    (said,) = stage.offers[-1].results
    assert f"waited {MAX_WAIT_S} s" in said


@only("claude-code")
def test_claude_code_calls_nothing_that_was_not_allowed(stage: Stage) -> None:
    stage.speak(
        Step("list_channels"), Step("post_task", lambda _: {"channel": "work", "body": "x"}), Step(), is_asking=True
    )
    assert ["requested permissions" in said for said in stage.offers[-1].results] == [True, True]
    assert not list(stage.bus.store.scan("work", State.READY))


@only("codex")
def test_codex_refuses_only_what_can_destroy_unless_it_is_allowed(stage: Stage) -> None:
    posted = stage.bus.post("work", "x")
    cancel = Step("control_task", lambda _: {"task": posted.id, "action": "cancel"})
    stage.speak(Step("list_channels"), cancel, Step(), is_asking=True)
    assert ["requires approval" in said for said in stage.offers[-1].results] == [False, True]
    assert stage.bus.get(posted.id).state is State.READY
    stage.speak(cancel, Step())
    assert stage.bus.get(posted.id).state is State.CANCELLED


@only("gemini-cli")
def test_gemini_cli_shows_no_tools_that_it_would_have_to_ask_about(stage: Stage) -> None:
    stage.speak(Step(), is_asking=True, marked_by="list_directory")
    assert stage.offers[0].number == 0


@only("qwen")
def test_qwen_code_calls_nothing_that_was_not_allowed(stage: Stage) -> None:
    stage.speak(Step("list_channels"), Step(), is_asking=True)
    (said,) = stage.offers[-1].results
    assert "requires permission" in said


@only("copilot")
def test_copilot_cli_calls_only_what_reads_unless_it_is_allowed(stage: Stage) -> None:
    post = Step("post_task", lambda _: {"channel": "work", "body": "x"})
    stage.speak(Step("list_channels"), post, Step(), is_asking=True)
    assert ["Permission denied" in said for said in stage.offers[-1].results] == [False, True]


@only("opencode")
def test_opencode_asks_about_nothing(stage: Stage) -> None:
    posted = stage.bus.post("work", "x")
    stage.speak(Step("control_task", lambda _: {"task": posted.id, "action": "cancel"}), Step(), is_asking=True)
    assert stage.bus.get(posted.id).state is State.CANCELLED


@only("claude-code")
@pytest.mark.parametrize("is_shown", [False, True])
def test_claude_code_hides_all_but_three_tools_unless_it_is_told_to_load_them(stage: Stage, *, is_shown: bool) -> None:
    stage.speak(Step(), told={"ENABLE_TOOL_SEARCH": "true"}, marked_by="post_task", is_shown=is_shown)
    shown = {name.removeprefix("mcp__bus__") for name in stage.offers[0].names if name.startswith("mcp__bus__")}
    assert shown == {tool.name for tool in TOOLS if tool.core or is_shown}


@only("qwen")
def test_qwen_code_hides_all_tools_unless_it_is_told_to_load_them(stage: Stage) -> None:
    stage.speak(Step(), marked_by="tool_search", is_shown=False)
    assert (stage.offers[0].number, "tool_search" in stage.offers[0].names) == (0, True)
