"""What a session holds stays its own while it lives, is told truly, and comes back when it ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from mcp_bus.model import State
from tests.fakes import ERAS
from tests.server.raw import running, ticket
from tests.server.support import WAIT_S, claim_in, command, desk, environment, found, open_bus, tasks, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.server.raw import Raw

pytestmark = pytest.mark.anyio


def holder(bus: Bus, task: str) -> str:
    lease = tasks(bus)[task].slot.lease
    assert lease is not None
    return lease.holder


# What is told about what is held


async def test_what_is_held_already_comes_first_with_its_token(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        for _ in range(3):
            await ann.post()
        first, second = await ann.claim(), await ann.claim()
        third = await ann.call("claim_next")
        for place_in_text, claim in enumerate((first, second)):
            expected = f"you already hold {claim.task} token {claim.token} on review (attempt 1, lease 5 min)"
            assert third.splitlines()[place_in_text].startswith(expected)
        last = claim_in(third)
        assert last.task not in {first.task, second.task}
        empty = await ann.call("claim_next")
        assert empty.count("you already hold") == 3
        assert empty.endswith("next: submit what you hold first")


async def test_more_than_five_held_tasks_are_counted(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        for _ in range(8):
            await ann.post()
            await ann.claim()
        assert "\nand you hold 3 more\n" in await ann.call("claim_next")


@pytest.mark.parametrize("loss", ["cancel", "requeue", "done by itself"])
async def test_what_is_lost_is_not_said_to_be_held(place: Path, era: str, bob: Bus, loss: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        claim = await ann.claim()
        assert f"you hold it: token {claim.token}" in await ann.call("get_task", task=task)
        if loss == "done by itself":
            await ann.call("submit_result", **claim.mine, result="x")
        else:
            getattr(bob, loss)(task)
        shown = await ann.call("get_task", task=task)
        assert "you hold it" not in shown
        assert "do it and submit_result" not in shown
        assert "already hold" not in await ann.call("claim_next", channels=["elsewhere"])


async def test_a_heartbeat_tells_of_a_cancellation_and_of_a_loss_in_words(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        first = await ann.claim()
        bob.cancel(task)
        text = await ann.refused("heartbeat", **first.mine)
        assert "'ann' no longer holds" in text
        assert text.endswith("it is cancelled\nnext: it was cancelled: stop working on it, and claim the next task")
        bob.undo(task)
        second = await ann.claim()
        bob.requeue(task)
        taken = bob.claim()
        assert taken is not None
        for tool in ("heartbeat", "submit_result"):
            text = await ann.refused(tool, **second.mine)
            assert f"it is leased by '{taken.lease.holder}', attempt {taken.slot.attempt}" in text
            assert text.endswith("next: stop working on it, and claim the next task")
        assert bob.ack(taken, "bob's").content == "bob's"


async def test_two_sessions_in_one_checkout_are_two_holders(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era, agent="") as one, desk(place, era, agent="") as two:
        tasks_of = [await one.post(), await one.post()]
        first, second = await one.claim(), await two.claim()
        assert [first.task, second.task] == tasks_of
        assert holder(bob, first.task) != holder(bob, second.task)
        assert first.token not in await two.call("claim_next", channels=["elsewhere"])
        stranger = await two.call("get_task", task=first.task)
        assert "you hold it" not in stranger


# Leases


async def test_a_task_stays_leased_as_long_as_its_session_lives(place: Path, bob: Bus) -> None:
    bob.create_channel("quick", lease_s=1, max_lease_s=60)
    async with desk(place, "auto") as ann:
        # The session has nothing to renew at first, and must not sleep through the first lease.
        await ann.call("list_channels")
        task = await ann.post("quick")
        claim = await ann.claim()
        with anyio.move_on_after(2.6):
            await until(bob.claim, "never")
        assert tasks(bob)[task].slot[2:5] == (State.LEASED, 0, 1)
        await ann.call("submit_result", **claim.mine, result="long thought")


async def test_a_forgotten_task_is_renewed_up_to_a_limit_and_then_another_gets_it(place: Path, bob: Bus) -> None:
    bob.create_channel("quick", lease_s=1, max_lease_s=1.5, backoff_s=0)
    async with desk(place, "legacy") as ann:
        task = await ann.post("quick")
        claim = await ann.claim()
        took = await until(lambda: bob.claim() or bob.held(), "it was never given up", within=8)
        print(f"lapsed after {took:.1f} s")
        assert took > 1.9
        assert [(taken.id[-8:], taken.slot.attempt) for taken in bob.held()] == [(task, 2)]
        assert "already hold" not in await ann.call("claim_next", channels=["elsewhere"])
        assert "it is leased by 'bob~" in await ann.refused("submit_result", **claim.mine, result="late")


async def test_a_heartbeat_starts_the_limit_anew(place: Path, bob: Bus) -> None:
    bob.create_channel("quick", lease_s=1, max_lease_s=1)
    async with desk(place, "auto") as ann:
        task = await ann.post("quick")
        claim = await ann.claim()
        for _ in range(7):
            with anyio.move_on_after(0.5):
                await until(bob.claim, "never")
            await ann.call("heartbeat", **claim.mine)
        assert tasks(bob)[task].slot[2:5] == (State.LEASED, 0, 1)


def test_a_killed_server_loses_its_task_when_the_lease_lapses(place: Path) -> None:
    with open_bus(place) as bob:
        bob.create_channel("quick", lease_s=1, backoff_s=0)
        with running(place) as server:
            task = found(r"posted (\w{8})", server.call("post_task", channel="quick", body="x"))
            assert ticket(server.call("claim_next"))["task"] == task
            server.popen.send_signal(signal.SIGKILL)
            assert server.ends() == -signal.SIGKILL
        assert bob.claim() is None
        with running(place, "auto", agent="eve") as server:
            text = server.call("claim_next", wait_s=10)
    assert claim_in(text)[::2] == (task, 2)
    assert 'before: attempt 1 lapsed by "eve": "the lease of ann~' in text


# Ends


async def test_a_client_that_leaves_gives_everything_back(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        held = [await ann.post() for _ in range(3)]
        for _ in held:
            await ann.claim()
        done = await ann.post("other")
        await ann.call("submit_result", **(await ann.claim()).mine, result="kept")
        assert all(tasks(bob)[task].state is State.LEASED for task in held)
    assert [tasks(bob)[task].slot[2:5] for task in held] == [(State.READY, 0, 0)] * 3
    assert tasks(bob)[done].state is State.DONE
    assert tasks(bob)[held[0]].history[-1].note == "its session ended"


def leave_by_eof(server: Raw) -> None:
    server.stdin.close()


def leave_by_sigterm(server: Raw) -> None:
    server.popen.send_signal(signal.SIGTERM)


def leave_by_sigint(server: Raw) -> None:
    server.popen.send_signal(signal.SIGINT)


def leave_by_both(server: Raw) -> None:
    server.popen.send_signal(signal.SIGINT)
    server.popen.send_signal(signal.SIGTERM)
    server.stdin.close()


LEAVE = [leave_by_eof, leave_by_sigterm, leave_by_sigint, leave_by_both]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("leave", LEAVE, ids=lambda leave: leave.__name__)
def test_a_process_that_is_told_to_go_frees_its_tasks_and_exits_with_0(
    place: Path, era: str, leave: Callable[[Raw], None]
) -> None:
    """One task is held and one claim waits when the end comes."""
    with open_bus(place) as bob, running(place, era) as server:
        task = found(r"posted (\w{8})", server.call("post_task", channel="review", body="x"))
        assert ticket(server.call("claim_next"))["task"] == task
        server.start("waiting", "claim_next", wait_s=30)
        server.call("list_channels")
        leave(server)
        assert server.ends() == 0
        assert tasks(bob)[task].slot[2:5] == (State.READY, 0, 0)
        assert "Traceback" not in server.errors.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_server_starts_ends_it_without_a_word(place: Path, number: signal.Signals) -> None:
    """It comes while the server's modules are imported, at each of many moments."""
    code = (
        "import os, sys; from mcp_bus.cli import main, serve; count, at = [0], int(sys.argv.pop(1))\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        count[0] += name.startswith(('mcp.', 'mcp_bus.server.', 'anyio.'))\n"
        f"        if count[0] == at: count[0] += 1; os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder()); main.run()"
    )
    for at in (2, 5, 12, 40):
        argv = [sys.executable, "-c", code, str(at), *command(place)[3:]]
        done = subprocess.run(argv, input=b"", capture_output=True, env=environment(place), timeout=WAIT_S, check=False)
        assert (done.returncode, done.stdout) == (0, b""), (at, done)
        assert b"Traceback" not in done.stderr
    assert not (place / "bus").exists()


def test_a_task_posted_while_a_server_goes_is_not_lost(place: Path) -> None:
    """Whether the waiting claim or the end was first, the task is ready in the end."""
    for number in range(2):
        with open_bus(place) as bob, running(place) as server:
            server.start(1, "claim_next", wait_s=30)
            server.call("list_channels")
            task = bob.post("review", str(number)).id[-8:]
            leave_by_sigterm(server)
            assert server.ends() == 0
            assert tasks(bob)[task].slot[2:5] == (State.READY, 0, 0)
            bob.cancel(task)


def test_a_server_whose_bus_is_gone_still_leaves_cleanly(place: Path) -> None:
    with running(place) as server:
        server.call("post_task", channel="review", body="x")
        server.call("claim_next")
        shutil.rmtree(place / "bus")
        server.stdin.close()
        assert server.ends() == 0
    assert not (place / "bus").exists()
