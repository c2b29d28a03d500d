"""A bus with signed channels, agents whose keys are trusted, and someone who can write its files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus import find
from mcp_bus.signing import jws, keys
from mcp_bus.signing.guard import Guard
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from tests.crash.victim import Steps
from tests.fakes import bus_on
from tests.security.people import ALICE, GROUP, filled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.stores.fsops import Fs
    from tests.fakes import VirtualSource

CHANNEL = "deploy"


class Paths(NamedTuple):
    """Where a waiting task's files are."""

    body: Path
    identity: Path
    seal: Path


class World:
    """A bus directory, a private folder, and what an attacker does to the first."""

    def __init__(self, root: Path, home: Path, source: VirtualSource) -> None:
        self.root, self.home, self.source = root, home, source
        self._open: list[Bus] = []

    def bus(self, agent: str = "planner", *, home: Path | None = None, fs: Fs | None = None) -> Bus:
        """Open the bus as a new session of an agent, whose user has `home`."""
        folder = self.home if home is None else home
        store = FileStore(
            self.root,
            fs=fs,
            source=self.source,
            durable=False,
            keys=lambda bus: Guard(folder, bus, self.root, self.source, agent),
        )
        self._open.append(bus_on(store, self.source, agent, f"{len(self._open):08x}"))
        return self._open[-1]

    def guard(self, home: Path | None = None) -> Guard:
        found = self.bus(home=home).store.guard
        assert isinstance(found, Guard)
        return found

    def key(self, agent: str) -> str:
        """Make a key that is trusted here; return its kid."""
        made = self.guard().make(agent)
        self.guard().trust.pin(agent, made.public, self.source.now())
        return made.kid

    def close(self) -> None:
        for bus in self._open:
            bus.close()

    def holds(self, text: str) -> list[str]:
        """Return the files of the bus that have a text in them, whatever they are."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return [path.relative_to(self.root).as_posix() for path in files if text.encode() in path.read_bytes()]

    # --- the attacker ---------------------------------------------------------------------------

    def paths(self, task_id: str, channel: str = CHANNEL) -> Paths:
        body = self.root / "channels" / channel / "requests" / f"{task_id}.json"
        return Paths(body, self.root / "tasks" / f"{task_id}.json", self.root / "signatures" / f"{task_id}.jws")

    def place(self, task_id: str, data: bytes, seal: bytes | None, channel: str = CHANNEL) -> None:
        """Put a body, and its signature if there is one, where they belong by their names."""
        to = self.paths(task_id, channel)
        if seal is not None:
            to.seal.parent.mkdir(exist_ok=True)
            to.seal.unlink(missing_ok=True)
            to.seal.write_bytes(seal)
        to.identity.unlink(missing_ok=True)
        to.body.write_bytes(data)
        os.link(to.body, to.identity)

    def forged(self, agent: str = "planner", content: str = "forged", channel: str = CHANNEL) -> tuple[str, bytes]:
        """Return the id and bytes of a message as that agent would have posted it."""
        task_id = f"req_{self.source.now():012x}{os.urandom(10).hex()}"
        said = {"id": task_id, "type": "task", "from": {"agent": agent, "pid": 1, "pwd": "/"}, "to": channel}
        return task_id, json.dumps(said | {"content": content}).encode()

    # --- the effect -----------------------------------------------------------------------------

    def work(self, agent: str = "worker", *, home: Path | None = None, channel: str = CHANNEL) -> list[str]:
        """Claim and finish all that is handed out; return what it said."""
        bus, got = self.bus(agent, home=home), list[str]()
        while (task := bus.claim([channel])) is not None:
            got.append(task.body.content)
            assert task.verified.startswith(f"{task.body.sender.agent} (")
            bus.ack(task, "done")
        return got

    def reasons(self) -> list[str]:
        """Return why things were put aside."""
        found = (self.root / "quarantine").glob("*.reason.json")
        return [str(json.loads(path.read_text())["reason"]) for path in found]


def refused(world: World, why: str, *, home: Path | None = None) -> None:
    """Assert that only what comes now is handed out, and that the rest was put aside because of `why`."""
    world.bus().post(CHANNEL, "honest")
    assert world.work(home=home) == ["honest"]
    assert any(why in reason for reason in world.reasons()), world.reasons()


def passed_over(world: World, why: str, *, home: Path | None = None) -> None:
    """Assert that only what comes now is handed out, that nothing was put aside, and that `why` is told."""
    world.bus().post(CHANNEL, "honest")
    assert world.work(home=home) == ["honest"]
    assert world.reasons() == []
    assert why in find.why_empty(world.bus("worker", home=home), [CHANNEL], ())


def other_home(world: World, disk: Path) -> Path:
    """Return the private folder of another user who trusts the same keys, and has the worker's."""
    other = disk / "other"
    shutil.copytree(world.home / "keys", other / "keys")
    for key in world.guard().own():
        world.guard(other).trust.pin(key.agent, key.public, world.source.now())
    return other


def signed_by(world: World, home: Path, agent: str, i: str, data: bytes, **other: object) -> bytes:
    """Sign with a key from another folder, as whoever has it would."""
    guard = Guard(home, "bus_" + "0" * 16, world.root, world.source)
    key = (guard.own(agent) or [guard.make(agent)])[-1]
    claim = {"bus": world.guard()._bus, "channel": CHANNEL, "use": "body", "id": i, "to": CHANNEL}
    times = {"exp": world.source.now() + 10**9, "iat": world.source.now()}
    return jws.make(key.private, {"kid": key.kid, "jwk": keys.jwk(key.public)} | claim | times | other, data)


@pytest.fixture
def world(root: Path, disk: Path, source: VirtualSource) -> Iterator[World]:
    """A bus with the signed channel `deploy`; planner and worker have keys that are trusted."""
    made = World(root, disk / "home", source)
    for agent in ("planner", "worker"):
        made.key(agent)
    bus = made.bus()
    bus.create_channel(CHANNEL, signed=True)
    yield made
    made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everyone may use, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="bus-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shared(place: Path) -> Path:
    """A bus that alice made for the group, with three tasks of hers."""

    def act() -> None:
        layout.create(place / "bus", fs=Steps(), group=GROUP)
        filled(place / "bus")

    ALICE.does(act, 0o077)
    return place / "bus"
