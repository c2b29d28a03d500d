"""The reference pages name what the code has: verbs, options, settings, exit codes, tools, arguments, errors."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from pydantic import BaseModel

import mcp_bus
from mcp_bus import errors
from mcp_bus.bus import Bus
from mcp_bus.cli.arguments import Parser
from mcp_bus.cli.codes import code_of
from mcp_bus.cli.main import CODES, VERBS
from mcp_bus.model import POLICY_FIELDS, POST_OPTIONS
from mcp_bus.server import resources
from mcp_bus.server.tools import PIPE, TOOLS, Tool
from tests.docs.executed import ROOT
from tools import draw_settings

CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
LIBRARY = (ROOT / "docs" / "library.md").read_text("utf-8")
PAGE_OF_TOOLS = (ROOT / "docs" / "tools.md").read_text("utf-8")
# What every verb has is said once, at the top of the page.
COMMON = {"--bus", "--agent", "--json", "-q", "--quiet", "-h", "--help"}


def section(page: str, name: str) -> str:
    """Return the part of a page whose heading names a thing in backticks."""
    parts = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)
    found = [part for part in parts if f"`{name}`" in part.partition("\n")[0]]
    assert len(found) == 1, f"{len(found)} headings name {name}"
    return found[0]


def words(text: str) -> str:
    """Return a text in one line, however the page wraps it."""
    return " ".join(text.split())


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_heading_its_sentence_and_its_options(verb: str) -> None:
    module, about = VERBS[verb]
    found = import_module(f"mcp_bus.cli.{module}").VERBS[verb]
    parser = Parser(verb, about, found.example)
    found.declare(parser)
    said = words(section(CLI, verb))
    assert f"{about[0].upper()}{about[1:]}." in said
    options = {option for action in parser._actions for option in action.option_strings} - COMMON
    assert {option for option in options if option not in said} == set()


def test_the_exit_codes_are_those_of_the_help() -> None:
    assert CODES in CLI


def test_the_settings_are_those_of_the_code() -> None:
    assert draw_settings.page() in CLI, "put in what `python -m tools.draw_settings` prints"


def test_the_settings_of_a_channel_are_named() -> None:
    assert {name for name in POLICY_FIELDS if name not in section(CLI, "channel")} == set()


# --- the tools ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [*TOOLS, PIPE], ids=lambda tool: str(tool.name))
def test_a_tool_has_a_heading_and_all_its_arguments(tool: Tool) -> None:
    said = section(PAGE_OF_TOOLS, tool.name)
    names = set(tool.model.model_fields)
    for field in tool.model.model_fields.values():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names |= set(inner.model_fields)
    assert {name for name in names if f"`{name}`" not in said} == set()


def test_the_profiles_are_those_of_the_code() -> None:
    for tool in (*TOOLS, PIPE):
        cells = ["yes" if profile in tool.profiles else "" for profile in ("worker", "lead", "full")]
        row = f"| `{tool.name}` | {' | '.join(cells)} | {'yes' if tool.read_only else ''} |"
        assert row.replace("|  |", "| |") in PAGE_OF_TOOLS.replace("|  |", "| |")


def test_the_resources_are_named() -> None:
    listed = [str(item.uri) for item in resources.fixed()] + [item.uri_template for item in resources.templates()]
    assert [uri for uri in listed if f"`{uri}`" not in PAGE_OF_TOOLS] == []


# --- the library ----------------------------------------------------------------------------------


def test_every_error_is_in_the_table_with_its_code_and_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BusError)]
    rows = [
        f"| `{kind.__name__}` | `{kind.code}` | {'yes' if kind.retryable else 'no'} | {code_of(kind(''))} |"
        for kind in kinds
    ]
    assert [row for row in rows if row not in LIBRARY] == []


def test_every_option_of_a_post_is_named() -> None:
    assert {name for name in POST_OPTIONS if f"`{name}`" not in LIBRARY} == set()


def test_every_verb_of_a_bus_is_named() -> None:
    verbs = {name for name in dir(Bus) if not name.startswith("_") and callable(getattr(Bus, name))}
    assert {name for name in verbs if f"`{name}" not in LIBRARY and f".{name}(" not in LIBRARY} == set()


def test_what_the_package_offers_is_named() -> None:
    offered = (name for name in mcp_bus.__all__ if name[0].islower())
    assert {name for name in offered if f"{name}(" not in LIBRARY} == set()
