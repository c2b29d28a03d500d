"""Run a server and keep what is said on both sides of it: `record.py FOLDER COMMAND…` adds to FOLDER/in and FOLDER/out.

The server is this very process, so that it has the parent and the id that it would have without; it only talks to two
children, which copy, through sockets, as some clients use them.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path


def copied(fd: int, path: Path, *, is_input: bool) -> None:
    """Let a child stand between this process and a descriptor of its own; the child writes down what passes."""
    near, far = socket.socketpair()
    if os.fork():
        os.dup2(near.fileno(), fd)
        near.close()
        far.close()
        return
    near.close()
    source, target = (fd, far.fileno()) if is_input else (far.fileno(), fd)
    with suppress(OSError), path.open("ab") as kept:
        for other in {0, 1, 2} - {fd}:  # Whoever waits for their end must not wait for this.
            os.close(other)
        while data := os.read(source, 1 << 16):
            kept.write(data)
            kept.flush()
            while data:
                data = data[os.write(target, data) :]
    os._exit(0)


def main(folder: Path, command: list[str]) -> None:
    """Become the server; does not return."""
    folder.mkdir(parents=True, exist_ok=True)
    copied(0, folder / "in", is_input=True)
    copied(1, folder / "out", is_input=False)
    os.execv(command[0], command)  # noqa: S606  the command is what a test has put together


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
