"""show, find, ls, status."""

from __future__ import annotations

import os
import pty
import re
import select
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

EVIL = "a\x1b[31m\x07\u202eevil\u2066\x9b2J\x7f\u200b"


def test_show_tells_all_of_a_task_by_any_unique_part_of_its_id(cli: Cli) -> None:
    task_id = cli.post("work", "the body", "--title", "the title")
    for name in (task_id, task_id[-8:], task_id[-4:], task_id[:24]):
        code, out, _ = cli.main("show", name)
        assert code == 0
        assert f"id      {task_id}" in out
        assert "  | the body" in out
    found = cli.json("show", task_id)
    assert (found["body"], found["title"], found["state"], found["history"]) == ("the body", "the title", "ready", [])


def test_show_tells_holder_history_and_result(cli: Cli) -> None:
    cli.dead("first try failed")
    task_id = cli.json("find")["tasks"][0]["id"]
    cli.json("retry", task_id)
    _, token = cli.claim()
    assert "holder  tester~" in cli.main("show", task_id)[1]
    cli.json("submit", task_id, "--token", token, "--done", "the answer")
    _, out, _ = cli.main("show", task_id)
    assert "attempt 1 failed by tester: first try failed" in out
    assert "result  success by tester" in out
    assert "  | the answer" in out


@pytest.mark.parametrize(
    ("name", "code"),
    [("deadbeef", 3), ("req_" + "0" * 32, 3), ("", 2), ("abc", 2), ("x" * 300, 2), ("../../etc", 2), ("\x1b[2J", 2)],
)
def test_an_id_that_is_none_is_3_and_a_word_that_cannot_be_one_is_2(cli: Cli, name: str, code: int) -> None:
    for verb in ("show", "cancel", "retry", "requeue", "discard", "undo", "wait"):
        got, _, err = cli.main(verb, "--", name)
        assert (got, "\x1b" in err) == (code, False), verb
        assert "mcp-bus: " in err


def test_an_ambiguous_id_says_so(cli: Cli) -> None:
    cli.post()
    cli.post()
    code, _, err = cli.main("show", "req_0")
    assert code == 2  # Too short to be unique by more than luck.
    first = cli.json("find")["tasks"][0]["id"]
    code, _, err = cli.main("show", first[:10])
    assert code == 3
    assert "could be any of 2 tasks" in err


def test_a_pruned_task_is_told_from_one_that_never_was(cli: Cli) -> None:
    cli.json("channel", "create", "work", "retention_days=1")
    task_id = cli.post()
    cli.json("cancel", task_id)
    day = next((cli.bus / "channels/work/archive").iterdir())
    day.rename(day.with_name("2020-01-01"))
    assert f"pruned {task_id}" in cli.json("sweep")["done"]
    error = cli.json("show", task_id, code=3)["error"]
    assert error["code"] == "gone"


def test_find_searches_words_states_and_channels(cli: Cli) -> None:
    one = cli.post("alpha", "fix the parser", "--title", "Parser")
    two = cli.post("beta", "write docs")
    cli.json("cancel", two)

    def ids(*words: str) -> list[str]:
        return [task["id"] for task in cli.json("find", *words)["tasks"]]

    assert ids() == [one, two]
    assert ids("PARSER", "fix") == [one]
    assert ids("--state", "cancelled") == [two]
    assert ids("--channel", "beta") == [two]
    assert ids("nothing like it") == []
    assert cli.main("find", "nothing like it")[:2] == (0, "")


def test_find_searches_the_sender_and_the_id_too(cli: Cli) -> None:
    one = cli.post()
    two = cli.json("post", "work", "x", "--agent", "somebody-else")["id"]
    assert [task["id"] for task in cli.json("find", one[-6:])["tasks"]] == [one]
    assert [task["id"] for task in cli.json("find", "SOMEBODY")["tasks"]] == [two]
    said = " ".join(cli.main("find", "--help")[1].split())
    assert "all must occur in title, body, thread, sender or id" in said


def test_find_goes_on_after_an_id(cli: Cli) -> None:
    all_of_them = [cli.post() for _ in range(3)]
    page = cli.json("find", "--limit", "2")
    assert [task["id"] for task in page["tasks"]] == all_of_them[:2]
    rest = cli.json("find", "--limit", "2", "--after", page["next"])
    assert ([task["id"] for task in rest["tasks"]], rest["next"]) == (all_of_them[2:], None)


def test_find_refuses_unknown_states_and_channels(cli: Cli) -> None:
    assert cli.main("find", "--state", "nonsense")[0] == 2
    assert cli.main("find", "--channel", "nowhere")[0] == 3
    assert cli.main("ls", "nowhere")[0] == 3
    assert cli.main("ls", "../x")[0] == 2


