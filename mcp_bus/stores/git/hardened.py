"""How git is started, so that neither a repository nor somebody's settings make it run or follow anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a remote may be reached by: no `ext::`, which is a command.
PROTOCOLS = "file:git:http:https:ssh"
_SET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": PROTOCOLS,
    "GIT_DEFAULT_REF_FORMAT": "files",  # What was seen of a branch is looked for in a file.
    "LC_ALL": "C",
}
# Set by a caller, these would lead git to another repository, or fill what it says.
_UNSET = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_PREFIX", "GIT_TRACE", "GIT_QUARANTINE_PATH",
)  # fmt: skip
SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.fsync": "all",
    "core.fsyncMethod": "fsync",
    "core.bigFileThreshold": "16m",  # What is larger is read piece by piece, or not at all.
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "maintenance.auto": "false",
    "gc.auto": "0",
    "gc.packRefs": "false",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
    "push.gpgSign": "false",
    "push.pushOption": "",  # Empty forgets those that are set elsewhere; a remote that knows none would refuse.
    "protocol.version": "2",
    "fastimport.unpackLimit": "1",
    "transfer.hideRefs": "refs/mcp-bus",
}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return what git is started with: what the caller has, but for what would lead it elsewhere or have it ask."""
    kept = {name: value for name, value in given.items() if not name.startswith(_UNSET)}
    if not kept.get("SSH_ASKPASS_REQUIRE"):  # Who sets it means a program that answers by itself.
        kept.pop("SSH_ASKPASS", None)
        kept["SSH_ASKPASS_REQUIRE"] = "never"
        kept["GIT_ASKPASS"] = ""  # Comes before `core.askPass`, and names none.  Editors set it in their terminals.
    return kept | _SET
