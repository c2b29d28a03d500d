"""Post, claim, ack: the cycle that all else is made of, beside its floor and beside other queues.

All contenders share each run: round by round every one of them makes a burst of cycles, in a new
order each time.  Each has a folder of its own, filled before, so that as much waits at the end as
at the beginning.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks import peers, table
from benchmarks.floor import CHANNEL, VERBS, DurableFloor, Floor
from benchmarks.place import apart, fresh
from mcp_bus import State, open_bus
from mcp_bus.stores.file import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.context import SpawnContext
    from pathlib import Path

    from benchmarks.floor import Tape
    from mcp_bus import Bus, Task

# A burst takes about this long, and a peer may take this long to fill.
BURST_S = 0.25
FILL_S = 12.0
# After so long no further round begins, if there were three.
RUN_S = 20.0
MAX_BURST = 1920
# Tapes are this long, and repeat.
WHOLE = BATCH


class Ours(peers.Queue):
    """The bus through its public API, without fsync."""

    name: ClassVar[str] = 'mcp-bus, durability="none"'
    durability: ClassVar[str] = "none"

    def __init__(self, root: Path) -> None:
        """Open it."""
        super().__init__(root)
        self._bus: Bus = open_bus(root / "bus", agent="bench", durability=self.durability)

    def fill(self, numbers: Iterable[int]) -> None:
        """Post without fsync; what waits is the same."""
        with open_bus(self.root / "bus", agent="bench", durability="none") as bus:
            for number in numbers:
                bus.post(CHANNEL, peers.text(number))

    def post(self, number: int) -> None:
        """Post."""
        self._bus.post(CHANNEL, peers.text(number))

    def claim(self) -> tuple[int, Task] | None:
        """Claim."""
        task = self._bus.claim([CHANNEL])
        return None if task is None else (peers.number_of(task.body.content), task)

    def ack(self, handle: Task) -> None:
        """Ack with a result."""
        self._bus.ack(handle, peers.RESULT)

    def waiting(self) -> int:
        """Count names."""
        return self._bus.store.count(CHANNEL)[State.READY]

    def close(self) -> None:
        """Close it."""
        self._bus.close()


class OursDurable(Ours):
    """The bus as it is opened by default."""

    name: ClassVar[str] = "mcp-bus (default: durable)"
    durability: ClassVar[str] = "full"
    is_durable: ClassVar[bool] = True


@dataclass(slots=True)
class Ledger:
    """What was posted into one folder and handed out of it, by all who share the folder."""

    posted: int = 0
    claimed: list[int] = field(default_factory=list)
    left: int = 0

    def lost(self) -> int:
        """Count tasks that were posted, not claimed, and do not wait either."""
        return self.posted - len(set(self.claimed)) - self.left

    def twice(self) -> int:
        """Count tasks that were handed out more than once."""
        return len(self.claimed) - len(set(self.claimed))


@dataclass(slots=True)
class Runner:
    """One contender in one run: what it did, and how long each verb took."""

    queue: peers.Queue
    ledger: Ledger
    rates: list[float] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: {verb: [] for verb in VERBS})
    burst: int = 1

    @property
    def _whole(self) -> int:
        return WHOLE if isinstance(self.queue, Floor) else 1

    def calibrate(self, seconds: float) -> None:
        """Find out how many cycles make a burst."""
        self._warm_up()
        start, done = time.perf_counter(), 0
        while not done or (time.perf_counter() - start < seconds and done < MAX_BURST):
            self._cycles(self._whole)
            done += self._whole
        pace = done / (time.perf_counter() - start)
        self.burst = max(self._whole, min(MAX_BURST, int(pace * seconds) // self._whole * self._whole))
        for seen in self.times.values():
            seen.clear()

    def run(self) -> None:
        """Make a burst."""
        self._warm_up()
        self.queue.prepare(self.burst)
        start = time.perf_counter()
        for _ in range(self.burst):
            self._cycle()
        self.rates.append(self.burst / (time.perf_counter() - start))

    def _warm_up(self) -> None:
        """Let what is due now and then (a sweep, a listing grown old while others had their turn) be done untimed."""
        kept = {verb: len(seen) for verb, seen in self.times.items()}
        self._cycles(self._whole)
        for verb, seen in self.times.items():
            del seen[kept[verb] :]

    def _cycles(self, count: int) -> None:
        self.queue.prepare(count)
        for _ in range(count):
            self._cycle()

    def _cycle(self) -> None:
        clock = time.perf_counter
        begun = clock()
        self.queue.post(self.ledger.posted)
        posted = clock()
        found = self.queue.claim()
        claimed = clock()
        self.ledger.posted += 1
        if found is None:
            return
        number, handle = found
        taken = clock()
        self.queue.ack(handle)
        ended = clock()
        self.ledger.claimed.append(number)
        for verb, took in zip(VERBS, (posted - begun, claimed - posted, ended - taken), strict=True):
            self.times[verb].append(took * 1e6)

    def close(self) -> None:
        """Count what is left, and close the queue."""
        self.ledger.left = self.queue.waiting()
        self.queue.close()

    def row(self, floors: dict[bool, Runner]) -> tuple[str, ...]:
        """Return what is shown of it."""
        floor = floors.get(self.queue.is_durable)
        of_floor = table.number(table.ratio(self.rates, floor.rates)) if floor else "-"
        verbs = [
            f"{table.number(table.median(seen))} / {table.number(table.p95(seen))}" for seen in self.times.values()
        ]
        rate, between = table.number(table.median(self.rates)), table.spread(self.rates)
        return self.queue.name, rate, between, of_floor, *verbs, str(self.ledger.lost()), str(self.ledger.twice())


def _fill(queue: peers.Queue, ledger: Ledger, size: int) -> bool:
    """Fill to the mark; a peer that would take too long is left out."""
    start = time.monotonic()
    while ledger.posted < size:
        many = min(2000, size - ledger.posted)
        queue.fill(range(ledger.posted, ledger.posted + many))
        ledger.posted += many
        if queue.module and (time.monotonic() - start) / ledger.posted * size > FILL_S:
            return False
    return True


def _contenders(root: Path, tapes: dict[bool, Tape]) -> list[list[peers.Queue]]:
    """Make the queues; those in one list share a folder and what is in it."""
    counters = {"post": 0, "claim": 0}
    ours, floors = fresh(root), fresh(root)
    return [
        [Ours(ours), OursDurable(ours)],
        [Floor(floors, tapes[False], counters), DurableFloor(floors, tapes[True], counters)],
        *([peer(fresh(root))] for peer in peers.installed()),
    ]


def alone(root: Path, size: int, *, rounds: int, tapes: dict[bool, Tape]) -> list[Runner]:
    """Run the cycle in one process with so many tasks waiting; return what each contender did."""
    chance, runners = random.Random(7), list[Runner]()
    for queues in _contenders(apart(root / f"waiting-{size}"), tapes):
        start, ledger = time.monotonic(), Ledger()
        if not _fill(queues[0], ledger, size):
            progress(f"{queues[0].name}: left out, {size:,} waiting are not to be had in {FILL_S:.0f} s")
            continue
        for queue in queues:
            runners.append(Runner(queue, ledger))
            runners[-1].calibrate(BURST_S)
        progress(f"{queues[0].name}: {size:,} waiting after {time.monotonic() - start:.0f} s")
    end = time.monotonic() + RUN_S
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() > end:
            break
        for runner in chance.sample(runners, len(runners)):
            runner.run()
    for runner in runners:
        runner.close()
    return runners


def tables(done: list[tuple[int, list[Runner]]], tapes: dict[bool, Tape], report: table.Report) -> None:
    """Turn what was measured into tables and goals."""
    head = ("", "cycles/s", "of rounds", "of floor", *(f"{verb} p50 / p95 us" for verb in VERBS), "lost", "twice")
    calls, syncs = tapes[False].calls(), tapes[True].syncs()
    notes = [f"The floor has {calls:.1f} system calls a cycle, {syncs:.1f} fsyncs where it is durable."]
    notes += ["Bursts follow a warm-up: sweeps and listings, done now and then, are not in them (docs/benchmarks.md)."]
    notes += [f"{peer.name}: {peer.lacks}." for peer in peers.installed()]
    for size, runners in done:
        floors = {runner.queue.is_durable: runner for runner in runners if isinstance(runner.queue, Floor)}
        rows = [runner.row(floors) for runner in runners]
        goals = [goal for runner in runners for goal in _goals(size, runner, runners, floors)]
        goals += [
            table.Goal(
                f"lost or twice, {size} waiting", 0, sum(r.ledger.lost() + r.ledger.twice() for r in _ours(runners))
            )
        ]
        report.add(table.Table(f"One process, {size:,} waiting", head, rows, tuple(notes)), goals)
        notes = []
    first, last = ({r.queue.name: table.median(r.times["claim"]) for r in _ours(runners)} for runners in _ends(done))
    if len(done) > 1:
        for name in first:
            report.goals.append(table.Goal(f"claim p50, most waiting to fewest, {name}", 3, last[name] / first[name]))


def _ends(done: list[tuple[int, list[Runner]]]) -> tuple[list[Runner], list[Runner]]:
    return done[0][1], done[-1][1]


def _ours(runners: list[Runner]) -> list[Runner]:
    return [runner for runner in runners if isinstance(runner.queue, Ours)]


def _goals(size: int, runner: Runner, runners: list[Runner], floors: dict[bool, Runner]) -> Iterable[table.Goal]:
    """Set the goals of one contender of ours: a share of the floor, ahead of the best peer of its kind."""
    if not isinstance(runner.queue, Ours):
        return
    durable = runner.queue.is_durable
    what, limit = ("durable", 0.9) if durable else ("not durable", 0.7)
    yield table.Goal(f"cycle of floor, {what}, {size:,} waiting", limit, _share(runner, floors[durable]), at_least=True)
    rivals = [r for r in runners if r.queue.module and r.queue.is_durable is durable]
    if rivals:
        best = max(rivals, key=lambda rival: table.median(rival.rates))
        yield table.Goal(
            f"cycle of {best.queue.name}, {what}, {size:,} waiting", 1, _share(runner, best), at_least=True
        )


def _share(runner: Runner, other: Runner) -> float:
    return table.ratio(runner.rates, other.rates)


def progress(line: str) -> None:
    """Tell a person who waits."""
    print(f"  {line}", file=sys.stderr, flush=True)


# --- several processes ----------------------------------------------------------------------------

CROWD = 4


def crowd(root: Path, tasks: dict[bool, int], *, rounds: int) -> dict[type[peers.Queue], list[tuple[float, int, int]]]:
    """Run 4 producers and 4 consumers; return cycles/s, lost and handed out twice for each round."""
    shared: list[type[peers.Queue]] = [Ours, OursDurable, *(peer for peer in peers.installed() if peer.is_shared)]
    done: dict[type[peers.Queue], list[tuple[float, int, int]]] = {kind: [] for kind in shared}
    context = multiprocessing.get_context("spawn")
    folder = apart(root / "crowd")
    end = time.monotonic() + RUN_S
    for turn in range(rounds):
        if turn and time.monotonic() > end:
            break
        for kind in shared:
            done[kind].append(_crowd_once(context, kind, fresh(folder), tasks[kind.is_durable]))
        progress(f"4 x 4: round {turn + 1} of {rounds}")
    return done


def crowded(done: dict[type[peers.Queue], list[tuple[float, int, int]]]) -> tuple[table.Table, list[table.Goal]]:
    """Turn what the crowd did into a table and goals."""
    rates = {kind: [rate for rate, _, _ in rounds] for kind, rounds in done.items()}
    lost = {kind: sum(gone for _, gone, _ in rounds) for kind, rounds in done.items()}
    twice = {kind: sum(again for _, _, again in rounds) for kind, rounds in done.items()}
    own = rates[Ours]
    rows = [
        (
            kind.name,
            table.number(table.median(seen)),
            table.spread(seen),
            table.number(table.ratio(seen, own)),
            str(lost[kind]),
            str(twice[kind]),
        )
        for kind, seen in rates.items()
    ]
    goals = [
        table.Goal(f"4 x 4, of {kind.name}", 1, table.ratio(own, rates[kind]), at_least=True)
        for kind in done
        if kind.module
    ]
    goals.append(table.Goal("4 x 4, lost or twice", 0, sum(lost[k] + twice[k] for k in (Ours, OursDurable))))
    head = ("", "cycles/s", "of rounds", f"of {Ours.name}", "lost", "twice")
    return table.Table(f"{CROWD} producers and {CROWD} consumers, a process each", head, rows), goals


def _crowd_once(context: SpawnContext, kind: type[peers.Queue], root: Path, tasks: int) -> tuple[float, int, int]:
    kind(root).close()
    start, results = context.Barrier(2 * CROWD + 1), context.Queue()
    share = tasks // CROWD
    workers = [
        context.Process(target=_produce, args=(kind, root, range(at * share, (at + 1) * share), start))
        for at in range(CROWD)
    ]
    left = context.Value("i", CROWD * share)
    workers += [context.Process(target=_consume, args=(kind, root, left, start, results)) for _ in range(CROWD)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = time.perf_counter()
    claimed: list[int] = []
    for _ in range(CROWD):
        claimed += results.get(timeout=120)
    took = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    once = set(claimed)
    return CROWD * share / took, CROWD * share - len(once), len(claimed) - len(once)


def _produce(kind: type[peers.Queue], root: Path, numbers: range, start: Any) -> None:  # noqa: ANN401  a barrier
    made = kind(root)
    start.wait()
    for number in numbers:
        made.post(number)
    made.close()


def _consume(kind: type[peers.Queue], root: Path, left: Any, start: Any, results: Any) -> None:  # noqa: ANN401  shared things have no types
    made, claimed, pause = kind(root), list[int](), threading.Event()
    start.wait()
    idle_since = time.monotonic()
    # What was lost never comes: an end to waiting tells it from what is late.
    while left.value > 0 and time.monotonic() - idle_since < 10:
        found = made.claim()
        if found is None:
            pause.wait(0.001)
            continue
        made.ack(found[1])
        claimed.append(found[0])
        with left.get_lock():
            left.value -= 1
        idle_since = time.monotonic()
    results.put(claimed)
    made.close()
