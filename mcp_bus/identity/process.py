"""Which process this is and what runs it, and whether another one still runs: what presence on one machine rests on."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Field of /proc/<pid>/stat after the name in parentheses that holds the start, in ticks since boot (proc(5)).
_START = 19
MOST = 2**31
_OVER = (b"Z", b"X")


def boot_id() -> str:
    """Return a word that changes when the machine starts anew.

    Where the kernel gives none, the time it started, which may seem to change more often: what
    depends on it is then done more often than it need be.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"at-{int(time.time() - time.monotonic()) // 60}"


def host() -> str:
    """Return this machine's name, without what importing `socket` costs."""
    return os.uname().nodename if hasattr(os, "uname") else ""


def started(pid: int) -> int:
    """Return when a process started, by the kernel's clock: with its pid, who it is.  0 where that is not told.

    One that has ended and only waits to be asked how is not told of: it is no longer there to do anything.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name may hold anything, parentheses and blanks included.
    fields = stat.rpartition(b")")[2].split()
    return int(fields[_START]) if len(fields) > _START and fields[0] not in _OVER else 0


def words(pid: int) -> list[str] | None:
    """Return the command line of a process; None where that is not told."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return None


def is_running(pid: int, since: int) -> bool:
    """Tell whether the process of that pid which started at `since` still runs; without `since`, whether any does."""
    if not 0 < pid < MOST:
        return False  # 0 and below stand for groups of processes, and nothing has a number as great as that.
    if since:
        return started(pid) == since
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # Someone else's: it runs.
    return True


def to_install(package: str) -> str:
    """Return the command that brings a package to the Python that runs this: it may be one of pipx or uv."""
    import shlex  # noqa: PLC0415  who gets here has lost more time
    from importlib.util import find_spec  # noqa: PLC0415  as above

    python = shlex.quote(sys.executable or "python3")
    has_pip = find_spec("pip") is not None
    return f"`{python} -m pip install {package}`" if has_pip else f"`uv pip install --python {python} {package}`"
