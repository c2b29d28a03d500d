"""complete: what may follow on a command line that somebody types; the scripts of `completion` call it.

    mcp-bus complete SHELL TYPED WORD ...

The words are those after the command's name; the last one is being typed, and may be empty.  TYPED is what the shell is
going to replace, which is only the end of that word when the shell breaks words at `=` and `:`.

A line for each answer: the word, and for shells that show it a tab and what it is.  `<files>` alone asks the shell for
names of files.  Whatever happens, nothing else is printed, and nothing is changed.
"""

from __future__ import annotations

import re
from contextlib import closing, suppress
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli.codes import OK
from mcp_bus.model import State

if TYPE_CHECKING:
    from argparse import Action
    from collections.abc import Iterable, Sequence

    from mcp_bus.cli.arguments import Parser
    from mcp_bus.cli.known import Known
    from mcp_bus.cli.output import Out

Found = list[tuple[str, str]]

# Asks the shell for names of files; no other answer looks like that.
FILES: Found = [("<files>", "")]
# Words that mean the same to every shell without quotes; what others called something else is not offered, nor what
# would be taken for an option or somebody's home.
PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_][A-Za-z0-9@%+=:,./_~-]*\Z")
ALIVE = (State.LEASED, State.READY, State.SCHEDULED)
# Verb: the states of tasks for which it makes sense.
TASKS = {
    "show": (*ALIVE, State.DEAD, State.DONE),
    "wait": ALIVE,
    "heartbeat": (State.LEASED,),
    "submit": (State.LEASED,),
    "post": (State.LEASED,),  # --parent
    "retry": (State.DEAD,),
    "requeue": (State.LEASED, State.SCHEDULED),
    "discard": (State.DEAD,),
    "undo": (State.CANCELLED,),
    "cancel": ALIVE,
    "reprioritise": (State.READY, State.SCHEDULED),
}
PATHS = frozenset({"DIR", "FILE", "PATH"})
# An argument, with its verb or for all: the kinds of names that it may be.  What has a comma is words themselves.
KINDS = {
    "agent": "agent",
    "channel": "channel",
    "state": "state",
    "type": "type",
    "preset": "preset",
    "role": "role",
    "topic": "topic broadcast,",
    "channel name": "channel",
    "config name": "setting",
    "hook client": "client",
    "install clients": "program",
    "uninstall clients": "program",
    "pipe action": "action pipe",
    "pipe name": "pipe",
    "send to": "agent topic channel human,broadcast,",
    "watch name": "channel topic @inbox,broadcast,",
    "plan run target": "files",
    **{f"plan {action} target": "plan" for action in ("show", "report", "cancel", "retry", "resume")},
    "worker run names": "channel",
    "worker up names": "files",
    "worker logs names": "log",
    "worker stop names": "worker",
}
# A kind that is not on the bus: the module that has its words, and their name there.
FIXED = {
    "state": "model:State",
    "type": "wire:TYPES",
    "preset": "workers.readers:PRESETS",
    "setting": "config:SETTINGS",
    "client": "hooks.forms:CLIENTS",
    "program": "clients.known:CLIENTS",
    "action": "cli.pipe:ACTIONS",
}


class Spot(NamedTuple):
    """What is being typed: an argument of a verb, its beginning, and the positional words before it."""

    verb: str
    action: Action
    begin: str
    given: list[str]


def main(words: Sequence[str], out: Out) -> int:
    """Print what may follow; a person's line is no place for an error, so that there is never one."""
    with suppress(Exception):
        for text in answers(*words):
            out.line(text)
    return OK


def answers(shell: str, typed: str, *words: str) -> list[str]:
    """Return the lines that a shell is told."""
    joined = _joined(words) if shell == "bash" else list(words)
    found = complete(joined)
    if found is FILES:
        return [FILES[0][0]]
    # What stands before the part that the shell replaces is left out.
    cut = len(joined[-1]) - len("" if typed == "=" else typed)
    whole = [(word, about) for word, about in found if word.startswith(joined[-1])]
    return [word[cut:] if shell == "bash" or not about else f"{word}\t{about}" for word, about in dict(whole).items()]


def _joined(words: Sequence[str]) -> list[str]:
    """Return words as they were typed: bash makes several of `--bus=x`, of `a:b` and of `@a`."""
    made: list[str] = []
    is_open = False
    for word in words:
        is_break = word in ("=", ":", "@")
        if made and (is_open or word == ":" or (word == "=" and made[-1].startswith("--"))):
            made[-1] += word
        else:
            made.append(word)
        is_open = is_break
    return made


def complete(words: Sequence[str]) -> Found:
    """Return what the last word may become, or `FILES`."""
    *before, begin = words
    with closing(Lookup(before)) as known:
        return _complete(before, begin, known)


