"""What a store keeps beside its tasks: small documents, and results as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


# When a document was last touched, where a medium keeps no times of files: it stands in the document.
AT = "touched"


class Record(NamedTuple):
    """A small document that is replaced as a whole: which revision of it this is, and when it was last touched."""

    revision: int
    data: Mapping[str, Any]
    touched: int


class Records(Protocol):
    """Keeps small documents by kind and name, such as who is there and what a subscriber has read.

    A document is replaced by compare-and-swap on its revision, so that two writers never undo one another.
    """

    def names(self, kind: str) -> list[str]:
        """Return the names of all documents of a kind, sorted."""
        ...

    def all(self, kind: str) -> dict[str, Record]:
        """Return the latest readable revision of every document of a kind, by name."""
        ...

    def read(self, kind: str, name: str) -> Record | None:
        """Return the latest readable revision of a document, or None if there is none."""
        ...

    def write(self, kind: str, name: str, data: Mapping[str, Any], *, after: int, durable: bool) -> int:
        """Write the revision that follows `after` (0 for a new document); return its number.

        Args:
            durable: on disk for good when this returns; otherwise a power cut may take the whole document.

        Raises:
            Conflict: someone else wrote meanwhile; read again and decide again.  What they wrote may contain this
                write already, so that writing again must be harmless.
        """
        ...

    def touch(self, kind: str, name: str) -> bool:
        """Note that a document still holds; False if it is gone."""
        ...

    def remove(self, kind: str, name: str) -> None:
        """Forget a document."""
        ...

    def write_text(self, kind: str, name: str, text: str) -> None:
        """Write down beside the documents what people read, whole or not at all, over what is there."""
        ...

    def text(self, kind: str, name: str) -> str | None:
        """Return what is written down for people beside the documents, or None if there is nothing to read."""
        ...


class Outputs(Protocol):
    """Keeps results as text for people.  Derived: nothing reads one back, and losing all of them loses nothing."""

    def ids(self) -> set[str]:
        """Return the ids of the tasks that have one, as far as a listing can tell."""
        ...

    def write(self, task_id: str, data: bytes) -> None:
        """Write the one of a task, whole or not at all, over one that is there.

        Raises:
            CorruptRecord: something else is where they belong.
        """
        ...

    def remove(self, task_id: str) -> None:
        """Remove the one of a task, if it is there."""
        ...
