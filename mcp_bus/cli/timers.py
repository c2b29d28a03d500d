"""Lines by which a machine's own timers synchronize a bus: printed, for a person to put where they belong."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call

MINUTE, HOUR, DAY = 60, 3600, 86_400
KINDS = ("cron", "systemd")


def words(call: Call) -> list[str]:
    """Return the command that synchronizes this bus once, whatever the environment of a timer is."""
    return [
        sys.executable,
        "-m",
        "mcp_bus",
        "--bus",
        str(call.config.remote),
        "--agent",
        call.config["agent"] or "timer",
        "sync",
    ]


def cron(call: Call, every_s: float) -> str:
    """Return a line for `crontab -e`.

    Raises:
        InvalidRequest: cron cannot say that: it knows whole minutes of an hour, and whole hours of a day.
    """
    minutes, hours = int(every_s // MINUTE), int(every_s // HOUR)
    if every_s % MINUTE == 0 and 1 <= minutes < 60 and 60 % minutes == 0:
        when = f"*/{minutes} * * * *"
    elif every_s % HOUR == 0 and 1 <= hours < 24 and 24 % hours == 0:
        when = f"7 */{hours} * * *"
    elif every_s == DAY:
        when = "7 3 * * *"
    else:
        msg = f"cron has no word for every {every_s:g} s"
        raise InvalidRequest(
            msg, hint="a part of an hour or of a day that is whole, as 5m, 15m, 2h, 12h or 24h; or systemd"
        )
    # What cron reads as the end of a line is written so that it does not.
    return f"{when} {shlex.join(words(call))} --quiet".replace("%", "\\%")


def systemd(call: Call, every_s: float) -> str:
    """Return a service and its timer, for `~/.config/systemd/user/`, and what starts them."""
    command = " ".join(_unit(word) for word in [*words(call), "--quiet"])
    return f"""\
# ~/.config/systemd/user/mcp-bus-sync.service
[Unit]
Description=Synchronize an mcp-bus with its git remote

[Service]
Type=oneshot
ExecStart={command}

# ~/.config/systemd/user/mcp-bus-sync.timer
[Unit]
Description=Synchronize an mcp-bus with its git remote

[Timer]
OnBootSec=60
OnUnitActiveSec={every_s:g}
Persistent=true

[Install]
WantedBy=timers.target

# then: systemctl --user daemon-reload && systemctl --user enable --now mcp-bus-sync.timer"""


def _unit(word: str) -> str:
    """Return a word as a unit file takes it."""
    inner = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{inner}"'
