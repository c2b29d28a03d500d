"""What an entry starts: whose it is, and what of it stays when it is renewed."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from mcp_bus.clients import jsonc, parts, started
from mcp_bus.clients.known import CLIENTS, Client, Server
from mcp_bus.errors import InvalidRequest

NEW = Server("/new/mcp-bus", ("serve",), {"MCP_BUS_AGENT": "tester"})
MODULE = Server("/new/python", ("-m", "mcp_bus", "serve"), {"MCP_BUS_AGENT": "tester"})


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "/x/mcp-bus", "args": ["serve"]},
        {"command": "C:\\x\\mcp-bus.exe"},
        {"command": ["uvx", "mcp-bus", "serve"]},
        {"command": "/usr/bin/uv", "args": ["tool", "run", "mcp-bus@0.1.2", "serve"]},
        {"command": "pipx", "args": ["run", "mcp-bus==0.1", "serve"]},
        {"command": "/usr/bin/python3.12", "args": ["-m", "mcp_bus", "serve"]},
        {"command": "python.exe", "args": ["-I", "-u", "-m", "mcp_bus", "serve"]},
        {"cmd": "mcp-bus"},
        {"command": "mcp-bus", "args": 5},
    ],
)
def test_an_entry_is_ours_by_what_it_starts(entry: object) -> None:
    assert started.is_ours(entry)


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "mcp-bus-other"},
        {"command": "npx", "args": ["-y", "@acme/mcp-bus"]},
        {"command": "uv", "args": ["run", "--directory", "/home/you/mcp-bus", "audio-bus"]},
        {"command": "$HOME/tool", "args": ["--rm-all", "/x/mcp-bus"]},
        {"command": ["tool", "mcp-bus"]},
        {"command": "uvx", "args": ["--from", "mcp-bus", "other"]},
        {"command": "uvx", "args": ["@acme/mcp-bus"]},
        {"command": "uvx", "args": []},
        {"command": "uv", "args": ["tool", "run"]},
        {"command": "uv", "args": ["run", "mcp-bus"]},
        {"command": "python3", "args": ["tool.py", "-m", "mcp_bus"]},
        {"command": "python3", "args": ["-c", "x", "-m", "mcp_bus"]},
        {"command": "python3", "args": ["-m", "mcp_bus_other"]},
        {"command": "python3", "args": ["-m"]},
        {"command": "python3", "args": 5},
        {"command": "snake", "args": ["-m", "mcp_bus"]},
        {"command": ["mcp-bus serve"]},
        {"command": []},
        {"command": [5, "mcp-bus"]},
        {"command": {"path": "mcp-bus"}},
        {"command": True, "args": True},
        {"url": "http://127.0.0.1"},
        None,
        "mcp-bus",
    ],
)
def test_what_only_has_our_name_somewhere_is_somebody_s(entry: object) -> None:
    assert not started.is_ours(entry)


@pytest.mark.parametrize(
    ("known", "wrong"),
    [
        ({"command": "mcp-bus", "args": 5}, "'args' that is no list"),
        ({"command": "mcp-bus", "args": True}, "'args' that is no list"),
        ({"command": "mcp-bus", "args": ["serve"], "env": "A=b"}, "'env' that is no table"),
        ({"command": "mcp-bus", "env": None}, "'env' that is no table"),
    ],
)
def test_an_entry_of_ours_that_has_not_the_form_of_one_is_refused(known: Any, wrong: str) -> None:
    part = parts.Entry(CLIENTS["cursor"], NEW.plain())
    text = json.dumps({"mcpServers": {"bus": known}})
    with pytest.raises(InvalidRequest, match=wrong):
        part.put(text, is_known=False, is_forced=False)
    with pytest.raises(InvalidRequest, match=wrong):
        part.drop(text, is_known=False)
    made, what = part.put(text, is_known=False, is_forced=True)
    assert (json.loads(made)["mcpServers"]["bus"], what) == (NEW.plain(), parts.REPLACED)


@pytest.mark.parametrize("server", [NEW, MODULE], ids=["program", "module"])
@pytest.mark.parametrize("head", [["/old/mcp-bus"], ["uvx", "mcp-bus"], ["/old/python3", "-I", "-m", "mcp_bus"]])
@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_only_what_starts_mcp_bus_is_renewed(client: Client, head: list[str], server: Server) -> None:
    env = {"MCP_BUS_DIR": "/srv/team-bus", "MCP_BUS_AGENT": "ann", "MINE": "1"}
    old = client.entry(Server(head[0], (*head[1:], "serve", "--read-only"), env))
    known = {**old, "disabled": True, "timeout": 7}
    new = client.entry(server._replace(args=(*server.args, "--read-only"), env=env))
    assert started.renewed(known, client.entry(server)) == {**new, "disabled": True, "timeout": 7}


def test_what_is_missing_is_added_and_a_bus_that_is_named_is_set() -> None:
    client = CLIENTS["claude-code"]
    known = {"command": "mcp-bus", "env": {"MINE": "1"}}
    assert started.renewed(known, client.entry(NEW)) == {
        "type": "stdio", "command": "/new/mcp-bus", "args": ["serve"], "alwaysLoad": True,
        "env": {"MINE": "1", "MCP_BUS_AGENT": "tester"},
    }  # fmt: skip
    known = {"command": "mcp-bus", "args": ["--bus", "/a", "--bus=/b", "-q", "serve"], "env": {"MCP_BUS_DIR": "/c"}}
    assert started.renewed(known, NEW.plain())["args"] == known["args"]
    made = started.renewed(known, NEW._replace(env={"MCP_BUS_DIR": "/d"}).plain())
    assert made == {"command": "/new/mcp-bus", "args": ["-q", "serve"], "env": {"MCP_BUS_DIR": "/d"}}


def test_what_a_person_wrote_into_our_entry_stays_as_text() -> None:
    text = (
        '{"mcpServers": {"bus": { // mine\n    "command": "/old/mcp-bus", // here\n    "args": ["serve", "-v"]\n  }}}'
    )
    made, what = parts.Entry(CLIENTS["cursor"], NEW.plain()).put(text, is_known=False, is_forced=False)
    assert (what, "// mine" in made, "// here" in made) == (parts.REPLACED, True, True), made
    found: Any = jsonc.parse(made).data
    assert found["mcpServers"]["bus"] == {**NEW.plain(), "args": ["serve", "-v"]}


def test_so_does_what_is_below_it_in_other_forms() -> None:
    codex, goose = CLIENTS["codex"], CLIENTS["goose"]
    text = (
        '[mcp_servers.bus]\ncommand = "/old/mcp-bus"\nargs = ["serve", "--read-only"]\nenabled = false\n\n'
        '[mcp_servers.bus.env]\nMCP_BUS_DIR = "/b"\n\n[mcp_servers.bus.tools.post]\napproval_mode = "approve"\n\n'
        "# after\n[other]\na = 1\n"
    )
    made, _ = parts.Entry(codex, codex.entry(NEW)).put(text, is_known=False, is_forced=False)
    entry = tomllib.loads(made)["mcp_servers"]["bus"]
    assert entry == {
        "command": "/new/mcp-bus", "args": ["serve", "--read-only"], "enabled": False, "required": True,
        "env": {"MCP_BUS_DIR": "/b", "MCP_BUS_AGENT": "tester"}, "tools": {"post": {"approval_mode": "approve"}},
        "tool_timeout_sec": 120,
    }  # fmt: skip
    assert made == (
        text.replace("/old/", "/new/")
        .replace('"/b"\n', '"/b"\nMCP_BUS_AGENT = "tester"\n')
        .replace("enabled = false\n", "enabled = false\nrequired = true\ntool_timeout_sec = 120\n")
    )
    text = (
        "extensions:\n  bus:  # mine\r\n    enabled: false\n    cmd: /old/mcp-bus\n    args: [serve]\n    timeout: 9\n"
    )
    made, _ = parts.Entry(goose, goose.entry(NEW)).put(text, is_known=False, is_forced=False)
    assert yaml.safe_load(made)["extensions"]["bus"] == {**goose.entry(NEW), "enabled": False, "timeout": 9}
    assert ("# mine" in made, "\n" in made.replace("\r\n", "")) == (True, False)
