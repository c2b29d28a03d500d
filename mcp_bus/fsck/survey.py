"""Every name on a bus, listed once, with what it is a name of; nothing is changed and nothing judged.

A listing is a hint only: whoever judges by it takes a second one before he speaks.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import names, wire
from mcp_bus.errors import CorruptRecord, Unreadable
from mcp_bus.fsck import rights
from mcp_bus.fsck.kinds import Anomaly
from mcp_bus.fsck.lost import bus_id
from mcp_bus.stores import graves, modes
from mcp_bus.stores.foreign import QUARANTINE, SETTLE, SETTLE_OTHER
from mcp_bus.stores.layout import FILES, FOLDERS, KNOWN

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from mcp_bus.clock import Source
    from mcp_bus.fsck.lost import Found
    from mcp_bus.model import Slot
    from mcp_bus.stores.base import Guard
    from mcp_bus.stores.tree import Tree

# Without these folders, tasks are not seen.
NEEDED = ("tasks", "channels")
# Of what is in these, only modes and owners are judged.
SEEN = ("journal", "boots", "pipes", "outputs", "signatures")
_RESPONSE = re.compile(rf"(?P<id>{names.IN_NAME})_response\.json\Z")
# Between two words about how far it is.
STEP = 2000


class About(NamedTuple):
    """What a name is a name of.

    Attributes:
        stamp: changes when the bytes do.
        age: milliseconds since the last change of bytes or name.
    """

    inode: int
    links: int
    mode: int
    stamp: tuple[int, int]
    age: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Spot(NamedTuple):
    """A name that says which state a task is in."""

    slot: Slot
    folder: str
    name: str
    about: About

    @property
    def path(self) -> str:
        """The name with its folder."""
        return f"{self.folder}/{self.name}"


class Read(NamedTuple):
    """What is in a task's file: whose body it is, or why it is none.

    Attributes:
        mark: alike for files with the same bytes.
    """

    id: str = ""
    channel: str = ""
    key: str = ""
    why: str = ""
    mark: int = 0


@dataclass
class Survey:
    """What was listed."""

    identities: dict[str, About] = field(default_factory=dict)
    spots: dict[str, list[Spot]] = field(default_factory=dict)
    pruning: dict[str, Spot] = field(default_factory=dict)
    keys: dict[str, About] = field(default_factory=dict)
    drafts: dict[int, list[tuple[str, About]]] = field(default_factory=dict)
    aside: dict[int, list[str]] = field(default_factory=dict)
    strange: dict[int, list[str]] = field(default_factory=dict)
    responses: dict[str, list[tuple[str, About]]] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)
    reasons: set[tuple[str, str]] = field(default_factory=set)
    histories: list[tuple[str, str]] = field(default_factory=list)
    staged: list[tuple[str, About]] = field(default_factory=list)
    buried: set[str] = field(default_factory=set)
    channels: list[str] = field(default_factory=list)
    # What was seen to be odd on the way, whatever the rest says.
    odd: list[Anomaly] = field(default_factory=list)
    # What may still be written, with the milliseconds until it can be judged.
    young: dict[str, int] = field(default_factory=dict)

    def is_young(self, path: str, about: About, settle: int = SETTLE) -> bool:
        """Tell whether a file is too new to be judged, and note it then."""
        if about.age < settle:
            self.young[path] = settle - about.age
        return about.age < settle


class Surveyor:
    """Lists a bus, as often as asked, and reads each body once.

    Args:
        source: tells the time.
        tell: called now and then with how many names were looked at.
        keys: makes this user's guard, who may remember which bus this is.
    """

    def __init__(
        self,
        tree: Tree,
        source: Source,
        tell: Callable[[int], None],
        keys: Callable[[str], Guard] | None = None,
    ) -> None:
        """See the class."""
        self.tree = tree
        self.keys = keys
        self.source, self.now = source, source.now
        self.looked = 0
        self._tell = tell
        self._read: dict[tuple[int, tuple[int, int]], Read] = {}
        self._answers: dict[tuple[int, tuple[int, int]], str] = {}
        self._made = Survey()
        root = tree.fs.stat(".", tree.fd())
        assert root is not None
        self._owner, self._modes = root.st_uid, modes.of(root)
        self._now = 0

    @cached_property
    def lost(self) -> Found:
        """The id that a bus without `bus.json` had."""
        return bus_id(self.tree, self.keys)

    # --- looking at one name ------------------------------------------------------------------

    def about(self, folder: str, name: str) -> About | None:
        """Return what a name is a name of, or None if it is gone; note what mode or owner are wrong."""
        try:
            found = self.tree.fs.stat(name, self.tree.fd(folder))
        except OSError:  # The folder is gone, or none.
            return None
        if found is None:
            return None
        self.looked += 1
        if self.looked % STEP == 0:
            self._tell(self.looked)
        self._made.odd += self._rights(f"{folder}/{name}".lstrip("/"), found)
        stamp = (found.st_mtime_ns, found.st_size)
        age = self._now - max(found.st_mtime_ns, found.st_ctime_ns) // 1_000_000
        return About(found.st_ino, found.st_nlink, found.st_mode, stamp, age)

    def is_still(self, item: Anomaly) -> bool:
        """Tell whether a mode or owner is as wrong as it was found."""
        folder, _, name = item.path.rpartition("/")
        try:
            found = self.tree.fs.stat(name, self.tree.fd(folder))
        except OSError:
            return False
        return found is not None and item in self._rights(item.path, found)

    def _rights(self, path: str, found: os.stat_result) -> list[Anomaly]:
        # A stranger's bytes have the mode they came with, and nobody needs them.
        return [] if path.startswith(f"{QUARANTINE}/") else rights.judged(self.tree, self._owner, path, found)

    def listed(self, folder: str) -> Iterator[tuple[str, About]]:
        """List a folder that is one; say what has its name if it is none."""
        for name in self.names(folder):
            about = self.about(folder, name)
            if about is not None:
                yield name, about

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none, and a word about it, if it is no folder."""
        parent, _, name = folder.rpartition("/")
        about = self.about(parent, name)
        if about is None:
            return []
        if not stat.S_ISDIR(about.mode):
            kind = "symlink-folder" if stat.S_ISLNK(about.mode) else "in-the-way"
            self._odd(kind, folder, "it is where a folder belongs")
            return []
        try:
            return sorted(self.tree.names(folder))
        except PermissionError:
            return []

    def _odd(self, kind: str, path: str, detail: str = "") -> None:
        self._made.odd.append(Anomaly(kind, path, detail=detail))

    def _stranger(self, path: str, about: About) -> None:
        """Note a name that is none of the bus's; one of a task's own file counts among its names."""
        self._odd("stranger", path)
        if about.is_file and about.links > 1:
            self._made.strange.setdefault(about.inode, []).append(path)

    # --- reading ------------------------------------------------------------------------------

    def body(self, folder: str, name: str, about: About) -> Read | None:
        """Return what a task's file holds; None if it moved, or may not be read."""
        known = self._read.get((about.inode, about.stamp))
        if known is not None:
            return known
        if about.is_file and not about.mode & stat.S_IRUSR:
            return None
        try:
            data = self.tree.fs.read(name, self.tree.fd(folder), wire.MAX_FILE).data
            body = wire.load_body(data)
            made = Read(body.id, body.channel, body.key, mark=hash(data))
        except Unreadable:
            return None
        except CorruptRecord as error:
            made = Read(why=str(error))
        except OSError as error:
            return None if about.is_file else Read(why=str(error.strerror))
        self._read[about.inode, about.stamp] = made
        return made

    def result(self, folder: str, name: str, about: About) -> str | None:
        """Return the id of the task whose result a file is; empty if it is none, None if it cannot be told."""
        known = self._answers.get((about.inode, about.stamp))
        if known is not None:
            return known
        if about.is_file and not about.mode & stat.S_IRUSR:
            return None
        try:
            made = wire.load_result(self.tree.fs.read(name, self.tree.fd(folder), wire.MAX_FILE).data).id
        except Unreadable:
            return None
        except CorruptRecord:
            made = ""
        except OSError:
            return None if about.is_file else ""
        self._answers[about.inode, about.stamp] = made
        return made

    def data(self, folder: str, name: str) -> bytes | None:
        """Return the bytes of a file; None if it is none, or gone."""
        try:
            return self.tree.fs.read(name, self.tree.fd(folder), 256 * 1024 * 1024).data
        except (CorruptRecord, OSError):
            return None

    # --- the bus ------------------------------------------------------------------------------

    def take(self) -> Survey:
        """List everything."""
        self._made, self._now = Survey(), self.now()
        made = self._made
        self._root()
        # What is being forgotten goes last of a task, so it is listed last, too; and tasks before their places.
        made.identities = self._identities()
        made.keys = {n[:-5]: a for n, a in self.listed("keys") if self._is(re.match(names.KEY, n[:-5]), f"keys/{n}", a)}
        made.staged = list(self.listed("staged"))
        for channel in self.names("channels"):
            self._channel(channel)
        for name, about in self.listed("tmp"):
            made.drafts.setdefault(about.inode, []).append((name, about))
        for folder in ("quarantine", "rejected"):
            self._aside(folder)
        self._tombstones()
        return made

    def _is(self, fits: object, path: str, about: About) -> bool:
        if not (fits and path.endswith(".json")):
            self._stranger(path, about)
            return False
        return True

    def _root(self) -> None:
        there = self.tree.names("")
        for name in FILES:
            about = self.about("", name) if name in there else None
            if about is not None and not about.is_file and name != "bus.json":
                self._odd("in-the-way", name, "it is where a file belongs")
        self.names("journal")
        for folder in SEEN:
            about = self.about("", folder)
            for name in self.names(folder) if about is not None and stat.S_ISDIR(about.mode) else ():
                self.about(folder, name)
        for name in sorted({*FOLDERS} - {*there}):
            self._odd("lost-folder" if name in NEEDED else "missing-folder", name)
        for name in sorted({*there} - KNOWN):
            self._odd("stranger", name)
        root = self.about("", ".")
        bits = stat.S_IMODE(root.mode) & (0o007 if self._modes.is_shared else 0o077) if root else 0
        if bits:
            self._odd(
                "writable-by-others" if bits & 0o022 else "readable-by-others", ".", f"it lets in others: {bits:o}"
            )

    def _identities(self) -> dict[str, About]:
        made: dict[str, About] = {}
        for name, about in self.listed("tasks"):
            if names.is_identity(name):
                made[name[:-5]] = about
            else:
                self._stranger(f"tasks/{name}", about)
        return made

    def _channel(self, channel: str) -> None:
        base = f"channels/{channel}"
        if not names.is_place(channel):
            self._odd("stranger", base)
            return
        there = {*self.names(base)}
        if not there:
            return  # Somebody is making it, or somebody else's, or nobody's.
        self._made.channels.append(channel)
        for name in sorted({*names.CHANNEL_FOLDERS} - there):
            self._odd("lost-folder" if name == "requests" else "missing-folder", f"{base}/{name}")
        for name in sorted(there - {*names.CHANNEL_FOLDERS, "pruning", "channel.json"}):
            self._odd("stranger", f"{base}/{name}")
        self.about(base, "channel.json")
        for part in names.STATES:
            self._places(channel, part)
        for name, about in self.listed(f"{base}/archive"):
            if stat.S_ISDIR(about.mode) and re.match(names.DAY, name):
                self._places(channel, f"archive/{name}")
            else:
                self._place(channel, "archive", name, about)
        self._results(channel)
        self._made.histories += [(channel, name) for name in self.names(f"{base}/attempts")]
        self._pruning(channel)

    def _results(self, channel: str) -> None:
        folder = f"channels/{channel}/responses"
        for name, about in self.listed(folder):
            if self._is(names.is_identity(name), f"{folder}/{name}", about):
                self._made.responses.setdefault(name[:-5], []).append((channel, about))

    def _pruning(self, channel: str) -> None:
        folder = graves.pruning(channel)
        for name, about in self.listed(folder):
            slot = graves.parse(channel, name)
            if slot is None:
                self._stranger(f"{folder}/{name}", about)
            else:
                self._made.pruning[slot.id] = Spot(slot, folder, name, about)

    def _places(self, channel: str, part: str) -> None:
        for name, about in self.listed(f"channels/{channel}/{part}"):
            self._place(channel, part, name, about)

    def _place(self, channel: str, part: str, name: str, about: About) -> None:
        made, folder = self._made, f"channels/{channel}/{part}"
        fetched = _RESPONSE.match(name) if part == "archive" else None
        if part == "dead" and name.endswith(names.REASON):
            made.reasons.add((channel, name.removesuffix(names.REASON)))
        elif fetched:
            made.fetched.add(fetched["id"])
        elif slot := names.parse(channel, part, name):
            made.spots.setdefault(slot.id, []).append(Spot(slot, folder, name, about))
        elif part not in names.STATES or part == "dead":
            self._stranger(f"{folder}/{name}", about)
        elif not made.is_young(f"{folder}/{name}", about, SETTLE if name.endswith(".json") else SETTLE_OTHER):
            self._odd("foreign", f"{folder}/{name}")

    def _aside(self, folder: str) -> None:
        count = 0
        for name, about in self.listed(folder):
            count += not name.endswith(names.REASON)
            if about.is_file and about.links > 1:
                self._made.aside.setdefault(about.inode, []).append(f"{folder}/{name}")
        if count:
            self._odd(folder, folder, f"{count} of them")

    def _tombstones(self) -> None:
        for name, about in self.listed("tombstones"):
            if not about.is_file:
                self._odd("in-the-way", f"tombstones/{name}", "it is no file of tombstones")
                continue
            for line in (self.data("tombstones", name) or b"").decode("utf-8", "replace").split("\n")[:-1]:
                task_id, _, rest = line.partition(" ")
                if names.TASK_ID.match(task_id) and rest.count(" ") == 1:
                    self._made.buried.add(task_id)
                else:
                    self._odd("tombstone", f"tombstones/{name}", repr(line[:80]))
