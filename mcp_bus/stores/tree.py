"""The folders of a bus as open directories, and errors of the medium in the bus's own words."""

from __future__ import annotations

import errno
import select
import stat
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from mcp_bus.errors import ADVICE, BusError, Conflict, StoreUnavailable
from mcp_bus.stores import acls, modes
from mcp_bus.stores.fsops import quoted

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.stores.fsops import Fs

# Open folders kept at once; a bus may have more channels than a process may have descriptors.
MAX_OPEN = 96
# Looks for a folder that others make, or remove, at the same moment.
TRIES = 5
# A folder that is so new may be in the making, which takes its maker far less than is waited then.
NEW_S = 2.0
MADE_S = 0.02
# What the kernel says of a name that is not there, or whose folder was removed while it was open.
_REMOVED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_WHY = {
    errno.ENOSPC: ("the disk that holds the bus is full", ADVICE[errno.ENOSPC]),
    errno.EDQUOT: ("the disk quota for the bus is used up", ADVICE[errno.EDQUOT]),
    errno.EROFS: ("the bus is on a read-only file system", "mount it writable, or use another --bus"),
    errno.EACCES: ("the bus may not be written by this user", "check its owner and mode, or use another --bus"),
    errno.EPERM: ("the bus may not be written by this user", "check its owner and mode, or use another --bus"),
    errno.EMFILE: ("this process has too many open files", ADVICE[errno.EMFILE]),
    errno.ENFILE: ("this machine has too many open files", ADVICE[errno.ENFILE]),
    errno.EIO: ("the disk that holds the bus reports an input/output error", "check the disk; nothing was confirmed"),
}


