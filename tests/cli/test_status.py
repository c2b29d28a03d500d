"""status: who works on what, what was put aside, what needs a person."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli import bars

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def lapse(cli: Cli) -> None:
    """Let the one lease of `work` end in the past."""
    held = next((cli.bus / "channels/work/processing").iterdir())
    held.rename(held.with_name(".".join([*held.name.split(".")[:-2], "1000", "json"])))


def test_status_names_the_task_of_each_worker_its_lease_and_the_latest_progress(cli: Cli) -> None:
    cli.post("work", "x", "--title", "first")
    cli.post("work", "second\nmore")
    first, token = cli.claim("--lease", "10m")
    cli.json("heartbeat", first, "--token", token, "--progress", "a third")
    cli.json("heartbeat", first, "--token", token, "--progress", "half \x1b[2J")
    second = cli.json("claim", "--agent", "zoe")["id"]
    made = cli.json("status")["leases"]
    assert [(item["id"], item["title"], item["attempt"]) for item in made] == [
        (first, "first", 1),
        (second, "second …", 1),
    ]
    assert [item["progress"] and item["progress"]["note"] for item in made] == ["half \x1b[2J", None]
    assert made[0]["expires"] == cli.json("show", first)["lease"]["expires"]
    _, out, _ = cli.main("status")
    line = next(line for line in out.splitlines() if line.startswith("working"))
    assert f'has {first[-8:]} on work "first", lease ends in ' in line
    assert line.endswith(": half \\x1b[2J (0 s ago)")
    assert f'zoe~{made[1]["holder"].partition("~")[2]} has {second[-8:]} on work "second …"' in out


def test_status_does_not_list_more_tasks_in_work_than_a_page_takes(cli: Cli) -> None:
    for _ in range(12):
        cli.post()
        cli.claim()
    assert (cli.json("status")["counts"]["leased"], len(cli.json("status")["leases"])) == (12, 10)
    _, out, _ = cli.main("status")
    assert out.count(" has ") == 10
    assert "          and 2 more: `mcp-bus find --state leased`\n" in out


def test_status_counts_late_results_and_says_where_they_are(cli: Cli) -> None:
    assert cli.json("status")["rejected"] == {
        "count": 0,
        "path": str(cli.bus / "rejected"),
        "look": f"ls {cli.bus}/rejected",
    }
    assert "rejected" not in cli.main("status")[1]
    cli.post()
    task_id, token = cli.claim()
    cli.json("requeue", task_id)
    assert cli.main("submit", task_id, "--token", token, "--done", "too late")[0] == 5
    assert cli.json("status")["rejected"]["count"] == 1
    _, out, _ = cli.main("status")
    assert f"rejected  1 result that came after its lease was lost; each is a file in {cli.bus}/rejected\n" in out
    kept = next((cli.bus / "rejected").iterdir())
    assert json.loads(kept.read_text())["result"] == "too late"


def test_status_counts_what_was_put_aside_without_the_reasons_beside_it(cli: Cli) -> None:
    for name in ("a.json", "b.json", "a.json.reason.json"):
        (cli.bus / "quarantine" / name).write_text("x")
    assert cli.json("status")["quarantine"]["count"] == 2
    _, out, _ = cli.main("status")
    assert f"put aside 2 files that are no message; in {cli.bus}/quarantine, why: *.reason.json\n" in out


def test_a_dead_task_whose_last_lease_only_lapsed_shows_what_went_wrong_before(cli: Cli) -> None:
    task_id = cli.post("work", "x", "--max-attempts", "2", "--backoff", "0")
    _, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--failed", "no such table", "--retry-in", "0")
    cli.claim()
    lapse(cli)
    cli.json("sweep")
    (dead,) = cli.json("status")["dead"]
    assert dead["id"] == task_id
    assert dead["why"].endswith("; before that: no such table")
    assert not dead["why"].startswith(";")
    assert "before that: no such table" in cli.main("wait", task_id)[1]


def test_a_dead_task_whose_leases_all_lapsed_says_so(cli: Cli) -> None:
    cli.post("work", "x", "--max-attempts", "1")
    cli.claim()
    lapse(cli)
    cli.json("sweep")
    (dead,) = cli.json("status")["dead"]
    assert dead["why"]
    assert "before that" not in dead["why"]


def test_what_waits_for_the_human_and_who_is_there_is_told_and_topics_are_no_tasks(cli: Cli) -> None:
    assert cli.json("status")["for_the_human"] == {"unread": 0, "shown": 0, "urgent": 0}
    cli.json("send", "human", "which database?")
    cli.json("send", "broadcast", "to all")
    cli.json("send", "human", "now!", "--priority", "1")
    cli.json("send", "@never-seen", "are you there?")
    made = cli.json("status")
    assert (made["for_the_human"], made["counts"]["ready"], made["agents"]) == (
        {"unread": 2, "shown": 0, "urgent": 1}, 0, [],
    )  # fmt: skip
    assert "2 messages wait, 1 urgent, for the human: `mcp-bus --agent human inbox`" in cli.main("status")[1]
    assert "1 message waits, for agents: " in cli.main("status")[1]
    cli.main("--agent", "human", "inbox")  # Shown is not handled.
    assert "2 messages wait, 1 urgent, 2 shown and not acked, for the human" in cli.main("status")[1]
    cli.main("--agent", "human", "inbox", "--ack")
    assert "for the human" not in cli.main("status")[1]
    assert "broadcast (topic)" in cli.main("ls")[1]
    assert [(item["name"], item["kind"]) for item in cli.json("ls")["channels"]] == [("broadcast", "topic")]


# --- bars ---------------------------------------------------------------------------------------------


def on_terminal(cli: Cli, columns: int, *words: str, **env: str) -> str:
    """Run a verb with a terminal as its stdout; return what it shows there."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""
    with cli.start(*words, stdout=theirs, env=env) as process:
        os.close(theirs)
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # How Linux says that the other side is closed.
        assert process.communicate(timeout=30)[1] == ""
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def busy(cli: Cli) -> None:
    """Leave tasks in every part of a bar."""
    cli.dead()
    for _ in range(3):
        cli.post("work")
        cli.json("submit", *_ticket(cli), "--done", "x")
    cli.post("work")
    cli.claim("work")
    cli.post("work")
    cli.post("work", "x", "--delay", "1h")
    cli.post("a-channel-with-a-name-that-takes-more-than-a-line-of-a-small-one")