def test_ls_counts_what_is_on_each_channel(cli: Cli) -> None:
    cli.post("alpha")
    cli.claim("alpha")
    cli.post("alpha")
    cli.post("beta", "x", "--delay", "1h")
    counts = {item["name"]: item["counts"] for item in cli.json("ls")["channels"]}
    assert (counts["alpha"]["leased"], counts["alpha"]["ready"], counts["beta"]["scheduled"]) == (1, 1, 1)
    _, out, _ = cli.main("ls")
    head, alpha, beta = out.splitlines()
    assert head.split()[:4] == ["CHANNEL", "LEASED", "READY", "SCHEDULED"]
    assert alpha.split()[:4] == ["alpha", "1", "1", "-"]
    assert beta.split()[:4] == ["beta", "-", "-", "1"]


def test_ls_of_a_channel_lists_its_tasks_by_state(cli: Cli) -> None:
    for title in ("one", "two", "three"):
        cli.post("work", "x", "--title", title)
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--blocked", "well?")
    cli.claim()
    made = cli.json("ls", "work")
    assert [(task["title"], task["state"]) for task in made["tasks"]] == [
        ("two", "leased"),
        ("three", "ready"),
        ("one", "dead"),
    ]
    _, out, _ = cli.main("ls", "work")
    assert [line.split()[2] for line in out.splitlines()] == ["STATE", "leased", "ready", "blocked"]


def test_ls_shows_priorities_and_needs_where_a_task_has_them(cli: Cli) -> None:
    cli.post("work", "plain")
    assert cli.main("ls", "work")[1].splitlines()[0].split() == [
        "ID",
        "CHANNEL",
        "STATE",
        "TRY",
        "POSTED",
        "WITH",
        "TITLE",
    ]
    cli.post("work", "special", "--priority", "-4", "--requires", "gpu,python")
    for words in (["ls", "work"], ["find"]):
        head, *rows = cli.main(*words)[1].splitlines()
        assert head.split()[3:] == ["PRIORITY", "TRY", "POSTED", "WITH", "REQUIRES", "TITLE"]
        special = next(row for row in rows if row.endswith("special"))
        assert special[head.index("PRIORITY") :].startswith("-4 ")
        assert special[head.index("REQUIRES") :].split() == ["gpu,python", "special"]


def test_a_list_shows_the_first_line_of_a_body_without_a_title(cli: Cli) -> None:
    cli.post("work", "\nfirst line\nsecond line")
    cli.post("work", "one line")
    _, out, _ = cli.main("find")
    assert [line.split("  ")[-1].strip() for line in out.splitlines()[1:]] == ["first line …", "one line"]


def test_ls_does_not_say_that_nothing_ended_where_a_task_is_dead(cli: Cli) -> None:
    cli.json("channel", "create", "empty")
    cli.dead()
    assert cli.main("ls", "work")[2].endswith("\nwork: nothing is done yet\n")
    assert cli.main("ls", "empty")[2].endswith("\nempty: no tasks\n")


def test_times_that_have_passed_are_told_as_passed(cli: Cli) -> None:
    task_id = cli.post("work", "x", "--ttl", "5h")
    assert "expires in 5 h, if nobody takes it before\n" in cli.main("show", task_id)[1]
    ready = next((cli.bus / "channels/work/requests").iterdir())
    ready.rename(ready.with_name(f"{task_id}.t1000.json"))
    shown = cli.main("show", task_id)[1]
    assert re.search(r"^expires was due \d+ d ago; the next claim or sweep ends it$", shown, re.MULTILINE)
    other = cli.post("other", "x", "--ttl", "2h")
    cli.claim("other")
    assert "expires" not in cli.main("show", other)[1]
    held = next((cli.bus / "channels/other/processing").iterdir())
    held.rename(held.with_name(".".join([*held.name.split(".")[:-2], "1000", "json"])))
    assert re.search(r"^holder  tester~\w+, lease ran out \d+ d ago$", cli.main("show", other)[1], re.MULTILINE)


def test_status_tells_who_works_what_is_overdue_and_what_needs_a_person(cli: Cli) -> None:
    dead = cli.dead("which database?")
    cli.post()
    task_id, _ = cli.claim()
    held = next((cli.bus / "channels/work/processing").iterdir())
    parts = held.name.split(".")
    held.rename(held.with_name(".".join([*parts[:-2], "1000", "json"])))
    before = cli.files()
    made = cli.json("status")
    assert (made["bus"], made["origin"], made["agent"]) == (str(cli.bus), "MCP_BUS_DIR", "tester")
    assert made["overdue"] == [task_id]
    assert [item["id"] for item in made["dead"]] == [dead]
    assert list(made["working"].values()) == [1]
    assert made["filesystem"]["type"]
    _, out, _ = cli.main("status")
    assert f"the lease of {task_id[-8:]} ran out" in out
    assert "which database?" in out
    assert cli.files() == before, "status only reads"


