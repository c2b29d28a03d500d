"""Damage to leases, keys, results, history and records; each returns where it is to be found."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from mcp_bus import names
from tests.crash.victim import open_at
from tests.fsck.box import OTHER, WORK
from tests.fsck.hurt_tasks import NEW

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fsck.box import Box


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


def astray_result(box: Box) -> Path:
    return box.response().rename(box.root / "channels" / OTHER / "responses" / box.response().name)


def half_moved_result(box: Box) -> Path:
    path = box.root / "channels" / OTHER / "responses" / box.response().name
    path.hardlink_to(box.response())
    return path


def astray_history(box: Box) -> Path:
    path = box.root / "channels" / WORK / "attempts" / box.ids["dead"]
    return path.rename(box.root / "channels" / OTHER / "attempts" / path.name)


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
