"""log, tail: the timeline, whatever state the journal is in."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import log

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Cli

WAIT_S = 30


def event(at: str, *, channel: str = "work", number: int = 1) -> dict[str, Any]:
    return {
        "at": at, "event": "move", "id": f"req_{number:032x}", "channel": channel, "from": "ready", "to": "leased",
        "attempt": 1, "by": "ann~1",
    }  # fmt: skip


def write(cli: Cli, name: str, *lines: str | dict[str, Any]) -> Path:
    """Write a file of the journal."""
    path = cli.bus / "journal" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def numbers(cli: Cli, *words: str) -> list[int]:
    """Return which events are shown, by the number in their ids."""
    return [int(item["id"][4:], 16) for item in cli.json("log", *words)["events"]]


def test_the_log_tells_each_move_with_who_made_it(cli: Cli) -> None:
    assert cli.main("log")[:2] == (0, "")
    task_id = cli.post()
    _, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", "x")
    made = cli.json("log")["events"]
    assert [(item["id"], item["from"], item["to"]) for item in made] == [
        (task_id, "", "ready"), (task_id, "ready", "leased"), (task_id, "leased", "done"),
    ]  # fmt: skip
    _, out, _ = cli.main("log")
    lines = [line.split() for line in out.splitlines()]
    assert [line[2:7] for line in lines] == [
        [task_id[-8:], "work", "-", "->", "ready"],
        [task_id[-8:], "work", "ready", "->", "leased"],
        [task_id[-8:], "work", "leased", "->", "done"],
    ]
    assert all(line[7].startswith("tester~") for line in lines)
    assert " ".join(lines[0][:2]) == made[0]["at"][:19].replace("T", " ")


def test_files_of_several_hosts_and_days_are_one_timeline(cli: Cli) -> None:
    write(cli, "b-2026-01-02.jsonl", event("2026-01-02T10:00:00.000Z", number=4))
    write(
        cli,
        "a-2026-01-02.jsonl",
        event("2026-01-02T09:00:00.000Z", number=3),
        event("2026-01-02T11:00:00.000Z", number=5),
    )
    write(cli, "z-2026-01-01.jsonl", event("2026-01-01T23:00:00.000Z", number=2), event("2026-01-01T22:00:00.000Z"))
    assert numbers(cli) == [1, 2, 3, 4, 5]
    assert numbers(cli, "--limit", "4") == [2, 3, 4, 5]
    assert numbers(cli, "--limit", "2") == [4, 5]


def test_the_log_shows_the_latest_and_all_when_asked(cli: Cli) -> None:
    write(cli, "a-2026-01-01.jsonl", *(event(f"2026-01-01T10:00:{n:02}.000Z", number=n) for n in range(60)))
    assert numbers(cli) == list(range(10, 60))
    assert numbers(cli, "--limit", "0") == list(range(60))
    assert numbers(cli, "--since", "99999d") == list(range(60))


def test_tail_is_log_with_the_letters_that_people_type(cli: Cli) -> None:
    write(cli, "a-2026-01-01.jsonl", *(event(f"2026-01-01T10:00:{n:02}.000Z", number=n) for n in range(60)))
    assert cli.json("tail") == cli.json("log")
    assert cli.main("tail", "-n", "2")[1] == cli.main("log", "--limit", "2")[1] != ""
    with cli.start("tail", "-f", "-n", "1", "--json", "-q") as follower:
        assert follower.stdout
        assert json.loads(follower.stdout.readline())["id"] == f"req_{59:032x}"
        posted = cli.post()
        assert json.loads(follower.stdout.readline())["id"] == posted
        follower.kill()
        assert follower.communicate(timeout=WAIT_S)[0] == ""


def test_since_and_channel_leave_the_rest_out(cli: Cli) -> None:
    write(cli, "a-2020-01-01.jsonl", event("2020-01-01T10:00:00.000Z"))
    first, second = cli.post("alpha"), cli.post("beta")
    seen = [item["id"] for item in cli.json("log", "--since", "1h")["events"]]
    assert seen == [first, second]
    assert [item["id"] for item in cli.json("log", "--channel", "beta")["events"]] == [second]
    assert cli.main("log", "--channel", "work")[0] == 0, "a channel that the journal knows needs not be there any more"


TORN = ["", "{", '{"at":"2026-01-01T10:00:0', "[1]", "null", "{}", '{"at":1}', "\x00\x00", "[" * 3000, "x" * 10_000]


def test_lines_that_are_no_events_are_passed_over(cli: Cli) -> None:
    good = [event("2026-01-01T10:00:00.000Z", number=n) for n in (1, 2)]
    path = write(cli, "a-2026-01-01.jsonl", good[0], *TORN, good[1])
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n" + json.dumps(event("2026-01-01T10:00:01.000Z", number=3)).encode())
    assert numbers(cli) == [1, 2], "the third has no end yet"


def test_a_journal_that_is_missing_or_no_files_is_an_empty_one(cli: Cli, tmp_path: Path) -> None:
    shutil.rmtree(cli.bus / "journal", ignore_errors=True)
    code, out, err = cli.main("log")
    assert (code, out) == (0, "")
    assert err.endswith("nothing happened yet\n")
    (cli.bus / "journal").mkdir()
    os.mkfifo(cli.bus / "journal" / "a-2026-01-01.jsonl")
    (cli.bus / "journal" / "b-2026-01-01.jsonl").mkdir()
    (tmp_path / "else").write_text(json.dumps(event("2026-01-01T10:00:00.000Z")) + "\n")
    (cli.bus / "journal" / "c-2026-01-01.jsonl").symlink_to(tmp_path / "else")
    assert numbers(cli) == []


def test_what_others_wrote_does_not_act_on_the_terminal(cli: Cli) -> None:
    evil = dict.fromkeys(log.TEXTS, "a\x1b[2J\u202e")
    write(cli, "a-2026-01-01.jsonl", evil)
    _, out, _ = cli.main("log")
    assert "\\x1b[2J" in out
    assert not set(out) & set("\x1b\u202e")


def test_a_file_that_is_larger_than_what_is_read_at_once_is_read_whole(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PART", 300)
    monkeypatch.setattr(log, "LONGEST", 299)
    lines = [event("2026-01-01T10:00:00.000Z", number=n) for n in range(9)]
    write(cli, "a-2026-01-01.jsonl", *lines[:4], "x" * 2000, *lines[4:])
    assert numbers(cli) == list(range(9))


def test_a_reader_of_the_journal_goes_on_where_it_stopped_also_in_a_file_begun_anew(cli: Cli) -> None:
    def new() -> list[int]:
        return [int(item["id"][4:], 16) for item in journal.new("")]

    old = write(cli, "a-2026-01-01.jsonl", event("2026-01-01T10:00:00.000Z", number=1))
    path = write(cli, "a-2026-01-02.jsonl", event("2026-01-02T10:00:00.000Z", number=2))
    journal = log.Journal(cli.bus / "journal")
    assert [int(item["id"][4:], 16) for item in journal.latest("", "", 1)] == [2]
    assert new() == [], "what was over the limit is not new"
    whole = json.dumps(event("2026-01-02T10:00:01.000Z", number=3)) + "\n"
    for part, seen in ((whole[:20], []), (whole[20:], [3]), ("", [])):
        with path.open("a") as file:
            file.write(part)
        assert new() == seen
    old.unlink()
    write(cli, "a-2026-01-02.jsonl", event("2026-01-02T11:00:00.000Z", number=5))
    assert new() == [5]


def test_follow_shows_what_happens_and_ends_with_130_on_ctrl_c(cli: Cli) -> None:
    first = cli.post()
    with cli.start("log", "--follow", "--json", "-q") as follower:
        assert follower.stdout
        assert json.loads(follower.stdout.readline())["id"] == first
        second = cli.post("other")
        seen = json.loads(follower.stdout.readline())
        assert (seen["id"], seen["channel"], seen["to"]) == (second, "other", "ready")
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=WAIT_S)
    assert (follower.returncode, out, err) == (130, "", "")


def test_follow_of_one_channel_shows_no_other(cli: Cli) -> None:
    cli.json("channel", "create", "beta")
    with cli.start("log", "--follow", "--channel", "beta") as follower:
        assert follower.stderr
        assert follower.stdout
        assert follower.stderr.readline().startswith("bus: ")
        cli.post("alpha")
        wanted = cli.post("beta")
        assert follower.stdout.readline().split()[2:4] == [wanted[-8:], "beta"]
        follower.kill()
        assert follower.communicate(timeout=WAIT_S)[0] == ""


def test_follow_ends_with_141_when_nobody_reads_any_more_though_nothing_happens(cli: Cli) -> None:
    cli.post()
    ours, theirs = os.pipe()
    with cli.start("log", "--follow", stdout=theirs) as follower:
        os.close(theirs)
        assert os.read(ours, 65536)
        os.close(ours)
        _, err = follower.communicate(timeout=WAIT_S)
    assert follower.returncode == 141
    assert "Traceback" not in err


def test_follow_ends_when_the_bus_is_removed(cli: Cli) -> None:
    cli.post()
    with cli.start("log", "--follow", "-q", "--bus", str(cli.bus)) as follower:
        assert follower.stdout
        assert follower.stdout.readline()
        shutil.rmtree(cli.bus)
        _, err = follower.communicate(timeout=WAIT_S)
    assert follower.returncode == 1
    assert err.startswith(f"mcp-bus: there is no bus at '{cli.bus}' any more\n")
    assert f"`mcp-bus --bus {cli.bus} init`" in err


def test_a_journal_that_is_a_link_is_not_read(cli: Cli) -> None:
    cli.post()
    cli.main("log")
    journal = cli.bus / "journal"
    outside = cli.home / "outside"
    journal.rename(outside)
    journal.symlink_to(outside)
    code, out, _ = cli.main("log", "--quiet")
    assert (code, out) == (0, "")
    assert list(outside.iterdir()), "there was something to read"
