"""What a `channel.json` does not say that this user remembers of the channel: `doctor` tells, and who sets rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import access, policies
from mcp_bus.errors import CorruptRecord
from mcp_bus.model import Policy

if TYPE_CHECKING:
    from pathlib import Path


def differences(root: Path, channel: str, policy: Policy) -> dict[str, str]:
    """Return what the file of a channel does not say that is remembered here and holds: the setting, and in words."""
    path, made = root / "channels" / channel / "channel.json", dict[str, str]()
    try:
        said = policies.load(path.read_bytes(), channel) if path.is_file() else Policy()
    except (OSError, CorruptRecord):
        return made
    if policy.signed and not said.signed:
        made["signed"] = (
            f"{channel!r} is remembered here as signed, which holds, and its channel.json says that it is not"
        )
    if policy.encrypt_to and not said.encrypt_to:
        to = access.whom(policy.encrypt_to)
        made["encrypt_to"] = (
            f"{channel!r} is remembered here as encrypted to {to}, which holds, and its channel.json names nobody"
        )
    return made
