"""The hooks of each client: put among those of others, put in again, and taken out to the byte."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mcp_bus.clients import edits, extras, hooking, jsonc, parts, texts
from mcp_bus.clients.hooking import Hooks
from mcp_bus.clients.known import CLIENTS, Home, Server
from mcp_bus.errors import InvalidRequest
from mcp_bus.hooks import forms

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "waking.md").read_text("utf-8")
WORDS = ("/opt/my tools/mcp-bus", "--agent", "tester")
JSON = ["claude-code", "codex", "gemini-cli", "cursor"]
# What settings may look like before; `E` stands for an event of the client, `O` for a hook of somebody else.
STARTS = {
    "none": None,
    "empty": "",
    "blank": " \n\n",
    "an object": "{}",
    "one line": '{"theme": "dark", "hooks": {"E": [O]}}',
    "other events": '{\n  "hooks": {\n    "Elsewhere": [O]\n  }\n}\n',
    "comments": '// mine\n{\n  /* y */\n  "hooks": {\n    // first\n    "E": [\n      O // so\n    ]\n  }, "a": 1\n}\n',
    "trailing commas": '{\n    "hooks": {\n        "E": [\n            O,\n        ],\n    },\n    "a": 1,\n}\n',
    "CRLF and tabs": '{\r\n\t"a": 1,\r\n\t"hooks": {\r\n\t\t"E": [\r\n\t\t\tO,\r\n\t\t\tO\r\n\t\t]\r\n\t}\r\n}\r\n',
    "brackets together": '{\n  "hooks": {"E": [O, {\n    "x": 1\n  }]}\n}\n',
    "a byte order mark": '\ufeff{\n  "theme": "d\xe4rk"\n}\n',
    "hooks without any": '{\n  "hooks": {},\n  "a": 1\n}',
    "an event without any": '{\n  "hooks": {\n    "E": []\n  }\n}',
    "items that are no hooks": '{\n  "hooks": {"E": [1, null, "x", {"hooks": 3}, {"hooks": [7]}]}\n}',
    "no end of line": '{\n  "a": 1\n}',
}


def other(client: str) -> str:
    hook = {"type": "command", "command": "echo mcp-bus hook"}
    return json.dumps(hook if client == "cursor" else {"matcher": "*", "hooks": [hook]})


def settings(client: str, start: str, home: Home) -> tuple[Path, bytes | None]:
    """Make the file of a client's hooks as it was before."""
    (path,) = extras.places(CLIENTS[client], parts.HOOKS, home, "user", home.home)
    text = STARTS[start]
    if text is None:
        return path, None
    event = list(forms.CLIENTS[client])[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(re.sub(r"\bO\b", lambda _: other(client), text).replace('"E"', f'"{event}"').encode())
    return path, path.read_bytes()


def plain(data: bytes | None) -> Any:
    text = (data or b"").decode().removeprefix("\ufeff")
    return jsonc.parse(text).data if text.strip() else {}


def put(path: Path, home: Home, *some: parts.Part) -> edits.Change:
    change = edits.adding(path, some, home)
    edits.write(change, home)
    return change


def take(path: Path, home: Home, *some: parts.Part) -> edits.Change:
    change = edits.removing(path, some, home)
    edits.write(change, home)
    return change


CASES = list(product(JSON, STARTS))


@pytest.mark.parametrize(("client", "start"), CASES, ids=[f"{client}-{start}" for client, start in CASES])
def test_hooks_are_added_to_those_of_others_and_undone_to_the_byte(client: str, start: str, home: Home) -> None:
    path, before = settings(client, start, home)
    ours = Hooks(client, WORDS)
    assert put(path, home, ours).what == parts.ADDED
    text = path.read_bytes().decode()
    expected, wanted = plain(before), hooking.shown(client, WORDS)
    for event, items in wanted["hooks"].items():
        hooks = expected.setdefault("hooks", {})
        hooks[event] = [*hooks.get(event, []), *items]
    assert plain(path.read_bytes()) == {**({"version": 1} if client == "cursor" else {}), **expected}
    assert text.startswith("\ufeff") == (before or b"").startswith("\ufeff".encode())
    assert ("\r\n" in text) == (b"\r\n" in (before or b""))
    assert "\r\n" not in text or text.count("\n") == text.count("\r\n")
    for line in re.split(r"\n|(?=//)", (before or b"").decode()):  # Comments, blanks and all.
        assert line.strip().rstrip("]}, ") in text

    assert edits.adding(path, [ours], home).is_none
    moved = Hooks(client, ("/elsewhere/mcp-bus",))
    assert put(path, home, moved).what == parts.REPLACED
    assert str(WORDS[0]) not in path.read_text()
    assert path.read_text().count("/elsewhere/mcp-bus") == len(forms.CLIENTS[client]), "each event once"

    assert take(path, home, ours).what == parts.REMOVED
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(("client", "start"), CASES, ids=[f"{client}-{start}" for client, start in CASES])
def test_without_a_record_of_before_hooks_are_cut_out_and_the_rest_means_the_same(
    client: str, start: str, home: Home
) -> None:
    path, before = settings(client, start, home)
    ours = Hooks(client, WORDS)
    put(path, home, ours)
    text = ours.drop(path.read_bytes().decode(), is_known=False)[0]
    left, was = plain((text or "").encode()), plain(before)
    left.pop("version", None)
    emptied = {event for event, items in was.get("hooks", {}).items() if not items}
    was["hooks"] = {event: items for event, items in was.get("hooks", {}).items() if event not in emptied}
    left.setdefault("hooks", {})
    assert left == was
    assert ours.drop(text or "", is_known=False) == (text, parts.ABSENT)


def test_what_others_changed_since_stays_when_hooks_are_taken_out(home: Home) -> None:
    path, _ = settings("claude-code", "comments", home)
    put(path, home, Hooks("claude-code", WORDS))
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    assert take(path, home, Hooks("claude-code", WORDS)).what == parts.REMOVED
    text = path.read_text()
    assert ("mcp-bus hook claude-code" in text, "// first" in text, '"a": 2' in text) == (False, True, True)
    assert plain(path.read_bytes())["hooks"] == {"UserPromptSubmit": [json.loads(other("claude-code"))]}


def test_a_file_with_a_server_and_hooks_is_one_change_and_comes_back_whatever_came_first(home: Home) -> None:
    client, server = CLIENTS["gemini-cli"], Server("/x/mcp-bus", ("serve",), {})
    entry, hooks = parts.Entry(client, client.entry(server)), Hooks("gemini-cli", WORDS)
    path, before = settings("gemini-cli", "comments", home)
    assert put(path, home, entry).parts == {"server": "added"}
    assert put(path, home, entry, hooks).parts == {"server": "as it was", "hooks": "added"}
    assert {"mcpServers", "hooks"} <= plain(path.read_bytes()).keys()
    assert take(path, home, hooks, entry).parts == {"server": "removed", "hooks": "removed"}
    assert path.read_bytes() == before


def test_what_was_ours_before_we_kept_anything_does_not_come_back(home: Home) -> None:
    client, server = CLIENTS["gemini-cli"], Server("/x/mcp-bus", ("serve",), {})
    entry, hooks = parts.Entry(client, client.entry(server)), Hooks("gemini-cli", WORDS)
    path, _ = settings("gemini-cli", "comments", home)
    put(path, home, entry)
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))  # So that what is kept next has our server.
    kept = plain(path.read_bytes())
    put(path, home, hooks)
    take(path, home, hooks, entry)
    del kept["mcpServers"]["bus"]
    assert plain(path.read_bytes()) == kept


