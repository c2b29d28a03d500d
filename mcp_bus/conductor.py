"""Moving plans on: whoever ends a task of one, sweeps, or waits for one does it; no process has to.

C1  A plan is a record `plans/<id>`, written once; how far it is, a record `progress/<id>`, replaced by
    compare-and-swap.  The progress names the sha256 of the plan: one that was edited is not moved on.
C2  A step becomes a task under a key made of plan, step and run, so that releasing it again, by whoever, is nothing.
C3  The task is posted before the progress says so, and skipped before it says so: the task itself decides, and a
    conductor that was killed in between is repeated, not undone.
C4  A step whose task waits is skipped by winning the task: a rename from ready to cancelled, which a claim loses or
    prevents.  So it is never both skipped and run.
C5  A step is skipped as `worker_absent` once it has waited for `grace_s`, and no worker able to do it gave a sign of
    life, or held a task, for as long.
C6  A further run of a step is written down before its task is posted: of two conductors who judge a result differently
    one prevails, and the other has posted nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus import children, draft, planfile, sealed
from mcp_bus.crew import Crew
from mcp_bus.errors import BusError, Conflict, DuplicateTask, InvalidRequest
from mcp_bus.model import DAY, OPEN, PLANS, PROGRESS, Outcome, State
from mcp_bus.operate import TRIES
from mcp_bus.plan import CANCELLED, NEW, Node, Plan, Progress, Stage, Why, is_chosen, is_missing, retried, settle
from mcp_bus.plans import load, over_since, progress, read, resolve, save, standing
from mcp_bus.release import release, task_of
from mcp_bus.settling import Look, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp_bus.model import Task
    from mcp_bus.operate import Operator
    from mcp_bus.settling import Verify

# Plans that are over are kept this long.
KEPT = 30 * DAY

# --- posting ----------------------------------------------------------------------------------------


def post(bus: Operator, data: object, *, key: str = "", parent: str = "") -> Plan:
    """Write a plan down and release its first steps; on disk for good when this returns.

    Args:
        data: see `planfile.parse`.
        key: repeating the call with it posts nothing a second time.
        parent: a task that this agent holds, which then cannot be finished before the plan is over.

    Raises:
        InvalidRequest: the plan cannot be run; nothing was posted.
        DuplicateTask: the key was used for another plan.
    """
    who = bus.identity.agent
    digits = draft.key_of(who, f"plan {key}")[:32] if key else bus.ids.next().removeprefix("req_")
    plan = planfile.parse(data, plan_id=f"plan_{digits}", owner=who, created=bus.source.now())
    sealed.check(bus, plan)
    return bus.store.together(
        lambda made: f"plan {made.id[-8:]} of {len(made.steps)} steps by {who}", lambda: _posted(bus, plan, key, parent)
    )


def _posted(bus: Operator, plan: Plan, key: str, parent: str) -> Plan:
    if parent:
        above = children.parent_of(bus, parent)
        plan = plan._replace(parent=above.id, depth=above.body.depth + 1)
        if bus.store.records.read(PLANS, plan.id) is None:
            children.add(bus, above.id, plan.id)
    try:
        sealed.write(bus, plan)
    except Conflict:
        kept = read(bus, plan.id)
        if kept._replace(created=plan.created) != plan:
            msg = f"the key {key!r} was used for {plan.id!r}, which is another plan"
            raise DuplicateTask(msg, hint="use a new key for a new plan") from None
        plan = kept
    advance(bus, plan.id)
    return plan


# --- moving on --------------------------------------------------------------------------------------


def advance(bus: Operator, plan_id: str, *, only: str = "", verify: Verify | None = None) -> tuple[Plan, Progress]:
    """Move a plan on as far as it goes now, and return how far it is.

    Args:
        only: look at the task of this step only, which has just ended; else at those of all released steps.
        verify: runs the check of a step on its task, and says what is wrong; without it, steps that have one wait
            for somebody who may run it.

    Raises:
        NotFound: there is no such plan.
        CorruptRecord: it was edited after it was posted, or is none; nothing was done.
    """
    if verify is not None:  # What takes a while, and is not done twice, holds up nothing else.
        return _advanced(bus, plan_id, only, verify)
    return bus.store.together(_standing, lambda: _advanced(bus, plan_id, only, None))


def _standing(made: tuple[Plan, Progress]) -> str:
    """Say where a plan stands, in one line."""
    plan, known = made
    return f"plan {plan.id[-8:]}: {', '.join(f'{name} {node.stage}' for name, node in sorted(known.nodes.items()))}"[
        :300
    ]


def _advanced(bus: Operator, plan_id: str, only: str, verify: Verify | None) -> tuple[Plan, Progress]:
    plan, digest = load(bus, plan_id)
    for _ in range(TRIES):
        known, revision = standing(bus, plan, digest)
        if known.over and revision:
            return plan, known
        made = _moved(Look(bus, plan, verify, Crew(bus)), known, only)
        if made == known and revision:
            return plan, made
        try:
            save(bus, plan, made, digest, revision)
        except Conflict:
            continue  # Another conductor was faster: look again at what it did.
        if not _is_anew(known, made, made.nodes):
            return plan, made
    return plan, standing(bus, plan, digest)[0]  # Others move it on all the time.


def _moved(look: Look, known: Progress, only: str) -> Progress:
    nodes = dict(known.nodes)
    plan, now = look.plan, look.bus.source.now()
    by_name = plan.by_name
    looked = [only] if nodes.get(only, NEW).stage is Stage.RELEASED else list(nodes)
    for name in looked:
        if nodes[name].stage is Stage.RELEASED:
            nodes[name] = settled(look, by_name[name], nodes[name], known.stopped)
    made, ready = settle(plan, known._replace(nodes=nodes), now)
    while free := [step for step in ready if not _is_anew(known, made, [step.name])]:
        for step in free:
            before = made.nodes.get(step.name, NEW)
            node, is_known = release(look.bus, plan, step, before, made, is_held=bool(made.stopped))
            if node.stage is Stage.RELEASED and (is_known or made.stopped):
                node = settled(look, step, node, made.stopped)
            made = made._replace(nodes={**made.nodes, step.name: node})
        made, ready = settle(plan, made, look.bus.source.now())
    if made.stopped and not known.stopped:  # What waits is taken back at once.
        return _moved(look, made, "")
    return made


def _is_anew(known: Progress, made: Progress, names: Iterable[str]) -> bool:
    """Tell whether one of some steps begins another run: that is written down before its task is posted (rule C6)."""
    return any(made.nodes.get(name, NEW).run != known.nodes.get(name, NEW).run for name in names)


# --- what people do ---------------------------------------------------------------------------------


def cancel(bus: Operator, plan_id: str, reason: str = "") -> tuple[Plan, Progress]:
    """End a plan: nothing more is released, and what waits or is worked on is taken back.

    Raises:
        Conflict: it is over.
    """
    why = f"{CANCELLED}{bus.identity.agent}{f': {reason}' if reason else ''}"

    def decide(plan: Plan, known: Progress) -> Progress:
        if known.over:
            msg = f"the plan {plan.id!r} is over"
            raise Conflict(msg, hint="there is nothing to cancel")
        return known._replace(stopped=draft.check_note(why)[:500])

    return _decided(bus, plan_id, decide)


def retry(bus: Operator, plan_id: str, steps: Iterable[str] = (), note: str = "") -> tuple[Plan, Progress]:
    """Let steps that failed or were skipped be tried again, with what was skipped because of them.

    Args:
        steps: which; all that failed or found no worker if empty.
        note: for their next workers, who are also told how the last run ended, and what a person answered in it.

    Raises:
        InvalidRequest: a step is not there, or neither failed nor was skipped.
        Conflict: there is nothing to retry.
    """
    draft.check_note(note)

    def decide(plan: Plan, known: Progress) -> Progress:
        named = list(steps)
        for name in named:
            if name not in plan.by_name or known.stage(name) not in (Stage.FAILED, Stage.SKIPPED):
                msg = (
                    f"the step {name!r} is {known.stage(name)}"
                    if name in plan.by_name
                    else f"there is no step {name!r}"
                )
                raise InvalidRequest(msg, hint="only failed and skipped steps are retried")
        is_ended = known.stopped.startswith(CANCELLED)
        again = named or [
            name
            for name, node in known.nodes.items()
            if is_missing(node) or (is_ended and node.why.startswith(Why.STOPPED))
        ]
        if not again:
            msg = f"no step of {plan.id!r} failed or found no worker"
            raise Conflict(msg, hint="name a step that was skipped")
        if all(is_chosen(known.nodes[name]) for name in again):
            msg = f"{again[0]!r} was skipped by choice, and would be again: {known.nodes[again[0]].why}"
            raise Conflict(msg, hint="post another plan; on_failure: continue lets go on what comes after such a step")
        made = retried(plan, known, again)
        anew = [name for name, node in made.nodes.items() if node != known.nodes[name]]
        told = {name: made.nodes[name]._replace(why=_told(bus, plan, known, name, note)) for name in anew}
        return made._replace(nodes={**made.nodes, **told, **_alive(bus, plan, known, again)})

    return _decided(bus, plan_id, decide)


def _told(bus: Operator, plan: Plan, known: Progress, name: str, note: str) -> str:
    """Return what the worker of a step that is done anew should know of the last run, and from whoever retries it."""
    node = known.nodes[name]
    history = task.history if node.task and (task := task_of(bus, plan, plan.by_name[name], node)) else ()
    answers = [f"a person said: {line.note}" for line in history if line.outcome is Outcome.RETRIED and line.note]
    ended = f"run {node.run} ended: {node.why}" if node.task else ""
    return "; ".join(filter(None, [f"a person said: {note}" if note else "", *answers, ended]))[:1000]


def revive(bus: Operator, plan_id: str, name: str) -> None:
    """Let a step go on with its task, which a person brought back; its time counts anew from here."""

    def decide(plan: Plan, known: Progress) -> Progress:
        if known.stage(name) is Stage.RELEASED:
            again = known.nodes[name]._replace(released=bus.source.now())
            return known._replace(nodes={**known.nodes, name: again})
        if known.stage(name) not in (Stage.FAILED, Stage.SKIPPED):
            return known
        alive = _alive(bus, plan, known, [name])
        made = retried(plan, known, [name]) if alive else known
        return made._replace(nodes={**made.nodes, **alive})

    _decided(bus, plan_id, decide)


def replaced_by(bus: Operator, task: Task) -> str:
    """Return the task that a step of a plan has now, if it is another than this one; else nothing."""
    try:
        plan, known = progress(bus, task.body.plan)
        node = known.nodes.get(task.body.node)
        now = task_of(bus, plan, plan.by_name[task.body.node], node) if node is not None and node.task else None
    except BusError:
        return ""
    return now.id if now is not None and task.id not in (now.id, now.body.retry_of) else ""


def _alive(bus: Operator, plan: Plan, known: Progress, again: Iterable[str]) -> dict[str, Node]:
    """Return those of the steps whose tasks a person brought back already: they keep them."""
    made = {}
    for name in again:
        node = known.nodes[name]
        task = task_of(bus, plan, plan.by_name[name], node) if node.task else None
        is_later = task is not None and task.result is not None and task.result.at > node.ended
        if task is not None and (task.state in OPEN or (task.state is State.DONE and is_later)):
            made[name] = node._replace(stage=Stage.RELEASED, task=task.id, why="", released=bus.source.now(), ended=0)
    return made


def _decided(bus: Operator, plan_id: str, decide: Callable[[Plan, Progress], Progress]) -> tuple[Plan, Progress]:
    plan, digest = load(bus, resolve(bus, plan_id))
    for tries in range(TRIES):
        known, revision = standing(bus, plan, digest)
        try:
            made = decide(plan, known)
        except (Conflict, InvalidRequest):
            if not tries:
                raise
            return advance(bus, plan.id)  # What was refused at first counted after all, or another did the same.
        with suppress(Conflict):
            save(bus, plan, made, digest, revision)
            return advance(bus, plan.id)
    msg = f"the plan {plan.id!r} is being moved on by others all the time"
    raise Conflict(msg, hint="repeat the call")


def sweep(bus: Operator) -> list[str]:
    """Move on every plan that is not over, and forget those that long are; return what was done or could not be."""
    done: list[str] = []
    # Of plans that are over, which may be many, no more is read than that they are; and in one go.
    over = over_since(bus)
    for name in bus.store.records.names(PLANS):
        try:
            done += _swept(bus, name, over.get(name, 0))
        except (BusError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            done.append(f"left {name} as it is: {error}")
    return done


def _swept(bus: Operator, name: str, over: int) -> list[str]:
    if not over:
        before = progress(bus, name)[1]
        return [f"moved on {name}"] if advance(bus, name)[1] != before else []
    if bus.source.now() - over <= KEPT:
        return []
    for kind in (PLANS, PROGRESS, sealed.SEALS):
        bus.store.records.remove(kind, name)
    return [f"forgot {name}"]
