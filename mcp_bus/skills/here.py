"""The skills in folders of this host: read whole, through no link."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.clients.known import claude_home, codex_home
from mcp_bus.errors import CorruptRecord, NotFound
from mcp_bus.skills import filters
from mcp_bus.skills.decide import Blob
from mcp_bus.skills.filters import SKILL, Unfit, refuse
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_bus.clients.known import Home

_FS = Fs()
_ODD = "{!r} is a link, a pipe or a device"


class Skill(NamedTuple):
    """A skill of this host.

    Attributes:
        source: the folder of skills that it is in.
        files: what of it is shared, by path.
        data: the bytes of those.
        left: what is not shared, and why.
    """

    name: str
    source: Path
    files: dict[str, Blob]
    data: dict[str, bytes]
    left: dict[str, str]


class Found(NamedTuple):
    """The skills in all folders, by name, and the folders that are none, each with a reason."""

    skills: dict[str, list[Skill]]
    skipped: dict[str, str]


def usual(home: Home) -> list[Path]:
    """Return the folders in which agent clients look for a person's skills, as far as they are there."""
    places = [
        claude_home(home) / "skills",
        codex_home(home) / "skills",
        home.home / ".gemini" / "skills",
        home.home / ".cursor" / "skills",
        home.config("opencode", "skills"),
        home.config("opencode", "skill"),
        home.home / ".copilot" / "skills",
        home.home / ".qwen" / "skills",
        home.home / ".agents" / "skills",
    ]
    return [place for place in places if place.is_dir()]


def sources(places: Iterable[Path]) -> list[Path]:
    """Return folders as they truly are, each once, however many links lead there.

    Raises:
        NotFound: one is no folder.
    """
    found = list[Path]()
    for place in places:
        if not place.is_dir():
            msg = f"there is no folder {str(place)!r}"
            raise NotFound(msg, hint="name a folder that has skills in it, or make it")
        if place.resolve() not in found:
            found.append(place.resolve())
    return found


def scan(places: Iterable[Path], algorithm: str = "sha1") -> Found:
    """Return what is in folders of skills, the first folder first.

    Args:
        algorithm: by which the repository names bytes.
    """
    found = Found({}, {})
    for place in places:
        at = _FS.open_dir(str(place), None)
        try:
            for name in sorted(_FS.names(at)):
                _look(place, at, name, found)
        finally:
            _FS.close_dir(at)
    for skills in found.skills.values():
        for skill in skills:
            for path, data in skill.data.items():
                skill.files[path] = skill.files[path]._replace(oid=oid(data, algorithm))
    return Found(found.skills, {name: why for name, why in found.skipped.items() if name not in found.skills})


def again(skill: Skill) -> bool:
    """Tell whether a skill is still what it was when it was read; what is shared of it."""
    found = Found({}, {})
    at = _FS.open_dir(str(skill.source), None)
    try:
        _look(skill.source, at, skill.name, found)
    finally:
        _FS.close_dir(at)
    now = found.skills.get(skill.name, [])
    modes = [{path: blob.is_executable for path, blob in some.files.items()} for some in (*now, skill)]
    return len(now) == 1 and now[0].data == skill.data and modes[0] == modes[1]


def oid(data: bytes, algorithm: str = "sha1") -> str:
    """Return the name that git gives bytes."""
    return hashlib.new(algorithm, b"blob %d\0" % len(data) + data).hexdigest()


def _look(place: Path, at: int, name: str, found: Found) -> None:
    """Read what has a name in a folder of skills, unless it is a file."""
    about = _FS.stat(name, at)
    if about is None or stat.S_ISREG(about.st_mode) or name.startswith(filters.DRAFT):
        return
    try:
        refuse(filters.of_name(name) or filters.of_place(place.name))
        made = Skill(name, place, {}, {}, {})
        _folder(at, name, "", made)
        refuse(filters.of_skill(made.data.get(SKILL), made.data) or filters.of_paths(made.data))
        found.skills.setdefault(name, []).append(made)
    except (Unfit, CorruptRecord, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        found.skipped.setdefault(name, f"{why} ({place / name})")


def _folder(above: int, name: str, path: str, made: Skill) -> None:
    try:
        at = _FS.open_dir(name, above)
    except NotADirectoryError:  # What an open says of a link, too, that is to be a folder and not to be followed.
        raise Unfit(_ODD.format(path or name)) from None
    try:
        for inner in sorted(_FS.names(at)):
            _entry(at, inner, f"{path}/{inner}".lstrip("/"), made)
    finally:
        _FS.close_dir(at)


def _entry(at: int, name: str, path: str, made: Skill) -> None:
    left = filters.left_out(path)
    if left is not None:
        made.left[left[0]] = left[1]
        return
    refuse(filters.of_path(path))
    about = _FS.stat(name, at)
    if about is None:
        return
    if stat.S_ISDIR(about.st_mode):
        _folder(at, name, path, made)
        return
    if not stat.S_ISREG(about.st_mode):
        raise Unfit(_ODD.format(path))
    refuse(filters.of_file(path, about.st_size))
    refuse(filters.of_size(len(made.data) + 1, about.st_size + sum(map(len, made.data.values()))))
    read = _FS.read(name, at, filters.MAX_FILE)
    refuse(f"{path!r} has another name somewhere, by a hard link" if read.links > 1 else "")
    made.data[path] = read.data
    made.files[path] = Blob("", bool(about.st_mode & stat.S_IXUSR))
