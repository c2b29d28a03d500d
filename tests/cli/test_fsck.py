"""The verb fsck: exit codes, what people and programs are shown, progress, and when it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli import fsck
from mcp_bus.cli.output import Out

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Cli


def test_a_clean_bus_is_said_to_be_clean_and_notes_are_no_failure(cli: Cli) -> None:
    cli.post()
    assert cli.main("fsck", "-q") == (0, "1 tasks: clean\n", "")
    (cli.bus / "quarantine" / "1-abcd").write_text("x")
    code, out, _ = cli.main("fsck", "-q")
    assert code == 0
    assert out.startswith("note quarantine: ")
    assert out.endswith("1 tasks: clean, 1 to know\n")


def test_what_can_be_mended_is_1_and_is_mended_on_demand_alone(cli: Cli) -> None:
    task_id = cli.post()
    place = cli.bus / "channels" / "work" / "requests" / f"{task_id}.json"
    place.unlink()
    files = cli.files()
    code, out, _ = cli.main("fsck", "-q")
    assert code == 1
    assert "repair orphan: the task has an identity, and is in no state" in out
    assert f"\n  tasks/{task_id}.json  (names: 1)\n  --repair puts it where it started" in out
    assert cli.files() == files
    made = cli.json("fsck", code=1)
    assert (made["clean"], made["level"], made["tasks"], made["done"]) == (False, "repair", 1, [])
    [item] = made["anomalies"]
    assert (item["kind"], item["level"], item["id"], item["path"]) == (
        "orphan",
        "repair",
        task_id,
        f"tasks/{task_id}.json",
    )
    assert item["means"]
    assert item["repair"]
    code, out, _ = cli.main("fsck", "-q", "--repair")
    assert (code, out) == (0, f"repaired: tasks/{task_id}.json: put back in its channel\n1 tasks: clean\n")
    assert place.exists()
    assert cli.json("fsck", "--repair") == {
        "clean": True,
        "level": "note",
        "tasks": 1,
        "anomalies": [],
        "done": [],
        "left": [],
        "young": 0,
        "settles_in_s": 0,
        "unchecked": None,
    }


def test_what_is_too_new_to_judge_is_said(cli: Cli) -> None:
    cli.post()
    requests = cli.bus / "channels" / "work" / "requests"
    (requests / "req_00000000000000000000000000000001.json").write_text('{"id": "req_0000')
    code, out, _ = cli.main("fsck", "-q")
    assert (code, out) == (0, "1 tasks: clean; 1 file is too new to judge: look again in 5 s\n")
    (cli.bus / "staged" / "req_00000000000000000000000000000001.json").write_text("{")
    assert "; 2 files are too new to judge" in cli.main("fsck", "-q", "--repair")[1]
    (requests / "no message.txt").write_text("{")
    made = cli.json("fsck")
    assert (made["clean"], made["young"], made["settles_in_s"]) == (True, 3, 60)


def test_what_a_person_must_look_at_is_6_also_after_a_repair(cli: Cli) -> None:
    cli.post()
    (cli.bus / "channels" / "work" / "channel.json").write_text("{")
    for words in ((), ("--repair",)):
        code, out, _ = cli.main("fsck", "-q", *words)
        assert code == 6
        assert out.startswith("person policy: ")
        assert out.endswith("1 tasks: not clean, 1 for a person\n")


def test_of_many_of_a_kind_ten_are_shown(cli: Cli) -> None:
    for name in ("\x1b[31m", *range(11)):
        (cli.bus / f"mine {name}").touch()
    out = cli.main("fsck", "-q")[1]
    assert out.count("  mine ") == 10
    assert "  … and 2 more, which --json lists\n" in out
    assert "\x1b" not in out


def test_what_is_no_bus_is_an_error(cli: Cli) -> None:
    code, out, err = cli.main("fsck", "-q", "--bus", str(cli.home / "nowhere"))
    assert (code, out) == (1, "")
    assert "there is no bus" in err
    assert cli.main("fsck", "-q", "--bus", str(cli.home))[0] == 1


def test_read_only_looks_and_refuses_to_repair(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.post()
    monkeypatch.setenv("MCP_BUS_READ_ONLY", "1")
    assert cli.main("fsck", "-q")[0] == 0
    code, _, err = cli.main("fsck", "-q", "--repair")
    assert code == 2
    assert "read_only forbids --repair" in err


def test_how_far_it_is_is_said_once_it_takes_long_and_not_to_who_wants_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.5, 1.2, 1.2, 1.4, 2.5, 2.5])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    tell = fsck._Progress(Out())
    for looked in (100, 200, 300, 400):
        tell(looked)
    assert capsys.readouterr().err == "mcp-bus: looked at 200 names\nmcp-bus: looked at 400 names\n"
