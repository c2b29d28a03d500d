"""`mcp-bus serve`: one MCP connection over stdio until it ends, or many over HTTP, until told to end."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from mcp_bus.config import Config


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import what is big in less time: an agent waits for it at every start.

    The SDK declares some thousand models, most of which no connection ever meets: each is built when
    it is first used.  None of it is garbage, so that the collector need not look.
    """
    from pydantic import BaseModel, ConfigDict  # noqa: PLC0415  a tenth of a second, in which a signal may come

    usual = BaseModel.model_config
    BaseModel.model_config = ConfigDict(**usual, defer_build=True)
    gc.disable()
    try:
        yield
    finally:
        BaseModel.model_config = usual
        gc.freeze()
        gc.enable()


def _begin(config: Config) -> None:
    # Until the transport takes the signals, nothing is open yet: there is nothing to give back, and nothing to say.
    for number in (signal.SIGINT, signal.SIGTERM) if sys.platform != "win32" else ():
        signal.signal(number, lambda *_: os._exit(0))
    # Before the SDK does it: stderr, one line each.
    logging.basicConfig(level=config["log_level"].upper(), format="mcp-bus: %(levelname)s %(name)s: %(message)s")
    # At `debug` it would log whole answers, in which are texts of others, and tokens of leases.
    logging.getLogger("sse_starlette").setLevel(logging.INFO)


def main(config: Config) -> NoReturn:
    """Serve over stdin and stdout, then end the process: code 0 for any stop, with all leases given back."""
    _begin(config)
    with quick_imports():
        from mcp.server.lowlevel import NotificationOptions  # noqa: PLC0415  this import is what is made quick

        from mcp_bus.server.app import build  # noqa: PLC0415  so is this
        from mcp_bus.server.push import CAPABILITY  # noqa: PLC0415  as these
        from mcp_bus.server.stdio import leave, run_stdio  # noqa: PLC0415  and this
    experimental = CAPABILITY if config["claude_channel"] else {}
    code = run_stdio(
        lambda: build(config),
        options=lambda server: server.create_initialization_options(NotificationOptions(), experimental),
    )
    leave(code)


def main_http(config: Config, port: int, token: str, ready: Callable[[str], None]) -> NoReturn:
    """Serve over HTTP on loopback until told to end; then end the process with code 0, with all leases given back.

    Args:
        ready: told the address, when the first request can come.

    Raises:
        StoreUnavailable: the port is taken, or may not be.
    """
    _begin(config)
    with quick_imports():
        import anyio  # noqa: PLC0415  this import is what is made quick

        from mcp_bus.server import http  # noqa: PLC0415  so is this
        from mcp_bus.server.stdio import leave  # noqa: PLC0415  and this
    place = http.listen(port)
    anyio.run(lambda: http.serve(config, token, place, ready=lambda: ready(http.address(place))))
    leave(0)
