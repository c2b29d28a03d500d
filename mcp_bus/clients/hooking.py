"""The hooks that tell a client's model what waits: their text, and how they get into its settings and out.  Pure.

`docs/waking.md` and the plugin show what `shown` returns, and tests compare.
"""

from __future__ import annotations

import json
import re
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.clients import started, texts
from mcp_bus.clients.known import NAME
from mcp_bus.clients.parts import ABSENT, ADDED, HOOKS, REMOVED, REPLACED, SAME, Whole, given
from mcp_bus.errors import InvalidRequest
from mcp_bus.hooks.forms import CLIENTS, STOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mcp_bus.clients import jsonc
    from mcp_bus.clients.known import Server

    Changes = list[tuple[jsonc.Path, object]]

LIMIT_S = 10
_COMMAND = r"(?m)^const COMMAND = .*$"
# What a shell takes literally; what is left of a line then may have something in it that a shell acts on.
_LITERAL = re.compile(r"""'[^']*'|"[^"\\$`]*"|\\[^\n]""")
_ACTS = re.compile(r"[\n\r;|&<>()$`*?\[\]{}~!#]")
# The options before `hook` that take no word; `--bus` and `--agent` do.
_ALONE = ("--json", "-q", "--quiet")


def words_of(server: Server) -> list[str]:
    """Return the words that start mcp-bus for a hook: of what the server's environment says it inherits nothing."""
    options = [("--bus", server.env.get("MCP_BUS_DIR")), ("--agent", server.env.get("MCP_BUS_AGENT"))]
    return [server.command, *server.args[:-1], *(word for name, said in options if said for word in (name, said))]


def shown(client: str, words: Sequence[str]) -> dict[str, Any]:
    """Return a client's settings of hooks, which start mcp-bus by these words."""
    return ({"version": 1} if client == "cursor" else {}) | {"hooks": _wanted(client, words)}


def plugin(words: Sequence[str]) -> str:
    """Return the plugin for opencode, which starts mcp-bus by these words."""
    code = given("opencode.js")
    return re.sub(_COMMAND, lambda _: f"const COMMAND = {json.dumps(list(words))}", code)


def part(client: str, words: Sequence[str]) -> Hooks | Whole:
    """Return the hooks of a client as a part of a file."""
    return Whole(HOOKS, plugin(words), _COMMAND) if client == "opencode" else Hooks(client, tuple(words))


def _wanted(client: str, words: Sequence[str]) -> dict[str, Any]:
    made = dict[str, Any]()
    for name, event in CLIENTS[client].items():
        command = shlex.join([*words, "hook", client, name])
        if client == "cursor":
            made[name] = [{"command": command} | ({"loop_limit": 1} if event.moment == STOP else {})]
        else:
            limit = LIMIT_S * 1000 if client == "gemini-cli" else LIMIT_S
            made[name] = [{"hooks": [{"type": "command", "command": command, "timeout": limit}]}]
    return made


class Hooks(NamedTuple):
    """Our hooks in a client's JSON settings; hooks of others at the same events stay."""

    client: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """They are the hooks."""
        return HOOKS

    def put(self, text: str, *, is_known: bool, is_forced: bool) -> tuple[str, str]:  # noqa: ARG002  of every part
        """Return settings with them; of one that is there, only what starts mcp-bus changes, unless forced."""
        found = texts.read(text, texts.JSON)
        ours = list(_ours(found))
        frame = shown(self.client, ()) | {HOOKS: {}}
        changes: Changes = [((key,), value) for key, value in frame.items() if key not in found]
        for event, (group,) in _wanted(self.client, self.words).items():
            known = _items(found, event)
            mine = [place for place, _ in ours if place[1] == event]
            if not mine:
                at = (HOOKS, event) if known is None else (HOOKS, event, len(known))
                changes.append((at, [group] if known is None else group))
                continue
            changes += _renewed(found, mine, partial(self._command, event, is_forced=is_forced))
        return (texts.edit(text, changes) if changes else text), (REPLACED if ours else ADDED) if changes else SAME

    def _command(self, event: str, known: str, *, is_forced: bool) -> str:
        """Return the line for one of ours that is there, with the options that a person may have set."""
        start = started.head(self.words)
        head, options = self.words[:start], self.words[start:]
        kept = [] if is_forced else _options(known) or []
        if "--bus" in options:
            kept = [*_pair(options, "--bus"), *started.without_option(kept, "--bus")]
        if "--agent" in options and started.without_option(kept, "--agent") == kept:
            kept = [*kept, *_pair(options, "--agent")]
        return shlex.join([*head, *kept, "hook", self.client, event])

    def drop(self, text: str, *, is_known: bool) -> tuple[str | None, str]:  # noqa: ARG002  of every part
        """Return settings without them, and without lists that they leave empty."""
        found = texts.read(text, texts.JSON)
        ours = [place for place, _ in _ours(found)]
        if not ours:
            return text, ABSENT
        return texts.edit(text, _dropped(found, ours)), REMOVED


