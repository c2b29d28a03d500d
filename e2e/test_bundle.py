"""The bundle for Claude Desktop: the format's own program takes it, and uv starts what is in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING
from zipfile import ZipFile

import anyio
import pytest
from mcp.client.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters

from e2e import npm
from e2e.clients import RUN_S
from mcp_bus.server.tools import TOOLS
from tests.test_bundle import configured
from tools import bundle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)
PACKAGE, VERSION = "@anthropic-ai/mcpb", "2.1.2"


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return npm.fetch("mcpb", PACKAGE, VERSION, "mcpb")
    except npm.MissingProgram as error:
        pytest.skip(f"{PACKAGE} {VERSION}: {error}")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return bundle.build(tmp_path)


@pytest.fixture
def unpacked(archive: Path) -> Path:
    folder = archive.parent / "unpacked"
    with ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def run(*words: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_format_s_own_program_finds_it_valid_and_packs_the_same_files(
    program: Path, archive: Path, unpacked: Path
) -> None:
    assert "validation passes" in run(program, "validate", bundle.MANIFEST)
    run(program, "pack", unpacked, archive.parent / "theirs.mcpb")
    with ZipFile(archive) as ours, ZipFile(archive.parent / "theirs.mcpb") as theirs:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())
        assert [name for name in ours.namelist() if ours.read(name) != theirs.read(name)] == []


def test_its_program_refuses_a_manifest_with_a_word_too_many(program: Path, unpacked: Path) -> None:
    made = bundle.manifest()
    made["server"]["mcp_config"]["cwd"] = "elsewhere"
    (unpacked / "manifest.json").write_text(json.dumps(made))
    with pytest.raises(AssertionError, match="Unrecognized key"):
        run(program, "validate", unpacked)


def test_uv_starts_the_server_of_an_unpacked_bundle(unpacked: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv, which the bundle is started with, is not on PATH")
    made = configured(unpacked, directory=str(unpacked.parent / "bus"), agent="ann")
    # Where uv gets things from is this machine's.
    mine = {name: text for name, text in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    env = {"HOME": str(unpacked.parent), "PATH": os.environ["PATH"]} | mine | made["env"]
    server = StdioServerParameters(command=uv, args=made["args"], env=env, cwd=str(unpacked.parent))

    async def talk() -> tuple[list[str], str]:
        with anyio.fail_after(RUN_S):
            async with McpClient(server) as client:
                await client.call_tool("send_message", {"to": "@bob", "body": "hello"})
                assert client.server_info
                return [tool.name for tool in (await client.list_tools()).tools], client.server_info.version

    assert anyio.run(talk) == ([tool.name for tool in TOOLS], bundle.version())
    assert (unpacked.parent / "bus" / "bus.json").is_file()
