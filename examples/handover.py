"""Two agents in two processes hand each other a task, through the library.

Run it: `python examples/handover.py [BUS_DIRECTORY]`.  Without a directory it makes a temporary bus.

The poster does not know who will do the task, nor whether anyone is there yet; the worker does not
know who asked.  Both only know the channel.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile

from mcp_bus import State, Task, open_bus, wait_for

CHANNEL = "review"


def poster(path: str) -> None:
    """Post a task and wait for its result."""
    with open_bus(path, agent="ann") as bus:
        # The key makes this safe to repeat: started twice, there is still one task.
        posted = bus.post(CHANNEL, "look at src/app.py", title="review app", key="app-1")
        print(f"ann posted {posted.id[-8:]}", flush=True)

        def ended() -> Task | None:
            bus.tend()  # Should the worker die, this brings the task back when its lease is over.
            task = bus.get(posted.id)
            return task if task.state in (State.DONE, State.DEAD) else None

        task = wait_for(bus, ended, channels=[CHANNEL], timeout_s=60)
        if task is None or task.result is None:
            sys.exit("there is no result")
        print(f"ann reads {task.result.content!r}, by {task.result.sender.agent}", flush=True)


def worker(path: str) -> None:
    """Do one task."""
    with open_bus(path, agent="bob") as bus:
        task = wait_for(bus, lambda: bus.claim([CHANNEL]), channels=[CHANNEL], timeout_s=60)
        if task is None:
            sys.exit("nobody posted anything")
        print(f"bob works on {task.body.title!r}, attempt {task.slot.attempt}", flush=True)
        bus.ack(task, "two nits, see line 40")


def main(path: str) -> int:
    """Start both and wait for both."""
    # Spawned, not forked: an open bus must not be carried over a fork.
    processes = multiprocessing.get_context("spawn")
    both = [processes.Process(target=role, args=(path,)) for role in (worker, poster)]
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
