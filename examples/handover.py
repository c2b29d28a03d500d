"""Two agents in two processes hand each other a task, through the library.

Run it: `python examples/handover.py [BUS_DIRECTORY]`.  Without a directory it makes a temporary bus.

The poster does not know who will do the task, nor whether anyone is there yet; the worker does not
know who asked.  Both only know the channel.
"""

from __future__ import annotations

import multiprocessing
import secrets
import sys
import tempfile
from typing import TYPE_CHECKING

from mcp_bus import State, Task, open_bus, wait_for

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

CHANNEL = "review"


def poster(path: str, run: str, enough: Event) -> None:
    """Post a task, wait for its result, and let the worker go."""
    try:
        ask(path, run)
    finally:
        enough.set()


def ask(path: str, run: str) -> None:
    """Post the task of one run and read what became of it."""
    with open_bus(path, agent="ann") as bus:
        # The key makes a post safe to repeat: within a run there is one task, however often this is called.
        posted = bus.post(CHANNEL, "look at src/app.py", title="review app", key=f"app-{run}")
        print(f"ann posted {posted.id[-8:]}", flush=True)

        def ended() -> Task | None:
            bus.tend()  # Should the worker die, this brings the task back when its lease is over.
            task = bus.get(posted.id)
            return task if task.state in (State.DONE, State.DEAD) else None

        task = wait_for(bus, ended, channels=[CHANNEL], timeout_s=60)
        if task is None or task.result is None:
            sys.exit("there is no result")
        print(f"ann reads {task.result.content!r}, by {task.result.sender.agent}", flush=True)


def worker(path: str, enough: Event) -> None:
    """Do whatever comes, also what an earlier run left behind."""
    with open_bus(path, agent="bob") as bus:
        while not enough.is_set():
            # A short wait, for the event does not end it.
            task = wait_for(bus, lambda: bus.claim([CHANNEL]), channels=[CHANNEL], timeout_s=0.5)
            if task is not None:
                print(f"bob works on {task.body.title!r}, attempt {task.slot.attempt}", flush=True)
                bus.ack(task, "two nits, see line 40")


def main(path: str) -> int:
    """Start both and wait for both."""
    # Spawned, not forked: an open bus must not be carried over a fork.
    processes = multiprocessing.get_context("spawn")
    enough = processes.Event()
    both = [
        processes.Process(target=worker, args=(path, enough)),
        processes.Process(target=poster, args=(path, secrets.token_hex(4), enough)),
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    return max(abs(process.exitcode or 0) for process in both)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1]))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(f"{scratch}/bus"))
