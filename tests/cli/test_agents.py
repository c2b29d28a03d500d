"""agents: whoever holds a lease is listed, by what is known of it and no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clock import System
from mcp_bus.config import open_bus
from mcp_bus.holders import UNSEEN, holdings
from mcp_bus.model import Lease, Slot, State
from mcp_bus.names import holder
from mcp_bus.stores.memory import MemoryStore

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

LONG = "github.com/acme/app/main"


def listed(cli: Cli, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.json("agents", *words)["agents"]
    return found


def held_by(cli: Cli, agent: str) -> tuple[str, str]:
    cli.post()
    return cli.claim("--agent", agent)


@pytest.mark.parametrize("agent", ["carl", "carl+laptop", "tester"])
def test_a_shell_that_holds_a_task_between_two_calls_is_listed_until_it_submits(cli: Cli, agent: str) -> None:
    task, token = held_by(cli, agent)
    (item,) = listed(cli)
    assert (item["agent"], item["holds"], item["live"], item["why_not"]) == (agent, 1, False, UNSEEN)
    assert item["holder"] == holder(agent, item["session"])
    assert item["lease_until"] == cli.json("show", task)["lease"]["expires"]
    assert (item["since"], item["last_seen"], item["pid"]) == (None, None, None), "no presence is invented"
    _, out, _ = cli.main("agents")
    assert re.search(
        rf"^{re.escape(agent)} .* unseen  - .* lease ends in \d+ (min|s); no live session seen$", out, re.MULTILINE
    )
    cli.json("submit", task, "--token", token, "--done", "x")
    assert listed(cli) == []


def test_a_holder_whose_name_cannot_be_told_is_shown_by_its_word(cli: Cli) -> None:
    held_by(cli, LONG)
    (item,) = listed(cli)
    assert item["agent"] is None
    assert re.fullmatch(r"github-com-acme-app-main\+[0-9a-f]{8}~\w+", item["holder"])
    assert cli.main("agents")[1].splitlines()[1].startswith(item["holder"])
    assert listed(cli, "--agent", LONG)[0]["agent"] == LONG, "who asks knows its own name"


def test_a_name_that_was_seen_is_told_again(cli: Cli) -> None:
    held_by(cli, LONG)
    cli.main("--agent", LONG, "inbox")
    assert [(item["agent"], item["holds"]) for item in listed(cli) if item["holds"]] == [(LONG, 1)]


def test_a_session_that_is_over_and_holds_a_task_is_listed_without_all(cli: Cli) -> None:
    cli.post()
    with open_bus(cli.bus, agent="bob", session="00000007") as bus:
        bus.roster.arrive(["python"])
        assert bus.claim() is not None
        assert [(item["agent"], item["live"], item["holds"]) for item in listed(cli)] == [("bob", True, 1)]
        bus.roster.leave()
    (item,) = listed(cli)
    assert (item["agent"], item["live"], item["holds"]) == ("bob", False, 1)
    assert "its session has ended; lease ends in " in cli.main("agents")[1]


def test_a_lease_that_ran_out_and_did_not_come_back_is_said_to_have(cli: Cli) -> None:
    cli.post()
    with open_bus(cli.bus, agent="bob") as bus:
        bus.source = System(-3_600_000)
        assert bus.claim() is not None
    assert re.search(r"^bob .* lease ran out \d+ min ago; no live session seen$", cli.main("agents")[1], re.MULTILINE)


def test_a_claim_by_a_program_without_leases_is_shown_by_its_word(cli: Cli) -> None:
    task = cli.post()
    channel = cli.bus / "channels" / "work"
    (channel / "requests" / f"{task}.json").rename(channel / "processing" / f"{task}.json")
    (item,) = listed(cli)
    assert (item["agent"], item["holder"], item["holds"]) == (None, "abq", 1)


def test_a_word_is_never_taken_for_an_agent_that_it_does_not_stand_for() -> None:
    store = MemoryStore()
    store.declare("work")
    words = ["ann", "ann~", "~7f", "-~7f", "ann+0a1b2c3d~7f", holder("a n n", "7f"), holder("ann", "7f")]
    for number, word in enumerate(words):
        task_id = f"req_{number:032x}"
        store.medium.slots[task_id] = Slot(task_id, "work", State.LEASED, attempt=1, lease=Lease(word, "abcd", number))
    made = {word: item.agent for word, item in holdings(store, ["a-n-n", "ann+0a1b2c3d", "a n n"]).items()}
    assert {word: agent for word, agent in made.items() if agent} == {
        "ann~": "ann",
        holder("a n n", "7f"): "a n n",
        holder("ann", "7f"): "ann",
    }
