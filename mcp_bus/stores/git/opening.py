"""Opening a bus at a git remote: this host's directory for it is made when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.git import place
from mcp_bus.stores.git.repo import Repo
from mcp_bus.stores.git.shared import Asking
from mcp_bus.stores.git.store import GitStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mcp_bus.clock import Source
    from mcp_bus.stores.base import Guard

# How old what is known may be, of a remote on this machine, and of one that is asked over a network.
NEAR_S, FAR_S = 1.0, 15.0


class Means(NamedTuple):
    """What a remote is asked with.

    Attributes:
        environment: what git is started with.
        fresh_s: how old what is known may be; 0: by the kind of the remote.
        timeout_s: how long it may take to answer.
        is_asking: whether to ask as the bus is opened, however little old what is known is.
        is_tentative: whether tasks may be claimed while it does not answer.
    """

    environment: Mapping[str, str]
    fresh_s: float = 0.0
    timeout_s: float = 60.0
    is_asking: bool = True
    is_tentative: bool = False


def opened(
    path: Path,
    where: place.Address,
    means: Means,
    *,
    source: Source,
    who: str = "-",
    keys: Callable[[str], Guard] | None = None,
) -> GitStore:
    """Open the bus at a remote's branch.

    Args:
        path: this host's directory for it, made if it is missing.

    Raises:
        StoreUnavailable: the remote does not answer, and nothing of it is known here; or this disk fails.
        Untrusted: the branch was rewritten, or the directory is another user's.
    """
    if not (path / "bus.json").exists():
        layout.create(path, source=source)
    is_near = where.remote.startswith(("/", "file://"))
    fresh_s = means.fresh_s or (NEAR_S if is_near else FAR_S)
    asking = Asking(fresh_s, at_once=means.is_asking, is_needed=not means.is_tentative)
    local = FileStore(path, source=source, durable=False, who=who)
    with local.tree.words():
        place.note(path, where)
        repo = Repo(
            path / place.CLONE, where.remote, where.branch, timeout_s=means.timeout_s, environment=means.environment
        )
    return GitStore(repo, local, source=source, asking=asking, who=who, keys=keys)
