"""A member of the group who wants more than the bus: links, swapped names, and folders that are not the bus's (F6)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import fsck
from mcp_bus.cli.main import main
from mcp_bus.clock import System
from mcp_bus.errors import InvalidRequest, Unreadable, Untrusted
from mcp_bus.fsck import Means, rights
from mcp_bus.pipes import Pipes
from mcp_bus.stores import layout
from mcp_bus.stores.tree import Tree
from mcp_bus.workers import runs
from tests.crash.victim import Steps
from tests.security import lists
from tests.security.people import ALICE, BOB, EVE, GROUP, acting, needs_root, wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.stores.fsops import Fs

pytestmark = needs_root


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import now, as root, what other users could not find."""
    root = tmp_path_factory.mktemp("loaded") / "bus"
    layout.create(root)
    with acting(root, "ann") as bus:
        bus.post("work", "x")
        Pipes(root, bus.source).make("p")
    mended(root)


@pytest.fixture
def shared(place: Path) -> Path:
    """A bus that alice made for the group, with a task of hers."""

    def act() -> None:
        layout.create(place / "bus", fs=Steps(), group=GROUP)
        with acting(place / "bus", "alice") as bus:
            bus.post("work", "of alice", key="k")

    ALICE.does(act, 0o077)
    return place / "bus"


def mended(root: Path, fs: Fs | None = None) -> fsck.Report:
    return fsck.repair(root, Means(fs or Steps(), System(), lambda _looked: None))


def mode_of(path: Path) -> tuple[int, int]:
    about = path.stat()
    return stat.S_IMODE(about.st_mode), about.st_gid


class Swapping(Steps):
    """Is as unlucky as can be: between any look at a name and what is done next, a member swaps it."""

    def __init__(self, name: str, swap: Callable[[], None]) -> None:
        super().__init__()
        self.is_armed = False
        self._name, self._swap = name, swap

    def _now(self, name: str) -> None:
        if name == self._name and self.is_armed:
            self.is_armed = False
            self._swap()

    def stat(self, name: str, at: int) -> os.stat_result | None:
        found = super().stat(name, at)
        self._now(name)
        return found

    def hold(self, name: str, at: int) -> int:
        held = super().hold(name, at)
        self._now(name)
        return held


@pytest.mark.parametrize("is_dir", [False, True], ids=["file", "folder"])
def test_a_name_that_is_swapped_for_a_symlink_while_it_is_mended_changes_nothing_outside(
    place: Path, shared: Path, *, is_dir: bool
) -> None:
    outside, name = place / "program", shared / "journal" / "lure"
    if is_dir:
        outside.mkdir()
        name.mkdir()
    else:
        outside.write_text("#!/bin/sh\n")
        name.write_text("x")
    outside.chmod(0o700)
    name.chmod(0o4700)
    before = mode_of(outside)

    def swap() -> None:
        name.rename(place / "lure")
        name.symlink_to(outside)

    fs = Swapping("lure", swap)
    tree = Tree(shared, fs, System())
    fs.is_armed = True
    rights.mend(tree, "journal/lure", rights.Names(tree))
    tree.close()
    assert not fs.is_armed
    assert name.is_symlink()
    assert mode_of(outside) == before


