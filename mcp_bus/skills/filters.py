"""Which folders are skills that are shared, and which files of them; everything else is told with a reason.  Pure."""

from __future__ import annotations

import re
import unicodedata
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mcp_bus.plain import clean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SKILL = "SKILL.md"
# A skill that has this file is made by a program, which will make it again.
MARKER = ".generated"
MAX_FILE, MAX_SKILL, MAX_FILES = 1 << 20, 8 << 20, 500
MAX_DEPTH, MAX_NAME = 16, 255
# What `mcp-bus install --skill` puts there.
OWN = "mcp-bus"
# What begins the name of a file that is being written; left by a process that was killed.
DRAFT = ".mcp-bus-draft-"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?\Z")
# Folders into which programs put what they were given.
_PACKAGES = frozenset({"node_modules", "site-packages", "dist-packages", "plugins", "extensions", "vendor"})
_PLUGIN = (".claude-plugin/", ".codex-plugin/", "plugin.json", "gemini-extension.json")
_SECRET, _HOST = "it may be a secret", "it is of one host alone"
_LEFT = (
    (
        (".env*", "*.env", "*.env.*", "*.pem*", "*.key", "*.p8", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore",
         "*.kdbx", "secring*", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "credentials*", "*auth.json",
         "*pgpass*", "*netrc", ".npmrc", ".pypirc", ".git-credentials", "*.tfstate*", "*.tfvars*", "hosts.yml"),
        _SECRET,
    ),
    ((".git", ".git~*", "git~*", ".gitmodules", ".hg", ".svn", ".jj"), "it is of version control"),
    (
        ("__pycache__", "*.pyc", "*.pyo", ".ds_store", "thumbs.db", "node_modules", ".venv", ".cache", ".*_cache"),
        "it is a cache",
    ),
    (
        ("*.log", "*.lock", "*.pid", "*.sqlite*", "*.db", "*.db-*", "sessions", "logs", "*history", f"{DRAFT}*"),
        _HOST,
    ),
)  # fmt: skip
# What a name says that may hold a secret, unless it is a text about such, or a program for them.
_SAYS = re.compile(
    r"secret|credential|passw(?:or)?d|passphrase|api[-_]?key|[-_](?:rsa|dsa|ecdsa|ed25519)|kubeconfig|cookies"
    r"|service[-_]?account.*\.json|(?:^|[-_.])key\.json|token(?!i[sz]).*\.json|tokens?(?:\.txt|$)"
)
_TEXTS = (".md", ".rst", ".py", ".js", ".ts")
# What those who keep the last version add to its name.
_COPY = re.compile(r"(?:\.(?:bak|backup|old|orig|save|copy|\d+)|~)+\Z")
_JOINERS = re.compile("[\u200c\u200d]")
_PAIR = re.compile(r"(\s*)([A-Za-z_][\w-]*):(?:\s+(.*))?\Z")
_BLOCK = re.compile(r"[>|][+-]?\d?\Z")


class Unfit(Exception):
    """A skill that is not shared; says why."""


def refuse(why: str) -> None:
    """Refuse a skill, if there is a reason.

    Raises:
        Unfit: there is.
    """
    if why:
        raise Unfit(why)


def of_name(name: str) -> str:
    """Return why a folder of that name is no skill of a person, or must not be written; empty if it may be one."""
    if name.startswith("."):
        return "a hidden folder, as what a client bundles has"
    if name == OWN:
        return "mcp-bus installs it by itself"
    if name in _PACKAGES:
        return "a folder of packages or plugins"
    return "" if _NAME.match(name) else "its name is not of up to 64 letters, digits and . _ - alone"


def of_place(folder: str) -> str:
    """Return why nothing in a folder of that name is a person's: programs put there what they were given; else empty.

    What is above it says nothing: a person's home may be below anything.
    """
    return f"it is in a folder of packages or plugins ({folder})" if folder in _PACKAGES else ""


