"""P20 and P27: what is acted on is what was verified when it was handed out, whoever writes its file later."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_bus import bidding, find
from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import IllegalTransition, NotAllowed, Unverified
from mcp_bus.model import State, Ticket
from mcp_bus.signing.guard import Guard
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.workers import letters
from mcp_bus.workers.fates import Fate
from mcp_bus.workers.jobs import Job, Recipe
from mcp_bus.workers.letters import Letters, Source
from tests.crash.victim import identity
from tests.security.conftest import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.model import Body
    from mcp_bus.workers.fates import Told
    from tests.security.conftest import World

PLACE = "vault"
SECRET = "swordfish"  # noqa: S105  what the tests look for, and nobody's password
EVIL = "evil text"


class Silent:
    """Hears what a handler does."""

    def __init__(self) -> None:
        self.said = list[str]()
        self.told: list[Told] = []

    def begun(self, body: Body) -> None:
        del body

    def ended(self, body: Body, told: Told) -> None:
        del body
        self.told.append(told)

    def say(self, text: str) -> None:
        self.said.append(text)


def written_over(path: Path, *, content: str = EVIL, strip: bool = False) -> None:
    """Let an attacker change a message in place, and take off that it is encrypted."""
    said = json.loads(path.read_text())
    said["content"] = content
    if strip:
        said.get("bus", {}).pop("encrypted", None)
    path.write_text(json.dumps(said))


def strip(world: World, i: str) -> None:
    written_over(world.root / "tasks" / f"{i}.json", content="x", strip=True)


def moved(world: World, i: str, channel: str) -> None:
    """Give a held task another expiry, as a renewal by its holder would: whoever writes to it looks again."""
    (path,) = (world.root / "channels" / channel / "processing").glob(f"{i}*")
    head, expires, _ = path.name.rsplit(".", 2)
    path.rename(path.with_name(f"{head}.{int(expires) + 1000}.json"))


# --- the text that was verified is the one that is acted on ----------------------------------------------


def real(disk: Path) -> tuple[Path, dict[str, Bus]]:
    """Return a bus with real time, and it as planner and worker, who trust one another; their inboxes are signed."""
    root, home, source = disk / "real", disk / "home", System()
    layout.create(root)

    def opened(agent: str) -> Bus:
        store = FileStore(root, durable=False, keys=lambda bus: Guard(home, bus, root, source, agent))
        return Bus(store, identity(agent), source)

    buses = {agent: opened(agent) for agent in ("planner", "worker")}
    for agent, bus in buses.items():
        guard = bus.store.guard
        assert isinstance(guard, Guard)
        guard.trust.pin(agent, guard.make(agent).public, 1)
    return root, buses


def handler(disk: Path, code: str) -> Recipe:
    return Recipe((sys.executable, "-c", code, str(disk / "got")), disk, dict(os.environ), is_handler=True)


# Writes down what it is given, and fails the first time.
TOLD = """
import json, os, sys
is_first = not os.path.exists(sys.argv[1])
open(sys.argv[1], "a").write(json.load(sys.stdin)["content"])
sys.exit(is_first)
"""


def test_a_handler_that_tries_again_is_given_what_was_verified_the_first_time(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, buses = real(disk)
    buses["planner"].create_channel("@worker", signed=True)
    i = buses["planner"].mail.send("@worker", "good text").id
    monkeypatch.setattr(letters, "PAUSE_S", 0.05)
    source = Source("@inbox", ("@worker",), most=1)
    told = Letters(buses["worker"], root, handler(disk, TOLD), source, Silent())
    hold = told._hold

    def altered(held: letters._Held) -> None:
        written_over(root / "tasks" / f"{i}.json")
        hold(held)

    monkeypatch.setattr(told, "_hold", altered)
    told.run()
    assert (disk / "got").read_text() == "good text" * 2


def test_a_worker_asks_for_what_it_claimed_and_does_not_read_it_again(disk: Path) -> None:
    root, buses = real(disk)
    buses["planner"].create_channel(CHANNEL, signed=True)
    i = buses["planner"].post(CHANNEL, "good text").id
    task = buses["worker"].claim([CHANNEL]) or pytest.fail("nothing to claim")
    written_over(root / "tasks" / f"{i}.json")
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read()); print('done')"
    recipe = handler(disk, code)._replace(is_handler=False)
    assert Job(buses["worker"], task, recipe, root).do(lambda: "").fate is Fate.DONE
    asked = (disk / "got").read_text()
    assert "good text" in asked
    assert EVIL not in asked


# --- what has to be read again is refused where it does not hold -----------------------------------------


def test_who_acts_on_an_altered_task_is_refused_and_who_looks_at_it_is_told(world: World) -> None:
    world.bus().create_channel("calls", kind="topic", signed=True)
    i, call = world.bus().post(CHANNEL, "x").id, world.bus().post("calls", "who?").id
    task = world.bus("worker").claim([CHANNEL]) or pytest.fail("nothing to claim")
    for each in (i, call):
        written_over(world.root / "tasks" / f"{each}.json")
    acts: tuple[Callable[[Bus], object], ...] = (
        lambda bus: bus.ack(task.ticket, "done"),
        lambda bus: bus.post("other", "y", parent=i),
        lambda bus: bus.mail.send("", "y", reply_to=i),
        lambda bus: bus.mail.send("", {"cost": 1}, type="bid", reply_to=call),
    )
    for act in acts:
        with pytest.raises(Unverified, match="altered"):
            act(world.bus("worker"))
    with pytest.raises(Unverified, match="altered"):
        bidding.bids(world.bus(), call)
    with pytest.raises(Unverified, match="altered"):
        world.bus().mail.send("#calls", "y", supersedes=call)
    shown = world.bus().get(i)
    assert (shown.state, "altered" in (shown.proof.doubt if shown.proof else "")) == (State.LEASED, True)


# --- encrypted once, never plain text again --------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_the_result_of_a_task_whose_encryption_was_taken_off_is_not_written(world: World, *, signed: bool) -> None:
    world.bus().create_channel(PLACE, encrypt_to=["worker"], signed=signed)
    i = world.bus().post(PLACE, "x").id
    task = world.bus("worker").claim([PLACE]) or pytest.fail("nothing to claim")
    strip(world, i)
    with pytest.raises(Unverified):
        world.bus("worker").ack(Ticket(i, task.ticket.token), SECRET)
    assert world.bus("worker").get(i).state is State.LEASED
    assert world.holds(SECRET) == []


def test_a_worker_that_has_to_look_again_encrypts_its_result_as_when_it_claimed(world: World) -> None:
    i = world.bus().post(PLACE, "x", encrypt_to=["worker"]).id
    worker = world.bus("worker")
    task = worker.claim([PLACE]) or pytest.fail("nothing to claim")
    strip(world, i)
    moved(world, i, PLACE)
    worker.ack(task, SECRET)
    assert world.holds(SECRET) == []
    assert list((world.root / "channels" / PLACE / "responses").iterdir())


def test_an_answer_to_a_message_whose_encryption_was_taken_off_is_not_sent(world: World) -> None:
    worker = world.bus("worker")
    i = world.bus().mail.send("@worker", "x", encrypt_to=["worker"]).id
    assert [item.body.content for item in worker.mail.read()] == ["x"]
    strip(world, i)
    with pytest.raises(Unverified, match="plain text"):
        worker.mail.send("", SECRET, reply_to=i)
    with pytest.raises(Unverified, match="plain text"):
        world.bus().mail.send("@worker", SECRET, supersedes=i)
    assert world.holds(SECRET) == []


def test_who_cannot_read_a_message_does_not_answer_it_to_whom_its_envelope_names(world: World) -> None:
    world.key("mallory")
    i = world.bus().mail.send("@worker", "x", encrypt_to=["worker"]).id
    path = world.root / "tasks" / f"{i}.json"
    said = json.loads(path.read_text())
    said["bus"]["encrypted"] = {"to": ["mallory"], "kids": ["mine"]}
    path.write_text(json.dumps(said | {"from": {"agent": "mallory", "pid": 1, "pwd": "/"}}))
    with pytest.raises(NotAllowed, match="no key"):
        world.bus("worker").mail.send("", SECRET, reply_to=i)


@pytest.mark.parametrize("end", ["nack", "block"])
def test_a_stripped_task_is_not_retried_with_a_new_body(world: World, end: str) -> None:
    i = world.bus().post(PLACE, "x", encrypt_to=["worker"], max_attempts=1).id
    worker = world.bus("worker")
    getattr(worker, end)(worker.claim([PLACE]) or pytest.fail("nothing to claim"), "no")
    strip(world, i)
    with pytest.raises((IllegalTransition, Unverified), match="plain text"):
        world.bus().retry(i, body=SECRET)
    assert world.holds(SECRET) == []


def test_a_stripped_task_that_waits_is_put_aside_and_one_that_is_shown_says_why(world: World) -> None:
    i = world.bus().post(PLACE, "x", encrypt_to=["worker"]).id
    strip(world, i)
    shown = world.bus().get(i)
    assert "plain text now" in shown.hidden
    assert shown.body.content == f"({shown.hidden})"
    assert world.bus("worker").claim([PLACE]) is None
    assert any("plain text now" in reason for reason in world.reasons())


def test_a_task_that_was_replaced_by_plain_text_has_no_result_in_plain_text(world: World) -> None:
    i = world.bus().post(PLACE, "x", encrypt_to=["worker"]).id
    worker = world.bus("worker")
    worker.ack(worker.claim([PLACE]) or pytest.fail("nothing to claim"), "y")
    strip(world, i)
    answer = {"id": i, "from": {"agent": "worker", "pid": 1, "pwd": "/"}, "result": EVIL, "status": "success"}
    (world.root / "channels" / PLACE / "responses" / f"{i}.json").write_text(json.dumps(answer))
    task = find.ending(world.bus(), i).task or pytest.fail("gone")
    assert task.result is None
    assert task.proof is not None
    assert "plain text" in task.proof.doubt


def test_what_is_remembered_is_written_before_the_task_has_a_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()
    bus = world.bus()
    store = bus.store
    assert isinstance(store, FileStore)
    name = store._name

    def naming(body: Body, draft: str) -> bool:
        seen.append(len(list((world.home / "trust").glob(f"bus_*/secret/*/{body.id}"))))
        return name(body, draft)

    monkeypatch.setattr(store, "_name", naming)
    bus.post(PLACE, "plain")
    bus.post(PLACE, "x", encrypt_to=["worker"])
    assert seen == [0, 1]


def test_it_is_remembered_also_if_the_bus_says_that_it_is_another(world: World) -> None:
    i = world.bus().post(PLACE, "x", encrypt_to=["worker"]).id
    strip(world, i)
    path = world.root / "bus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": "bus_" + "1" * 16}))
    assert "plain text now" in world.bus().get(i).hidden


def test_nothing_is_remembered_of_plain_tasks_and_old_ones_are_forgotten(world: World) -> None:
    world.bus().post(PLACE, "plain")
    assert list((world.home / "trust").glob("bus_*/secret")) == []
    world.bus().post(PLACE, "x", encrypt_to=["worker"])
    (first,) = (world.home / "trust").glob("bus_*/secret/*")
    world.source.advance(4 * 366 * 86_400)
    world.bus().post(PLACE, "x", encrypt_to=["worker"])
    assert not first.exists()


def test_a_revision_of_an_encrypted_message_is_for_who_could_read_that(world: World) -> None:
    world.key("second")
    bus = world.bus()
    i = bus.mail.send("@worker", "x", encrypt_to=["worker", "second"]).id
    new = bus.mail.send("@worker", SECRET, supersedes=i).id
    assert world.holds(SECRET) == []
    assert (world.bus("second").get(new).body.content, world.bus("worker").get(new).body.content) == (SECRET, SECRET)
