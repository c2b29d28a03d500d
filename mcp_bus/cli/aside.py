"""What was put aside for a person: late results and what is no message; on a disk, or on the branch of a git remote."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.cli.arguments import shell
from mcp_bus.names import REASON

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call
    from mcp_bus.stores.git.store import GitStore


class Aside(NamedTuple):
    """What is in a folder for a person.

    Attributes:
        files: how many there are; the reasons beside them do not count.
        path: where they are; of a bus at a git remote as git takes it, in the clone of this host.
        look: a command that lists them.
        why: a command that shows the reasons beside them.
    """

    files: int
    path: str
    look: str
    why: str


def of(call: Call, bus: Bus, folder: str) -> Aside:
    """Return what is in `rejected` or `quarantine`."""
    if call.config.remote is not None:
        from mcp_bus.stores.git.store import GitStore

        assert isinstance(bus.store, GitStore)
        return _at_remote(bus.store, folder)
    path, names = call.config.path / folder, list[str]()
    with suppress(OSError):
        names = [found.name for found in path.iterdir()]
    there = shell(str(path))
    return Aside(_count(names), str(path), f"ls {there}", f"cat {there}/*{REASON}")


def _at_remote(store: GitStore, folder: str) -> Aside:
    """Look at what is shared: this host's directory has a folder of the same name, and nothing in it."""
    names = store.shared.read(lambda files: files.tree.names(folder))
    git, seen = git_here(store), head_here()
    show, why = f"show {seen}:{folder}/", f"grep -h -e . {seen} -- '{folder}/*{REASON}'"
    return Aside(_count(names), f"{seen}:{folder}", f"{git} {show}", f"{git} {why}")


def git_here(store: GitStore) -> str:
    """Return how a command of git begins that looks at this host's clone."""
    return f"git --git-dir {shell(str(store.repo.folder))}"


def head_here() -> str:
    """Return the name of the commit there that was seen last."""
    from mcp_bus.stores.git.repo import SEEN

    return SEEN


def _count(names: list[str]) -> int:
    return sum(not name.endswith(REASON) for name in names)
