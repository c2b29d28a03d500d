"""What a plan adds to a result: releasing the steps that follow, beside the bare file operations of that."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks import table
from mcp_bus import conductor, open_bus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus

STEPS, LAYERS = 200, 20
GOAL_MS = 5.0


def data() -> dict[str, Any]:
    """Return a plan of layers, each step of which comes after two of the layer before."""
    width = STEPS // LAYERS
    steps: list[dict[str, Any]] = []
    for number in range(STEPS):
        layer, place = divmod(number, width)
        above = [f"s{(layer - 1) * width + (place + offset) % width}" for offset in (0, 1)] if layer else []
        steps.append({"name": f"s{number}", "body": f"step {number} of a plan, " + "x" * 200, "after": above})
    return {"goal": "measure it", "steps": steps}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _plan(bus: Bus) -> tuple[list[float], list[float], int]:
    """Run a plan to its end; return how long its results took, plain ones in between, and how many steps it has."""
    plan = conductor.post(bus, data())
    ours, plain = list[float](), list[float]()
    while (task := bus.claim(["work"])) is not None:
        ours.append(_timed(lambda task=task: bus.ack(task, "done")))  # type: ignore[misc]  # a default in a lambda
        bus.post("plain", "x" * 220)
        other = bus.claim(["plain"])
        assert other is not None
        plain.append(_timed(lambda other=other: bus.ack(other, "done")))  # type: ignore[misc]  # a default in a lambda
    made, progress = conductor.advance(bus, plan.id)
    assert progress.over, "the plan is not over"
    return ours, plain, len(made.steps)


def _bare(root: Path, *, durable: bool, size: int) -> list[float]:
    """Return how long the file operations take that write down one task and one record, and nothing else."""
    folders = [root / name for name in ("tmp", "keys", "tasks", "requests", "records")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    tmp, keys, tasks, requests, records = folders

    def write(name: str, content: bytes) -> None:
        fd = os.open(tmp / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, content)
        if durable:
            os.fsync(fd)
        os.close(fd)

    def sync(folder: Path) -> None:
        if durable:
            fd = os.open(folder, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    def once(number: int) -> None:
        write(f"t{number}", b"x" * 600)
        os.link(tmp / f"t{number}", keys / f"{number}")
        os.link(tmp / f"t{number}", tasks / f"{number}")
        sync(keys)
        sync(tasks)
        (tmp / f"t{number}").rename(requests / f"{number}")
        write(f"r{number}", b"x" * size)
        os.link(tmp / f"r{number}", records / f"{number + 1}")
        (tmp / f"r{number}").unlink()
        sync(records)
        if number:
            (records / f"{number}").unlink()

    return [_timed(lambda number=number: once(number)) for number in range(STEPS)]  # type: ignore[misc]  # as above


def measure(root: Path, *, rounds: int) -> tuple[table.Table, list[table.Goal]]:
    """Return what releasing costs for each result of a plan of 200 steps."""
    rows, goals = [], list[table.Goal]()
    for durability in ("none", "full"):
        ours, plain, bare, steps = list[float](), list[float](), list[float](), 0
        for number in range(rounds):
            place = root / f"{durability}-{number}"
            with open_bus(place / "bus", agent="ann", durability=durability) as bus:
                more, other, steps = _plan(bus)
            ours += more
            plain += other
            bare += _bare(place / "bare", durable=durability == "full", size=100 * steps)
        added = statistics.median(ours) - statistics.median(plain)
        high = sorted(ours)[int(len(ours) * 0.95)] - statistics.median(plain)
        floor = statistics.median(bare)
        figures = (statistics.median(ours), statistics.median(plain), added, high, floor, floor / added)
        rows.append((durability, *(table.number(figure) for figure in figures)))
        goals.append(table.Goal(f"a result of a plan of {steps} steps, {durability}", GOAL_MS, added, unit=" ms"))
    head = (
        "durability",
        "ack of a step, ms",
        "ack of a plain task",
        "added, p50",
        "added, p95",
        "bare files",
        "of added",
    )
    note = f"{STEPS} steps in {LAYERS} layers, each after two; a result releases about one step"
    return table.Table("releasing what follows a result", head, rows, (note,)), goals
