"""What processes did to files, from the log of `strace`, and a bus full of traps that lead out of it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_FDCWD, EXCHANGE, MANY = -100, 2, 1000
# -y shows the real path of each descriptor, after every symlink on the way.
STRACE = ("strace", "-f", "-y", "-s", "4096", "-e", "trace=%file,%process,%network", "-e", "signal=none", "-o")
_LINE = re.compile(r"^(?:\d+\s+)?(?P<call>\w+)\((?P<args>.*)\)\s+= (?P<code>-?\d+)(?:<(?P<real>[^>]*)>)?")
# The two halves of a call during which another thread or process made one.
_BEGAN = re.compile(r"^(?P<pid>\d+)\s+(?P<head>.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. \w+ resumed>(?P<tail>.*)$")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<at>[^>]*)>, )?"(?P<name>(?:[^"\\]|\\.)*)"')
_OPENS = ("open", "openat", "openat2", "creat")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
_CHANGES = re.compile(
    r"^(rename|link|symlink|unlink|mkdir|rmdir|mknod|chmod|fchmodat|lchown|chown|fchownat|utime|futimesat|truncate"
    r"|setxattr|removexattr|mount|umount|chroot|pivot_root)"
)


@dataclass
class Calls:
    """What was done, in all processes that were followed."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    executed: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)


def calls_in(log: Path, cwd: Path) -> Calls:
    """Read a log of `STRACE`; relative names of calls without a folder are taken from `cwd`."""
    made = Calls()
    for line in _whole(log.read_text(encoding="utf-8", errors="replace")):
        found = _LINE.match(line)
        if found is None:
            continue
        call, args, code = found["call"], found["args"], int(found["code"])
        if call == "execve":
            made.executed.append(args)
        elif call == "connect" or (call == "socket" and "AF_INET" in args):
            made.reached.append(args)
        elif code < 0:
            continue
        elif call in _OPENS:
            (made.written if call == "creat" or _WRITES.search(args) else made.read).add(found["real"] or "?")
        elif _CHANGES.match(call):
            made.changed |= {
                os.path.normpath(os.path.join(name["at"] or cwd, name["name"]))  # noqa: PTH118  may be absolute
                for name in _NAME.finditer(args)
            }
    return made


def _whole(text: str) -> Iterator[str]:
    began: dict[str, str] = {}
    for line in text.splitlines():
        if head := _BEGAN.match(line):
            began[head["pid"]] = head["head"]
        elif tail := _ENDED.match(line):
            yield began.pop(tail["pid"], "") + tail["tail"]
        else:
            yield line


# --- traps -----------------------------------------------------------------------------------


def body(name: str, channel: str = "work", **more: object) -> str:
    return json.dumps({"id": name, "to": channel, "content": "a trap", "from": {"agent": "eve"}, **more})


class Canaries:
    """Files outside a bus that nobody may touch, as they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "inner").mkdir(parents=True)
        for number, name in enumerate(("secret", "req_" + "a" * 32 + ".json", "inner/req_" + "b" * 32 + ".json")):
            (folder / name).write_text(body(f"req_{'abc'[number] * 32}"))
        (folder / "append").write_text("one line\n")
        self._before = self._look()

    def _look(self) -> dict[str, object]:
        found = dict[str, object]()
        for path in sorted(self.folder.rglob("*")):
            about = path.stat()
            data = (
                path.read_bytes() if path.is_file() else b"".join(sorted(os.fsencode(p.name) for p in path.iterdir()))
            )
            found[str(path)] = (data, about.st_mode, about.st_mtime_ns, about.st_uid)
        return found

    def changed(self) -> list[str]:
        now = self._look()
        return [name for name in self._before | now if self._before.get(name) != now.get(name)]


def plant(root: Path, canaries: Canaries, journal: str, day: str) -> int:
    """Put into every folder of a bus what leads out of it; return how many traps there are."""
    secret, inner, count = canaries.folder / "secret", canaries.folder / "inner", 0
    folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    for number, folder in enumerate(folders):
        real = f"req_{number:032x}.json"
        (folder / real).symlink_to(secret)
        (folder / f"req_{number + 5000:032x}.json").hardlink_to(secret)
        (folder / f"req_{'a' * 32}.json").symlink_to(canaries.folder / f"req_{'a' * 32}.json")
        (folder / f"away-{number}").symlink_to(inner, target_is_directory=True)
        (folder / f"hard-{number}.json").hardlink_to(canaries.folder / "append")
        (folder / "..json").symlink_to(inner / "..", target_is_directory=True)
        (folder / f"..{number}").write_text("../../outside/secret")
        os.mkfifo(folder / f"req_{number + 9000:032x}.json")
        count += 8
    for name, text in {
        f"req_{'d' * 32}": body("../../../outside/secret"),
        f"req_{'e' * 32}": body(f"req_{'e' * 32}", "../../outside"),
        f"req_{'f' * 32}": body(f"req_{'f' * 32}", bus={"key": "../../outside/secret"}),
    }.items():
        (root / "channels" / "work" / "requests" / f"{name}.json").write_text(text)
    for where, name in (("journal", journal), ("tombstones", f"{day}.txt")):
        (root / where).mkdir(exist_ok=True)
        (root / where / name).unlink(missing_ok=True)
        (root / where / name).hardlink_to(canaries.folder / "append")
    for name in ("told", "cursors", "runs", "outputs", "pipes", "boots"):
        if not (root / name).exists():
            (root / name).symlink_to(inner, target_is_directory=True)
    for name in ("manifest.json", "agents/ann.md", "agents/bob.md", "channels/trap"):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(inner if name == "channels/trap" else secret)
    return count + 15


def swapping(root: Path, outside: Path, stop: Path) -> None:
    """Put a symlink to a folder outside in the place of one folder after another, and the folder back, until told.

    Each exchange is one call, so that a name is never missing: what is opened is the folder or the symlink.
    """
    names = ["tmp", "staged", "tasks", "channels/work/requests", "channels/work/processing", "agents", "journal"]
    libc, count = ctypes.CDLL(None, use_errno=True), 0
    links = [root / f"swapped-{number}" for number, _ in enumerate(names)]
    for link in links:
        link.symlink_to(outside / "inner", target_is_directory=True)
    pairs = [(root / name, link) for name, link in zip(names, links, strict=True) for _ in range(2)]
    while not stop.exists():
        for folder, link in pairs:
            if libc.renameat2(AT_FDCWD, os.fsencode(folder), AT_FDCWD, os.fsencode(link), EXCHANGE) == 0:
                count += 1
                continue
            # A verb has put the symlink aside, as it may: the folder gets its name back, and it goes on.
            assert ctypes.get_errno() == errno.ENOENT
            link.rename(folder)
            link.symlink_to(outside / "inner", target_is_directory=True)
    assert count > MANY
