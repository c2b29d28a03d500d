"""Agents of two hosts work on a bus at a git remote through their own servers, in both eras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mcp_bus.model import State
from tests.git.hosts import store_of
from tests.server.support import WAIT_S, claim_in, desk, open_bus, process, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.git.hosts import Hosts

pytestmark = pytest.mark.anyio


def flags(hosts: Hosts, agent: str, **more: Any) -> dict[str, Any]:
    return {"bus": f"git+{hosts.remote}", "agent": agent, "git_fresh_s": 0.05, **more}


def home(hosts: Hosts, name: str) -> Path:
    (hosts.place / name).mkdir(exist_ok=True)
    return hosts.place / name


async def test_a_task_goes_there_and_its_result_comes_back(hosts: Hosts, era: str) -> None:
    async with (
        desk(home(hosts, "one"), era, **flags(hosts, "ann")) as ann,
        desk(home(hosts, "two"), era, **flags(hosts, "bob")) as bob,
    ):
        posted = await ann.call("post_task", channel="review", body="look at app.py")
        assert "not sent yet" not in posted
        claim = claim_in(await bob.call("claim_next", channels=["review"]))
        done = await bob.call("submit_result", task=claim.task, token=claim.token, result="looks good")
        assert "its result is at the git remote" in done
        assert "\nlooks good\n" in await ann.call("await_results", tasks=[claim.task], wait_s=WAIT_S / 2)
        shown = await ann.call("get_task", task=claim.task)
        for answer in (
            posted,
            shown,
            await ann.call("list_channels"),
            await bob.call("claim_next", channels=["review"]),
        ):
            assert "\nsynchronized with the git remote 0 s ago\nnext: " in answer


async def test_who_waits_on_one_host_gets_what_is_posted_on_another(hosts: Hosts, era: str) -> None:
    async with (
        desk(home(hosts, "one"), era, **flags(hosts, "ann")) as ann,
        desk(home(hosts, "two"), era, **flags(hosts, "bob", wait_s=WAIT_S / 2)) as bob,
    ):
        told: list[str] = []

        async def waits() -> None:
            told.append(await bob.call("claim_next", channels=["work"]))

        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            await ann.call("post_task", channel="work", body="now")
        assert claim_in(told[0]).task


async def test_without_the_remote_a_post_says_that_it_is_not_sent(hosts: Hosts, era: str) -> None:
    async with desk(home(hosts, "one"), era, **flags(hosts, "ann")) as ann:
        await ann.call("list_channels")
        away = hosts.place / "away.git"
        (hosts.place / "remote.git").rename(away)
        assert "not sent yet: the git remote does not answer" in await ann.call("post_task", channel="work", body="x")
        assert "1 post not sent yet; it does not answer" in await ann.call("list_channels")
        away.rename(hosts.place / "remote.git")
    with open_bus(hosts.place / "one", **flags(hosts, "ann")) as later:
        store_of(later).sync()
    assert len(hosts.bus("two").store.ids()) == 1


async def test_a_claim_without_the_remote_is_called_tentative(hosts: Hosts, era: str) -> None:
    async with desk(home(hosts, "one"), era, **flags(hosts, "ann", git_tentative=True)) as ann:
        await ann.call("post_task", channel="work", body="x")
        (hosts.place / "remote.git").rename(hosts.place / "away.git")
        claimed = await ann.call("claim_next", channels=["work"])
        assert "\nTENTATIVE: the git remote does not answer, and decides later" in claimed
        claim = claim_in(claimed)
        refused = await ann.refused("submit_result", task=claim.task, token=claim.token, result="y")
        assert "does not appear to be a git repository" in refused
        (hosts.place / "away.git").rename(hosts.place / "remote.git")
    assert hosts.bus("two", "bob").get(claim.task).state is not State.LEASED


async def test_a_server_of_its_own_process_serves_the_remote(hosts: Hosts) -> None:
    place = home(hosts, "one")
    made = process(place, MCP_BUS_GIT_FRESH_S="0.05")
    words = [f"git+{hosts.remote}" if word == str(place / "bus") else word for word in made.args]
    async with serving(made.model_copy(update={"args": words}), "auto") as ann:
        posted = await ann.call("post_task", channel="work", body="from a process")
        assert "posted" in posted
    task = hosts.bus("two", "bob").claim(["work"])
    assert task is not None
    assert task.body.content == "from a process"
