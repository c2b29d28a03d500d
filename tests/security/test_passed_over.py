"""What one member left closed or half written, or was killed over, stops no verb of the other (rule F6)."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.main import main
from mcp_bus.clock import System
from mcp_bus.errors import CorruptRecord
from mcp_bus.model import DAY, day_of
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.tree import Tree
from tests.crash.victim import Steps
from tests.security.people import ALICE, BOB, GROUP, acting, filled, mended, needs_root, work
from tests.security.test_closed import cut_off

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = needs_root
VERBS = (
    ("inbox",), ("agents",), ("ls",), ("find", "task"), ("plan", "list"), ("pipe", "list"), ("sweep",), ("status",),
)  # fmt: skip


def every_verb(root: Path) -> None:
    for verb in VERBS:
        assert main(("--bus", str(root), "--quiet", *verb)) in (0, 4), verb  # 4: nothing there


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import now, as root, what other users could not find."""
    root = tmp_path_factory.mktemp("loaded") / "bus"
    layout.create(root)
    filled(root)
    every_verb(root)
    with acting(root, "ann") as bus:
        work(bus)
        bus.mail.send("@bob", "hello")
    mended(root)


def test_an_empty_folder_whose_maker_was_killed_keeps_nobody_from_anything(shared: Path) -> None:
    empty = [*(shared / folder for folder in ("cursors", "plans", "pipes", "staged", "channels/work/archive"))]
    empty += [shared / "channels" / "@bob", shared / "channels" / "work" / "dead"]

    def leave() -> None:
        for path in empty:
            if path.exists():
                path.rmdir()
            path.mkdir()

    def passed() -> None:
        every_verb(shared)
        with acting(shared, "bob") as bus:
            assert len(work(bus, "work")) == 3
            bus.mail.send("@bob", "hello")
        assert mended(shared).is_clean

    ALICE.does(leave, 0o077)
    BOB.does(passed)
    assert {stat.S_IMODE(path.stat().st_mode) for path in empty if path.exists()} == {0o2770}


def test_a_folder_that_is_being_made_is_waited_for_and_not_removed(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(Steps):
        """Looks between the making of a folder and its mode."""

        def open_dir(self, name: str, at: int | None) -> int:
            if name == "cursors" and stat.S_IMODE(path.stat().st_mode) == 0o700:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return super().open_dir(name, at)

    path = shared / "cursors"
    path.mkdir()
    os.chown(path, -1, GROUP)
    path.chmod(0o700)
    monkeypatch.setattr("mcp_bus.stores.tree.select.select", lambda *_: path.chmod(0o2770))
    before = path.stat().st_ino
    tree = Tree(shared, Early(), System())
    assert tree.names("cursors") == []
    tree.close()
    assert path.stat().st_ino == before


def test_a_folder_that_was_taken_away_while_it_was_made_is_made_again(shared: Path) -> None:
    class Taken(Steps):
        """Loses the first folder that it makes to another user, as soon as it is open."""

        count = 0

        def open_dir(self, name: str, at: int | None) -> int:
            opened = super().open_dir(name, at)
            if name == "cursors" and not self.count:
                self.count = 1
                (shared / name).rmdir()
            return opened

    tree = Tree(shared, Taken(), System())
    assert os.fstat(tree.fd("cursors", make=True)).st_nlink
    tree.close()


def test_a_closed_cursor_keeps_nobody_from_other_topics(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    def tell() -> None:
        with acting(shared, "bob") as bus:
            bus.mail.topics.subscribe("builds")
            bus.mail.topics.subscribe("releases")
        with acting(shared, "alice") as bus:
            bus.mail.send("#releases", "one is out")
            bus.mail.send("@bob", "hello")
        lure = shared / "cursors" / "builds" / "bob.999.json"
        lure.touch()
        lure.chmod(0)

    def passed() -> None:
        every_verb(shared)
        with acting(shared, "bob") as bus:
            assert {message.body.content for message in bus.mail.read()} == {"one is out", "hello"}
            assert f"{ALICE.uid} owns it" in caplog.text
            assert "bob.999.json" in caplog.text

    ALICE.does(tell, 0o077)
    BOB.does(passed)


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "half written"])
def test_the_rules_of_one_channel_keep_nobody_from_another_that_was_named_too(shared: Path, *, is_closed: bool) -> None:
    rules = shared / "channels" / "other" / "channel.json"

    def leave() -> None:
        if is_closed:
            rules.chmod(0)
        else:
            rules.write_text("{")

    def passed() -> None:
        with acting(shared, "bob") as bus:
            with pytest.raises(CorruptRecord):
                bus.claim(["other"])
            assert len(work(bus, "other", "work")) == 3

    ALICE.does(leave)
    BOB.does(passed)


def test_a_closed_file_of_tombstones_is_named_with_its_owner_and_keeps_no_other_day(shared: Path) -> None:
    def leave() -> None:
        with acting(shared, "alice", -5 * DAY) as bus:
            bus.cancel(bus.post("work", "older").id)
        with acting(shared, "alice", -4 * DAY) as bus:
            bus.cancel(bus.post("work", "old").id)
            lure = shared / "tombstones" / f"{day_of(bus.source.now() - DAY)}.txt"
            lure.touch()
            lure.chmod(0)

    def passed() -> None:
        with acting(shared, "bob") as bus:
            lines = sweep(bus)
        assert len([line for line in lines if line.startswith("pruned")]) == 1, lines
        (left,) = [line for line in lines if line.startswith("left what was to be pruned")]
        assert f"{ALICE.uid} owns it" in left
        assert ".txt'" in left

    ALICE.does(leave)
    BOB.does(passed)


def test_an_identity_that_cannot_be_read_sends_no_result_to_rejected(shared: Path) -> None:
    def leave() -> None:
        with acting(shared, "alice") as bus:
            task = bus.claim(["work"])
            assert task is not None
            with pytest.raises(ValueError, match="cut off"):
                cut_off(bus, task)
            (shared / "tasks" / f"{task.id}.json").chmod(0o600)

    def passed() -> None:
        with acting(shared, "bob", 2 * DAY) as bus:
            sweep(bus)

    ALICE.does(leave)
    BOB.does(passed)
    assert list((shared / "rejected").iterdir()) == []
    assert len(list((shared / "staged").iterdir())) == 1
