"""Runs the examples of one Markdown file, in order, the way a reader would.

console   `$ command` lines go to one bash per file; the lines below are what it must print, `...`
          stands for anything; no lines below: anything.  It must exit with 0, or with what a
          `# exits N` at the end of the command says.  `> ` continues a command.
python    runs in one namespace per file.
json, toml   must parse.
text, mermaid   are only read.

Any other fence fails, and so does an indented block: an example nobody runs goes stale unseen.
`<!-- not run: why -->` directly above a block excuses it.  All happens in an empty folder with an
empty home, where `examples` leads to the examples of this repository.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from markdown_it import MarkdownIt

from mcp_bus import planfile
from mcp_bus.cli import planyaml
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 60.0
READ_ONLY = ("text", "mermaid")
_EXCUSE = re.compile(r"<!--\s*not run:(?P<why>.*?)-->", re.DOTALL)
_EXITS = re.compile(r"#\s*exits (?P<code>\d+)\s*$")


class Block(NamedTuple):
    """A fenced block: its language, text, and the line its text starts on (counted from 1)."""

    language: str
    text: str
    line: int
    excuse: str | None = None


class Step(NamedTuple):
    """A command of a console block, and what it should print; None if that was left out."""

    command: str
    wanted: str | None
    line: int
    code: int


def blocks(text: str) -> Iterator[Block]:
    """Find the code blocks of a Markdown text, with the excuse that stands above them.

    Raises:
        ValueError: an excuse has no reason, or no block below it.
    """
    excuse: str | None = None
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block") and token.map:
            fenced = token.type == "fence"
            language = (token.info.split() or ["a fence without a language"])[0] if fenced else "an indented block"
            yield Block(language, token.content, token.map[0] + 1 + fenced, excuse)
            excuse = None
        elif excuse is not None:
            msg = f"no block follows `not run: {excuse}`"
            raise ValueError(msg)
        elif token.type == "html_block" and (said := _EXCUSE.search(token.content)):
            excuse = said["why"].strip()
            if not excuse:
                msg = "`not run:` gives no reason"
                raise ValueError(msg)
    if excuse is not None:
        msg = f"no block follows `not run: {excuse}`"
        raise ValueError(msg)


def steps(block: Block) -> Iterator[Step]:
    """Split a console block into commands and what they print.

    Raises:
        ValueError: there is output before the first command, or no command at all.
    """
    lines = block.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    if starts[:1] != [0]:
        msg = "a console block starts with `$ `"
        raise ValueError(msg)
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command, rest = [lines[start][2:]], start + 1
        while rest < end and (command[-1].endswith("\\") or lines[rest].startswith("> ")):
            command.append(lines[rest].removeprefix("> "))
            rest += 1
        wanted = "\n".join(line.rstrip() for line in lines[rest:end]).strip("\n")
        exits = _EXITS.search(command[-1])
        yield Step("\n".join(command), wanted or None, block.line + start, int(exits["code"]) if exits else 0)


class Shell:
    """One bash that lives as long as a document, so that `cd`, `export` and `&` last.

    Args:
        folder: where it starts; what is printed is kept in a file beside it.
        environment: all it knows of the outside.
        limit_s: how long one command may take.
    """

    def __init__(self, folder: Path, environment: dict[str, str], limit_s: float) -> None:
        self._printed, self._limit = folder.with_name("printed"), limit_s
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # So that what it leaves running can be ended with it.
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()

    def run(self, command: str) -> tuple[int | None, str]:
        """Return the exit code, None if it took too long or ended the shell, and what was printed."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin
        assert stdout
        # Into a file, not a pipe: a pipe would not end before what runs in the background does.
        line = f"eval {shlex.quote(command)} </dev/null >{shlex.quote(str(self._printed))} 2>&1; echo $?\n"
        with contextlib.suppress(BrokenPipeError):
            stdin.write(line.encode())
            stdin.flush()
        told, _, _ = select.select([stdout], [], [], self._limit)
        code = stdout.readline() if told else b""
        return int(code) if code else None, self._printed.read_text(errors="replace")


