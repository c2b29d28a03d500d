"""What is a skill of a person and what of it is shared; all else is left, and said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import NotFound
from mcp_bus.skills import filters, here
from tests.skills.conftest import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET, CACHE, HOST, HIDDEN = "it may be a secret", "it is a cache", "it is of one host alone", "it is hidden"
LEFT = {
    ".env": SECRET, ".ENV.local": SECRET, "keys/server.pem": SECRET, "id_ed25519": SECRET, "id_rsa.pub": SECRET,
    "credentials.json": SECRET, "auth.json": SECRET, "tls.key": SECRET, ".netrc": SECRET,
    "lib/__pycache__/x.py": CACHE, "x.pyc": CACHE, ".DS_Store": CACHE, "node_modules/x/SKILL.md": CACHE,
    "run.log": HOST, "x.lock": HOST, "a.sqlite3-wal": HOST, "state.db": HOST, "sessions/x": HOST,
    ".git/config": "it is of version control", ".GIT/hooks/x": "it is of version control",
    ".mcp-bus-draft-1-x": HOST, ".bash_history": HOST, "shell_history": HOST,
    ".editorconfig": HIDDEN, ".mcp.json": HIDDEN, "a/.aws/config": HIDDEN, "a/.generated": HIDDEN,
    ".claude-plugins": HIDDEN,
}  # fmt: skip
SECRETS = (
    "prod.env", "Prod.ENV.bak", "token.json", "github_tokens.json", "token.txt", "secrets.json",
    "client_secret_123.json", "secret", "secrets/x", "passwords.csv", "api-key.txt", "apikey", "gcp-key.json",
    "oauth.json", "service-account.json", "key.pem.bak", "server.crt.key.old~", "release.jks", "my.keystore",
    "vault.kdbx", "a.ppk", "AuthKey_X.p8", "my_id_rsa", "deploy_rsa.pub", "id_rsa.1", "ssh_host_ed25519_key",
    "x_ecdsa", "pgpass.conf", "_netrc", "htpasswd", "terraform.tfstate", "terraform.tfstate.backup", "prod.tfvars",
    "kubeconfig.yaml", "cookies.txt", "gh/hosts.yml", ".htpasswd", "aws_credentials.csv",
)  # fmt: skip
SHARED = (
    "SKILL.md",
    "scripts/run.sh",
    "keyboard.md",
    "environment.md",
    "login.md",
    "LICENSE",
    "logs.md",
    "history.md",
    "tokenizer.md",
    "tokenizer.json",
    "design-tokens.css",
    "secrets-handling.md",
    "rotate_credentials.py",
    "verify_ed25519.py",
    "cookies-and-consent.md",
    "monkey.json",
    "v1.2.md",
    "hosts.yml.md",
    ".generated",
    ".claude-plugin/plugin.json",
)


@pytest.mark.parametrize(("path", "why"), [*LEFT.items(), *((path, SECRET) for path in SECRETS)])
def test_secrets_caches_and_what_is_of_one_host_are_never_shared(path: str, why: str) -> None:
    found = filters.left_out(path)
    assert found is not None
    assert found[1] == why
    assert path.startswith(found[0])


@pytest.mark.parametrize("path", SHARED)
def test_what_only_looks_like_that_is_shared(path: str) -> None:
    assert filters.left_out(path) is None


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a//x", "a/../x", "./x", "a\\..\\x", "a\nb", "a\x1b[2J", "x\u202ey", "x\u200dy", "\udcff", "x" * 256,
     "a/" * 20 + "x"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_or_hides_something_is_refused(path: str) -> None:
    assert filters.of_path(path)


@pytest.mark.parametrize(
    "name", ["", "-x", "--upload-pack=x", "a b", "a/b", "..", "x.", "ä", "a\n", "x" * 65, "mcp-bus"]
)
def test_a_name_that_is_not_plain_is_refused(name: str) -> None:
    assert filters.of_name(name)


def test_names_that_are_one_on_some_disks_are_refused() -> None:
    assert filters.of_paths(["a/x", "A/y"])
    assert filters.of_paths(["e\u0301", "\u00e9"])
    assert not filters.of_paths(["a/x", "a/y", "ab"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nname: x\ndescription: >\n  two\n  lines\n---\n", {"name": "x", "description": "two lines"}),
        ("---\nname: 'x: y'\ndescription: \"z\" # why\n---", {"name": "x: y", "description": "z"}),
        ("---\nname: x # why\nmetadata:\n  generated: true\n---\n", {"name": "x", "metadata.generated": "true"}),
        ("name: x\n", {}),
        ("---\nname: x\n", {}),
        ("", {}),
    ],
)
def test_what_stands_before_a_skill_s_text_is_read(text: str, said: dict[str, str]) -> None:
    found = filters.frontmatter(text.encode())
    assert {key: found[key] for key in said} == said
    assert bool(found) is bool(said)


# Limits as tests have them, to be quick.
MANY, LARGE, HEAVY = 5, 1000, 3000


def _linked(place: Path) -> None:
    (place / "x").symlink_to(place.parent)


def _many(place: Path) -> None:
    for number in range(MANY):
        (place / f"{number}").touch()


# How a folder is made that is no skill to be shared, and what is said of it.
UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (_linked, "'x' is a link"),
    "pipe": (lambda place: os.mkfifo(place / "x"), "'x' is a link, a pipe or a device"),
    "hard": (lambda place: (place / "x").hardlink_to(place / "SKILL.md"), "by a hard link"),
    "large": (lambda place: (place / "x").write_bytes(b"x" * (LARGE + 1)), "'x' has more than 1000 bytes"),
    "heavy": (
        lambda place: [(place / f"{n}").write_bytes(b"x" * LARGE) for n in range(3)],
        "it has more than 3000 bytes",
    ),
    "many": (_many, "it has more than 5 files"),
    "bare": (lambda place: (place / "SKILL.md").unlink(), "it has no SKILL.md"),
    "nameless": (lambda place: (place / "SKILL.md").write_text("---\nname: x\n---\n"), "says no description"),
    "made": (lambda place: (place / ".generated").touch(), "it is generated"),
    "marked": (
        lambda place: (place / "SKILL.md").write_text(TEXT.replace("---\n\n", "generated: true\n---\n")),
        "is gen",
    ),
    "plugged": (lambda place: (place / "plugin.json").touch(), "it is a plugin"),
    ".system": (lambda _: None, "a hidden folder"),
    "mcp-bus": (lambda _: None, "mcp-bus installs it by itself"),
    "node_modules": (lambda _: None, "a folder of packages or plugins"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_skill_of_a_person_is_left_and_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in {"MAX_FILES": MANY, "MAX_FILE": LARGE, "MAX_SKILL": HEAVY}.items():
        monkeypatch.setattr(filters, limit, value)
    make, why = UNFIT[name]
    for skill in ("good", name):
        (tmp_path / skill).mkdir()
        (tmp_path / skill / "SKILL.md").write_text(TEXT.format(skill))
    make(tmp_path / name)
    found = here.scan([tmp_path])
    assert list(found.skills) == ["good"]
    assert list(found.skipped) == [name]
    assert why in found.skipped[name]


def test_what_is_above_a_folder_of_skills_says_nothing_of_them(tmp_path: Path) -> None:
    skills = tmp_path / "vendor" / "plugins" / "skills"
    (skills / "mine" / "vendor").mkdir(parents=True)
    (skills / "mine" / "SKILL.md").write_text(TEXT.format("mine"))
    (skills / "mine" / "vendor" / "x.md").touch()
    found = here.scan([skills])
    assert (list(found.skills), found.skipped) == (["mine"], {})
    assert set(found.skills["mine"][0].files) == {"SKILL.md", "vendor/x.md"}


def test_what_of_a_skill_is_not_shared_is_said_once_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x" / ".config" / "gh").mkdir(parents=True)
    (tmp_path / "x" / "SKILL.md").write_text(TEXT.format("x"))
    for name in (".config/gh/hosts.yml", ".config/y", "prod.env"):
        (tmp_path / "x" / name).touch()
    [skill] = here.scan([tmp_path]).skills["x"]
    assert list(skill.files) == ["SKILL.md"]
    assert skill.left == {".config": HIDDEN, "prod.env": SECRET}


def test_folders_that_are_one_are_looked_at_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert here.sources([tmp_path / "two", tmp_path / "one"]) == [tmp_path / "one"]
    with pytest.raises(NotFound, match="there is no folder"):
        here.sources([tmp_path / "one", tmp_path / "three"])


def test_a_folder_that_is_a_link_and_one_of_plugins_are_left(tmp_path: Path) -> None:
    elsewhere = tmp_path / "x" / "plugins"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "SKILL.md").write_text(TEXT.format("deep"))
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "linked").symlink_to(elsewhere / "deep")
    found = here.scan([tmp_path / "skills", elsewhere])
    assert found.skills == {}
    assert "'linked' is a link" in found.skipped["linked"]
    assert "plugins" in found.skipped["deep"]
