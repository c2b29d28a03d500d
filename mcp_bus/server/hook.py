"""The tool that no model sees: a client calls it from its hooks, to let the model be told what waits.

Claude Code calls a tool from a hook of type `mcp_tool`, also one that is not listed, and shows its model the answer
if that is one JSON object in the form of its hooks; see docs/waking.md.  So it costs the model no tokens, and the
client no process.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from mcp_bus.errors import BusError
from mcp_bus.hooks import forms
from mcp_bus.hooks.telling import speak
from mcp_bus.server.args import Args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.server.session import Session

NAME = "hook"
# The only client that has such hooks.
CLIENT = "claude-code"
NOTHING = "{}"
logger = logging.getLogger(__name__)


def _filled(value: object) -> object:
    """Return what the client put in for `${name}`; where it had nothing to put in, that is nothing."""
    return "" if isinstance(value, str) and value.startswith("${") else value


Filled = Annotated[str, BeforeValidator(_filled)]
Flag = Annotated[bool, BeforeValidator(lambda value: _filled(value) or False)]


class HookArgs(Args):
    """What a hook says; by the names, and with the values, that the client has for them."""

    hook_event_name: str
    session_id: Filled = ""
    agent_id: Filled = ""
    stop_hook_active: Flag = False


def answer(session: Session, arguments: Mapping[str, Any], client: str) -> str:
    """Return what the model should be told, in the form of the client's hooks.

    Raises:
        ValidationError: an argument is missing, unknown or of another kind.
        InvalidRequest: there is no such event.
    """
    given = HookArgs.model_validate(arguments)
    event = forms.event(CLIENT, given.hook_event_name)
    try:
        # A hook makes no bus.
        if not forms.is_meant(event, given.model_dump()) or not (session.config.path / "bus.json").exists():
            return NOTHING
        bus = session.bus(client)
        text = speak(
            bus, event, given.session_id, session=bus.identity.session, remembers=not session.config["read_only"]
        )
    except (BusError, OSError) as error:
        logger.warning("a hook could not be answered: %s", error)
        return NOTHING  # An agent must not be kept from its work by it.
    return forms.reply(event.form, given.hook_event_name, text) if text else NOTHING
