"""What acts on a reader instead of being read, said once more by its code points and not by the package's own rule."""

from __future__ import annotations

import re

# Unicode 16: C0 but for tab and line feed, DEL and C1; soft hyphen; Arabic, Mongolian, Khmer marks that show nothing;
# zero width, directions and their isolates, invisible operators; line and paragraph separators; byte order mark;
# annotations; halves of surrogate pairs; tags.  Joiners that scripts need (200c, 200d) are not among them.
ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e01ef]"
)


def acting(text: str) -> list[str]:
    """Return what acts in a text that may have lines."""
    return [f"{ord(char):04x}" for char in ACTS.findall(text)]
