"""Build the bundle for Claude Desktop, `dist/mcp-bus-VERSION.mcpb`, and renew `mcpb/manifest.json`.

Run it by `make bundle`.  The same tree makes the same bytes.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from mcp_bus.server.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ROOT / "mcpb" / "manifest.json"
# What building the package from the bundle asks for, besides the package itself.
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
# The earliest that a zip archive can say; when it was built is nobody's concern.
TIME = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644
_PIN = re.compile(r"^([\w.-]+==[^\s;]+(?: *;[^\\\n]+)?)", re.MULTILINE)


def version() -> str:
    """Return the version of the project."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return found


def manifest() -> dict[str, Any]:
    """Return what the manifest should say: what it says, with the version and the tools as they are."""
    found: dict[str, Any] = json.loads(MANIFEST.read_text("utf-8"))
    tools = [{"name": tool.name, "description": tool.description} for tool in TOOLS]
    return found | {"version": version(), "tools": tools}


def text(made: dict[str, Any]) -> str:
    """Return a manifest as a file."""
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def pins() -> list[str]:
    """Return the requirements that the tests run with: a name, a version, and where it counts."""
    return [found.strip() for found in _PIN.findall((ROOT / "requirements.txt").read_text("utf-8"))]


def files() -> Iterator[tuple[str, bytes]]:
    """Return the files of the bundle."""
    yield "manifest.json", text(manifest()).encode()
    yield "server.py", (MANIFEST.parent / "server.py").read_bytes()
    for name in BESIDE:
        data = (ROOT / name).read_bytes()
        if name == "pyproject.toml":
            data += f"\n[tool.uv]\nconstraint-dependencies = {json.dumps(pins(), indent=4)}\n".encode()
        yield name, data
    for path in sorted((ROOT / "mcp_bus").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.read_bytes()


def build(folder: Path) -> Path:
    """Write the bundle into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"mcp-bus-{version()}.mcpb"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, data in files():
            about = ZipInfo(name, TIME)
            about.compress_type, about.external_attr = ZIP_DEFLATED, MODE << 16
            archive.writestr(about, data)
    return path


def main() -> None:
    """Renew the manifest, and build the bundle into `dist/`."""
    MANIFEST.write_text(text(manifest()), "utf-8")
    print(build(ROOT / "dist").relative_to(ROOT))


if __name__ == "__main__":
    main()
