"""File systems to break, for who may mount them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.media.mounts import missing, mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.media.mounts import Medium


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Medium]]:
    """Makes and mounts a file system, as `mounted` does: `mount("ext4", "-N", "200", size=16 * MIB)`."""
    with ExitStack() as stack:

        def opener(kind: str, *options: str, size: int = 0, how: str = "loop") -> Medium:
            lacks = missing(kind)
            if lacks:
                pytest.skip(f"{lacks}: needs root, loop devices, mkfs.{kind}, and a kernel that knows {kind}")
            return stack.enter_context(mounted(kind, tmp_path, *options, size=size, how=how))

        yield opener
