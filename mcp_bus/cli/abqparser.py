"""The command line of abq's verbs: its arguments, by its names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from mcp_bus.cli.abqcare import FOLDERS
from mcp_bus.cli.arguments import Format
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

TYPES = ("eval", "command", "signal", "status")
STATUSES = ("success", "error", "pending")
_JSON: dict[str, Any] = {"action": "store_true", "help": "answer with JSON"}
_FLAG: dict[str, Any] = {"action": "store_true"}
EXAMPLE = 'mcp-bus abq send app-agent signal \'{"signal": "tests_passed"}\''
# Verb: what it does, and its arguments with their options.
VERBS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "init": ("make a bus", {}),
    "channel": (
        "make, list or remove channels",
        {"action": {"choices": ["create", "list", "rm"]}, "name": {"nargs": "?"}},
    ),
    "send": (
        "send a message",
        {
            "channel": {"help": "a channel, @self or @parent"},
            "type": {"choices": TYPES},
            "content": {"nargs": "?", "default": "-", "help": "- for stdin"},
            "--reply-to": {},
            "--ttl": {"type": int, "default": 300, "help": "seconds after which gc may put it aside (300)"},
            "--wait -w": {**_FLAG, "help": "wait for the response"},
            "--timeout -t": {"type": int, "default": 30, "help": "seconds (30)"},
            "--json -j": _JSON,
        },
    ),
    "recv": (
        "receive a message",
        {"channel": {}, "--wait -w": {**_FLAG, "help": "wait for one, 30 s"}, "--json -j": _JSON},
    ),
    "respond": (
        "answer a message that was received",
        {
            "channel": {},
            "id": {},
            "--status -s": {"default": "success", "choices": STATUSES},
            "--result -r": {"default": "", "help": "- for stdin"},
            "--error -e": {},
            "--json -j": _JSON,
        },
    ),
    "watch": (
        "run a handler for each message, and answer with what it prints",
        {
            "channel": {},
            "--handler -H": {"required": True},
            "--poll -p": {"type": float, "default": 0.5, "help": "not needed: changes are told"},
            "--timeout -t": {"type": float, "default": 60.0, "help": "seconds (60)"},
            "--allow-eval": {"action": "append", "default": [], "metavar": "SENDER", "help": "run eval of SENDER"},
        },
    ),
    "status": ("every channel with its counts", {}),
    "ls": (
        "messages of a channel",
        {
            "channel": {},
            "subdir": {"nargs": "?", "default": "requests", "choices": list(FOLDERS)},
            "--limit -n": {"type": int, "default": 20},
            "--oldest-first -o": _FLAG,
            "--count -c": _FLAG,
            "--json -j": _JSON,
        },
    ),
    "check": (
        "the health of the bus, or whether somebody serves a channel",
        {
            "--verbose -v": _FLAG,
            "--channel": {},
            "--alive": {**_FLAG, "help": "with --channel: exit 0 if a watcher or worker is there"},
        },
    ),
    "gc": ("put aside what waits longer than its ttl", {"--verbose -v": _FLAG}),
    "requeue": (
        "make ready again what nobody works on any more",
        {"channel": {"nargs": "?"}, "--verbose -v": _FLAG},
    ),
    "version": ("what is installed", {}),
}


class Parser(argparse.ArgumentParser):
    """A parser for which what it does not understand is an `InvalidRequest`."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(message, hint=f"{self.prog} --help")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line says, `verb` and its arguments.

    Raises:
        InvalidRequest: it says nothing that is known.
        SystemExit: it asked for help, and was answered.
    """
    # The formatter is one that never asks how wide the terminal is.
    about = "Abq's verbs, with its arguments and output, on an mcp-bus."
    top = Parser("abq", description=about, epilog=f"example:\n  {EXAMPLE}", formatter_class=Format)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    # The parsers of verbs that are not asked for would take a tenth of the time.
    asked = words[:1] if words and words[0] in VERBS else VERBS
    for name in asked:
        about, arguments = VERBS[name]
        one = verbs.add_parser(name, help=about, description=about, formatter_class=Format)
        for flags, options in arguments.items():
            one.add_argument(*flags.split(), **options)
    return top.parse_args(words)
