"""A name stands for one recipient, and a slip is an error that says who was meant."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from mcp_bus import names
from mcp_bus.addresses import Address, resolve
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.model import Identity, Policy
from mcp_bus.presence import Roster
from mcp_bus.stores.memory import MemoryStore

if TYPE_CHECKING:
    from tests.fakes import VirtualSource


@pytest.fixture
def store(source: VirtualSource) -> MemoryStore:
    made = MemoryStore(source=source)
    made.declare("review")
    made.declare("news", Policy("topic"))
    made.declare("both")
    made.declare(names.inbox("away"), Policy("inbox"))
    for agent, session in (("planner", "aaaa"), ("both", "1"), ("github.com/acme/app/main", "2"), ("gone", "3")):
        roster = Roster(made, Identity(agent, session, names.holder(agent, session), pid=os.getpid()), source)
        roster.arrive()
        if agent == "gone":
            roster.leave()
    return made


def found(store: MemoryStore, source: VirtualSource, to: object) -> Address:
    return resolve(to, Roster(store, Identity("ann", "1", "ann~1"), source).all(), store)


@pytest.mark.parametrize(
    ("to", "address"),
    [
        ("planner", Address("agent", "@planner", "planner")),
        ("@planner", Address("agent", "@planner", "planner")),
        ("planner~aaaa", Address("session", "@planner~aaaa", "planner", "aaaa")),
        ("gone", Address("agent", "@gone", "gone")),
        ("away", Address("agent", "@away", "away")),
        ("@never-seen", Address("agent", "@never-seen", "never-seen")),
        ("review", Address("channel", "review")),
        ("#review", Address("channel", "review")),
        ("news", Address("topic", "news")),
        ("human", Address("agent", "@human", "human")),
        ("broadcast", Address("topic", "broadcast")),
        ("@both", Address("agent", "@both", "both")),
        ("#both", Address("channel", "both")),
    ],
)
def test_a_name_is_found(store: MemoryStore, source: VirtualSource, to: str, address: Address) -> None:
    assert found(store, source, to) == address


def test_an_agent_named_by_git_has_an_inbox_of_its_own(store: MemoryStore, source: VirtualSource) -> None:
    address = found(store, source, "github.com/acme/app/main")
    assert address.channel.startswith("@github.com-acme-app-main+")
    assert re.match(names.INBOX, address.channel)
    assert names.inbox("github.com/acme/app/dev") != address.channel
    assert names.inbox(address.channel[1:].replace("+", "-")) != address.channel


@pytest.mark.parametrize(
    ("to", "hint"),
    [("planer", "'planner'"), ("reviews", "'review'"), ("humn", "'human'"), ("#nothing", ""), ("zzzzzz", "known: ")],
)
def test_a_slip_is_told_with_who_was_meant(store: MemoryStore, source: VirtualSource, to: str, hint: str) -> None:
    with pytest.raises(NotFound) as refusal:
        found(store, source, to)
    assert hint in refusal.value.hint


def test_a_session_that_ended_is_told_with_its_agent(store: MemoryStore, source: VirtualSource) -> None:
    with pytest.raises(NotFound, match="has ended") as refusal:
        found(store, source, "gone~3")
    assert "'gone'" in refusal.value.hint


@pytest.mark.parametrize("to", ["both", "", "a\nb", "x" * 201, None, 7, "#../x", "#@planner"])
def test_a_name_that_is_none_or_two_is_refused(store: MemoryStore, source: VirtualSource, to: object) -> None:
    with pytest.raises(InvalidRequest):
        found(store, source, to)


@pytest.mark.parametrize("agent", ["a", "A", "a b", "a/b", "A/B", "\u00e9", "x" * 160, "..", "@", "con", "~", "a~1"])
def test_every_agent_has_an_inbox_whose_name_is_legal_and_its_own(agent: str) -> None:
    others = {"a", "A", "a b", "a/b", "A/B", "\u00e9", "x" * 160, "..", "@", "con", "~", "a~1"} - {agent}
    for session in ("", "0a1b2c3d"):
        name = names.inbox(agent, session)
        assert re.match(names.INBOX, name)
        assert len(name) < 90
        assert name not in {names.inbox(other, session) for other in others}
