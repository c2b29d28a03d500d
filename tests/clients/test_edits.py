"""Each client's settings, from awkward beginnings: installed, installed again, and undone to the byte."""

from __future__ import annotations

import json
import os
import threading
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mcp_bus.clients import edits, files, jsonc, parts, texts
from mcp_bus.clients.known import CLIENTS, NAME, Client, Home, Server
from mcp_bus.errors import BusError, Conflict, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

OTHER = {"command": "other", "args": ["--flag"]}
# What a client's settings may look like before; `S` stands for the name of the table that has the servers.
STARTS: dict[str, dict[str, str | None]] = {
    texts.JSON: {
        "none": None,
        "empty": "",
        "blank": " \n\n",
        "an object": "{}",
        "one line": '{"theme": "dark", "S": {"other": {"command": "other", "args": ["--flag"]}}}',
        "comments": '// mine\n{\n  /* why */\n  "theme": "d", // so\n  "S": {\n    // first\n    "other": {}\n  }\n}\n',
        "trailing commas": '{\n    "S": {\n        "other": {"command": "other",},\n    },\n    "theme": "dark",\n}\n',
        "CRLF and tabs": '{\r\n\t"theme": "dark",\r\n\t"S": {\r\n\t\t"other": {}\r\n\t}\r\n}\r\n',
        "a byte order mark": '\ufeff{\n  "theme": "d\xe4rk"\n}\n',
        "servers without any": '{\n  "S": {},\n  "theme": "dark"\n}',
        "no end of line": '{\n  "theme": "dark"\n}',
    },
    texts.TOML: {
        "none": None,
        "empty": "",
        "blank": "\n\n",
        "values": 'model = "x" # fast\n',
        "comments": '# mine\nmodel = "x"\n\n# others\n[S.other]\ncommand = "other"\nargs = ["--flag"] # why\n',
        "a table after": '[S.other]\ncommand = "other"\n\n[profiles.a]\nmodel = "y"\n',
        "CRLF": 'model = "x"\r\n\r\n[S.other]\r\ncommand = "other"\r\n',
        "a byte order mark": '\ufeffmodel = "x"\n',
        "dotted": 'S.other.command = "other"\n',
        "inline": 'S = { other = { command = "other" } }\n',
        "no end of line": 'model = "x"',
    },
    texts.YAML: {
        "none": None,
        "empty": "",
        "blank": "\n",
        "values": "MODEL: x # fast\n",
        "comments": "# mine\nMODEL: x\nS:\n  # first\n  other:\n    enabled: true\n    cmd: other\n",
        "quoted": "MODEL: 'x'\nS:\n  other:\n    cmd: \"other\"\n",
        "CRLF": "MODEL: x\r\nS:\r\n  other:\r\n    cmd: other\r\n",
        "a byte order mark": "\ufeffMODEL: x\n",
        "a table after": "S:\n  other:\n    cmd: other\nMODEL: x\n",
        "flow": "MODEL: x\nS: {other: {cmd: other}}\n",
        "no end of line": "MODEL: x",
    },
}
CASES = [(client, start) for client in CLIENTS.values() for start in STARTS[client.form]]


def plain(text: str, client: Client) -> Any:
    """Read settings with a parser that is not the one that changed them, where there is one."""
    text = text.removeprefix("\ufeff")
    if client.form == texts.TOML:
        return tomllib.loads(text)
    if client.form == texts.YAML:
        return yaml.safe_load(text) or {}
    return jsonc.parse(text).data if text.strip() else {}


def settings(client: Client, start: str, home: Home) -> Path:
    """Make a client's settings as they were before."""
    path = client.user(home)
    text = STARTS[client.form][start]
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("S", client.path[0]).encode() if "S" in text else text.encode())
    return path


def adding(client: Client, path: Path, home: Home, server: Server, **options: Any) -> edits.Change:
    return edits.adding(path, [parts.Entry(client, client.entry(server))], home, **options)


def removing(client: Client, path: Path, home: Home) -> edits.Change:
    return edits.removing(path, [parts.Entry(client, {})], home)


def install(client: Client, path: Path, home: Home, server: Server, **options: Any) -> edits.Change:
    change = adding(client, path, home, server, **options)
    edits.write(change, home)
    return change


@pytest.mark.parametrize(("client", "start"), CASES, ids=[f"{client.name}-{start}" for client, start in CASES])
def test_settings_are_changed_by_our_entry_alone_and_undone_to_the_byte(
    client: Client, start: str, home: Home, server: Server
) -> None:
    path = settings(client, start, home)
    before = path.read_bytes() if path.exists() else None
    assert install(client, path, home, server).what == parts.ADDED
    text = path.read_bytes().decode()
    found = plain(text, client)
    servers = found.pop(client.path[0])
    assert servers.pop(NAME) == client.entry(server)
    was = plain((before or b"").decode(), client)
    assert (found, servers) == (was, was.pop(client.path[0], {}) if client.path[0] in was else {}) or {
        **found, client.path[0]: servers
    } == was  # fmt: skip
    assert text.startswith("\ufeff") == (before or b"").startswith("\ufeff".encode())
    assert ("\r\n" in text) == (b"\r\n" in (before or b""))
    assert "\r\n" not in text or text.count("\n") == text.count("\r\n")
    for line in (before or b"").decode().splitlines():  # Comments, blanks and all.
        assert line.strip().rstrip("}, ") in text

    again = adding(client, path, home, server)
    assert (again.what, again.is_none) == (parts.SAME, True)
    moved = server._replace(command="/elsewhere/mcp-bus")
    assert install(client, path, home, moved).what == parts.REPLACED

    edits.write(removing(client, path, home), home)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_what_others_changed_since_stays_when_ours_is_taken_out(client: Client, home: Home, server: Server) -> None:
    path = settings(client, "comments", home)
    before = plain(path.read_text(), client)
    install(client, path, home, server)
    changed = texts.put(path.read_text(), client.form, (*client.path, "later"), OTHER)
    path.write_text(changed)
    change = removing(client, path, home)
    edits.write(change, home)
    before[client.path[0]]["later"] = OTHER
    assert plain(path.read_text(), client) == before
    assert removing(client, path, home).what == parts.ABSENT


