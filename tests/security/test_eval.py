"""Type `eval`: nothing here runs it, nobody posts it by the way, and who gets one from abq is told what it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import access, config
from mcp_bus.errors import InvalidRequest, NotAllowed
from mcp_bus.server import answers
from mcp_bus.server.words import ALL_WAYS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus


@pytest.fixture
def refused(bus: Bus) -> Callable[[Callable[[], object]], None]:
    """Checks that a way to post eval is refused with how it is allowed, and that nothing is written."""

    def check(way: Callable[[], object]) -> None:
        before = bus.store.ids()
        with pytest.raises(NotAllowed) as error:
            way()
        assert "MCP_BUS_ALLOW_EVAL=yes" in error.value.hint
        assert bus.store.ids() == before

    return check


def test_no_verb_posts_it(bus: Bus, refused: Callable[[Callable[[], object]], None]) -> None:
    bus.create_channel("work")
    bus.create_channel("news", kind="topic")
    refused(lambda: bus.post("work", "print(1)", type="eval"))
    refused(lambda: bus.mail.send("human", "print(1)", type="eval"))
    refused(lambda: bus.mail.send("work", "print(1)", type="eval"))
    refused(lambda: bus.mail.send("news", "print(1)", type="eval"))


def test_an_edited_retry_does_not_bring_one_anew(
    bus: Bus, other: Bus, refused: Callable[[Callable[[], object]], None]
) -> None:
    other.may_eval = True
    task = other.post("work", "print(1)", type="eval")
    bus.nack(bus.claim(["work"]) or pytest.fail("nothing to claim"), "no", final=True)
    refused(lambda: bus.retry(task.id, body="print(2)"))


def test_who_allows_it_posts_it_and_others_types_need_no_leave(bus: Bus) -> None:
    bus.post("work", "x", type="command")
    bus.may_eval = True
    assert bus.get(bus.post("work", "print(1)", type="eval").id).body.type == "eval"


@pytest.mark.parametrize("kind", ["eval", "command"])
def test_who_claims_one_is_told_what_it_is(bus: Bus, kind: str) -> None:
    bus.may_eval = True
    bus.post("work", "print(1)", type=kind)
    task = bus.claim(["work"]) or pytest.fail("nothing to claim")
    assert f"{kind} (" in answers.claimed(bus, task, (), ALL_WAYS)
    assert "nothing here" in access.kind(kind)
    assert access.kind("note") == "note"


def test_it_is_set_by_a_user_and_not_by_a_project(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert config.load(env=env, cwd=tmp_path)["post_eval"] is False
    assert config.load(env=env | {"MCP_BUS_ALLOW_EVAL": "yes"}, cwd=tmp_path)["post_eval"] is True
    (tmp_path / "mcp-bus.toml").write_text("post_eval = true")
    with pytest.raises(InvalidRequest, match="a project's file may not"):
        config.load(env=env, cwd=tmp_path)


def test_the_setting_reaches_the_bus(disk: Path) -> None:
    for value in (False, True):
        with config.open_bus(disk / "bus", post_eval=value) as bus:
            assert bus.may_eval is value


def test_what_abq_left_is_delivered_as_data_and_named(root: Path, file_bus: Bus) -> None:
    path = root / "channels" / "work"
    file_bus.create_channel("work")
    message = {"id": "req_0000000000000abc", "to": "work", "type": "eval", "content": "1/0", "from": {"agent": "abq"}}
    (path / "requests" / "req_0000000000000abc.json").write_text(json.dumps(message))
    task = file_bus.claim(["work"]) or pytest.fail("nothing to claim")
    assert task.body.content == "1/0"
    assert "asks to run it as code" in answers.claimed(file_bus, task, (), ALL_WAYS)
