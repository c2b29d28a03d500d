"""The official conformance suite over HTTP, and the Inspector over stdio, find a server that keeps the rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from e2e import npm
from e2e.clients import RUN_S, plain
from e2e.settings import ROOT
from e2e.table import NOTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KNOWN = ROOT / "e2e" / "conformance"


class Suite(NamedTuple):
    """A release of the suite.

    Attributes:
        revision: of the protocol, for which it is run.
        least: how many of its scenarios pass at least.
        most: how many are known to fail at most; a warning counts as a failure.
    """

    version: str
    revision: str
    options: tuple[str, ...]
    least: int
    most: int

    def __str__(self) -> str:
        """Return it as a test is named."""
        return self.revision


SUITES = (
    Suite("0.1.16", "2025-11-25", (), 12, 18),
    Suite("0.2.0-alpha.12", "2026-07-28", ("--requirements", "2026-07-28"), 16, 36),
)


@pytest.fixture(scope="session")
def node() -> Path:
    """Return the Node that suite and Inspector need, which is newer than what many machines have."""
    return _fetched("node", "node", "22.23.3", "node")


def _fetched(*wanted: str) -> Path:
    try:
        return npm.fetch(*wanted)
    except npm.MissingProgram as error:
        pytest.skip(str(error))


@contextmanager
def served(home: Path) -> Iterator[str]:
    """Serve a new bus over HTTP to whoever comes, and return where."""
    words = [sys.executable, str(ROOT / "e2e" / "open_door.py"), "serve", "--http", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=plain(home), cwd=home) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            assert server.wait(RUN_S) == 0


def known(suite: Suite) -> list[str]:
    """Return the scenarios that are known to fail."""
    found: list[str] = yaml.safe_load((KNOWN / f"{suite.revision}.yml").read_text("utf-8"))["server"]
    return found


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_what_is_known_to_fail_has_a_reason_and_only_grows_less(suite: Suite) -> None:
    text = (KNOWN / f"{suite.revision}.yml").read_text("utf-8")
    assert re.findall(r"^  - (\S+)  # \S.{20,}$", text, re.MULTILINE) == known(suite)
    assert len(set(known(suite))) == len(known(suite)) <= suite.most


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_official_suite_finds_nothing_new(
    suite: Suite, node: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    command = _fetched("conformance", "@modelcontextprotocol/conformance", suite.version, "conformance")
    with served(tmp_path) as url:
        words = ["server", "--url", url, *suite.options, "-o", str(tmp_path / "results")]
        words += ["--expected-failures", str(KNOWN / f"{suite.revision}.yml")]
        done = _run(node, command, words, tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    marks = re.findall(r"^([✓✗]) ([a-z0-9-]+): \d+ passed", done.stdout, re.MULTILINE)
    passed, failed = ({name for mark, name in marks if mark == wanted} for wanted in "✓✗")
    assert failed <= set(known(suite))
    assert len(passed) >= suite.least
    record_property(
        NOTED, f"conformance {suite.version}, {suite.revision}: {len(passed)} of {len(marks)} scenarios pass"
    )


def _run(node: Path, command: Path, words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    env = plain(home)
    env["PATH"] = os.pathsep.join([str(node.parent), env["PATH"]])
    return subprocess.run(
        [str(command), *words], cwd=home, env=env, capture_output=True, text=True, timeout=RUN_S * 2, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Inspector:
    """The Inspector's command line, which starts the server anew for each call."""

    def __init__(self, node: Path, home: Path) -> None:
        self._node = node
        self._home = home
        self._command = _fetched("inspector", "@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")

    def ask(self, method: str, *words: str) -> dict[str, Any]:
        """Return what the server answers to a method."""
        serve = [sys.executable, "-m", "mcp_bus", "serve"]
        told = ["-e", f"MCP_BUS_DIR={self._home / 'bus'}", "-e", f"PYTHONPATH={ROOT}", "-e", "MCP_BUS_AGENT=ann"]
        done = _run(self._node, self._command, ["--cli", *serve, *told, "--method", method, *words], self._home)
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def call(self, tool: str, **arguments: str) -> str:
        """Return the text with which a tool answers."""
        given = [f"{name}={value}" for name, value in arguments.items()]
        answer = self.ask("tools/call", "--tool-name", tool, *(["--tool-arg", *given] if given else []))
        assert not answer.get("isError"), answer
        text: str = answer["content"][0]["text"]
        return text


def test_the_inspector_lists_calls_and_reads(node: Path, tmp_path: Path) -> None:
    inspector = Inspector(node, tmp_path)
    listed = {tool["name"]: tool for tool in inspector.ask("tools/list")["tools"]}
    assert {"post_task", "claim_next", "submit_result"} <= listed.keys()
    assert "posted" in inspector.call("post_task", channel="review", body="look at it")
    task, token = re.findall(
        r"task (\w{8}) token (\w+) on review", inspector.call("claim_next", channels='["review"]')
    )[0]
    assert task
    assert token
    (content,) = inspector.ask("resources/read", "--uri", "bus://channels")["contents"]
    assert json.loads(content["text"])[0]["counts"]["ready"] == 1, "the Inspector left, and what it held came back"
    templates = inspector.ask("resources/templates/list")["resourceTemplates"]
    assert "bus://tasks/{id}" in {item["uriTemplate"] for item in templates}
    prompt = inspector.ask("prompts/get", "--prompt-name", "work", "--prompt-args", "channel=review")
    assert 'claim_next(channels=["review"])' in prompt["messages"][0]["content"]["text"]
