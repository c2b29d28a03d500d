"""What an exported task looks like: a line of JSON, a row for a spreadsheet, a section for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli import fields
from mcp_bus.cli.output import clean, cut, document
from mcp_bus.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_bus.model import Attempt, Task

COLUMNS = (
    "id", "channel", "state", "title", "body", "type", "priority", "requires", "thread", "from", "created", "attempt",
    "holder", "status", "result", "error", "artifacts", "answered_by", "answered_at", "history",
)  # fmt: skip
# With these a spreadsheet begins a formula; the wide ones, too, where East Asian text is written.
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"


class Form(NamedTuple):
    """A format: what stands before all tasks, and the text of one, both without the line feed at the end."""

    head: tuple[str, ...]
    text: Callable[[Task], str]


def jsonl(task: Task) -> str:
    """Return a task as a line of JSON, the same document as that of `show --json`."""
    return document(fields.full(task))


# --- csv ----------------------------------------------------------------------------------------------


def csv(task: Task) -> str:
    """Return a task as a row of CSV."""
    body, slot, result = task.body, task.slot, task.result
    lease = fields.summary(task)["lease"]
    answer: tuple[str, ...] = ("", "", "", "", "", "")
    if result is not None:
        files = "\n".join(item.path for item in result.artifacts)
        answer = (result.status, result.content, result.error, files, result.sender.agent, stamp(result.at))
    return _row(
        (
            task.id, task.channel, fields.state(task), body.title, body.content, body.type, slot.priority,
            " ".join(body.requires), body.thread, body.sender.agent, stamp(body.created), slot.attempt,
            lease["holder"] if lease else "", *answer, "\n".join(map(_event, task.history)),
        )
    )  # fmt: skip


def _row(cells: Sequence[str | int]) -> str:
    import csv as rows
    from io import StringIO

    made = StringIO()
    # All in quotes: a program that splits at semicolons or tabs then still sees where a cell begins.
    writer = rows.writer(made, lineterminator="\n", quoting=rows.QUOTE_NONNUMERIC)
    writer.writerow([cell if isinstance(cell, int) else harmless(cell) for cell in cells])
    return made.getvalue()[:-1]


def harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: such a text begins with an apostrophe, which says so."""
    text = clean(text, multiline=True)
    is_formula = text.lstrip()[:1] in FORMULA if text.strip() else False
    return f"'{text}" if is_formula or text.startswith(("\t", "\n")) else text


def _event(line: Attempt) -> str:
    note = f": {line.note}" if line.note else ""
    return f"{stamp(line.at)} attempt {line.attempt} {line.outcome} by {line.by}{note}"


# --- md -----------------------------------------------------------------------------------------------


def md(task: Task) -> str:
    """Return a task as a section of Markdown, in which what others wrote is shown as it is and makes nothing."""
    from mcp_bus.report import fenced, heading, span

    body, result = task.body, task.result
    about = [span(task.id), f"on {span(task.channel)}", fields.state(task), f"attempt {task.slot.attempt}"]
    about += [f"priority {task.slot.priority}"] if task.slot.priority else []
    about += [f"from {span(body.sender.agent)}", stamp(body.created)]
    lines = [
        f"## {heading(cut(fields.heading(task), 160)) or task.id}",
        "",
        ", ".join(about),
        "",
        *fenced(body.content),
    ]
    if result is not None:
        who = f"Result: {span(result.status)} by {span(result.sender.agent)}, {stamp(result.at)}"
        lines += ["", who, "", *fenced(result.content)]
        lines += ["", f"Error: {span(result.error)}"] if result.error else []
        lines += [""] if result.artifacts else []
        lines += [f"- {span(item.path)}, {item.size} bytes, sha256 {span(item.sha256)}" for item in result.artifacts]
    if task.history:
        lines += ["", "History:", "", *(f"- {span(_event(line))}" for line in task.history)]
    return "\n".join([*lines, ""])


FORMS = {"jsonl": Form((), jsonl), "csv": Form((",".join(COLUMNS),), csv), "md": Form((), md)}
