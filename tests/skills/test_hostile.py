"""Repositories that want to lead a host astray: the skill is refused, with a reason, and the others go on."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from mcp_bus.skills import filters, there
from tests.git.hosts import git
from tests.skills.conftest import TEXT, everything

if TYPE_CHECKING:
    from pathlib import Path

    from tests.skills.conftest import Host

OID = "1" * 40
# Mode and path of what is beside a skill's SKILL.md, and what is said.
ENTRIES = (
    ("120000", "x/link", "is a link or a submodule"),
    ("160000", "x/module", "is a link or a submodule"),
    ("120000", "x", "is a link or a submodule"),
    ("160000", "x", "is a link or a submodule"),
    ("100600", "x/odd", "is a link or a submodule"),
    ("100644", "x/../../.bashrc", "leads elsewhere"),
    ("100644", "x//etc/passwd", "leads elsewhere"),
    ("100644", "x/a\\..\\b", "leads elsewhere"),
    ("100644", "x/.env/../../.bashrc", "leads elsewhere"),
    ("100644", "x/a\x1b[2J", "characters that do not show"),
    ("100644", "x/a\nb", "characters that do not show"),
    ("100644", "x/\udcff", "characters that do not show"),
    ("100644", "x/skill.MD", "are one name on some disks"),
)


@pytest.mark.parametrize(("mode", "path", "why"), ENTRIES)
def test_an_entry_that_leads_astray_refuses_its_skill_alone(mode: str, path: str, why: str) -> None:
    fine = [("100644", OID, "fine/SKILL.md"), ("100755", OID, "fine/run")]
    found = there.tree([*fine, ("100644", OID, "x/SKILL.md"), (mode, OID, path)])
    assert list(found.skills) == ["fine"]
    assert list(found.skipped) == ["x"]
    assert why in found.skipped["x"]


def test_names_of_skills_that_hide_clash_or_act_are_refused_and_secrets_are_not_taken() -> None:
    names = ("--exec=x", "..", "a b", "\x1b[2J", "x\u202e", "mcp-bus", ".claude", "plugins", "Fine")
    entries = [("100644", OID, f"{name}/SKILL.md") for name in ("fine", *names)]
    entries += [("100644", OID, "README.md"), ("100644", OID, "docs/x.md"), ("100644", OID, "fine/.git/hooks/x")]
    found = there.tree([*entries, ("100644", OID, "fine/.env")])
    assert {name: list(files) for name, files in found.skills.items()} == {"fine": ["SKILL.md"]}
    assert set(found.skipped) == {*names, "docs"}
    assert "no SKILL.md" in found.skipped["docs"]
    assert found.files == {"readme.md"}


def test_a_skill_that_is_too_large_in_all_is_taken_from_no_repository(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = hosts
    ann.put("fine")
    ann.put("heavy", one_txt="x" * 600, two_txt="x" * 600)
    ann.sync()
    monkeypatch.setattr(filters, "MAX_SKILL", 1000)
    assert bob.sync() == "took fine\nskipped heavy: it has more than 1000 bytes\n"
    assert [path.name for path in bob.skills.iterdir()] == ["fine"]


def test_a_branch_whose_name_acts_on_a_shell_is_in_no_hint(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    ann.put("a")
    ann.sync("--repo", f"{remote}#good/name")
    assert "next: name it: REMOTE#good/name; " in bob.run("skills", "sync", code=3)[1]
    git("--git-dir", str(remote), "branch", "-m", "good/name", "evil;touch${IFS}PWN")
    said = bob.run("skills", "sync", code=3)[1]
    assert "but 'evil;touch${IFS}PWN'" in said
    assert "next: name it: REMOTE#BRANCH; REMOTE#main begins a new one" in said


def test_a_hostile_commit_writes_nothing_but_what_is_fit(hosts: tuple[Host, Host], remote: Path) -> None:
    ann, bob = hosts
    ann.put("fine")
    ann.put("mine")
    ann.sync()
    bob.sync()
    there_ = ann.home / "evil"
    git("clone", "--quiet", "--branch", "main", str(remote), str(there_))
    for name in ("fine", "links", "large", "made", "module", "CASE", "case", "blocked", "onlyfile", "upper"):
        (there_ / name).mkdir(exist_ok=True)
        (there_ / name / "SKILL.md").write_text(TEXT.format(name) + "evil")
    (there_ / "links" / "ssh").symlink_to(bob.home)
    (there_ / "large" / "x").write_bytes(b"x" * (filters.MAX_FILE + 1))
    (there_ / "made" / ".generated").touch()
    (there_ / "blocked" / "x").write_text("evil")
    (there_ / "LICENSE").write_text("a file, no skill")
    git("update-index", "--add", "--cacheinfo", f"160000,{OID},module/inner", where=there_)
    git(
        "add",
        "-A",
        "--",
        *[f"./{path.name}" for path in there_.iterdir() if path.name not in (".git", "module")],
        where=there_,
    )
    git("add", "module/SKILL.md", where=there_)
    git("-c", "user.name=e", "-c", "user.email=e@e", "commit", "--quiet", "-m", "evil", where=there_)
    git("push", "--quiet", "origin", "main", where=there_)
    bob.put("UPPER")
    bob.put("license")
    outside = bob.home / "outside"
    outside.mkdir()
    (bob.skills / "blocked").symlink_to(outside)
    (bob.skills / "onlyfile").write_text("a file of bob's")
    said = dict(line.split(" ", 1)[::-1] if ":" not in line else line.split(" ", 1)[1].split(": ", 1)
                for line in bob.sync(code=1).splitlines())  # fmt: skip
    assert {name for name in said if "took" in said[name]} == {"fine"}
    for name, why in {
        "links": "a link", "large": "1048576 bytes", "made": "generated", "module": "submodule", "CASE": "one name",
        "case": "one name", "blocked": "a link", "onlyfile": "could not be written",
        "upper": "one name", "UPPER": "one name", "license": "has a file of that name",
    }.items():  # fmt: skip
        assert why in said[name]
    assert bob.text("fine") == "evil"
    names = {path.name for path in bob.skills.iterdir()}
    assert names == {"fine", "mine", "blocked", "onlyfile", "UPPER", "license"}
    assert everything(outside) == {}
    assert (bob.skills / "onlyfile").read_text() == "a file of bob's"


def test_a_tree_that_git_itself_refuses_is_an_error_that_changes_nothing(
    hosts: tuple[Host, Host], remote: Path
) -> None:
    _, bob = hosts
    bob.put("own")
    blob = subprocess.run(
        ["git", "--git-dir", str(remote), "hash-object", "-w", "--stdin"],
        input=b"evil",
        check=True,
        capture_output=True,
    ).stdout.strip()
    entry = b"100644 ..\0" + bytes.fromhex(blob.decode())
    tree = subprocess.run(
        ["git", "--git-dir", str(remote), "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        input=entry, check=True, capture_output=True,
    ).stdout.decode().strip()  # fmt: skip
    made = git("--git-dir", str(remote), "-c", "user.name=e", "-c", "user.email=e@e", "commit-tree", "-m", "e", tree)
    git("--git-dir", str(remote), "update-ref", "refs/heads/main", made.strip())
    before = everything(bob.home)
    assert "next: " in bob.run("skills", "sync", code=1)[1]
    assert everything(bob.home) == before
