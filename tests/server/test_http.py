"""Over HTTP the bus is what it is over stdio, for those who have the token, and for nobody else."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from mcp_bus.model import State
from mcp_bus.server import http as serving
from mcp_bus.server import sessions
from tests.server.hearing import hearing
from tests.server.http_process import JSON, TOKEN, hello, reaching, serving_http
from tests.server.support import WAIT_S, environment, open_bus, settings, snapshot, tasks, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.server.http_process import Http

pytestmark = pytest.mark.anyio


# What agents do


async def test_agents_hand_work_to_each_other_each_under_the_name_of_its_address(
    http: Http, place: Path, era: str
) -> None:
    async with http.desk(era, "ann") as ann, http.desk(era, "carl") as carl:
        task = await ann.post("review", "look at it")
        claim = await carl.claim("review")
        assert claim.task == task
        await carl.call("submit_result", **claim.mine, result="seen")
        assert "seen" in await ann.call("await_results", tasks=[task], wait_s=10)
    with open_bus(place) as bus:
        done = tasks(bus)[task]
        assert done.body.sender.agent == "ann"
        assert done.result is not None
        assert done.result.sender.agent == "carl"


async def test_clients_at_one_address_do_not_hold_each_others_tasks(http: Http, era: str) -> None:
    async with http.desk(era, client="first") as first, http.desk(era, client="second") as second:
        task = await first.post()
        claim = await first.claim()
        assert claim.task == task
        assert "already hold" not in await second.call("claim_next")
        assert f"you already hold {task} token {claim.token}" in await first.call("claim_next")


async def test_an_agent_without_an_address_of_its_own_is_called_as_over_stdio(
    http: Http, place: Path, era: str
) -> None:
    async with http.desk(era, client="Some Client") as client:
        task = await client.post()
    with open_bus(place) as bus:
        assert tasks(bus)[task].body.sender.agent == f"local/{place.name}+some-client"


async def test_a_client_is_told_that_a_resource_changed(http: Http, bob: Bus, era: str) -> None:
    bob.create_channel("review")
    uri = "bus://channels/review/inbox"
    async with http.transport("ann") as transport, hearing(transport, era, uri) as (_, ear):
        for number in range(2):
            bob.post("review", "more")
            assert (await ear.until(number + 1))[number] == uri


# How it ends


async def test_a_goodbye_gives_back_what_is_held(http: Http, bob: Bus) -> None:
    async with http.desk("legacy", "ann") as ann:
        task = await ann.post()
        await ann.claim()
        assert tasks(bob)[task].state is State.LEASED
    await until(lambda: tasks(bob)[task].state is State.READY, "the session ended, and the task was not given back")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_gives_back_what_is_held_and_ends_waiting_calls(
    http: Http, bob: Bus, era: str, number: signal.Signals
) -> None:
    held, cut_off = anyio.Event(), anyio.Event()

    async def work() -> None:
        with suppress(Exception):  # Whatever the SDK's client makes of a server that has gone.
            async with http.desk(era, "ann") as ann:
                await ann.post()
                await ann.claim()
                held.set()
                try:
                    await ann.call("claim_next", wait_s=30)
                finally:
                    cut_off.set()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        with anyio.fail_after(WAIT_S):
            await held.wait()
        (task,) = tasks(bob).values()
        assert task.state is State.LEASED
        http.popen.send_signal(number)
        assert await anyio.to_thread.run_sync(http.popen.wait, WAIT_S) == 0
        assert bob.get(task.id).state is State.READY
        assert [seen.presence.agent for seen in bob.roster.all() if seen.presence.ended] == ["ann"]
        with anyio.fail_after(WAIT_S):
            await cut_off.wait()
        group.cancel_scope.cancel()


async def test_a_caller_that_hangs_up_while_it_waits_takes_no_task(http: Http, bob: Bus, era: str) -> None:
    async with http.desk(era, "ann") as ann:
        with anyio.move_on_after(0.5):
            await ann.call("claim_next", wait_s=30)
        for _ in range(2):  # What comes after the end of a connection is seen after it.
            await ann.call("list_channels")
        task = bob.post("review", "look").id
        assert "1 ready" in await ann.call("list_channels")
        assert bob.get(task).state is State.READY


async def test_what_was_claimed_for_a_caller_that_had_just_hung_up_is_shown_in_its_next_call(
    http: Http, bob: Bus, era: str
) -> None:
    async with http.desk(era, "ann") as ann:
        with anyio.move_on_after(0.5):
            await ann.call("claim_next", wait_s=30)
        task = bob.post("review", "look").id
        answer = await ann.call("claim_next", wait_s=1)
        assert task[-8:] in answer
        assert bob.get(task).lease.token in answer


@pytest.mark.parametrize(("era", "state"), [("legacy", State.LEASED), ("auto", State.READY)])
async def test_who_listens_is_not_silent(
    place: Path, bob: Bus, monkeypatch: pytest.MonkeyPatch, era: str, state: State
) -> None:
    looks = 0

    def end_idle(many: sessions.Many, real: Callable[[sessions.Many], None] = sessions.Many.end_idle) -> None:
        nonlocal looks
        looks += 1
        real(many)

    async def looked(times: int) -> None:
        before = looks
        await until(lambda: looks >= before + times, "nobody looks")

    monkeypatch.setattr(sessions.Many, "end_idle", end_idle)
    monkeypatch.setattr(sessions, "IDLE_S", 0.0)
    monkeypatch.setattr(sessions, "LOOK_S", 0.05)
    server, ready = serving.listen(0), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(serving.serve, settings(place), TOKEN, server, ready=ready.set))
        await ready.wait()
        async with reaching(serving.address(server), era) as ann:
            task = await ann.post()
            await looked(2)  # What listens may be open before there is a session, and longer than one.
            await ann.call("claim_next", channels=["review"])
            await looked(4)
            assert tasks(bob)[task].state is state
        group.cancel_scope.cancel()


async def test_sessions_differ_also_where_the_settings_name_one(place: Path, era: str) -> None:
    with serving_http(place, MCP_BUS_SESSION="one") as server:
        async with server.desk(era, "ann", client="first") as first, server.desk(era, "ann", client="second") as second:
            task = await first.post()
            await first.claim()
            assert "already hold" not in await second.call("claim_next")
            assert "already hold" in await first.call("claim_next")
            assert task


# The command


def _serve(place: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcp_bus", "serve", "--bus", str(place / "bus"), *options],
        capture_output=True, text=True, timeout=WAIT_S, check=False, env=environment(place, **variables), cwd=place,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_port_that_is_taken_is_said_to_be(http: Http, place: Path) -> None:
    done = _serve(place, "--http", str(http.port), "--token-file", str(place / "token"))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{http.port}" in done.stderr
    assert "name another port" in done.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "x", "0.5", "127.0.0.1:80", "²"])
def test_what_is_no_port_is_refused(place: Path, port: str) -> None:
    done = _serve(place, f"--http={port}")
    assert done.returncode == 2
    assert "is no port" in done.stderr


def test_options_that_do_not_go_together_are_refused(place: Path) -> None:
    assert _serve(place, "--token-file", "x").returncode == 2
    done = _serve(place, "--http", "0", MCP_BUS_CLAUDE_CHANNEL="1")
    assert done.returncode == 2
    assert "channels need a server of its own" in done.stderr
    assert not list(place.iterdir())


def test_it_says_where_it_is_for_programs_too(place: Path) -> None:
    with serving_http(place) as server:
        assert "the token is in" in (place / "http-stderr").read_text()
        assert TOKEN not in (place / "http-stderr").read_text()
        assert server.raw(body=hello(), headers=JSON).status == 200
    assert snapshot(place) == {} or (place / "bus").exists()
