"""Repositories, addresses and settings that want to lead git, or a bus, astray: nothing runs, nothing is followed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus
from mcp_bus.errors import BusError, CorruptRecord, InvalidRequest, StoreUnavailable, Untrusted
from mcp_bus.model import State
from mcp_bus.stores import layout
from mcp_bus.stores.git import place
from tests.crash.victim import IS_SOAK
from tests.git.hosts import Hosts, bare, git, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ADDRESSES = (
    "ext::sh -c 'touch pwned'", "--upload-pack=touch pwned", "-oProxyCommand=touch pwned", "fd::3", "git+ssh://-x/y",
    "ssh://-oProxyCommand=touch/x", "file://-x", "testgit::x", "", "http://a b/c", "x://y",
    "a\nb",
)  # fmt: skip
BRANCHES = ("-x", "a..b", "a.lock", "a b", "a:b", "refs/../x", "x//y", "a~1", "a^", "@{-1}", "x/", "*")


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_that_would_run_something_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        place.address(f"git+{text}", tmp_path)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_that_git_would_read_as_something_else_is_refused(branch: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no name for a branch"):
        place.address(f"git+file:///x#{branch}", tmp_path)


def test_addresses_that_are_meant(tmp_path: Path) -> None:
    for text in (
        "ssh://git@host:22/x.git",
        "git@host.example:me/bus.git",
        "https://host/x",
        "file:///srv/x",
        "git://h/x",
    ):
        assert str(place.address(f"git+{text}", tmp_path)) == f"git+{text}"
    assert place.address("git+there#other", tmp_path) == (str(tmp_path / "there"), "other")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that is there once anything was executed."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), path.read_text()


def read(path: Path) -> bytes:
    """Return a file's bytes; empty if it is gone."""
    with suppress(OSError):
        return path.read_bytes()
    return b""


def worktree(hosts: Hosts) -> Path:
    """Return a checkout of the bus, as someone who may push makes it."""
    there = hosts.place / "evil"
    git("clone", "--quiet", "--branch", "mcp-bus", hosts.remote, str(there))
    for name, value in (("user.email", "e@e"), ("user.name", "e"), ("core.hooksPath", "/dev/null")):
        git("config", name, value, where=there)
    return there


def pushed(there: Path) -> None:
    git("add", "-A", where=there)
    git("commit", "--quiet", "-m", "evil", where=there)
    git("push", "--quiet", "origin", "mcp-bus", where=there)


