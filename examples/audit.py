"""Read a bus without mcp-bus and say what is wrong with it: `python examples/audit.py BUS`.

It knows `docs/protocol.md` and nothing else: the standard library alone, and a bus that nobody uses at the moment.
Whether signatures hold it cannot tell, only whether they are there.
Exit code 1 when something is wrong, 2 when there is no bus to look at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ID = re.compile(r"req_[0-9a-f]{8,48}")
STATES = {"requests": "ready", "delayed": "scheduled", "processing": "leased", "dead": "dead", "pruning": "pruning"}
MARKS = r"req_[0-9a-f]{8,48}(\.p-?[1-9])?(\.a[1-9]\d*)?(\.m[1-9]\d*)?(\.r[1-9]\d*)?(\.t[1-9]\d*)?"
HELD = r"(\.[A-Za-z0-9_@+~-]{1,64}\.[0-9a-f]{4,32}"
ENDED = rf"{MARKS}{HELD})?_(request|cancelled|discarded|expired)\.json"
# The names that mean something, by folder; of the archive by default.
NAMES = {
    "requests": rf"{MARKS}\.json", "delayed": rf"\d+\.{MARKS}\.json", "processing": rf"{MARKS}{HELD}\.\d+)?\.json",
    "dead": rf"{MARKS}\.json", "pruning": rf"[0-9a-f]{{8}}\.[-0-9]*\.{ENDED}",
}  # fmt: skip
ENDS = {"request": "done", "cancelled": "cancelled", "discarded": "cancelled", "expired": "expired"}


@dataclass
class Audit:
    """Every task's state and name, every result, why tasks were refused, what is wrong or not over, signed channels."""

    states: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    signed: set[str] = field(default_factory=set)


def files(folder: Path) -> list[Path]:
    """List a folder; empty if it is none."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def load(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is none, or holds something else."""
    try:
        value = json.loads(path.read_bytes()) if stat.S_ISREG(path.lstat().st_mode) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def look(root: Path) -> Audit:
    """Walk a bus."""
    audit = Audit()
    audit.signed = {path.name for path in files(root / "channels") if load(path / "channel.json").get("signed") is True}
    keys = {path.stem: path for path in files(root / "keys") if re.fullmatch("[0-9a-f]{64}.json", path.name)}
    places = _places(audit, root)
    identities = {path.stem: path for path in files(root / "tasks") if ID.fullmatch(path.stem)}
    for task in sorted({*identities, *places}):
        fit = _fit(audit, root, task, places.get(task, []))
        keys.pop(_names(audit, root, (task, identities.get(task)), fit), None)
    for path in keys.values():
        audit.problems.append(f"the key {path.name} is of no task; it holds {load(path).get('id', 'no message')}")
    for part in ("staged", "tmp"):
        audit.leftovers += [f"{part}/{path.name}" for path in files(root / part)]
    _results(audit, root)
    return audit


def _places(audit: Audit, root: Path) -> dict[str, list[tuple[Path, str]]]:
    """Find every name that says which state a task is in."""
    made = dict[str, list[tuple[Path, str]]]()
    for channel in files(root / "channels"):
        folders = [(channel / part, state) for part, state in STATES.items()]
        folders += [(day, "") for day in (channel / "archive", *files(channel / "archive"))]
        for path, state in ((path, state) for folder, state in folders for path in files(folder)):
            name = ID.search(path.name)
            if name and re.fullmatch(NAMES.get(path.parent.name, ENDED), path.name):
                made.setdefault(name[0], []).append((path, state or ENDS[path.stem.rpartition("_")[2]]))
            elif path.parent.name in ("requests", "delayed", "processing"):
                audit.problems.append(f"{path.relative_to(root)} is no task")
    return made


def _fit(audit: Audit, root: Path, task: str, places: list[tuple[Path, str]]) -> list[Path]:
    """Return the places of a task that hold its message, in the channel that it names."""
    fit = list[Path]()
    for path, state in places:
        found, where = load(path), path.relative_to(root)
        if found.get("id") != task:
            audit.problems.append(f"{task}: {where} does not hold the message of that id")
        elif found.get("to") != where.parts[1]:
            audit.problems.append(f"{task}: {where} is addressed to {found.get('to')}")
        else:
            fit.append(path)
            audit.states[task], audit.names[task] = state, str(where)
            audit.leftovers += [str(where)] if state == "pruning" else []
    is_there = fit and audit.states[task] not in ("pruning", "cancelled", "expired")
    if is_there and _is_signed(audit, fit[-1].relative_to(root).parts[1]) and not _has_signature(root, task):
        audit.problems.append(f"{task} is on a signed channel, and its signature is not there")
    if len(fit) > 1:
        audit.problems.append(f"{task} is in two places: {', '.join(str(path.relative_to(root)) for path in fit)}")
    return fit


def _is_signed(audit: Audit, channel: str) -> bool:
    """Tell whether a channel is signed; an inbox of a session has its agent's rule, too."""
    return channel in audit.signed or (channel.startswith("@") and channel.partition("~")[0] in audit.signed)


def _has_signature(root: Path, name: str) -> bool:
    """Tell whether there is a signature of that name; whether it holds, nobody can tell without its key."""
    path = root / "signatures" / f"{name}.jws"
    return path.is_file() and not path.is_symlink()


