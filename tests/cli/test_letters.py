"""Messages on the command line: queued, shown, acked, traced; and the human at the terminal."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli.main import main

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def planner(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line of an agent called planner."""
    monkeypatch.setenv("MCP_BUS_AGENT", "planner")
    cli.env["MCP_BUS_AGENT"] = "planner"
    return cli


def inbox(cli: Cli, agent: str, *words: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.json("--agent", agent, "inbox", *words, code=code)["messages"]
    return found


def state(cli: Cli, message: str) -> str:
    (reader,) = cli.json("trace", message)["readers"]
    found: str = reader["state"]
    return found


def test_who_wrote_can_be_answered_by_name_and_as_inbox_says(planner: Cli) -> None:
    assert planner.main("--agent", "human", "send", "planner", "hello?")[0] == 3
    planner.json("send", "human", "which database?")
    said = planner.main("--agent", "human", "inbox")[2]
    (words,) = re.findall(r'^to answer: mcp-bus .*(send - "TEXT" --reply-to \w{8})$', said, re.MULTILINE)
    for answer in (words.replace('"', "").split(), ["send", "planner", "by name"]):
        assert planner.main("--agent", "human", *answer)[0] == 0
    assert [item["body"] for item in inbox(planner, "planner")] == ["TEXT", "by name"]


def test_a_message_to_the_human_is_queued_shown_and_acked_and_each_is_traced(planner: Cli) -> None:
    code, out, err = planner.main("send", "human", "which database?")
    assert code == 0
    short, to = out.split()
    assert to == "human"
    assert "queued for the human" in err
    assert state(planner, short) == "queued"
    (item,) = inbox(planner, "human")
    assert (item["body"], item["from"]["agent"], item["type"], item["offers"]) == (
        "which database?",
        "planner",
        "note",
        1,
    )
    assert state(planner, short) == "offered"
    assert [again["id"] for again in inbox(planner, "human")] == [item["id"]], "it is shown until it is acked"
    assert planner.json("--agent", "human", "inbox", "--ack", short)["acked"][0]["acked"] is True
    assert state(planner, short) == "acked"
    assert inbox(planner, "human", code=4) == []


def test_what_is_shown_can_be_acked_at_once(planner: Cli) -> None:
    planner.main("send", "@bob", "one")
    planner.main("send", "@bob", "two")
    assert [item["body"] for item in inbox(planner, "bob", "--ack")] == ["one", "two"]
    assert inbox(planner, "bob", code=4) == []


def test_what_could_not_be_shown_is_not_acked(planner: Cli) -> None:
    message = planner.json("send", "@bob", "x" * 100_000)["id"]
    with pathlib.Path("/dev/full").open("w") as full:
        done = planner.start("--agent", "bob", "inbox", "--ack", stdout=full)
        done.communicate(timeout=30)
    assert done.returncode == 1
    assert state(planner, message) == "offered"


def test_a_type_may_stand_before_the_body_as_abq_has_it(planner: Cli) -> None:
    planner.main("send", "@bob", "signal", '{"signal": "go"}')
    (item,) = inbox(planner, "bob")
    assert (item["type"], item["body"]) == ("signal", '{"signal": "go"}')
    code, _, err = planner.main("send", "@bob", "two", "words")
    assert code == 2
    assert "quote the body" in err
    code, _, err = planner.main("send", "human", "sinal", "x")
    assert code == 2
    assert "did you mean the type 'signal'?" in err


def test_an_answer_goes_to_the_sender(planner: Cli) -> None:
    asked = planner.json("send", "@bob", "how?")["id"]
    sent = planner.json("--agent", "bob", "send", "-", "so", "--reply-to", asked)
    assert sent["to"] == {"kind": "agent", "agent": "planner", "channel": "@planner"}
    (item,) = inbox(planner, "planner")
    assert (item["body"], item["reply_to"]) == ("so", asked)


def test_who_waits_for_an_answer_is_shown_it_and_nothing_else_is_acked(planner: Cli) -> None:
    planner.main("--agent", "eve", "send", "@planner", "something else")
    with planner.start("--json", "-q", "send", "@bob", "how?", "--wait", "30s") as process:
        (asked,) = planner.json("--agent", "bob", "inbox", "--wait", "30s")["messages"]
        for text in ("so", "or so"):
            answer = planner.json("--agent", "bob", "send", "-", text, "--reply-to", asked["id"])["id"]
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert (found["id"], found["answer"]["body"], found["answer"]["reply_to"]) == (asked["id"], "so", asked["id"])
    assert state(planner, found["answer"]["id"]) == "acked"
    assert [item["body"] for item in inbox(planner, "planner")] == ["something else", "or so"]
    assert found["answer"]["id"] != answer


def test_who_asks_again_under_the_same_key_is_shown_the_same_answer(planner: Cli) -> None:
    words = ["send", "@bob", "how?", "--key", "how", "--wait", "0.05s"]
    code, out, err = planner.main(*words)
    assert (code, len(out.splitlines())) == (4, 1)
    assert "no answer within" in err
    planner.main("--agent", "bob", "send", "-", "so", "--reply-to", out.split()[0])
    for _ in range(2):
        code, out, err = planner.main(*words)
        assert (code, "  | so" in out) == (0, True), err
    assert inbox(planner, "planner", code=4) == []


def test_an_answer_that_could_not_be_shown_is_not_acked(planner: Cli) -> None:
    words = ["send", "@bob", "how?", "--key", "how"]
    answer = planner.json("--agent", "bob", "send", "-", "x" * 100_000, "--reply-to", planner.json(*words)["id"])["id"]
    with pathlib.Path("/dev/full").open("w") as full:
        done = planner.start(*words, "--wait", "30s", stdout=full)
        done.communicate(timeout=30)
    assert done.returncode == 1
    assert state(planner, answer) == "queued"


def test_nobody_waits_for_an_answer_to_a_task(planner: Cli) -> None:
    planner.post("work")
    before = planner.files()
    code, _, err = planner.main("send", "work", "x", "--wait", "30s")
    assert code == 2
    assert "mcp-bus wait ID" in err
    assert planner.files() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["hooman", "x"], 3, "did you mean 'human'?"), (["human", ""], 2, "empty"), (["#nothing", "x"], 3, "nothing"),
        (["human", "x", "--reply-to", "ffffffff"], 2, "reply_to"),
        (["human", "x", "--supersedes", "ffffffff"], 3, "ffffffff"),
        (["human", "x", "--type", "shout"], 2, "known types"), (["human", "x", "--priority", "12"], 2, "-9"),
        (["a\nb", "x"], 2, "not a recipient"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_sent_is_refused_and_nothing_is_written(
    planner: Cli, words: list[str], code: int, said: str
) -> None:
    before = planner.files()
    got, out, err = planner.main("send", *words)
    assert (got, out) == (code, "")
    assert said in err
    assert planner.files() == before


def test_a_topic_is_subscribed_to_read_and_left(planner: Cli) -> None:
    assert planner.json("--agent", "bob", "subscribe", "builds", "signal=done")["subscribed"] == [
        {"topic": "builds", "match": {"signal": "done"}}
    ]
    for signal in ("begun", "done"):
        planner.main("send", "builds", f'{{"signal": "{signal}"}}')
    assert [item["body"] for item in inbox(planner, "bob", "--ack")] == ['{"signal": "done"}']
    planner.main("--agent", "bob", "unsubscribe", "builds")
    planner.main("send", "builds", '{"signal": "done"}')
    assert inbox(planner, "bob", code=4) == []
    assert planner.main("--agent", "bob", "unsubscribe", "builds")[0] == 3
    assert planner.main("--agent", "bob", "subscribe", "builds", "signal")[0] == 2


def test_a_call_is_bid_on_and_awarded(planner: Cli) -> None:
    planner.json("subscribe", "jobs")
    call = planner.json("post", "jobs", "analyse the logs")["id"]
    assert planner.main("bids", call)[0] == 4
    bid = planner.json("--agent", "bob", "send", "-", "bid", '{"eta_s": 60}', "--reply-to", call)["id"]
    (made,) = planner.json("bids", call)["bids"]
    assert (made["id"], made["agent"], made["terms"]) == (bid, "bob", {"eta_s": 60})
    task = planner.json("award", bid)
    assert planner.json("claim", code=4)["ticket"] is None
    assert planner.json("--agent", "bob", "claim")["id"] == task["id"]


def test_agents_lists_who_was_there_and_who_reads_is_seen(planner: Cli) -> None:
    inbox(planner, "bob", code=4)
    assert planner.json("agents")["agents"] == []
    (item,) = planner.json("agents", "--all")["agents"]
    assert (item["agent"], item["session"], item["live"]) == ("bob", "cli", False)
    assert item["unread"] == 0
    sent = planner.json("send", "bob", "x")
    unread = {item["agent"]: item["unread"] for item in planner.json("agents", "--all")["agents"]}
    assert unread == {"bob": 1, "planner": 0}
    assert sent["live_sessions"] == 0
    assert sent["last_seen"] is not None
    assert "its session has ended" in planner.main("agents", "--all")[1]


def test_text_of_others_cannot_act_on_the_terminal(planner: Cli) -> None:
    evil = "\x1b[2J\u202e\x07"
    message = planner.json("send", "@bob", f"a{evil}\nb", "--title", f"t{evil}", "--thread", f"r{evil}")["id"]
    for words in (["inbox"], ["trace", message], ["agents", "--all"]):
        _, out, err = planner.main("--agent", "bob", *words)
        assert not {"\x1b", "\u202e", "\x07"} & set(out + err), words


def test_who_sits_at_a_terminal_speaks_as_the_human(cli: Cli) -> None:
    cli.json("--agent", "planner", "send", "human", "hello")
    env = {name: value for name, value in cli.env.items() if name != "MCP_BUS_AGENT"}
    ours, theirs = pty.openpty()
    # stderr is no part of it: who looks there is a program too.
    words = [sys.executable, "-m", "mcp_bus", "inbox"]
    with subprocess.Popen(words, env=env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, cwd=cli.home) as process:
        process.communicate(timeout=30)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # A terminal whose other end is closed is read to its end that way.
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"from planner .*note", shown)
    assert b"hello" in shown


def test_a_program_without_a_terminal_does_not_pass_for_the_human(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MCP_BUS_AGENT")
    cli.json("send", "@bob", "x")
    (item,) = inbox(cli, "bob")
    assert item["from"]["agent"].startswith("local/")


def test_nobody_else_is_called_like_the_human_or_everyone() -> None:
    assert main(["--agent", "broadcast", "inbox"]) == 2
