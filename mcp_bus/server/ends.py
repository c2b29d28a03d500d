"""Ends of named pipes that a session holds open between its calls.

A model's calls come one by one, and a stream does not end between them.  So the session keeps the end that a call
opened until the model closes it, its other end ends, or the session does; then the system tells the other end.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.pipes import ReadingEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.pipes import Pipes, WritingEnd

MOST_OPEN = 16


class End:
    """One end of a pipe.

    Attributes:
        total: bytes that were handed over, or shown.
        kept: bytes that were taken out of the pipe and not shown yet.
        is_busy: whether a call waits at it.
    """

    def __init__(self, name: str, pipe: ReadingEnd | WritingEnd) -> None:
        """Hold an open end."""
        self.name = name
        self.pipe = pipe
        self.total = 0
        self.kept = b""
        self.is_busy = False
        self._is_closed = False
        self._shown: tuple[str | int | None, bytes] = (None, b"")

    @property
    def is_spent(self) -> bool:
        """Whether it is at its end, and all was shown."""
        return isinstance(self.pipe, ReadingEnd) and self.pipe.is_over and not self.kept

    @property
    def is_alone(self) -> bool:
        """Whether nobody ever came to the other end; a writing end is opened only once somebody reads."""
        return isinstance(self.pipe, ReadingEnd) and not self.pipe.was_met and not self.kept

    def fill(self, size: int) -> None:
        """Take what can be read now, until so much is kept.

        At its end it is closed: while it is open, the next writer thinks that somebody reads.
        """
        pipe = self.pipe
        while isinstance(pipe, ReadingEnd) and not pipe.is_over and len(self.kept) < size:
            data = pipe.take(size - len(self.kept))
            self.kept += data
            if pipe.is_over:
                self.close()
            if not data:
                return

    def close(self) -> None:
        """Close it, if it is open: the system tells the other end.  Where a call waits at it, that does it last."""
        self._is_closed = True
        if not self.is_busy and self.pipe.fd >= 0:
            os.close(self.pipe.fd)
            self.pipe.fd = -1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep other calls of this session away."""
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False
            if self._is_closed:
                self.close()

    def show(self, size: int, request_id: str | int | None) -> None:
        """Note that an answer shows so many of the bytes that are kept, and which one if it may not arrive."""
        self._shown = (request_id, self.kept[:size])
        self.kept = self.kept[size:]
        self.total += size

    def take_back(self, request_id: str | int) -> None:
        """Keep again what an answer showed that nobody waited for."""
        if self._shown[0] == request_id:
            self.kept = self._shown[1] + self.kept
            self.total -= len(self._shown[1])
            self._shown = (None, b"")


class Ends:
    """The ends that a session holds open, by the names of their pipes."""

    def __init__(self) -> None:
        """Hold none."""
        self._open: dict[str, End] = {}

    def find(self, name: str, kind: type[ReadingEnd | WritingEnd], pipes: Pipes) -> End | None:
        """Return the end of a pipe that is open and can go on; None if there is none.

        Raises:
            InvalidRequest: it is the other end, or a call waits at it.
        """
        end = self._open.get(name)
        if end is None:
            return None
        self._check_idle(end)
        end.fill(1)
        if end.is_spent or (end.is_alone and not pipes.has(name, end.pipe.fd)):
            self.drop(name)
            return None
        if not isinstance(end.pipe, kind):
            msg = f"this session holds the other end of {name!r}"
            raise InvalidRequest(msg, hint="close it first, or use a pipe for each direction")
        return end

    def check_room(self) -> None:
        """Refuse one end too many, before it is opened: opening it and closing it again would end the other's stream.

        Raises:
            InvalidRequest: there are too many.
        """
        for spent in [known for known, other in self._open.items() if other.is_spent]:
            self.drop(spent)
        if len(self._open) >= MOST_OPEN:
            msg = f"this session holds {MOST_OPEN} pipes open"
            raise InvalidRequest(msg, hint=f"close one: {', '.join(self._open)}")

    def add(self, name: str, pipe: ReadingEnd | WritingEnd) -> End:
        """Hold an end that was opened just now.

        Raises:
            InvalidRequest: another call opened one meanwhile.
        """
        end = End(name, pipe)
        if name in self._open:
            end.close()
            msg = f"another call of this session opened {name!r}"
            raise InvalidRequest(msg, hint="repeat the call")
        self._open[name] = end
        return end

    def close(self, name: str) -> End:
        """Close the end of a pipe; return it as it was.

        Raises:
            NotFound: none is open.
        """
        end = self._open.get(name)
        if end is None:
            msg = f"no end of {name[:60]!r} is open here"
            raise NotFound(msg, hint=f"open: {', '.join(self._open) or 'none'}")
        self._check_idle(end)
        self.drop(name)
        return end

    def drop(self, name: str) -> None:
        """Close the end of a pipe, if one is open."""
        end = self._open.pop(name, None)
        if end is not None:
            end.close()

    def close_all(self) -> None:
        """Close them all: whoever is at the other ends is told by the system."""
        for name in list(self._open):
            self.drop(name)

    def take_back(self, request_id: str | int) -> None:
        """Keep again what the answer to a request showed, because nobody waited for it."""
        for end in self._open.values():
            end.take_back(request_id)

    def _check_idle(self, end: End) -> None:
        if end.is_busy:
            msg = f"another call of this session waits at {end.name!r}"
            raise InvalidRequest(msg, hint="wait until it has answered, or cancel it")
