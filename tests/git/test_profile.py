"""The user's profile between hosts: one commit a revision, the push decides, and nobody writes over the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import userprofile
from mcp_bus.errors import Conflict, StoreUnavailable
from tests.git.hosts import git, store_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.git.hosts import Hosts


def test_of_two_hosts_that_merged_at_the_same_moment_one_writes(hosts: Hosts) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    userprofile.write(ann, "- likes tea", base=0)
    assert userprofile.read(bob).revision == 1
    real = store_of(bob).repo.push

    def push(commit: str, expected: str) -> None:
        store_of(bob).repo.push = real  # type: ignore[method-assign]  # only the first one comes second
        userprofile.write(ann, "- likes green tea", base=1)
        real(commit, expected)

    store_of(bob).repo.push = push  # type: ignore[method-assign]  # as above
    with pytest.raises(Conflict, match="revision 2, written by ann, and not at 1"):
        userprofile.write(bob, "- likes coffee", base=1)
    assert userprofile.read(ann).text == userprofile.read(bob).text == "- likes green tea\n"
    remote = ("--git-dir", hosts.remote)
    assert git(*remote, "show", "mcp-bus:user-sync/USER.md") == "- likes green tea\n"
    told = git(*remote, "log", "--format=%s", "mcp-bus").splitlines()
    assert told[:2] == ["profile: revision 2 by ann", "profile: revision 1 by ann"], "the text and its copy at once"


def test_without_the_remote_it_is_not_written_and_what_a_host_has_stays_here(hosts: Hosts, disk: Path) -> None:
    ann = hosts.bus("one")
    made = userprofile.write(ann, "- likes tea", base=0)
    userprofile.note(ann, "host:USER.md", made)
    assert userprofile.is_of(ann, "host:USER.md", made)
    assert "user-sync.hosts" not in git("--git-dir", hosts.remote, "ls-tree", "--name-only", "mcp-bus")
    (disk / "remote.git").rename(disk / "away.git")
    with pytest.raises(StoreUnavailable):
        userprofile.write(ann, "- likes green tea", base=1)
    assert userprofile.read(ann).text == "- likes tea\n"
