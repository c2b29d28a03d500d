#!/usr/bin/env python3
"""The app agent, for `mcp-bus worker run fixes`: what a model would do, by a list of known corrections, one each time.

It reads the prompt on stdin, edits the code in the folder it runs in, and prints the answer that the contract asks for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# A test that fails: what is wrong then, and how it is right.
KNOWN = {"test_total": ("sum(prices) - 1", "sum(prices)"), "test_mean": ("/ 2", "/ len(prices)")}


def main() -> None:
    """Mend the first failure that has a correction."""
    asked, code = sys.stdin.read(), Path("shop.py")
    text = code.read_text("utf-8")
    for test, (wrong, right) in KNOWN.items():
        if f"FAIL: {test} " in asked and wrong in text:
            code.write_text(text.replace(wrong, right), "utf-8")
            print(json.dumps({"changed": [code.name], "why": f"{test} failed: it was {wrong!r}, not {right!r}"}))
            return
    sys.exit("no known correction helps")


if __name__ == "__main__":
    main()
