"""The list of planted faults fits the code as it is, and its gate can say no."""

from __future__ import annotations

from collections import Counter

import pytest

from tools import mutants
from tools.mutants import ROOT, Mutant, judge, load, planted


def test_every_fault_can_be_planted_and_names_tests_that_are_there() -> None:
    for mutant in load():
        text = (ROOT / mutant.file).read_text("utf-8")
        assert planted(mutant, text) != text
        compile(planted(mutant, text), mutant.file, "exec")
        for test in mutant.tests:
            path, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / path).read_text("utf-8"), test


def test_there_are_enough_of_them_and_none_twice() -> None:
    found = load()
    assert len(found) >= 20
    assert max(Counter(mutant.name for mutant in found).values()) == 1
    assert len({mutant.promise for mutant in found}) >= 12


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("RETRIES", "", "stands 0 times"),
        ('    return tuple(name for name in requires if name not in have)"', "", "stands 0 times"),
        ("    have = frozenset(capabilities)\n", "    have = frozenset(list(capabilities))\n", "SURVIVED"),
        ("    have = frozenset(capabilities)\n", "    have = (\n", "pytest ended with"),
    ],
)
def test_a_fault_that_no_test_finds_or_that_is_none_is_not_caught(before: str, after: str, said: str) -> None:
    mutant = Mutant("a fault", "P0", "mcp_bus/routing.py", before, after, ["tests/core/test_routing.py"])
    verdict = judge(mutant)
    assert not verdict.is_caught
    assert said in verdict.by


def test_a_fault_that_a_test_finds_is_caught(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [mutant for mutant in load() if mutant.file == "mcp_bus/routing.py"]
    monkeypatch.setattr(mutants, "load", lambda: found)
    monkeypatch.setattr("sys.argv", ["mutants", "--jobs", "1"])
    assert mutants.main() == 0
    said = capsys.readouterr().out
    assert said.endswith("1 caught of 1\n")
    assert "tests/core/test_routing.py::" in said


def test_a_word_that_no_fault_has_is_said_to_be_one_with_some_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mutants", "--only", "zzzz"])
    assert mutants.main() == 1
    said = capsys.readouterr().out
    assert "no fault has 'zzzz' in its name" in said
    assert load()[0].name in said
