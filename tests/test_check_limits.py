"""The checks of this repository go red when something is planted, name the line, and pass when nothing is."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tools import check_limits, check_texts

if TYPE_CHECKING:
    from pathlib import Path

# Put together, or the check would find them here.
HOST = "py" + "pi.org"
URL = "https:" + "//example.org"
LINUX_HOME, MAC_HOME, OWN_HOME = "/" + "home/ada", "/" + "Users/ada", "/" + "root"
ELSEWHERE = "mcp_bus/watch.py"


class Tree:
    """A repository with one clean module, and room to plant something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)
        self.write("mcp_bus/clean.py", '"""Nothing to see."""\n')

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "checkout")


def limits(tree: Tree, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    return check_limits.main([str(tree.root)]), capsys.readouterr().out


PLANTED = {
    "a call": (ELSEWHERE, "import os\n\nos.rename('a', 'b')\n", f"{ELSEWHERE}:3: os.rename: only"),
    "an alias of a module": (ELSEWHERE, "import os as o\no.link('a', 'b')\n", ":2: os.link:"),
    "an alias of a function": (ELSEWHERE, "from os import replace as put\n", ":1: os.replace:"),
    "a function passed on": (ELSEWHERE, "import os\nsync = os.fsync\n", ":2: os.fsync:"),
    "a name in a string": (ELSEWHERE, "import os\ngetattr(os, 'unlink')('a')\n", ":2: os.unlink:"),
    "an import inside a function": (ELSEWHERE, "def f():\n    import os\n    os.mkdir('a')\n", ":3: os.mkdir:"),
    "a move": (ELSEWHERE, "import shutil\nshutil.move('a', 'b')\n", ":2: shutil.move:"),
    "a path's rename": (ELSEWHERE, "from pathlib import Path\nPath('a').rename('b')\n", ":2: .rename():"),
    "a path's unlink": (ELSEWHERE, "def f(path):\n    path.unlink()\n", ":2: .unlink():"),
    "a path's replace": (ELSEWHERE, "def f(path, to):\n    path.replace(to)\n", ":2: .replace():"),
    "a file of the store": ("mcp_bus/stores/file.py", "import os\nos.fsync(1)\n", "file.py:2: os.fsync:"),
    "the environment": (ELSEWHERE, "import os\nx = os.environ['A']\n", ":2: os.environ: only mcp_bus/config.py"),
    "the environment by a function": (ELSEWHERE, "from os import getenv\n", ":1: os.getenv:"),
    "the home directory": (ELSEWHERE, "from pathlib import Path\nx = Path.home()\n", ":2: pathlib.Path.home:"),
    "a tilde": (ELSEWHERE, "def f(path):\n    return path.expanduser()\n", ":2: .expanduser():"),
    "the protocol in the demo's stage": ("mcp_bus/demo/stage.py", "import mcp\n", "stage.py:1: mcp: only"),
    "the protocol": (ELSEWHERE, "from mcp.server import Server\n", ":1: mcp: only mcp_bus/server/ knows MCP"),
    "its types": (ELSEWHERE, "import mcp_types\n", ":1: mcp_types: only"),
    "a sleep": (ELSEWHERE, "import time\ntime.sleep(1)\n", ":2: time.sleep: wait for"),
    "a sleep in a test": ("tests/test_it.py", "from time import sleep\n", "tests/test_it.py:1: time.sleep:"),
    "a bare noqa": (ELSEWHERE, "import os  # noqa: F401\n", ":1: a check is silenced without a reason"),
    "a bare noqa for two": (ELSEWHERE, "import os  # noqa: F401, PLC0415\n", ":1: a check is silenced"),
    "a noqa for everything": (ELSEWHERE, "import os  # noqa\n", ":1: a check is silenced"),
    "a bare noqa for a file": (ELSEWHERE, "# ruff: noqa: S101\n", ":1: a check is silenced"),
    "a bare ignore": (ELSEWHERE, "x = 1  # type: ignore[arg-type]\n", ":1: a check is silenced"),
    "what is no Python": (ELSEWHERE, "x = 1\ndef\n", f"{ELSEWHERE}:2: invalid syntax: Python 3"),
    "a long module": ("examples/long.py", "x = 1\n" * 401, "examples/long.py:401: 401 lines, 400 are allowed"),
    "a long README": ("README.md", "x\n" * 201, "README.md:201: 201 lines"),
    "a long overview": ("ARCHITECTURE.md", "x\n" * 251, "ARCHITECTURE.md:251: 251 lines"),
    "a long decision": ("docs/decisions/0001-x.md", "x\n" * 121, "0001-x.md:121: 121 lines"),
    "an optional layer that exists": (
        "pyproject.toml",
        '[[tool.importlinter.contracts]]\nlayers = ["cli", "draft : (clean)"]\n',
        "layer clean is optional: it exists now",
    ),
}

ALLOWED = {
    "fsops": ("mcp_bus/stores/fsops.py", "import os\nos.rename('a', 'b')\n"),
    "the seam of fsops": ("mcp_bus/stores/file.py", "def f(tree):\n    tree.fs.rename('a', 1, 'b', 1)\n"),
    "a string's replace": (ELSEWHERE, "x = 'a'.replace('a', 'b')\n"),
    "a date's replace": (ELSEWHERE, "def f(at):\n    return at.replace(hour=1)\n"),
    "a value's replace": (ELSEWHERE, "from dataclasses import replace\n\ndef f(x):\n    return replace(x, a=1)\n"),
    "config": ("mcp_bus/config.py", "import os\nx = os.environ\n"),
    "the server": ("mcp_bus/server/app.py", "from mcp import types\n"),
    "the demo's agent": ("mcp_bus/demo/agent.py", "from mcp.client import Client\n"),
    "a test that cuts": ("tests/test_it.py", "import os\nos.rename('a', 'b')\nx = os.environ\n"),
    "words about it": (ELSEWHERE, '"""Never os.rename here."""\n'),
    "a namesake": (ELSEWHERE, "from mcp_bus import errors\nimport mcp_bus.errors\n"),
    "a noqa with a reason": (ELSEWHERE, "import os  # noqa: F401  for the side effect\n"),
    "an ignore with a reason": (ELSEWHERE, "x = 1  # type: ignore[arg-type]  # it is a pipe\n"),
    "a module at the limit": ("examples/long.py", "x = 1\n" * 400),
    "another README": ("examples/README.md", "x\n" * 201),
    "an optional layer to come": ("pyproject.toml", '[[tool.importlinter.contracts]]\nlayers = ["(plan)"]\n'),
}


@pytest.mark.parametrize(("path", "text", "said"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found(
    tree: Tree, capsys: pytest.CaptureFixture[str], path: str, text: str, said: str
) -> None:
    tree.write(path, text)
    code, out = limits(tree, capsys)
    assert code == 1
    assert said in out


@pytest.mark.parametrize(("path", "text"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_passes(tree: Tree, capsys: pytest.CaptureFixture[str], path: str, text: str) -> None:
    tree.write(path, text)
    code, out = limits(tree, capsys)
    assert (code, out) == (0, "limits: 2 files, 0 findings\n")


def test_a_check_of_nothing_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot list the files"):
        check_limits.main([str(tmp_path)])
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(SystemExit, match="there are none"):
        check_texts.main([str(tmp_path)])


def test_what_git_ignores_is_not_checked(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.write(".gitignore", "/made/\n")
    tree.write("made/long.py", "x = 1\n" * 401)
    assert limits(tree, capsys)[0] == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("requirements.txt", f"Made from {HOST}\n"),
        ("docs/a.md", f"Get it from {HOST.upper()}.\n"),
        ("docs/a.md", f"--index-url {URL}/simple\n"),
        ("docs/a.md", f"See {URL}/a-1.0-py3-none-any.whl\n"),
        ("docs/a.md", f"Run it in {LINUX_HOME}/there\n"),
        ("docs/a.md", f"Run it in {MAC_HOME}\n"),
        ("uv.lock", "version = 1\n"),
    ],
)
def test_addresses_and_paths_are_found(tree: Tree, capsys: pytest.CaptureFixture[str], path: str, text: str) -> None:
    tree.write(path, text)
    assert check_texts.main([str(tree.root)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:1: ")


def test_paths_of_this_machine_are_found(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", OWN_HOME)
    tree.write("a.md", f"fine\n{tree.root}/x\n")
    tree.write("b.md", f"fine\nsee `{tree.root.parent}/other`\n")
    tree.write("c.md", f"fine\n{OWN_HOME}/.config\n")
    assert check_texts.main([str(tree.root)]) == 1
    assert [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()[:-1]] == [
        "a.md:2",
        "b.md:2",
        "c.md:2",
    ]


def test_paths_and_addresses_that_any_reader_has_pass(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.write("a.md", "/home/you/x, /tmp/x, ~/.config, https://example.org/docs, any.py\n")
    tree.write("b.bin", f"\0{HOST}")
    assert check_texts.main([str(tree.root)]) == 0
    assert capsys.readouterr().out == "texts: 3 files, 0 findings\n"
