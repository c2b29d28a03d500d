"""The agent CLIs: which version, how they are had, and how they are run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from e2e import npm, settings
from e2e.settings import PROMPT, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RUN_S = 120


class Client(NamedTuple):
    """An agent CLI.

    Attributes:
        name: also the word that `mcp-bus hook` knows it by.
        eras: the revisions of the protocol that it can speak, and the environment that makes it; first its own choice.
        most: the bytes that the tools of the bus may take in its requests: ours, and what it adds.
        needs: what else it needs of npm.
    """

    name: str
    package: str
    version: str
    command: str
    setup: Callable[[settings.Place], tuple[list[str], dict[str, str]]]
    eras: Mapping[str, Mapping[str, str]]
    most: int
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as people would name it."""
        return f"{self.name} {self.version}"


MODERN, OLD = "2026-07-28", {"MCP_PROTOCOL_NEGOTIATION": "legacy"}
CLIENTS = (
    Client(
        "claude-code",
        "@anthropic-ai/claude-code",
        "2.1.331",
        "claude",
        settings.claude,
        {MODERN: {}, "2025-11-25": OLD},
        5750,
    ),
    Client("codex", "@openai/codex", "0.169.0", "codex", settings.codex, {"2025-06-18": {}}, 6600),
    Client("gemini-cli", "@google/gemini-cli", "0.61.0", "gemini", settings.gemini, {"2025-06-18": {}}, 9000),
    Client("opencode", "opencode-ai", "1.18.33", "opencode", settings.opencode, {"2025-11-25": {}}, 6050),
)
# Those whose hooks are not ours to set: what they do with tools is tried, and no more.
ALSO = (
    Client("copilot", "@github/copilot", "1.0.102", "copilot", settings.copilot, {MODERN: {}}, 6050),
    Client(
        "qwen", "@qwen-code/qwen-code", "0.24.4", "qwen", settings.qwen, {"2025-11-25": {}}, 5650, ("node@22.23.3",)
    ),
)
ALL = (*CLIENTS, *ALSO)


def install(client: Client) -> Path:
    """Return the client's command, from the cache or from npm.

    Raises:
        MissingProgram: it cannot be had here, or is another version than it says.
    """
    command = npm.fetch(client.name, client.package, client.version, client.command, *client.needs)
    done = _run([str(command), "--version"], npm.cache(), beside(command, plain(npm.cache())), RUN_S)
    if client.version not in done.stdout:
        msg = f"{client.command} --version says {done.stdout.strip()[:80]!r} {done.stderr.strip()[:200]!r}"
        raise npm.MissingProgram(msg)
    return command


def beside(program: Path, env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which what was installed with a program is found first."""
    return env | {"PATH": os.pathsep.join([str(program.parent), env["PATH"]])}


def plain(home: Path) -> dict[str, str]:
    """Return an environment in which nobody's settings and credentials count."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "CI": "1"}


def run(
    client: Client,
    command: Path,
    place: settings.Place,
    more: Sequence[str] = (),
    told: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a client once, without a terminal, until it is done.

    Args:
        more: options of its own.
        told: more of its environment.
    """
    words, env = client.setup(place)
    env = beside(command, plain(place.home)) | env | dict(told or {})
    if place.install:
        done = put(command, place, env, ["install", client.name, *place.install])
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        # Hooks inherit the bus; the server is told of it in the client's settings, as users do.
        env["MCP_BUS_DIR"] = str(place.bus)
    return _run([str(command), *words, *more], place.project, env, RUN_S)


def put(
    command: Path, place: settings.Place, env: dict[str, str], words: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Let `mcp-bus` put something into the settings of a client, or take it out, as a person would."""
    told = [str(Path(sys.executable).parent / "mcp-bus"), "--bus", str(place.bus), *words, "--yes"]
    return _run(told, place.project, beside(command, env), RUN_S)


def work(client: Client, command: Path, place: settings.Place) -> subprocess.CompletedProcess[str]:
    """Let a worker give one task of the channel `work` to a client, by the preset of its name, and end."""
    words, env = client.setup(place)
    # The preset has these already: the prompt, and the format of the output.
    said = {PROMPT, "-p", "-o", "--output-format", "json", "exec", "--skip-git-repo-check", "--json", "run", "--format"}
    env = beside(command, plain(place.home)) | env | {"MCP_BUS_DIR": str(place.bus)}
    options = ["--preset", client.command, "--tasks", "1"]
    told = [sys.executable, "-m", "mcp_bus", "--agent", "worker", "worker", "run", "work", *options]
    more = [word for word in words if word not in said]
    return _run([*told, *(["--", *more] if more else [])], place.project, env, RUN_S)


def example(
    client: Client, command: Path, place: settings.Place, words: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a program of `examples/`, by its path and options, in the project; the client and mcp-bus are on PATH."""
    _, env = client.setup(place)
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)}
    env["PATH"] = os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), env["PATH"]])
    return _run([str(ROOT / "examples" / words[0]), *words[1:]], place.project, env, RUN_S)


def talk(command: Path, place: settings.Place, messages: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """Say several things to one Claude Code, each when the one before is answered; return what it printed, by lines."""
    words, env = settings.claude(place)
    words = [word for word in words[: words.index("--output-format")] if word != PROMPT]
    words += ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose", *more]
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)}
    lines: list[str] = []
    with subprocess.Popen(
        [str(command), *words], cwd=place.project, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        late = threading.Timer(RUN_S, _kill, [process])
        late.start()
        try:
            for message in messages:
                lines += _said(process, message)
            process.communicate(timeout=RUN_S)
        finally:
            late.cancel()
            _kill(process)
    return lines


def _said(process: subprocess.Popen[str], message: str) -> list[str]:
    """Say something, and return what is printed until it was answered."""
    assert process.stdin
    assert process.stdout
    said = {"type": "user", "message": {"role": "user", "content": message}}
    print(json.dumps(said), file=process.stdin, flush=True)
    lines = list[str]()
    while line := process.stdout.readline():
        lines.append(line)
        if json.loads(line).get("type") == "result":
            break
    return lines


def _run(words: list[str], cwd: Path, env: dict[str, str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program in a process group of its own; what it left running, or all of it when it is late, is killed."""
    with subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            out, err = process.communicate(timeout=30)
            err += f"\n{words[0]} did not end within {limit_s} s"
        finally:
            _kill(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
