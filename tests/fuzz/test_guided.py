"""A short run that follows coverage, for every change; `python -m benchmarks.soak fuzz` is the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz import campaign
from tests.fuzz.targets import TARGETS
from tests.tally import INPUTS, tried

if TYPE_CHECKING:
    from pathlib import Path

needs_atheris = pytest.mark.skipif(bool(campaign.LACKING), reason=campaign.LACKING or "it is there")
RUNS = 4000


@needs_atheris
def test_a_short_guided_run_finds_nothing_and_goes_beyond_the_corpus(tmp_path: Path) -> None:
    found = campaign.run("", f"-runs={RUNS}", "-seed=1", "-max_len=2048", keep=tmp_path)
    assert not found.violation, found.line()
    assert found.executions >= RUNS
    assert found.after[1] > found.before[1], "it followed nothing"
    tried(INPUTS, found.executions)


LENIENT = (
    "wire._decode = json.JSONDecoder("
    "parse_float=wire._float, parse_constant=wire._constant, object_pairs_hook=dict).decode"
)
# A pattern of names, and the reader of JSON, as they are once somebody was careless.
FAULTS = {
    "names": ("names._WAITING = names._WAITING.replace(r'\\.json', r'(?:\\.[a-z]+)?\\.json')", "is Slot"),
    "strict": (LENIENT, "a key stands twice"),
}
# Only what the run has to find by itself.
PLAIN = {"names": ["requests/req_0123456789ab.json"], "strict": ['{"a":[1],"b":{"c":"x"}}']}


@needs_atheris
@pytest.mark.parametrize("target", FAULTS)
def test_a_planted_fault_is_found_and_its_input_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(campaign, "SEEDS", PLAIN)
    fault, said = FAULTS[target]
    program = f"import json, sys; from tests.fuzz import guided; from mcp_bus import names, wire; {fault}; "
    program += "guided.main(sys.argv[1:])"
    found = campaign.run(target, "-runs=20000", "-seed=1", keep=tmp_path, program=("-c", program))
    assert said in found.violation, found.line()
    assert found.kept is not None
    assert str(found.kept) in found.line()
    TARGETS[target].check(found.kept.read_bytes())  # Without the fault there is nothing wrong with it.
