"""What the verbs share on the way in: one parser each, common options, words turned into values."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from mcp_bus.clock import span
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from mcp_bus.cli.output import Out
    from mcp_bus.config import Config
    from mcp_bus.stores.base import Store

HELP_COLUMNS = 100
BODY_HELP = "text, - for stdin, or @FILE (@@ for text that starts with @)"


class Call:
    """One use of a verb: what was asked, the settings, and where the answer goes.

    No named tuple, and `Verb` neither: to make one of types that are not loaded takes each verb a millisecond.
    """

    def __init__(self, args: argparse.Namespace, config: Config, out: Out) -> None:
        """See the class."""
        self.args, self.config, self.out = args, config, out
        self._store: Store | None = None

    def bus(self, *, create: bool = False) -> Bus:
        """Open the bus, and say which one it is and why that one."""
        from mcp_bus.config import open_from

        self.out.note(f"bus: {self.place()}")
        bus = open_from(self.config, create=create, tell=lambda text: self.out.note(f"mcp-bus: {text}"))
        if sys.stdin is not None and sys.stdin.isatty() and self.config.origins["agent"] in ("default", "terminal"):
            from mcp_bus.cli import speaker

            bus.is_person = speaker.is_terminal()
        self._store = bus.store
        if bus.store.away is not None:
            from mcp_bus.cli.away import asked

            self.out.note(asked(bus.store.away, bus.source.now()))
        return bus

    def unsent(self) -> None:
        """Warn of what was posted and is not at the remote yet, where the bus is at one."""
        if self._store is not None and self._store.away is not None:
            from mcp_bus.cli.away import unsent

            unsent(self, self._store.away)

    def place(self) -> str:
        """Return the bus directory and where it was set."""
        from mcp_bus.plain import clean

        origin = self.config.origins["bus"]
        return f"{clean(str(self.config.path))} ({'--bus' if origin == 'flag' else clean(origin)})"

    def again(self) -> str:
        """Return how a command starts that speaks to the same bus under the same name."""
        words = ["mcp-bus"]
        for name in ("bus", "agent"):
            if self.config.origins[name] == "flag":
                words += [f"--{name}", shell(self.named() if name == "bus" else self.config[name])]
        return " ".join(words)

    def named(self) -> str:
        """Return what names the bus for `--bus`: of one at a remote the address, unless a password is in it."""
        from mcp_bus.errors import BusError

        try:
            remote = self.config.remote
        except BusError:  # Damaged: its directory names it all the same.
            remote = None
        return str(remote) if remote is not None and remote.shown == str(remote) else str(self.config.path)

    def aimed(self, hint: str) -> str:
        """Return a hint whose commands speak to the bus of this call, also when an option named it."""
        if self.config.origins["bus"] != "flag":
            return hint
        start, named = "`mcp-bus ", f"--bus {shell(self.named())} "
        first, *rest = hint.split(start)
        return first + "".join(start + ("" if said.startswith("--bus ") else named) + said for said in rest)


class Verb:
    """A verb.

    Attributes:
        declare: declares its options.
        run: does it, and returns the exit code.
        example: for its help.
        takes_command: whether what follows `--` is a command, for `args.command`.
    """

    def __init__(
        self,
        declare: Callable[[Parser], None],
        run: Callable[[Call], int],
        example: str,
        *,
        takes_command: bool = False,
    ) -> None:
        """See the class."""
        self.declare, self.run, self.example, self.takes_command = declare, run, example, takes_command


class Format(argparse.RawDescriptionHelpFormatter):
    """Never asks how wide the terminal is: that costs every verb an import."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=HELP_COLUMNS)


class Parser(argparse.ArgumentParser):
    """A verb's parser; what it does not understand is an `InvalidRequest`."""

    def __init__(self, verb: str, about: str, example: str) -> None:
        """Begin with the options that every verb has."""
        super().__init__(
            f"mcp-bus {verb}",
            description=about,
            epilog="example:\n  " + example.replace("\n", "\n  "),
            formatter_class=Format,
            allow_abbrev=False,
        )
        common = self.add_argument_group("for every verb")
        common.add_argument("--bus", metavar="DIR", type=word, help="the bus directory")
        common.add_argument("--agent", metavar="NAME", type=word, help="who speaks")
        common.add_argument("--json", action="store_true", help="answer with one JSON document")
        common.add_argument("-q", "--quiet", action="store_true", help="do not say which bus is used")

    def options(self) -> dict[str, argparse.Action]:
        """Return the options by their spellings."""
        return self._option_string_actions

    def places(self) -> list[argparse.Action]:
        """Return the positional arguments, in order."""
        return [action for action in self._actions if not action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InvalidRequest: always.
        """
        hint = f"{self.prog} --help"
        head, _, rest = message.partition("unrecognized arguments: ")
        if not head and rest:
            from mcp_bus.cli import meant

            places = [action.metavar for action in self._actions if isinstance(action.metavar, str)]
            close = meant.words(rest.split(), self.options(), places)
            hint = f"{close}  ({hint})" if close else hint
        raise InvalidRequest(message, hint=hint)


def word(text: str) -> str:
    """Return a text that is not empty, as `--bus "$UNSET"` would give."""
    if text:
        return text
    msg = "it is empty"
    raise argparse.ArgumentTypeError(msg)


def words(text: str) -> list[str]:
    """Return the words of a list, `a,b` or `a b`."""
    return text.replace(",", " ").split()


def seconds(text: str) -> float:
    """Return a time span in seconds: 90, 90s, 5m, 2h, 3d."""
    try:
        return span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if text.isdecimal() and text.isascii() and int(text[:9]) > 0:
        return int(text[:9])
    msg = f"{text[:40]!r} is not a number above 0"
    raise argparse.ArgumentTypeError(msg)


def content(text: str, *, hint: str = "name a file that can be read; a text that starts with @ begins with @@") -> str:
    """Return a body or result: the word itself, all of stdin for `-`, a file for `@name`.

    Args:
        hint: what to do about a file that cannot be read.

    Raises:
        InvalidRequest: it cannot be read, is no UTF-8, or is longer than a body may be.
    """
    if text.startswith("@@"):
        return text[1:]
    if text != "-" and not text.startswith("@"):
        return text
    try:
        data = _read(text)
    except OSError as error:
        msg = f"cannot read {text[1:] or 'stdin'!r}: {error.strerror}"
        raise InvalidRequest(msg, hint=hint) from None
    if len(data) > MAX_CONTENT:
        msg = f"{text[1:] or 'stdin'!r} has more than {MAX_CONTENT} bytes, which is the limit"
        raise InvalidRequest(msg, hint="keep large data in a file and send its path")
    try:
        return data.decode()
    except UnicodeDecodeError:
        msg = f"{text[1:] or 'stdin'!r} is not UTF-8 text"
        raise InvalidRequest(msg, hint="keep binary data in a file and send its path") from None


def _read(text: str) -> bytes:
    if text != "-":
        with open(text[1:], "rb") as file:  # noqa: PTH123  a Path is made for nothing
            return file.read(MAX_CONTENT + 1)
    if sys.stdin is None:
        msg = "stdin is closed, there is nothing to read"
        raise InvalidRequest(msg)
    return sys.stdin.buffer.read(MAX_CONTENT + 1)


def shell(text: str) -> str:
    """Return a word as a shell needs it."""
    if text.isascii() and text.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum():
        return text
    import shlex

    return shlex.quote(text)


def given(**options: Any) -> dict[str, Any]:  # noqa: ANN401  options have several types
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
