"""Sizes that nothing may outgrow, and absences that the architecture promises.

Run from anywhere: `python -m tools.check_limits [ROOT]`.  Exit code 1 when something was found.

What is looked for is what one reads in the source: `os.rename`, `from os import rename as r`, a
method call `path.unlink()`.  A name put together at run time is not found; nor need it be, for
these rules guard against haste, not against malice.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from tools.repository import Finding, files, report

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first pattern that fits says how many lines a file may have.
SIZES = (
    ("*.py", 400, "split it along a seam that has a name"),
    ("README.md", 200, "a README is the door; move the rest to docs/"),
    ("ARCHITECTURE.md", 250, "an overview that is long is none"),
    ("docs/decisions/*.md", 120, "a decision fits two pages"),
)


class Absence(NamedTuple):
    """Names that must not appear under `inside`, but for the places in `except_in`."""

    names: frozenset[str]
    why: str
    inside: tuple[str, ...] = ("mcp_bus/",)
    except_in: tuple[str, ...] = ()

    def holds_for(self, path: str) -> bool:
        """Tell whether a file is bound by this rule."""
        return path.startswith(self.inside) and not path.startswith(self.except_in)


_FSOPS = "only mcp_bus/stores/fsops.py changes names and makes them durable"
_CHANGES = "rename renames replace link symlink unlink remove rmdir removedirs mkdir makedirs fsync fdatasync truncate"
_SHUTIL = "move rmtree copy copy2 copyfile copyfileobj copytree unpack_archive make_archive"
# A call of one of these on a path; on an `fs`, the seam of fsops, it is how the others ask for it.
_METHODS = "rename replace unlink rmdir mkdir symlink_to hardlink_to"
_SEAM = frozenset({"fs", "_fs"})
_ENVIRONMENT = "environ environb getenv getenvb putenv unsetenv path.expandvars path.expanduser"

ABSENCES = (
    Absence(
        frozenset(
            [f"os.{name}" for name in _CHANGES.split()]
            + [f"shutil.{name}" for name in _SHUTIL.split()]
            + [f".{name}()" for name in _METHODS.split()]
        ),
        _FSOPS,
        except_in=("mcp_bus/stores/fsops.py", "mcp_bus/stores/git/treefs.py"),  # The second is a medium in memory.
    ),
    Absence(
        frozenset([*(f"os.{name}" for name in _ENVIRONMENT.split()), "pathlib.Path.home", ".expanduser()"]),
        "only mcp_bus/config.py reads the environment, the home directory included",
        except_in=("mcp_bus/config.py",),
    ),
    Absence(
        frozenset({"mcp", "mcp_types"}),
        "only mcp_bus/server/ knows MCP, and the demo's agent, which is a client as agent CLIs are",
        except_in=("mcp_bus/server/", "mcp_bus/demo/agent.py"),
    ),
    Absence(
        frozenset({"time.sleep"}),
        "wait for what you wait for, with a limit; a fixed sleep is too long and too short",
        inside=("mcp_bus/", "tests/"),
    ),
)


def main(argv: list[str]) -> int:
    """Check the repository at the first argument, or this one."""
    root = Path(argv[0]) if argv else Path(__file__).resolve().parents[1]
    paths = files(root)
    found = [*sizes(root, paths), *layers(root, paths)]
    for path in paths:
        if path.endswith(".py"):
            found += module(path, (root / path).read_text(encoding="utf-8"))
    return report("limits", len(paths), found)


def module(path: str, source: str) -> list[Finding]:
    """Check the text of one module."""
    try:
        return [*absences(path, source), *silences(path, source)]
    except SyntaxError as error:
        return [Finding(path, error.lineno or 1, error.msg, f"Python {sys.version.split()[0]} cannot read it")]


def sizes(root: Path, paths: list[str]) -> Iterator[Finding]:
    """Find files with more lines than their kind may have."""
    for path in paths:
        rule = next((rule for rule in SIZES if _fits(path, rule[0])), None)
        if rule is None:
            continue
        _, most, why = rule
        lines = len((root / path).read_bytes().splitlines())
        if lines > most:
            yield Finding(path, most + 1, f"{lines} lines, {most} are allowed", why)


def _fits(path: str, pattern: str) -> bool:
    # A pattern without a folder and with a star holds in every folder; others name one place.
    if pattern.startswith("*"):
        return PurePosixPath(path).match(pattern)
    return PurePosixPath(path).parent == PurePosixPath(pattern).parent and PurePosixPath(path).match(pattern)


def absences(path: str, source: str) -> Iterator[Finding]:
    """Find names in one module that its place does not allow."""
    rules = [rule for rule in ABSENCES if rule.holds_for(path)]
    if not rules:
        return
    seen = Names(source)
    for line, name in seen.used:
        for rule in rules:
            if name in rule.names:
                yield Finding(path, line, name, rule.why)


class Names(ast.NodeVisitor):
    """The dotted names a module uses, as `used`: pairs of line and name.

    What an import bound is written out, so that `r` after `from os import rename as r` counts as
    `os.rename`; an imported module counts with all its parents; a method call on anything else
    counts as `.method()`.
    """

    def __init__(self, source: str) -> None:
        self.used: list[tuple[int, str]] = []
        self._bound: dict[str, str] = {}
        tree = ast.parse(source)
        # Imports first: a function may use what is imported further down.
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                self._import_from(node)
        self.visit(tree)

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._module(node.lineno, alias.name)
            top = alias.name.partition(".")[0]
            self._bound[alias.asname or top] = alias.name if alias.asname else top

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        self._module(node.lineno, module)
        for alias in node.names:
            name = f"{module}.{alias.name}"
            self._bound[alias.asname or alias.name] = name
            self.used.append((node.lineno, name))

    def _module(self, line: int, name: str) -> None:
        parts = name.split(".")
        self.used += [(line, ".".join(parts[: end + 1])) for end in range(len(parts))]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Note `os.rename`, also where it is passed on and not called."""
        name = self._dotted(node)
        if name is None:
            self.generic_visit(node)
        else:
            self.used.append((node.lineno, name))

    def visit_Call(self, node: ast.Call) -> None:
        """Note a method call on something that is no module, and `getattr(os, "rename")`."""
        function = node.func
        if isinstance(function, ast.Attribute) and self._dotted(function) is None:
            self._method(node, function)
        if isinstance(function, ast.Name) and function.id == "getattr":
            self._getattr(node)
        self.generic_visit(node)

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        receiver = function.value
        last = getattr(receiver, "attr", None) or getattr(receiver, "id", None)
        # str.replace takes two arguments, datetime.replace names them; Path.replace takes one.
        is_other_replace = function.attr == "replace" and (len(node.args) != 1 or bool(node.keywords))
        if last not in _SEAM and not is_other_replace:
            self.used.append((node.lineno, f".{function.attr}()"))

    def _getattr(self, node: ast.Call) -> None:
        match node.args:
            case [ast.Name(id=owner), ast.Constant(value=str(name)), *_] if owner in self._bound:
                self.used.append((node.lineno, f"{self._bound[owner]}.{name}"))

    def _dotted(self, node: ast.expr) -> str | None:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._bound:
            return None
        return ".".join([self._bound[node.id], *reversed(parts)])


