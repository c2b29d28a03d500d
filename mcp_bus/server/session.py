"""One connection's view of the bus: who it is, what it holds, and keeping that alive.

The process renews what its model claimed, so that a model may think for an hour; but only up to the
channel's `max_lease_s` since the model last spoke of the task, so that a model that forgot a task
does not hold it for ever.  A clean end gives everything back at once.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from mcp.shared.dispatcher import coerce_request_id

from mcp_bus import config as settings
from mcp_bus import presence
from mcp_bus.errors import BusError, Conflict, LeaseLost, NotFound, StoreUnavailable
from mcp_bus.model import State
from mcp_bus.server.changes import Changes
from mcp_bus.server.ends import Ends
from mcp_bus.server.push import Push
from mcp_bus.server.waker import Waker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_bus.bus import Bus
    from mcp_bus.config import Config
    from mcp_bus.model import Task

# How often the bus is tended while nobody calls.
TEND_S = 5.0
# A lease is renewed when a third of it is gone.
RENEW_AT = 3
logger = logging.getLogger(__name__)


class Session:
    """The bus as one MCP connection uses it."""

    def __init__(self, config: Config) -> None:
        """Open nothing yet: the bus is opened at the first call, when the client's name is known."""
        self.config = config
        self.waker = Waker()
        self.changes = Changes(self.bus)
        self.push = Push(self.bus) if config["claude_channel"] else None
        self.ends = Ends()
        self._bus: Bus | None = None
        self._was_open = False
        self._spoken: dict[str, float] = {}
        self._answered: dict[str | int, str] = {}
        self._read: dict[str | int, frozenset[str]] = {}
        self._beaten = 0.0
        self._client = ""
        self._place: tuple[int, int] | None = None
        self._ended = anyio.Event()
        self._claimed = anyio.Event()

    def bus(self, client: str = "") -> Bus:
        """Return the bus, opening it if need be.

        Only the first time is a missing bus made: one that was deleted under us stays deleted until
        a person makes it again.

        Raises:
            BusError: it cannot be opened; the next call tries again.
        """
        bus = self._here()
        if bus is None:
            self._client = client or self._client
            bus = self._bus = settings.open_from(self.config, client=self._client, create=not self._was_open)
            self._was_open, self._place = True, self._inode()
            self._arrive(bus)
        return bus

    def greet(self, client: str) -> None:
        """Say that this session is there, if there is a bus: others can write to it before its model calls a tool."""
        try:
            if self._bus is None and (self.config.path / "bus.json").exists():
                self.bus(client)
        except (BusError, OSError) as error:
            logger.info("could not say that this session is there: %s", error)

    def _here(self) -> Bus | None:
        """Return the open bus; one that its path no longer leads to is closed, and nothing more is written there."""
        if self._bus is not None and self._inode() != self._place:
            self._close()
        return self._bus

    def _inode(self) -> tuple[int, int] | None:
        try:
            about = self.config.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return self._place  # That it cannot be told says nothing.
        return about.st_dev, about.st_ino

    def _arrive(self, bus: Bus) -> None:
        """Say that this session is there; where that cannot be written, it can be used all the same."""
        self._beaten = anyio.current_time()
        try:
            if not self.config["read_only"]:
                bus.roster.arrive(self.config["capabilities"])
        except BusError as error:
            logger.info("could not say that this session is there: %s", error)

    def dropped(self, error: BusError) -> None:
        """Close the bus after an error of the medium, so that the next call opens it anew."""
        if (
            isinstance(error, StoreUnavailable)
            and self._bus is not None
            and not (self.config.path / "bus.json").exists()
        ):
            self._close()

    def _close(self) -> None:
        self.ends.close_all()
        bus, self._bus = self._bus, None
        try:
            if bus is not None:
                bus.close()
        except BusError:
            logger.debug("closing a lost bus", exc_info=True)

    # --- what the model holds -----------------------------------------------------------------

    def spoke_of(self, task_id: str) -> None:
        """Note that the model gave a sign of life for a task."""
        self._spoken[task_id] = anyio.current_time()
        self._answered = {request: held for request, held in self._answered.items() if held != task_id}

    @property
    def is_holding(self) -> bool:
        """Whether the model holds something, as far as is known."""
        return self._bus is not None and bool(self._bus.held())

    def holding(self) -> list[Task]:
        """Return what the model holds in truth: what was cancelled or taken away meanwhile is left out."""
        bus = self._here()
        return [now for task in bus.held() if (now := _still(bus, task)) is not None] if bus is not None else []

    def claimed(self, task: Task, request_id: str | int | None, waited_s: float) -> None:
        """Note which request a task was handed out in, in case its answer never arrives.

        Args:
            waited_s: how long the request took.  A client gives up one that takes long, and its cancellation may
                cross the answer; one that comes after a quick answer says nothing, for some clients always send it.
        """
        self._spoken[task.id] = anyio.current_time()
        self._claimed.set()
        if request_id is not None and waited_s >= self.config["given_up_s"]:
            self._answered[coerce_request_id(request_id)] = task.id
            while len(self._answered) > 256:
                del self._answered[next(iter(self._answered))]

    def unclaim(self, request_id: str | int) -> None:
        """Give back what a request handed out, because its sender had given it up."""
        self.ends.take_back(coerce_request_id(request_id))
        shown = self._read.pop(coerce_request_id(request_id), None)
        if shown is not None:
            self.take_back(shown, "its answer was not waited for")
        task_id, bus = self._answered.pop(coerce_request_id(request_id), None), self._here()
        if bus is None or task_id is None:
            return
        for task in bus.held():
            if task.id == task_id:
                self.give_back(task, "its answer was not waited for")

    def give_back(self, task: Task, why: str) -> None:
        """Undo the claim of a task that its model never saw."""
        bus = self._here()
        try:
            if bus is not None:
                bus.unclaim(task.ticket, why)
        except LeaseLost:
            logger.debug("%s was given back already", task.id)
        except (Conflict, NotFound, StoreUnavailable):
            logger.warning("could not give back %s", task.id, exc_info=True)

    def offered(self, messages: frozenset[str], request_id: str | int | None, waited_s: float) -> None:
        """Note which request messages were shown in, in case its answer never arrives; see `claimed`."""
        if request_id is not None and waited_s >= self.config["given_up_s"]:
            self._read[coerce_request_id(request_id)] = messages
            while len(self._read) > 64:
                del self._read[next(iter(self._read))]

    def take_back(self, messages: frozenset[str], why: str) -> None:
        """Make unread again what was shown: nobody saw it."""
        bus = self._here()
        try:
            if bus is not None:
                bus.mail.give_back(why, messages)
        except BusError:
            logger.warning("could not take an offer back", exc_info=True)

    # --- life ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Session]:
        """Renew and tend while the connection lives; give everything back when it ends."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._renewing)
            group.start_soon(self._tending)
            group.start_soon(self.changes.tell, self.waker)
            if self.push is not None:
                group.start_soon(self.push.tell, self.waker)
            try:
                yield self
            finally:
                group.cancel_scope.cancel()
                self.end()

    def end(self) -> None:
        """Give back all leases, close the ends of pipes and the bus."""
        self.waker.close()
        self.ends.close_all()
        bus, self._bus = self._here(), None
        if bus is None:
            return
        why, mail = "its session ended", bus.mail
        for last in (lambda: bus.release_all(why), lambda: mail.give_back(why), bus.roster.leave, bus.close):
            try:
                last()
            except BusError as error:
                logger.warning("could not give everything back: %s", error)

    async def _renewing(self) -> None:
        while True:
            # A new claim may be due earlier than all before.
            self._claimed = anyio.Event()
            with anyio.move_on_after(max(0.2, self.renew() - anyio.current_time())):
                await self._claimed.wait()

    def renew(self) -> float:
        """Renew what is due; return when to do so next, by the event loop's clock."""
        now, upcoming = anyio.current_time(), anyio.current_time() + TEND_S
        bus = self._here()
        held = bus.held() if bus is not None else []
        self._spoken = {task.id: self._spoken.get(task.id, now) for task in held}
        for task in held:
            try:
                assert bus is not None
                upcoming = min(upcoming, self._renew(bus, task, now))
            except (LeaseLost, NotFound) as error:
                logger.info("lost %s: %s", task.id, error)
            except BusError:
                logger.warning("could not renew %s", task.id, exc_info=True)
        return upcoming

    def _renew(self, bus: Bus, task: Task, now: float) -> float:
        policy = bus.store.policy(task.channel)
        left = (task.lease.expires - bus.source.now()) / 1000
        spare = policy.lease_s * (RENEW_AT - 1) / RENEW_AT
        if left > spare:
            return now + left - spare
        if now - self._spoken.get(task.id, now) < policy.max_lease_s:
            bus.renew(task.ticket)
            return now + policy.lease_s - spare
        return now + max(left, 1.0)

    async def _tending(self) -> None:
        while True:
            with anyio.move_on_after(TEND_S):
                await self._ended.wait()
            self.tend()

    def tend(self) -> None:
        """Sweep the bus and say that the session is there, if it is open (a read-only one does neither)."""
        bus = self._here()
        try:
            if bus is not None:
                bus.tend()
                self._beat(bus)
        except BusError as error:
            logger.warning("the sweep failed: %s", error)
            self.dropped(error)
        except Exception:  # whatever lies on the bus, the calls of a model are still answered
            logger.exception("the sweep failed")

    def _beat(self, bus: Bus) -> None:
        if anyio.current_time() - self._beaten >= presence.BEAT_S:
            self._beaten = anyio.current_time()
            bus.roster.beat()


def _still(bus: Bus, task: Task) -> Task | None:
    try:
        now = bus.get(task.id)
    except NotFound:
        return None
    return now if now.state is State.LEASED and now.ticket == task.ticket else None
