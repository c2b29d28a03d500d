"""Servers on this machine that a git remote is reached by: git's own daemon, OpenSSH, and HTTP that may misbehave."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_S = 60.0
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
# Where a server that root starts wants an empty folder, whatever its settings say.
EMPTY = Path("/run/sshd")


def until(met: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < end, complaint
        threading.Event().wait(0.05)


def listens(port: int) -> bool:
    """Tell whether something answers on a port of this machine."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def daemon(place: Path) -> Iterator[int]:
    """Serve a folder as `git daemon` does on this machine; give its port."""
    port = free_port()
    words = ["daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    words = ["git", *words, f"--base-path={place}"]
    served = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: listens(port), "git daemon does not listen")
        yield port
    finally:
        os.killpg(served.pid, 15)
        served.wait()


class Sshd:
    """An OpenSSH server with keys of its own, and what a client needs to be let in: `GIT_SSH_COMMAND`."""

    def __init__(self, place: Path) -> None:
        if SSHD is None or shutil.which("ssh-keygen") is None:
            pytest.skip("there is no sshd here (openssh-server)")
        if os.geteuid() == 0:
            EMPTY.mkdir(mode=0o755, exist_ok=True)
        place.mkdir(mode=0o700)
        self.place, self.port = place, free_port()
        for name in ("host", "client", "stranger"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(place / name)]
            subprocess.run(words, check=True)
        (place / "let-in").write_bytes((place / "client.pub").read_bytes())
        (place / "known").write_text(f"[127.0.0.1]:{self.port} {(place / 'host.pub').read_text()}")
        (place / "unknown").touch()
        self._settings = place / "sshd_config"
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": place / "host",
            "AuthorizedKeysFile": place / "let-in",
            "PermitRootLogin": "prohibit-password",
            "PidFile": "none",
            "SetEnv": f"HOME={place}",  # So that its shell reads nothing of whoever runs the tests.
        }
        settings |= dict.fromkeys(("UsePAM", "StrictModes", "PasswordAuthentication", "UseDNS"), "no")
        settings |= {"KbdInteractiveAuthentication": "no"}
        self._settings.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._served: subprocess.Popen[bytes] | None = None
        self._socket = Path(tempfile.mkdtemp(prefix="ssh-")) / "%C"  # Its path may not be long.

    def address(self, remote: str) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{remote}"

    def command(self, *, key: str = "client", known: str = "known", is_shared: bool = False) -> str:
        """Return the ssh that reaches it, and nothing of whoever runs the tests.

        Args:
            is_shared: over one connection for all, which stays open, as many people have it.
        """
        there = self.place / f"ssh-{key}-{known}"
        there.write_text(
            f"IdentityFile {self.place / key}\nIdentitiesOnly yes\nUserKnownHostsFile {self.place / known}\n"
            "GlobalKnownHostsFile /dev/null\n"
            + f"ControlMaster auto\nControlPersist 60\nControlPath {self._socket}\n"
            * is_shared
        )
        return f"ssh -F {there}"

    def start(self) -> None:
        assert SSHD is not None
        words = [SSHD, "-D", "-e", "-f", str(self._settings)]
        self._served = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
        until(lambda: listens(self.port), "sshd does not listen")

    def end(self) -> None:
        for path in self._socket.parent.iterdir():
            subprocess.run(["ssh", "-S", str(path), "-O", "exit", "x"], check=False, capture_output=True)
        shutil.rmtree(self._socket.parent)
        self.stop()

    def stop(self) -> None:
        if self._served is not None:
            os.killpg(self._served.pid, 15)
            self._served.wait()
            self._served = None


@contextmanager
def sshd(place: Path) -> Iterator[Sshd]:
    """Serve this machine by ssh for who has the key."""
    served = Sshd(place)
    served.start()
    try:
        yield served
    finally:
        served.end()


class Http(BaseHTTPRequestHandler):
    """Serves a repository as git's own CGI does, or what `mode` says instead."""

    place: ClassVar[Path]
    mode: ClassVar[str] = "honest"
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        is_push = "git-receive-pack" in self.path
        match self.mode:
            case "silent":
                self.rfile.read()  # Until the client gives up.
            case "who are you":
                self.answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            case "read only" if is_push:
                self.answer(403, {}, b"no")
            case "elsewhere":
                self.answer(302, {"Location": f"file://{self.place}{self.path}"}, b"")
            case "page":
                self.answer(200, {"Content-Type": "text/html"}, b"<html><h1>Sign in</h1></html>")
            case "page of lines":
                self.answer(200, {"Content-Type": "text/html"}, b"<html>\n<h1>Sign in</h1>\n</html>\n")
            case "garbage":
                kind = f"application/x-{query.partition('=')[2]}-advertisement"
                self.answer(200, {"Content-Type": kind}, bytes(range(256)))
            case _:
                self.backend(path, query)

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, code: int, heads: dict[str, str], data: bytes) -> None:
        self.send_response(code)
        for name, value in heads.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def backend(self, path: str, query: str) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = os.environ | {
            "GIT_PROJECT_ROOT": str(self.place), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(data)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "", "REMOTE_USER": "ann",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=data, env=env, capture_output=True, check=False)
        heads, _, body = done.stdout.partition(b"\r\n\r\n")
        told = dict(line.split(": ", 1) for line in heads.decode().splitlines())
        self.answer(int(told.pop("Status", "200").split()[0]), told, body)


@contextmanager
def http(place: Path) -> Iterator[tuple[type[Http], str]]:
    """Serve a folder over HTTP on this machine; give what can be told to misbehave, and where it is."""
    there = Path(subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip())
    if not all((there / name).exists() for name in ("git-http-backend", "git-remote-http")):
        pytest.skip("this git does not speak HTTP (git-http-backend, git-remote-http)")
    handler = type("Handler", (Http,), {"place": place})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield handler, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        with suppress(OSError):
            server.server_close()
        thread.join()
