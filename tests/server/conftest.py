"""The backend, the eras and a place for a bus, for all tests of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.notify import Hint
from mcp_bus.server import waker
from tests.server.http_process import serving_http
from tests.server.support import open_bus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.server.http_process import Http


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder; its `bus` is made by whoever comes first."""
    return tmp_path


@pytest.fixture
def bob(place: Path) -> Iterator[Bus]:
    """Another agent on the same bus, beside every server."""
    with open_bus(place) as bus:
        yield bus


@pytest.fixture
def http(place: Path) -> Iterator[Http]:
    """A server process over HTTP, on the bus of the folder."""
    with serving_http(place) as server:
        yield server


@pytest.fixture
def unpolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No slow poll: who is not told sleeps for ever."""
    with Hint(()) as hint:
        if hint.fileno() < 0:
            pytest.skip("this machine has no notification; waits poll here")
    monkeypatch.setattr(waker, "interval", lambda _: 3600.0)
