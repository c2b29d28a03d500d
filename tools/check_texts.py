"""What no tracked file may contain: addresses of a package registry, and paths of one machine.

Run from anywhere: `python -m tools.check_texts [ROOT]`.  Exit code 1 when something was found.

A lock by name, version and hash works with any mirror; one with addresses works with one.  A
path of somebody's machine works nowhere else, and tells more than was meant.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.repository import Finding, files, report

if TYPE_CHECKING:
    from collections.abc import Iterator

# Put together here so that this file does not contain what it looks for.
_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "yarn" + "pkg.com")
_DOWNLOAD = r"https?://\S*(?:/simple\b|\.whl\b|\.tgz\b|\.tar\.gz\b)"
_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml")
_COMMON = ("/", "/app", "/data", "/home", "/mnt", "/opt", "/src", "/srv", "/tmp", "/usr", "/var", "/var/tmp")  # noqa: S108  not used
# `you` is whom the docs talk to.
_HOME = r"(?<![\w.])/(?:home|Users)/(?!you\b)[\w.-]+"

RULES = (
    (re.compile("|".join(re.escape(host) for host in _HOSTS), re.IGNORECASE), "name the package, not the registry"),
    (re.compile(_DOWNLOAD), "lock by name, version and hash; where to download is the reader's choice"),
    (re.compile(_HOME), "a path of one machine; write /home/you or a relative path"),
)


def main(argv: list[str]) -> int:
    """Check the repository at the first argument, or this one."""
    root = (Path(argv[0]) if argv else Path(__file__).parents[1]).resolve()
    paths = files(root)
    return report("texts", len(paths), [found for path in paths for found in _file(root, path)])


def _file(root: Path, path: str) -> Iterator[Finding]:
    if Path(path).name in _LOCKS:
        yield Finding(path, 1, "a lock file with addresses", "requirements*.txt hold the hashes alone")
        return
    data = (root / path).read_bytes()
    if b"\0" in data:
        return
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        for pattern, why in (*RULES, (_machine(root), "a path of this machine; write a relative one")):
            hit = pattern.search(line)
            if hit:
                yield Finding(path, number, repr(hit[0]), why)


def _machine(root: Path) -> re.Pattern[str]:
    # The checkout, the folder it is in, and the home of whoever runs this; but no folder that
    # many machines have, or the check would depend on where it runs.
    here = sorted({root, root.parent, Path.home()} - {Path(path) for path in _COMMON})
    inside = "|".join(re.escape(f"{path}/") for path in here)
    return re.compile(rf"(?<![\w.-])(?:{re.escape(str(root))}\b|{inside})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
