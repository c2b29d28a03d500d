"""Looking at a whole bus: what is wrong with it, told only after a second look."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.clock import System
from mcp_bus.errors import StoreUnavailable
from mcp_bus.fsck import beside
from mcp_bus.fsck.judge import Judge
from mcp_bus.fsck.kinds import KINDS, Anomaly, Level
from mcp_bus.fsck.signed import Signatures
from mcp_bus.fsck.survey import Surveyor
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.fsck.survey import Survey
    from mcp_bus.stores.base import Guard

# What looks wrong is looked at so often in all: a listing may miss what is renamed meanwhile.
LOOKS = 4
_ORDER = {kind: place for place, kind in enumerate(KINDS)}


def _quiet(_looked: int) -> None:
    """Tell nobody how far it is."""


class Report(NamedTuple):
    """What a look at a bus found.

    Attributes:
        anomalies: in the order of `KINDS`, and of paths.
        tasks: how many tasks were looked at.
        done: what a repair did, a line each.
        left: what its sweep could not do, and why, a line each.
        unchecked: why no signatures were checked, where there are signed channels; empty if they were.
        young: how many files are too new to be judged, for they may still be written.
        settles: in how many seconds they can be judged.
    """

    anomalies: tuple[Anomaly, ...]
    tasks: int
    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    unchecked: str = ""
    young: int = 0
    settles: int = 0

    @property
    def worst(self) -> Level:
        """Who has to do something: the highest level of all anomalies, `NOTE` for a clean bus."""
        levels = [*Level]
        return max((item.level for item in self.anomalies), key=levels.index, default=Level.NOTE)

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing but notes."""
        return self.worst is Level.NOTE


def check(
    root: Path,
    *,
    fs: Fs | None = None,
    source: Source | None = None,
    tell: Callable[[int], None] = _quiet,
    keys: Callable[[str], Guard] | None = None,
) -> Report:
    """Look at a bus, without changing anything; others may use it meanwhile.

    Args:
        tell: called now and then with how many names were looked at.
        keys: makes this user's guard, as for `FileStore`.

    Raises:
        StoreUnavailable: there is no bus, or it cannot be read.
        Untrusted: it is another user's, or of a group this user is not in.
    """
    source = source or System()
    tree = Tree(root, fs or Fs(), source, is_repair=True)
    try:
        with tree.words():
            return look(Surveyor(tree, source, tell, keys))
    finally:
        tree.close()


def look(surveyor: Surveyor) -> Report:
    """Look at a bus that is open; look again at what seems wrong.

    Raises:
        StoreUnavailable: it is no bus.
    """
    tree = surveyor.tree
    if tree.fs.stat("bus.json", tree.fd()) is None and not {"tasks", "channels"} & {*tree.names("")}:
        msg = f"{str(tree.root)!r} is not a bus: it has neither bus.json nor tasks"
        raise StoreUnavailable(msg, hint="name another with --bus or MCP_BUS_DIR")
    bad = list(beside.about_bus(surveyor))
    if any(item.kind == "format" for item in bad):
        return Report(tuple(bad), 0)
    made, seals = surveyor.take(), Signatures(surveyor)
    seen = {*bad, *_judged(surveyor, made, seals)}
    lines = [*beside.lines(surveyor, made)]
    once, tasks = {*made.odd} - seen, len(made.identities)  # Of lines of history, which are listed this once.
    for _ in range(LOOKS - 1):
        if not seen:
            break
        made = surveyor.take()
        again = _judged(surveyor, made, seals)
        seen &= {*beside.about_bus(surveyor), *again}
    seen |= {item for item in lines if not beside.is_line(surveyor, *item.path.rsplit("/", 1))}
    seen |= {item for item in once if surveyor.is_still(item)}
    young = [left for path, left in made.young.items() if surveyor.about(*_split(path)) is not None]
    settles = -(-max(young, default=0) // 1000)
    return Report(_sorted(seen), tasks, unchecked=seals.unchecked, young=len(young), settles=settles)


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _judged(surveyor: Surveyor, made: Survey, seals: Signatures) -> set[Anomaly]:
    judge = Judge(surveyor, made, seals)
    found = {*judge.anomalies(), *beside.beside(surveyor, made)}
    # What is put right by what was posted is judged after that.
    wrong = {item.path for item in found if item.kind == "other-body"}
    spots = [spot for spot in judge.where.values() if spot.path not in wrong]
    return found | {*seals.anomalies(spots)} | {*made.odd}


def _sorted(found: Iterable[Anomaly]) -> tuple[Anomaly, ...]:
    return tuple(sorted(found, key=lambda item: (_ORDER[item.kind], item)))
