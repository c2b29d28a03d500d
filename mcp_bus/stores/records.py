"""Small documents that are replaced as a whole, each revision a file of its own.

    agents/planner~7f3a90c2.4.json        the fourth revision of a document

A revision is made whole in `tmp/` and linked to the number that follows the one it was made from: a
link fails when the name is taken, which makes it a compare-and-swap.  Older revisions are removed
afterwards; the highest number counts, so a crash in between leaves nothing to mend.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest, Unreadable
from mcp_bus.stores.beside import Record
from mcp_bus.stores.foreign import quarantine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.clock import Source
    from mcp_bus.stores.tree import Tree

MAX_RECORD = 16 * 1024 * 1024
MOST = 10**12
MAX_TEXT = 64 * 1024
NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9_@+~.-]{0,127}\Z")
REVISION = re.compile(r"(?P<name>[A-Za-z0-9@][A-Za-z0-9_@+~.-]{0,127})\.(?P<number>[1-9][0-9]{0,14})\.json\Z")


class FileRecords:
    """Documents in the folders of a bus; a kind is a folder."""

    def __init__(self, tree: Tree, source: Source, *, sync: bool) -> None:
        """Keep documents below `tree`; with `sync` a durable write is on disk when it returns."""
        self._tree = tree
        self._source = source
        self._sync = sync

    def names(self, kind: str) -> list[str]:
        """See `Records.names`."""
        with self._tree.words():
            return sorted({match["name"] for file in self._tree.names(kind) if (match := REVISION.match(file))})

    def _revisions(self, kind: str, name: str) -> list[int]:
        """Return the numbers that a document has files for, highest first."""
        found = (REVISION.match(file) for file in self._tree.names(kind))
        numbers = (int(match["number"]) for match in found if match and match["name"] == name)
        # A number that no writer gets to is nobody's revision: nothing could follow it.
        return sorted((number for number in numbers if number < MOST), reverse=True)

    def read(self, kind: str, name: str) -> Record | None:
        """See `Records.read`.  A revision that is no document is put aside, and the one before it counts."""
        with self._tree.words():
            for number in self._revisions(kind, name):
                record = self._read(kind, name, number)
                if record is not None:
                    return record
            # A later revision may have taken the place of all that were listed.
            return self.read(kind, name) if self._revisions(kind, name) else None

    def all(self, kind: str) -> dict[str, Record]:
        """See `Records.all`: one listing of the folder, for with many documents it is the listing that costs."""
        latest: dict[str, int] = {}
        with self._tree.words():
            for match in filter(None, map(REVISION.match, self._tree.names(kind))):
                if int(match["number"]) < MOST:
                    latest[match["name"]] = max(int(match["number"]), latest.get(match["name"], 0))
            found = {name: record for name, n in latest.items() if (record := self._open(kind, name, n)) is not None}
        return dict(sorted(found.items()))

    def _open(self, kind: str, name: str, number: int) -> Record | None:
        """Return a document by its latest revision; None if it is gone, or closed to this user."""
        with suppress(Unreadable):
            return self._read(kind, name, number) or self.read(kind, name)
        return None

    def _read(self, kind: str, name: str, number: int) -> Record | None:
        """Return a revision, or None if it is gone or no document.

        Raises:
            Unreadable: this user may not read it, and it stays: it is its writer's latest word.
        """
        at, file = self._tree.fd(kind), _file(name, number)
        try:
            data = wire.loads(self._tree.fs.read(file, at, MAX_RECORD).data)
            about = self._tree.fs.stat(file, at)
        except FileNotFoundError:
            return None
        except Unreadable:
            raise
        except CorruptRecord as error:
            quarantine(self._tree, kind, file, str(error), self._source.now())
            return None
        return Record(number, data, int(about.st_mtime * 1000) if about else 0)

    def write(self, kind: str, name: str, data: Mapping[str, Any], *, after: int, durable: bool) -> int:
        """See `Records.write`."""
        if not NAME.match(name):
            msg = f"{name[:80]!r} is not a name for a record"
            raise InvalidRequest(msg)
        sync, number, content = durable and self._sync, after + 1, wire.dumps(dict(data))
        if number >= MOST:
            with self._tree.words():
                quarantine(self._tree, kind, _file(name, after), "nothing can follow its number", self._source.now())
            raise _moved_on(name)
        if len(content) > MAX_RECORD:
            msg = f"the record {name!r} would have {len(content)} bytes, the limit is {MAX_RECORD}"
            raise InvalidRequest(msg)
        with self._tree.words():
            self._tree.check()  # Nothing is written into a bus that was renamed away.
            self._clear(kind)
            tmp, at = self._tree.fd("tmp", make=True), self._tree.fd(kind, make=True)
            if self._revisions(kind, name)[:1] != ([after] if after else []):
                raise _moved_on(name)
            draft = f"record.{self._source.token(8)}"
            self._tree.fs.create(draft, tmp, content, sync=sync)
            try:
                self._tree.fs.touch(draft, tmp, self._source.now())
                self._tree.fs.link(draft, tmp, _file(name, number), at)
            except FileExistsError:
                raise _moved_on(name) from None
            finally:
                self._tree.drop("tmp", draft)
            revisions = self._revisions(kind, name)
            if revisions[:1] != [number]:
                # The number was free because later revisions had been made and this one tidied away.
                self._tree.drop(kind, _file(name, number))
                raise _moved_on(name)
            if sync:
                self._tree.fs.fsync(at)
            for old in revisions[1:]:
                self._tree.drop(kind, _file(name, old))
        return number

    def _clear(self, kind: str) -> None:
        """Put aside what has the name of a folder of records, and is none."""
        folder = ""
        for part in kind.split("/"):
            about = self._tree.fs.stat(part, self._tree.fd(folder))
            if about is None:
                return
            if not stat.S_ISDIR(about.st_mode):
                quarantine(self._tree, folder, part, "it is where a folder of records belongs", self._source.now())
                return
            folder = f"{folder}/{part}".lstrip("/")

    def touch(self, kind: str, name: str) -> bool:
        """See `Records.touch`."""
        with self._tree.words():
            for number in self._revisions(kind, name)[:1]:
                with suppress(FileNotFoundError):
                    self._tree.fs.touch(_file(name, number), self._tree.fd(kind), self._source.now())
                    return True
        return False

    def remove(self, kind: str, name: str) -> None:
        """See `Records.remove`.  The highest goes last, so that nobody takes an older one for it."""
        with self._tree.words():
            for number in reversed(self._revisions(kind, name)):
                self._tree.drop(kind, _file(name, number))

    def write_text(self, kind: str, name: str, text: str) -> None:
        """See `Records.write_text`: the file `<name>.md`."""
        with self._tree.words():
            self._clear(kind)
            tmp, at = self._tree.fd("tmp", make=True), self._tree.fd(kind, make=True)
            draft = f"record.{self._source.token(8)}"
            self._tree.fs.create(draft, tmp, text.encode(), sync=self._sync)
            try:
                self._tree.fs.rename(draft, tmp, f"{name}.md", at)
            except OSError:
                self._tree.drop("tmp", draft)
                raise

    def text(self, kind: str, name: str) -> str | None:
        """See `Records.text`: the file `<name>.md`."""
        if not NAME.match(name):
            return None
        with self._tree.words():
            try:
                return self._tree.fs.read(f"{name}.md", self._tree.fd(kind), MAX_TEXT).data.decode()
            except (FileNotFoundError, NotADirectoryError, CorruptRecord, UnicodeDecodeError):
                return None


def _file(name: str, number: int) -> str:
    return f"{name}.{number}.json"


def _moved_on(name: str) -> Conflict:
    return Conflict(f"the record {name!r} was written by someone else meanwhile", hint="read it again")
