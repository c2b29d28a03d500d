"""A worker's verbs: claim, renew, ack, nack, release, block; each as the holder of a lease, or not at all."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from mcp_bus import access, children, draft, encrypted, find, lifecycle, names, routing, wire
from mcp_bus.backlog import Backlog
from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    InvalidRequest,
    LeaseLost,
    NotFound,
    ResultRejected,
)
from mcp_bus.model import NOTHING, Attempt, Lease, Outcome, Result, State, Task, Ticket
from mcp_bus.operate import TRIES, Operator
from mcp_bus.passed import Passed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mcp_bus.clock import Source
    from mcp_bus.model import Artifact, Body, Identity, Policy, Slot
    from mcp_bus.stores.base import Store

    Decide = Callable[[Task], tuple[Slot, Attempt | Result | None]]

# Lost races after which a claimer lists again.
RELIST = 8
# Bodies whose requirements are remembered, so that they are not read again for each claim.
REMEMBERED = 20_000


class Worker(Operator):
    """A bus as a worker sees it: what it takes, keeps and ends."""

    def __init__(self, store: Store, identity: Identity, source: Source) -> None:
        """Work as `identity`."""
        super().__init__(store, identity, source)
        self.capabilities: tuple[str, ...] = ()
        self._backlog = Backlog(store, source)
        self._held: dict[str, Task] = {}
        self._requires: dict[str, tuple[str, ...]] = {}
        # What is encrypted to others, or signed by who is unknown here; and what was refused.
        self.passed = Passed(source)

    def tend(self) -> None:
        """Sweep if the last sweep is long enough ago; waiters call it between looks."""

    def claim(
        self,
        channels: Sequence[str] = (),
        *,
        capabilities: Sequence[str] | None = None,
        lease_s: float | None = None,
        only: Callable[[Body], bool] | None = None,
    ) -> Task | None:
        """Take the next task this worker is able to do, or None.  Does not wait; see `watch`.

        The attempt counts from here.  Delivery is at least once: a task may have been worked on
        before by someone whose lease lapsed, but only the holder of the token can finish it.

        Args:
            channels: where to look; if empty, all that let this agent claim.  One that does not exist is empty.
            capabilities: what this worker can do; None means what the bus was opened with.
            lease_s: how long the claim lasts unless renewed; None leaves it to the channel.
            only: tells of a task whether it is wanted; what is not is left where it is.

        Returns:
            The task; `task.ticket` is what the worker's other verbs want.

        Raises:
            NotAllowed: a channel that was named does not let this agent claim.
        """
        wanted = [channels] if isinstance(channels, str) else channels
        if not isinstance(wanted, list | tuple | set | frozenset):
            msg = f"{str(wanted)[:60]!r} is not a list of channels"
            raise InvalidRequest(msg, hint="for example ['review', 'build']")
        looked = access.named(self._queue, wanted) or access.claimable(
            self.store, find.queues(self.store), self.identity.agent
        )
        if lease_s is not None:
            draft.check_number("lease_s", lease_s, low=1)
        can = self._words(capabilities)
        self.tend()
        candidates, losses = self._backlog.candidates(looked), 0
        while (slot := candidates.next(self._skip(losses))) is not None:
            try:
                task = self._take(slot, can, lease_s, only)
            except Conflict:
                losses += 1
                if losses == RELIST:
                    candidates.refresh()
                    losses = 0
                continue
            except CorruptRecord as error:
                self.passed.wrong(slot, error)
                continue
            if task is not None:
                return task
        return None

    def _skip(self, losses: int) -> int:
        return routing.spread(losses, int(self.source.token(2), 16)) if losses > 1 else 0

    def _take(
        self, slot: Slot, can: frozenset[str], lease_s: float | None, only: Callable[[Body], bool] | None
    ) -> Task | None:
        known = self._requires.get(slot.id)
        if (known is not None and self._lacks(known, can)) or slot.id in self.passed:
            return None
        now = self.source.now()
        if lifecycle.is_expired(slot, now=now):
            self.store.swap(slot, lifecycle.expire(slot, now=now), self._line(slot, Outcome.EXPIRED, "its ttl passed"))
            return None
        task = self.store.get(slot.id, at=slot)
        if task is None:
            return None
        if self._lacks(task.body.requires, can):
            if len(self._requires) >= REMEMBERED:
                self._requires.clear()
            self._requires[slot.id] = task.body.requires
            return None
        policy = self.store.policy(slot.channel)
        is_wanted = not self._is_closed(task, policy) and (only is None or only(task.body))
        if not is_wanted or not access.may_claim(policy, self.identity.agent):
            return None
        seconds = policy.lease_s if lease_s is None else lease_s
        lease = Lease(self.identity.holder, self.source.token(6), now + int(seconds * 1000))
        taken = lifecycle.claim(slot, lease)
        self.store.swap(slot, taken)
        task = task._replace(slot=taken)
        self._held[task.id] = task
        return task

    def _is_closed(self, task: Task, policy: Policy) -> bool:
        """Tell whether this agent cannot read a task, or sign its result; it is not read again for a while."""
        if why := task.hidden or access.keyless(self, task.channel, policy):
            self.passed.add(task.id, why)
        return bool(why)

    def able(self, capabilities: Sequence[str] | None = None) -> frozenset[str]:
        """Return what this worker is able to do: what it says, and what is addressed to its agent and no other.

        Args:
            capabilities: None means what the bus was opened with.
        """
        return self._words(capabilities) | {self._addressed}

    @cached_property
    def _addressed(self) -> str:
        return names.addressed(self.identity.agent)

    def _words(self, capabilities: Sequence[str] | None) -> frozenset[str]:
        words = draft.check_words("capabilities", self.capabilities if capabilities is None else capabilities)
        return frozenset(word for word in words if not word.startswith(names.ADDRESSED))

    def _lacks(self, requires: tuple[str, ...], can: frozenset[str]) -> bool:
        """Tell whether this worker cannot do something; what is addressed to it is found out only if it matters."""
        missing = routing.missing(requires, can)
        return any(not word.startswith(names.ADDRESSED) or word != self._addressed for word in missing)

    def held(self) -> list[Task]:
        """Return what this session holds, oldest claim first, as far as it knows."""
        return list(self._held.values())

    def renew(self, claim: Task | Ticket, *, lease_s: float | None = None, progress: str = "") -> Task:
        """Keep a task: its lease ends `lease_s` (or the channel's lease) from now, never earlier than before.

        Args:
            progress: a word for those who wait; the latest of an attempt is kept.

        Raises:
            LeaseLost: the task was taken away, cancelled or finished; nothing was changed.
        """
        if lease_s is not None:
            draft.check_number("lease_s", lease_s, low=1)
        draft.check_note(progress)

        def decide(task: Task) -> tuple[Slot, Attempt | None]:
            seconds = self.store.policy(task.channel).lease_s if lease_s is None else lease_s
            kept = lifecycle.renew(task.slot, expires=self.source.now() + int(seconds * 1000))
            return kept, self._line(task.slot, Outcome.PROGRESS, progress) if progress else None

        task = self._write(claim, decide)
        if task.id in self._held:
            self._held[task.id] = task
        return task

    def ack(
        self,
        claim: Task | Ticket,
        result: object = "",
        *,
        artifacts: Sequence[str] = (),
        usage: Mapping[str, float] = NOTHING,
        error: str = "",
    ) -> Result:
        """Finish a task with a result, final and on disk for good when this returns.

        Args:
            result: text, or JSON data, which is stored as its JSON text; at most 256 KiB.
            artifacts: paths of files that belong to it; their sizes and hashes are kept.
            usage: what it took, such as `input_tokens`, `output_tokens`, `cost_usd`.
            error: for an answer that the work cannot be done, final as any; its contract is then not asked for.

        Raises:
            Conflict: what this task's worker posted as its children has not ended.
            ResultRejected: it breaks the task's contract.  That cost an attempt; unless it was the last, the
                task is still this worker's, under the same token, to correct it.
            LeaseLost: the task is not this worker's any more.  The result was not published; it is
                kept in `rejected/` for a person.
        """
        text = wire.text_of(result)
        draft.check_size(text, "result")
        draft.check_note(error)
        taken_up = draft.check_usage(usage)
        ticket = draft.check_ticket(claim)
        files: tuple[Artifact, ...] = ()
        if artifacts:
            from mcp_bus.artifacts import taken  # noqa: PLC0415  loads OpenSSL

            files = taken(artifacts, self.identity.pwd)
        children.check_ended(self, ticket.id)
        made, wrong = list[Result](), list[ResultRejected]()

        def decide(task: Task) -> tuple[Slot, Attempt | Result]:
            now, secret = self.source.now(), encrypted.answer_to(task.body)
            try:
                kept = text if error else _checked(task.body, text)
            except ResultRejected as refused:
                wrong.append(refused)
                back = lifecycle.reject(task.slot, task.body, self.store.policy(task.channel))
                note = encrypted.PRIVATE if task.body.encrypted else str(refused)  # It quotes the result.
                return back, self._line(task.slot, Outcome.REJECTED, note)
            done = lifecycle.ack(task.slot, now=now)
            place, status = "/".join(names.place(done)), "error" if error else "success"
            result = Result(
                task.id, kept, self.sender(), now, task.slot.attempt, status, error, ticket.token, place,
                artifacts=files, usage=taken_up, encrypted=secret,
            )  # fmt: skip
            made.append(result)
            return done, result

        try:
            task = self._write(ticket, decide)
        except LeaseLost:
            # A worker that repeats itself because an answer got lost finds its own result there.
            kept = self.whole(ticket.id).result
            if kept is None or kept.token != ticket.token:
                raise
            return kept
        finally:
            self._held.pop(ticket.id, None)
        if wrong:
            raise self._rejected(task, wrong[-1])
        with suppress(BusError):  # What is left of it costs a file.
            children.forget(self, ticket.id)
        from mcp_bus import outputs  # noqa: PLC0415  only who finishes a task needs it

        outputs.write(self, task._replace(result=made[-1]))
        return made[-1]

    def _rejected(self, task: Task, error: ResultRejected) -> ResultRejected:
        """Say what a worker can do about a result that was not accepted."""
        if task.state is not State.LEASED:
            error.hint = "that was the last attempt, the task is in the dead letter; claim another"
            return error
        self._held[task.id] = task
        left = 1 + lifecycle.budget(task.slot, task.body, self.store.policy(task.channel)) - task.slot.attempt
        error.hint = f"correct it and submit again with the same token; attempts left: {left}"
        return error

    def nack(self, claim: Task | Ticket, reason: str, *, retry_in_s: float | None = None, final: bool = False) -> Task:
        """Say that an attempt failed: the task is tried again after a pause, or is dead if it was the last.

        Args:
            reason: for the next worker and the dead letter.
            retry_in_s: the pause; None leaves it to the backoff.
            final: whether another attempt would be in vain: it is dead at once, for a person to look at.

        Raises:
            LeaseLost: the task is not this worker's any more; nothing was changed.
        """
        if retry_in_s is not None:
            draft.check_number("retry_in_s", retry_in_s)

        def decide(task: Task) -> tuple[Slot, Attempt]:
            policy, now = self.store.policy(task.channel), self.source.now()
            back = lifecycle.fail(task.slot, task.body, policy, now=now, retry_in_s=retry_in_s, final=final)
            return back, self._line(task.slot, Outcome.FAILED, reason)

        return self._end(claim, decide)

    def release(self, claim: Task | Ticket, reason: str = "") -> Task:
        """Give a task back untouched: it is ready at once and, within a cap, the attempt does not count."""

        def decide(task: Task) -> tuple[Slot, Attempt]:
            back = lifecycle.release(task.slot, task.body, self.store.policy(task.channel))
            return back, self._line(task.slot, Outcome.RELEASED, reason)

        return self._end(claim, decide)

    def unclaim(self, claim: Task | Ticket, reason: str = "") -> Task:
        """Undo a claim that nobody was told of: the task is as if it had not been claimed, and no cap counts it.

        For whoever claims on behalf of another and cannot tell them; a worker who saw the task releases it.
        """
        return self._end(
            claim, lambda task: (lifecycle.unclaim(task.slot), self._line(task.slot, Outcome.RELEASED, reason))
        )

    def block(self, claim: Task | Ticket, question: str) -> Task:
        """Park a task that needs a person; `retry` with a note answers it."""
        return self._end(
            claim, lambda task: (lifecycle.block(task.slot), self._line(task.slot, Outcome.BLOCKED, question))
        )

    def release_all(self, reason: str = "") -> int:
        """Give back everything this session holds; return how many.  What it lost meanwhile is passed over."""
        count = 0
        for task in self.held():
            try:
                self.release(task.ticket, reason)
                count += 1
            except (LeaseLost, NotFound):
                self._held.pop(task.id, None)
        return count

    def _end(self, claim: Task | Ticket, decide: Callable[[Task], tuple[Slot, Attempt]]) -> Task:
        task = self._write(claim, decide)
        self._held.pop(task.id, None)
        return task

    def _write(self, claim: Task | Ticket, decide: Decide) -> Task:
        """Write as the holder of a lease: look, decide, swap; again if the lease was renewed meanwhile."""
        ticket = draft.check_ticket(claim)
        draft.check_token(ticket.token)
        task = self._held.get(ticket.id)
        if task is None or task.lease.token != ticket.token:
            task = self.sound(ticket.id)
        attempt = 0
        for _ in range(TRIES):
            lost = task.slot.lease is None or task.slot.lease.token != ticket.token or task.state is not State.LEASED
            if lost:
                self._lost(task, ticket, decide, attempt or task.slot.attempt)
            attempt = task.slot.attempt
            new, entry = decide(task)
            try:
                self.store.swap(task.slot, new, entry)
            except Conflict:  # Whatever its file says now: it was handed out as this.
                task = self.whole(ticket.id)._replace(body=task.body)
                continue
            return self._followed(Task(task.body, new, task.result, task.history))
        msg = f"{ticket.id!r} is being written by others all the time"
        raise Conflict(msg, hint="repeat the call")

    def _lost(self, task: Task, ticket: Ticket, decide: Decide, attempt: int) -> None:
        """Keep a late result aside, then say who has the task now.

        Args:
            attempt: the one it was made in, as far as is known: what the store may have kept already has that name.
        """
        self._held.pop(task.id, None)
        lease = Lease(self.identity.holder, ticket.token, 0)
        stale = task.slot._replace(state=State.LEASED, lease=lease, attempt=max(1, attempt), day="", not_before=0)
        new, entry = decide(task._replace(slot=stale))
        repeated = task.result is not None and task.result.token == ticket.token
        if isinstance(entry, Result) and not repeated:
            with suppress(Conflict):
                self.store.swap(stale, new, entry)
        away = self.store.away
        is_tentative = away is not None and ticket.token in away.lost_tokens
        is_result = isinstance(entry, Result)
        raise find.lost(task, self.identity.agent, ticket.token, is_result=is_result, is_tentative=is_tentative)

    def _queue(self, channel: str) -> str:
        policy = self._policy(names.check_channel(channel))
        if policy is not None:
            access.check_claim(channel, policy, self.identity.agent)
        return channel

    def _policy(self, channel: str) -> Policy | None:
        try:
            return self.store.policy(channel)
        except NotFound:
            return None


def _checked(body: Body, text: str) -> str:
    if not body.has_contract:
        return text
    from mcp_bus import checking  # noqa: PLC0415  most tasks have no contract

    return checking.of(body, text)
