"""A tree in memory: what is read of it, and what is kept."""

from __future__ import annotations

import pytest

from mcp_bus.errors import CorruptRecord
from mcp_bus.stores.git.treefs import TreeFs

OID, OTHER = "1" * 40, "2" * 40


class Objects:
    """What a clone holds, and what was asked of it."""

    def __init__(self) -> None:
        self.asked = list[tuple[str, int]]()

    def read(self, oid: str, limit: int = 0) -> bytes:
        self.asked.append((oid, limit))
        if limit and limit < 100:
            raise CorruptRecord("an object has 100 bytes, the limit is " + str(limit))
        return b"x" * 100


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def fs(objects: Objects) -> TreeFs:
    made = TreeFs(objects.read, lambda: 0)
    made.load([("100644", OID, "a"), ("100644", OID, "b"), ("160000", OTHER, "module")])
    return made


def test_a_file_that_is_too_large_is_refused_before_it_is_read(fs: TreeFs, objects: Objects) -> None:
    with pytest.raises(CorruptRecord, match="'a': an object has 100 bytes, the limit is 99"):
        fs.read("a", fs.open_dir(".", None), 99)
    assert objects.asked == [(OID, 99)]
    assert fs.read("a", fs.open_dir(".", None), 100).data == b"x" * 100


def test_a_file_is_moved_without_being_read(fs: TreeFs, objects: Objects) -> None:
    root = fs.open_dir(".", None)
    fs.rename("a", root, "c", root)
    assert [(change.path, change.data, change.oid) for change in fs.changes()] == [("a", None, ""), ("c", None, OID)]
    assert objects.asked == []
    fs.rename("module", root, "aside", root)
    assert [change.data for change in fs.changes() if change.path == "aside"] == [b""], "it is no object of the clone"


def test_what_has_no_name_any_more_is_not_kept(fs: TreeFs, objects: Objects) -> None:
    root = fs.open_dir(".", None)
    data = fs.read("a", root, 100).data
    fs.unlink("a", root)
    fs.settle("sha1")
    fs.read("b", root, 100)
    assert len(objects.asked) == 1, "its other name leads to it"
    fs.unlink("b", root)
    fs.undo()
    assert fs.read("b", root, 100).data == data
    assert len(objects.asked) == 1
    fs.load([("000000", "0" * 40, "b")])
    fs.load([("100644", OID, "back")])
    assert fs.read("back", root, 100).data == data
    assert len(objects.asked) == 2, "it was let go of, and is read again"
    fs.unlink("back", root)
    fs.settle("sha1")
    fs.load([("100644", OID, "back")])
    fs.read("back", root, 100)
    assert len(objects.asked) == 3
