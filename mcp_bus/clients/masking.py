"""Settings as they are shown: without the values of other programs' keys and passwords.  Pure.

Only what a person reads is changed so, never a file.  Rather too much is masked than too little.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.clients import texts
from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "***"
FORMS = {".json": texts.JSON, ".jsonc": texts.JSON, ".toml": texts.TOML, ".yaml": texts.YAML, ".yml": texts.YAML}
# A value that is shorter is masked after its key alone, for it may be anywhere in a text.
LEAST = 6
_WORDS = r"(?:token|secret|passw|passphrase|pwd|key|auth|bearer|credential|cookie)"
_KEY = re.compile(_WORDS, re.IGNORECASE)
_VALUE = r"""(?:\\?"(?:\\.|[^"\\])*"|'(?:[^'\\]|\\.)*'|[^\s"'{}\[\],\\]+)"""
# Whatever the form: a name, quoted or not, and what it is set to; an option, and the word after it or in it.
_SET = re.compile(rf"""(?i)(?<![\w.-])([\w.-]*{_WORDS}[\w.-]*\\?["']?[ \t]*[:=][ \t]*)(?:bearer |basic )?{_VALUE}""")
_OPTION = re.compile(rf"""(?i)(?<![\w-])(--?[\w-]*{_WORDS}[\w-]*(?:["'][ \t]*,[ \t]*|[ \t]+))(?!-){_VALUE}""")
_HEADER = re.compile(r"(?i)\b(bearer|basic)[ \t]+[\w.~+/=-]+")
_USER = re.compile(r"""://[^/\s:@"']+:[^@\s/"']+@""")
_FAMOUS = re.compile(r"\b(?:gh[a-z]_\w{4,}|github_pat_\w+|sk-[\w-]{6,}|xox[a-z]-[\w-]+|AKIA\w{12,}|eyJ[\w-]+\.[\w.-]+)")


def masked(text: str, form: str = "") -> str:
    """Return a text with `***` for what looks secret in it.

    Args:
        form: the form of the settings that it is; empty if it is a part of some, or none.
    """
    for value in sorted(_secrets(text, form), key=len, reverse=True):
        text = text.replace(value, MASK)
    text = _OPTION.sub(_quoted, _SET.sub(_quoted, text))
    text = _HEADER.sub(rf"\1 {MASK}", text)
    text = _USER.sub(f"://{MASK}@", text)
    return _FAMOUS.sub(MASK, text)


def _quoted(found: re.Match[str]) -> str:
    value = found[0][len(found[1]) :]
    return found[1] + (f'"{MASK}"' if value[0] in "\"'" else MASK)


def _secrets(text: str, form: str) -> set[str]:
    """Return the values below keys that look secret, as they may stand in the text, wherever they are laid out."""
    found = set[str]()
    with suppress(BusError):
        for value in _below(texts.read(text, form), is_secret=False) if form else ():
            for line in value.splitlines():
                found |= {
                    line.strip(),
                    *(json.dumps(line.strip(), ensure_ascii=is_plain)[1:-1] for is_plain in (False, True)),
                }
    return {value for value in found if len(value) >= LEAST}


def _below(data: object, *, is_secret: bool) -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _below(value, is_secret=is_secret or _KEY.search(str(name)) is not None)
    elif isinstance(data, list):
        follows = False
        for value in data:
            yield from _below(value, is_secret=is_secret or follows)
            follows = isinstance(value, str) and value.startswith("-") and _KEY.search(value) is not None
    elif is_secret and isinstance(data, str):
        yield data
