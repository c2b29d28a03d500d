"""Days of work in minutes, by a clock that is set forward: what is left on the disk, in memory and open must not grow.

Each turn tasks are posted in every way, worked on by sessions that come, go, forget them or are killed at some call,
mail and topics are read, plans are run, and the bus is swept.  Once what is old is forgotten as fast as new comes,
a later day leaves no more than an earlier one; and when nobody comes any more, nothing is left but what is for people.
"""

from __future__ import annotations

import gc
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import conductor
from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.model import Identity, State
from mcp_bus.names import holder
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import MAX_OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.model import PostOptions

DAY_S = 86_400
# Ended tasks are forgotten after this many days, and what has the longest life, a plan, after so many.
RETENTION, FORGOTTEN = 2, 40
WORK, NEWS, INBOX, ALL = "work", "news", "@bob", "broadcast"
# A killed process dies at one of its first so many calls that change something.
CALLS = 60
# A file for each day, agent, channel or start of the machine, and what is for people until they remove it.
KEPT = {
    "tombstones",
    "journal",
    "quarantine",
    "rejected",
    "cursors",
    "boots",
    "",
    *(f"channels/{name}" for name in (INBOX, ALL)),
}
# Plans, mail and what is said to all live longer than a short run.
LONG = {
    "plans",
    "progress",
    *(f"channels/{name}/{at}" for name in (INBOX, ALL) for at in ("archive", "attempts", "requests")),
}
# Chance makes a day busier than another; a leak goes on.
CHANCE, SPARE, MIB = 1.15, 5, 1 << 20


class Day(NamedTuple):
    """What was there at the end of a day: files by the folder they are in, bytes of memory, open descriptors."""

    files: Counter[str]
    resident: int
    descriptors: int


class Churn(NamedTuple):
    """What came of it: days, tasks posted, processes that died, what is left, and descriptors before all began."""

    days: Sequence[Day]
    tasks: int
    killed: int
    left: Counter[str]
    descriptors: int

    def growth(self) -> list[str]:
        """Return what grew, a line each, and what is left.

        Days are compared, the last third with the third before it, once what is old is forgotten in all of them.
        """
        wrong = [f"{count} files left in {folder}" for folder, count in self.left.items() if folder not in KEPT]
        # A session that stays keeps folders open, a bounded number of them.
        if max(day.descriptors for day in self.days) > self.descriptors + MAX_OPEN + SPARE:
            wrong.append(f"descriptors: {self.descriptors}, later {[day.descriptors for day in self.days]}")
        third = len(self.days) // 3
        if third < RETENTION:
            return wrong
        before, after = self.days[-2 * third : -third], self.days[-third:]
        wrong += [
            f"{folder}: {was} files, later {now}"
            for folder in sorted({folder for day in self.days for folder in day.files} - KEPT - LONG)
            if (now := min(day.files[folder] for day in after))
            > (was := max(day.files[folder] for day in before)) * CHANCE + SPARE
        ]
        if min(day.resident for day in after) > max(day.resident for day in before) + MIB:
            wrong.append(f"memory: {[day.resident // MIB for day in self.days]} MiB")
        return wrong


class Ahead(System):
    """The machine's clock, so many seconds ahead, and a monotonic one that is ahead with it."""

    def __init__(self) -> None:
        """Start a minute ahead, so that what was written has settled."""
        super().__init__()
        self.advance(60)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.offset += int(seconds * 1000)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return super().monotonic() + self.offset / 1000


