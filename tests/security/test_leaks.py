"""Neither the token of HTTP, nor a private key, nor another's lease token is in what a server or a verb says or logs.

A real server at its most talkative is asked well and badly, its tools fail inside, and the verbs that look after a bus
are run beside it; then everything that any of them wrote is searched.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus import open_bus
from tests.server.http_process import JSON, TOKEN, Http, hello, serving_http
from tests.server.support import WAIT_S, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEBUG = {"MCP_BUS_LOG_LEVEL": "debug"}
MODERN = "2026-07-28"
VERBS = (
    ["doctor", "--json"], ["status", "--json"], ["log", "--json"], ["key", "list"], ["key", "list", "--json"],
    ["key", "export", "ann"], ["fsck", "--json"], ["abq", "check", "--verbose"],
)  # fmt: skip


class Secrets(NamedTuple):
    """What nobody else may see."""

    http: str
    private: str
    lease: str
    own: str = "not claimed yet"  # What the client itself claims.

    old: str = "not claimed yet"  # And what one of the handshake era does.

    def found(self, text: str) -> list[str]:
        """Return which of them are in a text, as they are or as base64 has them."""
        coded = base64.b64encode(f"Bearer {self.http}".encode()).decode().rstrip("=")
        return [name for name, value in (*self._asdict().items(), ("coded", coded)) if value in text]


class Scene:
    """A bus with a key and a task that somebody holds, a server on it, and all that was said."""

    def __init__(self, place: Path, http: Http, secrets: Secrets) -> None:
        self.place, self.http, self.secrets = place, http, secrets
        self.said = dict[str, str]()

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb beside the server, and keep what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "mcp_bus", *words], capture_output=True, text=True, timeout=WAIT_S, check=False,
            cwd=self.place, stdin=subprocess.DEVNULL,
            env=environment(self.place, MCP_BUS_DIR=str(self.place / "bus"), MCP_BUS_AGENT="ann") | DEBUG,
        )  # fmt: skip
        self.said[" ".join(words)] = done.stdout + done.stderr
        return done

    def ask(self, name: str, body: object = None, path: str = "/mcp/eve", **headers: str) -> str:
        """Send a request, and keep what is answered."""
        answer = self.http.raw("POST", path, body, JSON | {k.replace("_", "-"): v for k, v in headers.items()})
        text = f"{answer.status} {answer.headers} {answer.body.decode(errors='replace')}"
        self.said[f"request {len(self.said)}: {name}"] = text
        return text

    def tool(self, name: str, **arguments: object) -> str:
        """Call a tool as a client of the modern era does, in one request."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": name, "arguments": arguments, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return self.ask(
            f"{name} {sorted(arguments)}", body, MCP_Protocol_Version=MODERN, MCP_Method="tools/call", MCP_Name=name
        )

    def written(self) -> dict[str, str]:
        """Return what lies where everybody looks: the journal, the manifest, and what the server logged."""
        paths = [*(self.place / "bus" / "journal").iterdir(), *(self.place / "bus").glob("*.json")]
        paths += [self.place / "http-stderr"]
        return {path.name: path.read_text(errors="replace") for path in paths}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_bus(tmp_path / "bus", agent="bob") as bob:
        bob.post("work", "x")
        task = bob.claim(["work"]) or pytest.fail("nothing to claim")
        made = Scene(tmp_path, None, Secrets(TOKEN, "", task.lease.token))  # type: ignore[arg-type]  # it comes
        done = made.verb("key", "new", "ann", "--json")
        assert done.returncode == 0, done.stderr
        private = tmp_path / ".local" / "state" / "mcp-bus" / "keys" / f"{json.loads(done.stdout)['kid']}.json"
        made.secrets = made.secrets._replace(private=json.loads(private.read_text())["jwk"]["d"])
        with serving_http(tmp_path, **DEBUG) as made.http:
            yield made


