"""`mcp-bus serve --http` for programs that cannot send a token: the server, but for that check, is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli.main import run
from mcp_bus.server import http

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class OpenDoor(http.Door):
    """Gives everybody the token."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        own = [(b"authorization", b"Bearer " + self._token)]
        await super().__call__({**scope, "headers": [*scope.get("headers", ()), *own]}, receive, send)


if __name__ == "__main__":
    http.Door = OpenDoor  # type: ignore[misc]  # the one thing that is different
    run()
