"""What is wrong beside the tasks: the bus's own file, rules of channels, records, plans, lines of history."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mcp_bus import cursors, history, planfile, policies, wire
from mcp_bus.errors import BusError, CorruptRecord, Unreadable
from mcp_bus.fsck.kinds import Anomaly
from mcp_bus.model import PLANS, PROGRESS
from mcp_bus.stores.beside import AT
from mcp_bus.stores.foreign import SETTLE
from mcp_bus.stores.layout import RECORDS
from mcp_bus.stores.records import MAX_RECORD, MOST, REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from mcp_bus.fsck.survey import Survey, Surveyor

# Kinds beside whose records lies what people read or write.
TEXTS = ("agents", "user-sync")


def about_bus(surveyor: Surveyor) -> Iterator[Anomaly]:
    """Judge `bus.json`; of another format nothing else may be judged."""
    try:
        data = surveyor.tree.fs.read("bus.json", surveyor.tree.fd(), 65536).data
        made = wire.loads(data).get("format")
    except FileNotFoundError:
        yield Anomaly("no-bus-json", "bus.json", detail=f"it is missing; {surveyor.lost.said}")
    except Unreadable:
        return  # Its mode is told of.
    except (CorruptRecord, OSError) as error:
        yield Anomaly("no-bus-json", "bus.json", detail=f"{error}; {surveyor.lost.said}")
    else:
        if made != wire.FORMAT:
            yield Anomaly("format", "bus.json", detail=f"format {made!r}, this version knows {wire.FORMAT}")


def beside(surveyor: Surveyor, made: Survey) -> Iterator[Anomaly]:
    """Judge all that is no task."""
    for channel in made.channels:
        yield from _policy(surveyor, channel)
    plans = dict[str, str]()
    for kind in (*RECORDS, *(f"cursors/{topic}" for topic in surveyor.names("cursors"))):
        for name, data in _records(surveyor, kind, made):
            yield from _record(surveyor, (kind, name), data, plans)


def _policy(surveyor: Surveyor, channel: str) -> Iterator[Anomaly]:
    folder = f"channels/{channel}"
    try:
        policies.load(surveyor.tree.fs.read("channel.json", surveyor.tree.fd(folder), 65536).data, channel)
    except (FileNotFoundError, Unreadable):
        return
    except (BusError, OSError) as error:
        yield Anomaly("policy", f"{folder}/channel.json", detail=str(error))


def _records(surveyor: Surveyor, kind: str, made: Survey) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the latest revision of each record that can be read; note what else is there."""
    latest = dict[str, list[tuple[int, str]]]()
    for name, about in surveyor.listed(kind):
        match = REVISION.match(name)
        if match and int(match["number"]) < MOST:
            latest.setdefault(match["name"], []).append((int(match["number"]), name))
        elif not (kind in TEXTS and name.endswith(".md") and about.is_file):
            made.odd.append(Anomaly("stranger", f"{kind}/{name}"))
    for record, found in latest.items():
        *older, (_, name) = sorted(found)
        for _, old in older:
            still = surveyor.about(kind, old)
            if still is not None and still.age >= SETTLE:
                made.odd.append(Anomaly("old-revision", f"{kind}/{old}"))
        try:
            data = wire.loads(surveyor.tree.fs.read(name, surveyor.tree.fd(kind), MAX_RECORD).data)
        except (FileNotFoundError, Unreadable):
            continue  # A later one took its place, or its mode is told of.
        except (CorruptRecord, OSError) as error:
            made.odd.append(Anomaly("record", f"{kind}/{name}", detail=str(error)))
            continue
        yield f"{record}/{name}", {key: value for key, value in data.items() if key != AT}


def _record(
    surveyor: Surveyor, which: tuple[str, str], data: Mapping[str, Any], plans: dict[str, str]
) -> Iterator[Anomaly]:
    """Judge what a record says, where somebody depends on it."""
    kind, (record, name) = which[0], which[1].split("/")
    path = f"{kind}/{name}"
    if kind.startswith("cursors/"):
        try:
            cursors.load(data, now=surveyor.now())
        except CorruptRecord as error:
            yield Anomaly("record", path, detail=str(error))
    elif kind == PLANS:
        try:
            said = planfile.load(data).id
        except (BusError, ValueError, TypeError, LookupError) as error:
            yield Anomaly("plan", path, detail=str(error))
            return
        if said != record:
            yield Anomaly("plan", path, detail=f"it says that it is {said[:60]}")
        plans[record] = hashlib.sha256(wire.dumps(dict(data))).hexdigest()
    elif kind == PROGRESS and plans.get(record, data.get("plan_sha256")) != data.get("plan_sha256"):
        yield Anomaly("plan", f"{PLANS}/{record}.1.json", detail="it was edited after it was posted")


def lines(surveyor: Surveyor, made: Survey) -> Iterator[Anomaly]:
    """Judge the lines of history.  They are many, and decide nothing: once is enough."""
    for channel, task_id in made.histories:
        folder = f"channels/{channel}/attempts/{task_id}"
        for name, about in surveyor.listed(folder):
            if about.age >= SETTLE and not is_line(surveyor, folder, name):
                yield Anomaly("bad-history", f"{folder}/{name}", task_id)


def is_line(surveyor: Surveyor, folder: str, name: str) -> bool:
    """Tell whether a file is a line of history, or gone."""
    try:
        history.load(surveyor.tree.fs.read(name, surveyor.tree.fd(folder), 65536).data)
    except (FileNotFoundError, Unreadable):
        return True
    except (CorruptRecord, OSError):
        return False
    return True
