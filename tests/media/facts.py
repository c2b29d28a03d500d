"""What was acknowledged on a bus before a power cut, and whether it is so afterwards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.crash import auditor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANNEL = "work"
# A body has 1 byte to 256 KiB; each power of two is as likely as the next.
LARGEST = 18
# The length up to which a text has no room to say what it is.
TINY = 32
# Where a task may be once one of these was acknowledged; what was only posted may be anywhere.
AFTER = {"ack": "done", "read": "done", "cancel": "cancelled"}


def text(seed: int) -> str:
    """Return a text of a length by chance, which says in its first words how it goes on."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    size = int(2 ** chance.uniform(0, LARGEST))
    if size <= TINY:
        return "x" * size
    return f"{seed}:{chance.randbytes(size // 2 + 1).hex()}"[:size]


def is_whole(content: str) -> bool:
    """Tell whether a text is one of `text`, whole."""
    seed = content.partition(":")[0]
    return content == (text(int(seed)) if seed.isdecimal() else "x" * min(max(len(content), 1), TINY))


class Facts:
    """What was acknowledged about each task, and the number of its text."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, int]] = {}

    def add(self, task_id: str, event: str, seed: int) -> None:
        self._of.setdefault(task_id, {})[event] = seed

    def done(self) -> list[str]:
        """Return the tasks whose result was acknowledged."""
        return [task_id for task_id, facts in self._of.items() if "ack" in facts]

    def check(self, root: Path) -> tuple[auditor.Audit | None, list[str]]:
        """Audit a bus that nobody uses; return what was found, and what should not be."""
        try:
            audit = auditor.look(root)
            contents = {path.stem: auditor.load(path)["content"] for path in (root / "tasks").iterdir()}
        except (OSError, ValueError, AssertionError) as error:
            return None, [f"something cannot be read: {error!r}"]
        # The key of a post that was cut off before it was acknowledged may be there alone.
        problems = [problem for problem in audit.problems if not problem.startswith("the key")]
        for name, content in [*contents.items(), *audit.results.items()]:
            if not is_whole(content):
                problems.append(f"{name} holds half a text: {content[:60]!r}")
        for task_id in self._of:
            problems += self._wrong(task_id, audit, contents)
        for name, state in audit.states.items():
            if state == "done" and f"/{CHANNEL}/" in audit.names[name] and name not in audit.results:
                problems.append(f"{name} is done without a result")
        return audit, problems

    def _wrong(self, task_id: str, audit: auditor.Audit, contents: dict[str, str]) -> Iterator[str]:
        facts, state = self._of[task_id], audit.states.get(task_id, "lost")
        if state == "lost" or {AFTER.get(event, state) for event in facts} != {state}:
            yield f"{task_id} was acknowledged as {sorted(facts)} and is {state}"
        for event, kept in (("post", contents), ("send", contents), ("ack", audit.results)):
            if event in facts and kept.get(task_id) != text(facts[event]):
                yield f"{task_id}: the text of its {event} is not there"
