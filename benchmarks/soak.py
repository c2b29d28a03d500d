"""The long runs: what a test tries for a second, for as long as it takes to believe it.

    python -m benchmarks.soak                        # all of it, hours
    python -m benchmarks.soak --quick                # what the tests try of each promise, as a table; minutes
    python -m benchmarks.soak topic --messages 2000  # subscribers of a topic that are killed all the time
    python -m benchmarks.soak cuts --times 10000     # power cuts of mounted file systems; needs root and mkfs
    python -m benchmarks.soak stale --times 1000     # workers that are stopped at each step between claim and ack
    python -m benchmarks.soak races --times 1000     # eight processes race for 250 tasks, so often
    python -m benchmarks.soak churn --times 60       # days of work, by a clock that is set forward: nothing may grow

A topic's messages become visible out of order, and its subscribers are killed all the time.
Exit code 1 if one message was missed, or anything else that was acknowledged is lost or there twice.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mcp_bus.bus import Bus
from mcp_bus.clock import Ids, System
from mcp_bus.errors import Conflict
from mcp_bus.model import Body, Identity, Sender
from mcp_bus.names import holder
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from tests import tally
from tests.tally import CUTS, DAYS, MESSAGES, ROWS, STOPS, TASKS, Line

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


def run_topic(place: Path, args: argparse.Namespace) -> list[Line]:
    """Run the topic, and say what came of it."""
    print(f"a topic, {args.messages} messages, 2 senders, 5 subscribers that are killed all the time ...")
    made = topic(place / "bus", args.messages)
    print(
        f"{made.messages} messages to {made.subscribers} subscribers in {made.seconds:.0f} s: {made.missed} missed, "
        f"{made.repeated} shown more than once, {made.killed} subscribers killed"
    )
    how = f"topics, {made.killed} subscribers killed"
    return [Line("P12", how, made.messages * made.subscribers, MESSAGES, made.missed)]


def run_cuts(place: Path, args: argparse.Namespace) -> list[Line]:
    """Cut the power of file systems under working processes."""
    return [cut(kind, place, args) for kind in args.file_system]


def cut(kind: str, place: Path, args: argparse.Namespace) -> Line:
    """Cut one kind of file system."""
    from tests.media.cuts import Cuts  # noqa: PLC0415  pytest is not needed for the others
    from tests.media.mounts import missing, mounted  # noqa: PLC0415  nor is root

    lacks = missing(kind)
    if lacks:
        print(f"{kind}: {lacks}")
        return Line("P1 P2 P7", f"power cuts of a mounted {kind}: not possible here", 0, CUTS, 1)
    start = time.monotonic()
    with mounted(kind, place) as medium:
        cuts = Cuts(medium, seed=args.seed)
        while cuts.cuts < args.times and not cuts.problems:
            cuts.run(min(cuts.cuts + PROGRESS, args.times))
            print(
                f"{kind}: {cuts.cuts} cuts in {time.monotonic() - start:.0f} s, {cuts.acknowledged} acknowledgements "
                f"before them, {len(cuts.problems)} things wrong afterwards",
                flush=True,
            )
    for problem in cuts.problems:
        print(problem)
    how = f"power cuts of a mounted {kind}, {cuts.acknowledged} acknowledged"
    return Line("P1 P2 P7", how, cuts.cuts, CUTS, len(cuts.problems))


def run_stale(place: Path, args: argparse.Namespace) -> list[Line]:
    """Stop a worker at each step between claim and ack, again and again; a wrong word is an error."""
    from tests.crash.test_stale import LOST, one_task, overtaken  # noqa: PLC0415  as above

    start, seen = time.monotonic(), list[int]()
    root = one_task(place / "bus")
    for count in range(1, args.times + 1):
        seen += [code for _, code in overtaken(root, place)]
        if count % PROGRESS == 0 or count == args.times:
            print(
                f"{count} times at each step: {len(seen)} workers stopped in {time.monotonic() - start:.0f} s, "
                f"{seen.count(LOST)} of them lost their lease; none published after another did",
                flush=True,
            )
    return [Line("P5", f"stops between claim and ack, {seen.count(LOST)} lost their lease", len(seen), STOPS, 0)]


def run_races(place: Path, args: argparse.Namespace) -> list[Line]:
    """Let eight processes race for a quarter of a million tasks in all; a wrong word is an error."""
    from tests.crash.crowd import Log  # noqa: PLC0415  as above
    from tests.crash.test_races import lapsing, poisoned, racing, worked_on  # noqa: PLC0415  as above

    done, deadly, start, rounds = 0, 0, time.monotonic(), max(1, args.times // 10)
    for number in range(rounds):
        worked_on(racing(place / "work"), Log(place / "work/log"), EACH)
        lapsing(racing(place / "lapse"), Log(place / "lapse/log"), EACH)
        done += EACH * 9
        if number % 10 == 0:
            deadly += poisoned(racing(place / "die"), Log(place / "die/log"), seed=args.seed + number, poison=PROGRESS)
        for used in place.iterdir():
            shutil.rmtree(used)
        if number % 10 == 9 or number == rounds - 1:
            took = time.monotonic() - start
            print(f"{done} tasks raced for, {deadly} that kill their worker, in {took:.0f} s", flush=True)
    return [
        Line("P3 P4 P11", "races of eight processes on a disk", done, TASKS, 0),
        Line("P9", "tasks that kill each worker", deadly, TASKS, 0),
    ]


def run_churn(place: Path, args: argparse.Namespace) -> list[Line]:
    """Let days pass, and say what grew."""
    from benchmarks.churn import churn  # noqa: PLC0415  as above

    days = min(args.times, MANY_DAYS)
    print(f"{days} days of work, mail, plans and kills, by a clock that is set forward ...", flush=True)
    made = churn(place / "bus", days=days, turns=24, tasks=40)
    for line in made.growth():
        print(line)
    last = made.days[-1]
    print(
        f"{made.tasks} tasks, {made.killed} processes killed; at the end {last.files.total()} files, "
        f"{last.resident >> 20} MiB and {last.descriptors} descriptors; {made.left.total()} files are left"
    )
    return [Line("P25", f"days of churn, {made.killed} kills", days, DAYS, len(made.growth()))]


def run_tests(place: Path, args: argparse.Namespace) -> list[Line]:
    """Run the tests of promises, which print what was tried of each."""
    del args
    here = Path(__file__).resolve().parents[1]
    patterns = {pattern for row in ROWS for pattern in row.files}
    files = {str(path) for pattern in patterns for path in (here / "tests").glob(pattern) if path.match("test_*.py")}
    words = [sys.executable, "-m", "pytest", "-q", "--promises", "--numprocesses=auto", f"--basetemp={place / 'tests'}"]
    code = subprocess.run([*words, *sorted(files)], cwd=here, check=False).returncode
    return [Line("all", "what the tests try, in the table above", len(files), "files of tests", code)]


RUNS = {
    "tests": run_tests,
    "topic": run_topic,
    "cuts": run_cuts,
    "stale": run_stale,
    "races": run_races,
    "churn": run_churn,
}
PROGRESS, MANY_DAYS = 100, 60
# Tasks that each of eight processes posts, in a race.
EACH = 280


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=RUNS, help="what to run (all of it)")
    parser.add_argument("--quick", action="store_true", help="what the tests try, and no more")
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="messages on the topic (100,000)")
    parser.add_argument("--times", type=int, default=1000, metavar="N", help="cuts, stops at each step, days (1,000)")
    parser.add_argument("--file-system", nargs="+", default=["ext4", "xfs"], metavar="KIND", help="what to cut off")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another run of cuts (0)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where to work; a disk, not memory")
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="mcp-bus-soak-", dir=args.dir))
    try:
        wrong, table = 0, [tally.HEADER]
        for name in [args.what] if args.what else ["tests"] if args.quick else list(RUNS):
            (place / name).mkdir()
            start = time.monotonic()
            made = RUNS[name](place / name, args)
            table += [line.text((time.monotonic() - start) / len(made)) for line in made]
            wrong += sum(line.violations for line in made)
        print(*table, sep="\n")
        return 1 if wrong else 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
