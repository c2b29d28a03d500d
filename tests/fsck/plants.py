"""One plant for each kind of anomaly: what makes it, and where it is to be found."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from mcp_bus import names
from mcp_bus.model import day_of
from tests.crash.victim import open_at
from tests.fsck.box import OTHER, WORK

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


def overdue(box: Box) -> Path:
    path = box.place("leased")
    head = path.name.rsplit(".", 2)[0]
    return path.rename(path.with_name(f"{head}.1000.json"))


def no_key(box: Box) -> Path:
    box.key().unlink()
    return box.identity("keyed")


def taken_key(box: Box) -> Path:
    box.key().unlink()
    with open_at(box.root) as bus:
        bus.post(WORK, "keyed again", key="keyed")
    return box.identity("keyed")


def torn_key(box: Box) -> Path:
    path = box.key()
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:30])
    return path


def renamed_key(box: Box) -> Path:
    return box.key().rename(box.root / "keys" / f"{'ab' * 32}.json")


def lone_key(box: Box) -> Path:
    path = box.key()
    box.place("keyed").unlink()
    box.identity("keyed").unlink()
    return path


def torn_result(box: Box) -> Path:
    box.response().write_bytes(box.response().read_bytes()[:10])
    return box.response()


def lone_result(box: Box) -> Path:
    for path in (box.key("done"), box.place("done"), box.identity("done")):
        path.unlink()
    return box.response()


def strayed_result(box: Box) -> Path:
    path = box.root / "channels" / OTHER / "responses" / box.response().name
    shutil.copyfile(box.response(), path)
    return path


def early_result(box: Box) -> Path:
    path = box.place("done")
    return path.rename(path.parents[2] / "requests" / f"{box.ids['done']}.json")


def no_result(box: Box) -> Path:
    box.response().unlink()
    return box.place("done")


def staged(box: Box) -> Path:
    name = box.place("leased").name.rsplit(".", 2)[0]
    path = box.root / "staged" / f"{name}.json"
    said = json.loads(box.response().read_text()) | {"id": box.ids["leased"]}
    del said["bus"]
    path.write_text(json.dumps(said))
    return path


def no_reason(box: Box) -> Path:
    (box.root / "channels" / WORK / "dead" / f"{box.ids['dead']}{names.REASON}").unlink()
    return box.place("dead")


def stale_reason(box: Box) -> Path:
    path = box.root / "channels" / WORK / "dead" / f"{box.ids['ready']}{names.REASON}"
    path.write_text("{}")
    return path


def lone_history(box: Box) -> Path:
    path = box.root / "channels" / WORK / "attempts" / NEW
    path.mkdir()
    (path / "000001-1-failed.json").write_text("{}")
    return path


def torn_line(box: Box) -> Path:
    path = next((box.root / "channels" / WORK / "attempts" / box.ids["dead"]).iterdir())
    path.write_text("{")
    return path


def policy(box: Box) -> Path:
    path = box.root / "channels" / WORK / "channel.json"
    path.write_text('{"lease_s": -1}')
    return path


def plan(box: Box) -> Path:
    path = box.root / "plans" / "plan_0123456789ab.1.json"
    path.parent.mkdir()
    path.write_text('{"id": "plan_0123456789ab"}')
    return path


def record(box: Box) -> Path:
    path = box.root / "agents" / "ann~00000001.1.json"
    path.write_text('{"agent": ')
    return path


def cursor(box: Box) -> Path:
    path = box.root / "cursors" / "news" / "ann.1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"agent": 1}')
    return path


def old_revision(box: Box) -> Path:
    for number in (1, 2):
        (box.root / "agents" / f"ann~00000001.{number}.json").write_text("{}")
    return box.root / "agents" / "ann~00000001.1.json"


def tombstone(box: Box) -> Path:
    path = box.root / "tombstones" / "2026-01-01.txt"
    path.write_text("req_01\n")
    return path


def aside(box: Box) -> Path:
    (box.root / "quarantine" / "1-abcd").write_text("x")
    return box.root / "quarantine"


def late(box: Box) -> Path:
    (box.root / "rejected" / "x.json").write_text("{}")
    return box.root / "rejected"


PLANTS: list[tuple[str, Any]] = [
    ("format", bus_format), ("no-bus-json", bus_json), ("no-bus-json", no_bus_json),
    ("missing-folder", missing_folder), ("lost-folder", no_tasks), ("lost-folder", no_requests),
    ("symlink-folder", symlink_folder), ("in-the-way", in_the_way), ("in-the-way", file_for_folder),
    ("in-the-way", bad_tombstones), ("stranger", stranger), ("foreign", foreign), ("mode", mode),
    ("mode", folder_mode), ("writable-by-others", writable), ("readable-by-others", readable), ("owner", owner),
    ("bad-body", torn), ("bad-body", linked_body), ("bad-body", piped_body), ("bad-body", folder_body),
    ("wrong-id", renamed), ("wrong-channel", moved), ("wrong-channel", copied_away), ("wrong-channel", two_channels),
    ("orphan", orphan), ("orphan", linked_orphan), ("done-without-name", nameless),
    ("done-without-name", nameless_of_abq), ("tombstoned", tombstoned), ("tombstoned", tombstoned_key),
    ("lost-identity", no_identity), ("new-message", by_hand), ("split", split), ("split", split_place),
    ("split", split_key), ("other-body", other_body), ("two-places", two_states), ("two-places", two_copies),
    ("second-body", copy_beside), ("shared-aside", shared), ("extra-link", backed_up), ("post-cut-off", cut_post),
    ("draft", draft), ("pruning", pruning), ("lease-over", overdue), ("key-missing", no_key),
    ("key-taken", taken_key), ("bad-key", torn_key), ("bad-key", renamed_key), ("key-alone", lone_key),
    ("bad-result", torn_result), ("result-without-task", lone_result), ("result-without-task", strayed_result),
    ("result-not-done", early_result), ("done-without-result", no_result), ("staged", staged),
    ("dead-without-reason", no_reason), ("stale-reason", stale_reason), ("history-without-task", lone_history),
    ("bad-history", torn_line), ("policy", policy), ("plan", plan), ("record", record), ("record", cursor),
    ("old-revision", old_revision), ("tombstone", tombstone), ("quarantine", aside), ("rejected", late),
]  # fmt: skip