class Dying(Fs):
    """Kills its own process before the n-th call that changes a name."""

    def __init__(self, step: int) -> None:
        """Count down from a number."""
        self._left = step

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def open_new(self, name: str, at: int) -> int:
        """Create a file, or die."""
        self._count()
        return super().open_new(name, at)

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Link a file, or die."""
        self._count()
        super().link(src, src_at, dst, dst_at)

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        """Rename a file, or die."""
        self._count()
        super().rename(src, src_at, dst, dst_at)

    def unlink(self, name: str, at: int) -> None:
        """Remove a file, or die."""
        self._count()
        super().unlink(name, at)


class World:
    """A bus, its clock and chance, and those who work on it."""

    def __init__(self, root: Path, *, tasks: int, seed: int) -> None:
        """Make a bus on which so many tasks are posted each turn."""
        self.root, self.source, self.chance = root, Ahead(), random.Random(seed)
        self.tasks = tasks
        self.posted = self.killed = self._sessions = 0
        layout.create(root)
        self.boss = self.join("boss")
        self.boss.create_channel(WORK, retention_days=RETENTION, lease_s=600, max_attempts=3, backoff_s=1, outputs=True)
        self.boss.create_channel(NEWS, kind="topic", retention_days=RETENTION)

    def join(self, agent: str, fs: Fs | None = None) -> Bus:
        """Open the bus as a new session, without fsync: this is not about power."""
        self._sessions += 1
        session = f"{self._sessions:08x}"
        store = FileStore(self.root, fs=fs, source=self.source, durable=False)
        return Bus(store, Identity(agent, session, holder(agent, session), pid=os.getpid()), self.source)

    def turn(self, seconds: float, *, with_plan: bool) -> None:
        """Post, work, die; then let time pass, and sweep."""
        self._post()
        if with_plan:
            step = {"body": "do", "channel": WORK}
            conductor.post(self.boss, {"goal": "a goal", "steps": [step | {"name": name} for name in ("a", "b")]})
        for _ in range(3):
            self._kill()
        self._work()
        self.rest(seconds)

    def rest(self, seconds: float) -> None:
        """Let time pass, sweep, and do as a person does: take what is dead out of the dead letter."""
        self.source.advance(seconds)
        sweep(self.boss)
        for slot in list(self.boss.store.scan(WORK, State.DEAD)):
            self.boss.discard(slot.id, "looked at")

    def _post(self) -> None:
        for n in range(self.tasks):
            self.posted += 1
            ways: list[PostOptions] = [
                {"key": f"key {self.posted}"}, {"delay_s": 1800}, {"ttl_s": 1800}, {"max_attempts": 1}, {}, {}, {}, {},
            ]  # fmt: skip
            text = "x" * self.chance.choice((10, 1000, 20_000))
            made = self.boss.post(WORK, text, **ways[n % 8])
            if n % 8 == 4:
                self.boss.cancel(made.id, "not wanted")
        self.boss.mail.send(INBOX, "a word")
        self.boss.mail.send(ALL, "a word to all")
        self.boss.post(NEWS, "what happened")
        self.posted += 3

    def _work(self) -> None:
        """Do what waits, as a session that comes and goes."""
        with self.join("bob") as bob:
            bob.roster.arrive()
            bob.mail.topics.subscribe(NEWS)
            while (task := bob.claim([WORK])) is not None:
                match self.chance.randrange(8):
                    case 0:
                        bob.nack(task, "it broke")
                    case 1:
                        pass  # Forgotten: its lease lapses.
                    case 2:
                        bob.renew(task, progress="half way")
                        bob.ack(task, "x" * 5000)
                    case 3:
                        bob.nack(task, "it cannot be done", final=True)
                    case _:
                        bob.ack(task, "done")
            while bob.mail.read(limit=50, room=10**6):
                bob.mail.ack()

    def _kill(self) -> None:
        """Let a session do some of everything, until it is killed at one of its calls."""
        step = self.chance.randrange(CALLS)
        self._sessions += 1  # The child's count is lost with it.
        pid = os.fork()
        if not pid:
            try:
                self._die(self.join("carl", Dying(step)))
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        self.killed += os.waitstatus_to_exitcode(status) == -signal.SIGKILL

    def _die(self, carl: Bus) -> None:
        carl.roster.arrive()
        carl.post(WORK, "from a victim", key=f"victim {self._sessions}")
        for _ in range(2):
            task = carl.claim([WORK])
            if task is not None:
                carl.renew(task, progress="begun")
                carl.ack(task, "done by a victim")
        sweep(carl)

    def finish(self) -> None:
        """Work off what is there, and wait until it is forgotten."""
        for _ in range(4):
            self._work()
            self.rest(DAY_S / 24)
        for _ in range(FORGOTTEN):
            self.rest(DAY_S)

    def day(self) -> Day:
        """Return what is there now."""
        gc.collect()
        status = Path("/proc/self/statm")
        pages = int(status.read_text().split()[1]) if status.exists() else 0
        return Day(self.files(), pages * os.sysconf("SC_PAGESIZE"), len(list(Path("/dev/fd").iterdir())))

    def files(self) -> Counter[str]:
        """Return how many files are in each folder of the bus; folders of days and of tasks count as one."""
        found = Counter[str]()
        for folder, _, names in os.walk(self.root):
            parts = Path(folder).relative_to(self.root).parts
            found["/".join(parts[: 3 if parts[:1] == ("channels",) else 1])] += len(names)
        return found


def churn(root: Path, *, days: int, turns: int, tasks: int, seed: int = 0) -> Churn:
    """Let days of so many turns pass on a new bus, then what it takes to forget everything; return what was seen."""
    at_first = len(list(Path("/dev/fd").iterdir()))
    world, seen = World(root, tasks=tasks, seed=seed), list[Day]()
    empty = world.files()
    for _ in range(days):
        for turn in range(turns):
            world.turn(DAY_S / turns, with_plan=turn % 4 == 0)
        seen.append(world.day())
    world.finish()
    world.boss.close()
    return Churn(seen, world.posted, world.killed, world.files() - empty, at_first)
