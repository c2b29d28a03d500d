"""What ran, as a table: each client's version, its protocol, what its model was sent of the tools, and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2e.clients import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from e2e.clients import Client

# How a test tells of which client it is, and what it has measured: a protocol, the number of tools, their bytes.
CLIENT, MEASURED = "client", "measured"
# What else a test has to say at the end.
NOTED = "noted"
HEAD = ("client", "version", "protocol", "tools", "bytes", "tests", "seconds")
LEFT = 3


class Table:
    """Made from the reports of tests, in whichever process they ran."""

    def __init__(self) -> None:
        self._tests: dict[str, dict[str, str]] = {}
        self._seconds: dict[str, float] = {}
        self._noted: list[str] = []
        self._missing: dict[str, str] = {}
        self._measured: dict[str, list[tuple[object, ...]]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take in the report of a test's setup, call or teardown."""
        told: dict[str, Any] = dict(report.user_properties)
        if report.when == "call" and NOTED in told:
            self._noted.append(str(told[NOTED]))
        name = told.get(CLIENT)
        if name is None:
            return
        self._seconds[name] = self._seconds.get(name, 0.0) + report.duration
        if report.skipped and isinstance(report.longrepr, tuple):
            self._missing[name] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.when == "call" or report.failed:
            self._tests.setdefault(name, {})[report.nodeid] = report.outcome
        if report.when == "call" and MEASURED in told:
            self._measured.setdefault(name, []).append(tuple(told[MEASURED]))

    def lines(self) -> Iterator[str]:
        """Return the table; who did not run is in it, with the reason, so that a skip is never silent."""
        rows = [HEAD, *(row for client in ALL for row in self._rows(client))]
        widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
        for row in rows:
            cells = [cell.ljust(widths[at]) if at < LEFT else cell.rjust(widths[at]) for at, cell in enumerate(row)]
            yield "  ".join(cells).rstrip()
        for client in ALL:
            if client.name in self._missing:
                yield f"{client}: NOT RUN: {self._missing[client.name]}"
        yield from self._noted

    def _rows(self, client: Client) -> Iterator[tuple[str, ...]]:
        outcomes = list(self._tests.get(client.name, {}).values())
        failed = len(outcomes) - outcomes.count("passed")
        ran = "" if outcomes else "not run" if client.name in self._missing else "not asked for"
        tests = ran or (f"{failed} of {len(outcomes)} failed" if failed else f"{len(outcomes)} passed")
        seconds = f"{self._seconds.get(client.name, 0.0):.1f}" if outcomes else "-"
        first, version = client.name, client.version if outcomes else "-"
        for measured in self._measured.get(client.name) or [("-", "-", "-")]:
            yield (first, version, *map(str, measured), tests, seconds)
            first, version, tests, seconds = "", "", "", ""
