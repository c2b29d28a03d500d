"""Programs from npm, in a cache outside the tree, each in the one version that is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

INSTALL_S = 300


class MissingProgram(Exception):
    """A program cannot be had here; says why."""


def cache() -> Path:
    """Return where programs are kept."""
    return Path(os.environ.get("MCP_BUS_E2E_CACHE") or Path.home() / ".cache" / "mcp-bus-e2e")


def fetch(name: str, package: str, version: str, command: str, *needs: str) -> Path:
    """Return a command of a package, from the cache or from npm.

    Args:
        name: under which it is cached, with its version.
        needs: other packages that are put beside it.

    Raises:
        MissingProgram: npm is missing, or cannot get this version.
    """
    folder = cache() / f"{name}-{version}"
    found = folder / "node_modules" / ".bin" / command
    if found.exists():
        return found
    npm = shutil.which("npm")
    if npm is None:
        msg = "there is no npm on PATH"
        raise MissingProgram(msg)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="new-") as made:
        (Path(made) / "package.json").write_text('{"private": true}')
        wanted = f"{package}@{version}"
        try:
            subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", wanted, *needs], cwd=made, check=True, timeout=INSTALL_S,
                stdin=subprocess.DEVNULL, capture_output=True, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            msg = f"npm did not install {wanted} within {INSTALL_S} s"
            raise MissingProgram(msg) from None
        except subprocess.CalledProcessError as error:
            msg = f"npm cannot install {wanted}: {' '.join(error.stderr.split())[-300:]}"
            raise MissingProgram(msg) from None
        if not folder.exists():
            Path(made).rename(folder)
            Path(made).mkdir()  # For its context manager to remove.
    return found
