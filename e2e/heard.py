"""What was said: by a client and its server to one another, from a record of it, and by both to the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TICKET = re.compile(r"task ([0-9a-f]{8}) token ([0-9a-f]{12})")
# Where a request of the protocol without a handshake says which revision it speaks.
REVISION = "io.modelcontextprotocol/protocolVersion"


def frames(path: Path) -> list[dict[str, Any]]:
    """Return what was said one way; a line that a kill cut off is no frame."""
    found = list[dict[str, Any]]()
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def asked(folder: Path, method: str) -> list[dict[str, Any]]:
    """Return the parameters of each request of a method."""
    return [frame.get("params") or {} for frame in frames(folder / "in") if frame.get("method") == method]


def eras(folder: Path) -> set[str]:
    """Return the protocol revisions in which tools were called.

    Each call says its own; those that say none are in the revision that the server agreed to at the handshake.
    """
    answers = [frame.get("result") or {} for frame in frames(folder / "out")]
    agreed = [str(answer["protocolVersion"]) for answer in answers if "protocolVersion" in answer]
    said = [(call.get("_meta") or {}).get(REVISION) for call in asked(folder, "tools/call")]
    return {str(word or agreed[-1]) for word in said}


def answers(folder: Path) -> list[str]:
    """Return the texts that the server's tools have answered with."""
    results = [frame.get("result") or {} for frame in frames(folder / "out")]
    return [item["text"] for result in results for item in result.get("content") or ()]


def ticket(said: str) -> dict[str, Any]:
    """Find the last claimed task in what a model was sent."""
    task, token = TICKET.findall(said)[-1]
    return {"task": task, "token": token}
