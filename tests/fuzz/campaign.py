"""Run the guided part in processes of its own, and read what came of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
SEEDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("seeds.json").read_text("utf-8"))
LACKING = (
    "" if find_spec("atheris") else "there is no atheris here, so nothing guides the fuzzing; the seeds are replayed"
)
# A single input takes milliseconds: one that takes so many seconds, or so many MiB, is a violation as well.
TIMEOUT_S, MEMORY_MB = 20, 1500
_COVERAGE = re.compile(r"^#[0-9]+\s+(INITED|DONE)\s+cov: ([0-9]+) ft: ([0-9]+)", re.MULTILINE)
_RUNS = re.compile(r"^stat::number_of_executed_units: ([0-9]+)", re.MULTILINE)
_SAID = re.compile(r"=== Uncaught Python exception: ===\s*\n(.*)|^==.*ERROR: (.*)", re.MULTILINE)


class Found(NamedTuple):
    """What a run came to: edges and features before (of the seeds) and after, and what did not hold."""

    target: str
    executions: int
    before: tuple[int, int]
    after: tuple[int, int]
    violation: str
    kept: Path | None

    def line(self) -> str:
        """Return it for a table."""
        grown = f"edges {self.before[0]} -> {self.after[0]}, features {self.before[1]} -> {self.after[1]}"
        bad = f": {self.violation[:200]}; the input is in {self.kept}" if self.violation else ""
        return f"{self.target:<10}{self.executions:>12,} executions  {grown:<44}  {int(bool(bad))} violations{bad}"


def seed(text: str) -> bytes:
    """Return the bytes of a seed; half a surrogate pair stands for bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def run(target: str, *limits: str, keep: Path, program: Sequence[str] = ("-m", "tests.fuzz.guided")) -> Found:
    """Fuzz a target, or all of them in turn for an empty name, until a limit or until something does not hold.

    Args:
        limits: of libFuzzer: `-runs=N`, `-max_total_time=S`, `-seed=N`.
        keep: where an input goes that shows a violation.
        program: what Python runs; another is one with a fault planted.
    """
    with TemporaryDirectory(prefix="mcp-bus-fuzz-") as corpus:
        for number, (name, texts) in enumerate(SEEDS.items()):
            for serial, text in enumerate(texts if target in ("", name) else ()):
                head = b"" if target else bytes([number])
                (Path(corpus) / f"{name}-{serial}").write_bytes(head + seed(text))
        prefix = keep / f"mcp-bus-fuzz-{target or 'any'}-"
        before = set(keep.iterdir())
        words = [sys.executable, *program, *filter(None, [target]), *limits, "-print_final_stats=1"]
        words += [f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={prefix}", corpus]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    kept = next((path for path in keep.iterdir() if path not in before and path.name.startswith(prefix.name)), None)
    seen = {kind: (int(edges), int(features)) for kind, edges, features in _COVERAGE.findall(said)}
    runs = _RUNS.search(said)
    lines = ["".join(groups) for groups in _SAID.findall(said)]
    why = (lines[0] if lines else said[-500:]) if done.returncode else ""
    began = seen.get("INITED", (0, 0))
    return Found(target or "any", int(runs[1]) if runs else 0, began, seen.get("DONE", began), why, kept)


assert list(SEEDS) == list(TARGETS), "the first byte of an input stands for the same target in both"
