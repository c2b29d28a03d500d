"""A call for proposals over MCP: what its poster and its bidders are told at each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.support import desk, found

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio


async def test_a_call_is_bid_on_awarded_and_done(place: Path, era: str, bob: Bus) -> None:
    bob.create_channel("jobs", kind="topic")
    async with desk(place, era) as ann, desk(place, era, agent="eve") as eve:
        await eve.call("read_inbox", subscribe="jobs")
        text = await ann.call("post_task", channel="jobs", body="analyse the logs", options={"ttl_s": 60})
        call = found(r"^call for proposals (\w{8}) on topic jobs, open for 60 s\nnext: read_inbox brings bids", text)
        assert "no bids yet\n" in await ann.call("get_task", task=call)
        shown = await eve.call("read_inbox", ack=True)
        assert found(rf'^(open for \d+ s; to bid: send_message\(reply_to="{call}", type="bid"), body=', shown)
        assert "analyse the logs" in shown
        await eve.call("send_message", reply_to=call, type="bid", body={"eta_s": 60, "how": "grep"})
        assert found(r"^(0 of 1 ended)", await ann.call("await_results", tasks=[call]))
        assert f"{call} call for proposals, 1 bid, open for" in await ann.call("await_results", tasks=[call])
        listed = await ann.call("get_task", task=call)
        bid = found(r'^bid (\w{8}) of "eve": "\{\\"eta_s\\": 60, \\"how\\": \\"grep\\"\}"$', listed)
        assert listed.endswith(f'next: control_task(task="{bid}", action="award") for the best')
        await ann.call("control_task", task=bid, action="award")
        assert bob.claim() is None
        claim = await eve.claim()
        await eve.call("submit_result", **claim.mine, result="all is well")
        assert "all is well" in await ann.call("await_results", tasks=[call])
        told = await eve.call("read_inbox")
        assert '"event":"award"' in told
        assert '"won":true' in told


async def test_what_is_no_bid_is_not_awarded(place: Path, era: str, bob: Bus) -> None:
    task = bob.post("review", "x").id
    async with desk(place, era) as ann:
        assert "not a bid" in await ann.refused("control_task", task=task, action="award")
