"""How far a store is from what all hosts of its bus share."""

from __future__ import annotations

from typing import NamedTuple

# What an address of a bus at a git remote begins with, and what a directory has that is a host's part of one.
SCHEME, NAME = "git+", "git.json"


class Away(NamedTuple):
    """Where else a bus is, and how far what is known here is from that.

    Attributes:
        address: of the remote, as `--bus` takes it.
        asked: when it was last asked; 0 for never.
        unsent: how many posts of this host it does not have yet.
        trouble: why it did not answer, when it was last asked in vain; empty if it does.
    """

    address: str
    asked: int
    unsent: int = 0
    trouble: str = ""
