"""export: every task with all it has, in three formats, whatever lies among them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt

from mcp_bus.cli.exportforms import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

HOSTILE = "\x1b[2J\u202e```\n## not a heading\n[x](javascript:1) <script>"


def done(cli: Cli, channel: str = "work", result: str = "a result") -> str:
    """Post a task and have it done; return its id."""
    cli.post(channel)
    task_id, token = cli.claim(channel)
    cli.json("submit", task_id, "--token", token, "--done", result)
    return task_id


def lines(cli: Cli, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Export as JSON lines, and read them."""
    got, out, err = cli.main("-q", "export", *words)
    assert got == code, (got, err)
    return [json.loads(line) for line in out.splitlines()]


def rows(text: str) -> list[dict[str, str]]:
    """Read CSV as a spreadsheet does."""
    return list(csv.DictReader(io.StringIO(text)))


# --- what is exported ----------------------------------------------------------------------------------


def test_a_line_is_the_document_of_show_for_tasks_of_every_state(cli: Cli) -> None:
    ids = {cli.dead(), done(cli), cli.post("other", "x", "--title", "t", "--requires", "a,b"), cli.post("work", "y")}
    ids |= {cli.post("work", "later", "--delay", "1h"), cli.claim("other", "--capability", "a,b")[0]}
    cancelled = cli.post("other")
    cli.json("cancel", cancelled)
    made = lines(cli)
    assert {item["id"] for item in made} == ids | {cancelled}
    assert len(made) == len(ids) + 1
    for item in made:
        assert item == cli.json("show", item["id"])
    assert next(item for item in made if item["result"])["result"]["content"] == "a result"
    assert next(item for item in made if item["state"] == "dead")["history"][-1]["note"] == "it broke"
    assert cli.json("show", made[0]["id"]) == json.loads(cli.main("--json", "-q", "export")[1].splitlines()[0])


def test_channels_state_and_since_choose(cli: Cli) -> None:
    first, second, third = done(cli), cli.post("work"), cli.post("other")
    assert [item["id"] for item in lines(cli, "other")] == [third]
    assert {item["id"] for item in lines(cli, "other", "work", "other", "--state", "ready")} == {second, third}
    assert [item["id"] for item in lines(cli, "--state", "done")] == [first]
    assert len(lines(cli, "--since", "1h")) == 3
    assert lines(cli, "--since", "0") == []
    assert "nothing found" in cli.main("export", "--state", "dead")[2]
    assert cli.main("export", "--state", "lost")[0] == 2
    assert cli.main("export", "othr")[0] == 3
    assert cli.main("export", "--format", "xml")[0] == 2
    assert cli.main("export", "--format", "csv", "--json")[0] == 2


def test_letters_and_topics_are_no_tasks(cli: Cli) -> None:
    cli.json("send", "human", "x")
    cli.json("send", "broadcast", "x")
    assert lines(cli) == []


def test_a_task_that_moves_while_it_is_exported_is_there_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus.cli import exportforms
    from mcp_bus.config import open_bus

    first = cli.post("work", "first", "--priority", "5")
    second = cli.post("work", "second")
    held = cli.post("held")
    cli.claim("held")
    plain = exportforms.FORMS["jsonl"]

    def meanwhile(task: Any) -> str:
        with open_bus(cli.bus, agent="other") as bus:
            if task.id == first:  # It goes on, and one that was not seen yet goes on, too.
                assert bus.claim(["work"]).id == first  # type: ignore[union-attr]  # there is one
                assert bus.claim(["work"]).id == second  # type: ignore[union-attr]  # and another
        return plain.text(task)

    monkeypatch.setitem(exportforms.FORMS, "jsonl", plain._replace(text=meanwhile))
    made = lines(cli)
    assert sorted(item["id"] for item in made) == sorted([first, second, held])
    assert {item["id"]: item["state"] for item in made}[second] == "leased"


def test_a_task_that_goes_back_while_it_is_exported_is_not_missed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus.cli import exportforms
    from mcp_bus.config import open_bus

    held = cli.post("work", "held")
    cli.claim("work")
    seen = cli.post("work", "seen")
    plain = exportforms.FORMS["jsonl"]

    def meanwhile(task: Any) -> str:
        if task.id == seen:
            with open_bus(cli.bus, agent="other") as bus:
                bus.requeue(held, "")
        return plain.text(task)

    monkeypatch.setitem(exportforms.FORMS, "jsonl", plain._replace(text=meanwhile))
    assert [(item["id"], item["state"]) for item in lines(cli)] == [(seen, "ready"), (held, "ready")]


