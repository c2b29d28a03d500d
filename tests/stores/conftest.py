"""What tests of stores share."""

from __future__ import annotations

import time

import pytest

from tests.fakes import VirtualSource


@pytest.fixture
def clock() -> VirtualSource:
    """A clock that starts at the file system's time, as settling is told from the age of files."""
    return VirtualSource(time.time_ns() // 1_000_000)
