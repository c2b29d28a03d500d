"""A model that does what a script says: an HTTP server on 127.0.0.1 in the formats of four vendors.

Each request that offers the tools of the conversation, unless told those of the bus, takes one step of the script; what
a client asks besides (titles, token counts, lists of models) gets an answer that means nothing and takes none.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from e2e import dialects
from e2e.dialects import NAME, Say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from e2e.dialects import Dialect

# Every client puts the server's name somewhere before the tool's.
OURS = re.compile(r"(?:^|_)bus(?:[_-]|$)")


class Step(NamedTuple):
    """One answer of the model.

    Attributes:
        tool: the tool to call, as the server names it; empty for a text, which ends the model's turn.
        args: made from all that the model was sent.
        first: done before it answers, while the client waits.
        tokens: what it says that it was sent (to OpenAI's clients alone): a client that hears a large number compacts.
    """

    tool: str = ""
    args: Callable[[str], dict[str, Any]] = lambda _: {}
    text: str = "done"
    first: Callable[[], object] = lambda: None
    tokens: int = 1


class Offer(NamedTuple):
    """What a request tells of its tools.

    Attributes:
        names: all of them.
        ours: what it says of the bus's: each tool, or a namespace with tools in it, in the words of its dialect.
        results: what those that were called have answered so far, as the model gets to read it.
    """

    names: list[str]
    ours: list[dict[str, Any]]
    results: list[str]

    @property
    def size(self) -> int:
        """How many bytes the bus's tools take in the request."""
        return len(json.dumps(self.ours, separators=(",", ":"), ensure_ascii=False)[1:-1].encode())

    @property
    def number(self) -> int:
        """How many tools of the bus there are."""
        return sum(len(one["tools"]) if "tools" in one else 1 for one in self.ours)


class Model:
    """The server; `seen` is what each step was sent, as text in which JSON strings are read, `offers` its tools.

    `told` is what each was sent about tools.

    Args:
        steps: what to answer, in order; after the last, texts.
        marked_by: a tool that the conversation offers, and nothing else that the client asks.
    """

    def __init__(self, steps: Sequence[Step], marked_by: str = "read_inbox") -> None:
        self.seen: list[str] = []
        self.told: list[str] = []
        self.offers: list[Offer] = []
        self.failed: list[str] = []
        self._steps = list(steps)
        self._marked_by = marked_by
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"model": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, dialect: Dialect, body: dict[str, Any]) -> Say:
        """Take the next step, if this is a request of the conversation that the script is about."""
        offered = dialect.tools(body)
        if not any(name.endswith(self._marked_by) for name in offered):
            return Say(text="a title")
        with self._lock:
            said = "\n".join(_strings({key: value for key, value in body.items() if key != "tools"}))
            self.seen.append(said)
            self.told.append("\n".join(_strings(body.get("tools"))))
            ours = [one for one in dialect.listed(body) if OURS.search(one.get("function", one).get("name", ""))]
            self.offers.append(Offer(offered, ours, dialect.results(body)))
            number = len(self.seen)
            step = self._steps[number - 1] if number <= len(self._steps) else Step()
            try:
                step.first()
                names = [name for name in offered if step.tool and name.endswith(step.tool)]
                if step.tool:
                    # The shortest: Edit, not NotebookEdit.
                    return Say(tool=min(names, key=len), args=step.args(said), number=number, tokens=step.tokens)
            except Exception as error:  # noqa: BLE001  the test tells of it; the client must get an answer
                self.failed.append(f"step {number}, {step.tool}: {error!r}; offered: {offered}; sent: {said[-3000:]}")
            return Say(text=step.text, number=number)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


class _Handler(BaseHTTPRequestHandler):
    model: Model
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        """Say that somebody is there."""
        self._send(b"", "text/plain")

    def do_GET(self) -> None:
        """List the one model."""
        one = {"id": NAME, "object": "model", "slug": NAME, "display_name": NAME}
        self._json({"object": "list", "data": [one], "models": []})

    def do_POST(self) -> None:
        """Answer in the dialect that the path tells."""
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, body = urlsplit(self.path).path, {}
        with suppress(ValueError):
            body = json.loads(data)
        found = dialects.of(path)
        if found is None:
            self._json({"input_tokens": 1, "totalTokens": 1})
            return
        dialect, is_stream = found
        say = self.model.answer(dialect, body)
        if is_stream or body.get("stream"):
            self._send("".join(_event(*event) for event in dialect.events(say)).encode(), "text/event-stream")
        else:
            self._json(dialect.whole(say))

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        with suppress(ConnectionError):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def _event(name: str, data: Any) -> str:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
