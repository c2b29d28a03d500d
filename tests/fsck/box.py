"""A bus with a task in every state, and what it takes to damage it and to look at it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from mcp_bus.clock import System
from mcp_bus.fsck import Means, Report, check, repair
from mcp_bus.stores import layout
from tests.crash.victim import Steps, open_at

WORK, OTHER = "work", "other"
# By this clock everything has settled, and no lease is over.
LATER = 120_000


def quiet(_looked: int) -> None:
    """Tell nobody how far it is."""


@dataclass
class Box:
    """A bus, and the ids of its tasks by what they are."""

    root: Path
    ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def made(cls, root: Path) -> Box:
        layout.create(root, fs=Steps())
        box = cls(root)
        with open_at(root, durable=False) as bus:
            bus.create_channel(WORK, backoff_s=0)
            bus.create_channel(OTHER)
            box.ids["cancelled"] = bus.post(WORK, "cancelled").id
            bus.cancel(box.ids["cancelled"])
            for end in ("done", "dead", "leased"):
                box.ids[end] = bus.post(WORK, end, max_attempts=1, key=end).id
                task = bus.claim([WORK], lease_s=3600)
                assert task is not None
                if end == "done":
                    bus.ack(task, "the answer")
                elif end == "dead":
                    bus.nack(task, "no")
            box.ids["ready"] = bus.post(WORK, "ready").id
            box.ids["keyed"] = bus.post(WORK, "keyed", key="keyed").id
            box.ids["scheduled"] = bus.post(WORK, "scheduled", delay_s=7200).id
        return box

    def identity(self, name: str) -> Path:
        return self.root / "tasks" / f"{self.ids[name]}.json"

    def place(self, name: str) -> Path:
        folders = ("requests", "delayed", "processing", "dead", "archive/*")
        found = [p for f in folders for p in (self.root / "channels").glob(f"*/{f}/*{self.ids[name]}*")]
        return next(path for path in found if not path.name.endswith(".reason.json"))

    def response(self, name: str = "done") -> Path:
        return self.root / "channels" / WORK / "responses" / f"{self.ids[name]}.json"

    def key(self, name: str = "keyed") -> Path:
        inode = self.identity(name).stat().st_ino
        return next(path for path in (self.root / "keys").iterdir() if path.stat().st_ino == inode)

    def check(self, offset: int = LATER) -> Report:
        return check(self.root, source=System(offset))

    def repair(self, offset: int = LATER) -> Report:
        return repair(self.root, Means(Steps(), System(offset), quiet))

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        return snapshot(self.root)

    def copied(self) -> None:
        """Copy the bus by a program that knows no hard links, in place."""
        spare = self.root.with_name("spare")
        shutil.copytree(self.root, spare, symlinks=True)
        shutil.rmtree(self.root)
        spare.rename(self.root)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return every name with its inode, links, mode, times of change and bytes."""
    made: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            about = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            kept = (about.st_ino, about.st_nlink, about.st_mode, about.st_mtime_ns, about.st_ctime_ns, data)
            made[str(path.relative_to(root))] = kept
    return made


def bodies(root: Path) -> set[bytes]:
    """Return the bytes of every file that lies anywhere on a bus, but for those that are derived."""
    files = (path for path in root.rglob("*") if not path.is_symlink() and path.is_file())
    return {path.read_bytes() for path in files if path.relative_to(root).parts[0] not in ("journal", "manifest.json")}
