"""File systems that die, stop, fail or remember at a given step, and processes to try them in."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hypothesis import settings

from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import BusError
from mcp_bus.model import Identity
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from tests.tally import FAULTS, KILLS, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
# `pytest --hypothesis-profile=soak` tries all of what a run of the tests tries a part of.
IS_SOAK = settings().max_examples > 1000
HOUR = 3_600_000
DAY = 24 * HOUR


class Op(NamedTuple):
    """One changing call: its name, and the paths (below the bus) and bytes it was about."""

    call: str
    path: str = ""
    to: str = ""
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.call} {self.path}" + (f" -> {self.to}" if self.to else "")


class Steps(Fs):
    """A real file system that asks `before` and tells `after` each changing call, numbered from 0.

    Nothing is synced unless `durable`: a killed process leaves the page cache as it was.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.count = 0
        self.durable = durable
        self._paths: dict[int, str] = {}

    def before(self, number: int, op: Op) -> None:
        """Called with each step's number before it happens."""

    def after(self, number: int, op: Op) -> None:
        """Called when it has happened."""

    def refused(self, number: int, op: Op) -> None:
        """Called when the file system refused it."""

    def do(self, op: Op, call: Callable[[], T]) -> T:
        number, self.count = self.count, self.count + 1
        self.before(number, op)
        try:
            made = call()
        except OSError:
            self.refused(number, op)
            raise
        self.after(number, op)
        return made

    def path(self, name: str, at: int) -> str:
        return f"{self._paths.get(at, '')}/{name}".lstrip("/")

    def open_dir(self, name: str, at: int | None) -> int:
        fd = super().open_dir(name, at)
        self._paths[fd] = "" if at is None else self.path(name, at)
        return fd

    def open_new(self, name: str, at: int) -> int:
        path = self.path(name, at)
        fd = self.do(Op("create", path), lambda: Fs.open_new(self, name, at))
        self._paths[fd] = path
        return fd

    def open_append(self, name: str, at: int) -> int:
        path = self.path(name, at)
        fd = self.do(Op("append", path), lambda: Fs.open_append(self, name, at))
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        op = Op("write", self._paths.get(fd, ""), data=bytes(data))
        return self.do(op, lambda: Fs.write(self, fd, data))

    def sync_name(self, name: str, at: int) -> None:
        self.do(Op("fsync", self.path(name, at)), lambda: Fs.sync_name(self, name, at) if self.durable else None)

    def fsync(self, fd: int) -> None:
        self.do(Op("fsync", self._paths.get(fd, "")), lambda: Fs.fsync(self, fd) if self.durable else None)

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        op = Op("link", self.path(src, src_at), self.path(dst, dst_at))
        self.do(op, lambda: Fs.link(self, src, src_at, dst, dst_at))

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        op = Op("rename", self.path(src, src_at), self.path(dst, dst_at))
        self.do(op, lambda: Fs.rename(self, src, src_at, dst, dst_at))

    def sync(self) -> None:
        self.do(Op("sync"), lambda: Fs.sync(self) if self.durable else None)

    def hold(self, name: str, at: int) -> int:
        fd = super().hold(name, at)
        self._paths[fd] = self.path(name, at)
        return fd

    def chmod(self, held: int, mode: int) -> None:
        self.do(Op("chmod", self._paths.get(held, "")), lambda: Fs.chmod(self, held, mode))

    def chown(self, held: int, group: int) -> None:
        self.do(Op("chown", self._paths.get(held, "")), lambda: Fs.chown(self, held, group))

    def fchmod(self, fd: int, mode: int) -> None:
        self.do(Op("chmod", self._paths.get(fd, "")), lambda: Fs.fchmod(self, fd, mode))

    def fchown(self, fd: int, group: int) -> None:
        self.do(Op("chown", self._paths.get(fd, "")), lambda: Fs.fchown(self, fd, group))

    def unlink(self, name: str, at: int) -> None:
        self.do(Op("unlink", self.path(name, at)), lambda: Fs.unlink(self, name, at))

    def mkdir(self, name: str, at: int) -> None:
        self.do(Op("mkdir", self.path(name, at)), lambda: Fs.mkdir(self, name, at))

    def rmdir(self, name: str, at: int) -> None:
        self.do(Op("rmdir", self.path(name, at)), lambda: Fs.rmdir(self, name, at))


class Recorder(Steps):
    """Remembers every step that happened."""

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__(durable=durable)
        self.trace: list[Op] = []

    def after(self, number: int, op: Op) -> None:
        del number  # The trace has it.
        self.trace.append(op)


class Signal(Steps):
    """Sends its own process a signal before or after a step, having told which step that is."""

    def __init__(self, step: int, what: signal.Signals, *, late: bool = False, told: int = -1) -> None:
        super().__init__()
        self._step = step
        self._what = what
        self._late = late
        self._told = told

    def _send(self, op: Op) -> None:
        if self._told >= 0:
            os.write(self._told, op.call.encode() + b"\n")
        os.kill(os.getpid(), self._what)

    def before(self, number: int, op: Op) -> None:
        if number == self._step and not self._late:
            self._send(op)

    def after(self, number: int, op: Op) -> None:
        if number == self._step and self._late:
            self._send(op)

    refused = after


