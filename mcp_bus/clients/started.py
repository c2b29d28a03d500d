"""What an entry or a hook starts: whether that is mcp-bus, and how it is renewed and keeps what was set.  Pure.

A word somewhere in a line does not make it ours: only what is started counts, not what is told to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Word = TypeVar("Word")
_PYTHON = re.compile(r"python[\w.]*")
# Options of Python that stand alone; one that takes a word is not looked for.
_FLAG = re.compile(r"-[bBdEiIOPqsSuvx]+")
# What fetches a program and starts it: the words before that program's name.
_RUNNERS = (("uvx",), ("uv", "tool", "run"), ("pipx", "run"))
_FETCHED = re.compile(r"mcp-bus(@[\w.]+|==[\w.]+)?")
_COMMANDS, _ENVIRONMENTS = ("command", "cmd"), ("env", "environment", "envs")
_BUS = "MCP_BUS_DIR"


def head(words: Sequence[object]) -> int:
    """Return how many of the words of a command start mcp-bus; 0 if they start something else.

    That is `mcp-bus` under whatever path, a Python with `-m mcp_bus`, or a runner of programs with `mcp-bus`.
    """
    if not words or not isinstance(words[0], str):
        return 0
    base = _base(words[0])
    if base == "mcp-bus":
        return 1
    if _PYTHON.fullmatch(base):
        at = next((n for n, word in enumerate(words[1:], 1) if not _FLAG.fullmatch(str(word))), len(words))
        return at + 2 if [*words[at : at + 2]] == ["-m", "mcp_bus"] else 0
    for runner in _RUNNERS:
        count = len(runner)
        if (base, *words[1:count]) == runner and _FETCHED.fullmatch(str([*words, ""][count])):
            return count + 1
    return 0


def _base(word: str) -> str:
    return word.replace("\\", "/").rpartition("/")[2].removesuffix(".exe")


def words(entry: object) -> list[object]:
    """Return the command of an entry and its arguments, as far as they have the form of such; at least one word."""
    told = entry if isinstance(entry, dict) else {}
    command = next((told[name] for name in _COMMANDS if name in told), None)
    more = told.get("args")
    if isinstance(command, list) and command:
        return command
    return [command, *(more if isinstance(more, list) else [])]


def environment(entry: object) -> dict[str, str]:
    """Return what an entry puts into the environment of what it starts."""
    told = entry if isinstance(entry, dict) else {}
    found: dict[Any, Any] = next((told[name] for name in _ENVIRONMENTS if isinstance(told.get(name), dict)), {})
    return {str(name): str(value) for name, value in found.items()}


def is_ours(entry: object) -> bool:
    """Tell whether an entry starts mcp-bus."""
    return head(words(entry)) > 0


def check(entry: object) -> None:
    """See that an entry of ours has the form of one.

    Raises:
        InvalidRequest: its arguments are no list, or its environment is no table.
    """
    told = entry if isinstance(entry, dict) else {}
    wrong = [f"{name!r} that is no table" for name in _ENVIRONMENTS if not isinstance(told.get(name, {}), dict)]
    wrong += ["'args' that is no list"] if not isinstance(told.get("args", []), list) else []
    if wrong:
        msg = f"its entry of mcp-bus has {wrong[0]}"
        raise InvalidRequest(msg, hint="mend or remove that entry; install --force writes it anew")


def renewed(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of ours that starts what another does, and keeps what a person has set.

    The words that start mcp-bus are the other's, and a bus that it names; of all else, only what is missing.

    Raises:
        InvalidRequest: it has not the form of one.
    """
    check(known)
    made = {**known, **{name: said for name, said in wanted.items() if name not in known}}
    for name in _ENVIRONMENTS:
        if name in wanted:
            bus = {_BUS: wanted[name][_BUS]} if _BUS in wanted[name] else {}
            made[name] = {**made[name], **{k: v for k, v in wanted[name].items() if k not in made[name]}, **bus}
    old, new = words(known), words(wanted)
    first, rest = new[: head(new)], old[head(old) :] or new[head(new) :]
    if _BUS in environment(wanted):
        rest = without_option(rest, "--bus")
    command = next(name for name in _COMMANDS if name in wanted)
    if isinstance(wanted[command], list):
        made.pop("args", None)
        return made | {command: [*first, *rest]}
    return made | {command: first[0], "args": [*first[1:], *rest]}


def without_option(some: Sequence[Word], name: str) -> list[Word]:
    """Return words without an option that is followed by a word, or has it after `=`."""
    made, skips = list[Word](), False
    for word in some:
        if not skips and word != name and not str(word).startswith(f"{name}="):
            made.append(word)
        skips = word == name
    return made
