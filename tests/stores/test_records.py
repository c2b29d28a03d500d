"""Small documents are replaced by compare-and-swap, in memory and on a disk, and survive what lies beside them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import Conflict, InvalidRequest
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from tests.crash.crowd import together

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.stores.base import Store
    from mcp_bus.stores.beside import Records
    from tests.fakes import VirtualSource

KIND = "cursors/news"


@pytest.fixture
def records(open_store: Callable[[], Store]) -> Records:
    return open_store().records


def test_a_document_is_new_then_replaced_then_gone(records: Records) -> None:
    assert records.read(KIND, "ann") is None
    assert records.write(KIND, "ann", {"n": 1}, after=0, durable=True) == 1
    assert records.write(KIND, "ann", {"n": 2}, after=1, durable=True) == 2
    found = records.read(KIND, "ann")
    assert found is not None
    assert (found.revision, found.data) == (2, {"n": 2})
    assert records.names(KIND) == ["ann"]
    records.remove(KIND, "ann")
    assert records.read(KIND, "ann") is None
    assert records.names(KIND) == []


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_write_from_another_revision_is_refused_and_changes_nothing(records: Records, after: int) -> None:
    records.write(KIND, "ann", {"n": 1}, after=0, durable=False)
    records.write(KIND, "ann", {"n": 2}, after=1, durable=False)
    with pytest.raises(Conflict):
        records.write(KIND, "ann", {"n": 9}, after=after, durable=False)
    found = records.read(KIND, "ann")
    assert found is not None
    assert found.data == {"n": 2}


def test_two_stores_see_one_document(open_store: Callable[[], Store]) -> None:
    one, two = open_store().records, open_store().records
    one.write(KIND, "ann", {"n": 1}, after=0, durable=False)
    with pytest.raises(Conflict):
        two.write(KIND, "ann", {"n": 9}, after=0, durable=False)
    assert two.write(KIND, "ann", {"n": 2}, after=1, durable=False) == 2
    found = one.read(KIND, "ann")
    assert found is not None
    assert found.data == {"n": 2}


def test_a_touch_tells_when_it_last_held(records: Records, source: VirtualSource) -> None:
    assert not records.touch(KIND, "ann")
    records.write(KIND, "ann", {}, after=0, durable=False)
    source.advance(60)
    assert records.touch(KIND, "ann")
    found = records.read(KIND, "ann")
    assert found is not None
    assert found.touched == source.now()


def test_names_with_dots_and_marks_are_told_apart(records: Records) -> None:
    for name in ("a", "a.1", "a.b", "builder~0a1b2c3d"):
        records.write(KIND, name, {"name": name}, after=0, durable=False)
    assert records.names(KIND) == ["a", "a.1", "a.b", "builder~0a1b2c3d"]
    for name in records.names(KIND):
        found = records.read(KIND, name)
        assert found is not None
        assert found.data == {"name": name}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "a b", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(file_records: Records, root: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        file_records.write(KIND, name, {}, after=0, durable=False)
    assert not (root / "cursors").exists()


@pytest.fixture
def file_records(root: Path, source: VirtualSource) -> Records:
    return FileStore(root, source=source).records


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff"])
def test_a_revision_that_is_no_document_is_put_aside_and_the_one_before_it_counts(
    file_records: Records, root: Path, data: bytes
) -> None:
    file_records.write(KIND, "ann", {"n": 1}, after=0, durable=False)
    (root / KIND / "ann.2.json").write_bytes(data)
    found = file_records.read(KIND, "ann")
    assert found is not None
    assert (found.revision, found.data) == (1, {"n": 1})
    assert [path.read_bytes() for path in (root / "quarantine").iterdir() if "reason" not in path.name] == [data]


def test_a_fifo_or_symlink_in_a_documents_place_does_not_block_or_lead_out(file_records: Records, root: Path) -> None:
    (root / KIND).mkdir(parents=True)
    secret = root.parent / "secret.json"
    secret.write_text(json.dumps({"n": 7}))
    os.mkfifo(root / KIND / "ann.1.json")
    (root / KIND / "bob.1.json").symlink_to(secret)
    (root / KIND / "cat.1.json").mkdir()
    assert [file_records.read(KIND, name) for name in ("ann", "bob", "cat")] == [None] * 3
    assert secret.read_text() == json.dumps({"n": 7})


def test_a_writer_whose_number_was_tidied_away_meanwhile_is_refused(root: Path, source: VirtualSource) -> None:
    """Three write, the second and third while the first is about to: its number is free again, and stale."""
    other = FileStore(root, source=source).records

    class Late(Fs):
        def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
            if dst == "ann.2.json":
                for revision in (1, 2):
                    other.write(KIND, "ann", {"n": revision + 1}, after=revision, durable=False)
            super().link(src, src_at, dst, dst_at)

    other.write(KIND, "ann", {"n": 1}, after=0, durable=False)
    late = FileStore(root, fs=Late(), source=source).records
    with pytest.raises(Conflict):
        late.write(KIND, "ann", {"n": 9}, after=1, durable=False)
    found = other.read(KIND, "ann")
    assert found is not None
    assert (found.revision, found.data) == (3, {"n": 3})
    assert [path.name for path in (root / KIND).iterdir()] == ["ann.3.json"]


def test_eight_processes_that_count_in_one_document_lose_no_count(root: Path) -> None:
    def count() -> None:
        records, done = FileStore(root, durable=False).records, 0
        while done < 50:
            found = records.read(KIND, "n")
            taken = list(found.data["who"]) if found else []
            try:
                me = f"{os.getpid()}/{done}"
                data = {"who": taken if me in taken else [*taken, me]}
                records.write(KIND, "n", data, after=found.revision if found else 0, durable=False)
            except Conflict:
                continue
            done += 1

    together([count] * 8)
    found = FileStore(root).records.read(KIND, "n")
    assert found is not None
    assert len(set(found.data["who"])) == len(found.data["who"]) == 400
    assert len(list((root / KIND).iterdir())) == 1