@pytest.mark.parametrize("client", JSON)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"hooks": []}', "'hooks' in it is no table"),
        ('{"hooks": null}', "'hooks' in it is no table"),
        ('{"hooks": "x"}', "'hooks' in it is no table"),
        ('{"hooks": {"E": {}}}', "'hooks.E' in it is no list"),
        ('{"hooks": {"E": null}}', "'hooks.E' in it is no list"),
        ('{"hooks": {"E": "x"}}', "'hooks.E' in it is no list"),
        ('{"hooks": {', "it is not JSON: line 1"),
        ('{"hooks": {}, "hooks": {}}', "is there twice"),
        ("[]", "not a table of names and values"),
    ],
)
def test_settings_of_the_wrong_shape_are_left_as_they_are(client: str, text: str, why: str, home: Home) -> None:
    path, _ = settings(client, "an object", home)
    event = list(forms.CLIENTS[client])[-1]
    path.write_text(text.replace('"E"', f'"{event}"'))
    before = path.read_bytes()
    with pytest.raises(InvalidRequest) as refused:
        put(path, home, Hooks(client, WORDS))
    assert why.replace(".E", f".{event}") in str(refused.value)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ['{"hooks": []}', '{"hooks": null}', '{"hooks": {"Stop": {}}}', "{}"])
def test_what_holds_no_hooks_can_lose_none(text: str) -> None:
    assert Hooks("codex", WORDS).drop(text, is_known=False) == (text, parts.ABSENT)


