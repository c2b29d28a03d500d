"""A workers file: which workers a fleet has, how each is run, and how it is kept alive.

Everything in it is checked before anything is started; a complaint names the line and the key.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.clock import span
from mcp_bus.draft import check_words
from mcp_bus.errors import InvalidRequest
from mcp_bus.names import BROADCAST, RESERVED, check_channel
from mcp_bus.plain import clean, cut, near
from mcp_bus.workers.readers import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
STRATEGIES = ("one_for_one", "rest_for_one")
MAX_INSTANCES = 64


class Spec(NamedTuple):
    """One kind of worker: what its table says, and the words of `mcp-bus` that run it.

    Attributes:
        watches: a topic, channel or `@inbox` whose messages it handles; empty for a worker of tasks.
        command: what it runs, besides a preset.
    """

    name: str
    command: tuple[str, ...] = ()
    preset: str = ""
    role: str = ""
    watches: str = ""
    channels: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    instances: int = 1
    concurrency: int = 1
    timeout_s: float | None = None
    lease_s: float | None = None
    drain_s: float | None = None
    cwd: str = ""
    stdin: str = ""
    allow_eval: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Return the names of its instances, under which they speak on the bus."""
        return [self.name] if self.instances == 1 else [f"{self.name}-{n}" for n in range(1, self.instances + 1)]

    def words(self) -> list[str]:
        """Return the command line that runs one instance, without the program."""
        made = ["watch", self.watches] if self.watches else ["worker", "run", *self.channels]
        options = {
            "--preset": self.preset, "--role": self.role, "--stdin": self.stdin,
            "--capability": ",".join(self.capabilities),
            "--timeout": _said(self.timeout_s), "--lease": _said(self.lease_s), "--drain": _said(self.drain_s),
            "--cwd": self.cwd, "--concurrency": str(self.concurrency) if self.concurrency > 1 else "",
        }  # fmt: skip
        # In one word each: a value may begin with a dash.
        made += [f"{name}={value}" for name, value in options.items() if value]
        made += [f"--allow-eval={sender}" for sender in self.allow_eval]
        return [*made, *(["--", *self.command] if self.command else [])]


class Fleet(NamedTuple):
    """Workers, and how they are kept alive.

    Attributes:
        strategy: what a worker that dies takes along: nothing, or all that were started after it.
        max_restarts, within_s: more restarts than that in so many seconds end the fleet.
    """

    workers: tuple[Spec, ...]
    strategy: str = "one_for_one"
    max_restarts: int = 5
    within_s: float = 60.0


def _said(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6f}".rstrip("0").rstrip(".")


def parse(text: str, name: str) -> Fleet:
    """Return the fleet that a workers file describes.

    Args:
        name: what to call the file in complaints.

    Raises:
        InvalidRequest: says which line and key is wrong, and how.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # It names line and column.
        msg = f"{cut(clean(name), 100)} is not TOML: {cut(clean(str(error)), 160)}"
        raise InvalidRequest(msg, hint="examples/workers.toml has one to start from") from None
    reader = _Reader(text, name)
    made: dict[str, Any] = reader.read("", data, _FLEET)
    tables = data.get("workers")
    if not isinstance(tables, dict) or not tables:
        msg = f"{cut(clean(name), 100)} has no workers"
        raise InvalidRequest(msg, hint="give each a table: [workers.review]")
    made["workers"] = tuple(_spec(reader, key, table) for key, table in tables.items())
    owners: dict[str, str] = {}
    for spec in made["workers"]:
        for each in spec.names():
            if each in owners or not NAME.match(each):
                why = f"{each!r} is also one of [workers.{owners[each]}]" if each in owners else f"{each!r} is too long"
                raise reader.wrong(spec.name, "instances", f"the name of an instance: {why}", "choose another name")
            owners[each] = spec.name
    return Fleet(**made)


def _spec(reader: _Reader, name: str, table: object) -> Spec:
    if not NAME.match(name) or not isinstance(table, dict):
        raise reader.wrong(name, "", f"{name[:60]!r} is no worker", "a table whose name is of a-z 0-9 _ -")
    spec = Spec(name, **reader.read(name, table, _SPEC))
    if not spec.command and not spec.preset:
        raise reader.wrong(name, "", "it has no command", 'command = ["claude", "-p"], or preset = "claude"')
    if spec.watches and (spec.preset or spec.channels or spec.role or spec.capabilities or spec.stdin):
        raise reader.wrong(
            name, "watch", "a handler has no preset, role, channels, capabilities or stdin", "take it out"
        )
    return spec


class _Reader:
    """Reads tables with the checks of their keys, and says where something is wrong."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = cut(clean(name), 100)

    def read(self, table: str, data: dict[str, Any], checks: dict[str, tuple[str, Callable[[Any], object]]]) -> Any:  # noqa: ANN401  fields of several types
        """Return the fields that a table sets."""
        made: dict[str, object] = {}
        for key, value in data.items():
            if not table and key == "workers":
                continue
            if key not in checks:
                close = near(key, checks)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(checks)}"
                raise self.wrong(table, key, f"there is no key {cut(clean(key), 60)!r}", hint)
            field, check = checks[key]
            try:
                made[field] = check(value)
            except (InvalidRequest, TypeError, ValueError) as error:
                hint = error.hint if isinstance(error, InvalidRequest) else ""
                raise self.wrong(table, key, f"{key}: {error}", hint) from None
        return made

    def wrong(self, table: str, key: str, why: str, hint: str) -> InvalidRequest:
        """Return the complaint about a key of a table."""
        where = f"[workers.{table}] " if table else ""
        return InvalidRequest(f"{self._name}, line {self._line(table, key)}: {where}{why}", hint=hint)

    def _line(self, table: str, key: str) -> int:
        """Return the line where a key of a table stands, as far as that is found; it counts from 1."""
        at = 0
        if table:
            head = re.compile(rf"\s*\[\s*workers\s*\.\s*[\"']?{re.escape(table)}[\"']?\s*\]")
            at = next((number for number, line in enumerate(self._lines) if head.match(line)), 0)
        if not key:
            return at + 1
        word = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]")
        return next((n for n, line in enumerate(self._lines[at:], at) if word.match(line)), at) + 1


