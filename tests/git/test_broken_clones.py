"""A clone that lost something is made anew: no wrong answer, nothing that waits is lost, and no rollback is missed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import StoreUnavailable, Untrusted
from mcp_bus.stores.git import renewing
from mcp_bus.stores.git.repo import SEEN, STALE_MS, TROUBLE
from tests.crash.victim import IS_SOAK
from tests.git.hosts import Hosts, git, store_of, store_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.stores.git.calls import Damaged
    from mcp_bus.stores.git.repo import Repo

BODY = "what is to be done"


def packs(clone: Path, kind: str = "pack") -> list[Path]:
    return sorted((clone / "objects" / "pack").glob(f"*.{kind}"))


def cut(paths: list[Path], size: int) -> None:
    for path in paths:
        path.chmod(0o600)
        os.truncate(path, size)


def flip(clone: Path) -> None:
    """Change a byte in the middle of each pack, as a bad disk does."""
    for path in packs(clone):
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)


def collected(clone: Path) -> None:
    git("--git-dir", str(clone), "gc", "--quiet", "--prune=now")


def emptied(clone: Path) -> None:
    shutil.rmtree(clone)
    clone.mkdir()


# What is done to a clone.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "a pack is gone": lambda clone: packs(clone)[0].unlink(),
    "all packs are gone": lambda clone: shutil.rmtree(clone / "objects" / "pack"),
    "packs are cut off": lambda clone: cut(packs(clone), 100),
    "packs are empty": lambda clone: cut(packs(clone), 0),
    "indexes are empty": lambda clone: cut(packs(clone, "idx"), 0),
    "packs have another byte": flip,
    "what was seen is empty": lambda clone: (clone / SEEN).write_text(""),
    "what was seen is no commit": lambda clone: (clone / SEEN).write_text("what\n"),
    "HEAD is gone": lambda clone: (clone / "HEAD").unlink(),
    "HEAD is empty": lambda clone: (clone / "HEAD").write_text(""),
    "objects are gone": lambda clone: shutil.rmtree(clone / "objects"),
    "refs are gone": lambda clone: shutil.rmtree(clone / "refs"),
    "its settings are no settings": lambda clone: (clone / "config").write_text("[core\n"),
    "it is gone": shutil.rmtree,
    "it is an empty folder": emptied,
    "it is shallow": lambda clone: (clone / "shallow").write_text((clone / SEEN).read_text()),
    "it was collected": collected,
}
# All of them in a soak.
CHOSEN = ("a pack is gone", "packs are empty", "packs have another byte", "what was seen is empty", "it is shallow",
          "its settings are no settings", "it is gone")  # fmt: skip


def test_whatever_a_clone_lost_the_next_process_answers_as_before(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    first = ann.post("work", BODY).id
    away = Path(f"{hosts.remote}.away")
    Path(hosts.remote).rename(away)
    waits = ann.post("work", "waits").id
    away.rename(hosts.remote)
    (hosts.place / "one" / "repo.git" / TROUBLE).unlink()  # So that the remote is asked at once.
    hosts.bus("two", "bob").post("work", "meanwhile")
    ann.store.close()
    for number, (name, damage) in enumerate(DAMAGES.items() if IS_SOAK else ((name, DAMAGES[name]) for name in CHOSEN)):
        here = hosts.place / f"host{number}"
        shutil.copytree(hosts.place / "one", here)
        damage(here / "repo.git")
        store = store_on(here, hosts.remote)
        task = store.get(first)
        assert task is not None, name
        assert task.body.content == BODY, name
        assert len(store.ids()) == 3, name
        assert waits in store.ids(), f"{name}: what waits is beside the clone"
        head = git("--git-dir", hosts.remote, "rev-parse", "mcp-bus").strip()
        assert store.repo.seen()[0] == head, name
        assert [path.name for path in here.glob("repo.git*")] == ["repo.git"], f"{name}: nothing is left over"
        store.close()


def test_processes_that_are_open_go_on_and_one_of_them_makes_it_anew(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = hosts.bus("maker").post("work", BODY).id
    ann, bob = hosts.bus("one"), hosts.bus("one", "bob")
    made, real = list[Path](), renewing.renew

    def renew(repo: Repo, damage: Damaged) -> None:
        made.append(repo.folder)
        real(repo, damage)

    monkeypatch.setattr(renewing, "renew", renew)
    cut(packs(hosts.place / "one" / "repo.git"), 0)
    claimed = ann.claim(["work"])
    assert claimed is not None
    assert (claimed.id, claimed.body.content) == (task, BODY)
    assert bob.get(task).body.content == BODY
    bob.post("work", "and on")
    assert len(made) == 1, "the other one took what the first had made"
    assert len(hosts.bus("two").store.ids()) == 2


def test_without_the_remote_a_damaged_clone_is_told_as_one_and_nothing_is_invented(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    kept = ann.post("work", BODY).id
    away = Path(f"{hosts.remote}.away")
    Path(hosts.remote).rename(away)
    cut(packs(hosts.place / "one" / "repo.git"), 0)
    before = packs(hosts.place / "one" / "repo.git")
    with pytest.raises(StoreUnavailable, match=r"this host's clone is damaged .* cannot be fetched anew"):
        hosts.bus("one", "another")
    assert ann.get(kept).body.content == BODY, "who had it read has it"
    assert packs(hosts.place / "one" / "repo.git") == before
    assert [path.name for path in (hosts.place / "one").glob("repo.git*")] == ["repo.git"]
    away.rename(hosts.remote)
    assert hosts.bus("one", "x").get(kept).body.content == BODY


def test_a_branch_that_was_rolled_back_is_found_out_by_a_clone_that_was_made_anew(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    old = git("--git-dir", hosts.remote, "rev-parse", "mcp-bus").strip()
    ann.post("work", BODY)
    cut(packs(hosts.place / "one" / "repo.git"), 0)
    git("--git-dir", hosts.remote, "update-ref", "refs/heads/mcp-bus", old)
    for _ in range(2):
        with pytest.raises(Untrusted, match="lost"):
            hosts.bus("one", "bob")
    assert store_of(ann).repo.forget()
    assert hosts.bus("one", "bob").store.ids() == []


def test_a_lock_of_a_git_that_was_killed_goes_and_a_fresh_one_stays(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    lock = hosts.place / "one" / "repo.git" / f"{SEEN}.lock"
    lock.touch()
    ann.post("work", "while it is held")
    assert lock.exists()
    then = ann.source.now() / 1000 - STALE_MS / 1000 - 1
    os.utime(lock, (then, then))
    ann.post("work", "afterwards")
    assert not lock.exists()
    assert store_of(ann).repo.seen()[0] == git("--git-dir", hosts.remote, "rev-parse", "mcp-bus").strip()


def test_what_was_seen_is_not_forgotten_by_halves(hosts: Hosts) -> None:
    repo = store_of(hosts.bus("one")).repo
    seen = repo.seen()[0]
    git("--git-dir", str(repo.folder), "pack-refs", "--all")
    git("--git-dir", str(repo.folder), "config", "core.packedRefsTimeout", "0")
    lock = repo.folder / "packed-refs.lock"
    lock.touch()
    with pytest.raises(StoreUnavailable, match="is locked"):
        repo.forget()
    assert repo.seen()[0] == seen
    lock.unlink()
    assert repo.forget() == seen
    assert repo.seen()[0] == ""
