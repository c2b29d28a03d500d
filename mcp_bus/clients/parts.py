"""What of ours can be in a file of a client: its server's entry, or a whole file.  Pure.

`hooking` and `blocks` have two more.  A file may hold several: each is put into, or taken out of, the text that the one
before it left.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mcp_bus.clients import renewal, started, texts
from mcp_bus.clients.known import NAME
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_bus.clients.known import Client

SERVER, HOOKS, AGENTS_MD, SKILL = "server", "hooks", "agents-md", "skill"
ADDED, REPLACED, SAME, REMOVED, ABSENT = "added", "replaced", "as it was", "removed", "not there"
OTHERS = "somebody else's"


def given(name: str) -> str:
    """Return a text that clients are given, by the name of its file."""
    return (Path(__file__).parent / "given" / name).read_text("utf-8")


class Part(Protocol):
    """One thing of ours in a file."""

    @property
    def name(self) -> str:
        """Which of `SERVER`, `HOOKS`, `AGENTS_MD`, `SKILL` it is."""

    def put(self, text: str, *, is_known: bool, is_forced: bool) -> tuple[str, str]:
        """Return a text with it, and what became of it: `ADDED`, `REPLACED` or `SAME`.

        Args:
            is_known: whether the text is, to the byte, what we once made of it.
            is_forced: whether what has its name and is somebody else's is replaced.

        Raises:
            InvalidRequest: the text cannot be read, or what has its name is somebody else's.
        """

    def drop(self, text: str, *, is_known: bool) -> tuple[str | None, str]:
        """Return a text without it, None for no file, and what became of it: `REMOVED`, `ABSENT` or `OTHERS`.

        Raises:
            InvalidRequest: the text cannot be read, or cannot be changed by that alone.
        """


class Entry(NamedTuple):
    """The entry of the server, in a client's settings."""

    client: Client
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """It is the server."""
        return SERVER

    @property
    def _path(self) -> Sequence[str]:
        return (*self.client.path, NAME)

    def put(self, text: str, *, is_known: bool, is_forced: bool) -> tuple[str, str]:  # noqa: ARG002  of every part
        """Return settings with it: one that is there keeps what a person has set in it, unless forced; see `Part`."""
        known = texts.entry(texts.read(text, self.client.form), self._path)
        if known == self.entry:
            return text, SAME
        if known is None or is_forced:
            made = texts.put(text, self.client.form, self._path, self.entry)
            return made, ADDED if known is None else REPLACED
        if not isinstance(known, dict) or not started.is_ours(known):
            msg = f"it has a server called {NAME!r} that starts something else"
            raise InvalidRequest(msg, hint="rename that one, or --force replaces it")
        wanted = started.renewed(known, self.entry)
        if wanted == known:
            return text, SAME
        return renewal.renew(text, self.client.form, self._path, wanted), REPLACED

    def drop(self, text: str, *, is_known: bool) -> tuple[str | None, str]:  # noqa: ARG002  as above
        """Return settings without it; see `Part`."""
        known = texts.entry(texts.read(text, self.client.form), self._path)
        if known is None or not started.is_ours(known):
            return text, ABSENT
        started.check(known)
        return texts.drop(text, self.client.form, self._path), REMOVED


class Whole(NamedTuple):
    """A file that is all ours.

    Attributes:
        name: see `Part`.
        text: what is in it.
        varies: a pattern of what may be different in one that is ours all the same; empty for nothing.
    """

    name: str
    text: str
    varies: str = ""

    def put(self, text: str, *, is_known: bool, is_forced: bool) -> tuple[str, str]:
        """Return its text; see `Part`."""
        if text == self.text:
            return text, SAME
        if text.strip() and not is_forced and not is_known and not self._is_ours(text):
            msg = "it is somebody else's, or was changed by hand"
            raise InvalidRequest(msg, hint="rename it, or --force replaces it")
        return self.text, REPLACED if text.strip() else ADDED

    def drop(self, text: str, *, is_known: bool) -> tuple[str | None, str]:
        """Return that there is to be no file; see `Part`."""
        if is_known or self._is_ours(text):
            return None, REMOVED
        return text, OTHERS if text.strip() else ABSENT

    def _is_ours(self, text: str) -> bool:
        if not self.varies:
            return text == self.text
        return re.sub(self.varies, "", text) == re.sub(self.varies, "", self.text)
