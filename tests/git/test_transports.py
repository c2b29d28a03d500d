"""Servers that refuse, lie, break off or say nothing: it is told why, nobody is asked, and nothing is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import State
from mcp_bus.stores.git.repo import Repo
from tests.git.hosts import Hosts, store_of
from tests.git.servers import http, sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.git.servers import Sshd

CREDENTIALS = "check your credentials"


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A desktop whose programs would ask a person, who is not there."""
    asked, program = tmp_path / "asked", tmp_path / "askpass"
    program.write_text(f"#!/bin/sh\ntouch {asked}\nexec sleep 600\n")
    program.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(f"[core]\naskPass = {program}\n")
    names = ("SSH_ASKPASS", "GIT_ASKPASS")  # The second is set by editors, in their terminals.
    for name, value in (*((name, str(program)) for name in names), ("DISPLAY", ":0"), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    yield
    assert not asked.exists(), "somebody was asked"


@pytest.fixture
def server(hosts: Hosts) -> Iterator[Sshd]:
    with sshd(hosts.place / "sshd") as served:
        yield served


def refused(bus: Bus) -> StoreUnavailable:
    """Claim, which must fail; return why."""
    with pytest.raises(StoreUnavailable) as caught:
        bus.claim(["work"])
    return caught.value


@pytest.mark.usefixtures("nobody")
def test_ssh_that_knows_no_host_or_brings_a_wrong_key_is_told_and_nobody_is_asked(
    hosts: Hosts, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Hosts(hosts.place, server.address(hosts.remote))
    monkeypatch.setenv("GIT_SSH_COMMAND", server.command(known="unknown"))
    with pytest.raises(StoreUnavailable, match="Host key verification failed") as unknown:
        there.bus("one").store.ids()
    assert "`ssh HOST` shows its key" in (unknown.value.hint or "")
    monkeypatch.setenv("GIT_SSH_COMMAND", server.command(key="stranger"))
    with pytest.raises(StoreUnavailable, match="Permission denied") as stranger:
        there.bus("two").store.ids()
    assert CREDENTIALS in (stranger.value.hint or "")
    there.close()


def test_an_ssh_server_that_dies_lets_posts_wait_and_claims_be_refused_until_it_is_back(
    hosts: Hosts, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", server.command())
    there = Hosts(hosts.place, server.address(hosts.remote))
    ann = there.bus("one")
    server.stop()
    made = ann.post("work", "while it is away").id
    assert store_of(ann).away.unsent == 1
    assert "Connection refused" in str(refused(ann))
    assert hosts.bus("two").store.ids() == []
    server.start()
    store_of(ann).sync()
    assert hosts.bus("two").get(made).state is State.READY
    assert store_of(ann).away.unsent == 0
    there.close()


@pytest.mark.usefixtures("nobody")
def test_http_that_wants_credentials_or_lets_nobody_push_lets_posts_wait_and_says_why(hosts: Hosts) -> None:
    with http(hosts.place) as (served, where):
        there = Hosts(hosts.place / "there", f"{where}/remote.git")
        ann, two = there.bus("one"), hosts.bus("two")
        for mode, said in (("who are you", "could not read Username"), ("read only", "403")):
            before = two.store.ids()
            served.mode = mode
            waits = ann.post("work", mode).id
            away = store_of(ann).away
            assert (away.unsent, said in away.trouble) == (1, True), away.trouble
            error = refused(ann)
            assert said in str(error)
            assert CREDENTIALS in (error.hint or "")
            assert two.store.ids() == before
            served.mode = "honest"
            store_of(ann).sync()
            assert two.store.ids() == [*before, waits]
        there.close()


LIES = {
    "elsewhere": r"'?file'?.* (?:not supported|disabled)",
    "page": "does not speak git's protocol",
    "page of lines": "not valid: is this a git repository",
    "garbage": "protocol error: bad line length",
}


def test_what_is_no_git_at_that_address_is_no_branch_that_lost_what_it_had(hosts: Hosts) -> None:
    with http(hosts.place) as (served, where):
        repo = Repo(hosts.place / "lies.git", f"{where}/remote.git", "mcp-bus", environment=os.environ)
        head = repo.fetch("")
        assert head
        for mode, said in LIES.items():
            served.mode = mode
            with pytest.raises(StoreUnavailable, match=said):
                repo.fetch(head)
        served.mode = "silent"
        repo = Repo(repo.folder, repo.remote, "mcp-bus", environment=os.environ, timeout_s=0.3)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 s"):
            repo.fetch(head)
        served.mode = "honest"
        assert repo.fetch(head) == head


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("userinfo", ["s3cret", "me:'s3cret"], ids=["as the user", "with a quote"])
def test_a_password_in_an_address_is_never_shown(hosts: Hosts, userinfo: str) -> None:
    with http(hosts.place) as (served, where):
        there = Hosts(hosts.place / "there", f"{where.replace('://', f'://{userinfo}@')}/remote.git")
        ann = there.bus("one")
        served.mode = "who are you"
        ann.post("work", "x")
        error, away = refused(ann), store_of(ann).away
        for said in (str(error), error.hint or "", away.trouble, away.address, repr(error)):
            assert "s3cret" not in said
        assert "://***@127" in away.address
        there.close()
