"""A home whose clients' settings are changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.clients.known import Home, Server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(disk: Path) -> Home:
    """A home with a blank in its name, on a disk."""
    place = disk / "a home"
    place.mkdir()
    return Home(place, {}, "linux")


@pytest.fixture
def server() -> Server:
    return Server("/opt/my tools/mcp-bus", ("serve",), {"MCP_BUS_AGENT": "tester"})