def test_links_submodules_attributes_and_hooks_in_the_tree_are_files_at_most(hosts: Hosts, marker: Path) -> None:
    secret = hosts.place / "secret"
    secret.write_text('{"id": "x"}')
    ann = hosts.bus("one")
    task = ann.post("work", "honest").id
    there = worktree(hosts)
    requests = there / "channels" / "work" / "requests"
    (requests / f"{'req_' + '0' * 32}.json").symlink_to(secret)
    (there / "channels" / "linked").symlink_to(hosts.place)
    (there / ".gitattributes").write_text("* filter=evil\n")
    (there / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch {marker}"\n')
    (there / "hooks").mkdir()
    for name in ("post-checkout", "pre-push", "reference-transaction"):
        (there / "hooks" / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (there / "hooks" / name).chmod(0o755)
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module", where=there)
    (requests / "--upload-pack=x").write_text("{}")
    (requests / 'a\nb\tc"d\\.json').write_text("{}")
    pushed(there)
    bob = hosts.bus("two", "bob")
    assert bob.store.channels() == ["work"]
    found = bob.claim(["work"])
    assert found is not None
    assert found.id == task
    assert bob.claim(["work"]) is None
    bob.store.mend(bob.source.now())
    bob.ack(found, "done")
    assert bob.get(task).state is State.DONE
    assert secret.read_text() == '{"id": "x"}'


SETTINGS = {
    "core.autocrlf": "true",
    "core.fsmonitor": "touch {0}",
    "core.hooksPath": "{1}",
    "commit.gpgSign": "true",
    "core.attributesFile": "{1}/attributes",
    "filter.evil.clean": "touch {0}",
    "fetch.recurseSubmodules": "true",
    "push.followTags": "true",
    "init.templateDir": "{1}",
    "core.pager": "touch {0}",
    "push.gpgSign": "true",
    "push.pushOption": "x",
    "i18n.logOutputEncoding": "utf-16",
    "i18n.commitEncoding": "latin1",
    "log.showSignature": "true",
    "diff.external": "touch {0}",
    "core.quotePath": "false",
    "core.logAllRefUpdates": "always",
}


# All of them at once, and in a soak each by itself.
ALONE = [{name: value} for name, value in SETTINGS.items()] if IS_SOAK else []


@pytest.mark.parametrize("chosen", [SETTINGS, *ALONE], ids=lambda chosen: "all" if len(chosen) > 1 else min(chosen))
def test_the_user_s_own_settings_change_nothing_that_is_pushed(
    hosts: Hosts, marker: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    hooks = hosts.place / "hooks"
    (hooks / "hooks").mkdir(parents=True)
    for place_of in (hooks, hooks / "hooks"):
        for hook in ("pre-push", "pre-commit", "post-checkout", "pre-auto-gc"):
            (place_of / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
            (place_of / hook).chmod(0o755)
    (hooks / "attributes").write_text("* filter=evil text eol=crlf\n")
    settings = hosts.place / "gitconfig"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    for name, value in chosen.items():
        git("config", "--file", str(settings), name, value.format(marker, hooks))
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    body = "one\ntwo\r\nthree\n"
    task = ann.post("work", body)
    got = bob.claim(["work"])
    assert got is not None
    assert (got.id, got.body.content) == (task.id, body)
    bob.ack(got, body)
    result = ann.get(task.id).result
    assert result is not None
    assert result.content == body
    repo = store_of(ann).repo
    assert any(f"done {task.id[-8:]}" in line for line in repo.told("", repo.seen()[0]))
    assert repo.made(repo.seen()[0]) > 0


def test_a_remote_that_hangs_is_given_up(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    from mcp_bus.stores.git.repo import Repo

    repo = Repo(hosts.place / "hang.git", "ssh://host.invalid/x", "mcp-bus", timeout_s=0.5, environment=os.environ)
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.5 s"):
        repo.fetch("")
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(ssh).encode() in read(path)]
    assert left == [], "what it started was ended"


def test_a_branch_that_holds_something_else_is_left_as_it_is(disk: Path) -> None:
    remote = bare(disk / "other.git")
    there = disk / "work"
    git("init", "--quiet", "-b", "mcp-bus", str(there))
    (there / "README.md").write_text("mine")
    for words in (
        ("add", "-A"),
        ("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "mine"),
        ("push", "-q", remote, "mcp-bus"),
    ):
        git(*words, where=there)
    hosts = Hosts(disk, remote)
    head = git("--git-dir", remote, "rev-parse", "mcp-bus")
    with pytest.raises(BusError, match=r"not a bus"):
        hosts.bus("one")
    assert git("--git-dir", remote, "rev-parse", "mcp-bus") == head
    hosts.close()


def test_a_remote_that_lets_nobody_write_says_so_and_nothing_is_claimed(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    task = ann.post("work", "x").id
    hook = Path(hosts.remote) / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    hook.chmod(0o755)
    bob = hosts.bus("two", "bob")
    with pytest.raises(StoreUnavailable, match=r"not today|declined"):
        bob.claim(["work"])
    hook.unlink()
    assert ann.get(task).state is State.READY
    assert [path.name for path in (Path(hosts.remote) / "refs" / "heads").iterdir()] == ["mcp-bus"]


@pytest.mark.parametrize("how", ["the default directory", "a directory that its settings name"])
def test_a_project_cannot_say_that_its_directory_stands_for_a_bus_at_a_remote(disk: Path, how: str) -> None:
    project, seen = disk / "project", disk / "executed"
    folder = project / (".mcp-bus" if how == "the default directory" else "thebus")
    folder.mkdir(parents=True)
    git("init", "--quiet", str(project))
    if folder.name == "thebus":
        (project / "mcp-bus.toml").write_text('bus = "thebus"\n')
    git("init", "--quiet", "--bare", "--template=", str(folder / "repo.git"))
    git("config", "core.sshCommand", f"touch {seen}; false", where=folder / "repo.git")
    (folder / "git.json").write_text('{"remote": "ssh://localhost/x.git", "branch": "mcp-bus"}')
    home = {"HOME": str(disk / "home"), "PATH": os.environ["PATH"]}
    for verb in (["status"], ["post", "work", "x"], ["doctor"], ["fsck"], ["sync"]):
        words = [sys.executable, "-m", "mcp_bus", *verb]
        done = subprocess.run(
            words, cwd=project, env=home | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0, verb
        assert "is no folder for such" in done.stderr + done.stdout, verb
    assert not seen.exists()


def test_a_file_that_somebody_puts_into_a_bus_of_files_sends_nobody_to_a_remote(disk: Path) -> None:
    layout.create(disk / "bus")
    (disk / "bus" / "git.json").write_text(f'{{"remote": "{disk}/evil.git", "branch": "mcp-bus"}}')
    with pytest.raises(Untrusted, match="is no folder for such"):
        open_bus(disk / "bus", agent="ann")


def test_a_part_that_no_longer_says_of_which_bus_it_is_becomes_no_bus_of_files(
    hosts: Hosts, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(disk / "data"))
    with open_bus(f"git+{hosts.remote}", agent="ann"):
        pass
    [part] = (disk / "data" / "mcp-bus" / "git").iterdir()
    with open_bus(part, agent="ann") as bus:
        assert bus.store.away is not None, "the directory names the bus as well"
    (part / "git.json").unlink()
    with pytest.raises(StoreUnavailable, match=r"its git\.json is gone"):
        open_bus(part, agent="ann")
    with open_bus(f"git+{hosts.remote}", agent="ann") as bus:
        bus.post("work", "x")
    assert (part / "git.json").exists()


@pytest.mark.parametrize("name", ["tmp", "staged", "journal", "tmp/x"])
def test_what_lies_in_the_branch_where_a_host_keeps_its_own_is_in_nobodys_way(
    hosts: Hosts, disk: Path, name: str
) -> None:
    there = disk / "evil"
    git("clone", "--quiet", "--branch", "mcp-bus", hosts.remote, str(there))
    for setting in ("user.email", "user.name"):
        git("config", setting, "e", where=there)
    (there / name).parent.mkdir(exist_ok=True)
    (there / name).write_text("in the way")
    pushed(there)
    ann = hosts.bus("one")
    task = ann.post("work", "x").id
    claimed = ann.claim(["work"])
    assert claimed is not None
    ann.ack(claimed, "done")
    assert hosts.bus("two", "bob").get(task).state is State.DONE


def test_a_damaged_file_that_says_which_bus_it_is_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "git.json").write_text("{")
    with pytest.raises(CorruptRecord, match=r"git\.json of .* cannot be read") as refused:
        place.read(tmp_path)
    assert "--bus git+REMOTE" in (refused.value.hint or "")
