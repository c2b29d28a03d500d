"""The verbs of whoever looks after a bus: look, cancel, retry, requeue, discard, undo, reprioritise.

They apply to what is there when the write happens: a verb that finds the task moved looks again and
decides again.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from mcp_bus import access, draft, encrypted, find, lifecycle, names, wire
from mcp_bus.clock import Ids
from mcp_bus.errors import (
    BusError,
    Conflict,
    DuplicateTask,
    IllegalTransition,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Unverified,
)
from mcp_bus.model import ENDED, Attempt, Outcome, Sender, State
from mcp_bus.stores.seals import is_past

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.model import Body, Identity, Slot, Task
    from mcp_bus.quotas import Quotas
    from mcp_bus.stores.base import Store

# Looks at a task that moves between look and write.
TRIES = 8


class Operator:
    """A bus as a person sees it: everything but posting and working."""

    def __init__(self, store: Store, identity: Identity, source: Source) -> None:
        """Speak as `identity` through `store`, with time and chance from `source`."""
        self.store = store
        self.identity = identity
        self.source = source
        self.ids = Ids(source)
        # Whether a person sits there, whom no rule of a channel keeps from reading; the command line can tell.
        self.is_person = False
        # Whether it may post what a receiver might run; a setting of its user's own.
        self.may_eval = False
        # Sessions seen silent: their last sign of life, and since when that was seen, by the monotonic clock.
        self.silences: dict[str, tuple[int, float]] = {}

    # --- looking ------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task:
        """Return a task with its result and history, as it is now; without its text where that is not for this agent.

        Args:
            task_id: a full id, or any unique beginning or end of one.

        Raises:
            NotFound: there is none, or several.
            Gone: it was pruned after its retention time.
        """
        return access.shown(self, self.whole(task_id))

    def whole(self, task_id: str) -> Task:
        """Return `get` for who decides by it or works on it, and shows nobody what it says."""
        full = find.resolve(self.store, task_id)
        for _ in range(3):
            try:
                task = self.store.get(full)
                break
            except Conflict:
                continue
        else:
            task = self.store.get(full)
        if task is None:
            raise NotFound(find.unknown(task_id), hint="search for it")
        return task

    def sound(self, task_id: str) -> Task:
        """Return `whole` for who acts on what a task says, and was not handed it in this process.

        Raises:
            Unverified: it is not what was posted, as far as can be shown here.
        """
        task = self.whole(task_id)
        if task.proof is not None and task.proof.broken:
            msg = f"{task.id!r} is not acted on: {task.proof.broken}"
            raise Unverified(msg, hint=task.proof.hint or "look at it; if the work is wanted, post it anew")
        return task

    def sender(self) -> Sender:
        """Return this session as it signs messages."""
        return Sender(self.identity.agent, self.identity.pid, self.identity.pwd)

    def put(self, body: Body) -> Body:
        """Keep a new task or message: every post comes through here.

        Returns:
            The body itself, or the one kept earlier under the same id or key.

        Raises:
            NotAllowed: its channel does not let its sender post; or it answers what this agent cannot read.
            NoKey: it answers what is encrypted, and there is no key of who is to read it.
            Overloaded: too much waits there.
        """
        self._check_put(body)
        return self.store.add(self._concealed(body))

    def _concealed(self, body: Body) -> Body:
        """Return a body that is encrypted if what it answers is: an answer quotes that, whichever verb posts it."""
        if not body.reply_to or body.encrypted is not None or self.store.guarded(body.channel).to:
            return body
        try:
            parent = self.sound(body.reply_to)
        except (NotFound, InvalidRequest):  # A task may be an answer to anything, also to what is elsewhere.
            self._check_answered(body.reply_to)
            return body
        return body._replace(encrypted=encrypted.reply_to(parent.body, ""))

    def _check_answered(self, task_id: str) -> None:
        guard = self.store.guard
        if guard is not None and names.TASK_ID.match(task_id) and guard.is_secret(task_id):
            msg = f"{task_id!r} was encrypted and is gone, so that nobody can tell who may read an answer to it"
            raise NotAllowed(msg, hint="name the readers, with `--encrypt-to`, or leave reply_to out")

    def _check_put(self, body: Body) -> None:
        access.check_kind(body.type, may_eval=self.may_eval)
        policy = self.store.policy(body.channel)
        access.check_post(body.channel, policy, body.sender.agent)
        if policy.max_waiting or policy.max_waiting_by_sender:
            self._quotas.check(body, policy)

    @cached_property
    def _quotas(self) -> Quotas:
        from mcp_bus.quotas import Quotas  # noqa: PLC0415  most channels have no such rule

        return Quotas(self.store)

    # --- operating ----------------------------------------------------------------------------

    def cancel(self, task_id: str, reason: str = "") -> Task:
        """End a task that is not wanted any more.  A worker that holds it learns it from its next call."""
        return self._operate(
            task_id, Outcome.CANCELLED, lambda task: lifecycle.cancel(task.slot, now=self.source.now()), reason
        )

    def retry(self, task_id: str, *, body: object = None, note: str = "") -> Task:
        """Bring a dead, cancelled or expired task back with a fresh budget; its history stays.

        Args:
            body: an edited body (dead tasks only).  Bodies never change, so this posts a new task
                that says whom it replaces, and ends the old one; waiters follow.
            note: for the next worker, such as the answer to a question.

        Returns:
            The task that is ready now.
        """
        old = self._check_current(task_id, "retry")
        self._check_proof(old, "retry")
        if body is not None:
            return self._revived(self._replace(task_id, wire.text_of(body), note))
        access.check_revive(self.store, old)
        task = self._operate(
            task_id,
            Outcome.RETRIED,
            lambda task: lifecycle.retry(_unedited(task, "retry"), task.body, self.store.policy(task.channel)),
            note,
        )
        return self._revived(task)

    def _replace(self, task_id: str, content: str, note: str) -> Task:
        old = self.sound(task_id)
        _unedited(old, "edit")
        if (why := access.shown(self, old).hidden) and old.state is State.DEAD:
            msg = f"cannot edit {old.id!r}: {why}"
            raise NotAllowed(msg, hint="retry it as it is")
        if old.state is not State.DEAD:
            msg = f"cannot edit {old.id!r}: it is {old.state}, and only dead tasks are retried with another body"
            raise IllegalTransition(msg, hint=f"{'' if old.state in ENDED else 'cancel it and '}post a new task")
        now = self.source.now()
        edited = draft.edited(old, self.ids.next(), content, self.sender(), now=now)
        # Of the two one is to be done: the new one is not there before the old one has ended.
        by = self.identity.agent
        new = self.store.together(
            lambda name: f"retry {old.id[-8:]} on {old.channel} as {name[-8:]} by {by}",
            lambda: self._replaced(old, edited, note),
        )
        return self.get(new)

    def _replaced(self, old: Task, edited: Body, note: str) -> str:
        """Post an edited task and end the one that it replaces; return its id."""
        now, kept = self.source.now(), self.put(edited)
        if not draft.same(kept, edited):
            msg = f"{old.id!r} was edited and retried before, as {kept.id!r}"
            raise DuplicateTask(msg, hint="look at that task instead")
        line = self._line(old.slot, Outcome.RETRIED, note or "edited")._replace(successor=kept.id)
        try:
            self.store.swap(old.slot, lifecycle.discard(old.slot, now=now), line)
        except Conflict:
            self._check_replaced(old.id, kept.id)
        return kept.id

    def _check_replaced(self, old_id: str, new_id: str) -> None:
        """Take an edited task back if the one it was to replace was brought back meanwhile: of the two one is done.

        Raises:
            Conflict: it was.
        """
        old = self.get(old_id)
        if old.state in ENDED:
            return  # Someone else did the same, or discarded it: the edited task is there all the same.
        with suppress(IllegalTransition):
            self.cancel(new_id, f"{old_id} was retried as it is at the same time")
        msg = f"{old_id!r} was retried by someone else meanwhile, and is {old.state}"
        raise Conflict(msg, hint="look at it; cancel it first if it must not be done as it is")

    def requeue(self, task_id: str, reason: str = "") -> Task:
        """Make a leased or scheduled task ready now.  Its worker, if any, loses the lease."""
        return self._operate(
            task_id,
            Outcome.REQUEUED,
            lambda task: lifecycle.requeue(task.slot, task.body, self.store.policy(task.channel)),
            reason,
        )

    def discard(self, task_id: str, reason: str = "") -> Task:
        """Take a task out of the dead letter for good; `undo` takes that back until it is pruned.

        Of a task that is done, give up a result that is lost, or does not hold; what is there is put aside.
        """
        return self._operate(
            task_id,
            Outcome.DISCARDED,
            lambda task: lifecycle.discard(self._given_up(task), now=self.source.now()),
            reason,
        )

    def _given_up(self, task: Task) -> Slot:
        """Return the slot of a task that may be discarded.

        Raises:
            IllegalTransition: it is done, and has its result.
        """
        if task.state is State.DONE and not find.unsound(task):
            msg = f"cannot discard {task.id!r}: it is done, and has its result"
            raise IllegalTransition(msg, hint="its result is final; post a new task instead")
        if task.state is not State.DONE or task.slot.day:
            return task.slot
        # It was found by the name of its result, which does not say where it is.
        return next((slot for slot in self.store.scan(task.channel, State.DONE) if slot.id == task.id), task.slot)

    def undo(self, task_id: str, reason: str = "") -> Task:
        """Take back a cancel or a discard."""
        old = self._check_current(task_id, "undo")
        self._check_proof(old, "undo")
        access.check_revive(self.store, old)
        task = self._operate(
            task_id,
            Outcome.UNDONE,
            lambda task: lifecycle.undo(_unedited(task, "undo"), task.body, self.store.policy(task.channel)),
            reason,
        )
        return self._revived(task)

    def reprioritise(self, task_id: str, priority: int) -> Task:
        """Move a waiting task forward (up to 9) or back (down to -9)."""
        if type(priority) is not int:
            msg = f"{priority!r} is not a priority"
            raise InvalidRequest(msg, hint="a whole number from -9 to 9")
        return self._operate(task_id, None, lambda task: lifecycle.reprioritise(task.slot, priority), "")

    def _operate(self, task_id: str, outcome: Outcome | None, decide: Callable[[Task], Slot], note: str) -> Task:
        """Write as an operator: whoever else writes at the same time, decide on what is there."""
        for _ in range(TRIES):
            task = self.whole(task_id)
            new = decide(task)
            line = self._line(task.slot, outcome, note) if outcome is not None else None
            try:
                self.store.swap(task.slot, new, line)
            except Conflict:
                continue
            return self._followed(self.get(task.id))
        msg = f"{task_id!r} is being written by others all the time"
        raise Conflict(msg, hint="repeat the call")

    def _check_current(self, task_id: str, verb: str) -> Task:
        """Return a task, unless it is of a step that was done anew since: brought back, two would work on one step.

        Raises:
            IllegalTransition: names the task that counts.
        """
        task = self.get(task_id)
        if not task.body.plan:
            return task
        from mcp_bus.conductor import replaced_by  # noqa: PLC0415  as below

        other = replaced_by(self, task)
        if other:
            msg = f"cannot {verb} {task.id!r}: its step {task.body.node!r} was posted anew, as {other!r}"
            raise IllegalTransition(msg, hint=f"look at the plan: `mcp-bus plan show {task.body.plan[-8:]}`")
        return task

    def _check_proof(self, task: Task, verb: str) -> None:
        """Refuse to bring back what nobody would be handed: its body has no signature that holds, or holds now.

        Raises:
            IllegalTransition: says why not.
        """
        proof, guard = task.proof, self.store.guard
        if why := find.unsound(task):
            msg = f"cannot {verb} {task.id!r}: it is done, and {why}"
            raise IllegalTransition(msg, hint="discard gives that result up; after it the task can be retried")
        if proof is not None and guard is not None and task.state is not State.DONE and guard.is_over(task.id):
            msg = f"cannot {verb} {task.id!r}: it was finished before, and what is signed is not handed out again"
            raise IllegalTransition(msg, hint="post it anew, if the work is wanted once more")
        if proof is not None and proof.broken:
            msg = f"cannot {verb} {task.id!r}: {proof.broken}"
            raise IllegalTransition(msg, hint=proof.hint or "post it anew, if you know that it is wanted")
        if is_past(task, self.source.now()):
            msg = f"cannot {verb} {task.id!r}: its ttl has passed, and with it its signature"
            raise IllegalTransition(msg, hint="post it anew")

    def _revived(self, task: Task) -> Task:
        """Let a plan wait again for a step whose task a person brought back."""
        if task.body.plan:
            from mcp_bus.conductor import revive  # noqa: PLC0415  as below

            with suppress(BusError):
                revive(self, task.body.plan, task.body.node)
        return task

    def _followed(self, task: Task) -> Task:
        """Move on the plan that an ended task is a step of; where that fails now, a sweep does it later."""
        if task.body.plan and task.state in ENDED:
            from mcp_bus.conductor import advance  # noqa: PLC0415  only whoever works on a plan needs it

            with suppress(BusError):
                advance(self, task.body.plan, only=task.body.node)
        return task

    def _line(self, slot: Slot, outcome: Outcome, note: str) -> Attempt:
        token = slot.lease.token if slot.lease else ""
        by, note = self.identity.agent, draft.check_note(note)
        return Attempt(slot.attempt, outcome, self.source.now(), by, note[:2000], token)


def _unedited(task: Task, verb: str) -> Slot:
    """Return the slot of a task, unless an edited one took its place: of the two, one is worked on."""
    last = next((line for line in reversed(task.history) if line.successor), None)
    if last is not None and task.slot.discarded:
        msg = f"cannot {verb} {task.id!r}: it was edited and lives on as {last.successor!r}"
        raise IllegalTransition(msg, hint="cancel that one first if it is not wanted, then post anew")
    return task.slot
