"""The token of a lease is its holder's: what looks after a bus, and errors of the disk, print none of others."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus
from mcp_bus.cli.main import main
from mcp_bus.names import place, staged
from mcp_bus.server import resources
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


@pytest.mark.parametrize("verb", ["status", "log", "agents", "ls"])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_what_shows_a_bus_shows_no_token(
    disk: Path, capsys: pytest.CaptureFixture[str], verb: str, form: list[str]
) -> None:
    with open_bus(disk / "bus", agent="zoe") as bus:
        bus.post("work", "x")
        task = bus.claim(["work"]) or pytest.fail("nothing to claim")
        bus.renew(task, progress="half")
        bus.release(task)
        held = bus.claim(["work"]) or pytest.fail("nothing to claim")
        main(["--bus", str(disk / "bus"), "--agent", "bob", verb, *form])
        said = "".join(capsys.readouterr())
        assert "work" in said or "zoe" in said
        assert task.lease.token not in said
        assert held.lease.token not in said


def test_the_journal_has_no_token(root: Path, file_bus: Bus) -> None:
    file_bus.post("work", "x")
    token = (file_bus.claim(["work"]) or pytest.fail("nothing to claim")).lease.token
    text = "".join(path.read_text() for path in (root / "journal").iterdir())
    assert "leased" in text
    assert token not in text


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENAMETOOLONG])
def test_an_error_of_the_medium_names_a_claim_without_its_token(
    root: Path, file_bus: Bus, source: VirtualSource, number: int
) -> None:
    file_bus.post("work", "x")
    task = file_bus.claim(["work"]) or pytest.fail("nothing to claim")
    tree = Tree(root, Fs(), source)
    for name in (place(task.slot).name, staged(task.slot)):
        said = str(tree.explain(OSError(number, "no", name)))
        assert task.id in said
        assert task.lease.token not in said
    tree.close()


def test_the_resource_of_a_task_shows_no_token_of_whoever_held_it(disk: Path) -> None:
    with open_bus(disk / "bus", agent="zoe") as bus:
        i = bus.post("work", "x").id
        first = bus.claim(["work"]) or pytest.fail("nothing to claim")
        bus.nack(first, "not today", retry_in_s=0)
        second = bus.claim(["work"]) or pytest.fail("nothing to claim")
        bus.renew(second, progress="half of it")
        shown = resources.read(bus, f"bus://tasks/{i}")
        assert [line.token for line in bus.get(i).history] == [first.ticket.token, second.ticket.token]
    assert json.loads(shown)["history"][0]["note"] == "not today"
    assert first.ticket.token not in shown
    assert second.ticket.token not in shown