def _names(audit: Audit, root: Path, identity: tuple[str, Path | None], fit: list[Path]) -> str:
    """Compare the identity, the places and the key of a task, which should be one file; return its key."""
    (task, own), said = identity, audit.problems.append
    is_pruned = any(path.parent.name == "pruning" for path in fit)
    body = load(own) if own else {}
    if own and body.get("id") != task:
        said(f"{task}: tasks/{own.name} does not hold the message of that id")
    if own is None or body.get("id") != task:
        if fit and not is_pruned:
            said(f"{task} has a place and no identity")
        return str(load(fit[-1]).get("bus", {}).get("key", "")) if fit else ""
    about = own.lstat()
    names = [path for path in fit if path.lstat().st_ino == about.st_ino]
    if len(names) < len(fit):
        said(f"{task} has an identity and a place that are not one file")
    key = str(body.get("bus", {}).get("key", ""))
    for path in _key(audit, root, task, key):
        if path.lstat().st_ino == about.st_ino:
            names.append(path)
        else:
            said(f"{task} has a key that is not one file with it")
    if about.st_nlink > 1 + len(names):
        names += [path for path in files(root / "tmp") if path.lstat().st_ino == about.st_ino]
    names += [] if fit else _refused(audit, root, task, own)
    if not fit and not any(path.parent.name in ("tmp", "quarantine") for path in names):
        said(f"{task} has an identity and no place")
    if about.st_nlink != 1 + len(names) and len(fit) < 2:
        said(f"{task} has {about.st_nlink} names, not {1 + len(names)}")
    return key


def _refused(audit: Audit, root: Path, task: str, own: Path) -> list[Path]:
    """Return the name of a task that was put aside where it waited or was held; note why."""
    for path in (path for path in files(root / "quarantine") if path.lstat().st_ino == own.lstat().st_ino):
        reason = load(path.with_name(f"{path.name}.reason.json"))
        where, name = Path(str(reason.get("was"))), ID.search(Path(str(reason.get("was"))).name)
        folder = where.parent.name
        is_place = folder in ("requests", "delayed", "processing") and re.fullmatch(NAMES[folder], where.name)
        if is_place and name and name[0] == task and where.parts[:2] == ("channels", load(own).get("to")):
            audit.states[task], audit.names[task] = "put aside", f"quarantine/{path.name}"
            audit.aside[task] = str(reason.get("reason"))
            return [path]
    return []


def _key(audit: Audit, root: Path, task: str, key: str) -> list[Path]:
    """Return the file of a task's key; say so if it is gone, or holds something else than a message."""
    path = root / "keys" / f"{key}.json"
    if not key or load(path).get("id", task) not in (task, ""):
        return []  # It has none, or another task has that key by now.
    if not load(path) and "pruning" not in audit.states.get(task, ""):
        audit.problems.append(f"{task} has lost its key {path.name}")
    return [path] if path.exists() else []


def _ours(path: Path) -> dict[str, Any]:
    """Return what a message or result has of its own under `bus`."""
    ours = load(path).get("bus")
    return ours if isinstance(ours, dict) else {}


def _results(audit: Audit, root: Path) -> None:
    """Compare results with the states of their tasks."""
    for channel in files(root / "channels"):
        for file in (file for file in files(channel / "responses") if ID.fullmatch(file.stem)):
            task, found, state = file.stem, load(file), audit.states.get(file.stem, "not there")
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:32] if file.is_file() else ""
            is_bare = _is_signed(audit, channel.name) and not _has_signature(root, f"{task}.{digest}")
            if found.get("id") != task or not isinstance(found.get("result"), str):
                audit.problems.append(f"{task}: {file.relative_to(root)} is no result of it")
            elif state not in ("done", "pruning", "put aside") or not audit.names[task].startswith(
                (f"channels/{channel.name}/", "quarantine/")
            ):
                audit.problems.append(f"{task} has a result{' that nobody signed' * is_bare}, and is {state}")
            elif "encrypted" in _ours(root / "tasks" / f"{task}.json") and "encrypted" not in _ours(file):
                audit.problems.append(f"{task} is encrypted, and its result is plain text")
            elif state == "done" and is_bare:
                audit.problems.append(f"{task} is on a signed channel, and no signature is of the result that is there")
            audit.results[task] = str(found.get("result"))
    for task, name in audit.names.items():
        lease = re.search(r"\.([A-Za-z0-9_@+~-]{1,64}\.[0-9a-f]{4,32})_request\.json$", name)
        on_its_way = lease and any(f"{lease[1]}.json" in left for left in audit.leftovers if task in left)
        if lease and task not in audit.results and not on_its_way and not name.startswith("channels/@"):
            audit.problems.append(f"{task} is done and has no result")


def bus(text: str) -> Path:
    """Return the path of a bus, or of what is left of one, as `argparse` wants it."""
    root = Path(text)
    if not any((root / name).exists() for name in ("bus.json", "tasks", "channels")):
        msg = f"{text!r} is no bus: it has neither bus.json nor tasks; name the folder that `mcp-bus init` made"
        raise argparse.ArgumentTypeError(msg)
    return root


def main() -> int:
    """Look at the bus that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Read a bus without mcp-bus and say what is wrong with it.")
    parser.add_argument("bus", type=bus, metavar="BUS", help="its folder; nobody should use it meanwhile")
    made = look(parser.parse_args().bus)
    notes = [f"{name} is not over yet; a sweep ends it" for name in made.leftovers]
    notes += [f"{task} was put aside: {why}" for task, why in made.aside.items()]
    if made.signed:
        notes.append(f"signatures were not checked, only counted, on {', '.join(map(ascii, sorted(made.signed)))}")
    for line in (*made.problems, *notes):
        print(line)
    print(f"{len(made.states)} tasks, {len(made.problems)} problems")
    return int(bool(made.problems))


if __name__ == "__main__":
    sys.exit(main())
