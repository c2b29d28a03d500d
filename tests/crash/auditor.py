"""What is on a bus, read from its directories alone, by the example that does so without the package."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from examples import audit

if TYPE_CHECKING:
    from pathlib import Path

load = audit.load


class Audit(audit.Audit):
    """Every task's state, every result, and all that does not belong."""

    def count(self) -> Counter[str]:
        return Counter(self.states.values())

    def attempts(self, task_id: str) -> int:
        """Return how many hand-overs a task's name counts."""
        found = re.search(r"\.a(\d+)", self.names[task_id])
        return int(found[1]) if found else 0


def look(root: Path) -> Audit:
    """Walk a bus that nobody uses at the moment."""
    return Audit(**vars(audit.look(root)))


def sound(root: Path) -> Audit:
    """Walk a bus and insist that each task is in exactly one place, under the names it should have."""
    found = look(root)
    assert not found.problems, "\n".join(found.problems)
    return found


def settled(root: Path) -> Audit:
    """As `sound`, and nothing half done is left, and every finished task has its result."""
    found = sound(root)
    assert not found.leftovers, found.leftovers
    missing = [name for name, state in found.states.items() if state == "done" and name not in found.results]
    assert not missing, f"done without a result: {missing}"
    return found


def traces_of(root: Path, task_id: str) -> list[str]:
    """Return every file that still speaks of a task, but for tombstones, journal and manifest."""
    found = [path.relative_to(root) for path in root.rglob("*") if task_id in str(path.relative_to(root))]
    return [str(path) for path in found if path.parts[0] not in {"journal", "tombstones"}]
