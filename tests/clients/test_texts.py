"""TOML and YAML as text: no line changes that is not of our entry; what cannot be changed so is refused."""

from __future__ import annotations

import pytest

from mcp_bus.clients import texts
from mcp_bus.clients.texts import TOML, YAML
from mcp_bus.errors import InvalidRequest

BUS = {"command": "/x/mcp-bus", "args": ["serve"], "env": {"A": "b"}, "required": True}
TABLE = '[s.bus]\ncommand = "/x/mcp-bus"\nargs = ["serve"]\nenv = {A = "b"}\nrequired = true\n'
ENTRY = 'bus:\n  command: "/x/mcp-bus"\n  args: ["serve"]\n  env: {"A": "b"}\n  required: true\n'


def entry(column: int, unit: int = 2) -> str:
    """Return our entry in YAML, below a table."""
    lines = ENTRY.replace("  ", " " * unit).splitlines(keepends=True)
    return "".join(" " * column + line for line in lines)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", TABLE),
        ("a = 1", f"a = 1\n\n{TABLE}"),
        ("a = 1\n\n", f"a = 1\n\n{TABLE}"),
        ("x = nan\ny = [inf, -nan]\n", f"x = nan\ny = [inf, -nan]\n\n{TABLE}"),
        ("[s.docs]\nc = '''\r\n[s.bus]\n'''\n# end\n", f"[s.docs]\nc = '''\r\n[s.bus]\n'''\n# end\n\n{TABLE}"),
        ('c = """\n[s.bus]\n\\"""" \n[[l]]\na = [ # ]\n1,\n]',
         f'c = """\n[s.bus]\n\\"""" \n[[l]]\na = [ # ]\n1,\n]\n\n{TABLE}'),
        ('s = { docs = { c = "]" } } # mine\nb = 1\n',
         ('s = { docs = { c = "]" } , bus = {command = "/x/mcp-bus", args = ["serve"], env = {A = "b"}, '
         "required = true}} # mine\nb = 1\n")),
        ("a = 1\r\nb = 2\r\n", f"a = 1\r\nb = 2\r\n\n{TABLE}".replace("\r\n", "\n").replace("\n", "\r\n")),
    ],
)  # fmt: skip
def test_a_toml_table_goes_behind_all_else_and_out_again(before: str, after: str) -> None:
    made = texts.put(before, TOML, ("s", "bus"), BUS)
    assert made.replace(" , ", ", ") == after.replace(" , ", ", ")
    gone = texts.drop(made, TOML, ("s", "bus"))
    if "{ docs" not in before:
        assert gone.strip() == before.strip()
        assert gone in (before, before + "\n", before.removesuffix("\n"))


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_comments_and_tables_around_a_toml_table_stay_when_it_is_renewed_and_when_it_goes(line: str) -> None:
    def lines(text: str) -> str:
        return text.replace("\n", line)

    head, tail = "# mine\na = 1\n", '\n# my docs server, key from Joe\n[s.docs]\ncommand = "d" # so\n'
    text = lines(f"{head}\n{TABLE}{tail}")
    assert texts.drop(text, TOML, ("s", "bus")) == lines(head + tail)
    renewed = texts.put(text, TOML, ("s", "bus"), BUS | {"command": "/new"})
    assert renewed == text.replace("/x/mcp-bus", "/new")


