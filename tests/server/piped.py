"""What the tests of the tool `pipe` share: calls about one pipe, and what an answer shows of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.server.support import BLOCK

if TYPE_CHECKING:
    from tests.server.support import Desk

ENDED = "log has ended: its writer closed it, or went away, after "


async def read(reader: Desk, **more: object) -> str:
    return await reader.call("pipe", action="read", name="log", **more)


async def write(writer: Desk, data: object, **more: object) -> str:
    return await writer.call("pipe", action="write", name="log", data=data, **more)


def text(answer: str) -> str:
    """Return what an answer shows of a stream; nothing if it shows nothing."""
    blocks = BLOCK.findall(answer)
    assert len(blocks) <= 1
    return blocks[0][1] if blocks else ""
