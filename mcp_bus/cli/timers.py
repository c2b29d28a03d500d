"""Lines by which a machine's own timers synchronize something: printed, for a person to put where they belong."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from mcp_bus.cli.codes import OK
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call

MINUTE, HOUR = 60, 3600
KINDS = ("cron", "systemd")


def words(call: Call) -> list[str]:
    """Return the command that synchronizes this bus once, whatever the environment of a timer is."""
    return [*start(call), "--bus", str(call.config.remote), "sync"]


def start(call: Call) -> list[str]:
    """Return how a command of a timer starts that speaks in the name of this one."""
    return [sys.executable, "-m", "mcp_bus", "--agent", call.config["agent"] or "timer"]


def tell(call: Call, command: list[str], verb: str) -> int:
    """Print what has a timer run a command every so often: `--timer` and `--every` of the call.

    Args:
        verb: what the command is, for its name and as an example.

    Raises:
        InvalidRequest: it was not said how often, that is too often, or cron cannot say so.
    """
    kind, every_s = call.args.timer, float(call.args.every)
    if every_s <= 0:
        msg = "--timer needs --every, to say how often"
        raise InvalidRequest(msg, hint=f"mcp-bus {verb} --timer {kind} --every 12h")
    if every_s < MINUTE:
        msg = f"a timer runs once a minute at most, and not every {every_s:g} s"
        raise InvalidRequest(msg, hint=f"mcp-bus {verb} --timer {kind} --every 15m")
    text = cron(command, every_s) if kind == "cron" else systemd(command, every_s, verb)
    from mcp_bus.stores.git.place import shown

    if any(shown(word) != word for word in command):
        call.out.warn("mcp-bus: the password of the address is in these lines: whoever reads their file has it")
        call.out.warn("  next: an address without it, and a credential helper of git's that knows it")
    if call.out.as_json:
        call.out.json({"timer": kind, "every_s": every_s, "text": text})
    else:
        call.out.line(text)
        call.out.note("put it where it belongs: `crontab -e`" if kind == "cron" else "two files, named above each")
    return OK


def cron(command: list[str], every_s: float) -> str:
    """Return a line for `crontab -e`.

    Raises:
        InvalidRequest: cron cannot say that: it knows whole minutes of an hour, and whole hours of a day.
    """
    minutes, hours = _even(every_s)
    if minutes:
        when = f"*/{minutes} * * * *"
    elif hours:
        when = f"7 */{hours} * * *" if hours < 24 else "7 3 * * *"
    else:
        msg = f"cron has no word for every {every_s:g} s"
        raise InvalidRequest(
            msg, hint="a part of an hour or of a day that is whole, as 5m, 15m, 2h, 12h or 24h; or systemd"
        )
    # What cron reads as the end of a line is written so that it does not.
    return f"{when} {shlex.join(command)} --quiet".replace("%", "\\%")


def _even(every_s: float) -> tuple[int, int]:
    """Return a span as minutes that are an even part of an hour, or hours of a day; (0, 0) for any other."""
    minutes, hours = int(every_s // MINUTE), int(every_s // HOUR)
    if every_s % MINUTE == 0 and 1 <= minutes < 60 and 60 % minutes == 0:
        return minutes, 0
    return 0, hours if every_s % HOUR == 0 and 1 <= hours <= 24 and 24 % hours == 0 else 0


def _when(every_s: float) -> str:
    """Return when a timer of systemd runs.

    Only times of the calendar are known to be missed by a machine that was off, so any that can be said are.
    """
    minutes, hours = _even(every_s)
    if not minutes and not hours:
        return f"OnBootSec=60\nOnUnitActiveSec={every_s:g}"
    time = f"*:0/{minutes}" if minutes else f"0/{hours}:07" if hours < 24 else "03:07"
    return f"OnCalendar={time}\nPersistent=true"


def systemd(command: list[str], every_s: float, verb: str) -> str:
    """Return a service and its timer, for `~/.config/systemd/user/`, and what starts them."""
    line = " ".join(_unit(word) for word in [*command, "--quiet"])
    first = verb.partition(" ")[0]
    name, what = f"mcp-bus-{first}", "an mcp-bus" if first == "sync" else first
    return f"""\
# ~/.config/systemd/user/{name}.service
[Unit]
Description=Synchronize {what} with its git remote

[Service]
Type=oneshot
ExecStart={line}

# ~/.config/systemd/user/{name}.timer
[Unit]
Description=Synchronize {what} with its git remote

[Timer]
{_when(every_s)}

[Install]
WantedBy=timers.target

# then: systemctl --user daemon-reload && systemctl --user enable --now {name}.timer"""


def _unit(word: str) -> str:
    """Return a word as a unit file takes it."""
    inner = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{inner}"'
