"""An MCP server with one tool, `say`, which answers with the text that it is given; a second time, with `{}`."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOL = {
    "name": "say",
    "description": "says it",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    "annotations": {"readOnlyHint": True},
}
SAID = {"{}"}


def _answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        server = {"name": "says", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [TOOL]}
    text = params["arguments"]["text"]
    text = "{}" if text in SAID else text
    SAID.add(text)
    return {"content": [{"type": "text", "text": text}]}


def main() -> None:
    """Serve on stdin and stdout, in the protocol's older era, until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        reply = {"jsonrpc": "2.0", "id": asked.get("id")}
        if asked.get("method") in ("initialize", "tools/list", "tools/call"):
            reply["result"] = _answer(asked["method"], asked.get("params", {}))
        else:
            reply["error"] = {"code": -32601, "message": "there is no such method"}
        if "id" in asked:
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
