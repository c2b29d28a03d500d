"""The skills in a commit of the repository, which anybody who may push has written: nothing of it is followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import CorruptRecord
from mcp_bus.skills import filters
from mcp_bus.skills.decide import Blob
from mcp_bus.skills.filters import SKILL, Unfit, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mcp_bus.stores.git.repo import Repo

_MODES = {"100644": False, "100664": False, "100755": True}


class Tree(NamedTuple):
    """What a commit has.

    Attributes:
        skills: by name, each with what of it is shared.
        skipped: the folders that are none, with a reason.
        files: the names of files at its top, as a disk sees them that does not tell case apart.
    """

    skills: dict[str, dict[str, Blob]]
    skipped: dict[str, str]
    files: set[str]


def tree(entries: Iterable[tuple[str, str, str]]) -> Tree:
    """Return what a commit has: each folder at its top with a `SKILL.md`; files at its top are left alone.

    Args:
        entries: mode, object and path of all that is in it.
    """
    found, folders = Tree({}, {}, set()), dict[str, list[tuple[str, str, str]]]()
    for mode, oid, path in entries:
        name, is_inside, rest = path.partition("/")
        if is_inside or mode not in _MODES:
            folders.setdefault(name, []).append((mode, oid, rest))
        else:
            found.files.add(filters.folded(name))
    names = dict[str, str]()
    for name, inside in folders.items():
        other = names.setdefault(filters.folded(name), name)
        try:
            refuse(filters.of_name(name))
            refuse(f"{name!r} and {other!r} are one name on some disks" if other != name else "")
            found.skills[name] = _skill(inside)
        except Unfit as error:
            found.skipped[name] = f"{error} (in the repository)"
    return found


def _skill(inside: Iterable[tuple[str, str, str]]) -> dict[str, Blob]:
    made = dict[str, Blob]()
    for mode, oid, path in inside:
        why = filters.of_path(path)
        if not why and filters.left_out(path) is not None:
            continue
        refuse(f"{path or 'it'!r} is a link or a submodule" if mode not in _MODES else why)
        made[path] = Blob(oid, _MODES[mode])
    refuse(filters.of_size(len(made), 0) or filters.of_paths(made))
    refuse("" if SKILL in made else f"it has no {SKILL}")
    return made


def contents(repo: Repo, files: Mapping[str, Blob]) -> dict[str, bytes]:
    """Return the bytes of a skill's files, by path.

    Raises:
        Unfit: they are too large, or no skill of a person.
        StoreUnavailable: the clone is damaged.
    """
    found, size = dict[str, bytes](), 0
    for path, blob in files.items():
        try:
            found[path] = repo.read(blob.oid, filters.MAX_FILE)
        except CorruptRecord:
            refuse(f"{filters.of_file(path, filters.MAX_FILE + 1)} (in the repository)")
        size += len(found[path])
        refuse(filters.of_size(len(files), size))
    why = filters.of_skill(found.get(SKILL), found)
    refuse(f"{why} (in the repository)" if why else "")
    return found