def test_lines_of_a_toml_table_that_are_right_already_stay_with_their_comments() -> None:
    text = '[s.bus] # ours\n# why\nargs = [\n  "serve", # so\n]\nold = 1\n# last\n[s.bus.env]\nA = "c"\n\n# next\n[t]\n'
    made = texts.put(text, TOML, ("s", "bus"), BUS)
    assert made == (
        '[s.bus] # ours\n# why\nargs = [\n  "serve", # so\n]\ncommand = "/x/mcp-bus"\nenv = {A = "b"}\n'
        "required = true\n# last\n\n# next\n[t]\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('s.bus.command = "mcp-bus"\ns.bus.args = []\ns.docs.c = "d"\n', 's.docs.c = "d"\n'),
        ('[s]\nbus = {command = "mcp-bus"}\ndocs = {} # d\n', "[s]\ndocs = {} # d\n"),
        ('[s."bus"]\na = 1\n[s.bus.env]\nb = 2\n[t]\n', "[t]\n"),
        ("[s.bus]\na = 1\n# [s.off]\n# c = 1\n[s.bus.env]\nb = 2\n[t]\n", "# [s.off]\n# c = 1\n[t]\n"),
        ("[s . 'bus']\na = 1", ""),
    ],
)
def test_a_toml_table_goes_however_it_is_written(before: str, after: str) -> None:
    assert texts.drop(before, TOML, ("s", "bus")) == after
    made = texts.put(before, TOML, ("s", "bus"), BUS)
    assert texts.entry(texts.read(made, TOML), ("s", "bus")) == BUS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\n", "# mine\ns:\n" + entry(2)),
        ("---\n# mine\n", "---\n# mine\ns:\n" + entry(2)),
        ("s:\n", "s:\n" + entry(2)),
        ("s: # none\na: ~\n", "s: # none\n" + entry(2) + "a: ~\n"),
        ("s: ~ # none\na: 1", "s:  # none\n" + entry(2) + "a: 1"),
        ("---\na: ~\nb: >\n    folded\n    text\n...\n",
         "---\na: ~\nb: >\n    folded\n    text\ns:\n" + entry(2) + "...\n"),
        ("a:\n    b: 'x'   # so\ns:\n    docs:\n        c: d\n\n# end\n",
         "a:\n    b: 'x'   # so\ns:\n    docs:\n        c: d\n" + entry(4, 4) + "\n# end\n"),
        ("s:\n  docs: |\n    text\n\nb: 1\n", "s:\n  docs: |\n    text\n\n" + entry(2) + "b: 1\n"),
        ("a: &x {c: d}\ns:\n  docs: *x\nb: 1\n", "a: &x {c: d}\ns:\n  docs: *x\n" + entry(2) + "b: 1\n"),
        ("s: {}\n", 's: {bus: {"command": "/x/mcp-bus", "args": ["serve"], "env": {"A": "b"}, "required": true}}\n'),
    ],
)  # fmt: skip
def test_a_yaml_entry_changes_no_other_line(before: str, after: str) -> None:
    made = texts.put(before, YAML, ("s", "bus"), BUS)
    assert made == after
    renewed = texts.put(made, YAML, ("s", "bus"), BUS | {"command": "/new"})
    assert renewed == after.replace("/x/mcp-bus", "/new")
    gone = texts.drop(made, YAML, ("s", "bus"))
    if "docs" in before or before == "s: {}\n":
        assert gone == before
    else:
        assert {*before.splitlines()} - {*gone.splitlines()} <= {"s:", "s: # none", "s: ~ # none"}
    crlf = texts.put(before.replace("\n", "\r\n"), YAML, ("s", "bus"), BUS)
    assert "\n" not in crlf.replace("\r\n", "") or "\n" not in before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("s: {bus: {a: 1}, docs: {}}\n", "s: {docs: {}}\n"),
        ("s: {docs: {}, bus: {a: 1}}\n", "s: {docs: {}}\n"),
        ("s: {bus: {a: 1}}\n", "s: {}\n"),
        ("s:\n  bus:\n    a: 1\n  # my docs\n  docs: {}\n", "s:\n  # my docs\n  docs: {}\n"),
        ("s:\n  bus: {a: 1}\nb: 1\n", "s: {}\nb: 1\n"),
    ],
)
def test_a_yaml_entry_goes_and_leaves_the_rest(before: str, after: str) -> None:
    assert texts.drop(before, YAML, ("s", "bus")) == after


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (YAML, "s: &x\n  docs: 1\nt: *x\n"),
        (YAML, "t: &x {docs: 1}\ns: *x\n"),
        (YAML, "? s\n: docs: 1\n? t\n: [1\n"),
        (YAML, "s: " + "[" * 400 + "]" * 400 + "\n"),
        (YAML, "a: " + "[" * 5000 + "]" * 5000 + "\n"),
        (YAML, "a: 1\n---\nb: 2\n"),
        (TOML, "s = 1\n"),
        (TOML, "[[s]]\na = 1\n"),
    ],
)
def test_what_cannot_be_changed_by_our_entry_alone_is_refused(form: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^(it |'s' in it is no table)") as refused:
        texts.put(text, form, ("s", "bus"), BUS)
    assert "--print shows it" in str(refused.value.hint)
