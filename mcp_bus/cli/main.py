"""The entry: finds the verb, loads only what it needs, and turns errors into exit codes."""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from mcp_bus.cli.codes import ERROR, INTERRUPTED, OK, PIPE_BROKEN, USAGE, code_of, problem
from mcp_bus.cli.output import Out, Unwritten, clean
from mcp_bus.errors import ADVICE, BusError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.cli.arguments import Call
    from mcp_bus.config import Config

# Verb: the module that has it, and what it does.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "work": {
        "post": ("tasks", "hand a task to whoever can do it"),
        "claim": ("tasks", "take the next task, and show what it asks for"),
        "heartbeat": ("tasks", "keep a task that takes longer"),
        "submit": ("tasks", "finish a task, or say why not"),
        "wait": ("wait", "wait until tasks have ended, and show their results"),
        "plan": ("plan", "run a goal as steps that wait for one another"),
        "worker": ("worker", "let commands, such as agent CLIs, do the tasks"),
        "pipe": ("pipe", "stream bytes to an agent that is there now"),
        "watch": ("watch", "run a command for each message of a channel, a topic or the inbox"),
    },
    "talk": {
        "send": ("letters", "queue a message for an agent, a topic, everyone or the human"),
        "inbox": ("letters", "messages that wait, for the human or an agent"),
        "trace": ("letters", "what became of a message"),
        "agents": ("agents", "who is there, and what they can do"),
        "subscribe": ("topics", "read a topic, or list what is read"),
        "unsubscribe": ("topics", "read a topic no longer"),
        "bids": ("bidding", "who offers to do a task that was posted on a topic"),
        "award": ("bidding", "give such a task to one of them"),
    },
    "look": {
        "show": ("look", "one task, with its body, result and history"),
        "find": ("look", "search tasks by words, state and channel"),
        "ls": ("look", "channels with their counts, or the tasks of one"),
        "status": ("status", "the bus at a glance: who works, what needs a person"),
        "log": ("log", "what happened, from the journal"),
        "tail": ("log", "the end of what happened, and with -f what comes"),
        "export": ("export", "tasks with body, result and history, as JSON lines, CSV or Markdown"),
    },
    "fix": {
        "retry": ("fix", "bring dead, cancelled or expired tasks back"),
        "requeue": ("fix", "make leased or scheduled tasks ready now"),
        "discard": ("fix", "take dead tasks out of the dead letter"),
        "undo": ("fix", "take back a cancel or a discard"),
        "cancel": ("fix", "end tasks that are not wanted any more"),
        "reprioritise": ("fix", "move waiting tasks forward or back"),
        "sweep": ("fix", "bring back lapsed leases and due tasks, tidy up"),
        "sync": ("sync", "ask the git remote of a bus now, and send what waits for it"),
        "fsck": ("fsck", "look for anomalies on the whole bus, explain them, and mend them if asked to"),
    },
    "set up": {
        "init": ("setup", "make a bus"),
        "install": ("install", "put the bus into the settings of agent clients"),
        "uninstall": ("install", "take it out of them again"),
        "doctor": ("doctor", "look at everything that can be wrong, and say what to do"),
        "demo": ("serve", "see a bus work, from an empty folder to an answer"),
        "serve": ("serve", "speak MCP over stdin and stdout, for an agent"),
        "hook": ("hook", "tell an agent what waits for it, through its client's hooks"),
        "config": ("setup", "settings, and where each was set"),
        "channel": ("channels", "make channels and set their rules"),
        "key": ("keys", "make keys to sign with, and say whose are believed"),
        "profile": ("profile", "what all agents should know of their user, merged by a model"),
        "skills": ("skills", "share skills with other machines through a git repository of their own"),
        "completion": ("completion", "print a script with which a shell completes verbs, options and names"),
        "abq": ("abq", "abq's verbs, with its arguments and output"),
        "version": ("setup", "what is installed"),
    },
}
VERBS = {name: about for group in GROUPS.values() for name, about in group.items()}
# Other spellings of a verb.
ALIASES = {"reprioritize": "reprioritise"}

CODES = """\
exit codes:
  0  done
  1  an error: the bus, the disk, or a waited-for task was cancelled, expired or answered with an error
  2  usage: the command or a value is wrong
  3  no such task, channel or file; or it was pruned
  4  nothing to claim, or not ended in time
  5  conflict: the task's state does not allow it, someone else was first, or the lease is lost
  6  a person is needed: a waited-for task is dead or asks a question
  With several ids, the highest counts.  130: interrupted; 141: nobody reads the output."""
EXAMPLES = """\
examples:
  mcp-bus init
  mcp-bus post review "look at src/app.py" --title "review app"
  mcp-bus claim review --wait 30s
  mcp-bus submit 1f3a90c2 --token 5b0c… --done "looks good"
  mcp-bus wait 1f3a90c2 --timeout 60s"""
# Options that may stand before the verb, and whether a value follows.
LEADING = {"--bus": True, "--agent": True, "--json": False, "-q": False, "--quiet": False}


def run() -> NoReturn:
    """Be the console command `mcp-bus`."""
    # Most verbs are over before there is anything to collect, and looking for it would take a tenth of their time.
    gc.set_threshold(20_000, 10, 10)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:]
    # Under that name it is that program, for scripts that call it.
    sys.exit(main(["abq", *words] if os.path.basename(sys.argv[0]) == "abq" else words))  # noqa: PTH119  as elsewhere


