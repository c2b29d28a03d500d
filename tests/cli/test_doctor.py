"""doctor: finds what is wrong, names one thing to do for each, and does what is safe if it is told to."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus, wire
from mcp_bus.cli import checkclients
from mcp_bus.cli.setup import installed
from mcp_bus.clients import edits, jsonc, probe
from mcp_bus.server.tools import TOOLS
from tests.fakes import AT_ONCE

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

HOUR = 3600


@pytest.fixture
def started() -> None:
    """Have the server started in truth, which takes a second or two."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "started" not in request.fixturenames:
        monkeypatch.setattr("mcp_bus.clients.probe.ask", lambda *_: probe.Answer(("a_tool",), 0.1))
        monkeypatch.setattr("mcp_bus.stores.trial.between_processes", lambda *_: AT_ONCE)


def gone() -> int:
    """Return the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


def age(path: Path, seconds: float) -> None:
    """Make a file as old."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def findings(cli: Cli, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    return {item["about"]: item for item in cli.json("doctor", *words, code=code)["findings"]}


@pytest.mark.usefixtures("started")
def test_where_all_is_well_it_says_so(with_cursor: Cli) -> None:
    with_cursor.main("install", "cursor", "--yes")
    code, out, err = with_cursor.main("-q", "doctor")
    assert code == 0, err
    assert "✗" not in out
    assert f"it lists {len(TOOLS)} tools" in out
    found = findings(with_cursor)
    assert found["Cursor"]["level"] == "good"
    assert found["dead letter"]["said"] == "empty"
    assert re.fullmatch("another process sees a change after [0-9]+ ms", found["listings"]["said"])
    assert list((with_cursor.bus / "tmp").iterdir()) == []


def test_a_client_that_does_not_know_the_bus_is_told_with_the_command_that_mends_it(with_cursor: Cli) -> None:
    found = findings(with_cursor)["Cursor"]
    assert (found["level"], found["fix"]) == ("warning", "mcp-bus install cursor")
    assert list((with_cursor.home / ".cursor").iterdir()) == [], "looking changes nothing"


def test_an_entry_that_starts_what_is_gone_is_renewed_by_fix_and_nothing_else_is(with_cursor: Cli) -> None:
    with_cursor.main("install", "cursor", "--yes")
    path = with_cursor.home / ".cursor" / "mcp.json"
    old = json.loads(path.read_text())
    old["mcpServers"]["bus"]["command"] = "/gone/mcp-bus"
    old["mcpServers"]["other"] = {"command": "/gone/too"}
    path.write_text(json.dumps(old))
    found = findings(with_cursor, code=1)["Cursor"]
    assert (found["level"], "not there any more" in found["said"]) == ("bad", True)
    with_cursor.main("doctor", "--fix")
    now: Any = jsonc.parse(path.read_text()).data
    assert Path(now["mcpServers"]["bus"]["command"]).is_file()
    assert now["mcpServers"]["other"] == {"command": "/gone/too"}


def test_an_entry_without_a_path_is_something_to_know(with_cursor: Cli) -> None:
    (with_cursor.home / ".cursor" / "mcp.json").write_text('{"mcpServers": {"bus": {"command": "mcp-bus"}}}')
    found = findings(with_cursor)["Cursor"]
    assert (found["level"], "by its name" in found["said"]) == ("warning", True)


def test_settings_that_cannot_be_read_are_told_and_left(with_cursor: Cli) -> None:
    path = with_cursor.home / ".cursor" / "mcp.json"
    path.write_text("{")
    assert "it is not JSON" in findings(with_cursor, code=1)["Cursor"]["said"]
    with_cursor.main("doctor", "--fix")
    assert path.read_text() == "{"


