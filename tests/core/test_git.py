"""What git's files say about a directory is what git says, whatever state they are in."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from mcp_bus.identity import git, session

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on PATH")
LIMIT = 30


def run(cwd: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *names, *words], cwd=cwd, env=env, check=True, capture_output=True, text=True, timeout=LIMIT
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "app"
    path.mkdir()
    run(path, "init", "-q")
    run(path, "commit", "-q", "--allow-empty", "-m", "first")
    return path


def read(path: Path) -> git.Checkout:
    found = git.find(path)
    assert found is not None
    return found


def test_a_checkout_is_found_from_below_with_its_branch(repo: Path) -> None:
    below = repo / "src" / "deep"
    below.mkdir(parents=True)
    assert read(below) == git.Checkout(repo, (repo / ".git").resolve(), is_worktree=False, branch="main", remote="")
    assert read(repo).home == repo.resolve()
    run(repo, "checkout", "-q", "-b", "feature/ünicode-1")
    assert read(below).branch == run(repo, "rev-parse", "--abbrev-ref", "HEAD") == "feature/ünicode-1"


def test_before_the_first_commit_there_is_a_branch_already(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "-b", "trunk")
    assert read(tmp_path).branch == "trunk"


def test_detached_is_head_as_git_calls_it(repo: Path) -> None:
    run(repo, "checkout", "-q", "--detach")
    assert read(repo).branch == run(repo, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


def test_a_linked_worktree_is_told_apart_and_shares_the_home(repo: Path, tmp_path: Path) -> None:
    run(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    linked, main = read(tmp_path / "side"), read(repo)
    assert (linked.is_worktree, linked.branch, linked.top) == (True, "side", tmp_path / "side")
    assert not main.is_worktree
    assert linked.home == main.home
    assert linked.common == main.common


def test_worktrees_of_a_bare_repository_share_it_as_their_home(repo: Path, tmp_path: Path) -> None:
    bare = tmp_path / "app.git"
    run(tmp_path, "clone", "-q", "--bare", str(repo), str(bare))
    run(bare, "worktree", "add", "-q", str(tmp_path / "w1"), "main")
    run(bare, "worktree", "add", "-q", "-b", "other", str(tmp_path / "w2"))
    one, two = read(tmp_path / "w1"), read(tmp_path / "w2")
    assert one.home == two.home == bare.resolve()
    assert one.is_worktree
    assert (one.branch, two.branch) == ("main", "other")
    assert one.remote == "local/app"


def test_a_submodule_has_a_remote_of_its_own(repo: Path, tmp_path: Path) -> None:
    run(tmp_path, "clone", "-q", str(repo), str(tmp_path / "lib"))
    run(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
    found = read(repo / "lib")
    assert (found.top, found.is_worktree, found.remote) == (repo / "lib", False, "local/lib")


REMOTES = {
    "git@example.org:acme/app.git": "example.org/acme/app",
    "example.org:acme/app.git": "example.org/acme/app",
    "https://example.org/acme/app.git": "example.org/acme/app",
    "https://example.org/acme/app/": "example.org/acme/app",
    "https://Example.ORG/acme/App": "example.org/acme/App",
    "https://ann:s3cr:t@example.org/acme/app.git": "example.org/acme/app",
    "https://token@example.org:8443/acme/app.git": "example.org/acme/app",
    "https://ann:p@ss@example.org/acme/app": "example.org/acme/app",
    "https://example.org/acme/app.git?access=secret": "example.org/acme/app",
    "ssh://git@example.org:2222/acme/app.git": "example.org/acme/app",
    "ssh://git@example.org/~ann/app.git": "example.org/~ann/app",
    "git+ssh://git@example.org/acme/app": "example.org/acme/app",
    "git://example.org/acme/app.git": "example.org/acme/app",
    "file:///srv/git/app.git": "local/app",
    "/srv/git/app.git": "local/app",
    "../app.git/": "local/app",
    "./x:y/app": "local/app",
}


@pytest.mark.parametrize("remote", REMOTES)
def test_a_remote_is_host_owner_and_name_without_credentials_and_ports(repo: Path, remote: str) -> None:
    run(repo, "remote", "add", "upstream", "https://elsewhere.example/x/y")
    run(repo, "remote", "add", "origin", remote)
    assert read(repo).remote == REMOTES[remote]
    for secret in ("s3cr", "token", "p@ss", "secret", "8443", "2222"):
        assert secret not in session.context(repo)


def test_only_the_origin_s_own_address_counts(repo: Path) -> None:
    run(repo, "remote", "add", "origin", "https://example.org/acme/app")
    run(repo, "config", "remote.origin.pushurl", "https://example.org/push/app")
    run(repo, "config", "branch.main.remote", "origin")
    with (repo / ".git" / "config").open("a") as config:
        config.write('[remote "origin2"]\n\turl = https://example.org/two/app\n[url "x"]\n\tinsteadOf = y\n')
    assert read(repo).remote == "example.org/acme/app"


def test_outside_of_git_there_is_no_checkout(tmp_path: Path) -> None:
    assert git.find(tmp_path) is None
    assert session.context(tmp_path) == f"local/{tmp_path.name}"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"gitdir",
        b"gitdir:",
        b"gitdir: nowhere",
        b"gitdir: \0",
        b"gitdir: .git",
        b"gitdir: ../loop",
        b"\xff\xfe",
        b"x" * 9999,
    ],
    ids=lambda damage: ascii(damage)[:20],
)
def test_a_damaged_git_file_is_no_checkout_and_no_error(tmp_path: Path, damage: bytes) -> None:
    place = tmp_path / "w"
    place.mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (place / ".git").write_bytes(damage)
    assert git.find(place) is None
    assert session.context(place) == "local/w"


@pytest.mark.parametrize("name", ["HEAD", "config"])
@pytest.mark.parametrize("damage", [None, b"", b"\xff\0\xff", b'[remote "origin"\nurl', b"ref: \n", b"a" * 100_000])
def test_damaged_git_files_are_never_an_error(repo: Path, name: str, damage: bytes | None) -> None:
    path = repo / ".git" / name
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    made = session.identify(repo, session="1", pid=1)
    assert made.agent.startswith("local/app")
    assert len(made.agent) <= 160


@pytest.mark.parametrize("name", ["HEAD", "config", "commondir"])
@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_git_files_that_never_answer_or_never_end_are_passed_over(repo: Path, name: str, kind: str) -> None:
    path = repo / ".git" / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert session.context(repo) == ("local/app" if name == "HEAD" else "local/app/main")


def test_a_git_file_that_is_a_fifo_is_no_checkout(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    assert git.find(tmp_path) is None


def test_git_files_that_are_links_to_files_are_read_as_git_does(repo: Path) -> None:
    run(repo, "remote", "add", "origin", "https://example.org/acme/app")
    (repo / ".git" / "config").rename(repo.parent / "shared")
    (repo / ".git" / "config").symlink_to(repo.parent / "shared")
    assert read(repo).remote == "example.org/acme/app"


def test_a_git_that_is_a_loop_or_a_folder_of_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".git").symlink_to(".git")
    assert git.find(tmp_path) is None
    (tmp_path / ".git").unlink()
    (tmp_path / ".git").mkdir()
    assert git.find(tmp_path) is None