def asked(scene: Scene) -> None:
    """Ask the server well and badly."""
    ask, lease = scene.ask, scene.secrets.lease
    assert scene.ask("hello", hello()).startswith("200")
    for said in (f"Bearer {TOKEN}x", f"Bearer x{TOKEN}", f"Basic {TOKEN}", TOKEN, "Bearer ", f"bearer  {TOKEN} "):
        ask(f"token {said}", hello(), Authorization=said)
    assert ask("host", hello(), Host="evil.example").startswith("421")
    ask("origin", hello(), Origin="http://evil.example")
    ask("path", hello(), path=f"/else?token={TOKEN}")
    ask("reserved", hello(), path="/mcp/human")
    ask("no JSON", b"{" + TOKEN.encode()[:4])
    ask("a list", [hello()] * 3)
    ask("deep", b"[" * 20_000)
    assert ask("oversized", b" " * (9 * 1024 * 1024)).startswith("413")
    ask("another type", hello(), Content_Type="text/plain")
    ask("no such method", {"jsonrpc": "2.0", "id": 1, "method": "nope", "params": {"_meta": {}}})
    ask("a session that is none", hello(), Mcp_Session_Id="0" * 32)
    assert "work" in scene.tool("list_channels")
    scene.tool("post_task", channel="own", body="x")
    own = re.search(r"task (\w{8}) token (\w+)", scene.tool("claim_next", channels=["own"]))
    assert own is not None
    scene.said.popitem()  # It is for the client, and for nobody else.
    scene.secrets = scene.secrets._replace(own=own[2])
    assert "error" not in scene.tool("submit_result", task=own[1], token=own[2], result="done")
    task = next(iter((scene.place / "bus" / "tasks").iterdir())).stem
    for wrong in ("0" * len(lease), "", "x" * 300):
        assert "next: " in scene.tool("heartbeat", task=task, token=wrong)
        scene.tool("submit_result", task=task, token=wrong, result="mine")
    for name in ("get_task", "control_task", "find_tasks", "await_results", "post_task", "nope"):
        scene.tool(name, task=task, action="release", tasks=[task], text="x")
        scene.tool(name, task=task)


def spoken_of_old(scene: Scene) -> None:
    """Claim and finish as a client of the handshake era does, whose answers come as a stream of events."""
    opened = scene.http.raw("POST", "/mcp/old", hello(), JSON)
    mine = JSON | {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    scene.http.raw("POST", "/mcp/old", {"jsonrpc": "2.0", "method": "notifications/initialized"}, mine)

    def call(name: str, **arguments: object) -> str:
        params = {"name": name, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        return scene.http.raw("POST", "/mcp/old", body, mine).body.decode()

    posted = call("post_task", channel="former", body="x")
    assert "posted" in posted, posted
    text = call("claim_next", channels=["former"])
    own = re.search(r"task (\w{8}) token (\w+)", text)
    assert own is not None, text
    scene.secrets = scene.secrets._replace(old=own[2])
    assert "done" in call("submit_result", task=own[1], token=own[2], result="done")


def broken(scene: Scene) -> None:
    """Let tools fail inside: rules that cannot be read, a folder that is a file, and a bus that has gone."""
    channel = scene.place / "bus" / "channels" / "work"
    (channel / "channel.json").write_text('{"read_by": 7}')
    scene.tool("claim_next", channels=["work"])
    scene.tool("get_task", task="req_01234567")
    (channel / "requests").rename(channel / "elsewhere")
    (channel / "requests").write_text("x")
    for name in ("claim_next", "list_channels", "find_tasks"):
        scene.tool(name)
    scene.tool("post_task", channel="work", body="x")
    (scene.place / "bus" / "bus.json").write_text("{")
    for name in ("claim_next", "list_channels", "find_tasks"):
        scene.tool(name)
    scene.verb("status")


def test_no_secret_is_in_what_a_talkative_server_and_the_verbs_say_about_good_and_bad_requests(scene: Scene) -> None:
    asked(scene)
    spoken_of_old(scene)
    for words in VERBS:
        scene.verb(*words)
    broken(scene)
    said = scene.said | scene.written()
    leaks = {name: found for name, text in said.items() if (found := scene.secrets.found(text))}
    assert not leaks, {name: said[name][:600] for name in leaks}
    assert len(said["http-stderr"]) > 100, "it said nothing, which proves nothing"
    assert "Traceback" not in "".join(text for name, text in scene.said.items() if name.startswith("request"))


def test_a_leak_would_be_seen(scene: Scene) -> None:
    """Where each secret is meant to be, the search finds it: in the file, and in the answer to its holder."""
    private = next((scene.place / ".local" / "state" / "mcp-bus" / "keys").iterdir()).read_text()
    names = " ".join(path.name for path in (scene.place / "bus" / "channels" / "work" / "processing").iterdir())
    assert scene.secrets.found(private) == ["private"]
    assert scene.secrets.found(names) == ["lease"]
    assert scene.secrets.found((scene.place / "token").read_text()) == ["http"]
    assert scene.secrets.found(base64.b64encode(f"Bearer {TOKEN}".encode()).decode()) == ["coded"]
    with (scene.place / "http-stderr").open("a") as file:
        file.write(f"DEBUG headers: [(b'authorization', b'Bearer {TOKEN}')]")
    assert [name for name, text in scene.written().items() if scene.secrets.found(text)] == ["http-stderr"]
