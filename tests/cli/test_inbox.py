"""What `inbox` shows is what it says was offered, and the urgent is never behind what was shown before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def shown(cli: Cli, *words: str) -> list[str]:
    return [item["body"] for item in cli.json("--agent", "human", "inbox", *words)["messages"]]


def test_an_urgent_message_is_shown_before_all_that_was_shown_and_not_acked(cli: Cli) -> None:
    for number in range(4):
        cli.json("send", "human", f"chatter {number}")
    assert len(shown(cli, "--limit", "4")) == 4
    cli.json("send", "human", "PROD DOWN", "--priority", "9")
    assert shown(cli, "--limit", "4")[0] == "PROD DOWN"
    # Nor does what comes after push it away.
    cli.json("send", "human", "chatter 4")
    assert shown(cli, "--limit", "2") == ["PROD DOWN", "chatter 4"]
    assert shown(cli, "--limit", "1") == ["PROD DOWN"]


def test_what_is_traced_as_offered_was_printed(cli: Cli) -> None:
    ids = {cli.json("send", "human", f"message {number}")["id"]: f"message {number}" for number in range(5)}
    printed = set(shown(cli, "--limit", "2")) | set(shown(cli, "--limit", "1"))
    offered = {
        text
        for i, text in ids.items()
        if [reader["state"] for reader in cli.json("trace", i)["readers"]] == ["offered"]
    }
    assert len(offered) == 3
    assert offered == printed


def test_a_limit_is_a_number_above_0(cli: Cli) -> None:
    message = cli.json("send", "human", "hello")["id"]
    for limit in ("0", "-1", "x"):
        code, out, err = cli.main("--agent", "human", "inbox", f"--limit={limit}")
        assert (code, out) == (2, "")
        assert "is not a number above 0" in err
    assert [reader["state"] for reader in cli.json("trace", message)["readers"]] == ["queued"]
