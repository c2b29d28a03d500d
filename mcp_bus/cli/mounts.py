"""doctor --answer and --ask: whether two hosts that share a folder see soon what the other one changes there."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import positive, seconds, shell
from mcp_bus.cli.codes import ERROR, NOTHING, OK
from mcp_bus.cli.output import clean, duration
from mcp_bus.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.stores.visibility import Measured, Place

ROUNDS, WITHIN_S = 20, 1800.0
# How often somebody who waits is told so.
TOLD_S = 30.0
SAID = {"listing": "a new file", "rename": "a new name", "removal": "a removed file"}


def declare(parser: Parser) -> None:
    """Declare the options of a probe between two hosts."""
    group = parser.add_argument_group("between two hosts that share a folder, by default the bus")
    side: argparse._MutuallyExclusiveGroup = group.add_mutually_exclusive_group()
    side.add_argument("--answer", nargs="?", const="", metavar="DIR", help="on one: answer the other")
    side.add_argument("--ask", nargs="?", const="", metavar="DIR", help="on the other: measure how old listings are")
    group.add_argument("--word", metavar="WORD", help="with --ask: what --answer printed, so that it is known to run")
    group.add_argument("--rounds", type=positive, metavar="N", help=f"with --ask: how often, {ROUNDS}")
    group.add_argument("--within", type=seconds, metavar="TIME", help="how long to wait for the other one, 30m")


def is_asked(call: Call) -> bool:
    """Tell whether that is what is wanted.

    Raises:
        InvalidRequest: an option of it stands alone.
    """
    args = call.args
    if args.answer is not None or args.ask is not None:
        return True
    if args.word is not None or args.rounds is not None or args.within is not None:
        msg = "--word, --rounds and --within go with --ask or --answer"
        raise InvalidRequest(msg, hint="mcp-bus doctor --help")
    return False


def probe(call: Call) -> int:
    """Answer, or ask; 4 if nobody was there."""
    from mcp_bus.cli.interrupts import Interrupts

    with Interrupts():
        return _answer(call) if call.args.answer is not None else _ask(call)


def _answer(call: Call) -> int:
    from mcp_bus.stores.visibility import Answerer

    out, within = call.out, _within(call)
    with _place(call, call.args.answer) as (path, place):
        word = place.source.token(4)
        asking = f"mcp-bus doctor --ask {shell(str(path))} --word {word}"
        out.note(f"answering in {clean(str(path))} for {_span(within)}; on the other host, with its path:")
        answerer = Answerer(place, me=word, tell=lambda text: out.note(f"mcp-bus: {clean(text)}"))
        try:
            out.note(f"  {clean(asking)}")
            is_served = answerer.serve(within)
        finally:
            answerer.close()
    hosts = [clean(host) for host in answerer.served]
    if out.as_json:
        out.json({"folder": str(path), "word": word, "answered": hosts})
    elif is_served:
        out.line(f"answered {', '.join(hosts)}: what it measured is said there")
    else:
        out.warn(f"mcp-bus: nobody asked within {_span(within)}, or this mount does not show it")
        out.warn(f"  next: {clean(asking)}, on the other host, while this runs: given the word it can tell")
    return OK if is_served else NOTHING


def _ask(call: Call) -> int:
    from mcp_bus.stores import visibility

    out, within = call.out, _within(call)
    word = call.args.word or ""
    if call.args.word is not None and not re.fullmatch("[0-9a-f]{8}", word):
        msg = f"{word[:40]!r} is no word that --answer prints"
        raise InvalidRequest(msg, hint="`mcp-bus doctor --answer DIR` on the other host prints one")
    with _place(call, call.args.ask) as (path, place):
        if not word:
            out.note(f"waiting for `mcp-bus doctor --answer` on the other host, in its path for {clean(str(path))}")
        waiting = place._replace(pause=_telling(call, place))
        asker = visibility.Asker(waiting, patience_s=visibility.PATIENCE_S, answerer=word)
        measured = asker.measure(call.args.rounds or ROUNDS, within)
    if out.as_json:
        out.json(_fields(path, measured))
    elif measured is not None:
        _show(call, measured)
    if measured is None:
        out.warn(f"mcp-bus: nobody answered in {clean(str(path))} within {_span(within)}")
        out.warn("  next: mcp-bus doctor --answer DIR, on the other host; it prints a word for --word, and if that")
        out.warn("        is given, and still nothing is seen, it is the mount that hides it")
        return NOTHING
    return ERROR if measured.why() else OK


def _within(call: Call) -> float:
    return WITHIN_S if call.args.within is None else float(call.args.within)


def _span(seconds: float) -> str:
    return duration(int(seconds * 1000))


def _telling(call: Call, place: Place) -> Callable[[float], None]:
    """Return a pause that now and then tells that nothing came yet."""
    clock = place.source.monotonic
    began = last = clock()

    def wait(nap: float) -> None:
        nonlocal last
        place.pause(nap)
        now = clock()
        if now - last >= TOLD_S:
            last = now
            call.out.note(f"mcp-bus: not done after {_span(now - began)}")

    return wait


@contextmanager
def _place(call: Call, asked: str) -> Iterator[tuple[Path, Place]]:
    """Open the folder that was named, or that drafts of the bus are in.

    Raises:
        InvalidRequest: the bus is at a git remote, where hosts share no folder.
        NotFound: there is no such folder, or no bus.
        StoreUnavailable: it cannot be opened.
    """
    from mcp_bus.clock import System
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.modes import is_there
    from mcp_bus.stores.tree import Tree
    from mcp_bus.stores.visibility import Place

    path = call.config.cwd / asked if asked else call.config.path
    if not asked and call.config.remote is not None:
        msg = "the bus is at a git remote: its hosts share no folder"
        raise InvalidRequest(msg, hint="`mcp-bus doctor` looks at the remote; or name a folder: --ask DIR")
    is_bus = is_there(path / "bus.json")
    if not path.is_dir() or not (asked or is_bus):
        what = f"there is no {'folder' if asked else 'bus at'} {str(path)[:200]!r}"
        raise NotFound(what, hint="name a folder that both hosts share: --ask DIR, --answer DIR")
    fs, source = Fs(), System()
    if is_bus:
        tree = Tree(path, fs, source)
        try:
            with tree.words():
                yield path, Place(fs, tree.fd("tmp", make=True), source)
        finally:
            tree.close()
        return
    at = fs.open_dir(str(path.resolve()), None)
    try:
        yield path, Place(fs, at, source)
    finally:
        fs.close_dir(at)


def _fields(path: Path, measured: Measured | None) -> dict[str, object]:
    """Return what was found as JSON data."""
    from mcp_bus.stores.probe import kind_of
    from mcp_bus.stores.visibility import BOUND_S

    made: dict[str, object] = {"folder": str(path), "filesystem": kind_of(path), "is_answered": measured is not None}
    if measured is not None:
        made |= {"host": clean(measured.host), "bound_ms": BOUND_S * 1000, "why_not": _why(measured)}
        made |= {
            f"{what}_ms": {
                "rounds": len(some),
                "median": _ms(measured.median(what)),
                "max": _ms(max(some, default=0.0)),
            }
            for what, some in measured.lags.items()
        }
    return made


def _why(measured: Measured) -> str:
    """Say why a folder is not fit, or what is not known of it: who was never seen may be gone; empty if it is fit."""
    from mcp_bus.stores.visibility import HELLO

    if measured.missed != HELLO:
        return measured.why()
    causes = "it has ended, the word is another one, or listings of this mount lie"
    return f"whoever answers was not seen to do so within {measured.waited_s:.1f} s: {causes}"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _show(call: Call, measured: Measured) -> None:
    from mcp_bus.stores.probe import INSTEAD
    from mcp_bus.stores.visibility import HELLO

    out = call.out
    if measured.missed == HELLO:
        out.line(f"{out.paint('✗', 'red')} {_why(measured)}")
        out.line("  next: see whether `mcp-bus doctor --answer` still runs on the other host, and with which word;")
        out.line(f"        if it is the mount: {INSTEAD}")
        return
    for what, some in measured.lags.items():
        if some:
            lag, most = _ms(measured.median(what)), _ms(max(some))
            out.line(f"{SAID[what]:<15} seen and answered after {lag} ms (median of {len(some)}), {most} ms at most")
    why = measured.why()
    if why:
        out.line(f"{out.paint('✗', 'red')} this folder cannot carry a bus of several hosts: {why}")
        if measured.missed:
            out.line("  (or the one that answers has ended meanwhile: see what is said there)")
        out.line(f"  next: {INSTEAD}")
    else:
        out.line(f"{out.paint('✓', 'green')} {clean(measured.host)} and this host see soon what the other one changes")