def main(argv: Sequence[str]) -> int:
    """Do what a command line says; return the exit code."""
    words = list(argv)
    before = words[: words.index("--")] if "--" in words else words
    out = Out(as_json="--json" in before, quiet="-q" in before or "--quiet" in before)
    try:
        code = _guarded(words, out)
        out.flush()
    except BrokenPipeError:
        out.abandon()
        return PIPE_BROKEN
    except KeyboardInterrupt as signal:
        out.abandon()
        return 128 + signal.args[0] if signal.args else INTERRUPTED
    except BusError as error:
        out.abandon()
        _say(error, out)
        return ERROR
    return code


def _guarded(words: list[str], out: Out) -> int:
    calls: list[Call] = []
    try:
        return _dispatch(words, out, calls)
    except Unwritten:
        raise
    except BusError as error:
        if calls:
            error.hint = calls[0].aimed(error.hint)
        return report(error, out)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        return report(BusError(f"{error.strerror or error}{where}", hint=ADVICE.get(error.errno or 0, "")), out)
    except Exception as error:  # noqa: BLE001  a person gets one line, whatever it is
        if calls and calls[0].config["log_level"] == "debug":
            import traceback

            out.warn(clean(traceback.format_exc(), multiline=True))
        text = f"{type(error).__name__}: {error}; this is a bug"
        return report(BusError(text, hint="report it with what MCP_BUS_LOG_LEVEL=debug shows"), out)


def _dispatch(words: list[str], out: Out, calls: list[Call]) -> int:
    leading, verb, rest = split(words)
    if verb == "help":  # As `mcp-bus VERB --help`, or of the whole command.
        rest = [word for word in rest if not word.startswith("-")]
        leading, verb, rest = (leading, rest[0], ["--help"]) if rest else (["--help"], "", [])
    if not verb:
        return _without_verb(leading, out)
    if verb == "complete":  # Not for people: what the scripts of `completion` call.
        from mcp_bus.cli import completing

        return completing.main(rest, out)
    verb = ALIASES.get(verb, verb)
    if verb not in VERBS:
        from mcp_bus.cli import meant

        msg = f"there is no verb {verb[:40]!r}"
        raise InvalidRequest(msg, hint=meant.verb(verb, [*VERBS, "help"]))
    if verb == "hook" and not {"-h", "--help"} & {*rest}:
        from mcp_bus.cli import hook

        return hook.main(leading + rest, out)  # An agent waits for it at each step: not even a parser is loaded.
    if verb == "abq":
        from mcp_bus.cli import abq

        return abq.main(leading, rest, out)
    # stdout is the protocol's there, and no answer may get into it.
    out.as_json = out.as_json and verb != "serve"
    from importlib import import_module

    from mcp_bus.cli.arguments import Call, Parser

    module, about = VERBS[verb]
    found = import_module(f"mcp_bus.cli.{module}").VERBS[verb]
    parser = Parser(verb, f"{about[0].upper()}{about[1:]}.", found.example)
    found.declare(parser)
    command: list[str] | None = None
    if found.takes_command and "--" in rest:
        at = rest.index("--")
        rest, command = rest[:at], rest[at + 1 :]
    try:
        # The first lets options stand between words, but loses what follows `--`.
        parse = parser.parse_args if "--" in rest else parser.parse_intermixed_args
        args = parse(leading + rest)
    except SystemExit:
        return OK  # --help was answered.
    args.command = command
    settings = load(args)
    call = Call(args, settings, out)
    calls.append(call)
    # A terminal that asks for no colour is heard through the settings; without that one, no colour.
    out.has_colour = settings.values.get("no_color") == "" and out.columns() > 0
    code: int = found.run(call)
    call.unsent()
    return code


def load(args: object) -> Config:
    """Gather the settings; options of the verb that are named like one win."""
    from mcp_bus import config, settings

    flags = {name: value for name, value in vars(args).items() if name in settings.SETTINGS}
    return config.load({name: value for name, value in flags.items() if value is not None})


def split(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Tell options before the verb, the verb, and what follows it."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        name, _, value = words[at].partition("=")
        if name not in LEADING:
            return words[at:], "", []
        at += 2 if LEADING[name] and not value else 1
    return words[:at], words[at] if at < len(words) else "", words[at + 1 :]


def _without_verb(words: list[str], out: Out) -> int:
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        out.line(usage())
        return OK
    if first == "--version":
        from mcp_bus.cli.setup import installed

        version = installed()
        out.json({"version": version}) if out.as_json else out.line(f"mcp-bus {version}")
        return OK
    if first and first.partition("=")[0] not in LEADING:
        msg = f"{first[:40]!r} is not an option"
        raise InvalidRequest(msg, hint="options of a verb follow it; mcp-bus --help")
    if out.as_json:
        msg = "there is no verb"
        raise InvalidRequest(msg, hint="mcp-bus --help lists them")
    out.warn(usage())
    return USAGE


def usage() -> str:
    """Return the help of the whole command."""
    lines = ["usage: mcp-bus [--bus DIR] [--agent NAME] [--json] [-q] VERB …", ""]
    lines += ["A durable queue of tasks that coding agents share, in plain files.", ""]
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<14}{about}" for name, (_, about) in verbs.items()), ""]
    lines += [
        "`mcp-bus help VERB` says more, with an example.  Ids may be shortened to any unique beginning or end.",
        "",
    ]
    lines += ["The bus is --bus, MCP_BUS_DIR, .mcp-bus next to the repository's git directory, or ~/.mcp-bus.", ""]
    return "\n".join([*lines, CODES, "", EXAMPLES])


def report(error: BusError, out: Out) -> int:
    """Tell people, and programs that asked for JSON, what went wrong; return the exit code."""
    if out.as_json:
        out.forget()
        out.json({"error": problem(error)})
    _say(error, out)
    return code_of(error)


def _say(error: BusError, out: Out) -> None:
    out.warn(f"mcp-bus: {clean(str(error))}")
    if error.hint:
        out.warn(f"  next: {clean(error.hint)}")