class Run:
    """The state that the blocks of one document share."""

    def __init__(self, name: str, folder: Path, shell: Shell) -> None:
        self.name, self.folder, self.shell = name, folder, shell
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def page(self, text: str) -> list[str]:
        """Run all blocks of a text; return what is wrong, in its order."""
        found: list[str] = []
        try:
            for block in blocks(text):
                found += self.block(block)
        except ValueError as error:  # What cannot be read, or a shell that is lost, ends the page.
            found.append(f"{self.name}: {error}")
        return found

    def block(self, block: Block) -> Iterator[str]:
        """Run one block; yield what is wrong with it."""
        if block.excuse or block.language in READ_ONLY:
            return
        by_language: dict[str, Callable[[Block], Iterator[str]]] = {
            "console": self._console,
            "python": self._python,
            "json": lambda block: self._parses(json.loads, block),
            "toml": lambda block: self._parses(tomllib.loads, block),
            "yaml": lambda block: self._parses(_plan, block),
        }
        run = by_language.get(block.language)
        if run is None:
            yield f"{self.name}:{block.line}: {block.language} is nothing that can be run or parsed"
        else:
            yield from run(block)

    def _console(self, block: Block) -> Iterator[str]:
        for step in steps(block):
            code, printed = self.shell.run(step.command)
            got = "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")
            if code is None:
                msg = f"line {step.line}: `{step.command}` did not end, so the rest was not run\n{got}"
                raise ValueError(msg)
            if code != step.code:
                yield f"{self.name}:{step.line}: `{step.command}` exited with {code}, not {step.code}\n{got}"
            elif step.wanted is not None and not _same(step.wanted, got):
                both = f"--- the page says\n{step.wanted}\n--- it prints\n{got}"
                yield f"{self.name}:{step.line}: `{step.command}`\n{both}"

    def _python(self, block: Block) -> Iterator[str]:
        # The empty lines make tracebacks name the line of the page.
        source = "\n" * (block.line - 1) + block.text
        with _inside(self.folder):
            try:
                exec(compile(source, self.name, "exec"), self.namespace)  # noqa: S102  the purpose of this
            except Exception:  # noqa: BLE001  whatever it is, the page is wrong
                yield f"{self.name}:{block.line}: {traceback.format_exc()}"

    def _parses(self, load: Callable[[str], object], block: Block) -> Iterator[str]:
        try:
            load(block.text)
        except ValueError as error:
            yield f"{self.name}:{block.line}: {block.language} that does not parse: {error}"


def _plan(text: str) -> None:
    """Read a plan, which is what YAML is used for here.

    Raises:
        ValueError: it is none.
    """
    try:
        planfile.parse(planyaml.load(text.encode(), "page"), plan_id="plan_00", owner="page", created=0)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None


def _same(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted + "\n", got + "\n", doctest.ELLIPSIS)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    # In this process, so that a page can go on in Python with what it began in the shell.
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def environment(folder: Path) -> dict[str, str]:
    """Return all that examples see of this machine: its commands, and an empty home."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    home, plain = str(folder.with_name("home")), {"LC_ALL": "C.UTF-8", "NO_COLOR": "1", "TERM": "dumb", "TZ": "UTC"}
    return {"PATH": path, "HOME": home, "COLUMNS": "100", "GIT_CONFIG_NOSYSTEM": "1", **plain}


def problems(page: Path, limit_s: float = COMMAND_S) -> list[str]:
    """Run all blocks of a page; return what is wrong, in the order of the page."""
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "folder"
        folder.mkdir()
        folder.with_name("home").mkdir()
        if (ROOT / "examples").is_dir():
            (folder / "examples").symlink_to(ROOT / "examples")
        with Shell(folder, environment(folder), limit_s) as shell:
            return Run(name, folder, shell).page(page.read_text("utf-8"))


def links(page: Path) -> Iterator[str]:
    """Yield the relative targets of a page's links that do not exist."""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        for child in token.children or ():
            target = str(child.attrs.get("href") or child.attrs.get("src") or "").partition("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                yield target
