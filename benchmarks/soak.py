"""The long runs: what a test tries for a second, for as long as it takes to believe it.

    python -m benchmarks.soak                        # all of it, hours
    python -m benchmarks.soak --quick                # what the tests try of each promise, as a table; minutes
    python -m benchmarks.soak topic --messages 2000  # subscribers of a topic that are killed all the time
    python -m benchmarks.soak cuts --times 5000      # power cuts of mounted file systems; needs root and mkfs
    python -m benchmarks.soak stale --times 1000     # workers that are stopped at each step between claim and ack
    python -m benchmarks.soak races --times 100      # eight processes race for 2,520 tasks, so often
    python -m benchmarks.soak churn --times 60       # days of work, by a clock that is set forward: nothing may grow
    python -m benchmarks.soak fuzz --seconds 3600    # every parser of what others wrote, guided by coverage; or --times

It ends with a table: the promise, what was done, how often, what was violated, how long it took.  Exit code 1 if
anything was, or could not be tried here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests import tally
from tests.tally import CUTS, DAYS, INPUTS, MESSAGES, ROWS, STOPS, TASKS, Line

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("ext4", "xfs")
# Cuts of each file system or stops at each step, rounds of races, days of churn, where nothing else is asked for.
TIMES, ROUNDS, DAYS_OF_WORK = 1000, 100, 60
# What is done between two lines about how far it is; tasks that each of eight processes posts in a race.
PROGRESS, EACH = 100, 280


def run_topic(place: Path, args: argparse.Namespace) -> list[Line]:
    """Run the topic, and say what came of it."""
    from benchmarks.subscribers import topic  # noqa: PLC0415  each run loads what it needs, of which some is an extra

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
    from tests.media.cuts import Cuts  # noqa: PLC0415  as above
    from tests.media.mounts import missing, mounted  # noqa: PLC0415  as above

    lacks = missing(kind)
    if lacks:
        print(f"{kind}: {lacks}")
        return Line("P1 P2 P7", f"power cuts of a mounted {kind}: not possible here", 0, CUTS, 1)
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
    how = f"power cuts of a mounted {kind}, {cuts.acknowledged} acknowledged"
    return Line("P1 P2 P7", how, cuts.cuts, CUTS, len(cuts.problems))


def run_stale(place: Path, args: argparse.Namespace) -> list[Line]:
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
    return [Line("P5", f"stops between claim and ack, {seen.count(LOST)} lost their lease", len(seen), STOPS, 0)]


def run_fuzz(place: Path, args: argparse.Namespace) -> list[Line]:
    """Fuzz every parser, as many at once as there are processors.

    Inputs that show it are kept where this was started, for the folder of this run is removed.
    """
    from tests.fuzz import campaign  # noqa: PLC0415  as above

    del place
    if campaign.LACKING:
        print(campaign.LACKING)
        return [Line("P6 P18", "parsers, guided by coverage: not possible here", 0, INPUTS, 1)]
    limit, tried, wrong = f"-runs={args.times}" if args.times else f"-max_total_time={args.seconds}", 0, 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(lambda name: campaign.run(name, limit, keep=Path.cwd()), campaign.SEEDS):
            print(found.line(), flush=True)
            tried += found.executions
            wrong += bool(found.violation)
    return [Line("P6 P18", f"{len(campaign.SEEDS)} parsers, guided by coverage", tried, INPUTS, wrong)]


def run_races(place: Path, args: argparse.Namespace) -> list[Line]:
    """Let eight processes race for a quarter of a million tasks in all; a wrong word is an error."""
    from tests.crash.crowd import Log  # noqa: PLC0415  as above
    from tests.crash.test_races import lapsing, poisoned, racing, worked_on  # noqa: PLC0415  as above

    done, deadly, start, rounds = 0, 0, time.monotonic(), args.times or ROUNDS
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

    days = args.times or DAYS_OF_WORK
    print(f"{days} days of work, mail, plans and kills, by a clock that is set forward ...", flush=True)
    made = churn(place / "bus", days=days, turns=24, tasks=40)
    for line in made.growth():
        print(line)
    last = made.days[-1]
    print(
        f"{made.tasks} tasks, {made.killed} processes killed; on the last day {last.files.total()} files, "
        f"{last.resident >> 20} MiB and {last.descriptors} descriptors; when all was forgotten "
        f"{made.left.total()} files of days, agents and channels, such as cursors and tombstones"
    )
    return [Line("P25", f"days of churn, {made.killed} kills", days, DAYS, len(made.growth()))]


def run_tests(place: Path, args: argparse.Namespace) -> list[Line]:
    """Run the tests of promises, which print what was tried of each; the long way they try more."""
    here = Path(__file__).resolve().parents[1]
    patterns = {pattern for row in ROWS for pattern in row.files}
    files = {str(path) for pattern in patterns for path in (here / "tests").glob(pattern) if path.match("test_*.py")}
    words = [sys.executable, "-m", "pytest", "-q", "--promises", "--numprocesses=auto", f"--basetemp={place / 'tests'}"]
    words += [] if args.quick else ["--hypothesis-profile=soak"]
    code = subprocess.run([*words, *sorted(files)], cwd=here, check=False).returncode
    return [Line("all", "what the tests try, in the table above", len(files), "files of tests", code)]


RUNS: dict[str, Callable[[Path, argparse.Namespace], list[Line]]] = {
    "tests": run_tests,
    "topic": run_topic,
    "cuts": run_cuts,
    "stale": run_stale,
    "races": run_races,
    "churn": run_churn,
    "fuzz": run_fuzz,
}


def positive(text: str) -> int:
    """Return a number of at least 1.

    Raises:
        ValueError: it is none.
    """
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=RUNS, help="what to run (all of it)")
    parser.add_argument("--quick", action="store_true", help="what the tests try, and no more")
    parser.add_argument(
        "--messages", type=positive, default=100_000, metavar="N", help="messages on the topic (100,000)"
    )
    parser.add_argument("--times", type=positive, default=0, metavar="N", help="cuts, stops, rounds, days, inputs")
    parser.add_argument(
        "--seconds", type=positive, default=600, metavar="S", help="for each parser, without --times (600)"
    )
    parser.add_argument("--file-system", nargs="+", choices=KINDS, default=KINDS, help="what to cut off")
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
