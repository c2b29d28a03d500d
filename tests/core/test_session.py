"""An agent is named by its launch configuration or by git, and two sessions of one agent differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcp_bus import names
from mcp_bus.errors import InvalidRequest
from mcp_bus.identity import session


def test_two_sessions_of_one_agent_differ_in_their_holder(tmp_path: Path) -> None:
    one, two = (session.identify(tmp_path, session=f"0000000{n}", pid=1) for n in (1, 2))
    assert one.agent == two.agent
    assert one.holder != two.holder
    assert (one.session, two.session) == ("00000001", "00000002")


def test_the_client_is_part_of_a_name_that_git_gives_and_not_of_a_configured_one(tmp_path: Path) -> None:
    given = session.identify(tmp_path, client="Claude Code!", session="1", pid=1)
    assert (given.agent, given.client) == (f"local/{tmp_path.name}+claude-code", "claude-code")
    assert session.identify(tmp_path, agent="nightly", client="x", session="1", pid=1).agent == "nightly"


@pytest.mark.parametrize("agent", ["a\nb", "a\x1b[31m", "a\u2028b", "x" * 161, "\ud800", "a\x9bb"])
def test_a_name_with_control_characters_is_refused(agent: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        session.identify(tmp_path, agent=agent, session="1", pid=1)


@pytest.mark.parametrize("word", ["", "A", "a" * 17, "a b", "../x", "a\n"])
def test_what_is_no_session_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        session.identify(tmp_path, session=word, pid=1)


@pytest.mark.parametrize("name", ["with\nnewline", "with\x1b[31mcolour", "ünïcode", "\udcff", "x" * 200])
def test_a_directory_with_any_name_gives_a_name_without_control_characters(name: str) -> None:
    made = session.identify(Path("/nowhere") / name, session="1", pid=1)
    assert session.AGENT.match(made.agent)
    assert re.match(names.HOLDER, made.holder)
    assert session.identify(Path("/"), session="1", pid=1).agent == "local/root"
