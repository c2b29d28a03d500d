"""Which clients there are to test with, and a folder, a bus and a scripted model for each run."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from e2e import clients
from e2e.clients import CLIENTS, Client
from e2e.model import Model
from e2e.npm import MissingProgram
from e2e.settings import Place
from e2e.table import CLIENT, Table
from mcp_bus import open_bus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path
    from subprocess import CompletedProcess

    from e2e.model import Offer, Step
    from mcp_bus import Bus

RAN = Table()


class Stage:
    """One client on a bus with a scripted model, which was sent `seen` and `offers`, request by request.

    What it was `told` of tools is apart, by requests, too.
    The bus is in the folder `bus` of `folder`, or beside it; `record` has what was said in a run that was recorded.
    """

    def __init__(self, client: Client, command: Path, folder: Path, bus: Bus) -> None:
        self.client = client
        self.bus = bus
        self.seen: list[str] = []
        self.told: list[str] = []
        self.offers: list[Offer] = []
        self.record = folder / "record"
        self.folder = folder
        self._command = command
        self._bus_path = next(place / "bus" for place in (folder, folder.parent) if (place / "bus").is_dir())
        for name in ("project", "home"):
            (folder / name).mkdir()

    def play(
        self, *steps: Step, agent: str = "", hooks: Collection[str] = (), more: Sequence[str] = (),
        install: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Run the client once against a model that does these steps; all of them must be asked for."""
        with Model(steps) as model:
            place = self._place(model, agent, hooks)._replace(install=install)
            done = clients.run(self.client, self._command, place, more)
        self._ended_well(done, model, steps)

    def uninstall(self) -> str:
        """Let mcp-bus take out what it put in; return what it printed."""
        place = Place(self.folder / "project", self.folder / "home", self._bus_path, "")
        done = clients.put(self._command, place, clients.plain(place.home), ["uninstall"])
        return done.stdout + done.stderr

    def speak(
        self, *steps: Step, told: Mapping[str, str] | None = None, marked_by: str = "read_inbox", **change: Any
    ) -> None:
        """Play these steps with all tools shown, and record what client and server say; see `Model` for `marked_by`.

        Args:
            told: more of the client's environment.
            change: what is different in its `Place`.
        """
        shown: dict[str, Any] = {"record": self.record, "is_shown": True}
        with Model(steps, marked_by) as model:
            place = self._place(model, "worker", ())._replace(**{**shown, **change})
            done = clients.run(self.client, self._command, place, told=told)
        self._ended_well(done, model, steps)

    def work(self, *steps: Step) -> str:
        """Let a worker run the client on one task against a model that does these steps; return what it printed."""
        with Model(steps) as model:
            done = clients.work(self.client, self._command, self._place(model, "", ()))
        return self._ended_well(done, model, steps)

    def example(self, words: Sequence[str], *steps: Step, marked_by: str) -> str:
        """Run a program of `examples/` in the project, as `work` does a worker; see `Model` for `marked_by`."""
        with Model(steps, marked_by) as model:
            place = self._place(model, "", ())
            done = clients.example(self.client, self._command, place, words)
        return self._ended_well(done, model, steps)

    def _ended_well(self, done: CompletedProcess[str], model: Model, steps: Sequence[Step]) -> str:
        self.seen, self.told, self.offers = model.seen, model.told, model.offers
        told = f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert model.failed == [], told
        assert (done.returncode, len(model.seen)) == (0, len(steps)), told
        return done.stdout

    def talk(
        self, messages: Sequence[str], *steps: Step, hooks: Collection[str] = (), more: Sequence[str] = ()
    ) -> None:
        """Say several things to Claude Code against a model that does these steps; all of them must be asked for."""
        with Model(steps) as model:
            lines = clients.talk(self._command, self._place(model, "", hooks), messages, more)
        self.seen, self.offers = model.seen, model.offers
        assert (model.failed, len(model.seen)) == ([], len(steps)), "".join(lines)[-3000:]

    def _place(self, model: Model, agent: str, hooks: Collection[str]) -> Place:
        return Place(self.folder / "project", self.folder / "home", self._bus_path, model.url, agent, hooks)


@pytest.fixture(scope="session", params=CLIENTS, ids=lambda client: client.name)
def installed(request: pytest.FixtureRequest) -> tuple[Client, Path]:
    """Give a client and its command; the test is skipped, with the reason, where it cannot be had."""
    client: Client = request.param
    try:
        command = clients.install(client)
    except MissingProgram as error:
        pytest.skip(f"{client}: {error}")
    return client, command


@pytest.fixture
def stage(installed: tuple[Client, Path], tmp_path: Path) -> Iterator[Stage]:
    """Give a client in an empty folder with an empty home, and a bus that belongs to `ann`."""
    with open_bus(tmp_path / "bus", agent="ann") as bus:
        yield Stage(*installed, tmp_path, bus)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[list[Stage]]:
    """Give all clients that can be had, on one bus."""
    found = list[Stage]()
    with open_bus(tmp_path / "bus", agent="ann") as bus:
        for client in CLIENTS:
            with suppress(MissingProgram):
                command = clients.install(client)
                folder = tmp_path / client.name
                folder.mkdir()
                found.append(Stage(client, command, folder, bus))
        if len(found) < 2:
            pytest.skip(f"{len(found)} clients can be had, and it takes two")
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each test's reports say which client it is about."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            client = item.callspec.params.get("installed")
            item.user_properties += [(CLIENT, client.name)] if isinstance(client, Client) else []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what the table at the end is made from."""
    RAN.add(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which clients ran, and what they were seen to do."""
    terminalreporter.section("clients")
    for line in RAN.lines():
        terminalreporter.write_line(line)