@pytest.mark.parametrize(
    ("form", "text", "why"),
    [
        (texts.JSON, '{"a": 1', "it is not JSON: line 1, column 8"),
        (texts.JSON, "[1]", "not a table of names and values"),
        (texts.JSON, '{"mcpServers": [1]}', "'mcpServers' in it is no table"),
        (texts.JSON, '{"mcpServers": {"bus": 1, "bus": 2}}', "'bus' is there twice"),
        (texts.TOML, "a = [", "it is not TOML"),
        (texts.TOML, "mcp_servers = 1", "'mcp_servers' in it is no table"),
        (texts.YAML, "a: [", "it is not YAML"),
        (texts.YAML, "- 1\n", "not a table of names and values"),
        (texts.YAML, "extensions: &x {a: {b: 1}}\nother: *x\n", "changing more than this entry"),
    ],
)
def test_what_cannot_be_changed_safely_is_left_as_it_is(
    form: str, text: str, why: str, home: Home, server: Server
) -> None:
    client = {texts.JSON: CLIENTS["cursor"], texts.TOML: CLIENTS["codex"], texts.YAML: CLIENTS["goose"]}[form]
    path = client.user(home)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        install(client, path, home, server)
    assert why in str(refused.value)
    assert str(path) in str(refused.value)
    assert path.read_text() == text
    assert not list(path.parent.glob(".*"))


def test_a_server_of_our_name_that_is_another_s_is_replaced_only_if_that_is_asked_for(
    home: Home, server: Server
) -> None:
    client, path = CLIENTS["cursor"], settings(CLIENTS["cursor"], "none", home)
    path.parent.mkdir(parents=True)
    text = json.dumps({"mcpServers": {NAME: OTHER}})
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="starts something else"):
        install(client, path, home, server)
    assert removing(client, path, home).what == parts.ABSENT
    assert path.read_text() == text
    assert install(client, path, home, server, is_forced=True).what == parts.REPLACED
    edits.write(removing(client, path, home), home)
    assert path.read_text() == text, "and comes back"


def test_a_symlink_stays_one_and_what_it_points_at_is_changed_with_its_mode(home: Home, server: Server) -> None:
    client, path = CLIENTS["cursor"], CLIENTS["cursor"].user(home)
    path.parent.mkdir(parents=True)
    real = home.home / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o640)
    path.symlink_to(real)
    install(client, path, home, server)
    assert path.is_symlink()
    assert NAME in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    edits.write(removing(client, path, home), home)
    assert (path.is_symlink(), real.read_text()) == (True, "{}")


@pytest.mark.parametrize("what", ["a folder", "a FIFO", "a loop", "binary", "read-only", "huge"])
def test_what_is_no_file_of_settings_is_left_alone(what: str, home: Home, server: Server) -> None:
    client, path = CLIENTS["cursor"], CLIENTS["cursor"].user(home)
    path.parent.mkdir(parents=True)
    if what == "a folder":
        path.mkdir()
    elif what == "a FIFO":
        os.mkfifo(path)
    elif what == "a loop":
        path.symlink_to(path)
    elif what == "huge":
        path.touch()
        os.truncate(path, files.MAX_SETTINGS + 1)
    else:
        path.write_bytes(b"\xff\xfe" if what == "binary" else b"{}")
        path.chmod(0o400 if what == "read-only" else 0o600)
    with pytest.raises(BusError) as refused:
        install(client, path, home, server)
    assert "is left as it is: " in str(refused.value)
    assert list(path.parent.iterdir()) == [path]


def test_settings_that_were_changed_since_they_were_read_are_not_written(home: Home, server: Server) -> None:
    client, path = CLIENTS["cursor"], settings(CLIENTS["cursor"], "comments", home)
    change = adding(client, path, home, server)
    path.write_text("{}")
    with pytest.raises(Conflict, match="changed by somebody else"):
        edits.write(change, home)
    assert path.read_text() == "{}"


def test_of_two_installs_at_once_each_entry_is_written_or_refused_and_none_is_lost(home: Home, server: Server) -> None:
    client, path = CLIENTS["cursor"], settings(CLIENTS["cursor"], "comments", home)
    entries = [client.entry(server._replace(env={"MCP_BUS_AGENT": str(number)})) for number in range(8)]
    start, ends = threading.Barrier(len(entries)), list[str]()

    def one(entry: dict[str, Any]) -> None:
        change = edits.adding(path, [parts.Entry(client, entry)], home)
        start.wait()
        try:
            edits.write(change, home)
            ends.append("written")
        except Conflict:
            ends.append("refused")

    threads = [threading.Thread(target=one, args=(entry,)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ends) == ["refused"] * 7 + ["written"]
    assert jsonc.parse(path.read_text()).data["mcpServers"][NAME] in entries  # type: ignore[index]  # it is an object
