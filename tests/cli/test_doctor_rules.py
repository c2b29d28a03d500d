"""doctor on rules and keys: what keeps anybody from posting or claiming is told, and nothing of others' business."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import AT_ONCE

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setattr("mcp_bus.stores.trial.between_processes", lambda *_: AT_ONCE)


def findings(cli: Cli, *words: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.json("doctor", *words, code=code)["findings"]
    return found


def about(found: list[dict[str, Any]], which: str) -> list[dict[str, Any]]:
    return [item for item in found if item["about"] == which]


def test_rules_that_cannot_be_read_need_a_person(cli: Cli) -> None:
    cli.post()
    (cli.bus / "channels" / "work" / "channel.json").write_text("")
    [item] = about(findings(cli, code=6), "channel")
    assert (item["level"], item["fix"]) == ("person", "mcp-bus fsck")
    assert "'channels/work/channel.json'" in item["said"]


def test_a_signed_bus_that_was_trusted_at_another_place_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.json("key", "new")
    cli.json("channel", "create", "deploy", "signed=yes")
    assert not about(findings(cli), "keys")
    moved = cli.bus.rename(cli.bus.with_name("moved"))
    monkeypatch.setenv("MCP_BUS_DIR", str(moved))
    found = findings(cli, code=1)
    [item] = about(found, "keys")
    assert item["level"] == "bad"
    assert "was trusted at another place" in item["said"]
    assert "key trust --here" in item["fix"]


def test_readers_that_differ_from_what_is_remembered_are_told(cli: Cli) -> None:
    cli.json("key", "new")
    cli.json("channel", "create", "sec", "encrypt_to=tester")
    assert not about(findings(cli), "encryption")
    path = cli.bus / "channels" / "sec" / "channel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encrypt_to": ["eve"]}))
    [item] = about(findings(cli, code=1), "encryption")
    assert "says that it is encrypted to 'eve'" in item["said"]


def test_of_keys_only_that_is_told_which_is_this_agent_s_business(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.json("key", "new")
    cli.json("channel", "create", "sec")
    for channel, to in (("@ann", "ann"), ("@tester", "ann"), ("sec", "ann"), ("@bob", "tester,ann")):
        cli.json("channel", "set", channel, f"encrypt_to={to}")
    told = [item["said"].split()[0] for item in about(findings(cli), "encryption")]
    assert told == ["@bob", "@tester", "sec"]
    monkeypatch.setenv("MCP_BUS_CHANNELS", "other")
    assert [item["said"].split()[0] for item in about(findings(cli), "encryption")] == ["@bob", "@tester"]


def test_the_bus_is_not_both_good_and_bad(cli: Cli) -> None:
    (cli.bus / "bus.json").write_text("")
    [item] = about(findings(cli, code=1), "bus")
    assert item["level"] == "bad"
    assert "fsck --repair" in item["fix"]


def test_it_says_that_fsck_looks_at_every_file(cli: Cli) -> None:
    [item] = about(findings(cli), "files")
    assert item["said"].startswith("`mcp-bus fsck` looks at every file")
