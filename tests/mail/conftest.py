"""Two agents whose sessions are there, and what makes one so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus import mail

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus


def here(bus: Bus) -> Bus:
    bus.identity = bus.identity._replace(pid=os.getpid())
    bus.mail = mail.Mail(bus)
    bus.roster.arrive()
    return bus


@pytest.fixture
def ann(open_bus_as: Callable[..., Bus]) -> Bus:
    return here(open_bus_as("ann", "1"))


@pytest.fixture
def bob(open_bus_as: Callable[..., Bus]) -> Bus:
    return here(open_bus_as("bob", "2"))
