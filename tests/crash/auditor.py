"""What is on a bus, read from its directories alone: this file knows the layout and not the package."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ID = re.compile(r"req_[0-9a-f]+")
STATES = {"requests": "ready", "delayed": "scheduled", "processing": "leased", "dead": "dead"}
ENDS = {"request": "done", "cancelled": "cancelled", "discarded": "cancelled", "expired": "expired"}


@dataclass
class Audit:
    """Every task's state, every result, and all that does not belong."""

    states: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def count(self) -> Counter[str]:
        return Counter(self.states.values())

    def attempts(self, task_id: str) -> int:
        """Return how many hand-overs a task's name counts."""
        found = re.search(r"\.a(\d+)", self.names[task_id])
        return int(found[1]) if found else 0


def load(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    assert isinstance(value, dict), path
    return value


def look(root: Path) -> Audit:
    """Walk a bus that nobody uses at the moment."""
    audit, inodes = Audit(), dict[str, int]()
    for channel in _files(root / "channels"):
        _channel(audit, inodes, root, channel)
    keys = {path.stat().st_ino: path for path in _files(root / "keys")}
    for path in _files(root / "tasks"):
        about, name = path.stat(), path.stem
        if load(path)["id"] != name:
            audit.problems.append(f"{path.name} holds another task")
        if name not in inodes:
            audit.problems.append(f"{name} has an identity and no place")
        elif inodes.pop(name) != about.st_ino:
            audit.problems.append(f"{name} has an identity and a place that are not one file")
        names = 3 if keys.pop(about.st_ino, None) else 2
        if about.st_nlink != names:
            audit.problems.append(f"{name} has {about.st_nlink} names, not {names}")
    audit.problems += [f"{name} has a place and no identity" for name in inodes]
    audit.problems += [f"the key {path.name} is of no task" for path in keys.values()]
    audit.problems += [
        f"{n} has a result and is {audit.states.get(n)}" for n in audit.results if not _is_done(audit, n)
    ]
    for part in ("staged", "tmp"):
        audit.leftovers += [f"{part}/{path.name}" for path in _files(root / part)]
    return audit


def _channel(audit: Audit, inodes: dict[str, int], root: Path, channel: Path) -> None:
    for part, state in STATES.items():
        for path in (p for p in _files(channel / part) if not p.name.endswith(".reason.json")):
            _place(audit, inodes, root, path, state)
    for path in (p for day in _files(channel / "archive") for p in _files(day)):
        _place(audit, inodes, root, path, ENDS[path.stem.rpartition("_")[2]])
    for path in _files(channel / "pruning"):
        audit.leftovers.append(os.fspath(path.relative_to(root)))
        _place(audit, inodes, root, path, "pruning")
    for path in _files(channel / "responses"):
        audit.results[path.stem] = load(path)["result"]


def _is_done(audit: Audit, name: str) -> bool:
    return audit.states.get(name) in ("done", "pruning")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _place(audit: Audit, inodes: dict[str, int], root: Path, path: Path, state: str) -> None:
    found, where = ID.search(path.name), os.fspath(path.relative_to(root))
    if found is None:
        audit.problems.append(f"{where} is no task")
        return
    name = found[0]
    if name in audit.states:
        audit.problems.append(f"{name} is in two places: {audit.names[name]} and {where}")
    audit.states[name], audit.names[name], inodes[name] = state, where, path.stat().st_ino


def sound(root: Path) -> Audit:
    """Walk a bus and insist that each task is in exactly one place, under the names it should have."""
    audit = look(root)
    assert not audit.problems, "\n".join(audit.problems)
    return audit


def settled(root: Path) -> Audit:
    """As `sound`, and nothing half done is left, and every finished task has its result."""
    audit = sound(root)
    assert not audit.leftovers, audit.leftovers
    missing = [name for name, state in audit.states.items() if state == "done" and name not in audit.results]
    assert not missing, f"done without a result: {missing}"
    return audit


def traces_of(root: Path, task_id: str) -> list[str]:
    """Return every file that still speaks of a task, but for tombstones, journal and manifest."""
    found = [path.relative_to(root) for path in root.rglob("*") if task_id in str(path.relative_to(root))]
    return [str(path) for path in found if path.parts[0] not in {"journal", "tombstones"}]
