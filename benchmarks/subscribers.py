"""Subscribers of a topic that are killed all the time, while its messages become visible out of order."""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.bus import Bus
from mcp_bus.clock import Ids, System
from mcp_bus.errors import Conflict
from mcp_bus.model import Body, Identity, Sender
from mcp_bus.names import holder
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "news"
# Messages a subscriber takes at once, and how often it dies: between offer and ack, or after the ack.
BATCH, DIES = 400, 0.2
# A message that becomes visible late comes after as many as this of its sender's later ones.
LATE, HELD_BACK = 0.05, 60
PATIENCE_S = 3600.0


class Outcome(NamedTuple):
    """What subscribers were shown: missed must be 0; shown more than once may be some, for many were killed."""

    messages: int
    subscribers: int
    missed: int
    repeated: int
    killed: int
    seconds: float


def open_as(root: Path, agent: str) -> Bus:
    """Open the bus as a new session of an agent, without fsync: kills are not about that."""
    source = System()
    session = source.token(4)
    store = FileStore(root, source=source, durable=False)
    return Bus(store, Identity(agent, session, holder(agent, session), pid=os.getpid()), source)


def publish(root: Path, number: int, count: int) -> None:
    """Make messages visible, some of them long after younger ones."""
    chance, late = random.Random(number), list[Body]()
    with open_as(root, f"sender{number}") as bus:
        ids = Ids(bus.source)
        for serial in range(count):
            made = Body(ids.next(), TOPIC, f"{number}/{serial}", Sender(bus.identity.agent), bus.source.now())
            if chance.random() < LATE:
                late.append(made)
                continue
            bus.store.add(made)
            while late and chance.random() < 1 / HELD_BACK:
                bus.store.add(late.pop(chance.randrange(len(late))))
        for made in late:
            bus.store.add(made)


def subscribe(root: Path, log: Path, agent: str, seed: int) -> int:
    """Read until killed by chance (1) or until nothing came for a moment (0)."""
    chance, empty = random.Random(seed), 0
    with open_as(root, agent) as bus:
        while empty < 3:
            shown = bus.mail.read(limit=BATCH, room=10**9)
            empty = 0 if shown else empty + 1
            with log.open("a") as file:
                file.writelines(f"{item.body.id}\n" for item in shown)
            if shown and chance.random() < DIES:
                os._exit(1)
            with suppress(Conflict):
                bus.mail.ack()
            if shown and chance.random() < DIES:
                os._exit(1)
    return 0


def fork(work: object, *args: object) -> int:
    """Do work in a child process; return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = int(work(*args) or 0)  # type: ignore[operator]  # whatever is to be done
    finally:
        os._exit(code)


def topic(root: Path, messages: int, *, senders: int = 2, subscribers: int = 5) -> Outcome:
    """Let senders and dying subscribers loose on one topic, and count.

    Raises:
        AssertionError: a process failed, which is another thing than being killed.
    """
    layout.create(root)
    with open_as(root, "boss") as bus:
        bus.create_channel(TOPIC, kind="topic", lease_s=1)
        wanted = [f"reader{n}" for n in range(subscribers)]
    for agent in wanted:
        with open_as(root, agent) as bus:
            bus.mail.topics.subscribe(TOPIC)
    start, killed = time.monotonic(), 0
    sending = {fork(publish, root, n, messages // senders) for n in range(senders)}
    reading = {fork(subscribe, root, root.parent / agent, agent, n): agent for n, agent in enumerate(wanted)}
    while sending or reading:
        assert time.monotonic() - start < PATIENCE_S, "it takes too long"
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 1), f"a process failed with {code}"
        if pid in sending:
            sending.discard(pid)
            continue
        agent = reading.pop(pid)
        killed += code
        if code or sending or missing(root, agent):
            reading[fork(subscribe, root, root.parent / agent, agent, killed + len(reading) * 1000)] = agent
    seen = [(root.parent / agent).read_text().split() for agent in wanted]
    everything = ids(root)
    missed = sum(len(everything - set(shown)) for shown in seen)
    repeated = sum(len(shown) - len(set(shown)) for shown in seen)
    return Outcome(len(everything), subscribers, missed, repeated, killed, time.monotonic() - start)


def ids(root: Path) -> set[str]:
    """Return the ids of all messages that were published, from their identities."""
    return {path.stem for path in (root / "tasks").iterdir()}


def missing(root: Path, agent: str) -> bool:
    """Tell whether a subscriber has something unread; what was shown and not acked comes back after its lease."""
    with open_as(root, agent) as bus:
        cursor = bus.mail.topics.subscribed()[TOPIC]
        shown = set((root.parent / agent).read_text().split())
        return bool(ids(root) - shown) or any(i not in cursor.acked and i > cursor.watermark for i in shown)
