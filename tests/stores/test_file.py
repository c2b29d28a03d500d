"""The store on files keeps the contract on a disk, and what only files can promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.stores import layout
from mcp_bus.stores.contract import StoreContract
from mcp_bus.stores.file import FileStore
from tests.fakes import VirtualSource

if TYPE_CHECKING:
    from pathlib import Path


class TestFileStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _medium(self, root: Path, source: VirtualSource) -> None:
        self.opener = lambda: FileStore(root, source=source)


class TestFileStoreWithoutFsync(StoreContract):
    @pytest.fixture(autouse=True)
    def _medium(self, disk: Path) -> None:
        layout.create(disk / "fast")
        self.opener = lambda: FileStore(disk / "fast", source=VirtualSource(), durable=False)
