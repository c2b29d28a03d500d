"""doctor --answer and --ask: two hosts, here two processes, find out whether the folder they share can carry a bus."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from mcp_bus.stores import trial, visibility
from mcp_bus.stores.visibility import Measured
from tests.cli.test_doctor import findings
from tests.fakes import AT_ONCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli

SLOW = Measured({"listing": [0.01, 3.5], "rename": [0.01], "removal": [0.01]}, host="other\x1b[2J")


@pytest.fixture
def folder(cli: Cli) -> Path:
    """A folder that both share."""
    made = cli.home / "shared folder"
    made.mkdir()
    return made


@pytest.fixture
def answering(cli: Cli, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that answers there, and the word that it printed."""
    with cli.start("doctor", "--json", "--answer", str(folder), "--within", "60s") as process:
        assert process.stderr is not None
        said = process.stderr.readline() + process.stderr.readline()
        word = re.search(r"mcp-bus doctor --ask '.*/shared folder' --word ([0-9a-f]{8})$", said, re.MULTILINE)
        assert word, said
        try:
            yield process, word[1]
        finally:
            process.kill()


def test_two_processes_measure_how_soon_each_sees_the_other_and_leave_nothing(
    cli: Cli, folder: Path, answering: tuple[subprocess.Popen[str], str]
) -> None:
    process, word = answering
    code, out, err = cli.main("doctor", "--ask", str(folder), "--word", word, "--rounds", "4")
    assert code == 0, out + err
    assert re.search(r"a new file +seen and answered after [0-9.]+ ms \(median of 4\), [0-9.]+ ms at most", out)
    assert f"✓ {os.uname().nodename} and this host see soon" in out
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(told)["answered"] == [os.uname().nodename]
    assert list(folder.iterdir()) == []


def test_who_answers_can_be_stopped_and_leaves_nothing(
    folder: Path, answering: tuple[subprocess.Popen[str], str]
) -> None:
    process, word = answering
    assert [path.name for path in folder.iterdir()] == [f"probe-{word}-answers"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


def test_where_nobody_answers_or_asks_it_says_so_in_time(cli: Cli, folder: Path) -> None:
    for words, said in ((("--ask",), "nobody answered"), (("--answer",), "nobody asked")):
        code, out, err = cli.main("doctor", *words, str(folder), "--within", "0.05s")
        assert (code, out) == (4, "")
        assert said in err
        assert "next: mcp-bus doctor --a" in err
        assert list(folder.iterdir()) == []
    assert cli.json("doctor", "--ask", "--within", "0s", code=4)["folder"] == str(cli.bus), "by default it is the bus"
    assert list((cli.bus / "tmp").iterdir()) == []


def test_who_was_never_seen_may_have_ended_and_is_not_waited_for_longer_than_was_said(cli: Cli, folder: Path) -> None:
    code, out, _ = cli.main("doctor", "--ask", str(folder), "--word", "deadbeef", "--within", "0.05s")
    assert code == 1
    assert "was not seen to do so within 0.1 s: it has ended, the word is another one, or listings of this" in out
    assert "its listings lie" not in out
    assert list(folder.iterdir()) == []


def test_a_lag_over_the_bound_is_an_error_with_what_to_use_instead(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visibility.Asker, "measure", lambda *_: SLOW)
    code, out, _ = cli.main("doctor", "--ask", str(folder))
    assert code == 1
    assert "its listings lie: another process is shown a new file only after 3500 ms" in out
    assert "`--bus git+REMOTE`" in out
    found = cli.json("doctor", "--ask", str(folder), code=1)
    assert found["listing_ms"] == {"rounds": 2, "median": 1755.0, "max": 3500.0}
    assert (found["bound_ms"], "\x1b" in found["host"]) == (2000, False)
    monkeypatch.setattr(visibility.Asker, "measure", lambda *_: AT_ONCE._replace(host=SLOW.host))
    code, out, _ = cli.main("doctor", "--ask", str(folder))
    assert (code, "\x1b" in out) == (0, False), "the name of a host is what another process wrote"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--rounds", "3"), 2, "go with --ask or --answer"),
        (("--ask", ".", "--word", "../../x"), 2, "is no word that --answer prints"),
        (("--ask", ".", "--answer", "."), 2, "not allowed with"),
        (("--ask", "nowhere"), 3, "there is no folder"),
        (("--bus", "nowhere", "--answer"), 3, "there is no bus"),
        (("--bus", "git+/nowhere/x.git", "--ask"), 2, "at a git remote: its hosts share no folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_makes_nothing(
    cli: Cli, words: tuple[str, ...], code: int, said: str
) -> None:
    before = sorted(cli.home.rglob("*"))
    got, out, err = cli.main("doctor", *words)
    assert (got, out) == (code, "")
    assert said in err
    assert sorted(cli.home.rglob("*")) == before


def test_doctor_tells_of_a_mount_that_lies_between_two_processes(
    with_cursor: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setattr(trial, "between_processes", lambda *_: SLOW)
    found = findings(with_cursor, code=1)["listings"]
    assert (found["level"], "only after 3500 ms" in found["said"]) == ("bad", True)
    assert "`--bus git+REMOTE`" in found["fix"]