# --- what cannot be read -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_named_and_the_rest_is_exported(cli: Cli, tmp_path: Path) -> None:
    ids = sorted(cli.post("work", f"body {number}") for number in range(6))
    requests, tasks = cli.bus / "channels/work/requests", cli.bus / "tasks"
    (tasks / f"{ids[0]}.json").unlink()
    (tasks / f"{ids[0]}.json").write_text('{"id": "nonsense \x1b[2J"')
    (tasks / f"{ids[1]}.json").unlink()
    os.mkfifo(tasks / f"{ids[1]}.json")
    secret = tmp_path / "secret"
    secret.write_bytes((tasks / f"{ids[2]}.json").read_bytes())
    (tasks / f"{ids[2]}.json").unlink()
    (tasks / f"{ids[2]}.json").symlink_to(secret)
    (requests / "no\x1b[2Jtask.json").write_text("x")
    (requests / f"req_{7:032x}.json").write_text("by hand")
    before = cli.files()
    code, out, err = cli.main("-q", "export")
    assert (code, [json.loads(line)["id"] for line in out.splitlines()]) == (1, ids[3:])
    for name in (*ids[:3], f"req_{7:032x}", "channels/work/requests/no\\x1b[2Jtask.json"):
        assert f"mcp-bus: cannot read {name}" in err
    assert "left out, for it could not be read: 5 of 8" in err
    assert "\x1b" not in out + err
    assert cli.files() == before, "an export moves nothing"


def test_a_result_that_is_no_result_and_a_history_that_is_none_stop_nothing(cli: Cli) -> None:
    broken, good = done(cli), done(cli, result="good")
    (cli.bus / f"channels/work/responses/{broken}.json").write_text("{")
    shutil.rmtree(cli.bus / "channels/work/attempts" / good, ignore_errors=True)
    (cli.bus / "channels/work/attempts" / good).write_text("a file where a folder belongs")
    made = lines(cli, code=1)
    assert [(item["id"], item["history"]) for item in made] == [(good, [])]


# --- csv ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d", "\n\t@"])
def test_no_cell_of_a_table_is_a_formula(cli: Cli, begin: str) -> None:
    text = f'{begin}cmd|" /C calc"!A1'
    cli.post("work", f"@{text}" if begin == "@" else text, "--title", text.strip("\r\n\t"), "--thread", text)
    task_id, token = cli.claim("work")
    cli.json("submit", task_id, "--token", token, "--failed", text)
    (row,) = rows(cli.main("export", "--format", "csv")[1])
    for cell in row.values():
        assert cell.lstrip()[:1] not in ("=", "+", "-", "@", "\uff1d") or not cell
        assert cell[:1] not in ("\t", "\r", "\n") or not cell
    assert row["body"] in (f"'{text}", text.replace("\r", "\\x0d"))


def test_a_table_keeps_line_feeds_commas_and_quotes_and_shows_what_acts(cli: Cli) -> None:
    cli.post("work", 'a, "b"\nc\x1b[2J', "--priority", "-3")
    task_id = done(cli, "other", "two\nlines")
    code, out, _ = cli.main("export", "--format", "csv")
    made = {row["channel"]: row for row in rows(out)}
    assert code == 0
    assert out.splitlines()[0] == ",".join(COLUMNS)
    assert made["work"]["body"] == 'a, "b"\nc\\x1b[2J'
    assert (made["work"]["priority"], made["work"]["state"]) == ("-3", "ready")
    assert (made["other"]["id"], made["other"]["result"], made["other"]["status"]) == (task_id, "two\nlines", "success")
    assert made["other"]["answered_by"] == "tester"


# --- md -----------------------------------------------------------------------------------------------