_SILENCE = re.compile(
    r"#\s*(?:(?:ruff:\s*)?noqa|type:\s*ignore)"
    r"(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[^\]]*\])?\s*#?(?P<reason>.*)"
)
_WORD = re.compile(r"[a-zA-Z]{2,}")


def silences(path: str, source: str) -> Iterator[Finding]:
    """Find a `noqa` or `type: ignore` that does not say why."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        said = _SILENCE.search(token.string) if token.type == tokenize.COMMENT else None
        if said and not _WORD.search(said["reason"]):
            yield Finding(path, token.start[0], "a check is silenced without a reason", "say why on the same line")


def layers(root: Path, paths: list[str]) -> Iterator[Finding]:
    """Find a layer that import-linter takes for optional though its module exists."""
    settings = root / "pyproject.toml"
    if not settings.is_file():
        return
    tool = tomllib.loads(settings.read_text(encoding="utf-8")).get("tool", {})
    for contract in tool.get("importlinter", {}).get("contracts", []):
        for layer in re.findall(r"\((\w+)\)", " ".join(contract.get("layers", []))):
            package = f"mcp_bus/{layer}"
            if f"{package}.py" in paths or any(path.startswith(f"{package}/") for path in paths):
                why = "it exists now, so take it out of its parentheses"
                yield Finding("pyproject.toml", 1, f"layer {layer} is optional", why)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
