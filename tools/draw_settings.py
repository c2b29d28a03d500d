"""The settings of `mcp_bus.config` as a Markdown table.

Run from anywhere: `python -m tools.draw_settings`.  `docs/cli.md` holds what this prints, and a test
compares the two.
"""

from __future__ import annotations

import sys

from mcp_bus.settings import SETTINGS


def shown(value: object) -> str:
    """Return a default as people write it; nothing for an empty one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value or "")


def page() -> str:
    """Return the table."""
    rows = [
        f"| `{name}` | `{setting.env}` | {shown(setting.default)} | {setting.about} |".replace("|  |", "| |")
        for name, setting in SETTINGS.items()
    ]
    return "\n".join(["| setting | variable | default | what it is |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
