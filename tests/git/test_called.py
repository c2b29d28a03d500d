"""What git is told, shown and believed: addresses without passwords, nothing of the user's that stands in the way."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import CorruptRecord, InvalidRequest, StoreUnavailable
from mcp_bus.stores.git import calls, hardened, place
from mcp_bus.stores.git.place import Address, shown
from mcp_bus.stores.git.repo import UNMOVED, Repo
from tests.git.hosts import Hosts, git, store_of, store_on

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = {
    "https://ghp_s3cret@host/x.git": "https://***@host/x.git",
    "https://me:s3cret@host": "https://***@host",
    "https://me:s3@c'r\"et@host:8/x@y": "https://***@host:8/x@y",
    "git+HTTP://me:s3 cret@host/x": "git+HTTP://***@host/x",
    "said of 'http://me:s3cret@a/x' and 'http://b/x'": "said of 'http://***@a/x' and 'http://b/x'",
    "ssh://git@host:22/x": "ssh://git@host:22/x",
    "git+ssh://git:s3cret@host/x": "git+ssh://git:***@host/x",
    "git@host:me/x": "git@host:me/x",
    "file:///srv/x@y": "file:///srv/x@y",
}
REFUSED = ("ftp://me:s3cret@host/x", "http://me:s3 cret@host/x", "http://s3cret@host/x#a..b", "http://me:x#s3cret@h/x")


@pytest.mark.parametrize("text", SHOWN)
def test_of_an_address_all_is_shown_but_what_lets_somebody_in(text: str) -> None:
    assert shown(text) == SHOWN[text]


@pytest.mark.parametrize("text", REFUSED)
def test_an_address_that_is_refused_is_shown_without_its_password(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        place.address(f"git+{text}", tmp_path)
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_the_folder_of_an_address_has_no_password_in_its_name_and_keeps_the_name_it_had() -> None:
    assert Address("http://me:s3cret@127.0.0.1:9").folder.startswith("127.0.0.1-9-")
    assert Address("https://me:s3cret@host/me/bus.git").folder == "bus-99b20e1daecd"
    assert Address("git@host:bus.git").folder.startswith("git-host-bus-")


def test_a_directory_that_stands_for_an_address_goes_on_doing_so(tmp_path: Path) -> None:
    place.note(tmp_path, Address("/srv/one"))
    place.note(tmp_path, Address("/srv/two", "other"))
    assert place.read(tmp_path) == Address("/srv/one")


def test_no_program_that_asks_for_a_password_is_kept_unless_it_answers_by_itself() -> None:
    given = {"GIT_ASKPASS": "code", "SSH_ASKPASS": "kde"}
    assert hardened.environment(given)["GIT_ASKPASS"] == ""
    assert "SSH_ASKPASS" not in hardened.environment(given)
    kept = hardened.environment(given | {"SSH_ASKPASS_REQUIRE": "force"})
    assert given.items() <= kept.items()


def test_hooks_in_the_clone_are_not_run(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    marker, hooks = hosts.place / "executed", store_of(ann).repo.folder / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "reference-transaction", "post-commit", "pre-auto-gc", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> '{marker}'\n")
        (hooks / name).chmod(0o755)
    task = ann.post("work", "x").id
    assert hosts.bus("two", "bob").claim(["work"]) is not None
    assert ann.get(task).lease is not None, "it was fetched"
    assert not marker.exists(), marker.read_text()


def test_an_address_that_the_user_s_settings_make_a_command_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, settings = tmp_path / "executed", tmp_path / "gitconfig"
    git("config", "--file", str(settings), f"url.ext::sh -c touch% {marker} .insteadOf", "https://meant.invalid/")
    git("config", "--file", str(settings), "protocol.ext.allow", "always")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    repo = Repo(tmp_path / "repo.git", "https://meant.invalid/x", "mcp-bus", environment=os.environ)
    with pytest.raises(StoreUnavailable, match="'ext' not allowed"):
        repo.fetch("")
    assert not marker.exists()


def test_a_damaged_file_of_the_user_s_is_named_and_the_clone_stays(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = store_of(hosts.bus("one")).repo.folder
    before, settings = clone.stat().st_ino, hosts.place / "gitconfig"
    settings.write_text("[core\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    for host in ("one", "new"):
        with pytest.raises(StoreUnavailable, match=str(settings)) as caught:
            hosts.bus(host).store.ids()
        assert "mend that file" in caught.value.hint
        assert "clone is damaged" not in str(caught.value)
    assert clone.stat().st_ino == before


def test_a_push_that_is_refused_though_nobody_was_faster_is_told_as_git_tells_it(hosts: Hosts) -> None:
    refs = git("--git-dir", hosts.remote, "for-each-ref")
    store = store_on(hosts.place / "x", hosts.remote, branch="mcp-bus/x")
    real, pushed = store.repo.push, list[str]()

    def push(commit: str, expected: str) -> None:
        pushed.append(commit)
        real(commit, expected)

    store.repo.push = push  # type: ignore[method-assign]  # to count them
    with pytest.raises(StoreUnavailable, match="'refs/heads/mcp-bus' exists; cannot create") as caught:
        store.create()
    assert "name another one" in caught.value.hint
    assert len(pushed) == UNMOVED
    assert git("--git-dir", hosts.remote, "for-each-ref") == refs
    store.close()


def grow(remote: str, names: int) -> None:
    """Let the branch have so many names more, as somebody who may push there can in a moment."""

    def made(*words: str, given: str) -> str:
        there = ["git", "--git-dir", remote]
        return subprocess.run([*there, *words], input=given, check=True, capture_output=True, text=True).stdout.strip()

    blob = made("hash-object", "-w", "--stdin", given="x")
    tree = made("mktree", given="".join(f"100644 blob {blob}\t{number}\n" for number in range(names)))
    top = made("mktree", given=git("--git-dir", remote, "ls-tree", "mcp-bus") + f"040000 tree {tree}\tzz\n")
    who = ("-c", "user.name=e", "-c", "user.email=e@e")
    commit = made(*who, "commit-tree", top, "-p", "mcp-bus", given="x")
    git("--git-dir", remote, "update-ref", "refs/heads/mcp-bus", commit)


def test_a_tree_with_more_names_than_a_bus_has_is_refused_by_who_knew_it_and_by_who_is_new(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = hosts.bus("one")
    task = ann.post("work", "x").id
    monkeypatch.setattr(calls, "NAMES", 100)
    assert hosts.bus("two").store.ids() == [task]
    grow(hosts.remote, 101)
    with pytest.raises(CorruptRecord, match="more than 100 names"):
        ann.store.ids()
    with pytest.raises(CorruptRecord, match="more than 100 names"):
        hosts.bus("three")
    monkeypatch.setattr(calls, "NAMES", 1000)
    assert ann.store.ids() == [task]
    monkeypatch.setattr(calls, "NAMES_BYTES", 1000)
    with pytest.raises(CorruptRecord, match="more than 1000 names, or"):
        hosts.bus("three")