def test_a_page_shows_what_others_wrote_and_makes_nothing_of_it(cli: Cli) -> None:
    cli.post("work", HOSTILE, "--title", "[t](javascript:1) <b>")
    task_id, token = cli.claim()
    cli.json("submit", task_id, "--token", token, "--done", HOSTILE)
    _, out, _ = cli.main("export", "--format", "md")
    tokens = MarkdownIt().parse(out)
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2"]
    blocks = [token.content for token in tokens if token.type == "fence"]
    assert blocks == ["\\x1b[2J\\u202e```\n## not a heading\n[x](javascript:1) <script>\n"] * 2
    inside = [child.type for token in tokens for child in token.children or ()]
    assert not {"link_open", "html_inline", "image"} & {*inside, *(token.type for token in tokens)}
    assert f"`{task_id}`, on `work`, done, attempt 1, from `tester`" in out


def test_a_body_of_nothing_but_backticks_is_a_block_at_once(cli: Cli) -> None:
    (cli.home / "ticks").write_text("`" * 200_000)
    cli.post("work", f"@{cli.home / 'ticks'}")
    _, out, _ = cli.main("export", "--format", "md")
    assert max(map(len, out.splitlines())) == 200_001


# --- --output -----------------------------------------------------------------------------------------


def test_a_file_is_written_whole_for_its_owner_and_takes_the_place_of_an_older_one(cli: Cli, disk: Path) -> None:
    task_id = cli.post()
    place = disk / "out.jsonl"
    place.write_text("older")
    other = disk / "another name of the older"
    os.link(place, other)
    code, out, err = cli.main("export", "--output", str(place))
    assert (code, out) == (0, "")
    assert "1 task written to " in err
    assert json.loads(place.read_text())["id"] == task_id
    assert place.stat().st_mode & 0o777 == 0o600
    assert other.read_text() == "older", "it was replaced, not written over"
    assert cli.json("export", "--output", "out.csv", "--format", "csv") == {
        "output": str(cli.home / "out.csv"), "tasks": 1, "unread": [],
    }  # fmt: skip
    assert rows((cli.home / "out.csv").read_text())[0]["id"] == task_id
    assert not list(disk.glob(".mcp-bus-export*"))


def test_nothing_but_a_file_is_written_over_and_no_link_is_followed(cli: Cli, disk: Path) -> None:
    cli.post()
    target = disk / "target"
    target.write_text("kept")
    (disk / "link").symlink_to(target)
    (disk / "dangling").symlink_to(disk / "nowhere")
    (disk / "folder").mkdir()
    os.mkfifo(disk / "fifo")
    before = sorted(disk.iterdir())
    for name, why in {
        "link": "symlink", "dangling": "symlink", "folder": "directory", "fifo": "no regular file", ".": "directory",
        "folder/..": "directory", "missing/x": "no such folder", "target/x": "no such folder",
    }.items():  # fmt: skip
        code, out, err = cli.main("export", "--output", f"{disk}/{name}")
        assert (code, out) == (2, ""), name
        assert why in err, name
    assert "inside the bus" in cli.main("export", "--output", str(cli.bus / "tasks" / "x"))[2]
    assert cli.main("export", "--output", "")[0] == 2
    assert sorted(disk.iterdir()) == before
    assert target.read_text() == "kept"
    assert not (cli.bus / "tasks" / "x").exists()


def test_a_file_that_cannot_be_finished_leaves_the_older_one_and_no_draft(
    cli: Cli, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_bus.stores.fsops import Fs

    cli.post()
    place = disk / "out"
    place.write_text("older")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Fs, "write", full)
    code, _, err = cli.main("export", "--output", str(place))
    assert code == 1
    assert f"'{place}' could not be written: No space left on device" in err
    assert (place.read_text(), list(disk.glob(".mcp*"))) == ("older", [])


def test_an_export_whose_reader_leaves_ends_with_141(cli: Cli) -> None:
    for _ in range(4):
        cli.post("work", "x" * 100_000)
    ours, theirs = os.pipe()
    with cli.start("export", stdout=theirs) as process:
        os.close(theirs)
        assert os.read(ours, 10)
        os.close(ours)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 141
    assert "Traceback" not in err


def test_a_person_who_waits_is_told_how_far_it_is(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus.cli import export

    monkeypatch.setattr(export, "TELL_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for _ in range(3):
        cli.post()
    assert "\r\x1b[2K3 of 3\r\x1b[2K" in cli.main("export")[2]
    assert "of 3" not in cli.main("-q", "export")[2]