class Tree:
    """The open folders of one bus.

    Keeps at most `MAX_OPEN` directories open and notices when one was removed, or removed and made
    again, behind its back.
    """

    def __init__(self, root: Path, fs: Fs, source: Source, *, is_repair: bool = False) -> None:
        """Open the root, and see from it how what is made below must be made.

        Args:
            is_repair: also open what everyone may write, to put it right.

        Raises:
            StoreUnavailable: there is no bus, or its disk fails.
            Untrusted: it is another user's, or of a group this user is not in, or everyone may write it.
        """
        self.root = root
        self.fs = fs
        self.token = source.token
        self.sync = True
        self._open: OrderedDict[str, int] = OrderedDict()
        self._root = -1
        self._words = Words(self)
        try:
            with self.words():
                self._root = self._opened(root)
                about = fs.fstat(self._root)
            modes.check(about, root, is_repair=is_repair)
            fs.modes = modes.of(about)
            if fs.modes.is_shared and not is_repair:
                modes.check_lists(self._root, root)
        except BaseException:
            self.close()
            raise

    def _opened(self, root: Path) -> int:
        try:
            return self.fs.open_dir(str(root.resolve()), None)
        except PermissionError:
            modes.check(root.stat(), root)  # Says whose it is, if that is why.
            raise

    def fd(self, path: str = "", *, make: bool = False) -> int:
        """Return the descriptor of a folder below the root, such as `channels/x/requests`.

        Args:
            make: create what is missing of it.

        Raises:
            FileNotFoundError: it is missing.
            NotADirectoryError, OSError: something else has its name (a symlink is refused).
        """
        if not path:
            return self._root
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        parent, _, name = path.rpartition("/")
        at = self.fd(parent, make=make)
        try:
            opened = self.folder(name, at, make=make)
        except PermissionError as error:
            error.filename = path  # The whole of it, so that what is said of it can say whose it is.
            raise
        self._open[path] = opened
        while len(self._open) > MAX_OPEN:
            _, old = self._open.popitem(last=False)
            self.fs.close_dir(old)
        return opened

    def folder(self, name: str, at: int, *, make: bool) -> int:
        """Open one folder of another, for who closes it; on a shared bus it is fitted if it is this user's.

        Its maker may have been killed before the others were let in: then it is empty, and as good as missing.
        """
        for _ in range(TRIES):
            try:
                opened = self.fs.open_dir(name, at)
            except FileNotFoundError:
                if not make:
                    raise
                self._make(name, at)
            except PermissionError:
                if not self._unmake(name, at):
                    raise
            else:
                self.fs.fit(opened)
                if not (make and self.fs.modes.is_shared) or self.fs.fstat(opened).st_nlink:
                    return opened
                self.fs.close_dir(opened)  # Somebody took it for one whose maker was killed.
        return self.fs.open_dir(name, at)

    def _make(self, name: str, at: int) -> None:
        try:
            self.fs.mkdir(name, at)
        except FileExistsError:
            return
        if self.sync:
            self.fs.fsync(at)

    def _unmake(self, name: str, at: int) -> bool:
        """Remove a folder of a shared bus that keeps this user out, if it is empty; tell whether to try it anew.

        Whoever finds it does, for it stops all who look there; nothing is lost with it.
        """
        if not self.fs.modes.is_shared:
            return False
        try:
            about = self.fs.stat(name, at)
            if about is not None and abs(time.time() - about.st_ctime) < NEW_S:
                select.select([], [], [], MADE_S)
                about = self.fs.stat(name, at)
            if about is None or self.fs.modes.fits(about):
                return True
            self.fs.rmdir(name, at)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def live(self, path: str) -> int | None:
        """Return the descriptor of a folder that still has its name, or None if it is missing."""
        try:
            fd = self.fd(path)
            if self.fs.fstat(fd).st_nlink:
                return fd
            self.forget()
            return self.fd(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # A symlink where a folder belongs is not ours.
                return None
            raise

    def names(self, path: str) -> list[str]:
        """List a folder; empty when it is missing.  A hint, never a proof."""
        fd = self.live(path)
        if fd is None:
            return []
        try:
            return self.fs.names(fd)
        except FileNotFoundError:
            return []

    def drop(self, path: str, name: str) -> None:
        """Remove a name from a folder, if both are there; what cannot be removed (a folder) stays."""
        at = self.live(path)
        if at is None:
            return
        try:
            self.fs.unlink(name, at)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            return

    def forget(self) -> None:
        """Close all folders but the root; they are opened again when needed."""
        while self._open:
            _, fd = self._open.popitem()
            self.fs.close_dir(fd)

    def close(self) -> None:
        """Close everything."""
        self.forget()
        if self._root >= 0:
            self.fs.close_dir(self._root)
            self._root = -1

    def check(self) -> None:
        """Make sure that the bus still has its name.

        Raises:
            FileNotFoundError: it was removed or renamed away.
        """
        if self._gone():
            raise FileNotFoundError(str(self.root))

    def _gone(self) -> bool:
        """Tell whether the bus has lost its name; a disk that fails does not say so.

        Raises:
            OSError: the medium failed, which is no reason to make a bus anew.
        """
        if self._root < 0:
            return True
        try:
            return not self.fs.leads_to(self.root, self._root) or self.fs.stat("tasks", self._root) is None
        except OSError as error:
            if error.errno not in _REMOVED:
                raise
            return True

    def words(self) -> Words:
        """Turn errors of the medium into `StoreUnavailable` that says what, why and what next."""
        return self._words

    def explain(self, error: OSError) -> BusError:
        """Return an error of the medium in the bus's own words."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self.forget()
            try:
                is_gone = self._gone()
            except OSError as failure:
                return self.explain(failure)
            if is_gone:
                hint = "run `mcp-bus init` to make one, or name another with --bus or MCP_BUS_DIR"
                return StoreUnavailable(f"there is no bus at {str(self.root)!r}", hint=hint)
            return Conflict(
                f"something moved in the bus meanwhile: {quoted(error.filename)} is gone", hint="repeat the call"
            )
        if error.errno in (errno.EISDIR, errno.ENOTEMPTY):  # Nobody's fault but whose folder it is.
            where = error.filename2 or error.filename
            hint = "`mcp-bus fsck` says what it is; a sweep puts it aside where it can"
            return Conflict(f"a folder is in the place of {quoted(where)}", hint=hint)
        if isinstance(error, PermissionError) and (said := self._closed(error)):
            return StoreUnavailable(said, hint="its owner can let you in, or use another --bus")
        msg, hint = _WHY.get(error.errno or 0) or (
            f"the bus cannot be used: {error.strerror or error}"
            + (f": {quoted(error.filename)}" if error.filename else ""),
            "look at that, then repeat the call",
        )
        return StoreUnavailable(f"{msg} ({str(self.root)!r})", hint=hint)

    def _closed(self, error: PermissionError) -> str:
        """Say whose the folder of the bus is that keeps this user out; empty if that is not what is wrong."""
        try:
            about = self.fs.stat(str(error.filename), self._root)
        except OSError:
            return ""
        if about is None or not stat.S_ISDIR(about.st_mode):
            return ""
        has_acl = self.fs.modes.is_shared and acls.has(self._root, str(error.filename))
        if self.fs.modes.fits(about) and not has_acl:
            return ""
        told = modes.told(about, self.fs.modes, has_acl=has_acl)
        return f"the folder {quoted(error.filename)} of the bus {str(self.root)!r} may not be used by this user; {told}"


class Words:
    """The context in which errors of the medium are explained; a class because it is entered often."""

    def __init__(self, tree: Tree) -> None:
        """Explain errors of `tree`."""
        self._tree = tree

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the explanation in place of an `OSError`."""
        if isinstance(error, OSError):
            raise self._tree.explain(error) from error
