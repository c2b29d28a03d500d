"""Random work, random kills, random damage: fsck and the independent auditor agree, and a repair loses nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from mcp_bus import names, wire
from mcp_bus.errors import BusError, CorruptRecord
from mcp_bus.fsck import Level
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.conftest import is_disk
from tests.crash import auditor
from tests.crash.victim import Steps, killed_at, open_at
from tests.fsck.box import OTHER, WORK, Box

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mcp_bus.bus import Bus
    from mcp_bus.stores.fsops import Fs

ID = re.compile(names.IN_NAME)
# What is worth a note alone, and by the auditor a problem: a link too many, and a message that nobody took in yet.
NOTED = {"extra-link", "new-message"}


# --- work -----------------------------------------------------------------------------------------


def post(bus: Bus) -> None:
    bus.post(WORK, "plain", backoff_s=0)


def keyed(bus: Bus) -> None:
    bus.post(WORK, "keyed", key=str(len(bus.store.ids())))


def elsewhere(bus: Bus) -> None:
    bus.post(OTHER, "elsewhere", delay_s=7200)


def ack(bus: Bus) -> None:
    task = bus.claim([WORK], lease_s=3600)
    if task is not None:
        bus.ack(task, f"the answer to {task.id}")


def nack(bus: Bus) -> None:
    task = bus.claim([WORK], lease_s=3600)
    if task is not None:
        bus.nack(task, "no")


def claim(bus: Bus) -> None:
    bus.claim([WORK], lease_s=3600)


def cancel(bus: Bus) -> None:
    for task_id in bus.store.ids()[:1]:
        try:
            bus.cancel(task_id)
        except BusError:
            return


def swept(bus: Bus) -> None:
    sweep(bus)


WORKS: list[Callable[[Bus], None]] = [post, keyed, elsewhere, ack, nack, claim, cancel, swept]
work = st.tuples(st.sampled_from(WORKS), st.sampled_from([-1, -1, -1, *range(12)]))


def done(root: Path, what: Callable[[Bus], None], step: int) -> None:
    """Do some work; with a step, in a process that is killed there."""

    def act(fs: Fs) -> None:
        with open_at(root, fs, durable=False) as bus:
            what(bus)

    if step < 0:
        act(Steps())
    else:
        killed_at(step, act)


# --- damage ---------------------------------------------------------------------------------------


def remove(path: Path, _other: Path) -> None:
    path.unlink()


def truncate(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def duplicate(path: Path, other: Path) -> None:
    shutil.copyfile(path, other.with_name(path.name), follow_symlinks=False)


def link(path: Path, other: Path) -> None:
    other.with_name(path.name).hardlink_to(path)


def replace(path: Path, _other: Path) -> None:
    """Write the same bytes as another file, as an editor does."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def move(path: Path, other: Path) -> None:
    path.rename(other.with_name(path.name))


def rename(path: Path, other: Path) -> None:
    path.rename(path.with_name(other.name))