def test_a_pipe_that_is_swapped_while_it_is_made_changes_nothing_outside(
    place: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, pipe = place / "program", shared / "pipes" / "p"
    outside.write_text("x")
    outside.chmod(0o700)

    def swap() -> None:
        pipe.unlink()
        pipe.symlink_to(outside)

    fs = Swapping("p", swap)
    fs.is_armed = True
    monkeypatch.setattr("mcp_bus.pipes.Fs", lambda: fs)
    old = os.umask(0o077)
    try:
        Pipes(shared, System()).make("p")
    finally:
        os.umask(old)
    assert not fs.is_armed
    assert mode_of(outside)[0] == 0o700


@pytest.mark.parametrize("group", [GROUP, None], ids=["shared", "private"])
def test_no_bit_of_an_old_mode_is_kept(place: Path, group: int | None) -> None:
    root = place / "own"
    layout.create(root, fs=Steps(), group=group)
    file, folder = root / "journal" / "a", root / "journal" / "b"
    file.write_text("x")
    folder.mkdir()
    for path in (file, folder):
        path.chmod(0o7777 & ~0o440 | 0o002)
    mended(root)
    assert mode_of(file)[0] == (0o660 if group else 0o600)
    assert mode_of(folder)[0] == (0o2770 if group else 0o700)


def test_what_has_a_name_outside_the_bus_is_not_changed_and_what_has_many_inside_is(place: Path, shared: Path) -> None:
    def act() -> None:
        outside = place / "key"
        outside.write_text("secret")
        outside.chmod(0o600)
        os.link(outside, shared / "journal" / "key")
        os.link(outside, shared / "tombstones" / "key")
        for path in (shared / "tasks").iterdir():
            assert path.stat().st_nlink == 3
            path.chmod(0o600)
        mended(shared)

    ALICE.does(act, 0o022)
    assert mode_of(place / "key") == (0o600, ALICE.uid)
    assert wrong(shared, group=GROUP) == [
        f"{folder}/key: 600 of group {ALICE.uid}" for folder in ("journal", "tombstones")
    ]


def test_a_name_that_moves_while_names_are_counted_is_not_counted_twice(place: Path, shared: Path) -> None:
    outside, first, second = place / "key", shared / "agents" / "key", shared / "tombstones" / "key"
    outside.write_text("secret")
    outside.chmod(0o600)
    os.link(outside, first)

    def move() -> None:
        first.rename(second)

    fs = Swapping("key", move)
    tree = Tree(shared, fs, System())
    names, about = rights.Names(tree), first.stat()
    fs.is_armed = True
    assert not names.has_all(about)
    tree.close()
    assert second.exists()


def test_root_changes_what_is_roots_and_says_for_the_rest_whose_it_is(shared: Path) -> None:
    theirs, own = shared / "journal" / "theirs", shared / "journal" / "own"
    BOB.does(theirs.touch, 0o077)
    own.write_text("x")
    own.chmod(0o600)
    report = mended(shared)
    assert mode_of(theirs)[0] == 0o600
    assert mode_of(own) == (0o660, GROUP)
    (said,) = [item.detail for item in report.anomalies if item.kind == "others-mode"]
    assert f"{BOB.uid} owns it" in said
    assert "`chmod" in said


def test_a_shared_bus_that_everyone_may_write_is_refused(shared: Path) -> None:
    shared.chmod(0o2777)
    with pytest.raises(Untrusted, match="everyone on this machine may write"):
        acting(shared, "ann")


# --- access control lists -------------------------------------------------------------------------


def test_a_bus_is_not_shared_where_a_list_says_who_may(place: Path) -> None:
    lists.put(place, lists.DEFAULT, EVE.uid)
    with pytest.raises(InvalidRequest, match="has, or inherits, an access control list") as refusal:
        layout.create(place / "bus", group=GROUP)
    assert "`setfacl -b -k" in refusal.value.hint
    for kind in os.listxattr(place / "bus"):
        os.removexattr(place / "bus", kind)
    layout.create(place / "bus", group=GROUP)


@pytest.mark.parametrize("kind", [lists.ACCESS, lists.DEFAULT])
def test_a_shared_bus_with_a_list_is_refused_and_told(
    shared: Path, kind: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.put(shared, kind, EVE.uid)
    with pytest.raises(Untrusted, match="has an access control list") as refusal:
        acting(shared, "ann")
    assert "`setfacl -b -k" in refusal.value.hint
    assert [item.path for item in fsck.check(shared).anomalies if item.kind == "acl"] == ["."]
    monkeypatch.setenv("MCP_BUS_DIR", str(shared))
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    assert main(("doctor",)) == 1
    assert f"setfacl -b -k {shared}" in capfd.readouterr().out


def test_lists_below_are_told_of_and_no_chmod_is_advised_nor_done(shared: Path) -> None:
    (task,) = (shared / "tasks").iterdir()
    lists.put(task, lists.ACCESS, BOB.uid, 0)
    lists.put(shared / "journal", lists.DEFAULT, EVE.uid)
    found = {item.path: item.detail for item in fsck.check(shared).anomalies if item.kind in ("acl", "mode")}
    assert {f"tasks/{task.name}", "journal"} <= {*found}
    assert all("setfacl" in said and "chmod" not in said for said in found.values()), found

    def told() -> None:
        with acting(shared, "bob") as bus, pytest.raises(Unreadable, match="access control list") as refusal:
            bus.get(task.stem)
        assert "chmod" not in str(refusal.value)

    BOB.does(told)


def test_what_has_a_list_is_not_opened_to_those_on_it_by_mending_its_mode(shared: Path) -> None:
    path = shared / "journal" / "of root"
    path.touch()
    lists.put(path, lists.ACCESS, EVE.uid)
    path.chmod(0o600)  # The mask: nobody but root.
    mended(shared)
    assert mode_of(path)[0] == 0o600


def test_a_private_bus_looks_for_no_lists(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.create(place / "own", fs=Steps())
    monkeypatch.setattr("mcp_bus.stores.acls.has", lambda *_: pytest.fail("it cost a call"))
    with acting(place / "own", "ann") as bus:
        bus.post("work", "x")


# --- what commands write --------------------------------------------------------------------------


def test_a_command_writes_where_no_other_member_can_swap_anything(place: Path, shared: Path) -> None:
    home, outside = place / "home", place / "rc"

    def begin() -> None:
        with acting(shared, "alice") as bus:
            keyed: Any = SimpleNamespace(store=SimpleNamespace(guard=SimpleNamespace(private=home)), source=bus.source)
            runs.tidy(keyed, shared)
            root = runs.root_of(keyed, shared, bus.get(next(iter(bus.store.ids()))).body)
            assert root == home
            with runs.Runs(root, bus.source) as kept:
                folder, log = kept.begin("req_1", 1, b"do it")
                with log:
                    folder.log.touch()
        assert not (shared / "runs").exists()

    ALICE.does(begin)
    (run,) = (home / "runs").iterdir()

    def plant() -> None:
        for act in (
            lambda: (run / "result").symlink_to(outside),
            lambda: run.rename(home / "runs" / "away"),
            lambda: (home / "runs").rename(home / "away"),
        ):
            with pytest.raises(PermissionError):
                act()

    BOB.does(plant)


def test_nothing_below_runs_is_opened_to_the_group(shared: Path) -> None:
    def begin() -> None:
        with runs.Runs(shared, System()) as kept:  # As without keys.
            kept.check()
            place, log = kept.begin("req_1", 1, b"do it")
            with log:
                (place.files / "own").mkdir(mode=0o700)
                (place.files / "own" / "key").touch(mode=0o600)
            assert [Path(path).name for path in kept.made(place).paths] == ["key"]
            kept.set_aside(place)
            assert kept.answer(place) is None
            kept.check()

    ALICE.does(begin, 0o022)
    assert mode_of(shared / "runs") == (0o2770, GROUP)
    assert [str(path) for path in (shared / "runs").rglob("*") if mode_of(path)[0] & 0o077] == []