def test_status_tells_when_the_last_sweep_was(cli: Cli) -> None:
    assert cli.json("status")["last_sweep"] is None
    assert "swept     never" in cli.main("status")[1]
    cli.json("sweep")
    assert cli.json("status")["last_sweep"]


def test_text_of_others_never_reaches_a_terminal_as_it_is(cli: Cli) -> None:
    cli.main("post", "work", EVIL + "\nsecond line", "--title", EVIL, "--thread", EVIL, "--reply-to", EVIL)
    listed = [cli.main("find")[1], cli.main("ls", "work")[1]]
    cli.post("work", EVIL, "--title", EVIL)
    _, page, _ = cli.main("claim")
    task_id, token = page.split()[1], page.split()[3]
    shown = [page, cli.main("show", task_id)[1]]
    cli.main("submit", task_id, "--token", token, "--blocked", EVIL)
    shown += [cli.main("show", task_id)[1], cli.main("status")[1], cli.main("wait", task_id)[1]]
    for text in listed + shown:
        assert "evil" in text
        assert "\\x1b[31m" in text
        assert not set(text) & set("\x1b\x07\u202e\u2066\x9b\x7f\u200b"), ascii(text)


def test_json_holds_the_text_as_it_was_and_no_control_character(cli: Cli) -> None:
    task_id = cli.post("work", EVIL)
    _, out, _ = cli.main("show", task_id, "--json")
    assert cli.json("show", task_id)["body"] == EVIL
    assert out[:-1].isascii()
    assert out[:-1].isprintable()


def on_a_terminal(cli: Cli, *words: str, columns: int = 80, **env: str) -> str:
    """Run a verb whose stdout is a terminal of its own; return what appears there."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with cli.start(*words, stdout=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed.
                break
            if not part:
                break
            seen += part
        process.communicate(timeout=30)
    os.close(ours)
    return seen.decode()


def test_tables_fit_the_terminal(cli: Cli) -> None:
    cli.post("work", "x", "--title", "a long title " * 12)
    for columns in (60, 100):
        lines = on_a_terminal(cli, "find", columns=columns, NO_COLOR="1").splitlines()
        assert max(map(len, lines)) == columns
        assert lines[1].endswith("…")
    assert "a long title " * 11 in cli.run("find").stdout


def test_there_is_no_colour_with_no_color_or_without_a_terminal(cli: Cli) -> None:
    cli.dead()
    assert "\x1b" not in on_a_terminal(cli, "status", NO_COLOR="1")
    assert "\x1b" not in cli.run("status").stdout


def test_there_is_colour_on_a_terminal(cli: Cli) -> None:
    from mcp_bus.settings import SETTINGS

    if "no_color" not in SETTINGS:
        pytest.skip("config has no setting for NO_COLOR yet, so nothing is coloured")
    cli.dead()
    assert "\x1b[31mdead\x1b[0m" in on_a_terminal(cli, "status")


def test_a_bus_in_a_folder_with_odd_characters_is_named_harmlessly(cli: Cli, tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[31mb"
    for words in (["init"], ["status"]):
        code, out, err = cli.main(*words, "--bus", str(odd))
        assert (code, "\x1b" in out, "\x1b" in err) == (0, False, False)
        assert "\\x1b[31mb" in err


def test_whoever_looks_is_not_told_the_token_that_only_the_holder_needs(cli: Cli) -> None:
    cli.json("send", "@tester", "a word")
    cli.post("work", "do it")
    inbox = cli.json("inbox")["messages"]
    mine, token = cli.claim("work")
    # For whoever may write there, they are in the names: <marks>.<holder>.<token>.<lease end>.json.
    tokens = {path.name.split(".")[-3] for path in cli.bus.glob("channels/*/processing/*")}
    assert token in tokens
    assert len(tokens) == 2
    looks = [
        ("show", mine), ("show", inbox[0]["id"]), ("find",), ("find", "--state", "leased"), ("ls",), ("ls", "work"),
        ("status",), ("log",), ("trace", inbox[0]["id"]), ("agents",), ("bids", mine),
        *(("export", "--format", name) for name in ("jsonl", "csv", "md")),
    ]  # fmt: skip
    for look in looks:
        for way in ((), ("--json",)):
            _, out, err = cli.main(*way, *look)
            assert out or look[0] in {"export", "bids"}, look
            assert not [token for token in tokens if token in out + err], look
