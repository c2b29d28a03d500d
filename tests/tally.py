"""What a run has tried of each promise, and what came of it: `pytest --promises` prints the table.

Tests and what they share say how often they tried something; the plug-in adds it up, in whichever process it was.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS, DISKS, CUTS, STOPS = "processes killed", "disks after a cut", "file systems cut off", "workers stopped"
FAULTS, TASKS, MESSAGES = "calls that failed", "tasks raced for", "messages to subscribers"
FILES, DAYS, INPUTS = "hostile files", "days of churn", "inputs of parsers"
# What is counted where nothing else is: each is a case of its own.
CASES = "cases"
_TRIED = Counter[str]()
_KEY = "tried"


def tried(what: str, count: int = 1) -> None:
    """Say that something was tried so often."""
    _TRIED[what] += count


class Row(NamedTuple):
    """What shows promises: which, how, what is counted, and the files of the tests."""

    promises: str
    how: str
    unit: str
    files: tuple[str, ...]


ROWS = (
    Row("P1 P7 P8", "power cuts, built from recorded calls", DISKS, ("crash/test_power*",)),
    Row("P1 P2 P7", "power cuts of mounted ext4 and XFS", CUTS, ("media/*cut*",)),
    Row("P3 P7 P8", "kills at each call of each verb", KILLS, ("crash/test_kill_verbs.py", "crash/test_kill_mail.py")),
    Row("P1 P3 P7", "kills of real processes by the kernel", KILLS, ("crash/test_kill_real.py",)),
    Row("P10", "kills of the sweep, three deep", KILLS, ("crash/test_kill_sweep.py", "crash/test_kill_outputs.py")),
    Row("P13", "kills of conductors at each call", KILLS, ("crash/test_kill_plans.py",)),
    Row("P4 P9 P11", "races of eight processes on a disk", TASKS, ("crash/test_races.py",)),
    Row("P11", "clocks that step and differ", CASES, ("crash/test_clocks.py",)),
    Row("P5", "stops between claim and ack", STOPS, ("crash/test_stale.py",)),
    Row("P14 P15", "failing calls, once, sticky, or after it was done", FAULTS, ("crash/test_faults.py",)),
    Row("P14 P21", "no descriptors, little memory", CASES, ("crash/test_limits.py",)),
    Row(
        "P6", "foreign, half-written and hostile files", CASES,
        ("crash/test_foreign.py", "stores/test_file_hostile.py", "stores/test_in_the_way.py", "stores/test_strays.py",
         "cli/test_install_hostile.py"),
    ),
    Row("P6", "files of a corpus, against every verb and listing", FILES, ("security/test_corpus.py",)),
    Row("P6 P18", "inputs of parsers, guided by coverage or near a corpus", INPUTS, ("fuzz/*",)),
    Row("P12", "topics with killed subscribers", MESSAGES, ("crash/test_topics.py",)),
    Row(
        "P16 P21", "file systems refused, media full or gone", CASES,
        ("core/test_probe.py", "stores/test_file_medium.py", "media/*"),
    ),
    Row(
        "P18", "texts that act on readers", CASES,
        ("core/test_plain.py", "server/test_hostile.py", "cli/test_output.py", "security/test_texts*"),
    ),
    Row("P25", "what days of work and kills leave behind", DAYS, ("crash/test_churn.py",)),
    Row("P20", "forged, altered, replayed, transplanted, expired", CASES, ("security/test_signed*",)),
    Row("P26", "two users, an outsider, every umask", CASES, ("security/test_modes.py", "security/test_closed.py")),
    Row("P27", "encrypted words, through a life and attacks", CASES, ("security/test_encrypted*",)),
    Row("P18 P21", "who may, how much, and what is shown", CASES, ("security/*",)),
    Row("P22", "claims raced for by clones at a remote, and kills", TASKS, ("git/test_races.py",)),
    Row("P22", "no remote, hostile repositories and settings", CASES, ("git/*",)),
    Row("P23", "anomalies explained and repaired", CASES, ("fsck/*", "bus/test_fsck*")),
    Row(
        "P17 P19", "reads, writes and executions outside", CASES,
        ("crash/test_outside.py", "server/test_http*.py"),
    ),
)  # fmt: skip


HEADER = f"{'promise':<10}{'what was done':<52}{'tried':>8}  {'':<24}{'violations':>10}{'seconds':>9}"


class Line(NamedTuple):
    """A line of the table: what was done for promises, how often, and what came of it."""

    promises: str
    how: str
    points: int
    unit: str
    violations: int

    def text(self, seconds: float) -> str:
        """Return it as it is printed."""
        return f"{self.promises:<10}{self.how:<52}{self.points:>8}  {self.unit:<24}{self.violations:>10}{seconds:>9.0f}"


class Sum(NamedTuple):
    """What one row has come to."""

    points: int = 0
    tests: int = 0
    violations: int = 0
    skipped: int = 0
    seconds: float = 0.0


class Table:
    """Adds up the reports of tests."""

    def __init__(self) -> None:
        self._sums: dict[Row, Sum] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take in a report of any phase of a test."""
        place = report.nodeid.partition("::")[0].partition("tests/")[2]
        row = next((row for row in ROWS if any(fnmatch(place, pattern) for pattern in row.files)), None)
        if row is None:
            return
        known, counted = self._sums.get(row, Sum()), dict(report.user_properties).get(_KEY)
        points = counted.get(row.unit, 0) if isinstance(counted, dict) and report.when == "call" else 0
        is_run = report.when == "call" and not report.skipped
        self._sums[row] = Sum(
            known.points + (int(is_run) if row.unit == CASES else points),
            known.tests + is_run,
            known.violations + report.failed,
            known.skipped + report.skipped,
            known.seconds + report.duration,
        )

    def lines(self) -> Iterator[str]:
        """Return the table; empty if nothing of it was run."""
        if self._sums:
            yield HEADER
        for row in ROWS:
            made = self._sums.get(row)
            if made is not None:
                left = f"  {made.skipped} skipped" if made.skipped else ""
                line = Line(row.promises, row.how, made.points, row.unit, made.violations)
                yield line.text(made.seconds) + left


# --- hooks of pytest -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the table."""
    parser.addoption("--promises", action="store_true", help="print what was tried of each promise")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note what a test has tried."""
    before = _TRIED.copy()
    try:
        return (yield)
    finally:
        item.user_properties.append((_KEY, dict(_TRIED - before)))


class Plugin:
    """Adds up what all processes report, and prints it."""

    def __init__(self) -> None:
        self._table = Table()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a report."""
        self._table.add(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if lines := list(self._table.lines()):
            terminalreporter.section("promises")
            for line in lines:
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Add up only where it is printed."""
    if config.getoption("--promises") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Plugin(), "promises")
