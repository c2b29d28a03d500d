"""What was posted while the remote did not answer: kept on this host, durable, until a push has taken it.

    <bus>/unsent/<number>.json      a body, as its file would be

Every process of this host sees it on the bus meanwhile, and nobody else.  What a push has taken is removed; to post it
a second time is harmless, for it keeps its id.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord

if TYPE_CHECKING:
    from mcp_bus.clock import Source
    from mcp_bus.model import Body
    from mcp_bus.stores.tree import Tree

FOLDER = "unsent"
_NAME = re.compile(r"[0-9]{15}-req_[0-9a-f]{8,48}\.json\Z")


class Unsent:
    """The posts of one host that wait for the remote."""

    def __init__(self, tree: Tree, source: Source) -> None:
        """Keep them below `tree`, this host's directory."""
        self._tree = tree
        self._source = source

    def names(self) -> list[str]:
        """Return what waits, oldest first."""
        with self._tree.words():
            return sorted(name for name in self._tree.names(FOLDER) if _NAME.match(name))

    def keep(self, body: Body) -> None:
        """Keep a post; on this disk for good when it returns."""
        with self._tree.words():
            at, tmp = self._tree.fd(FOLDER, make=True), self._tree.fd("tmp", make=True)
            draft = f"unsent.{self._source.token(8)}"
            self._tree.fs.create(draft, tmp, wire.dump_body(body), sync=True)
            self._tree.fs.rename(draft, tmp, f"{self._source.now():015d}-{body.id}.json", at)
            self._tree.fs.fsync(at)

    def read(self, name: str) -> Body | None:
        """Return a post; None if another process has sent it meanwhile, or it is damaged."""
        with self._tree.words(), suppress(FileNotFoundError, CorruptRecord):
            return wire.load_body(self._tree.fs.read(name, self._tree.fd(FOLDER), wire.MAX_FILE).data)
        return None

    def sent(self, names: list[str]) -> None:
        """Forget what the remote has."""
        with self._tree.words():
            for name in names:
                self._tree.drop(FOLDER, name)
