"""Queues from PyPI under the same load, each through its own API, and what each of them leaves out.

A task's text begins with its number, so that every queue can be asked which task it handed out.
"""

from __future__ import annotations

import importlib.util
import pickle
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DIGITS = 8
PAYLOAD = 300
RESULT = "looked at, nothing to add " * 2


def text(number: int) -> str:
    """Return the body of a task."""
    return f"{number:0{DIGITS}d}".ljust(PAYLOAD, "x")


def number_of(body: str) -> int:
    """Return which task a body belongs to."""
    return int(body[:DIGITS])


class Queue:
    """One queue under test.  `claim` returns a task's number and what `ack` wants."""

    name: ClassVar[str] = ""
    module: ClassVar[str] = ""
    lacks: ClassVar[str] = ""
    is_durable: ClassVar[bool] = False
    # Processes may share it without handing out a task twice.
    is_shared: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        """Open the queue in a folder, which is made if need be."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root

    def fill(self, numbers: Iterable[int]) -> None:
        """Post many, as fast as the API can."""
        for number in numbers:
            self.post(number)

    def prepare(self, cycles: int) -> None:
        """Make ready, untimed, for so many cycles."""

    def post(self, number: int) -> None:
        """Post one task."""
        raise NotImplementedError

    def claim(self) -> tuple[int, Any] | None:
        """Take the next task."""
        raise NotImplementedError

    def ack(self, handle: Any) -> None:  # noqa: ANN401  each queue has its own
        """Finish a task."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Count what has not been claimed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""


class Dirq(Queue):
    """Files in folders by time, locked by a second name."""

    name, module = "dirq", "dirq.QueueSimple"
    lacks = "no result, no archive, no lease (a dead worker's lock: purge after 600 s), no order within a folder"

    def __init__(self, root: Path) -> None:
        """Open it."""
        super().__init__(root)
        self._queue = import_module(self.module).QueueSimple(str(root / "queue"))

    def post(self, number: int) -> None:
        """Write a file."""
        self._queue.add(text(number))

    def claim(self) -> tuple[int, str] | None:
        """Lock the next of a listing, listing again when it is used up."""
        name = self._queue.next() or self._queue.first()
        while name:
            if self._queue.lock(name):
                return number_of(self._queue.get(name)), name
            name = self._queue.next()
        return None

    def ack(self, handle: str) -> None:
        """Remove the file."""
        self._queue.remove(handle)

    def waiting(self) -> int:
        """Count files."""
        return int(self._queue.count())


class LiteQueue(Queue):
    """A table in SQLite, WAL, synchronous = NORMAL."""

    name, module = "litequeue", "litequeue"
    lacks = "no result, no lease (a dead worker's tasks stay locked until someone looks)"

    def __init__(self, root: Path) -> None:
        """Open it."""
        super().__init__(root)
        self._queue = import_module(self.module).LiteQueue(root / "queue.sqlite", timeout=60)

    def fill(self, numbers: Iterable[int]) -> None:
        """Insert in one transaction."""
        with self._queue.transaction():
            super().fill(numbers)

    def post(self, number: int) -> None:
        """Insert a row."""
        self._queue.put(text(number))

    def claim(self) -> tuple[int, str] | None:
        """Mark the oldest row as locked."""
        found = self._queue.pop()
        return None if found is None else (number_of(found.data), found.message_id)

    def ack(self, handle: str) -> None:
        """Mark a row as done."""
        self._queue.done(handle)

    def waiting(self) -> int:
        """Count rows."""
        return int(self._queue.conn.execute("SELECT COUNT(*) FROM Queue WHERE status = 0").fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        self._queue.close()


class Huey(Queue):
    """huey's FileStorage: one lock around every operation."""

    name, module = "huey, file", "huey.storage"
    lacks = "no claim that survives its worker (a task is read and removed at once), no archive, no lease"

    def __init__(self, root: Path) -> None:
        """Open it."""
        super().__init__(root)
        self._queue = import_module(self.module).FileStorage("bench", str(root / "queue"))

    def post(self, number: int) -> None:
        """Write a file."""
        self._queue.enqueue(pickle.dumps(text(number)))

    def claim(self) -> tuple[int, str] | None:
        """Read and remove the first file of a sorted listing."""
        found = self._queue.dequeue()
        if found is None:
            return None
        body = pickle.loads(found)  # noqa: S301  written just above
        return number_of(body), body[:DIGITS]

    def ack(self, handle: str) -> None:
        """Write the result to a file of its own."""
        self._queue.put_data(handle.encode(), RESULT.encode(), is_result=True)

    def waiting(self) -> int:
        """Count files."""
        return int(self._queue.queue_size())


class SQLiteAck(Queue):
    """persist-queue's SQLiteAckQueue: WAL, synchronous = FULL, three commits a cycle."""

    name, module = "persist-queue, SQLiteAck", "persistqueue"
    lacks = "no result, no lease; two processes on one file get the same task"
    is_durable, is_shared = True, False

    def __init__(self, root: Path) -> None:
        """Open it."""
        super().__init__(root)
        self._queue = import_module(self.module).SQLiteAckQueue(str(root / "queue"))

    def post(self, number: int) -> None:
        """Insert a row and commit."""
        self._queue.put(text(number))

    def claim(self) -> tuple[int, Any] | None:
        """Mark the oldest row and commit."""
        if not self._queue.size:
            return None
        found = self._queue.get(block=False, raw=True)
        return number_of(found["data"]), found["pqid"]

    def ack(self, handle: int) -> None:
        """Mark a row as acknowledged and commit."""
        self._queue.ack(id=handle)

    def waiting(self) -> int:
        """Count rows."""
        again = import_module(self.module).SQLiteAckQueue(str(self.root / "queue"), auto_resume=False)
        count = int(again.size)
        again.close()
        return count

    def close(self) -> None:
        """Close the database."""
        self._queue.close()


PEERS: tuple[type[Queue], ...] = (Dirq, LiteQueue, Huey, SQLiteAck)


def installed() -> list[type[Queue]]:
    """Return the peers that can be measured here."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.module.partition(".")[0])]
