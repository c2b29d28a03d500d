"""pipe: what one end writes the other reads, and each is told when the other is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mcp_bus.clock import System
from mcp_bus.errors import InvalidRequest
from mcp_bus.pipes import NobodyThere, Pipes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli


@pytest.fixture
def pipes(cli: Cli) -> Pipes:
    return Pipes(cli.bus, System())


def test_what_is_written_is_read_whole_and_in_order_and_the_end_is_told(cli: Cli) -> None:
    data = "".join(f"{number}\n" for number in range(200_000))
    with (cli.home / "got").open("w") as got:
        reader, writer = cli.start("pipe", "read", "log", stdout=got), cli.start("pipe", "log")
        _, told = writer.communicate(data, timeout=60)
        _, err = reader.communicate(timeout=60)
    assert (writer.returncode, reader.returncode) == (0, 0), err
    assert (cli.home / "got").read_text() == data
    assert f"{len(data)} bytes were handed over" in told


@pytest.mark.parametrize("first", ["read", "write"])
def test_either_end_may_come_first(cli: Cli, first: str) -> None:
    second = {"read": "write", "write": "read"}[first]
    one = cli.start("pipe", first, "log")
    if first == "write":
        assert one.stdin is not None
        one.stdin.write("hello")
        one.stdin.close()
        one.stdin = None
    end = time.monotonic() + 30
    while not (cli.bus / "pipes" / "log").exists():
        assert time.monotonic() < end
    with cli.start("pipe", second, "log") as other:
        out, _ = other.communicate("hello" if second == "write" else None, timeout=60)
    text, _ = one.communicate(timeout=60)
    assert (out or text) == "hello"


@pytest.mark.parametrize(("action", "why"), [("read", "nobody writes to 'log'"), ("write", "nobody reads 'log'")])
def test_who_waits_in_vain_is_told_and_what_to_do(cli: Cli, action: str, why: str) -> None:
    done = cli.run("pipe", action, "log", "--timeout", "0.2s", text="lost?" if action == "write" else None)
    assert done.returncode == 1
    assert f"{why}: waited 0.2 s" in done.stderr
    assert "start the other end: mcp-bus pipe" in done.stderr


def test_a_reader_that_goes_away_is_told_with_how_much_was_handed_over(pipes: Pipes) -> None:
    pipes.make("log")
    reader = pipes._open("log", os.O_RDONLY)

    def parts() -> Iterator[bytes]:
        yield b"x" * 1000
        os.close(reader)
        yield b"y"

    with pytest.raises(NobodyThere, match="went away; 1000 bytes were handed over"):
        pipes.write("log", parts())


def test_a_full_pipe_holds_its_writer_back_and_is_not_waited_for_for_ever(pipes: Pipes) -> None:
    pipes.make("log")
    reader = pipes._open("log", os.O_RDONLY)
    taken: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(10_000):
            taken.append(number)
            yield b"x" * 1024

    with pytest.raises(NobodyThere, match=r"read nothing for 0\.2 s; \d+ bytes were handed over"):
        pipes.write("log", parts(), idle_s=0.2)
    assert len(taken) < 2000, "no more was taken from its source than fits"
    os.close(reader)


def test_a_writer_that_is_silent_for_too_long_is_told_of(pipes: Pipes) -> None:
    pipes.make("log")
    reading = pipes.read("log", open_s=30, idle_s=0.2)
    first = pipes._open("log", os.O_RDONLY)  # So that the writing end can be opened.
    writer = pipes._open("log", os.O_WRONLY)
    os.write(writer, b"a")
    assert next(reading) == b"a"
    with pytest.raises(NobodyThere, match=r"wrote nothing for 0\.2 s"):
        next(reading)
    os.close(writer)
    os.close(first)


def test_pipes_are_listed_and_removed(cli: Cli) -> None:
    assert cli.main("pipe", "open", "log")[1] == f"{cli.bus}/pipes/log\n"
    assert cli.json("pipe", "list") == {"pipes": ["log"]}
    assert (cli.bus / "pipes" / "log").stat().st_mode & 0o777 == 0o600
    assert cli.main("pipe", "rm", "log")[0] == 0
    assert cli.json("pipe", "list") == {"pipes": []}
    assert cli.main("pipe", "rm", "log")[0] == 3


@pytest.mark.parametrize("name", ["../x", "", "A B", "a/b", "x" * 65, "-x"])
def test_what_is_no_name_makes_nothing(cli: Cli, pipes: Pipes, name: str) -> None:
    with pytest.raises(InvalidRequest):
        pipes.make(name)
    assert cli.json("pipe", "list") == {"pipes": []}


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_pipe_is_neither_read_nor_written(cli: Cli, pipes: Pipes, what: str) -> None:
    folder = cli.bus / "pipes"
    folder.mkdir()
    secret = cli.home / "secret"
    secret.write_text("secret")
    if what == "file":
        (folder / "log").write_text("secret")
    else:
        (folder / "log").symlink_to(secret)
    for action in (lambda: list(pipes.read("log")), lambda: pipes.write("log", iter([b"x"]))):
        with pytest.raises(InvalidRequest, match="is no pipe"):
            action()
    assert secret.read_text() == "secret"


def test_a_stream_goes_through_a_chain_of_commands(cli: Cli) -> None:
    mcp_bus = f"{sys.executable} -m mcp_bus -q"
    script = f"(printf 'a\\nb\\na\\n' | {mcp_bus} pipe write chain) & {mcp_bus} pipe read chain | grep -c a; wait"
    done = subprocess.run(["sh", "-c", script], env=cli.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "2\n", done.stderr
