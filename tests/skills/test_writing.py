"""Writing a skill here: within its folder, through no link; cut anywhere, a second time completes it."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from mcp_bus.skills import base, here
from mcp_bus.skills.decide import Blob, Step, decide
from mcp_bus.skills.filters import DRAFT, Unfit
from mcp_bus.skills.writing import Changed, Wanted, Writer
from mcp_bus.stores.fsops import Fs
from tests.crash.victim import IS_SOAK, Op, Steps
from tests.fakes import RecordingFs
from tests.skills.conftest import TEXT, everything

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.skills.decide import Files


class Cut(BaseException):
    """The process ends here."""


class Ends(Steps):
    """Does nothing from a step on, as a process does that was killed."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def before(self, number: int, op: Op) -> None:
        if number >= self._step:
            raise Cut(op)

    def rmtree(self, name: str, at: int) -> None:
        self.do(Op("rmtree", name), lambda: Fs.rmtree(self, name, at))


def wanted(**files: str) -> Wanted:
    data = {path.replace("__", "/").replace("_", "."): text.encode() for path, text in files.items()}
    return Wanted({path: Blob(here.oid(text), path.endswith(".sh")) for path, text in data.items()}, data)


OLD = wanted(SKILL_md=TEXT.format("x"), a="1", deep__in__b="1", becomes="a file")
NEW = wanted(SKILL_md=TEXT.format("x") + "more", a="2", becomes__a_sh="#!/bin/sh\n", new__c="2")


def now(place: Path) -> Files | None:
    """Return what is shared of the skill that is there."""
    [*found] = here.scan([place]).skills.get("x", [])
    return found[0].files if found else None


@pytest.mark.parametrize("before", [None, OLD], ids=["new", "changed"])
def test_a_skill_cut_off_anywhere_is_completed_the_next_time(before: Wanted | None, tmp_path: Path) -> None:
    for step in range(0, 300, 1 if IS_SOAK else 3):
        place, kept = tmp_path / str(step), tmp_path / "kept"
        place.mkdir()
        if before is not None:
            Writer(Steps(), kept, "t").take(place, "x", before, {})
            (place / "x" / ".env").write_text("mine")
        base, is_cut = now(place), False
        try:
            Writer(Ends(step), kept, "t").take(place, "x", NEW, base or {})
        except Cut:
            is_cut = True
        left = now(place)
        if left != NEW.files:
            assert decide(base, left, NEW.files) is Step.TAKE, f"cut at step {step}"
            Writer(Steps(), kept, "t").take(place, "x", NEW, left or {})
        assert now(place) == NEW.files
        assert before is None or (place / "x" / ".env").read_text() == "mine"
        if not is_cut:
            break
    assert 10 < step < 297


def test_what_was_executable_is_so_again_and_the_rest_keeps_its_mode(tmp_path: Path) -> None:
    writer = Writer(Fs(), tmp_path / "kept", "t")
    writer.take(tmp_path, "x", OLD, {})
    (tmp_path / "x" / "a").chmod(0o644)
    writer.take(tmp_path, "x", NEW, OLD.files)
    modes = {name: stat.S_IMODE((tmp_path / "x" / name).stat().st_mode) for name in ("a", "SKILL.md", "becomes/a.sh")}
    assert modes == {"a": 0o644, "SKILL.md": 0o600, "becomes/a.sh": 0o700}
    assert not (tmp_path / "x" / "deep").exists()


def test_drafts_of_processes_that_are_gone_are_removed_and_others_stay(tmp_path: Path) -> None:
    writer = Writer(Steps(), tmp_path / "kept", "t")
    writer.take(tmp_path, "x", OLD, {})
    gone, alive, odd = f"{DRAFT}0-1", f"{DRAFT}{os.getppid()}-1", f"{DRAFT}x"
    for place in (tmp_path, tmp_path / "x"):
        (place / gone).mkdir()
        (place / gone / "file").touch()
        (place / alive).touch()
        (place / odd).symlink_to(tmp_path / "x" / "SKILL.md")
    writer.take(tmp_path, "x", NEW, OLD.files)
    for place in (tmp_path, tmp_path / "x"):
        assert [path.name for path in place.iterdir() if path.name.startswith(DRAFT)] == [alive]
    assert now(tmp_path) == NEW.files, "a draft is not shared, and a link of one was not followed"


def test_a_skill_that_cannot_be_moved_to_another_file_system_stays(tmp_path: Path) -> None:
    class Elsewhere(Fs):
        def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
            del src_at, dst, dst_at
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), src)

    Writer(Steps(), tmp_path / "kept", "t").take(tmp_path, "x", OLD, {})
    with pytest.raises(Unfit, match="on another file system"):
        Writer(Elsewhere(), tmp_path / "kept", "t").remove(tmp_path, "x")
    assert now(tmp_path) == OLD.files


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "skills"
    for folder in (outside, place):
        folder.mkdir()
    writer = Writer(Fs(), tmp_path / "kept", "t")
    (place / "x").symlink_to(outside)
    for mine in ({}, OLD.files):
        with pytest.raises(OSError, match="directory"):
            writer.take(place, "x", NEW, mine)
    (place / "x").unlink()
    writer.take(place, "x", OLD, {})
    (place / "x" / "new").symlink_to(outside)
    with pytest.raises(OSError, match="directory"):
        writer.take(place, "x", NEW, OLD.files)
    assert everything(outside) == {}
    assert [path.name for path in place.iterdir()] == ["x"], "no draft stays"