def test_dead_tasks_and_files_put_aside_need_a_person(with_cursor: Cli) -> None:
    task_id = with_cursor.post("work", "x", "--max-attempts", "1")
    _, token = with_cursor.claim("work")
    with_cursor.main("submit", task_id, "--token", token, "--failed", "no")
    (with_cursor.bus / "quarantine" / "odd").write_text("what is this")
    found = findings(with_cursor, code=6)
    assert task_id[-8:] in found["dead letter"]["said"]
    assert found["dead letter"]["fix"].endswith(f"show {task_id[-8:]}")
    assert found["quarantine"]["level"] == "person"
    assert with_cursor.main("doctor", "--fix")[0] == 6
    assert with_cursor.state(task_id) == "dead", "that is for a person to decide"


def test_a_lease_that_is_long_over_is_swept_by_fix(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = with_cursor.post("work", "x")
    with open_bus(with_cursor.bus, agent="gone") as bus:
        assert bus.claim(["work"], lease_s=1) is not None
    monkeypatch.setattr("mcp_bus.cli.checkups.OVERDUE", -10_000)
    assert findings(with_cursor)["leases"]["level"] == "warning"
    monkeypatch.setattr("mcp_bus.clock.System.now", lambda _: int(__import__("time").time() * 1000) + 60_000)
    with_cursor.main("doctor", "--fix")
    assert with_cursor.state(task_id) in ("scheduled", "ready")


def test_where_there_is_no_bus_it_is_made_by_fix_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MCP_BUS_DIR", str(cli.home / "new"))
    assert findings(cli)["bus"]["level"] == "warning"
    assert not (cli.home / "new").exists()
    cli.main("doctor", "--fix")
    assert (cli.home / "new" / "bus.json").exists()


@pytest.mark.usefixtures("started")
def test_a_server_that_does_not_start_is_broken(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = with_cursor.home / "bin" / "mcp-bus"
    broken.parent.mkdir()
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no module named mcp')\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(broken)])
    assert "no module named mcp" in findings(with_cursor, code=1)["server"]["said"]


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("bus: /x/mcp-bus serve - ✔ Connected", "good"),
        ("bus: ✗ Failed to connect", "warning"),
        ("no servers", "warning"),
    ],
)
def test_a_client_is_asked_itself_if_that_is_wanted(with_cursor: Cli, said: str, level: str) -> None:
    program = with_cursor.home / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    program.chmod(0o755)
    assert "Claude Code itself" not in findings(with_cursor)
    assert findings(with_cursor, "--clients")["Claude Code itself"]["level"] == level
    assert os.access(program, os.X_OK)


# --- what was left half-way -------------------------------------------------------------------------------


def test_drafts_of_writers_that_were_killed_are_swept_by_fix_and_those_on_their_way_are_not(with_cursor: Cli) -> None:
    tmp = with_cursor.bus / "tmp"
    for name, seconds in (("record.dead", 2 * HOUR), ("record.fresh", 10)):
        (tmp / name).write_text("{")
        age(tmp / name, seconds)
    (tmp / "folder").mkdir()
    found = findings(with_cursor)["drafts"]
    assert (found["level"], found["said"]) == (
        "warning",
        "1 files of writers that were cut off, the oldest 120 min ago",
    )
    assert found["fix"].endswith(" sweep")
    assert (tmp / "record.dead").exists(), "looking changes nothing"
    with_cursor.main("doctor", "--fix")
    assert sorted(path.name for path in tmp.iterdir()) == ["folder", "record.fresh"]
    found = findings(with_cursor)["drafts"]
    assert (found["level"], found["said"]) == ("good", "1 on their way")


def test_a_post_that_was_cut_off_after_it_counted_is_told_and_finished_by_fix(with_cursor: Cli) -> None:
    task_id = with_cursor.post("work", "x")
    (slot,) = (with_cursor.bus / "channels" / "work" / "requests").iterdir()
    draft = with_cursor.bus / "tmp" / f"{task_id}.0123"
    slot.rename(draft)
    assert findings(with_cursor)["drafts"]["level"] == "good", "it may be on its way"
    age(draft, HOUR / 4)
    assert findings(with_cursor)["drafts"]["level"] == "warning"
    with_cursor.main("doctor", "--fix")
    assert with_cursor.state(task_id) == "ready"


