"""The words of an encrypted task are in no byte of the bus, whatever becomes of it and whoever dies on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import BusError
from mcp_bus.recovery import Tender, sweep
from mcp_bus.signing.guard import Guard
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.workers.fates import Fate
from mcp_bus.workers.jobs import Job, Recipe
from tests.crash.victim import Points, Steps, identity

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.fsops import Fs

WORD = b"swordfish"
PLACE = "vault"
# In CI each seventh call of a life is the last; `--hypothesis-profile=soak` tries them all.
IS_SOAK = settings().max_examples > 1000


class Rig:
    """A bus with an encrypted channel, and its user; copies of the bus count as the bus."""

    def __init__(self, disk: Path, *, signed: bool) -> None:
        self.start, self.home, self.scratch = disk / "start", disk / "home", disk / "scratch"
        layout.create(self.start, fs=Steps())
        with self.open(self.start, Steps(), "planner") as bus:
            for agent in ("planner", "worker"):
                key = bus.store.guard.make(agent)  # type: ignore[union-attr]  # it is the real one
                bus.store.guard.trust.pin(agent, key.public, 1)  # type: ignore[union-attr]  # as above
            bus.create_channel(PLACE, encrypt_to=["worker"], backoff_s=0, outputs=True, signed=signed)

    def open(self, root: Path, fs: Fs, agent: str, *, offset: int = 0) -> Bus:
        source = System(offset)

        def keys(bus: str) -> Guard:
            return Guard(self.home, bus, self.start, source, agent)

        return Bus(FileStore(root, fs=fs, source=source, durable=False, keys=keys), identity(agent), source)

    def life(self, root: Path, fs: Fs) -> None:
        """Post, fail, answer, read; with notes of all kinds, which are no secret."""
        text = WORD.decode()
        with self.open(root, fs, "planner") as bus:
            i = bus.post(PLACE, {"password": text}, title=text, key="k", result_schema={"required": [text]}).id
        with self.open(root, fs, "worker") as bus:
            bus.nack(bus.claim([PLACE]) or pytest.fail("nothing"), "not now")
            task = bus.claim([PLACE]) or pytest.fail("nothing")
            assert task.body.title == text
            bus.renew(task, progress="half")
            bus.ack(task, {text: text})
            sweep(bus)
            Tender()(bus)
        with self.open(root, fs, "planner") as bus:
            assert (bus.get(i).result or pytest.fail("no result")).content == f'{{"{text}":"{text}"}}'
            bus.mail.send("@worker", text, title=text, encrypt_to=["worker"])

    def leaks(self, root: Path) -> list[str]:
        return [path.name for path in root.rglob("*") if path.is_file() and WORD in path.read_bytes()]


@pytest.mark.parametrize("signed", [False, True])
def test_no_byte_of_the_bus_has_a_word_of_it_also_when_killed_at_any_call(disk: Path, *, signed: bool) -> None:
    rig = Rig(disk, signed=signed)
    count = 0
    for at, root in Points(rig.start, rig.scratch, rig.life, stride=1 if IS_SOAK else 7):
        count += 1
        assert rig.leaks(root) == [], at
        with rig.open(root, Steps(), "worker", offset=7_200_000) as bus:
            sweep(bus)
        assert rig.leaks(root) == [], at
    assert count >= 5
    rig.life(rig.start, Steps())
    assert rig.leaks(rig.start) == []


CODE = """
import json, sys
said = json.load(sys.stdin)
print("log", said["content"], file=sys.stderr)
open("/proc/self/fd/2", "w").write(said["content"])
print(said["content"]) if len(sys.argv) == 2 else sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("code", "fate"), [("", Fate.DONE), ("3", Fate.FAILED), ("65", Fate.DEAD), ("75", Fate.RELEASED)]
)
def test_a_command_gets_the_plain_text_and_what_it_writes_is_not_on_the_bus(disk: Path, code: str, fate: Fate) -> None:
    import sys

    rig = Rig(disk, signed=False)
    with rig.open(rig.start, Steps(), "planner") as bus:
        i = bus.post(PLACE, WORD.decode()).id
    with rig.open(rig.start, Steps(), "worker") as bus:
        task = bus.claim([PLACE]) or pytest.fail("nothing")
        words = (sys.executable, "-c", CODE, *([code] if code else []))
        told = Job(bus, task, Recipe(words, disk, {}, is_handler=True), rig.start).do(lambda: "")
        assert told.fate is fate
        done = bus.get(i)
        assert (done.result is None) == bool(code)
        assert done.result is None or done.result.content.strip() == WORD.decode()
    assert rig.leaks(rig.start) == []
    runs = rig.home / "runs"
    assert any(WORD in path.read_bytes() for path in runs.rglob("*") if path.is_file())
    assert {path.stat().st_mode & 0o077 for path in (rig.home, runs, *runs.iterdir())} == {0}


def test_nothing_is_encrypted_in_a_bus_that_has_no_keys(disk: Path) -> None:
    rig = Rig(disk, signed=False)
    with Bus(FileStore(rig.start, durable=False), identity("planner"), System()) as bus, pytest.raises(BusError):
        bus.post(PLACE, WORD.decode())
    assert rig.leaks(rig.start) == []
