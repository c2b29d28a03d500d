"""Results as Markdown files, on channels whose rule says so (`outputs`): derived from the results, for people.

Written after the result is final and durable, by whoever submitted it; what is missing then, for whatever reason, a
sweep writes.  Nothing reads them back.  A rule of the channel and no setting of a process: so it holds for all who
work on the channel, by whichever program.
"""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from mcp_bus import find, names, wire
from mcp_bus.errors import BusError, Conflict, CorruptRecord, Gone, NotFound
from mcp_bus.model import State
from mcp_bus.plain import clean, one_line

if TYPE_CHECKING:
    from mcp_bus.model import Artifact, Task
    from mcp_bus.operate import Operator

# Characters of a value in the head of a file.
VALUE = 2000
# What one sweep writes, and removes; the next goes on.
MOST = 200


def text(task: Task) -> str:
    """Return a task's result as Markdown: a head of names and values, then what the worker answered.

    The head is YAML between two lines `---`.  Each value is a number or a JSON string in one line, so that no text of
    others ends the head or adds to it; what would act on a terminal is made visible, in the content too.
    """
    result = task.result
    assert result is not None
    said = {
        "title": task.body.title,
        "task": task.id,
        "channel": task.channel,
        "status": result.status,
        "error": result.error,
        "from": task.body.sender.agent,
        "by": result.sender.agent,
        "posted": wire.stamp(task.body.created),
        "finished": wire.stamp(result.at),
    }
    lines = [f"{name}: {_value(value)}" for name, value in said.items() if value]
    lines.append(f"attempts: {result.attempt or task.slot.attempt}")
    if result.artifacts:
        lines.append("artifacts:")
        lines += [line for item in result.artifacts for line in _artifact(item)]
    content = clean(result.content, multiline=True)
    return "\n".join(["---", *lines, "---", "", content]).rstrip("\n") + "\n"


def _value(text: str) -> str:
    return json.dumps(one_line(text, VALUE), ensure_ascii=False)


def _artifact(item: Artifact) -> list[str]:
    return [f"  - path: {_value(item.path)}", f"    size: {item.size}", f"    sha256: {_value(item.sha256)}"]


def path(task_id: str) -> str:
    """Return where in the bus the output of a task is."""
    return f"outputs/{names.output(task_id)}"


def write(bus: Operator, task: Task) -> None:
    """Write the output of a task that is done, if its channel wants it; what goes wrong is left to a sweep."""
    with suppress(BusError):
        if _is_wanted(bus, task.channel) and _is_plain(task):
            bus.store.outputs.write(task.id, text(task).encode())


def _is_wanted(bus: Operator, channel: str) -> bool:
    try:
        policy = bus.store.policy(channel)
    except (CorruptRecord, NotFound):
        return False
    return policy.kind == "queue" and policy.outputs


def _is_plain(task: Task) -> bool:
    """Tell whether a task's result may be written down as text: what is encrypted is not."""
    return task.body.encrypted is None and (task.result is None or task.result.encrypted is None)


def fill(bus: Operator) -> list[str]:
    """Write the outputs that are missing, remove those of tasks that were pruned; return a line for each.

    At most `MOST` of either: turning the rule on for a channel with a long past holds nobody up.
    """
    there, done = bus.store.outputs.ids(), list[str]()
    try:
        done += _missing(bus, there)
        done += _left_over(bus, there)
    except BusError as error:  # Whatever it is, it must not stop a sweep.
        done.append(f"left outputs/ as it is: {error}")
    return done


def _missing(bus: Operator, there: set[str]) -> list[str]:
    done = list[str]()
    wanted = [name for name in find.public(bus.store) if _is_wanted(bus, name)]
    for slot in (slot for name in wanted for slot in bus.store.scan(name, State.DONE) if slot.id not in there):
        try:
            task = bus.store.get(slot.id)
        except (Conflict, CorruptRecord, Gone, NotFound):
            continue
        if task is not None and task.result is not None and _is_plain(task):
            bus.store.outputs.write(task.id, text(task).encode())
            done.append(f"wrote {path(task.id)}")
        if len(done) == MOST:
            break
    return done


def _left_over(bus: Operator, there: set[str]) -> list[str]:
    """Remove what somebody wrote while somebody else pruned its task; a file of no task known here is not ours."""
    done = list[str]()
    for task_id in islice(sorted(there - set(bus.store.ids())), MOST) if there else ():
        try:
            bus.store.get(task_id)
        except Gone:
            bus.store.outputs.remove(task_id)
            done.append(f"removed {path(task_id)}")
        except (Conflict, CorruptRecord):
            continue
    return done
