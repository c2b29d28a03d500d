"""A remote with a bus on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.git.hosts import Hosts, bare, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def _once(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bare repository with a new bus, to be copied: to make one takes ten times as long."""
    place = tmp_path_factory.mktemp("once")
    made = bare(place / "remote.git")
    store = store_on(place / "maker", made)
    store.create()
    store.declare("work")
    store.close()
    return made


@pytest.fixture
def remote(disk: Path, _once: str) -> str:
    """A bare repository with a new bus."""
    return str(shutil.copytree(_once, disk / "remote.git"))


@pytest.fixture
def hosts(disk: Path, remote: str) -> Iterator[Hosts]:
    """Hosts that meet there."""
    made = Hosts(disk, remote)
    yield made
    made.close()