class Faulty(Steps):
    """Fails at a step: before it happens, or after it was done; once, or from then on until mended."""

    def __init__(self, step: int, code: int, *, late: bool = False, sticky: bool = False) -> None:
        super().__init__()
        self.failed: list[Op] = []
        self._step = step
        self._code = code
        self._late = late
        self._sticky = sticky

    def mend(self) -> None:
        self._step = -1

    def _fail(self, number: int, op: Op) -> None:
        if number == self._step or (self._sticky and 0 <= self._step < number):
            self.failed.append(op)
            tried(FAULTS)
            raise OSError(self._code, os.strerror(self._code), op.path)

    def before(self, number: int, op: Op) -> None:
        if not self._late:
            self._fail(number, op)

    def after(self, number: int, op: Op) -> None:
        if self._late:
            self._fail(number, op)


class Stingy(Fs):
    """Writes at most a few bytes a call, as a disk that is nearly full or a signal may make it."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return Fs.write(self, fd, memoryview(data)[:7])

    def fsync(self, fd: int) -> None:
        """Nothing that is looked at here depends on it."""


def identity(agent: str) -> Identity:
    return Identity(agent, "0a0b0c0d", f"{agent}~0a0b0c0d", pid=os.getpid())


def open_at(root: Path, fs: Fs | None = None, *, agent: str = "ann", offset: int = 0, durable: bool = True) -> Bus:
    """Open a bus with a clock that is `offset` milliseconds ahead; nothing sweeps by itself."""
    source = System(offset)
    return Bus(FileStore(root, fs=fs or Steps(), source=source, durable=durable), identity(agent), source)


def copy(src: Path, dst: Path) -> Path:
    """Copy a bus with its hard links, which are what counts in it."""
    first: dict[int, Path] = {}
    for folder, _, files in os.walk(src):
        target = dst / Path(folder).relative_to(src)
        target.mkdir(parents=True)
        for name in files:
            path, made = Path(folder) / name, target / name
            inode = path.stat().st_ino
            if inode in first:
                made.hardlink_to(first[inode])
            else:
                shutil.copyfile(path, made)
                first[inode] = made
    return dst


def fork(work: Callable[[], object]) -> int:
    """Do work in a child process; return its pid.  An exception there shows, and makes it exit with 1."""
    with warnings.catch_warnings():
        # pytest's workers have threads; a child that only works on files and exits needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        made = work()
        code = made if isinstance(made, int) else 0
    except BaseException:  # noqa: BLE001  whatever it was, the child ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(step: int, work: Callable[[Fs], object], *, late: bool = False) -> str | None:
    """Do work in a process that is killed at a step; return the call it died at, None if it came to the end."""
    told, tell = os.pipe()
    try:
        pid = fork(lambda: work(Signal(step, signal.SIGKILL, late=late, told=tell)))
        os.close(tell)
        code = ended(pid)
        said = os.read(told, 100).decode().strip()
    finally:
        os.close(told)
    if code == 0:
        assert not said, f"it should have died at {said}"
        return None
    assert code == -signal.SIGKILL, f"the victim ended with {code}, not by SIGKILL, at step {step}"
    assert said
    tried(KILLS)
    return said


@dataclass
class Points:
    """Every step of a piece of work, on copies of one bus: `for at in points` gives each crashed copy."""

    start: Path
    scratch: Path
    work: Callable[[Path, Fs], object]
    late: bool = False
    stride: int = 1
    first: int = 0

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        for step in range(self.first, 1000, self.stride):
            root = copy(self.start, self.scratch / f"step-{step}{'-late' if self.late else ''}")
            said = killed_at(step, lambda fs, root=root: self.work(root, fs), late=self.late)  # type: ignore[misc]  # a default argument in a lambda
            if said is None:
                shutil.rmtree(root)
                return
            yield f"step {step} ({said}{', after' if self.late else ''})", root
            shutil.rmtree(root)
        msg = "a thousand steps and no end"
        raise AssertionError(msg)


def refusal(request: Callable[[], object]) -> BusError | None:
    """Make a request; return how it was refused."""
    try:
        request()
    except BusError as error:
        return error
    return None


def errnos() -> Mapping[str, int]:
    names = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE", "ENFILE", "EINTR", "ENOMEM", "EPERM")
    return {name: getattr(errno, name) for name in names}


class DieAfter(Steps):
    """Kills its process after the first call of a name that gave something a name in a folder."""

    def __init__(self, call: str, folder: str) -> None:
        super().__init__()
        self._at = (call, folder)

    def after(self, number: int, op: Op) -> None:
        del number
        if self._at == (op.call, (op.to or op.path).rpartition("/")[0]):
            os.kill(os.getpid(), signal.SIGKILL)


def cut_off(call: str, folder: str, work: Callable[[Fs], object]) -> None:
    """Do work in a process that dies right after a call made a name in a folder."""
    code = ended(fork(lambda: work(DieAfter(call, folder))))
    assert code == -signal.SIGKILL, f"no {call} in {folder}: {code}"
