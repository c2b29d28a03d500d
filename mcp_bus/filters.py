"""What a subscriber of a topic may ask for: messages with certain fields.  Pure."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus import cursors
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.model import Body


def fields(body: Body) -> dict[str, Any]:
    """Return what a filter can ask for: the fields of a JSON object, and those of the message."""
    made: dict[str, Any] = {}
    if body.content.startswith("{"):
        with suppress(ValueError, RecursionError):
            found = json.loads(body.content)
            made |= found if isinstance(found, dict) else {}
    return made | {"type": body.type, "from": body.sender.agent, "title": body.title, "thread": body.thread}


def checked(match: Mapping[str, str]) -> dict[str, str]:
    """Return a filter.

    Raises:
        InvalidRequest: it is none.
    """
    if len(match) > cursors.MAX_MATCH or not all(_is_field(item) for pair in match.items() for item in pair):
        msg = f"this is not a filter of at most {cursors.MAX_MATCH} fields with values of at most 200 characters"
        raise InvalidRequest(msg, hint="for example signal=build_complete")
    return dict(match)


def _is_field(item: object) -> bool:
    return isinstance(item, str) and 0 < len(item) <= 200
