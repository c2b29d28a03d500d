"""A bus with a task in every state, to be damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fsck.box import Box

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def box(disk: Path) -> Box:
    """A bus with a task in every state, which nobody uses."""
    return Box.made(disk / "bus")
