"""Write `client-configs/`: each client's entry as `mcp-bus install` makes it, for those who put it in by hand.

Run it after a change of `mcp_bus/clients/known.py`; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from mcp_bus.clients import texts
from mcp_bus.clients.known import CLIENTS, NAME, Client, Home, Server

FOLDER = Path(__file__).resolve().parents[1] / "client-configs"


def place(client: Client) -> Path:
    """Return where a client's file is."""
    name = Path(client.project).name if client.project else client.user(Home(Path("/"), {}, "linux")).name
    return FOLDER / client.name / name


def text(client: Client) -> str:
    """Return what is in it: the command by its name, for a file of everybody's knows no path."""
    entry = client.entry(Server("mcp-bus", ("serve",), {"MCP_BUS_AGENT": client.name}))
    return texts.put("", client.form, (*client.path, NAME), entry).rstrip() + "\n"


def main() -> None:
    """Write all files."""
    for client in CLIENTS.values():
        place(client).parent.mkdir(parents=True, exist_ok=True)
        place(client).write_text(text(client), "utf-8")


if __name__ == "__main__":
    main()
