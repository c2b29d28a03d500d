"""A hint that something was put into a directory, so that a wait need not be a sleep.

The hint can be lost (a full queue, a mount that another host writes to, a limit of the kernel)
and it can be false (someone else was first), so polling stays the truth.  The caller's loop is:
`watch`, look, `wait` at most as long as it would have slept.  Looking before `watch` leaves a gap.

Linux: inotify through ctypes (docs/decisions/0005-waiting-is-told.md says why not a library).
macOS and BSD: kqueue, not run there; an in-place write to a file that exists is not told.
Elsewhere: nothing.  Rules: inotify(7), statfs(2), linux/magic.h, kqueue(2).
"""

import functools
import os
import select
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_ABSENT: Final = -1
# Draining ends there even if others write faster than we read; the rest ends the next wait.
_READ_SIZE, _READS = 65_536, 128

if sys.platform == "linux":

    class _Source:
        # MOVED_TO is a rename, CREATE a link, CLOSE_WRITE the end of a foreign in-place write;
        # then DELETE_SELF, MOVE_SELF, ONLYDIR.  Without MOVED_FROM and DELETE a claim wakes nobody.
        _MASK: Final = 0x80 | 0x100 | 0x08 | 0x400 | 0x800 | 0x01000000
        # Mounts that tell only what this host did: NFS, SMB, CIFS, 9p, FUSE and virtiofs, Ceph, Lustre.
        _SHARED: Final = frozenset({0x6969, 0xFE534D42, 0xFF534D42, 0x01021997, 0x65735546, 0xC36400, 0xBD00BD0})

        def __init__(self) -> None:
            import ctypes  # noqa: PLC0415  milliseconds that only a process that waits should pay

            # The running program has a libc; a search for one by name would start a process.
            libc = ctypes.CDLL(None, use_errno=True)
            self._libc, self._errno = libc, ctypes.get_errno
            libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
            self._statfs = ctypes.create_string_buffer(512)  # 120 bytes are used; f_type is first.
            self._type = ctypes.c_long.from_buffer(self._statfs)
            self.fd = self._checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

        def _checked(self, result: int) -> int:
            if result < 0:
                raise OSError(code := self._errno(), os.strerror(code))
            return result

        def add(self, path: Path, _known: int) -> int:
            return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), self._MASK))

        def remove(self, key: int) -> None:
            self._libc.inotify_rm_watch(self.fd, key)  # Fails if the watch died with its directory.

        def sees_every_writer(self, path: Path) -> bool:
            failed: int = self._libc.statfs(os.fsencode(path), self._statfs)
            return bool(failed) or self._type.value & 0xFFFFFFFF not in self._SHARED

        def drain(self) -> bool:
            reads = 0  # Not parsed: `watch` asks the kernel anew, which is right after an overflow too.
            with suppress(BlockingIOError):
                while reads < _READS:
                    reads += len(os.read(self.fd, _READ_SIZE)) > 0
            return reads > 0

        def close(self) -> None:
            os.close(self.fd)

else:

    class _Source:
        def __init__(self) -> None:
            self._queue = select.kqueue()  # AttributeError where there is none.
            self._keys: set[int] = set()
            self.fd = self._queue.fileno()

        def add(self, path: Path, known: int) -> int:
            if known != _ABSENT and os.path.samestat(path.stat(), os.fstat(known)):
                return known
            quiet = 0x8000 if sys.platform == "darwin" else os.O_RDONLY  # O_EVTONLY lets its volume unmount.
            key = os.open(path, quiet | os.O_DIRECTORY | os.O_CLOEXEC)
            self._keys.add(key)
            told = select.KQ_NOTE_WRITE | select.KQ_NOTE_EXTEND | select.KQ_NOTE_DELETE | select.KQ_NOTE_RENAME
            flags = select.KQ_EV_ADD | select.KQ_EV_CLEAR  # One pending event a directory, at most.
            try:
                self._queue.control([select.kevent(key, select.KQ_FILTER_VNODE, flags, told)], 0, 0)
            except OSError:
                self.remove(key)
                raise
            return key

        def remove(self, key: int) -> None:
            self._keys.discard(key)
            os.close(key)  # Its event goes with it.

        def sees_every_writer(self, _path: Path) -> bool:
            return True  # Not known: the mount's type is not in the standard library.

        def drain(self) -> bool:
            return bool(self._queue.control(None, max(1, len(self._keys)), 0))

        def close(self) -> None:
            self._queue.close()
            for key in self._keys:
                os.close(key)


