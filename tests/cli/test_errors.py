"""Exit codes, and what goes wrong around a verb: pipes, signals, disks, other users, bugs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli import main as entry
from mcp_bus.cli.codes import code_of
from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    DuplicateTask,
    Gone,
    IllegalTransition,
    InvalidRequest,
    LeaseLost,
    NotFound,
    StoreUnavailable,
    Untrusted,
)

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

NOBODY = 65534


def test_every_error_has_its_exit_code() -> None:
    codes = {
        BusError: 1, CorruptRecord: 1, StoreUnavailable: 1, Untrusted: 1, InvalidRequest: 2, IllegalTransition: 5,
        NotFound: 3, Gone: 3, Conflict: 5, DuplicateTask: 5, LeaseLost: 5,
    }  # fmt: skip
    assert {kind: code_of(kind("x")) for kind in codes} == codes


def test_help_lists_every_verb_and_every_exit_code(cli: Cli) -> None:
    code, out, _ = cli.main("--help")
    assert code == 0
    for verb in entry.VERBS:
        assert f"\n  {verb} " in out
    for number in range(7):
        assert f"\n  {number}  " in out
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize("verb", entry.VERBS)
def test_every_verb_has_help_with_an_example(cli: Cli, verb: str) -> None:
    code, out, err = cli.main(verb, "--help")
    assert (code, err) == (0, "")
    assert f"example:\n  mcp-bus {verb}" in out
    for option in () if verb == "abq" else ("--bus", "--agent", "--json", "--quiet"):  # Its options are abq's.
        assert option in out


def test_no_verb_shows_the_help_on_stderr(cli: Cli) -> None:
    code, out, err = cli.main()
    assert (code, out) == (2, "")
    assert err.startswith("usage: mcp-bus")


def test_an_unknown_verb_or_option_is_a_usage_error(cli: Cli) -> None:
    code, _, err = cli.main("stat")
    assert code == 2
    assert "next: status?" in err
    assert cli.main("--nonsense")[0] == 2
    assert cli.main("ls", "--nonsense")[0] == 2
    assert cli.main("ls", "--limi", "3")[0] == 2, "abbreviations would break when an option is added"
    assert "\x1b" not in cli.main("\x1b[2J")[2]


def test_errors_say_what_and_what_next(cli: Cli) -> None:
    done = cli.run("show", "deadbeef", "-q")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "mcp-bus: there is no task 'deadbeef'\n  next: search for it; the id of a pruned one must be given in full\n"
    )


def test_errors_are_json_too_when_asked(cli: Cli) -> None:
    error = cli.json("show", "deadbeef", code=3)["error"]
    assert (error["code"], error["message"], error["retryable"]) == ("not_found", "there is no task 'deadbeef'", False)
    assert cli.json("no-verb", code=2)["error"]["code"] == "invalid_request"
    assert cli.json("post", code=2)["error"]["code"] == "invalid_request"
    assert cli.json(code=2)["error"]["code"] == "invalid_request"


def test_text_after_two_dashes_is_not_an_option(cli: Cli) -> None:
    code, out, _ = cli.main("show", "--", "--json")
    assert (code, out) == (2, "")


def test_a_bug_is_one_line_and_a_traceback_only_when_debugging(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus.bus import Bus

    def broken(_bus: Bus, _name: str) -> None:
        msg = "oops \x1b[2J"
        raise RuntimeError(msg)

    monkeypatch.setattr(Bus, "get", broken)
    code, out, err = cli.main("show", "abcd", "-q")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "mcp-bus: RuntimeError: oops \\x1b[2J; this is a bug"
    assert "Traceback" not in err
    monkeypatch.setenv("MCP_BUS_LOG_LEVEL", "debug")
    assert "Traceback" in cli.main("show", "abcd")[2]


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("words", [["ls"], ["--help"], ["status", "--json"], ["claim"]])
def test_a_reader_that_left_is_no_traceback(cli: Cli, words: list[str]) -> None:
    cli.post()
    end = closed_pipe()
    done = cli.run(*words, stdout=end)
    os.close(end)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_people_who_left_too_are_no_trouble(cli: Cli) -> None:
    end = closed_pipe()
    assert cli.run("ls", stderr=end).returncode == 141
    os.close(end)


def test_a_claim_nobody_can_read_is_given_back(cli: Cli) -> None:
    task_id = cli.post()
    end = closed_pipe()
    assert cli.run("claim", stdout=end).returncode == 141
    os.close(end)
    task = cli.json("show", task_id)
    assert (task["state"], task["attempt"], task["releases"]) == ("ready", 0, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error_and_the_claim_is_given_back(cli: Cli) -> None:
    task_id = cli.post()
    with Path("/dev/full").open("w") as full:
        done = cli.run("claim", "-q", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "mcp-bus: the answer could not be written: No space left on device"
    assert "Exception ignored" not in done.stderr
    assert cli.state(task_id) == "ready"


def test_a_closed_stdout_is_an_error_and_the_claim_is_given_back(cli: Cli) -> None:
    task_id = cli.post()
    command = f"exec {sys.executable} -m mcp_bus claim >&-"
    done = subprocess.run(
        ["sh", "-c", command], env=cli.env, cwd=cli.home, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "stdout is closed" in done.stderr
    assert cli.state(task_id) == "ready"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_waiting_claim_ends_quietly_on_a_signal(cli: Cli, number: signal.Signals, code: int) -> None:
    with cli.start("claim", "--wait", "60s") as worker:
        assert worker.stderr
        assert [worker.stderr.readline()[:4], worker.stderr.readline()[:7]] == ["bus:", "waiting"]
        worker.send_signal(number)
        out, err = worker.communicate(timeout=30)
    assert (worker.returncode, out, err) == (code, "", "")
    task_id = cli.post()
    assert cli.state(task_id) == "ready"


def test_a_signal_in_the_middle_of_a_claim_leaves_no_claim_behind(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_bus.bus import Bus

    claim = Bus.claim

    def interrupted(bus: Bus, *words: object, **options: object) -> object:
        task = claim(bus, *words, **options)  # type: ignore[arg-type]  # passed on as they came
        os.kill(os.getpid(), signal.SIGINT)
        return task

    monkeypatch.setattr(Bus, "claim", interrupted)
    task_id = cli.post()
    assert cli.main("claim")[:2] == (130, "")
    assert cli.state(task_id) == "ready"


def test_waiting_for_results_ends_quietly_on_ctrl_c(cli: Cli) -> None:
    task_id = cli.post()
    with cli.start("wait", task_id) as waiter:
        assert waiter.stderr
        assert [waiter.stderr.readline()[:4], waiter.stderr.readline()[:7]] == ["bus:", "waiting"]
        waiter.send_signal(signal.SIGINT)
        _, err = waiter.communicate(timeout=30)
    assert (waiter.returncode, err) == (130, "")


def test_a_bus_that_is_deleted_under_a_waiting_claim_is_an_error(cli: Cli) -> None:
    with cli.start("claim", "--wait", "60s") as worker:
        assert worker.stderr
        assert [worker.stderr.readline()[:4], worker.stderr.readline()[:7]] == ["bus:", "waiting"]
        while cli.bus.exists():  # A sweep that sees half of the bus may still write into it.
            shutil.rmtree(cli.bus, ignore_errors=True)
        _, err = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert "there is no bus at" in err
    assert not cli.bus.exists()


def test_a_folder_that_is_no_bus_is_refused_and_left_alone(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "photos"
    place.mkdir()
    (place / "cat.jpg").write_bytes(b"x")
    code, _, err = cli.main("ls", "--bus", str(place))
    assert code == 1
    assert "is not a bus" in err
    assert [path.name for path in place.iterdir()] == ["cat.jpg"]


def test_a_file_in_place_of_a_bus_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for verb in (["ls"], ["post", "work", "x"], ["init"]):
        code, out, err = cli.main(*verb, "--bus", str(tmp_path / "file"))
        assert (code, out) == (1, ""), (verb, err)
        assert "this is a bug" not in err


def test_a_path_that_is_too_long_is_an_error(cli: Cli) -> None:
    code, _, err = cli.main("ls", "--bus", "/" + "x" * 300)
    assert code == 1
    assert "this is a bug" not in err


def test_a_bus_of_a_later_format_is_refused(cli: Cli) -> None:
    about = json.loads((cli.bus / "bus.json").read_text())
    (cli.bus / "bus.json").write_text(json.dumps(about | {"format": 99}))
    error = cli.json("ls", code=1)["error"]
    assert error["code"] == "corrupt_record"
    assert "format 99" in error["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_users_bus_is_not_trusted(cli: Cli) -> None:
    os.chown(cli.bus, NOBODY, NOBODY)
    error = cli.json("ls", code=1)["error"]
    assert error["code"] == "untrusted"


def as_nobody(*words: str) -> tuple[int, str, str]:
    """Run a verb in a child of this process that gave up root: files of modes 0500 hold for it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork, while the test runner has threads
            child = os.fork()
        if child == 0:
            code = 70
            try:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                sys.stdout, sys.stderr = out, err
                code = entry.main(words)
                err.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root, this becomes another user; else chmod alone would do")
def test_a_read_only_bus_can_be_read_and_refuses_the_rest(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = cli.post("work", "the body")
    dead = cli.dead()
    reading = (["show", task_id], ["find"], ["ls"], ["ls", "work"], ["status"], ["wait", dead, "--timeout", "0"])
    for words in reading:
        cli.main(*words)  # What is imported now needs not be found by another user.
    with tempfile.TemporaryDirectory() as place:
        bus = cli.bus.rename(Path(place) / "bus")
        for path in (Path(place), bus, *bus.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
            path.chmod(0o555 if path.is_dir() else 0o444)
        monkeypatch.setenv("MCP_BUS_DIR", str(bus))
        before = sorted(path.name for path in bus.rglob("*"))
        for words in reading:
            code, out, err = as_nobody(*words)
            assert code == (6 if words[0] == "wait" else 0), (words, err)
            assert out
        for words in (["post", "work", "x"], ["claim"], ["cancel", task_id], ["discard", dead], ["sweep"]):
            code, out, err = as_nobody(*words)
            assert (code, out) == (1, ""), (words, err)
            assert "the bus may not be written by this user" in err
        assert sorted(path.name for path in bus.rglob("*")) == before
