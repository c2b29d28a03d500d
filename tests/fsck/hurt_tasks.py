"""Damage to the bus as a whole and to the files of tasks; each returns where it is to be found."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from mcp_bus.model import day_of
from tests.fsck.box import OTHER, WORK
from tests.security import lists

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fsck.box import Box

TODAY = day_of(time.time_ns() // 1_000_000)
NEW = "req_" + "0" * 10 + "ab" * 10


def message(**changes: Any) -> str:
    said = {"id": NEW, "to": WORK, "content": "x", "from": {"agent": "cron"}} | changes
    return json.dumps(said)


def bus_format(box: Box) -> Path:
    path = box.root / "bus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    return path


def bus_json(box: Box) -> Path:
    (box.root / "bus.json").write_text('{"form')
    return box.root / "bus.json"


def no_bus_json(box: Box) -> Path:
    (box.root / "bus.json").unlink()
    return box.root / "bus.json"


def missing_folder(box: Box) -> Path:
    (box.root / "staged").rmdir()
    return box.root / "staged"


def no_tasks(box: Box) -> Path:
    shutil.rmtree(box.root / "tasks")
    return box.root / "tasks"


def no_requests(box: Box) -> Path:
    shutil.rmtree(box.root / "channels" / WORK / "requests")
    return box.root / "channels" / WORK / "requests"


def symlink_folder(box: Box) -> Path:
    path = box.root / "channels" / OTHER / "requests"
    elsewhere = path.rename(box.root.parent / "elsewhere")
    path.symlink_to(elsewhere)
    return path


def in_the_way(box: Box) -> Path:
    path = box.root / "manifest.json"
    path.mkdir()
    return path


def file_for_folder(box: Box) -> Path:
    path = box.root / "quarantine"
    path.rmdir()
    path.write_text("x")
    return path


def bad_tombstones(box: Box) -> Path:
    path = box.root / "tombstones" / "2026-01-01.txt"
    os.mkfifo(path)
    return path


def stranger(box: Box) -> Path:
    path = box.root / "channels" / WORK / "dead" / "notes.txt"
    path.write_text("mine")
    return path


def foreign(box: Box) -> Path:
    path = box.root / "channels" / WORK / "requests" / "no message.json"
    path.write_text("{")
    return path


def mode(box: Box) -> Path:
    box.identity("ready").chmod(0)
    return box.identity("ready")


def folder_mode(box: Box) -> Path:
    path = box.root / "channels" / OTHER
    path.chmod(0o600)
    return path


def writable(box: Box) -> Path:
    box.root.chmod(0o777)
    return box.root / "."


def readable(box: Box) -> Path:
    box.root.chmod(0o755)
    return box.root / "."


def owner(box: Box) -> Path:
    os.chown(box.identity("ready"), 12345, -1)
    return box.identity("ready")


def acl(box: Box) -> Path:
    path = box.root / "journal"
    for there in (box.root, *box.root.rglob("*")):
        there.chmod(0o2770 if there.is_dir() else 0o660)
    lists.put(path, lists.ACCESS, os.getuid())
    return path


def torn(box: Box) -> Path:
    path = box.place("ready")
    path.write_bytes(path.read_bytes()[:20])
    return path


def linked_body(box: Box) -> Path:
    path = box.place("ready")
    path.unlink()
    path.symlink_to(box.identity("ready"))
    return path


def piped_body(box: Box) -> Path:
    path = box.identity("ready")
    path.unlink()
    os.mkfifo(path)
    return path


def folder_body(box: Box) -> Path:
    path = box.identity("ready")
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    return path


def renamed(box: Box) -> Path:
    path = box.place("dead")
    return path.rename(path.with_name(path.name.replace(box.ids["dead"], NEW)))


def misnamed(box: Box) -> Path:
    path = box.place("leased")
    return path.rename(path.parents[1] / "dead" / path.name)


def link_among_keys(box: Box) -> Path:
    path = box.root / "keys" / box.identity("ready").name
    path.hardlink_to(box.identity("ready"))
    return path


def moved(box: Box) -> Path:
    return box.place("dead").rename(box.root / "channels" / OTHER / "dead" / box.place("dead").name)


def copied_away(box: Box) -> Path:
    path = box.root / "channels" / OTHER / "requests" / f"{box.ids['ready']}.json"
    shutil.copyfile(box.place("ready"), path)
    return path


def orphan(box: Box) -> Path:
    box.place("keyed").unlink()
    return box.identity("keyed")


def linked_orphan(box: Box) -> Path:
    (box.root.parent / "backup").hardlink_to(box.identity("keyed"))
    return orphan(box)


def nameless(box: Box) -> Path:
    box.place("done").unlink()
    return box.identity("done")


def nameless_of_abq(box: Box) -> Path:
    made = json.loads(box.response().read_text())
    del made["bus"]
    box.response().write_text(json.dumps(made))
    return nameless(box)


def tombstoned(box: Box) -> Path:
    day = day_of(int(box.ids["keyed"][4:16], 16))
    (box.root / "tombstones" / f"{day}.txt").write_text(f"{box.ids['keyed']} done {day}\n")
    return orphan(box)


def tombstoned_key(box: Box) -> Path:
    path = box.key()
    tombstoned(box).unlink()
    return path


def no_identity(box: Box) -> Path:
    box.identity("dead").unlink()
    return box.place("dead")


def strayed_identity(box: Box) -> Path:
    place = box.place("ready")
    box.identity("ready").rename(box.root / "channels" / OTHER / "delayed" / box.identity("ready").name)
    return place


def by_hand(box: Box) -> Path:
    path = box.root / "channels" / WORK / "requests" / f"{NEW}.json"
    path.write_text(message())
    return path


def split(box: Box) -> Path:
    box.copied()
    return box.place("dead")


def split_place(box: Box) -> Path:
    data = box.place("keyed").read_bytes()
    box.place("keyed").unlink()
    path = box.root / "channels" / WORK / "requests" / f"{box.ids['keyed']}.json"
    path.write_bytes(data)
    return path


def split_key(box: Box) -> Path:
    path = box.key()
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    return path


def other_body(box: Box) -> Path:
    path = box.place("ready")
    path.unlink()
    path.write_text(message(id=box.ids["ready"], content="something else"))
    return path


def two_states(box: Box) -> Path:
    path = box.root / "channels" / WORK / "requests" / f"{box.ids['dead']}.json"
    path.hardlink_to(box.identity("dead"))
    return path


def two_channels(box: Box) -> Path:
    path = box.root / "channels" / OTHER / "requests" / f"{box.ids['done']}.json"
    path.hardlink_to(box.identity("done"))
    return path


def two_copies(box: Box) -> Path:
    box.copied()
    path = box.root / "channels" / WORK / "requests" / f"{box.ids['dead']}.json"
    shutil.copyfile(box.identity("dead"), path)
    return path


def copy_beside(box: Box) -> Path:
    path = box.root / "channels" / WORK / "requests" / f"{box.ids['done']}.json"
    shutil.copyfile(box.identity("done"), path)
    return path


def refused(box: Box) -> Path:
    path, kept = box.place("ready"), box.root / "quarantine" / "1-abcd"
    said = {"was": str(path.relative_to(box.root)), "reason": "it is not signed", "at": "2026-01-01T00:00:00Z"}
    kept.with_name(f"{kept.name}.reason.json").write_text(json.dumps(said))
    path.rename(kept)
    return box.identity("ready")


def shared(box: Box) -> Path:
    path = box.root / "quarantine" / "1-abcd"
    path.hardlink_to(box.identity("ready"))
    return path


def backed_up(box: Box) -> Path:
    (box.root.parent / "backup").hardlink_to(box.identity("ready"))
    return box.identity("ready")


def cut_post(box: Box) -> Path:
    path = box.root / "tmp" / f"{NEW}.abcd"
    path.write_text(message())
    (box.root / "tasks" / f"{NEW}.json").hardlink_to(path)
    return path


def draft(box: Box) -> Path:
    path = box.root / "tmp" / "draft.abcd"
    path.write_text("{")
    return path


def pruning(box: Box) -> Path:
    path = box.root / "channels" / WORK / "pruning" / f"0a0b0c0d.{TODAY}.{box.place('cancelled').name}"
    path.parent.mkdir()
    return box.place("cancelled").rename(path)
