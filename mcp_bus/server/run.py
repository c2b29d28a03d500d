"""`mcp-bus serve`: one MCP connection over stdio, until it ends or is told to."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from mcp_bus.config import Config


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import what is big in less time: an agent waits for it at every start.

    The SDK declares some thousand models, most of which no connection ever meets: each is built when
    it is first used.  None of it is garbage, so that the collector need not look.
    """
    usual = BaseModel.model_config
    BaseModel.model_config = ConfigDict(**usual, defer_build=True)
    gc.disable()
    try:
        yield
    finally:
        BaseModel.model_config = usual
        gc.freeze()
        gc.enable()


def main(config: Config) -> NoReturn:
    """Serve over stdin and stdout, then end the process: code 0 for any stop, with all leases given back."""
    # Before the SDK does it: stderr, one line each.
    logging.basicConfig(level=config["log_level"].upper(), format="mcp-bus: %(levelname)s %(name)s: %(message)s")
    with quick_imports():
        from mcp.server.lowlevel import NotificationOptions  # noqa: PLC0415  this import is what is made quick

        from mcp_bus.server.app import build  # noqa: PLC0415  so is this
        from mcp_bus.server.stdio import leave, run_stdio  # noqa: PLC0415  and this
    code = run_stdio(
        lambda: build(config), options=lambda server: server.create_initialization_options(NotificationOptions())
    )
    leave(code)
