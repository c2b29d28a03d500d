"""The answers on the page about the tools are what the tools answer."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio

from mcp_bus.server.tools import PIPE, TOOLS
from tests.docs.executed import ROOT, blocks
from tests.server.support import desk, open_bus

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "tools.md"
# Ids and tokens: whatever the page has stands for whatever the run made, the same for the same.
_MADE = re.compile(r"(?<![0-9a-f])([0-9a-f]{12}|[0-9a-f]{8})(?![0-9a-f])")


def calls() -> list[tuple[str, str, str]]:
    """Return tool, arguments and answer of each example."""
    found = []
    for block in blocks(PAGE.read_text("utf-8")):
        head, _, answer = block.text.partition("\n\n")
        tool, _, arguments = head.partition(" ")
        found.append((tool, arguments, answer.strip("\n")))
    return found


def pattern(wanted: str, known: dict[str, str]) -> str:
    """Return what an answer must match; what is not known yet becomes a group of its name."""
    made, begun = "", set[str]()
    for number, part in enumerate(re.split(_MADE, wanted)):
        if number % 2 == 0:
            made += ".*?".join(map(re.escape, part.split("...")))
        elif part in known:
            made += re.escape(known[part])
        else:
            made += f"(?P=x{part})" if part in begun else f"(?P<x{part}>[0-9a-f]{{{len(part)}}})"
            begun.add(part)
    return made


def filled(text: str, known: dict[str, str]) -> str:
    """Return a text of the page with what this run made in place of what the page has."""
    return _MADE.sub(lambda word: known[word[1]], text)


def test_every_tool_has_an_example() -> None:
    assert {tool for tool, _, _ in calls()} == {tool.name for tool in (*TOOLS, PIPE)}


def test_the_examples_answer_what_the_page_says(tmp_path: Path) -> None:
    """One agent makes the calls; where the page sends a message, another reads and answers it."""
    stack = ExitStack()

    async def run() -> None:
        known: dict[str, str] = {}
        async with desk(tmp_path, "auto", pipes=True) as ann:
            for tool, arguments, wanted in calls():
                given = json.loads(filled(arguments, known))
                if tool == "send_message":
                    bob = stack.enter_context(open_bus(tmp_path))
                    bob.roster.arrive()
                answer = await ann.client.call_tool(tool, given)
                if tool == "send_message":
                    (question,) = bob.mail.read()
                    bob.mail.send("", "8080", reply_to=question.body.id)
                    bob.mail.ack()
                text = "".join(getattr(part, "text", "") for part in answer.content)
                found = re.fullmatch(pattern(wanted, known), text, re.DOTALL)
                assert found is not None, f"{tool}\n--- the page says\n{wanted}\n--- it answers\n{text}"
                known |= {name[1:]: word for name, word in found.groupdict().items()}

    with stack:
        anyio.run(run)
