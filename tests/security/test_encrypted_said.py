"""P27: what commands print of an encrypted task, and what workers say of it, is in no file of the bus and in no log."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_bus.encrypted import PRIVATE
from mcp_bus.signing import switch
from mcp_bus.workers import letters
from mcp_bus.workers.jobs import Job, NotStarted, Recipe
from mcp_bus.workers.letters import Letters, Source
from tests.crash.victim import Steps
from tests.security.test_encrypted_life import PLACE, WORD, Rig
from tests.security.test_encrypted_surfaces import cli, leaks
from tests.security.test_handed_out import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.security.conftest import World

__all__ = ["cli"]
TEXT = WORD.decode()
# What an agent does that is not logged in: it echoes what it was asked.
ECHO = "import sys; print(sys.stdin.read()); print('401 Unauthorized: not logged in', file=sys.stderr); sys.exit(1)"
NEVER = "import sys; print(sys.stdin.read()); sys.exit(65)"


def recipe(disk: Path, code: str, *, reader: str = "text") -> Recipe:
    return Recipe((sys.executable, "-c", code), disk, {}, reader=reader, is_handler=True)


def test_an_agent_that_cannot_work_here_ends_its_worker_without_being_quoted(disk: Path) -> None:
    rig = Rig(disk, signed=False)
    with rig.open(rig.start, Steps(), "planner") as bus:
        bus.post(PLACE, TEXT)
    with rig.open(rig.start, Steps(), "worker") as bus:
        task = bus.claim([PLACE]) or pytest.fail("nothing to claim")
        with pytest.raises(NotStarted, match="cannot work here") as error:
            Job(bus, task, recipe(disk, ECHO, reader="codex"), rig.start).do(lambda: "")
    assert TEXT not in str(error.value)
    assert PRIVATE in str(error.value)
    assert rig.leaks(rig.start) == []


def test_a_handler_that_cannot_work_here_is_not_quoted_either(disk: Path) -> None:
    rig = Rig(disk, signed=False)
    with rig.open(rig.start, Steps(), "planner") as bus:
        bus.mail.send("@worker", TEXT, encrypt_to=["worker"])
    with rig.open(rig.start, Steps(), "worker") as bus:
        source = Source("@inbox", ("@worker",), most=1)
        with pytest.raises(NotStarted) as error:
            Letters(bus, rig.start, recipe(disk, ECHO, reader="codex"), source, Silent()).run()
    assert TEXT not in str(error.value)
    assert rig.leaks(rig.start) == []


def test_the_human_is_told_of_a_letter_that_is_given_up_and_not_what_its_command_said(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(disk, signed=False)
    monkeypatch.setattr(letters, "PAUSE_S", 0.01)
    with rig.open(rig.start, Steps(), "planner") as bus:
        bus.mail.send("@worker", TEXT, encrypt_to=["worker"])
    with rig.open(rig.start, Steps(), "worker") as bus:
        source = Source("@inbox", ("@worker",), most=1)
        Letters(bus, rig.start, recipe(disk, NEVER), source, Silent()).run()
    with rig.open(rig.start, Steps(), "human") as bus:
        (note,) = bus.mail.read()
    assert "gave up on" in note.body.content
    assert PRIVATE in note.body.content
    assert rig.leaks(rig.start) == []


def test_a_worker_names_no_title_no_text_and_no_reason_of_what_it_does(cli: Cli) -> None:
    for title in (WORD, b""):
        words = ("--encrypt-to", "worker", "--title", title.decode())
        assert cli.main("--agent", "planner", "post", "vault", TEXT, *words)[0] == 0
    done = cli.run("--agent", "worker", "worker", "run", "vault", "--tasks", "2", "--", sys.executable, "-c", NEVER)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("begun: (encrypted)") == 2
    assert done.stderr.count(f"dead: {PRIVATE}") == 2
    assert TEXT not in done.stdout + done.stderr
    assert leaks(cli.bus) == []


def test_the_inbox_of_a_session_is_encrypted_as_its_agents_is_whatever_its_own_file_says(world: World) -> None:
    world.key("mallory")
    world.key("second")
    bus, worker = world.bus(), world.bus("worker")
    bus.create_channel("@worker", encrypt_to=["worker"])
    worker.roster.arrive(())
    place = f"@worker~{worker.identity.session}"
    bus.store.declare(place, bus.store.policy("@worker"))
    path = world.root / "channels" / place / "channel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encrypt_to": ["mallory"]}))
    i = world.bus().mail.send(place.removeprefix("@"), TEXT).id
    assert [world.bus(agent).get(i).body.content == TEXT for agent in ("worker", "mallory")] == [True, False]
    switch.readdress(bus.store, "@worker", ["second"])
    i = world.bus().mail.send(place.removeprefix("@"), TEXT).id
    assert [world.bus(agent).get(i).body.content == TEXT for agent in ("worker", "second")] == [False, True]


def test_a_filter_does_not_judge_what_it_cannot_read_and_nothing_is_lost(world: World, disk: Path) -> None:
    closed = world.bus("worker", home=disk / "empty")
    closed.mail.topics.subscribe("news", {"signal": "build"})
    world.bus().mail.send("#news", {"signal": "build", "word": TEXT}, encrypt_to=["worker"])
    world.bus().mail.send("#news", {"signal": "rain", "word": TEXT}, encrypt_to=["worker"])
    assert closed.mail.read() == []
    assert closed.mail.unread().messages == 0
    world.source.advance(60)  # The next session did not see them come.
    reader = world.bus("worker")
    assert [json.loads(item.body.content)["signal"] for item in reader.mail.read()] == ["build"]
