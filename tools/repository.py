"""What the checks have in common: which files there are, and how a finding is told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Finding(NamedTuple):
    """One place that breaks a rule: `file:line: what: why`."""

    path: str
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        """Say it the way editors can jump to."""
        return f"{self.path}:{self.line}: {self.what}: {self.why}"


def files(root: Path) -> list[str]:
    """List what is tracked or would be, relative to `root`; what .gitignore names is left out.

    Raises:
        SystemExit: git cannot say, or there is nothing: a check of no files must not pass.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    # A tracked file that was just removed is still listed.
    found = sorted(path for path in set(answer.stdout.split("\0")) if path and (root / path).is_file())
    if answer.returncode or not found:
        sys.exit(f"cannot list the files of {root}: {answer.stderr.strip() or 'there are none'}")
    return found


def report(name: str, checked: int, findings: Iterable[Finding]) -> int:
    """Print the findings and one closing line; return the exit code."""
    found = sorted(findings)
    for finding in found:
        print(finding)
    print(f"{name}: {checked} files, {len(found)} findings")
    return 1 if found else 0
