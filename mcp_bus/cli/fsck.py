"""fsck: every anomaly of a bus on disk, explained, and mended if asked to."""

from __future__ import annotations

import time
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import ERROR, OK, PERSON
from mcp_bus.cli.output import clean
from mcp_bus.errors import InvalidRequest
from mcp_bus.fsck.kinds import Level

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.cli.output import Out
    from mcp_bus.fsck import Anomaly, Means, Report

CODES = {Level.NOTE: OK, Level.HEALS: ERROR, Level.REPAIR: ERROR, Level.PERSON: PERSON}
WORDS = {
    Level.NOTE: "to know",
    Level.HEALS: "that the next sweep mends",
    Level.REPAIR: "that --repair mends",
    Level.PERSON: "for a person",
}
STYLES = {Level.NOTE: "dim", Level.HEALS: "yellow", Level.REPAIR: "yellow", Level.PERSON: "red"}
# Paths that are shown of one kind.
FEW = 10
# Before anything is said of how far it is, and between two words about that.
PATIENCE_S = 1.0


def declare(parser: Parser) -> None:
    """Declare the options of `fsck`."""
    parser.add_argument("--repair", action="store_true", help="mend what can be mended; without, nothing is changed")


def fsck(call: Call) -> int:
    """Look at the whole bus; return 6 if a person is needed, 1 for other anomalies, 0 if there are none."""
    from mcp_bus import fsck as core
    from mcp_bus.clock import System
    from mcp_bus.config import guards
    from mcp_bus.stores.fsops import Fs

    config, out = call.config, call.out
    if config.remote is None:
        out.note(f"bus: {call.place()}")
    if call.args.repair and config["read_only"]:
        msg = "the setting read_only forbids --repair"
        raise InvalidRequest(msg, hint="leave --repair out to look only, or unset MCP_BUS_READ_ONLY")
    tell, keys = _Progress(out), guards(config.path)
    means = core.Means(Fs(), System(), tell, durable=config["durability"] == "full", keys=keys)
    if config.remote is not None:
        report = _at_remote(call, means)
    elif call.args.repair:
        report = core.repair(config.path, means)
    else:
        report = core.check(config.path, tell=tell, keys=keys)
    if out.as_json:
        out.json(_fields(report))
    else:
        _show(out, report)
    return CODES[report.worst]


def _at_remote(call: Call, means: Means) -> Report:
    """Look at what is shared of a bus at a git remote; what a repair changes is one commit."""
    from mcp_bus import fsck as core
    from mcp_bus.stores.git.store import GitStore

    root = call.config.path
    with call.bus() as bus:
        assert isinstance(bus.store, GitStore)
        bus.store.shared.look(must=True)
        if call.args.repair:
            return bus.store.shared.do("fsck --repair", lambda files: core.repair(root, means._replace(fs=files.fs)))
        return bus.store.shared.read(lambda files: core.check(root, fs=files.fs, tell=means.tell, keys=means.keys))


class _Progress:
    """Says now and then how far it is, once it takes long."""

    def __init__(self, out: Out) -> None:
        self._out, self._next = out, time.monotonic() + PATIENCE_S

    def __call__(self, looked: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PATIENCE_S
            self._out.note(f"mcp-bus: looked at {looked} names")


def _fields(report: Report) -> dict[str, Any]:
    items = [
        {**item._asdict(), "level": item.level, "means": item.means, "repair": item.repair}
        for item in report.anomalies
    ]  # fmt: skip
    head = {
        "clean": report.is_clean,
        "level": report.worst,
        "tasks": report.tasks,
        "young": report.young,
        "settles_in_s": report.settles,
    }
    head |= {"unchecked": report.unchecked or None}
    return {**head, "anomalies": items, "done": list(report.done), "left": list(report.left)}


def _show(out: Out, report: Report) -> None:
    for line in report.done:
        out.line(clean(f"repaired: {line}"))
    for line in report.left:
        out.line(clean(f"not repaired: {line}"))
    for kind, found in groupby(report.anomalies, key=lambda item: item.kind):
        _kind(out, kind, list(found))
    counts = Counter(item.level for item in report.anomalies)
    said = [f"{counts[level]} {WORDS[level]}" for level in reversed(Level) if counts[level]]
    if report.unchecked:
        out.line(clean(f"signatures were not checked: {report.unchecked}"))
    new = f"; {_files(report.young)} too new to judge: look again in {report.settles} s" if report.young else ""
    word = "clean" if report.is_clean else "not clean"
    out.line(f"{report.tasks} tasks: {word}{''.join(f', {text}' for text in said)}{new}")


def _files(number: int) -> str:
    return "1 file is" if number == 1 else f"{number} files are"


def _kind(out: Out, kind: str, found: list[Anomaly]) -> None:
    first = found[0]
    out.line(f"{out.paint(first.level, STYLES[first.level])} {kind}: {first.means}")
    for item in found[:FEW]:
        out.line(clean(f"  {item.path}" + (f"  ({item.detail})" if item.detail else "")))
    if len(found) > FEW:
        out.line(f"  … and {len(found) - FEW} more, which --json lists")
    if first.repair:
        out.line(f"  --repair {first.repair}")


VERBS = {"fsck": Verb(declare, fsck, "mcp-bus fsck\nmcp-bus fsck --repair\nmcp-bus fsck --json")}