def hook(command: str, **more: Any) -> dict[str, Any]:
    return {"type": "command", "command": command, **more}


@pytest.mark.parametrize(
    ("mine", "after"),
    [
        (hook("mcp-bus hook codex Stop"), hook("/new/mcp-bus hook codex Stop")),
        (hook("'/my tools/mcp-bus' --agent a hook codex Stop"), hook("/new/mcp-bus --agent a hook codex Stop")),
        (hook("/python3 -m mcp_bus --bus b hook codex Stop"), hook("/new/mcp-bus --bus b hook codex Stop")),
        (hook('"/my tools/mcp-bus" -q hook codex Old'), hook("/new/mcp-bus -q hook codex Stop")),
        (hook("uvx mcp-bus hook codex Stop", timeout=3), hook("/new/mcp-bus hook codex Stop", timeout=3)),
        ({"type": "mcp_tool", "server": "bus", "tool": "hook"}, {"type": "mcp_tool", "server": "bus", "tool": "hook"}),
    ],
)
def test_a_hook_of_ours_is_renewed_where_it_is_with_what_else_was_set(mine: Any, after: Any) -> None:
    foreign = hook("date")
    before = {"hooks": {"Stop": [{"matcher": "m", "hooks": [foreign, mine]}, {"hooks": [mine]}]}}
    text, what = Hooks("codex", ("/new/mcp-bus",)).put(json.dumps(before), is_known=False, is_forced=False)
    assert (json.loads(text)["hooks"]["Stop"], what) == ([{"matcher": "m", "hooks": [foreign, after]}], parts.REPLACED)
    left, _ = Hooks("codex", ()).drop(text, is_known=False)
    assert json.loads(left or "") == {"hooks": {"Stop": [{"matcher": "m", "hooks": [foreign]}]}}


@pytest.mark.parametrize("path", ["/my $tools/a;b/mcp-bus", "/it's (mine)/mcp-bus", "/a\\b/mcp-bus", '/a"b/mcp-bus'])
def test_a_path_with_what_a_shell_acts_on_is_quoted_and_still_ours(path: str) -> None:
    text, _ = Hooks("codex", (path,)).put("", is_known=False, is_forced=False)
    assert Hooks("codex", (path,)).put(text, is_known=False, is_forced=False) == (text, parts.SAME)
    assert Hooks("codex", WORDS).drop(text, is_known=False)[1] == parts.REMOVED


@pytest.mark.parametrize(
    ("said", "is_forced", "after"),
    [
        ("--agent ann --bus /a", False, "--bus /b --agent ann"),
        ("--bus=/a -q", False, "--bus /b -q --agent tester"),
        ("--agent ann --bus /a", True, "--bus /b --agent tester"),
    ],
)
def test_a_name_that_a_person_set_stays_and_a_bus_that_is_named_is_set(
    said: str, after: str, *, is_forced: bool
) -> None:
    before = json.dumps({"hooks": {"Stop": [{"hooks": [hook(f"mcp-bus {said} hook codex Stop")]}]}})
    ours = Hooks("codex", ("/x/mcp-bus", "--bus", "/b", "--agent", "tester"))
    text, _ = ours.put(before, is_known=False, is_forced=is_forced)
    assert json.loads(text)["hooks"]["Stop"][0]["hooks"] == [hook(f"/x/mcp-bus {after} hook codex Stop")]
    assert ours.put(text, is_known=False, is_forced=is_forced)[1] == parts.SAME
    quoted = text.replace(" /b ", " '/b' ")
    only = Hooks("codex", ("/x/mcp-bus", "--agent", "tester"))
    again = only.put(quoted, is_known=False, is_forced=False)
    assert again == (quoted, parts.SAME), "a bus that was named stays until another is, however it is quoted"


def test_several_of_ours_in_one_list_go_and_those_between_them_stay() -> None:
    ours, foreign, last = hook("mcp-bus hook codex Stop"), hook("date"), hook("time")
    before = {
        "hooks": {"Stop": [{"hooks": [ours]}, {"hooks": [foreign]}, {"hooks": [ours, last, ours]}, {"hooks": [ours]}]}
    }
    left, _ = Hooks("codex", ()).drop(json.dumps(before), is_known=False)
    assert json.loads(left or "") == {"hooks": {"Stop": [{"hooks": [foreign]}, {"hooks": [last]}]}}
    text, _ = Hooks("codex", ("/x/mcp-bus",)).put(json.dumps(before), is_known=False, is_forced=False)
    renewed = hook("/x/mcp-bus hook codex Stop")
    assert json.loads(text)["hooks"]["Stop"] == [{"hooks": [renewed]}, {"hooks": [foreign]}, {"hooks": [last]}]


