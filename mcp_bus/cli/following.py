"""Where links in a project may lead what `install` and `uninstall` write: nowhere out of it."""

from __future__ import annotations

import os
from pathlib import Path

from mcp_bus.clients.parts import AGENTS_MD
from mcp_bus.errors import InvalidRequest


def follow(path: Path, kind: str, *, is_user: bool) -> None:
    """Refuse to follow a link that a project may have brought along out of it, or from instructions to another kind.

    A person's own settings may be links to wherever that person has them.

    Args:
        path: the file that a part of this kind is to go into, or out of.

    Raises:
        InvalidRequest: it is such a link.
    """
    real = os.path.realpath(path)
    if kind == AGENTS_MD and not real.lower().endswith(".md"):
        msg = f"{str(path)!r} leads to {real!r}, which is no Markdown"
        raise InvalidRequest(msg, hint="make it a file, or link it to one that ends in .md")
    if is_user and kind != AGENTS_MD:
        return
    top = _top(kind)
    if not Path(real).is_relative_to(top) or ".git" in Path(real).relative_to(top).parts:
        msg = f"{str(path)!r} leads to {real!r}, which is not of the project in {str(top)!r}"
        raise InvalidRequest(msg, hint="make it a file of the project, or put it in by hand: --print shows it")


def _top(kind: str) -> Path:
    """Return the folder that a project's files are below: the top of the checkout, else where one is.

    A home that is a checkout itself makes no project of all that is in it; but its own instructions are its.
    """
    from mcp_bus.config import environment, home
    from mcp_bus.identity import git

    here = Path.cwd()
    checkout = git.find(here)
    if checkout is None:
        return here.resolve()
    top = checkout.top.resolve()
    is_home = kind != AGENTS_MD and home(environment()).resolve().is_relative_to(top)
    return here.resolve() if is_home else top
