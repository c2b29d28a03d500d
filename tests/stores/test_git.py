"""The store at a git remote keeps the contract, for two clones of two hosts as for two processes of one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from mcp_bus.stores import layout
from mcp_bus.stores.contract import StoreContract
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.git.repo import Repo
from mcp_bus.stores.git.shared import Asking
from mcp_bus.stores.git.store import GitStore
from tests.fakes import VirtualSource

if TYPE_CHECKING:
    from pathlib import Path


def bare(path: Path) -> str:
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    return str(path)


def opened(place: Path, remote: str, source: VirtualSource) -> GitStore:
    if not (place / "local" / "bus.json").exists():
        layout.create(place / "local", source=source)
    local = FileStore(place / "local", source=source, durable=False)
    return GitStore(
        Repo(place / "repo.git", remote, "bus", environment=os.environ), local, source=source, asking=Asking(0.0)
    )


class TestTwoHosts(StoreContract):
    @pytest.fixture(autouse=True)
    def _medium(self, disk: Path) -> None:
        source, remote, hosts = VirtualSource(), bare(disk / "remote.git"), iter(range(100))
        opened(disk / "first", remote, source).create()
        self.opener = lambda: opened(disk / f"host{next(hosts) % 2}", remote, source)
