"""A branch that is another one by now, or a repository of another kind: refused with the reason, or it works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import BusError, StoreUnavailable, Untrusted
from mcp_bus.model import State
from tests.crash.victim import IS_SOAK
from tests.git.hosts import Hosts, git, store_of, store_on

if TYPE_CHECKING:
    from collections.abc import Callable

REF = "refs/heads/mcp-bus"


def head(remote: str) -> str:
    return git("--git-dir", remote, "for-each-ref", "--format=%(objectname)", REF).strip()


def orphan(remote: str) -> None:
    """Replace the branch by a commit with the same files and nothing before it."""
    who = ("-c", "user.name=e", "-c", "user.email=e@e")
    made = git("--git-dir", remote, *who, "commit-tree", "-m", "anew", f"{REF}^{{tree}}").strip()
    git("--git-dir", remote, "update-ref", REF, made)


def deleted(remote: str) -> None:
    git("--git-dir", remote, "update-ref", "-d", REF)


def made_anew(remote: str) -> None:
    deleted(remote)
    new_bus(remote)


def another(remote: str, algorithm: str = "sha1") -> None:
    """Put another repository with another bus at the same address."""
    shutil.rmtree(remote)
    git("init", "--quiet", "--bare", f"--object-format={algorithm}", remote)
    new_bus(remote)


def of_other_names(remote: str) -> None:
    another(remote, "sha256")


def new_bus(remote: str) -> None:
    place = Path(remote).with_name("second-maker")
    store = store_on(place, remote)
    store.create()
    store.declare("work")
    store.close()
    shutil.rmtree(place)


# In a soak also what differs from these in little.
MOVED = (orphan, of_other_names, *((deleted, made_anew, another) if IS_SOAK else ()))


@pytest.mark.parametrize("moved", MOVED)
def test_a_branch_without_what_it_had_is_refused_until_a_person_takes_it(
    hosts: Hosts, moved: Callable[[str], None]
) -> None:
    ann = hosts.bus("one")
    ann.post("work", "before")
    moved(hosts.remote)
    then = head(hosts.remote)
    for verb in (lambda: ann.claim(["work"]), lambda: ann.post("work", "x"), lambda: hosts.bus("one", "bob")):
        with pytest.raises(Untrusted, match="lost"):
            verb()
    assert head(hosts.remote) == then, "nothing was pushed"
    assert list((hosts.place / "one").glob("unsent/*.json")) == [], "nor promised"
    assert store_of(ann).repo.forget()
    if moved is not deleted:
        later = hosts.bus("one", "later")
        task = later.post("work", "after").id
        assert hosts.bus("new", "carl").get(task).state is State.READY


def test_a_remote_that_is_shallow_and_takes_nothing_back_serves_hosts_that_know_it_and_new_ones(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    known = ann.post("work", "known").id
    full = f"{hosts.remote}.full"
    shutil.move(hosts.remote, full)
    git("clone", "--quiet", "--bare", "--depth=1", "--branch=mcp-bus", f"file://{full}", hosts.remote)
    for name in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        git("--git-dir", hosts.remote, "config", name, "true")
    new = hosts.bus("two", "bob")
    claimed = new.claim(["work"])
    assert claimed is not None
    new.ack(claimed, "done")
    assert ann.get(known).state is State.DONE
    assert ann.post("work", "goes on").id in hosts.bus("three").store.ids()


def test_a_branch_that_moves_while_it_is_fetched_is_taken_as_it_is_then(hosts: Hosts) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    repo = store_of(ann).repo
    real, made = repo.ask, list[str]()

    def ask() -> str:
        found = real()
        if not made:
            made.append(bob.post("work", "between").id)
        return found

    bob.post("work", "first")
    repo.ask = ask  # type: ignore[method-assign]  # as a test does
    assert len(ann.store.ids()) == 2
    assert made[0] in ann.store.ids()
    assert repo.seen()[0] == head(hosts.remote)


def test_a_protected_branch_lets_posts_wait_and_shows_what_its_keeper_says(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    before = head(hosts.remote)
    hook = Path(hosts.remote) / "hooks" / "pre-receive"
    asked = hook.with_name("asked")
    hook.write_text(f"#!/bin/sh\necho x >> '{asked}'\necho '[rejected] ask the people of the release' >&2\nexit 1\n")
    hook.chmod(0o755)
    waits = ann.post("work", "x").id
    assert asked.read_text() == "x\n", "it was no push that came second, whatever a hook says"
    assert "ask the people of the release" in store_of(ann).away.trouble
    assert store_of(ann).away.unsent == 1
    with pytest.raises(StoreUnavailable, match="ask the people") as caught:
        ann.claim(["work"])
    assert "who may push" in (caught.value.hint or "")
    assert head(hosts.remote) == before
    hook.unlink()
    store_of(ann).sync()
    assert hosts.bus("two").store.ids() == [waits]


def test_a_repository_that_lost_objects_is_told_as_the_remote_s(hosts: Hosts) -> None:
    hosts.bus("one").post("work", "x")
    for path in (Path(hosts.remote) / "objects").glob("??/*"):
        path.unlink()
    with pytest.raises(BusError) as caught:
        hosts.bus("two").store.ids()
    assert hosts.remote in str(caught.value)
    assert "look at that repository" in (caught.value.hint or "")
    assert "clone is damaged" not in str(caught.value)
