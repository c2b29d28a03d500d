"""The long runs: what a test tries for a second, for as long as it takes to believe it.

    python -m benchmarks.soak                        # all of it, hours
    python -m benchmarks.soak --quick                # what the tests try of each promise, as a table; minutes
    python -m benchmarks.soak topic --messages 2000  # subscribers of a topic that are killed all the time
    python -m benchmarks.soak cuts --times 10000     # power cuts of mounted file systems; needs root and mkfs
    python -m benchmarks.soak stale --times 1000     # workers that are stopped at each step between claim and ack
    python -m benchmarks.soak fuzz --seconds 3600    # every parser of what others wrote, guided by coverage; or --times

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
from concurrent.futures import ThreadPoolExecutor
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


def run_topic(place: Path, args: argparse.Namespace) -> int:
    """Run the topic, and say what came of it; return how much is wrong."""
    print(f"a topic, {args.messages} messages, 2 senders, 5 subscribers that are killed all the time ...")
    made = topic(place / "bus", args.messages)
    print(
        f"{made.messages} messages to {made.subscribers} subscribers in {made.seconds:.0f} s: {made.missed} missed, "
        f"{made.repeated} shown more than once, {made.killed} subscribers killed"
    )
    return made.missed


def run_cuts(place: Path, args: argparse.Namespace) -> int:
    """Cut the power of file systems under working processes; return how much is wrong."""
    return sum(cut(kind, place, args) for kind in args.file_system)


def cut(kind: str, place: Path, args: argparse.Namespace) -> int:
    """Cut one kind of file system."""
    from tests.media.cuts import Cuts  # noqa: PLC0415  pytest is not needed for the others
    from tests.media.mounts import missing, mounted  # noqa: PLC0415  nor is root

    lacks = missing(kind)
    if lacks:
        print(f"{kind}: {lacks}")
        return 1
    start = time.monotonic()
    with mounted(kind, place) as medium:
        cuts = Cuts(medium, seed=args.seed)
        while cuts.cuts < (args.times or TIMES) and not cuts.problems:
            cuts.run(min(cuts.cuts + PROGRESS, args.times or TIMES))
            print(
                f"{kind}: {cuts.cuts} cuts in {time.monotonic() - start:.0f} s, {cuts.acknowledged} acknowledgements "
                f"before them, {len(cuts.problems)} things wrong afterwards",
                flush=True,
            )
    for problem in cuts.problems:
        print(problem)
    return len(cuts.problems)


def run_stale(place: Path, args: argparse.Namespace) -> int:
    """Stop a worker at each step between claim and ack, again and again; a wrong word is an error."""
    from tests.crash.test_stale import LOST, one_task, overtaken  # noqa: PLC0415  as above

    start, seen = time.monotonic(), list[int]()
    root = one_task(place / "bus")
    times = args.times or TIMES
    for count in range(1, times + 1):
        seen += [code for _, code in overtaken(root, place)]
        if count % PROGRESS == 0 or count == times:
            print(
                f"{count} times at each step: {len(seen)} workers stopped in {time.monotonic() - start:.0f} s, "
                f"{seen.count(LOST)} of them lost their lease; none published after another did",
                flush=True,
            )
    return 0


def run_fuzz(place: Path, args: argparse.Namespace) -> int:
    """Fuzz every parser, as many at once as there are processors; return how many broke a rule.

    Inputs that show it are kept where this was started, for the folder of this run is removed.
    """
    from tests.fuzz import campaign  # noqa: PLC0415  as above

    del place
    if campaign.LACKING:
        print(campaign.LACKING)
        return 1
    limit = f"-runs={args.times}" if args.times else f"-max_total_time={args.seconds}"
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        wrong = 0
        for found in pool.map(lambda name: campaign.run(name, limit, keep=Path.cwd()), campaign.SEEDS):
            print(found.line(), flush=True)
            wrong += bool(found.violation)
    return wrong


def run_tests(place: Path, args: argparse.Namespace) -> int:
    """Run the tests of promises, and print what was tried of each; return how much is wrong."""
    from tests.tally import ROWS  # noqa: PLC0415  as above

    del args
    here = Path(__file__).resolve().parents[1]
    patterns = {pattern for row in ROWS for pattern in row.files}
    files = {str(path) for pattern in patterns for path in (here / "tests").glob(pattern) if path.match("test_*.py")}
    words = [sys.executable, "-m", "pytest", "-q", "--promises", "--numprocesses=auto", f"--basetemp={place / 'tests'}"]
    return subprocess.run([*words, *sorted(files)], cwd=here, check=False).returncode


RUNS = {"tests": run_tests, "topic": run_topic, "cuts": run_cuts, "stale": run_stale, "fuzz": run_fuzz}
PROGRESS, TIMES = 100, 1000


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=RUNS, help="what to run (all of it)")
    parser.add_argument("--quick", action="store_true", help="what the tests try, and no more")
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="messages on the topic (100,000)")
    parser.add_argument(
        "--times", type=int, default=0, metavar="N", help="cuts, stops at each step (1,000), or inputs of each parser"
    )
    parser.add_argument("--seconds", type=int, default=600, metavar="S", help="for each parser, without --times (600)")
    parser.add_argument("--file-system", nargs="+", default=["ext4", "xfs"], metavar="KIND", help="what to cut off")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another run of cuts (0)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where to work; a disk, not memory")
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="mcp-bus-soak-", dir=args.dir))
    try:
        chosen = [args.what] if args.what else ["tests"] if args.quick else list(RUNS)
        wrong = dict.fromkeys(chosen, 0)
        for name in chosen:
            (place / name).mkdir()
            wrong[name] = RUNS[name](place / name, args)
        return 1 if any(wrong.values()) else 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