def _ticket(cli: Cli) -> list[str]:
    task_id, token = cli.claim("work")
    return [task_id, "--token", token]


def test_on_a_terminal_each_channel_has_a_bar_and_its_numbers(cli: Cli) -> None:
    busy(cli)
    cli.json("channel", "create", "empty")
    shown = on_terminal(cli, 80, "-q", "status", NO_COLOR="1")
    assert "\x1b" not in shown
    start = shown.index("channels  > leased  . waiting  x dead  # done\n")
    assert shown[start:].splitlines()[1:4] == [
        "work                  >>>......xxx########  1 leased  2 waiting  1 dead  3 done",
        "a-channel-with-a-na…  ....................  1 waiting",
        "",
    ]
    assert "1 task needs a person" in shown[start:]


def test_bars_fit_a_narrow_terminal_and_leave_the_numbers_out(cli: Cli) -> None:
    busy(cli)
    for columns, bar in ((50, ">>...xx#####"), (20, ">..x####")):
        lines = on_terminal(cli, columns, "-q", "status", NO_COLOR="1").splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("channels"))
        assert lines[start + 1].split() == ["work", bar]
        assert max(map(len, lines[start : start + 3])) <= columns


def test_bars_are_coloured_on_a_terminal_alone_and_piped_output_has_none(cli: Cli) -> None:
    busy(cli)
    shown = on_terminal(cli, 80, "-q", "status")
    assert "\x1b[33m>>>\x1b[0m\x1b[34m......\x1b[0m\x1b[31mxxx\x1b[0m\x1b[32m########\x1b[0m" in shown
    plain = on_terminal(cli, 80, "-q", "status", NO_COLOR="1")
    assert re.sub(r"\x1b\[[0-9]+m", "", shown).partition("channels  >")[2] == plain.partition("channels  >")[2] != ""
    piped = cli.run("-q", "status").stdout
    assert not re.search("channels  >|>>|##|\x1b", piped)


def test_a_bus_without_tasks_has_no_bars_and_one_with_many_channels_shows_the_busiest(cli: Cli) -> None:
    assert "channels  " not in on_terminal(cli, 80, "-q", "status")
    for number in range(12):
        cli.post(f"c{number:02}")
    cli.post("z-busiest")
    cli.post("z-busiest")
    shown = on_terminal(cli, 80, "-q", "status", NO_COLOR="1")
    names = [line.split()[0] for line in shown[shown.index("channels  >") :].splitlines()[1:11]]
    assert names == ["z-busiest", *(f"c{number:02}" for number in range(9))]
    assert "and 3 more: `mcp-bus ls`" in shown


@pytest.mark.parametrize(
    ("counts", "made"),
    [
        ([1, 1, 1, 1], [2, 2, 2, 2]), ([0, 0, 0, 5], [0, 0, 0, 8]), ([1, 1, 1, 1_000_000], [1, 1, 1, 5]),
        ([1_000_000, 0, 1, 0], [7, 0, 1, 0]), ([3, 3, 0, 0], [4, 4, 0, 0]),
    ],
)  # fmt: skip
def test_a_bar_is_full_and_shows_whatever_there_is_one_of(counts: list[int], made: list[int]) -> None:
    assert bars.shares(counts, 8) == made