@pytest.mark.parametrize(
    "theirs",
    [
        "mcp-bus-other hook codex Stop", "cd /x && mcp-bus hook codex Stop", "echo mcp-bus hook", "mcp-bus ls",
        "mcp-bus hook", "mcp-bus hook 'codex Stop", "", "mcp-bus send @a hook x",
        "my-audit --log; mcp-bus hook codex Stop", "my-audit&& mcp-bus hook codex Stop", "echo mcp-bus hook codex Stop",
        "FOO=$(date) mcp-bus hook codex Stop", "FOO=1 mcp-bus hook codex Stop", "my-audit\nmcp-bus hook codex Stop",
        "mcp-bus hook codex Stop;my-audit", "mcp-bus hook codex Stop&", "mcp-bus hook codex Stop\nmy-audit",
        "mcp-bus hook codex Stop>/tmp/x", "mcp-bus hook codex Stop 2>&1", "mcp-bus --bus $(my-audit) hook codex Stop",
        "mcp-bus --bus `my-audit` hook codex Stop", 'mcp-bus --bus "$(my-audit)" hook codex Stop',
        "(mcp-bus hook codex Stop)", "mcp-bus send --agent a x hook codex Stop", "mcp-bus -q send hook codex Stop",
        "npx -y @acme/mcp-bus hook codex Stop", "mcp-bus hook codex 'Stop", "mcp-bus --agent hook codex Stop\\\n;x",
    ],
)  # fmt: skip
def test_a_hook_that_does_something_else_is_somebody_s(theirs: str) -> None:
    before = {"hooks": {"Stop": [{"hooks": [hook(theirs)]}]}}
    text, what = Hooks("codex", WORDS).put(json.dumps(before), is_known=False, is_forced=False)
    assert (json.loads(text)["hooks"]["Stop"][0], what) == ({"hooks": [hook(theirs)]}, parts.ADDED)
    assert Hooks("codex", WORDS).drop(json.dumps(before), is_known=False)[1] == parts.ABSENT


# --- one text for the docs, the plugin and the settings ---------------------------------------------------


@pytest.mark.parametrize("client", JSON)
def test_what_is_put_in_is_what_the_page_shows_with_another_path(client: str) -> None:
    (shown,) = [b for b in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if f"mcp-bus hook {client} " in b]
    assert json.loads(shown) == hooking.shown(client, ["mcp-bus"])
    text = Hooks(client, ("mcp-bus",)).put("", is_known=False, is_forced=False)[0]
    assert text.rstrip() == shown.rstrip(), "and laid out the same"
    moved = shown.replace("mcp-bus hook", "/x/mcp-bus --agent tester hook")
    assert json.loads(moved) == hooking.shown(client, ["/x/mcp-bus", "--agent", "tester"])


def test_the_plugin_for_opencode_is_what_the_page_shows_with_another_path() -> None:
    (shown,) = re.findall(r"```text\n(// [^\n]*mcp-bus\.js\n.*?)```", PAGE, re.DOTALL)
    assert hooking.plugin(["mcp-bus"]) == shown
    words = ["/my \\ tools/mcp-bus", "--agent", 'a"b']
    assert hooking.plugin(words) == shown.replace('["mcp-bus"]', json.dumps(words))


def test_a_hook_is_told_what_only_the_server_inherits() -> None:
    server = Server("/x/mcp-bus", ("serve",), {"MCP_BUS_AGENT": "a b", "MCP_BUS_DIR": "/b"})
    assert hooking.words_of(server) == ["/x/mcp-bus", "--bus", "/b", "--agent", "a b"]
    assert hooking.words_of(Server("/py", ("-m", "mcp_bus", "serve"), {})) == ["/py", "-m", "mcp_bus"]
    command = hooking.shown("cursor", hooking.words_of(server))["hooks"]["stop"][0]["command"]
    assert command == "/x/mcp-bus --bus /b --agent 'a b' hook cursor stop"


def test_every_client_that_can_be_told_by_hooks_gets_them(home: Home) -> None:
    have = [one for one in CLIENTS if extras.places(CLIENTS[one], parts.HOOKS, home, "user", home.home)]
    assert sorted(have) == sorted(forms.CLIENTS)


def test_changes_of_lists_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonc, "put", lambda text, *_, **__: text)
    with pytest.raises(InvalidRequest, match="changing more than this entry"):
        texts.edit("{}", [(("a",), [1])])
