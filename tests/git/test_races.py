"""Claims raced for by clones of several hosts: the push decides, whatever is killed on the way."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import BusError
from mcp_bus.model import State
from tests.crash.victim import IS_SOAK, ended, fork
from tests.git.hosts import Hosts, bus_on, dies_at_push, git, store_of
from tests.tally import KILLS, TASKS, tried

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S = 3600.0
KILLS_OF_EACH = 20 if IS_SOAK else 2
RACERS = 3


def noted(path: Path) -> list[tuple[str, str]]:
    """Return what a worker wrote down: each claim it was given, with its token."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(task, token) for task, _, token in (line.partition(" ") for line in lines) if token]


def racer(place: Path, remote: str, log: Path, seed: int, victim: int) -> None:
    """Claim until nothing is left, noting each claim, and finish some; at push number `victim` it is killed."""
    chance = random.Random(seed)  # noqa: S311  a test's
    bus = bus_on(place, remote, f"w{seed}")
    if victim >= 0:
        dies_at_push(store_of(bus).repo, victim, late=victim % 2 == 0)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while (task := bus.claim(["work"], lease_s=LONG_S)) is not None:
        os.write(fd, f"{task.id} {task.lease.token}\n".encode())
        if chance.random() < 0.3:
            bus.ack(task, "done")
    bus.close()


def owners(remote: str) -> Iterator[tuple[str, str]]:
    """Yield each task that was ever claimed, and the token under which it is held or was done, as git shows it."""
    for path in git("--git-dir", remote, "ls-tree", "-r", "--name-only", "mcp-bus").splitlines():
        name = path.rpartition("/")[2]
        if "/processing/" in path and name != ".gitkeep":
            yield name.split(".")[0], name.split(".")[-3]
        if name.endswith("_request.json"):
            yield name.split(".")[0], name.removesuffix("_request.json").split(".")[-1]


@pytest.mark.timeout(7200 if IS_SOAK else 120)
@pytest.mark.parametrize("clones", [1, 2, 3])
def test_each_task_has_one_owner_though_clones_race_and_are_killed(hosts: Hosts, clones: int) -> None:
    tasks, chance = 400 if IS_SOAK else 18, random.Random(clones)  # noqa: S311  a test's
    with_posts = hosts.bus("poster")
    posted = {with_posts.post("work", f"do {n}").id for n in range(tasks)}
    logs, killed = list[Path](), 0
    for wave in range(50):
        pids = list[int]()
        for number in range(RACERS):  # Where clones are fewer, processes of one host share one.
            host, seed = number % clones, wave * 10 + number
            logs.append(hosts.place / f"log-{seed}")
            victim = chance.randrange(4) if wave < KILLS_OF_EACH else -1
            pids.append(fork(partial(racer, hosts.place / f"host{host}", hosts.remote, logs[-1], seed, victim)))
        codes = [ended(pid) for pid in pids]
        killed += codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, -signal.SIGKILL}, codes
        if wave >= KILLS_OF_EACH and -signal.SIGKILL not in codes:
            break
    assert killed >= clones, "hardly anybody was killed"
    held = list(owners(hosts.remote))
    claims = [claim for log in logs for claim in noted(log)]
    assert len({task for task, _ in held}) == len(held) == tasks, "none was lost, none has two owners"
    assert {task for task, _ in held} == posted
    assert len({task for task, _ in claims}) == len(claims), "nobody else was told that it has a task"
    assert set(claims) <= set(held), "who was told that it has a task has it"
    tried(TASKS, tasks)
    tried(KILLS, killed)


@pytest.mark.parametrize("late", [False, True], ids=["before the push", "after the push"])
def test_a_claim_that_was_not_pushed_is_none_and_one_that_was_is(hosts: Hosts, *, late: bool) -> None:
    poster = hosts.bus("poster")
    task = poster.post("work", "x").id

    def claims() -> None:
        bus = hosts.bus("host", "victim")
        dies_at_push(store_of(bus).repo, 0, late=late)
        bus.claim(["work"], lease_s=LONG_S)

    assert ended(fork(claims)) == -signal.SIGKILL
    assert poster.get(task).state is (State.LEASED if late else State.READY)
    other = hosts.bus("host", "other")  # The same clone: what was left in it is in nobody's way.
    found = other.claim(["work"])
    assert (found is None) == late
    if late:
        assert poster.get(task).lease.holder == "victim~00000001"


@pytest.mark.parametrize("late", [False, True], ids=["before the push", "after the push"])
def test_a_keyed_post_that_was_killed_and_repeated_is_one_task(hosts: Hosts, *, late: bool) -> None:
    def posts() -> None:
        bus = hosts.bus("host")
        dies_at_push(store_of(bus).repo, 0, late=late)
        bus.post("work", "x", key="k")

    assert ended(fork(posts)) == -signal.SIGKILL
    bus = hosts.bus("host")
    made = bus.post("work", "x", key="k")
    assert made.created is not late
    assert bus.store.ids() == [made.id]


def test_whoever_is_always_second_is_told_so_and_changes_nothing(hosts: Hosts) -> None:
    slow, fast = hosts.bus("slow"), hosts.bus("fast")
    repo = store_of(slow).repo
    real = repo.push

    def push(commit: str, expected: str) -> None:
        fast.post("work", "first")
        real(commit, expected)

    repo.push = push  # type: ignore[method-assign]  # as a test does
    with pytest.raises(BusError, match="moved on"):
        slow.post("work", "second")
    repo.push = real  # type: ignore[method-assign]  # as a test does
    assert {slow.get(task).body.content for task in slow.store.ids()} == {"first"}
    assert slow.post("work", "second").created


def test_many_commits_are_put_together_and_nothing_is_forgotten(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("one", "bob")
    made = {ann.post("work", f"do {n}").id for n in range(6)}
    packs = hosts.place / "one" / "repo.git" / "objects" / "pack"
    before = len(list(packs.glob("*.pack")))
    monkeypatch.setattr("mcp_bus.stores.git.repo.PACKS", 3)
    assert "here: put the packs of the clone together" in ann.store.mend(ann.source.now())
    assert len(list(packs.glob("*.pack"))) < before
    assert set(bob.store.ids()) == made
    assert store_of(ann).away.asked > 0
    assert bob.claim(["work"]) is not None
