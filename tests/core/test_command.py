"""A command that somebody else wrote ends when it should, leaves nothing running, and cannot fill the memory."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import command
from mcp_bus.command import Command, Ended
from mcp_bus.identity import process

if TYPE_CHECKING:
    from pathlib import Path

SOON_S = 20.0


def run(folder: Path, code: str, *, more: dict[str, Any] | None = None, **options: Any) -> Ended:
    """Run Python code as a command."""
    return command.run(Command((sys.executable, "-u", "-c", code), folder, {}, **(more or {})), **options)


def is_gone(pid: int) -> bool:
    """Tell whether a process ends within a bounded time; one that nobody waited for counts as ended."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        if not process.started(pid):
            return True
    return False


def test_a_command_reads_its_input_and_its_output_is_kept(tmp_path: Path) -> None:
    text = b"x" * 300_000
    done = run(tmp_path, "import sys; sys.stdout.write(sys.stdin.read())", more={"stdin": text, "keep": 10**6})
    assert done == Ended(0, text, len(text), "")


def test_it_runs_in_its_folder_and_sees_no_environment_but_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    asked = Command((sys.executable, "-c", "import os; print(os.getcwd(), 'SECRET' in os.environ)"), tmp_path, {})
    assert command.run(asked).output.decode() == f"{tmp_path.resolve()} False\n"


def test_exit_codes_and_signals_are_told(tmp_path: Path) -> None:
    assert run(tmp_path, "import sys; sys.exit(7)").code == 7
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").code == -signal.SIGKILL


def test_what_is_no_program_raises_and_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        command.run(Command(("no-such-program",), tmp_path, {}))


def test_of_a_long_output_the_end_is_kept_and_all_is_counted_and_passed_on(tmp_path: Path) -> None:
    seen: list[int] = []
    code = "import sys\nfor n in range(2000): sys.stdout.buffer.write(bytes([n % 256]) * 50000)"
    done = run(tmp_path, code, more={"keep": 1000}, sink=lambda data: seen.append(len(data)))
    assert (done.code, done.size, sum(seen)) == (0, 10**8, 10**8)
    assert done.output == bytes([1999 % 256]) * 1000


def test_stderr_goes_to_the_sink_alone_unless_it_is_to_be_joined(tmp_path: Path) -> None:
    seen = bytearray()
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    assert run(tmp_path, code, sink=seen.extend).output == b"out\n"
    assert sorted(bytes(seen).split()) == [b"err", b"out"]
    assert run(tmp_path, code, more={"joins": True}).output == b"out\nerr\n"


def test_one_that_hangs_is_ended_when_its_time_is_up(tmp_path: Path) -> None:
    done = run(tmp_path, "import time; time.sleep(600)", more={"limit_s": 0.3})
    assert (done.code, done.why) == (-signal.SIGTERM, "it did not end within 0.3 s")


def test_one_that_wants_to_end_well_is_given_time_for_it(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(5)))\n"
        "print('on\\n', end='')\ntime.sleep(600)"  # In one piece: what comes first starts the clock.
    )
    started: list[bytes] = []
    done = run(tmp_path, code, sink=started.append, pulse=lambda: "enough" if started else "", pulse_s=0.01)
    assert (done.code, done.output, done.why) == (5, b"on\nsaved\n", "enough")


def test_one_that_does_not_heed_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PATIENCE_S", 0.3)
    started: list[bytes] = []
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on'); time.sleep(600)"
    done = run(tmp_path, code, sink=started.append, pulse=lambda: "enough" if started else "", pulse_s=0.01)
    assert done.code == -signal.SIGKILL


@pytest.mark.parametrize("ends", ["sys.exit(0)", "time.sleep(600)"])
def test_what_it_started_ends_with_it(tmp_path: Path, ends: str) -> None:
    code = f"import os, sys, time\nchild = os.fork()\nif child == 0:\n    time.sleep(600)\nprint(child)\n{ends}"
    start = time.monotonic()
    done = run(tmp_path, code, more={"limit_s": 1.0})
    assert is_gone(int(done.output)), "the child of the command runs on"
    assert time.monotonic() - start < SOON_S, "though it held the pipe"


def test_one_that_closes_its_output_is_waited_for_all_the_same(tmp_path: Path) -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.3); open('late', 'w').close()"
    assert run(tmp_path, code).code == 0
    assert (tmp_path / "late").exists()


def test_a_child_that_took_the_pipe_out_of_the_group_does_not_hold_anybody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "DRAIN_S", 0.2)
    code = "import os, time\nchild = os.fork()\nif child == 0:\n    os.setsid(); time.sleep(600)\nprint(child)"
    start = time.monotonic()
    done = run(tmp_path, code)
    assert time.monotonic() - start < SOON_S
    os.kill(int(done.output), signal.SIGKILL)
    assert done.code == 0


def test_an_error_of_the_pulse_leaves_nothing_running(tmp_path: Path) -> None:
    pids: list[bytes] = []

    def pulse() -> str:
        if pids:
            raise KeyboardInterrupt
        return ""

    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path,
            "import os, time; print(os.getpid()); time.sleep(600)",
            sink=pids.append, pulse=pulse, pulse_s=0.01,
        )  # fmt: skip
    assert is_gone(int(pids[0]))


@pytest.mark.parametrize("lacks", ["pidfd_open", "waitid"])
def test_it_works_where_the_system_lacks_what_linux_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    monkeypatch.delattr(os, lacks)
    assert run(tmp_path, "print('done')").output == b"done\n"
    assert run(tmp_path, "import time; time.sleep(600)", more={"limit_s": 0.3}).code == -signal.SIGTERM


def test_nothing_is_kept_where_nothing_is_to_be(tmp_path: Path) -> None:
    assert run(tmp_path, "print('x' * 5000)", more={"keep": 0}) == Ended(0, b"", 5001, "")


@pytest.mark.parametrize("limit", [1e8, float("inf")])
def test_a_limit_may_be_as_long_as_one_likes(tmp_path: Path, limit: float) -> None:
    assert run(tmp_path, "print('x')", more={"limit_s": limit}).code == 0


def test_no_group_is_signalled_once_its_number_may_be_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    alive: list[bool] = []
    kill = os.killpg

    def watched(group: int, number: int) -> None:
        killed.append(group)
        alive.append(os.waitid(os.P_PID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        kill(group, number)

    monkeypatch.setattr(os, "killpg", watched)
    run(tmp_path, "print('x')")
    assert len(killed) == 1
    assert alive == [True], "it was not waited for yet, so that its number was its own"


def test_nothing_stays_open(tmp_path: Path) -> None:
    run(tmp_path, "print('x')")
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []  # noqa: PTH112, PTH208  a listing of a moment
    for _ in range(5):
        run(tmp_path, "print('x')")
    assert sorted(os.listdir("/proc/self/fd") if before else []) == before  # noqa: PTH208  as above


def test_the_pulse_comes_as_often_as_it_was_asked_for(tmp_path: Path) -> None:
    times: list[float] = []

    def pulse() -> str:
        times.append(time.monotonic())
        return "enough" if len(times) == 4 else ""

    run(tmp_path, "import time; time.sleep(600)", pulse=pulse, pulse_s=0.1)
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(times))