def test_a_result_that_stays_staged_is_told(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (with_cursor.bus / "staged" / "odd").write_text("{")
    assert findings(with_cursor)["drafts"]["level"] == "good"
    monkeypatch.setattr("mcp_bus.cli.checkups.OVERDUE", -1)
    assert findings(with_cursor)["drafts"]["level"] == "warning"


def test_half_written_settings_of_a_killed_install_are_removed_by_fix_and_nothing_that_is_only_called_so(
    with_cursor: Cli,
) -> None:
    folder, kept = with_cursor.home / ".cursor", edits.kept_in(_home(with_cursor))
    kept.mkdir(parents=True)
    pid = gone()
    drafts = [folder / f".mcp.json.mcp-bus-{pid}", folder / f".mcp.json.mcp-bus-{pid}-0a1b2c3d"]
    drafts += [kept / f".0123.before.mcp-bus-{pid}-0a1b2c3d"]
    others = [
        folder / f".mcp.json.mcp-bus-{what}"
        for what in ("20251101", "0", f"{pid}-text", f"{pid}-0a1b2c3d4", pid + 2**22)
    ]
    others += [folder / f".other.json.mcp-bus-{pid}", folder / f".mcp.json.mcp-bus-{os.getpid()}-0a1b2c3d"]
    fresh, link, within = (folder / f".mcp.json.mcp-bus-{pid}-{word}" for word in ("00000001", "00000002", "00000003"))
    for path in (*drafts, *others, fresh):
        path.write_text("{")
    for path in (*drafts, *others):
        age(path, 2 * HOUR)
    age(fresh, 30)
    link.symlink_to("mcp.json")
    os.utime(link, (0, 0), follow_symlinks=False)
    within.mkdir()
    os.utime(within, (0, 0))
    found = findings(with_cursor)["settings"]
    assert (found["level"], found["said"].startswith("3 drafts")) == ("warning", True)
    assert found["fix"] == f"rm {min(drafts)}"
    with_cursor.main("doctor", "--fix")
    assert [path.exists() for path in drafts] == [False] * 3
    assert [path for path in (*others, fresh, within) if not path.exists()] == []
    assert link.is_symlink()
    assert "settings" not in findings(with_cursor)


def test_a_draft_of_somebody_else_is_not_removed(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_cursor.home / ".cursor" / f".mcp.json.mcp-bus-{gone()}"
    path.write_text("{")
    age(path, 2 * HOUR)
    assert "settings" in findings(with_cursor)
    mine = os.geteuid()
    monkeypatch.setattr("mcp_bus.cli.checkclients.os.geteuid", lambda: mine + 1)
    assert not checkclients.abandoned(_home(with_cursor))


def _home(cli: Cli) -> Any:
    from mcp_bus.clients.known import Home

    return Home(cli.home, {}, sys.platform)


# --- clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "said"), [(0, "agree"), (-1000, "agree"), (90_000, "s behind"), (-90_000, "s ahead of")]
)
def test_the_file_system_s_clock_is_compared_with_this_machine_s(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch, by: int, said: str
) -> None:
    monkeypatch.setattr("mcp_bus.clock.System.now", lambda _: int(time.time() * 1000) + by)
    found = findings(with_cursor)["clock"]
    assert said in found["said"]
    assert (found["level"], bool(found["fix"])) == (("good", False) if said == "agree" else ("warning", True))
    assert list((with_cursor.bus / "tmp").iterdir()) == [], "what it was tried with is gone"


@pytest.mark.parametrize(("host", "level"), [("elsewhere", "warning"), (socket.gethostname(), "good")])
def test_another_machine_whose_session_beats_in_the_future_has_another_clock(
    with_cursor: Cli, host: str, level: str
) -> None:
    with open_bus(with_cursor.bus, agent="ann") as bus:
        here = bus.roster.arrive()
        (record,) = (with_cursor.bus / "agents").iterdir()
        record.write_text(record.read_text().replace(f'"{here.host}"', f'"{host}"'))
        age(record, -30)
        found = findings(with_cursor)["clock"]
    assert found["level"] == level
    assert bool(re.search("that of 'elsewhere' is 2[0-9] s ahead", found["said"])) == (level == "warning")


def test_a_task_from_the_future_is_found_without_reading_all_ids(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr("mcp_bus.clock.System.now", lambda _: int(time.time() * 1000) + 600_000)
        with_cursor.post("work", "x")
    monkeypatch.setattr("mcp_bus.stores.file.FileStore.ids", lambda _: pytest.fail("it may be a million"))
    found = findings(with_cursor)["clock"]
    assert (found["level"], "a task is from 59" in found["said"]) == ("warning", True)


def test_a_bus_that_cannot_be_written_to_is_broken(with_cursor: Cli) -> None:
    (with_cursor.bus / "tmp").rmdir()
    (with_cursor.bus / "tmp").write_text("in the way")
    found = findings(with_cursor, code=1)["clock"]
    assert (found["level"], found["fix"]) == ("bad", f"ls -ld {with_cursor.bus / 'tmp'}")


def test_leased_tasks_are_listed_once(with_cursor: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus import State
    from mcp_bus.stores.file import FileStore

    with_cursor.post("work", "x")
    with_cursor.claim("work")
    scan, asked = FileStore.scan, list[State]()

    def counted(self: FileStore, channel: str, state: State, **more: Any) -> Any:
        asked.extend([state] if not more else [])
        return scan(self, channel, state, **more)

    monkeypatch.setattr(FileStore, "scan", counted)
    assert "1 held" in findings(with_cursor)["leases"]["said"]
    assert asked.count(State.LEASED) == 1


# --- other versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "level", "said"),
    [
        ({"version": "0.0.9", "format": wire.FORMAT}, "warning", "mcp-bus 0.0.9; this one is"),
        ({"version": installed(), "format": wire.FORMAT}, "good", "of the same version"),
        ({"version": "9.0", "format": "mcp-bus/9"}, "bad", "different formats"),
        ("what?", "warning", "did not say its version when it was asked"),
        (None, "warning", "did not say its version in time"),
    ],
    ids=["older", "same", "other format", "no version", "silent"],
)
def test_an_entry_that_starts_another_mcp_bus_is_told_if_its_version_differs(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch, says: object, level: str, said: str
) -> None:
    other = with_cursor.home / "old" / "mcp-bus"
    other.parent.mkdir()
    answer = "import time; time.sleep(60)" if says is None else f"print({json.dumps(json.dumps(says))})"
    other.write_text(
        f"#!{sys.executable}\nimport os, sys\nassert sys.argv[1:] == ['version', '--json'], sys.argv\n"
        f"assert os.environ['MINE'] == 'yes'\n{answer}\n"
    )
    other.chmod(0o755)
    entry = {"command": str(other), "args": ["--quiet", "serve", "--profile", "worker"], "env": {"MINE": "yes"}}
    settings = with_cursor.home / ".cursor" / "mcp.json"
    settings.write_text(json.dumps({"mcpServers": {"bus": entry}}))
    if says is None:
        monkeypatch.setattr("mcp_bus.cli.checkclients.VERSION_LIMIT_S", 0.5)
    found = findings(with_cursor, code=1 if level == "bad" else 0)["Cursor"]
    assert (found["level"], said in found["said"]) == (level, True), found
    assert found["fix"] == ("" if level == "good" else "mcp-bus install cursor")
    before = settings.read_text()
    with_cursor.main("doctor", "--fix")
    assert settings.read_text() == before, "which of the two is wanted is for a person to say"
