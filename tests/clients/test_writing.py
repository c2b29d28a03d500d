"""Writing settings: what others do meanwhile, what killed processes left, and what is kept of before."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clients import edits, files, parts, placing
from mcp_bus.clients.known import CLIENTS, NAME, Home, Server
from mcp_bus.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path

CURSOR = CLIENTS["cursor"]
THEIRS = json.dumps({"mcpServers": {NAME: {"command": "theirs"}}})


@pytest.fixture
def path(home: Home) -> Path:
    made = CURSOR.user(home)
    made.parent.mkdir()
    return made


def adding(path: Path, home: Home, server: Server, **options: Any) -> edits.Change:
    return edits.adding(path, [parts.Entry(CURSOR, CURSOR.entry(server))], home, **options)


def removing(path: Path, home: Home) -> edits.Change:
    return edits.removing(path, [parts.Entry(CURSOR, {})], home)


def kept(home: Home) -> dict[str, bytes]:
    place = edits.kept_in(home)
    return {item.name: item.read_bytes() for item in place.iterdir() if item.name != "lock"} if place.exists() else {}


@pytest.mark.parametrize("before", [None, "{}"])
def test_what_is_written_while_a_draft_is_made_is_not_lost(
    before: str | None, path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is not None:
        path.write_text(before)
    change, create = adding(path, home, server), placing.fs.create

    def slow(name: str, at: int, data: bytes, *, sync: bool) -> None:
        create(name, at, data, sync=sync)
        if name.startswith(f".{path.name}."):
            path.write_text(THEIRS)

    monkeypatch.setattr(placing.fs, "create", slow)
    with pytest.raises(Conflict, match="meanwhile"):
        edits.write(change, home)
    assert path.read_text() == THEIRS
    assert (kept(home), list(path.parent.iterdir())) == ({}, [path]), "and nothing is left of the try"


def test_a_file_that_appears_at_the_last_moment_is_not_replaced(
    path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, link = adding(path, home, server), placing.fs.link

    def late(src: str, src_at: int, dst: str, dst_at: int) -> None:
        path.write_text(THEIRS)
        link(src, src_at, dst, dst_at)

    monkeypatch.setattr(placing.fs, "link", late)
    with pytest.raises(Conflict, match="made by somebody else"):
        edits.write(change, home)
    assert path.read_text() == THEIRS


def test_where_there_are_no_links_a_new_file_is_moved(
    path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(placing.fs, "link", none)
    edits.write(adding(path, home, server), home)
    assert list(path.parent.iterdir()) == [path]


def test_a_change_that_fails_leaves_what_was_kept_and_no_folder_and_no_draft(
    path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("{}\n")
    edits.write(adding(path, home, server), home)
    before, was = path.read_bytes(), kept(home)
    change, rename = adding(path, home, server._replace(command="/new/mcp-bus")), placing.fs.rename
    new = adding(path.parent / "a" / "b.json", home, server)

    def full(src: str, src_at: int, dst: str, dst_at: int) -> None:
        if dst == path.name:
            raise OSError(28, "No space left on device")
        rename(src, src_at, dst, dst_at)

    monkeypatch.setattr(placing.fs, "rename", full)
    monkeypatch.setattr(placing.fs, "link", lambda *_: (_ for _ in ()).throw(FileExistsError))
    with pytest.raises(edits.Unwritable, match="No space left"):
        edits.write(change, home)
    with pytest.raises(Conflict):
        edits.write(new, home)
    assert (path.read_bytes(), kept(home), list(path.parent.iterdir())) == (before, was, [path])


def test_a_file_and_its_name_are_on_the_disk_when_it_is_written(
    path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, rename, fsync = list[str](), placing.fs.rename, placing.fs.fsync
    path.write_text("{}")

    def renamed(src: str, src_at: int, dst: str, dst_at: int) -> None:
        rename(src, src_at, dst, dst_at)
        done.append("rename")

    def synced(fd: int) -> None:
        fsync(fd)
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")

    monkeypatch.setattr(placing.fs, "rename", renamed)
    monkeypatch.setattr(placing.fs, "fsync", synced)
    edits.write(adding(path, home, server), home)
    assert done == ["file", "rename", "folder"] * 3, "the copy, the record, the file"


@pytest.mark.parametrize("mark", ["{me}", "{me}-0123abcd", "2147483646", "2147483646-0123abcd"])
def test_drafts_of_killed_installs_go_and_those_of_running_ones_stay(
    mark: str, path: Path, home: Home, server: Server
) -> None:
    old = path.with_name(f".{path.name}.mcp-bus-{mark.format(me=os.getpid())}")
    others = [path.with_name(name) for name in (f".{path.name}.mcp-bus-{os.getppid()}-0123abcd", ".x.mcp-bus-1", ".y")]
    for draft in (old, *others):
        draft.touch()
    edits.write(adding(path, home, server), home)
    assert sorted(path.parent.iterdir()) == sorted([path, *others])


def test_the_owner_is_kept_where_we_may(
    path: Path, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("{}")
    about, asked = os.stat, list[tuple[int, int]]()

    def theirs(name: str, **options: Any) -> os.stat_result:
        found = about(name, **options)
        return os.stat_result((*found[:4], 4242, 4343, *found[6:])) if name == path.name else found

    def chown(_: str, user: int, group: int, **options: Any) -> None:
        assert options["follow_symlinks"] is False
        asked.append((user, group))
        raise PermissionError

    monkeypatch.setattr(os, "stat", theirs)
    monkeypatch.setattr(os, "chown", chown)
    edits.write(adding(path, home, server), home)
    assert asked == [(4242, 4343)]


# --- what is kept -----------------------------------------------------------------------------------------


def test_what_was_not_brought_back_stays_kept_and_is_named(path: Path, home: Home, server: Server) -> None:
    path.write_text(THEIRS)
    edits.write(adding(path, home, server, is_forced=True), home)
    path.write_text(path.read_text() + "\n")
    left = edits.write(removing(path, home), home)
    assert left is not None
    assert left.read_text() == THEIRS
    assert "theirs" not in path.read_text()
    edits.write(adding(path, home, server), home)
    edits.write(removing(path, home), home)
    assert left.read_text() == THEIRS, "nor does a later install write over it"


def test_what_a_second_install_does_not_know_stays_kept(path: Path, home: Home, server: Server) -> None:
    path.write_text(THEIRS)
    edits.write(adding(path, home, server, is_forced=True), home)
    path.write_text(path.read_text() + "\n")
    edits.write(adding(path, home, server._replace(command="/new/mcp-bus")), home)
    edits.write(removing(path, home), home)
    assert THEIRS.encode() in kept(home).values()


def test_what_was_brought_back_is_not_kept(path: Path, home: Home, server: Server) -> None:
    path.write_text(THEIRS)
    edits.write(adding(path, home, server, is_forced=True), home)
    assert edits.write(removing(path, home), home) is None
    assert (path.read_text(), kept(home)) == (THEIRS, {})


def test_what_we_did_not_make_of_it_is_not_what_comes_back_after_a_second_install(
    path: Path, home: Home, server: Server
) -> None:
    path.write_text("{}\n")
    edits.write(adding(path, home, server), home)
    path.write_text('{"mine": 1}\n')
    edits.write(adding(path, home, server), home)
    edits.write(removing(path, home), home)
    assert path.read_text() == '{"mine": 1}\n'


def test_a_record_of_another_file_is_none_of_this_one(path: Path, home: Home, server: Server) -> None:
    path.write_text("{}\n")
    edits.write(adding(path, home, server), home)
    (record,) = edits.kept_in(home).glob("*.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"path": "/another"}))
    assert edits.write(removing(path, home), home) is not None
    assert json.loads(path.read_text()) == {"mcpServers": {}}


@pytest.mark.parametrize(("size", "is_read"), [(files.MAX_SETTINGS, True), (files.MAX_SETTINGS + 1, False)])
def test_settings_are_read_up_to_a_size(path: Path, home: Home, server: Server, size: int, *, is_read: bool) -> None:
    path.write_text("{}".ljust(size))
    if is_read:
        assert adding(path, home, server).what == parts.ADDED
        return
    with pytest.raises(edits.Unwritable, match="larger than 8388608 bytes"):
        adding(path, home, server)
