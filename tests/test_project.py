"""What pyproject.toml asks for is what the locks hold; and every rule left out says why."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT: dict[str, Any] = tomllib.loads(TEXT)
ASKED = {
    "requirements.txt": [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["build"]],
    "requirements-dev.txt": PROJECT["project"]["optional-dependencies"]["dev"],
    "requirements-bench.txt": PROJECT["project"]["optional-dependencies"]["bench"],
}


def locked(name: str) -> dict[str, str]:
    pairs = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    return dict(pairs)


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_holds_what_is_asked_for(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    for asked in map(Requirement, ASKED[lock]):
        # One for each Python, where no release has wheels for all of them.
        held = re.findall(rf"^{re.escape(asked.name)}==([^\s;]+)", text, re.MULTILINE)
        assert any(map(asked.specifier.contains, held)), f"{asked} is not in {lock}: run `make lock`"


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_has_only_names_versions_markers_and_hashes(lock: str) -> None:
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    line = re.compile(r"#.*|[a-z0-9-]+==[\w.]+( ; [\w .<>=!'()]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [text for text in lines if not line.fullmatch(text)] == []


@pytest.mark.parametrize("lock", ASKED)
def test_the_locks_agree_with_one_another(lock: str) -> None:
    base, held = locked("requirements.txt"), locked(lock)
    assert base.keys() <= held.keys()
    assert {name: held[name] for name in base} == base


def test_every_rule_that_is_not_checked_says_why() -> None:
    section = TEXT.partition("[tool.ruff.lint]")[2].partition("[tool.ruff.lint.mccabe]")[0]
    ignored = re.findall(r'^ +"[A-Z]+\d*",(.*)$', section, re.MULTILINE)
    assert len(ignored) > 20
    assert [reason for reason in ignored if not re.match(r" *# \w+ \w+", reason)] == []


def test_no_pattern_needs_what_the_first_versions_of_python_3_11_match_wrongly() -> None:
    # A possessive quantifier of a group, and an atomic group: gh-101955, mended in 3.11.4; Debian 12 has 3.11.2.
    sources = [*(ROOT / "mcp_bus").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    lines = ((path.name, line) for path in sources for line in path.read_text("utf-8").splitlines())
    assert [(name, line) for name, line in lines if re.search(r"\)[*+?]\+|\(\?>", line)] == []