def _items(found: Mapping[str, Any], event: str) -> list[Any] | None:
    """Return what is set for an event; None for nothing.

    Raises:
        InvalidRequest: it is no list, or the hooks are no table.
    """
    hooks = found.get(HOOKS, {})
    items = hooks.get(event) if isinstance(hooks, dict) else None
    if not isinstance(hooks, dict) or (event in hooks and not isinstance(items, list)):
        what = (
            f"{HOOKS + '.' + event!r} in it is no list" if isinstance(hooks, dict) else f"{HOOKS!r} in it is no table"
        )
        raise InvalidRequest(what, hint="mend it, or put the hooks in by hand: --print shows them")
    return items


def _ours(found: Mapping[str, Any]) -> Iterator[tuple[jsonc.Path, dict[str, Any]]]:
    """Yield our hooks, each with its place."""
    hooks = found.get(HOOKS)
    lists = hooks if isinstance(hooks, dict) else {}
    for event, items in lists.items():
        for number, item in enumerate(items if isinstance(items, list) else ()):
            yield from (each for each in _hooks(item, (HOOKS, event, number)) if _is_ours(each[1]))


def _hooks(item: object, place: jsonc.Path) -> Iterator[tuple[jsonc.Path, dict[str, Any]]]:
    """Yield the hooks of an item: itself, or those of a group."""
    inner = item.get(HOOKS) if isinstance(item, dict) else None
    if isinstance(inner, list):
        for number, hook in enumerate(inner):
            if isinstance(hook, dict):
                yield (*place, HOOKS, number), hook
    elif isinstance(item, dict):
        yield place, item


def _is_ours(hook: Mapping[str, Any]) -> bool:
    if hook.get("type") == "mcp_tool":
        return (hook.get("server"), hook.get("tool")) == (NAME, "hook")
    return _options(hook.get("command")) is not None


def _options(command: object) -> list[str] | None:
    """Return the options of a line that is a hook of ours and nothing else; None of any other line.

    What else a line does in a shell is somebody's: another command before or after it, a variable, a redirection.
    """
    if not isinstance(command, str) or _ACTS.search(_LITERAL.sub("_", command.strip())):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    start = started.head(words)
    if not start or len(words) < start + 3 or words[-3] != "hook" or words[-2] not in CLIENTS:
        return None
    options = words[start:-3]
    rest = started.without_option(started.without_option(options, "--bus"), "--agent")
    return options if all(word in _ALONE for word in rest) else None


def _at(found: object, place: jsonc.Path) -> Any:  # noqa: ANN401  whatever is there
    at: Any = found
    for name in place:
        at = at[name]
    return at


def _pair(options: Sequence[str], name: str) -> Sequence[str]:
    at = options.index(name)
    return options[at : at + 2]


def _renewed(found: object, mine: Sequence[jsonc.Path], command: Callable[[str], str]) -> Changes:
    """Return the changes by which one of our hooks at an event stays, and starts what is made of its command."""
    first, *more = mine
    hook = _at(found, first)
    if hook.get("type") == "mcp_tool":
        return _dropped(found, more)
    known, made = hook["command"], command(hook["command"])
    is_good = shlex.split(known) == shlex.split(made)  # However it is quoted.
    return [*([] if is_good else [((*first, "command"), made)]), *_dropped(found, more)]


def _dropped(found: object, places: Sequence[jsonc.Path]) -> Changes:
    """Return the changes that take out hooks, the last first, with the groups and lists that are empty without them."""
    gone = {tuple(place) for place in places}
    above = gone
    while above := {place[:-1] for place in above if len(place) > 1 and _is_empty(found, place[:-1], gone)}:
        gone |= above
    tops = [
        next(place[:depth] for depth in range(1, len(place) + 1) if tuple(place[:depth]) in gone) for place in places
    ]
    return [(place, texts.GONE) for place in reversed(list(dict.fromkeys(map(tuple, tops))))]


def _is_empty(found: object, place: jsonc.Path, gone: set[tuple[str | int, ...]]) -> bool:
    """Tell whether nothing is left in a list or table without those that are gone; of a group, its hooks count."""
    inner = _at(found, place)
    keys = range(len(inner)) if isinstance(inner, list) else (HOOKS,) if isinstance(place[-1], int) else inner
    return all((*place, key) in gone for key in keys)
