"""Hosts that share skills: what one changed the others get, what both changed nobody loses."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_bus.skills.sync import Sync
from mcp_bus.skills.writing import Writer
from mcp_bus.stores.git.repo import Repo
from tests.git.hosts import git
from tests.skills.conftest import everything, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.skills.conftest import Host


def test_a_skill_goes_from_host_to_host_changes_and_goes(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    place = ann.put("greet", scripts__hi_sh="#!/bin/sh\n")
    (place / "scripts" / "hi.sh").chmod(0o755)
    (place / ".env").write_text("TOKEN=1")
    assert ann.sync() == "pushed greet\n"
    assert listed(remote) == {"greet/SKILL.md": "100644", "greet/scripts/hi.sh": "100755"}
    assert bob.sync() == "took greet\n"
    assert os.access(bob.skills / "greet" / "scripts" / "hi.sh", os.X_OK)
    assert ann.sync() == bob.sync() == "same greet\n"
    bob.put("greet", "more")
    bob.put("own")
    assert bob.sync() == "pushed greet\npushed own\n"
    said = git("--git-dir", str(remote), "log", "-2", "--format=%cn: %s", "main").splitlines()
    assert said == ["bob: skills: change greet, add own by bob", "ann: skills: add greet by ann"]
    assert ann.sync() == "took greet\ntook own\n"
    assert ann.text("greet") == "more"
    assert (place / ".env").read_text() == "TOKEN=1", "what is not shared stays"
    shutil.rmtree(bob.skills / "greet")
    assert bob.sync() == "removed greet: from the repository\nsame own\n"
    gone = ann.steps()["greet"]
    assert gone["step"] == "remove here"
    assert not place.exists()
    assert (Path(gone["kept"][0]) / "SKILL.md").read_text().endswith("more")
    assert ann.sync() == bob.sync() == "same own\n"


def test_what_both_changed_is_left_until_a_person_says_which_counts(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    for name in ("a", "b"):
        ann.put(name)
    ann.sync()
    bob.sync()
    for host in hosts:
        host.put("a", host.home.name)
        host.put("b", host.home.name)
    ann.sync()
    head = git("--git-dir", str(remote), "rev-parse", "main")
    bob.put("new")
    out, err = bob.run("skills", "sync", code=5)
    assert out == (
        "conflict a: changed here and in the repository\nconflict b: changed here and in the repository\npushed new\n"
    )
    assert f"next: mcp-bus skills sync --repo {remote} --take mine a, or --take theirs a" in err
    assert bob.text("a") == bob.text("b") == "bob"
    assert "a/" not in git("--git-dir", str(remote), "diff", "--name-only", head.strip(), "main")
    taken = bob.steps("--take", "mine", "a", "--take", "theirs", "b")
    assert (taken["a"]["step"], taken["b"]["step"]) == ("push", "take")
    assert (Path(taken["b"]["kept"][0]) / "SKILL.md").read_text().endswith("bob"), "what was not chosen is kept"
    ann.sync()
    assert [host.text(name) for host in hosts for name in "ab"] == ["bob", "ann"] * 2
    assert bob.run("skills", "sync", "--take", "mine", "nothing", code=3)[1].startswith("mcp-bus: there is no skill")
    assert "a side is mine or theirs" in bob.run("skills", "sync", "--take", "ours", "a", code=2)[1]


def test_a_push_that_comes_second_looks_again_and_decides_again(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync()
    bob.sync()
    bob.put("a", "bob")
    bob.put("b")
    ann.put("a", "ann")
    real, pushes = Repo.push, list[str]()

    def push(repo: Repo, commit: str, expected: str) -> None:
        pushes.append(expected)
        if len(pushes) == 1:  # While bob is about to push, ann does.
            ann.sync()
            bob.run("version")  # To be bob again.
        real(repo, commit, expected)

    monkeypatch.setattr(Repo, "push", push)
    steps = bob.steps(code=5)
    assert {name: item["step"] for name, item in steps.items()} == {"a": "conflict", "b": "push"}
    assert len(pushes) == 3
    assert pushes[0] == pushes[1] != pushes[2]
    assert bob.text("a") == "bob"
    assert ann.sync() == "same a\ntook b\n"


def test_a_remote_that_is_away_or_takes_nothing_changes_nothing(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync()
    bob.put("b")
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    before = everything(bob.home)
    assert "failed: [remote rejected] (pre-receive hook declined)\n" in bob.run("skills", "sync", code=1)[1]
    assert everything(bob.home) == before, "nothing is taken where nothing could be pushed"
    hook.unlink()
    remote.rename(remote.with_name("away"))
    assert "next: " in bob.run("skills", "sync", code=1)[1]
    assert everything(bob.home) == before
    remote.with_name("away").rename(remote)
    assert bob.sync("--dry-run") == "take a\npush b\n"
    assert everything(bob.home) == before
    assert list(listed(remote)) == ["a/SKILL.md"]


def test_a_branch_that_is_gone_or_was_meant_to_be_another_removes_nothing(
    hosts: tuple[Host, Host], remote: Path
) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync()
    git("--git-dir", str(remote), "branch", "-m", "main", "trunk")
    assert "is gone, which was there" in ann.run("skills", "sync", code=1)[1]
    assert "has no branch 'main', but 'trunk'" in bob.run("skills", "sync", code=3)[1]
    assert bob.sync("--repo", f"{remote}#trunk") == "took a\n"
    assert (ann.skills / "a" / "SKILL.md").exists()


def test_a_branch_that_was_rewritten_is_told_and_taken_by_what_is_in_it(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, _ = hosts
    ann.put("a")
    ann.sync()
    old = git("--git-dir", str(remote), "rev-parse", "main").strip()
    ann.put("a", "more")
    ann.sync()
    git("--git-dir", str(remote), "update-ref", "refs/heads/main", old)
    out, err = ann.run("skills", "sync")
    assert (out, "somebody rewrote the branch 'main'" in err) == ("took a\n", True)
    assert "rewrote" not in ann.run("skills", "sync")[1]


def test_a_skill_in_two_folders_is_one_if_they_agree_and_refused_if_not(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    place = ann.put("a")
    other = ann.home / ".codex" / "skills"
    shutil.copytree(place, other / "a")
    ann.sync()
    bob.put("a", "bob")
    bob.sync("--take", "mine", "a")
    assert ann.sync() == "took a\n"
    assert ann.text("a") == "bob"
    assert (other / "a" / "SKILL.md").read_bytes() == (place / "SKILL.md").read_bytes()
    ann.put("a", "ann")
    assert ann.sync(code=5) == f"conflict a: {place} and {other / 'a'} differ\n"
    assert git("--git-dir", str(remote), "log", "--format=%cn", "main").split() == ["bob", "ann"]


def test_a_folder_that_is_not_looked_at_removes_nothing_from_the_repository(
    hosts: tuple[Host, Host], remote: Path
) -> None:
    ann, _ = hosts
    ann.put("a")
    more = ann.home / "more"
    shutil.copytree(ann.skills, more)
    (more / "a").rename(more / "b")
    shutil.copytree(more / "b", more / "c")
    into = ("--into", str(ann.skills))
    assert ann.sync("--from", str(more), *into) == "pushed a\npushed b\npushed c\n"
    away = more.rename(ann.home / "away")
    assert f"skipped b: it was in '{more}'" in ann.sync(*into)
    ann.put("a", "new")
    assert ann.sync("--quiet", *into) == "pushed a\n", "a timer's mail says what was done"
    assert "there is no folder" in ann.run("skills", "sync", "--from", str(more), *into, code=3)[1]
    away.rename(more)
    shutil.rmtree(more / "b")
    assert ann.sync("--from", str(more), *into) == "same a\nremoved b: from the repository\nsame c\n"
    assert list(listed(remote)) == ["a/SKILL.md", "c/SKILL.md"]


def test_a_folder_that_lost_all_its_skills_at_once_removes_none_until_a_person_says_so(
    hosts: tuple[Host, Host], remote: Path
) -> None:
    ann, bob = hosts
    for name in ("a", "b", "c"):
        ann.put(name)
    ann.sync()
    away = ann.skills.rename(ann.home / "away")
    (ann.skills / ".system").mkdir(parents=True)  # As a client has it that was installed anew.
    lost = f"'{ann.skills}' had 3 skills and has none: nothing was removed"
    out, err = ann.run("skills", "sync")
    assert out.endswith(f"\nskipped a: {lost}\nskipped b: {lost}\nskipped c: {lost}\n")
    assert err.count(f"next: mcp-bus skills sync --repo {remote} --take mine a, or --take theirs a\n") == 1
    bob.put("d")
    assert bob.sync() == "took a\ntook b\ntook c\npushed d\n"
    assert {name: item["step"] for name, item in ann.steps("--take", "mine", "a").items()} == {
        "a": "remove there", "b": "skip", "c": "skip", "d": "take", ".system": "skip"
    }  # fmt: skip
    assert ann.text("d") == ""
    assert "skipped b: it went with all skills of" in ann.sync(), "also when there is one in that folder again"
    assert set(listed(remote)) == {"b/SKILL.md", "c/SKILL.md", "d/SKILL.md"}
    (away / "b").rename(ann.skills / "b")
    assert ann.steps("--take", "theirs", "c")["c"]["step"] == "take"
    shutil.rmtree(ann.skills / "b")
    assert ann.steps()["b"]["step"] == "remove there", "that one alone was removed"
    bob.sync()
    for host in hosts:
        for name in ("c", "d"):
            shutil.rmtree(host.skills / name)
    bob.sync("--take", "mine", "c", "--take", "mine", "d")
    assert list(ann.steps()) == [".system"], "what is gone on both sides is no question"


def test_a_file_that_changes_while_others_are_asked_is_not_written_over(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync()
    bob.put("a", "bob")
    real = Sync._pushed

    def pushed(sync: Sync, items: Sequence[Any], now: int) -> bool:
        bob.put("a", "typed just now")
        return real(sync, items, now)

    monkeypatch.setattr(Sync, "_pushed", pushed)
    assert bob.sync("--take", "theirs", "a", code=5) == "conflict a: it was changed here meanwhile\n"
    assert bob.text("a") == "typed just now"


def test_a_file_that_changes_after_the_last_look_is_not_written_over_either(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync()
    bob.sync()
    ann.put("a", "ann")
    ann.sync()
    real = Writer._change

    def change(writer: Writer, *args: Any) -> None:
        bob.put("a", "typed just now")
        real(writer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_change", change)
        assert bob.sync(code=5) == "conflict a: 'SKILL.md' was changed here meanwhile\n"
    assert bob.text("a") == "typed just now"
    assert bob.sync(code=5) == "conflict a: changed here and in the repository\n", "nothing was noted as the same"


def test_what_was_pushed_is_announced_to_everyone_and_without_a_bus_nothing_is(
    hosts: tuple[Host, Host], remote: Path
) -> None:
    ann, _ = hosts
    ann.put("a")
    assert "mcp-bus init" in ann.run("skills", "sync", "--announce", code=1)[1]
    there = ("--bus", f"git+{remote}")
    assert "there is no bus on the branch" in ann.run("skills", "sync", "--announce", *there, code=1)[1]
    assert git("--git-dir", str(remote), "branch") == ""
    ann.run("init")
    assert ann.run("skills", "sync", "--announce")[1].endswith("1 pushed; told everyone\n")
    assert json.loads(ann.sync("--announce", "--json"))["announced"] is None, "nothing was pushed"
    [letter] = json.loads(ann.run("--agent", "carl", "inbox", "--json")[0])["messages"]
    assert (letter["body"], letter["on"]) == ("pull latest skills: a changed", "broadcast")


def test_skills_here_are_listed_with_what_would_not_be_shared(hosts: tuple[Host, Host]) -> None:
    ann, _ = hosts
    place = ann.put("a", x_log="")
    (ann.skills / ".system").mkdir()
    found = json.loads(ann.run("skills", "list", "--json")[0])
    assert found["skills"] == [
        {
            "name": "a",
            "places": [str(place)],
            "description": "What a is for.",
            "left_out": {str(place / "x.log"): "it is of one host alone"},
        }
    ]
    assert list(found["skipped"]) == [".system"]
    out, err = ann.run("skills", "list")
    assert out.splitlines()[0] == f"a  {place}  What a is for."
    assert "x.log" in err
    assert "takes --from alone" in ann.run("skills", "list", "--dry-run", code=2)[1]


def test_a_timer_s_line_is_a_command_that_does_it(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, _ = hosts
    ann.put("a")
    line = ann.sync("--timer", "cron", "--every", "24h").strip()
    assert line.startswith("7 3 * * * ")
    words = shlex.split(line.partition("* * * ")[2])
    assert words[:3] == [sys.executable, "-m", "mcp_bus"]
    assert ann.run(*words[3:]) == ("pushed a\n", "")
    assert list(listed(remote)) == ["a/SKILL.md"]
    units = ann.sync("--timer", "systemd", "--every", "90s", "--announce")
    assert "enable --now mcp-bus-skills.timer" in units
    assert f'"{sys.executable}"' in units
    assert f'"--bus" "{ann.home / "bus"}" "skills" "sync"' in units


def test_what_was_last_the_same_must_be_readable(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, _ = hosts
    ann.put("a")
    ann.sync()
    [state] = (ann.home / ".local" / "state" / "mcp-bus" / "skills").glob("*.json")
    head = git("--git-dir", str(remote), "rev-parse", "main")
    shutil.rmtree(ann.skills / "a")
    for damage in (b"{", b'{"skills": {"a": 1}}', b'{"skills": {"a": {"files": {"x": [1]}, "sources": []}}}', b"[]"):
        state.write_bytes(damage)
        assert "next: remove it" in ann.run("skills", "sync", code=1)[1]
    assert git("--git-dir", str(remote), "rev-parse", "main") == head


def test_a_project_s_file_says_nothing_of_where_skills_go(hosts: tuple[Host, Host]) -> None:
    ann, _ = hosts
    (ann.home / "mcp-bus.toml").write_text('skills_repo = "elsewhere"')
    assert "which a project's file may not" in ann.run("skills", "sync", code=2)[1]
