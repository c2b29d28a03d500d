"""The tool `pipe` of a server that is a process of its own, with a shell at the other end."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from tests.server.piped import ENDED, read, text, write
from tests.server.support import command, environment, process, serving

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio


def shell(place: Path, *words: str) -> subprocess.Popen[str]:
    """Start `mcp-bus pipe` as a shell does."""
    program = [*command(place)[:3], "--bus", str(place / "bus"), "--quiet", "pipe", *words]
    return subprocess.Popen(
        program,
        env=environment(place),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ended(started: subprocess.Popen[str], data: str | None = None) -> tuple[str, str]:
    """Wait for a process, with a limit, while the server is served."""
    return await anyio.to_thread.run_sync(lambda: started.communicate(data, timeout=30))


async def test_a_shell_writes_what_a_server_process_reads(place: Path, era: str) -> None:
    data = "".join(f"{number}\n" for number in range(20_000))
    got = ""
    async with serving(process(place, MCP_BUS_PIPES="1"), era) as ann, anyio.create_task_group() as group:
        writer = shell(place, "write", "log")
        group.start_soon(ended, writer, data)
        while ENDED not in (answer := await read(ann, wait_s=20)):
            got += text(answer)
        got += text(answer)
    assert writer.returncode == 0
    assert got == data


async def test_a_shell_reads_what_a_server_process_writes(place: Path, era: str) -> None:
    async with serving(process(place, MCP_BUS_PIPES="1"), era) as ann:
        reader = shell(place, "read", "log")
        assert "took all 6 characters" in await write(ann, "hello\n", wait_s=20)
        assert "took all 8 characters" in await write(ann, base64.b64encode(b"world").decode(), base64=True)
        await ann.call("pipe", action="close", name="log")
        assert await ended(reader) == ("hello\nworld", "")
    assert reader.returncode == 0


@pytest.mark.parametrize("action", ["read", "write"])
async def test_a_killed_server_leaves_nothing_that_blocks_a_shell(place: Path, bob: Bus, action: str) -> None:
    told = list[tuple[str, str]]()
    other = shell(place, {"read": "write", "write": "read"}[action], "log")
    # A client tells of its server's death in ways of its own.
    with suppress(Exception):
        async with serving(process(place, MCP_BUS_PIPES="1"), "auto") as ann:
            if action == "read":
                assert other.stdin is not None
                other.stdin.write("hello")
                other.stdin.flush()
                assert text(await read(ann, wait_s=20)) == "hello"
            else:
                await write(ann, "hello", wait_s=20)
            (pid,) = [item.presence.pid for item in bob.roster.all() if item.presence.agent == "ann"]
            os.kill(pid, signal.SIGKILL)
            told.append(await ended(other, "x" * 200_000 if action == "read" else None))
    ((out, err),) = told
    if action == "read":
        assert other.returncode == 1
        assert "the reader of 'log' went away; " in err
    else:
        assert (other.returncode, out) == (0, "hello")