def left_out(path: str) -> tuple[str, str] | None:
    """Return what of a path is never shared, a file or the folder that it is in, and why; None if it is shared."""
    parts = path.split("/")
    # By these it is seen that a skill is no person's, and then nothing of it is shared.
    is_sign = path == MARKER or path.startswith(_PLUGIN)
    for number, part in enumerate(parts, 1):
        why = _private(part.lower()) or ("it is hidden" if part.startswith(".") and not is_sign else "")
        if why:
            return "/".join(parts[:number]), why
    return None


def _private(name: str) -> str:
    """Return why a name, in small letters, is never shared; empty if nothing speaks against it."""
    name = _COPY.sub("", name) or name
    for patterns, why in _LEFT:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return why
    return _SECRET if _SAYS.search(name) and not name.endswith(_TEXTS) else ""


def of_path(path: str) -> str:
    """Return why a path is refused, which means another one somewhere, or hides something; else empty."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path:
        return f"{path!r} leads elsewhere"
    if clean(path) != path or _JOINERS.search(path):
        return f"{path!r} has characters that do not show"
    is_long = len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME for part in parts)
    return f"{path[:80]!r} is too deep or too long" if is_long else ""


def of_paths(paths: Iterable[str]) -> str:
    """Return why paths are refused together: two are one on a disk that does not tell case apart; else empty."""
    seen = dict[str, str]()
    for path in paths:
        parts = path.split("/")
        for above in ("/".join(parts[:number]) for number in range(1, len(parts) + 1)):
            other = seen.setdefault(folded(above), above)
            if other != above:
                return f"{above!r} and {other!r} are one name on some disks"
    return ""


def folded(name: str) -> str:
    """Return a name as a disk sees it that tells neither case nor forms of a letter apart."""
    return unicodedata.normalize("NFC", name).casefold()


def of_size(count: int, size: int) -> str:
    """Return why so many files, or bytes, are no skill; empty if they may be one."""
    if count > MAX_FILES:
        return f"it has more than {MAX_FILES} files"
    return f"it has more than {MAX_SKILL} bytes" if size > MAX_SKILL else ""


def of_file(path: str, size: int) -> str:
    """Return why a file of a skill is too large; empty if it is not."""
    return f"{path!r} has more than {MAX_FILE} bytes" if size > MAX_FILE else ""


def of_skill(text: bytes | None, paths: Collection[str]) -> str:
    """Return why no client takes this for a skill, or that a program makes it; empty if it is a person's.

    Args:
        text: its `SKILL.md`.
        paths: all that is in it.
    """
    if text is None:
        return f"it has no {SKILL}"
    if any(path.startswith(_PLUGIN) for path in paths):
        return "it is a plugin"
    said = frontmatter(text)
    missing = [key for key in ("name", "description") if not said.get(key)]
    if missing:
        return f"its {SKILL} says no {' and no '.join(missing)}"
    is_made = MARKER in paths or "true" in (said.get(key, "").lower() for key in ("generated", "metadata.generated"))
    return "it is generated" if is_made else ""


def frontmatter(data: bytes) -> dict[str, str]:
    """Return what a file says before its text: `key: value`, and `key.inner` of what is indented below a key.

    No YAML in full: what of it stands before skills.  Empty where there is none, or it does not end.
    """
    lines = data.decode(errors="replace").removeprefix("\ufeff").splitlines()
    found, key = dict[str, str](), ""
    if not lines or lines[0].rstrip() != "---":
        return found
    for line in lines[1:]:
        if line.rstrip() in ("---", "..."):
            return found
        pair = _PAIR.match(line)
        if pair and not pair[1]:
            key = pair[2]
            found[key] = _value(pair[3] or "")
        elif key and line[:1].isspace() and line.strip():
            if pair:
                found[f"{key}.{pair[2]}"] = _value(pair[3] or "")
            found[key] = f"{found[key]} {line.strip()}".strip()
    return {}


def _value(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        return text[1:].partition(text[0])[0]
    text = re.sub(r"(?:^|\s)#.*", "", text).strip()
    return "" if _BLOCK.match(text) else text