@functools.cache
def _warn_once(reason: str) -> None:
    with suppress(ImportError, OSError):  # Where descriptors have run out, even the import fails.
        import logging  # noqa: PLC0415  milliseconds, and nearly no process gets here

        logging.getLogger(__name__).warning("no notification, waits poll instead: %s", reason)


class Hint:
    """Tells that something was created in or moved into one of some directories, perhaps.

    Never raises for what the machine lacks: see `fileno`.  One thread may `wait` while another
    calls `watch`; closing under a waiter is the caller's mistake.  Closing can take the kernel
    milliseconds, so keep one for a session and not for a call.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        """Start to watch `directories`; see `watch`."""
        self._keys: dict[Path, int] = {}
        self._uncovered: set[Path] = set()
        try:
            self._source: _Source | None = _Source()
        except (OSError, ImportError, AttributeError) as error:  # A limit; no ctypes; no such call.
            self._source = None
            _warn_once(str(error))
        self.watch(directories)

    def watch(self, directories: Iterable[Path]) -> None:
        """Add `directories`, and find those again that were missing or were replaced.

        Look into them afterwards: what came before a directory was found is not told, nor is the
        end of one that some process still holds open.  So call this on every round of the loop;
        it costs a system call for each directory ever added.
        """
        if self._source is not None:
            for path in self._keys | {path.absolute(): _ABSENT for path in directories}:
                self._find(self._source, path, self._keys.get(path, _ABSENT))

    def _find(self, source: _Source, path: Path, old: int) -> None:
        new = _ABSENT
        try:
            new = source.add(path, old)
        except (FileNotFoundError, NotADirectoryError):
            self._uncovered.discard(path)
        except OSError as error:
            self._uncovered.add(path)
            _warn_once(str(error))
        self._keys[path] = new
        if new not in (old, _ABSENT):
            (self._uncovered.discard if source.sees_every_writer(path) else self._uncovered.add)(path)
        if old != _ABSENT and old not in self._keys.values():  # Two paths may lead to one place.
            source.remove(old)

    def fileno(self) -> int:
        """Give what `poll` or `anyio.wait_readable` may wait for; call `drain` when it is readable.

        -1 when that is not enough and the caller must poll as if there were nothing: there is
        nothing, a limit was reached, or another host may write to a directory.  Ask after `watch`.
        """
        return -1 if self._source is None or self._uncovered else self._source.fd

    def drain(self) -> bool:
        """Swallow what is pending, in constant memory.  True if anything was, overflow included."""
        return self._source is not None and self._source.drain()

    def wait(self, timeout: float) -> bool:
        """Block at most `timeout` seconds.  True when told since the last `wait` or `drain`.

        Without a `fileno` it may still be told, by what the kernel does see.
        """
        milliseconds = min(max(0.0, timeout * 1000), 2**31 - 1)  # poll() takes a C int.
        if sys.platform == "win32":
            import threading  # noqa: PLC0415  only where poll() is missing

            return threading.Event().wait(milliseconds / 1000)
        poll = select.poll()  # One a call: threads may not share one.
        if self._source is not None:
            poll.register(self._source.fd, select.POLLIN)
        # A signal whose handler raises ends this, any other one does not (PEP 475).
        return bool(poll.poll(milliseconds)) and self.drain()

    def close(self) -> None:
        """Give everything back.  Twice is allowed; afterwards this is a hint that knows nothing."""
        if self._source is not None:
            self._source.close()
        self._source = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
