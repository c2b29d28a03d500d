"""Reading files of a clone by their names as objects, all through one process of git."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.git.calls import Damaged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Blobs:
    """The files of one clone; the process starts with the first that is read."""

    def __init__(self, folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Read from the clone at `folder` by a command, `git cat-file --batch`."""
        self._folder, self._words, self._environment = folder, words, environment
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, oid: str, limit: int = 0) -> bytes:
        """Return a file's bytes.

        Raises:
            CorruptRecord: they are more than `limit`, if there is one.
            Damaged: the clone lacks it.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603  git, with words of our own
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process, which may want to read once more.
            )
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        data, size = b"", -1
        with suppress(BrokenPipeError):
            asked.write(f"{oid}\n".encode())
            asked.flush()
            head = told.readline().split()
            if len(head) == 3 and head[1] == b"blob":
                size = int(head[2])
                if limit and size > limit:
                    self.close()
                    msg = f"an object has {size} bytes, the limit is {limit}"
                    raise CorruptRecord(msg)
                data = told.read(size + 1)
        if size < 0 or len(data) != size + 1:
            self.close()
            msg = f"the clone {str(self._folder)!r} lacks an object of its branch: {oid}"
            raise Damaged(msg, hint="remove that folder: it is fetched anew, and posts that wait are not in it")
        return data[:-1]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            self._process.wait()
            self._process = None
