"""What all tests share: buses on a disk and in memory under a virtual clock, and how hard to try."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.memory import Medium, MemoryStore
from mcp_bus.stores.probe import VOLATILE, kind_of
from tests.fakes import ERAS, VirtualSource, bus_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.stores.base import Store

pytest.register_assert_rewrite("mcp_bus.stores.contract")

# `pytest --hypothesis-profile=soak` tries for hours what CI tries for a minute.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=_SLOW)
settings.register_profile("soak", deadline=None, max_examples=20_000, print_blob=True, suppress_health_check=_SLOW)
settings.load_profile("ci")


def is_disk(path: Path) -> bool:
    """Tell whether a path is on a disk; memory hides what concurrent listings and fsync do."""
    return kind_of(path) not in VOLATILE


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home in which nothing is, so that no test reads the keys and settings of who runs it, or adds to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith(("XDG_", "MCP_BUS_"))]:
            patch.delenv(name)
        yield


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A fresh directory on a disk."""
    if not is_disk(tmp_path):
        pytest.skip(f"{tempfile.gettempdir()} is memory; set TMPDIR to a directory on a disk")
    return tmp_path


@pytest.fixture
def source() -> VirtualSource:
    """A virtual clock."""
    return VirtualSource()


@pytest.fixture
def root(disk: Path, source: VirtualSource) -> Path:
    """A new bus directory."""
    layout.create(disk / "bus", source=source)
    return disk / "bus"


@pytest.fixture(params=["memory", "file"])
def open_store(request: pytest.FixtureRequest, source: VirtualSource) -> Iterator[Callable[[], Store]]:
    """Opens one medium, as often as one likes."""
    opened: list[Store] = []
    if request.param == "memory":
        medium = Medium()

        def opener() -> Store:
            return MemoryStore(medium, source=source)
    else:
        root: Path = request.getfixturevalue("root")

        def opener() -> Store:
            opened.append(FileStore(root, source=source))
            return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def open_bus_as(open_store: Callable[[], Store], source: VirtualSource) -> Callable[..., Bus]:
    """Opens the medium as a named agent: `open_bus_as("bob", "00000002")`."""

    def opener(agent: str = "ann", session: str = "00000001") -> Bus:
        return bus_on(open_store(), source, agent, session)

    return opener


@pytest.fixture
def bus(open_bus_as: Callable[..., Bus]) -> Bus:
    """A bus as ann sees it, in memory and on a disk."""
    return open_bus_as()


@pytest.fixture
def other(open_bus_as: Callable[..., Bus]) -> Bus:
    """The same bus as bob sees it."""
    return open_bus_as("bob", "00000002")


@pytest.fixture
def file_bus(root: Path, source: VirtualSource) -> Iterator[Bus]:
    """A bus on a disk."""
    store = FileStore(root, source=source)
    yield bus_on(store, source)
    store.close()


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio, which the server runs on."""
    return "asyncio"


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    """The protocol: of 2026, and the one with a handshake before it."""
    return str(request.param)