def symlink(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def no_links(path: Path, _other: Path) -> None:
    Box(next(p for p in path.parents if (p / "bus.json").exists())).copied()


def refuse(path: Path, _other: Path) -> None:
    """Put something aside, as who refuses it does."""
    root = next(p for p in path.parents if (p / "bus.json").exists())
    kept = root / "quarantine" / f"1-{path.name[:40]}"
    said = {"was": str(path.relative_to(root)), "reason": "it is not signed", "at": "now"}
    kept.with_name(f"{kept.name}.reason.json").write_text(json.dumps(said))
    path.rename(kept)


DAMAGES: list[Callable[[Path, Path], None]] = [
    remove, truncate, duplicate, link, replace, move, rename, symlink, no_links, refuse
]  # fmt: skip
damage = st.tuples(st.sampled_from(DAMAGES), st.integers(0, 1000), st.integers(0, 1000))


def targets(root: Path) -> list[Path]:
    """Return the files that make a bus a bus, in an order that does not depend on chance."""
    found = [path for part in ("tasks", "keys", "channels", "staged", "tmp") for path in (root / part).rglob("*.json*")]
    made = [path for path in found if path.is_file() and path.name != "channel.json" and "attempts" not in path.parts]
    return sorted(made, key=lambda path: (path.parts[-3:-1], path.name[:4], path.name))


def damaged(root: Path, what: tuple[Callable[[Path, Path], None], int, int]) -> None:
    hurt, first, second = what
    found = targets(root)
    if not found:
        return
    path, other = found[first % len(found)], found[second % len(found)]
    note(f"{hurt.__name__} {path.relative_to(root)} {other.relative_to(root)}")
    try:
        hurt(path, other)
    except (FileExistsError, shutil.SameFileError):
        return


# --- what is there --------------------------------------------------------------------------------


def readable(root: Path) -> set[str]:
    """Return the tasks of which there is a copy that can be read, under a name that says so."""
    made = set[str]()
    for path in targets(root):
        where, name = path.relative_to(root).parts, ID.search(path.name)
        if path.is_symlink() or where[0] in ("staged", "tmp") or "responses" in where:
            continue
        try:
            body = wire.load_body(path.read_bytes())
        except CorruptRecord:
            continue
        is_place = where[0] == "channels" and names.parse(where[1], "/".join(where[2:-1]), where[-1]) is not None
        if (where[0] == "keys" and body.key == path.stem) or (
            name and name[0] == body.id and (is_place or where[0] == "tasks")
        ):
            made.add(body.id)
    return made


def results(root: Path) -> dict[str, bytes]:
    """Return the results that can be read, under the names of their tasks."""
    made = dict[str, bytes]()
    for path in root.glob("channels/*/responses/*.json"):
        found = {} if path.is_symlink() else auditor.load(path)
        if found.get("id") == path.stem and "result" in found:
            made[path.stem] = path.read_bytes()
    return made


def by_auditor(root: Path) -> set[str]:
    """Return the tasks about which the auditor says something."""
    audit = auditor.look(root)
    drafts = {p.name for p in (root / "tmp").iterdir() if p.lstat().st_nlink == 1}
    left = [line for line in audit.leftovers if line.rpartition("/")[2] not in drafts]
    return {name for line in (*audit.problems, *left) for name in ID.findall(line)}


def by_fsck(box: Box) -> set[str]:
    found = (item for item in box.check().anomalies if item.level is not Level.NOTE or item.kind in NOTED)
    return {name for item in found for name in ID.findall(f"{item.id} {item.path} {item.other} {item.detail}")}


@pytest.mark.timeout(600)  # Forks and buses on a disk: a minute, and several where others use it as well.
@settings(max_examples=15)
@given(works=st.lists(work, min_size=2, max_size=10), damages=st.lists(damage, max_size=4))
def test_fsck_and_auditor_agree_and_a_repair_loses_nothing(
    works: list[tuple[Any, int]], damages: list[tuple[Any, int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        if not is_disk(Path(folder)):
            pytest.skip("TMPDIR is memory")
        root = Path(folder) / "bus"
        layout.create(root, fs=Steps())
        box = Box(root)
        with open_at(root, durable=False) as bus:
            for channel in (WORK, OTHER):
                bus.create_channel(channel, backoff_s=0, max_attempts=1)
        for what, step in works:
            done(root, what, step)
        for hurt in damages:
            damaged(root, hurt)
        check(box)


@pytest.mark.timeout(600)  # As above.
@settings(max_examples=15)
@given(
    works=st.lists(work, min_size=2, max_size=8), damages=st.lists(damage, max_size=2), kept=st.integers(0, 2**16 - 1)
)
def test_fsck_and_auditor_agree_about_signatures_that_are_gone(
    works: list[tuple[Any, int]], damages: list[tuple[Any, int, int]], kept: int
) -> None:
    with TemporaryDirectory() as folder:
        if not is_disk(Path(folder)):
            pytest.skip("TMPDIR is memory")
        box = Box.made(Path(folder) / "bus")
        for what, step in works:
            done(box.root, what, step)
        for hurt in damages:
            damaged(box.root, hurt)
        signatures(box.root, kept)
        said, found = by_auditor(box.root), by_fsck(box)
        note("\n".join(auditor.look(box.root).problems))
        note("\n".join(map(str, box.check().anomalies)))
        assert found & said == said, f"the auditor knows more: {said - found}"
        gone = {item.id for item in box.check().anomalies if item.kind in ("not-signed", "result-unverified")}
        assert gone <= said, f"fsck knows more: {gone - said}"


def signatures(root: Path, kept: int) -> None:
    """Say of a channel that it is signed, and put some of the signatures there: whether they hold, neither asks."""
    (root / "channels" / WORK / "channel.json").write_text('{"signed": true}')
    (root / "signatures").mkdir()
    names = [path.stem for path in sorted((root / "tasks").iterdir())]
    for path in sorted((root / "channels" / WORK / "responses").iterdir()):
        data = path.read_bytes() if path.is_file() else b""
        names.append(f"{path.stem}.{hashlib.sha256(data).hexdigest()[:32]}")
    for number, name in enumerate(names):
        if kept >> number % 16 & 1:
            (root / "signatures" / f"{name}.jws").write_text("x")


def check(box: Box) -> None:
    root = box.root
    before, tasks, answers = box.snapshot(), readable(root), results(root)
    said = by_auditor(root)
    report = box.check()
    note("\n".join(f"{item.level} {item}" for item in report.anomalies))
    note("\n".join(auditor.look(root).problems))
    assert by_fsck(box) & said == said, f"the auditor knows more: {said - by_fsck(box)}"
    assert bool(said) == bool(by_fsck(box)), "clean for one, and not for the other"
    assert box.snapshot() == before
    mended = box.repair()
    note("\n".join(mended.done))
    assert {item.kind for item in mended.anomalies if item.level is not Level.NOTE} <= {"done-without-result"}, mended
    audit = auditor.look(root)
    linked = {item.id for item in mended.anomalies if item.kind == "extra-link"}
    problems = [line for line in audit.problems if not ("names, not" in line and line.split()[0] in linked)]
    assert [line for line in problems if "has no result" not in line] == []
    assert tasks <= {*audit.states}, f"lost: {tasks - {*audit.states}}"
    kept = {path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {*answers.values()} <= kept, "no result is lost, at most it was put aside"
    for task_id in answers.keys() & audit.states.keys():
        if audit.states[task_id] == "put aside":  # It was on its way when it was refused.
            continue
        assert audit.states[task_id] == "done"
        assert (root / "channels" / WORK / "responses" / f"{task_id}.json").read_bytes() == answers[task_id]
    assert box.repair().done == ()