# --- checks -------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if isinstance(value, str) and value and "\0" not in value and len(value) <= 1000:
        return value
    msg = "it is not a text"
    raise TypeError(msg)


def _watched(value: object) -> str:
    name = _text(value)
    if name in ("@inbox", BROADCAST):
        return name
    if name.removeprefix("#") in RESERVED:
        msg = f"{name!r} is nobody's to watch"
        raise ValueError(msg)
    check_channel(name.removeprefix("#"))
    return name


def _words(value: object) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list) and len(words) <= 200:
        return tuple(map(_text, words))
    msg = "it is not a list of texts"
    raise TypeError(msg)


def _command(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value:
        return _words(value)
    msg = 'it is not a list: no shell reads it, so ["sh", "-c", "…"] if one should'
    raise TypeError(msg)


def _count(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is int and low <= value <= high:
            return value
        msg = f"it is not a whole number from {low} to {high}"
        raise ValueError(msg)

    return check


def _time(value: object) -> float:
    if isinstance(value, str):
        return span(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
        return float(value)
    msg = 'it is not a time span, such as 90, "90s" or "5m"'
    raise ValueError(msg)


def _lease(value: object) -> float:
    found = _time(value)
    if found >= 1:
        return found
    msg = "a lease lasts at least a second"
    raise ValueError(msg)


def _one_of(known: Iterable[str]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value in list(known):
            return str(value)
        msg = f"{str(value)[:60]!r} is none of {', '.join(known)}"
        raise ValueError(msg)

    return check


_FLEET: dict[str, tuple[str, Callable[[Any], object]]] = {
    "strategy": ("strategy", _one_of(STRATEGIES)),
    "max_restarts": ("max_restarts", _count(0, 1000)),
    "within": ("within_s", _time),
}
_SPEC: dict[str, tuple[str, Callable[[Any], object]]] = {
    "command": ("command", _command),
    "preset": ("preset", _one_of(PRESETS)),
    "role": ("role", _text),
    "watch": ("watches", _watched),
    "channels": ("channels", lambda value: tuple(map(check_channel, _words(value)))),
    "capabilities": ("capabilities", lambda value: tuple(check_words("capabilities", _words(value)))),
    "instances": ("instances", _count(1, MAX_INSTANCES)),
    "concurrency": ("concurrency", _count(1, 100)),
    "timeout": ("timeout_s", _time),
    "lease": ("lease_s", _lease),
    "drain": ("drain_s", _time),
    "cwd": ("cwd", _text),
    "stdin": ("stdin", _one_of(("prompt", "body"))),
    "allow_eval": ("allow_eval", _words),
}
