"""What each verb loads: a command line that starts fast is one that imports little."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.main import VERBS

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

# Each costs milliseconds, and belongs to the server or to nothing a verb does.
HEAVY = frozenset(
    {
        "anyio",
        "asyncio",
        "concurrent",
        "cryptography",
        "ctypes",
        "difflib",
        "email",
        "http",
        "importlib.metadata",
        "logging",
        "mcp",
        "mcp_types",
        "multiprocessing",
        "platform",
        "pydantic",
        "pydantic_core",
        "pyrage",
        "shutil",
        "ssl",
        "subprocess",
        "tempfile",
        "tomllib",
        "traceback",
        "unittest",
        "uuid",
        "zipfile",
    }
)
# Verb: how it is called, and which of the heavy ones it may load all the same.
CALLS: dict[str, tuple[list[str], set[str]]] = {
    "post": (["work", "x"], set()),
    "claim": (["work"], {"ctypes"}),  # inotify is reached through it
    "heartbeat": (["deadbeef", "--token", "abcdef"], set()),
    "submit": (["deadbeef", "--token", "abcdef", "--done", "x"], set()),
    "plan": (["list"], set()),
    "worker": (["run", "--help"], set()),
    "watch": (["--help"], set()),
    "pipe": (["list"], set()),
    "key": (["list"], set()),
    "wait": (["TASK", "--timeout", "0"], {"ctypes"}),
    "show": (["TASK"], set()),
    "find": (["words"], set()),
    "ls": ([], set()),
    "status": ([], set()),
    "log": ([], set()),
    "tail": ([], set()),
    "export": ([], set()),
    "send": (["human", "x"], set()),
    "inbox": ([], {"ctypes"}),  # it may wait, as claim
    "trace": (["deadbeef"], set()),
    "agents": ([], set()),
    "subscribe": (["news"], set()),
    "unsubscribe": (["news"], set()),
    "bids": (["deadbeef"], set()),
    "award": (["deadbeef"], set()),
    "retry": (["deadbeef"], set()),
    "requeue": (["deadbeef"], set()),
    "discard": (["deadbeef"], set()),
    "undo": (["deadbeef"], set()),
    "cancel": (["deadbeef"], set()),
    "reprioritise": (["deadbeef", "--priority", "1"], set()),
    "sweep": ([], set()),
    "sync": (["--help"], set()),
    "fsck": (["--help"], set()),
    "init": ([], set()),
    "install": (["--list"], {"shutil", "difflib"}),
    "uninstall": (["--list"], {"shutil", "difflib"}),
    "doctor": (["--help"], {"shutil", "difflib"}),
    "config": ([], set()),
    "profile": (["show"], set()),
    "skills": (["list"], set()),
    "completion": (["bash"], set()),
    "channel": (["list"], set()),
    "abq": (["status"], set()),
    "version": ([], {"email", "importlib.metadata", "shutil", "tempfile", "zipfile"}),
    "serve": (["--help"], set()),
    "hook": (["claude-code", "SessionStart"], set()),
    "demo": (["--help"], set()),
}
# Modules of ours that belong to other verbs.
OWN = {
    "tasks": {"post", "claim", "heartbeat", "submit", "wait"},
    "look": {"show", "find", "ls"},
    "letters": {"send", "inbox", "trace"},
    "agents": {"agents"},
    "topics": {"subscribe", "unsubscribe"},
    "bidding": {"bids", "award"},
    "status": {"status"},
    "log": {"log", "tail"},
    "export": {"export"},
    "fix": {"retry", "requeue", "discard", "undo", "cancel", "reprioritise", "sweep"},
    "fsck": {"fsck"},
    "sync": {"sync"},
    "skills": {"skills"},
    "setup": {"init", "config", "version"},
    "channels": {"channel"},
    "profile": {"profile"},
    "serve": {"serve", "demo"},
    "hook": {"hook"},
    "install": {"install", "uninstall", "doctor"},
    "doctor": {"doctor"},
    "checkups": {"doctor"},
    "checkclients": {"doctor"},
    "completion": {"completion"},
    "completing": set(),
}
SPY = """
import json, sys
from mcp_bus.cli.main import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(cli: Cli, *words: str) -> set[str]:
    """Return the modules a process has loaded after a verb."""
    done = subprocess.run(
        [sys.executable, "-c", SPY, "--quiet", *words],
        env=cli.env, cwd=cli.home, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_every_verb_is_looked_at() -> None:
    assert CALLS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", CALLS)
def test_a_verb_loads_nothing_heavy_and_no_other_verbs(cli: Cli, verb: str) -> None:
    modules = loaded(cli, verb, *(cli.post() if word == "TASK" else word for word in CALLS[verb][0]))
    tops = modules | {name.partition(".")[0] for name in modules}
    assert (tops & HEAVY) - CALLS[verb][1] == set()
    ours = {name.rpartition(".")[2] for name in modules if name.startswith("mcp_bus.cli.")}
    assert {module for module, verbs in OWN.items() if module in ours and verb not in verbs} == set()
    assert not any(name.startswith(("mcp_bus.server", "mcp_bus.demo")) for name in modules)


def test_what_completes_a_line_loads_nothing_heavy(cli: Cli) -> None:
    cli.dead()
    modules = loaded(cli, "complete", "bash", "", "retry", "")
    assert "mcp_bus.cli.known" in modules
    assert (modules | {name.partition(".")[0] for name in modules}) & HEAVY == set()
