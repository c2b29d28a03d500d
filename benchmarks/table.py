"""What a benchmark says: tables with ratios, goals with a yes or no, and the statistics behind both."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head, with what a reader must know to read them right."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that was set beforehand, beside what was measured."""

    what: str
    limit: float
    figure: float
    at_least: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def row(self) -> tuple[str, ...]:
        """Return the goal as a table's row."""
        sign = ">=" if self.at_least else "<="
        said = "met" if self.is_met else "NOT MET"
        return self.what, f"{sign} {number(self.limit)}{self.unit}", f"{number(self.figure)}{self.unit}", said


@dataclass(slots=True)
class Report:
    """Everything one run found."""

    machine: dict[str, str]
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def add(self, table: Table, goals: Iterable[Goal] = ()) -> None:
        """Take in a table and the goals that it decides."""
        self.tables.append(table)
        self.goals.extend(goals)

    def text(self) -> str:
        """Return the report for people."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        parts = [machine, *(rendered(table) for table in self.tables)]
        if self.goals:
            rows = [goal.row() for goal in self.goals]
            parts.append(rendered(Table("Goals", ("", "goal", "measured", ""), rows)))
        return "\n\n".join(parts)

    def json(self) -> str:
        """Return the report for programs."""
        goals = [asdict(goal) | {"is_met": goal.is_met} for goal in self.goals]
        return json.dumps({"machine": self.machine, "tables": [asdict(table) for table in self.tables], "goals": goals})


def rendered(table: Table) -> str:
    """Return a table in Markdown, aligned so that it can be read as it is."""
    lines = [table.head, *table.rows]
    widths = [max(len(row[at]) for row in lines) for at in range(len(table.head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if at else "-") for at, width in enumerate(widths)) + "|"
    made = [f"### {table.title}", "", line(table.head), rule, *(line(row) for row in table.rows)]
    return "\n".join([*made, *(["", *table.notes] if table.notes else [])])


def number(value: float) -> str:
    """Return a figure with as many digits as it can bear."""
    if value != value:  # noqa: PLR0124  NaN: nothing was measured
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def median(values: Sequence[float]) -> float:
    """Return the median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def p95(values: Sequence[float]) -> float:
    """Return what 95 of 100 values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] if ordered else float("nan")


def spread(values: Sequence[float]) -> str:
    """Return the least and the greatest value."""
    return f"{number(min(values))} to {number(max(values))}" if values else "-"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios round by round: what troubles a round troubles both."""
    return median([one / other for one, other in zip(ours, theirs, strict=False) if other])