@pytest.mark.parametrize("path", ["a", "deep/in/b", "new/c", "SKILL.md"])
def test_what_is_changed_removed_or_made_while_it_is_written_stays(path: str, tmp_path: Path) -> None:
    typed = tmp_path / "x" / path

    class Typing(Fs):
        """Somebody saves a file when the first one is to be put, or removed."""

        def type(self) -> None:
            typed.parent.mkdir(exist_ok=True)
            typed.write_text("typed")

        def create(self, name: str, at: int, data: bytes, *, sync: bool) -> None:
            super().create(name, at, data, sync=sync)
            self.type()

        def open_dir(self, name: str, at: int | None) -> int:
            fd = super().open_dir(name, at)
            if name == "in":
                self.type()
            return fd

    Writer(Fs(), tmp_path / "kept", "t").take(tmp_path, "x", OLD, {})
    with pytest.raises(Changed, match=f"'{path.rpartition('/')[2]}' was changed here meanwhile"):
        Writer(Typing(), tmp_path / "kept", "t").take(tmp_path, "x", NEW, OLD.files)
    assert typed.read_text() == "typed"
    assert not [name for name in everything(tmp_path) if DRAFT in name]


def test_a_file_that_was_made_executable_or_is_gone_meanwhile_is_changed_too(tmp_path: Path) -> None:
    writer = Writer(Fs(), tmp_path / "kept", "t")
    writer.take(tmp_path, "x", OLD, {})
    (tmp_path / "x" / "a").chmod(0o700)
    with pytest.raises(Changed):
        writer.take(tmp_path, "x", NEW, OLD.files)
    (tmp_path / "x" / "a").unlink()
    (tmp_path / "x" / "a").symlink_to("SKILL.md")
    with pytest.raises(Changed):
        writer.take(tmp_path, "x", NEW, OLD.files)
    assert (tmp_path / "x" / "a").is_symlink()
    (tmp_path / "x" / "odd").symlink_to("SKILL.md")
    with pytest.raises(Changed):
        writer.take(tmp_path, "x", wanted(SKILL_md="1", odd="2"), wanted(SKILL_md="1").files)
    assert (tmp_path / "x" / "odd").is_symlink()


def test_a_file_is_what_it_was_also_where_the_repository_names_bytes_by_sha256(tmp_path: Path) -> None:
    writer = Writer(Fs(), tmp_path / "kept", "t")
    writer.take(tmp_path, "x", OLD, {})
    writer.take(tmp_path, "x", NEW, here.scan([tmp_path], "sha256").skills["x"][0].files)
    assert now(tmp_path) == NEW.files


# --- in what order, and durable -----------------------------------------------------------------------------


def asked(fs: RecordingFs) -> list[str]:
    """Return what was asked, drafts by `*`."""
    calls = [re.sub(re.escape(DRAFT) + r"[0-9]+-[0-9a-f]{8}", "*", call) for call in fs.calls]
    fs.calls.clear()
    return calls


def test_each_file_is_durable_before_it_has_its_name_and_clients_find_the_skill_last(tmp_path: Path) -> None:
    fs = RecordingFs()
    writer = Writer(fs, tmp_path / "kept", "t")
    writer.take(tmp_path, "x", wanted(SKILL_md="1", z="1", in__b="1"), {})
    files = ("in/", "b"), ("", "z"), ("", "SKILL.md")
    assert asked(fs) == [
        call
        for above, name in files
        for call in (
            f"create */{above}*",
            f"fsync */{above}*",
            f"rename */{above}* -> */{above}{name}",
            f"fsync */{above}".rstrip("/"),
        )
    ] + ["rename * -> x", "fsync "]
    writer.take(tmp_path, "x", NEW, wanted(SKILL_md="1", z="1", in__b="1").files)
    renamed = [call.partition(" -> ")[2] for call in asked(fs) if call.startswith("rename")]
    assert renamed == ["x/a", "x/becomes/a.sh", "x/new/c", "x/SKILL.md"]


def test_what_is_taken_away_is_durable_where_it_is_kept_before_it_is_gone_here(tmp_path: Path) -> None:
    fs = RecordingFs()
    (tmp_path / "skills").mkdir()
    writer = Writer(fs, tmp_path / "removed", "t")
    writer.take(tmp_path / "skills", "x", OLD, {})
    fs.calls.clear()
    assert writer.remove(tmp_path / "skills", "x") == tmp_path / "removed" / "x-t"
    assert fs.calls[-3:] == ["rename x -> removed/x-t", "fsync removed", "fsync "]


def test_what_was_last_the_same_is_whole_though_a_process_of_this_number_was_killed_at_it(tmp_path: Path) -> None:
    fs, state = RecordingFs(), tmp_path / "s.json"
    (tmp_path / f".s.json.{os.getpid()}.new").write_text("{")
    known = {"x": base.Known(OLD.files, ("/skills",), is_held=True)}
    base.write(state, known, fs)
    draft = f".s.json.{os.getpid()}.new"
    assert fs.calls == [f"unlink {draft}", f"create {draft}", f"fsync {draft}", f"rename {draft} -> s.json", "fsync "]
    assert base.read(state) == known
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_what_is_not_shared_any_more_was_removed_by_nobody(tmp_path: Path) -> None:
    old = {**OLD.files, ".editorconfig": Blob("1" * 40)}
    base.write(tmp_path / "s.json", {"x": base.Known(old, ("/skills",))}, Fs())
    assert base.read(tmp_path / "s.json") == {"x": base.Known(OLD.files, ("/skills",))}
