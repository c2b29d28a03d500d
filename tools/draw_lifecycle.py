"""The state machine of `mcp_bus.lifecycle` as Markdown: a mermaid diagram and a table.

Run from anywhere: `python -m tools.draw_lifecycle`.  `docs/protocol.md` holds what this prints, and
a test compares the two.
"""

from __future__ import annotations

import sys

from mcp_bus.lifecycle import TABLE, Event
from mcp_bus.model import State

# The states a new task starts in; `lifecycle.first` chooses.
STARTS = (State.READY, State.SCHEDULED)


def edges() -> dict[tuple[str, str], list[str]]:
    """Return the events that lead from one state to another; `[*]` is outside the bus."""
    made: dict[tuple[str, str], list[str]] = {("[*]", start): ["post"] for start in STARTS}
    for event in Event:
        for came, targets in TABLE[event].items():
            for went in _ordered(targets) or ["[*]"]:
                made.setdefault((came, went), []).append(event)
    return made


def _ordered(states: frozenset[State]) -> list[str]:
    return [state for state in State if state in states]


def diagram() -> str:
    """Return the diagram, one arrow for each pair of states."""
    lines = [f"    {came} --> {went}: {', '.join(events)}" for (came, went), events in edges().items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def table() -> str:
    """Return the table; an event has one row if it leads to the same place from everywhere."""
    rows = []
    for event in Event:
        pairs = {came: " or ".join(_ordered(went)) or "off the bus" for came, went in TABLE[event].items()}
        if len(set(pairs.values())) == 1:
            rows.append((event, ", ".join(pairs), next(iter(pairs.values()))))
        else:
            rows += [(event, came, went) for came, went in pairs.items()]
    return "\n".join(["| event | from | to |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


def page() -> str:
    """Return all that the page about the protocol holds of this."""
    return f"{diagram()}\n\n{table()}"


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
