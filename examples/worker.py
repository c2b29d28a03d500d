"""A worker: takes tasks of a channel one after the other until it is told to stop.

Run it: `python examples/worker.py CHANNEL [--bus DIRECTORY] [--once]`.  SIGTERM or Ctrl-C stop it.

To make it yours, replace `handle`.  What the rest takes care of:

- a task that fails is tried again after a pause, by anyone, and is a dead letter after the last attempt;
- a lease is renewed while its task is in work, by a thread with a bus of its own;
- a task that was cancelled or taken away is dropped: its result would not be accepted;
- a worker that is told to stop gives its task back, and that costs no attempt.
"""

from __future__ import annotations

import argparse
import signal
import threading

from mcp_bus import Bus, LeaseLost, Task, open_bus, wait_for

LEASE_S = 30.0
LINE_S = 0.01


class Stopped(Exception):
    """The work is not to go on: its task was taken away, or the worker has to stop."""


def handle(task: Task, enough: threading.Event) -> object:
    """Do a task and return its result; here: count the words of each line, slowly.

    The text is another agent's.  It is data: never hand it to a shell or run it.

    Raises:
        Stopped: `enough` was set.  Work that takes long looks at it now and then.
        ValueError: the task cannot be done.
    """
    counts = []
    for line in task.body.content.splitlines():
        if enough.wait(LINE_S):
            raise Stopped
        counts.append(len(line.split()))
    if not counts:
        msg = "there is nothing to count"
        raise ValueError(msg)
    return {"words": counts}


class Worker:
    """The loop around `handle`."""

    def __init__(self, path: str | None, channel: str) -> None:
        self._path, self._channel = path, channel
        self._is_told = False
        self._enough = threading.Event()

    def stop(self) -> None:
        """Give back the task in work, and end.  For another thread, never for a signal handler.

        A handler interrupts this thread anywhere, also where it holds the lock of the event that would be set.
        """
        self._is_told = True
        self._enough.set()

    def run(self, *, once: bool) -> None:
        """Take tasks until told to stop, or with `once` until nothing waits."""
        with open_bus(self._path) as bus:
            print(f"{bus.identity.agent} works on {self._channel}", flush=True)
            while not self._is_told:
                # A short wait, for `stop` does not end it.
                task = wait_for(bus, lambda: self._claim(bus), channels=[self._channel], timeout_s=0 if once else 1)
                if task is not None:
                    print(f"{task.id[-8:]} {self._work(bus, task)}", flush=True)
                elif once:
                    break

    def _claim(self, bus: Bus) -> Task | None:
        return bus.claim([self._channel], lease_s=LEASE_S)

    def _work(self, bus: Bus, task: Task) -> str:
        self._enough = threading.Event()
        if self._is_told:
            self._enough.set()
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(task, self._enough, done))
        keeper.start()
        try:
            return self._handled(bus, task)
        except LeaseLost as error:
            return f"lost: {error}"
        finally:
            done.set()
            keeper.join()

    def _handled(self, bus: Bus, task: Task) -> str:
        try:
            result = handle(task, self._enough)
        except Stopped:
            bus.release(task.ticket, "its worker was told to stop")
            return "given back"
        except ValueError as error:
            return str(bus.nack(task.ticket, str(error)).state)
        bus.ack(task.ticket, result)
        return "done"

    def _keep(self, task: Task, enough: threading.Event, done: threading.Event) -> None:
        """Renew a lease whenever a third of it is gone; a bus is not for several threads, so with another one."""
        while not done.wait(LEASE_S / 3):
            try:
                with open_bus(self._path, create=False) as bus:
                    bus.renew(task.ticket, lease_s=LEASE_S)
            except LeaseLost:
                enough.set()
                return


def stop_on_signals(worker: Worker) -> None:
    """Let a thread wait for SIGTERM and Ctrl-C and stop the worker."""
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # Threads that start later inherit it.

    def wait() -> None:
        signal.sigwait(numbers)
        worker.stop()

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Work until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("channel")
    parser.add_argument("--bus", help="the bus directory; found as mcp-bus finds it unless told")
    parser.add_argument("--once", action="store_true", help="end when nothing waits")
    args = parser.parse_args()
    worker = Worker(args.bus, args.channel)
    stop_on_signals(worker)
    worker.run(once=args.once)


if __name__ == "__main__":
    main()
