"""A channel's rule `outputs` holds for all who work on it: the command line, a worker, a server, abq's verbs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mcp_bus import config
from mcp_bus.server.app import build
from tests.server.support import claim_in, serving

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def asked(cli: Cli) -> Cli:
    """A command line on a bus whose channel has the rule."""
    assert cli.json("channel", "create", "work", "outputs=yes")["outputs"] is True
    return cli


def text(cli: Cli, task_id: str) -> str:
    return (cli.bus / "outputs" / f"{task_id}_result.md").read_text()


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("TRUE", True), ("0", False), ("off", False)])
def test_the_rule_is_a_yes_or_no(cli: Cli, word: str, *, value: bool) -> None:
    cli.json("channel", "create", "work")
    assert cli.json("channel", "set", "work", f"outputs={word}")["outputs"] is value
    assert re.search(rf"outputs +{'yes' if value else 'no'}\n", cli.main("channel", "show", "work")[1])
    code, _, err = cli.main("channel", "set", "work", "outputs=perhaps")
    assert (code, "it is yes or no" in err, "for example outputs=no" in err) == (2, True, True)


def test_what_is_submitted_is_there_to_read(asked: Cli) -> None:
    task = asked.post()
    _, token = asked.claim()
    asked.json("submit", task, "--token", token, "--done", "two nits")
    assert text(asked, task).endswith("\n---\n\ntwo nits\n")


def test_what_a_worker_brings_is_there_to_read(asked: Cli) -> None:
    task = asked.post()
    assert asked.run("worker", "run", "work", "--tasks", "1", "--", "echo", "from a worker").returncode == 0
    assert text(asked, task).endswith("\nfrom a worker\n")


@pytest.mark.anyio
async def test_what_a_model_submits_is_there_to_read(asked: Cli) -> None:
    task = asked.post()
    server = build(config.load({"bus": asked.bus, "agent": "ann", "wait_s": 0.0}))
    async with serving(server, "auto") as ann:
        claim = claim_in(await ann.call("claim_next"))
        await ann.call("submit_result", **claim.mine, result="from a model")
        assert text(asked, task).endswith("\nfrom a model\n")


def test_what_is_answered_for_abq_is_there_to_read(asked: Cli) -> None:
    task = asked.post()
    channel = asked.bus / "channels" / "work"
    (channel / "requests" / f"{task}.json").rename(channel / "processing" / f"{task}.json")
    done = asked.run("abq", "respond", "work", task, "--result", "for abq", env={"ABQ_HOME": str(asked.bus)})
    assert done.returncode == 0, done.stderr
    assert text(asked, task).endswith("\nfor abq\n")
