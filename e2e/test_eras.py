"""What a model gets of the bus, in each revision of the protocol its client speaks: how much, and in what words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from e2e import heard
from e2e.clients import ALL, MODERN
from e2e.heard import ticket
from e2e.model import Step
from mcp_bus import State
from mcp_bus.server.app import instructions
from mcp_bus.server.tools import TOOLS

if TYPE_CHECKING:
    from e2e.conftest import Stage

pytestmark = pytest.mark.timeout(600)
ERAS = [pytest.param(client, era, id=f"{client.name}-{era}") for client in ALL for era in client.eras]
# What each puts around what the server has said, and nothing else.
AROUND = {
    "codex": r"Wall time: [\d.]+ seconds\nOutput:\n(.*)",
    "gemini-cli": r"<untrusted_context>\n(.*)\n</untrusted_context>",
}
UNTOLD = {"copilot"}
each = pytest.mark.parametrize("installed", ALL, indirect=True, ids=lambda client: client.name)
LONG = "0123456789abcde\n" * 4000


def inner(stage: Stage, result: str) -> str:
    """Return what is left of a tool's answer without what the client puts around it."""
    found = re.fullmatch(AROUND.get(stage.client.name, "(.*)"), result, re.DOTALL)
    assert found, result
    return found[1]


@pytest.mark.parametrize(("installed", "era"), ERAS, indirect=["installed"])
def test_a_model_posts_claims_and_submits_in_the_era_within_its_bytes(
    stage: Stage, era: str, record_property: Any
) -> None:
    client = stage.client
    stage.speak(
        Step("post_task", lambda _: {"channel": "work", "body": "paint it", "title": "paint"}),
        Step("claim_next", lambda _: {"channels": ["work"]}),
        Step("submit_result", lambda said: ticket(said) | {"result": "painted"}),
        Step(),
        told=client.eras[era],
    )
    offer = stage.offers[0]
    record_property("measured", [era, offer.number, offer.size])
    (slot,) = stage.bus.store.scan("work", State.DONE)
    task = stage.bus.get(slot.id)
    assert task.result
    assert (task.body.content, task.result.content, task.result.sender.agent) == ("paint it", "painted", "worker")
    assert heard.eras(stage.record) == {era}
    assert heard.asked(stage.record, "server/discover" if era == MODERN else "initialize")
    assert offer.number == len(TOOLS)
    assert [later.size for later in stage.offers] == [offer.size] * 4, "nothing makes its cache go cold"
    assert offer.size <= client.most


@each
def test_a_model_reads_what_the_server_said_word_for_word_also_the_longest_answer(stage: Stage) -> None:
    posted = stage.bus.post("work", LONG)
    stage.speak(Step("get_task", lambda _: {"task": posted.id}), Step("list_channels"), Step())
    said = [inner(stage, result) for result in stage.offers[-1].results]
    assert said == heard.answers(stage.record)
    assert 7000 < len(said[0]) <= 8000
    assert f'get_task(task="{posted.id[-8:]}", offset=' in said[0], "it is told how to read on"


@each
def test_whether_a_model_reads_the_server_s_instructions(stage: Stage) -> None:
    stage.speak(Step())
    mine = instructions([tool.name for tool in TOOLS])
    sent = stage.seen[0] + "".join(one.get("description", "") for one in stage.offers[0].ours)
    assert (mine in sent) == (stage.client.name not in UNTOLD)