def _complete(before: list[str], begin: str, known: Lookup) -> Found:
    from mcp_bus.cli.main import ALIASES, LEADING, VERBS, split

    name, is_assigned, value = begin.partition("=")
    if is_assigned and LEADING.get(name):
        return FILES if name == "--bus" else [(f"{name}={word}", about) for word, about in known.of("agent", value)]
    if before and LEADING.get(before[-1]):
        return FILES if before[-1] == "--bus" else known.of("agent", begin)
    _, verb, rest = split(before)
    verbs: Found = [(name, about) for name, (_, about) in VERBS.items()]
    if not verb and begin.startswith("-"):
        return [(name, "") for name in (*LEADING, "--help", "--version")]
    if not verb or verb == "help":
        return [*verbs, ("help", "what a verb does, with an example")]
    if verb == "abq":
        from mcp_bus.cli import abqparser

        return [] if rest else [(name, about) for name, (about, _) in abqparser.VERBS.items()]
    verb = ALIASES.get(verb, verb)
    return _of_verb(verb, rest, begin, known) if verb in VERBS else []


def _of_verb(verb: str, rest: list[str], begin: str, known: Lookup) -> Found:
    from mcp_bus.cli.arguments import Parser
    from mcp_bus.cli.main import VERBS

    found = import_module(f"mcp_bus.cli.{VERBS[verb][0]}").VERBS[verb]
    if found.takes_command and "--" in rest:
        return FILES
    parser = Parser(verb, "", "")
    found.declare(parser)
    option, given = _walk(parser, rest)
    name, is_assigned, value = begin.partition("=")
    if option is not None and (option.nargs is None or not begin.startswith("-")):
        return known.values(Spot(verb, option, begin, given))
    if "--" not in rest and begin.startswith("-"):
        if not is_assigned:
            return [(name, action.help or "") for name, action in parser.options().items()]
        option = parser.options().get(name)
        got = known.values(Spot(verb, option, value, given)) if option else []
        return got if got is FILES else [(f"{name}={word}", about) for word, about in got]
    place = _place(parser.places(), len(given))
    return known.values(Spot(verb, place, begin, given)) if place else []


def _walk(parser: Parser, rest: Sequence[str]) -> tuple[Action | None, list[str]]:
    """Return the option that may take the next word, and the positional words so far."""
    option: Action | None = None
    given: list[str] = []
    for at, word in enumerate(rest):
        if option is not None and option.nargs is None:
            option = None
        elif word.startswith("-") and word != "-" and "--" not in rest[:at]:
            option = parser.options().get(word)
            option = option if option is not None and option.nargs != 0 else None
        elif option is None:
            given.append(word)
        elif option.nargs == "?":
            option = None
    return option, given


def _place(places: Sequence[Action], at: int) -> Action | None:
    """Return the positional argument that a word is, when there are `at` before it."""
    for place in places:
        if at == 0 or place.nargs in ("*", "+"):
            return place
        at -= 1
    return None


class Lookup:
    """What an argument may be: words of ours, or names on the bus."""

    def __init__(self, before: Sequence[str]) -> None:
        """Look at the bus that the words before it name."""
        self._before = before

    @cached_property
    def _known(self) -> Known:
        from mcp_bus.cli.known import Known

        flags = {}
        for word, following in pairwise([*self._before, ""]):
            name, _, value = word.partition("=")
            if name in ("--bus", "--agent") and (value or following):
                flags[name[2:]] = (value or following).strip("'\"")
        return Known(flags)

    def close(self) -> None:
        """Close the bus, if it was looked at."""
        if "_known" in vars(self):
            self._known.close()

    def values(self, spot: Spot) -> Found:
        """Return what an argument may be, or `FILES`."""
        verb, action, begin, given = spot
        if verb in ("worker", "plan") and given:
            verb = f"{verb} {given[0]}"
        name = "channel" if action.metavar == "CHANNEL" else action.dest
        kind = KINDS.get(f"{verb} {action.dest}") or KINDS.get(name)
        if kind == "files" or action.metavar in PATHS:
            return FILES
        if kind is None and action.choices:
            return [(str(word), "") for word in action.choices]
        if action.dest == "event":
            from mcp_bus.hooks.forms import CLIENTS

            return [(event, "") for event in CLIENTS.get(given[0], ())]
        if action.metavar == "ID":
            return self._known.tasks(TASKS.get(verb, ()), begin)
        return self.of(kind, begin) if kind else []

    def of(self, kind: str, begin: str) -> Found:
        """Return the names of a kind that may be offered."""
        found = [word for one in kind.split() for word in self._names(one)]
        if begin.startswith("@"):  # An agent, in so many words.
            found += [f"@{word}" for word in self._names("agent")] if "agent" in kind.split() else []
        return [(word, "") for word in sorted(set(found)) if PLAIN.match(word) and word.startswith(begin)]

    def _names(self, kind: str) -> Iterable[str]:
        if kind in FIXED:
            module, name = FIXED[kind].split(":")
            return [str(word) for word in getattr(import_module(f"mcp_bus.{module}"), name)]
        if kind.endswith(","):
            return kind[:-1].split(",")
        named: Iterable[str] = getattr(self._known, f"{kind}s")()
        return named
