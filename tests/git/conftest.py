"""A remote with a bus on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.git.hosts import Hosts, bare, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def remote(disk: Path) -> str:
    """A bare repository with a new bus."""
    made = bare(disk / "remote.git")
    store = store_on(disk / "maker", made)
    store.create()
    store.declare("work")
    store.close()
    return made


@pytest.fixture
def hosts(disk: Path, remote: str) -> Iterator[Hosts]:
    """Hosts that meet there."""
    made = Hosts(disk, remote)
    yield made
    made.close()
