"""A plan: named steps that wait for one another, and what follows from how they end.  Pure.

Rules, numbered so that tests and comments can cite them:

G1  A step is settled when it is done, failed or skipped.  A settled step stays so until a person retries it.
G2  A step is released when every step it comes after is settled and lets it go on: it is done, or its
    `on_failure` is `continue`.
G3  A step that one of those does not let go on is skipped: `upstream`.
G4  `on_failure: stop` of a step that failed, or was skipped for want of a worker or by G3, stops the plan: what was
    not released is skipped as `stopped`, what waits is taken back, what is being worked on may end.
G5  A step whose condition does not hold when it could be released is skipped by choice: `condition`.  That stops
    no plan, and what it does not let go on is skipped by choice too.
G6  A plan is over when every step is settled.
G7  That a plan is stopped is no fact about a step that could be released: another conductor, who did not know it, may
    have done so.  Such a step is skipped as `stopped` only once its task was won; one that comes after what was skipped
    as `stopped` could be released by nobody.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class OnFailure(StrEnum):
    """What follows when a step does not get done: the plan ends, its dependents are skipped, or they go on."""

    STOP = "stop"
    SKIP = "skip"
    CONTINUE = "continue"


class Stage(StrEnum):
    """Where a step is: `waiting` for what it comes after, `released` as a task, or settled."""

    WAITING = "waiting"
    RELEASED = "released"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


SETTLED = frozenset({Stage.DONE, Stage.FAILED, Stage.SKIPPED})


class Why(StrEnum):
    """Why a step was skipped."""

    ABSENT = "worker_absent"
    UPSTREAM = "upstream"
    CONDITION = "condition"
    STOPPED = "stopped"


class Step(NamedTuple):
    """One step, as it was planned.

    Attributes:
        body: what is to be done, with references to results (`refs`).
        after: steps that must be settled first.
        requires: capabilities that a worker must have.
        timeout_s: seconds from its release until it has failed; 0 for no end.
        when: a condition on results (`refs`); empty for always.
        result_schema: JSON Schema that a result must meet.
        claims: whether the result must label what it claims (`contracts`).
        verify: a command that the plan's owner lets check the result; empty for none.
    """

    name: str
    body: str
    channel: str
    title: str = ""
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    on_failure: OnFailure = OnFailure.SKIP
    when: str = ""
    priority: int = 0
    max_attempts: int = 3
    backoff_s: float = 5.0
    timeout_s: float = 0.0
    result_schema: Mapping[str, Any] | None = None
    claims: bool = False
    verify: tuple[str, ...] = ()


class Plan(NamedTuple):
    """A goal and its steps.  Written once, never changed.

    Attributes:
        id: `plan_` and hex digits.
        grace_s: seconds without a worker that can do a step after which it is skipped.
        parent: the task whose worker posted it; empty for none.
        depth: how many plans and tasks it is nested in.
    """

    id: str
    goal: str
    owner: str
    created: int
    steps: tuple[Step, ...]
    grace_s: float = 60.0
    parent: str = ""
    depth: int = 0

    @property
    def by_name(self) -> dict[str, Step]:
        """The steps by name."""
        return {step.name: step for step in self.steps}


class Node(NamedTuple):
    """How a step stands.

    Attributes:
        run: how often it was released; a retry begins a new run.
        task: its task.
        why: of a failed or skipped one, what happened.
        by: who did it.
        released, ended: milliseconds; 0 for not yet.
    """

    stage: Stage
    run: int = 1
    task: str = ""
    why: str = ""
    by: str = ""
    attempts: int = 0
    released: int = 0
    ended: int = 0


class Progress(NamedTuple):
    """How far a plan is.

    Attributes:
        nodes: the steps that are not `waiting` any more, or are so again.
        stopped: why nothing more is released; empty while something is.
        over: when it was found that every step is settled, in milliseconds; 0 before.
    """

    nodes: Mapping[str, Node] = MappingProxyType({})
    stopped: str = ""
    over: int = 0

    def stage(self, name: str) -> Stage:
        """Return where a step is."""
        node = self.nodes.get(name)
        return node.stage if node else Stage.WAITING


NEW = Node(Stage.WAITING)
# How `stopped` begins when a person did it; no step's name has a blank in it.
CANCELLED = "cancelled by "


def ordered(steps: Iterable[Step]) -> list[Step]:
    """Return steps so that each comes after those it waits for; what is on a cycle is left out."""
    made: list[Step] = []
    missing = {step.name: set(step.after) for step in steps}
    waiting: dict[str, list[str]] = {}
    by_name = {step.name: step for step in steps}
    for step in by_name.values():
        for need in step.after:
            waiting.setdefault(need, []).append(step.name)
    free = [name for name, needs in missing.items() if not needs]
    for name in free:
        made.append(by_name[name])
        for after in waiting.get(name, ()):
            missing[after].discard(name)
            if not missing[after]:
                free.append(after)
    return made


def cycle(steps: Iterable[Step]) -> list[str]:
    """Return the names of one cycle, in its order; empty if there is none."""
    steps = list(steps)
    placed = {step.name for step in ordered(steps)}
    left = {step.name: [need for need in step.after if need not in placed] for step in steps if step.name not in placed}
    if not left:
        return []
    path, name = list[str](), next(iter(left))
    while name not in path:
        path.append(name)
        name = left[name][0]
    return [*reversed(path[path.index(name) :])]


def upstream(plan: Plan | Iterable[Step]) -> dict[str, frozenset[str]]:
    """Return for each step all those it comes after, near and far."""
    made: dict[str, frozenset[str]] = {}
    for step in ordered(plan.steps if isinstance(plan, Plan) else plan):
        made[step.name] = frozenset(step.after).union(*(made[need] for need in step.after))
    return made


def _lets_on(step: Step, node: Node) -> bool:
    return node.stage is Stage.DONE or step.on_failure is OnFailure.CONTINUE


def stops(step: Step, node: Node) -> bool:
    """Tell whether how a step ended stops the plan (rule G4)."""
    is_meant = node.stage is Stage.SKIPPED and node.why.startswith((Why.CONDITION, Why.STOPPED))
    return node.stage in (Stage.FAILED, Stage.SKIPPED) and not is_meant and step.on_failure is OnFailure.STOP


def is_missing(node: Node) -> bool:
    """Tell whether a step failed, or found no worker: nothing before it is to blame."""
    return node.stage is Stage.FAILED or is_absent(node)


def is_absent(node: Node) -> bool:
    """Tell whether a step was skipped because no worker was able to do it."""
    return node.stage is Stage.SKIPPED and node.why.startswith(Why.ABSENT)


def is_chosen(node: Node) -> bool:
    """Tell whether a step was skipped because its condition, or that of one it comes after, did not hold."""
    return node.stage is Stage.SKIPPED and node.why.startswith(Why.CONDITION)


def _is_stopped(node: Node) -> bool:
    return node.stage is Stage.SKIPPED and node.why.startswith(Why.STOPPED)


def is_unsure(node: Node) -> bool:
    """Tell whether a step was skipped because its plan was stopped, with no task won for it (rule G7)."""
    return _is_stopped(node) and not node.task


def settle(plan: Plan, progress: Progress, now: int) -> tuple[Progress, list[Step]]:
    """Say what follows from how the steps stand.

    Returns:
        The progress with everything skipped that must be (rules G3, G4), and the steps that can be released (G2).
    """
    nodes, stopped, ready = dict(progress.nodes), progress.stopped, list[Step]()
    by_name, order = plan.by_name, ordered(plan.steps)
    stopped = stopped or next((_stop(step.name, nodes) for step in order if _stopped(step, nodes)), "")
    # Who did not know it finds it in a task that was taken back.
    stopped = stopped or next((node.why.partition(": ")[2] for node in nodes.values() if _is_stopped(node)), "")
    for step in order:
        before = nodes.get(step.name, NEW)
        if before.stage is not Stage.WAITING and not is_unsure(before):
            continue
        needs = [(by_name[name], nodes.get(name, NEW)) for name in step.after]
        was_never_free = any(_is_stopped(node) for _, node in needs)
        bar = next((need.name for need, node in needs if node.stage in SETTLED and not _lets_on(need, node)), "")
        if not bar and not was_never_free and all(node.stage in SETTLED for _, node in needs):
            ready.append(step)  # Also in a stopped plan: somebody may have released it (rule G7).
            continue
        if before.stage is not Stage.WAITING:
            continue
        why = f"{Why.STOPPED}: {stopped}" if stopped else ""
        if not why and all(node.stage in SETTLED for _, node in needs):
            why = _barred(bar, nodes[bar])
        if why:
            nodes[step.name] = Node(Stage.SKIPPED, before.run, why=why, ended=now)
            if not stopped and stops(step, nodes[step.name]):
                return settle(plan, progress._replace(nodes=nodes), now)
    over = progress.over
    if not over and len(nodes) == len(plan.steps) and all(node.stage in SETTLED for node in nodes.values()):
        over = max(now, plan.created)  # The clock of whoever finds it so may be behind.
    return Progress(nodes, stopped, 0 if ready else over), ready


def _barred(bar: str, node: Node) -> str:
    """Say why a step is skipped that comes after one that was not done: what hangs on a choice is chosen too."""
    if is_chosen(node):
        return f"{Why.CONDITION}: {bar} was not wanted (its on_failure is skip)"
    return f"{Why.UPSTREAM}: {bar} {_ended(node)}"


def _stopped(step: Step, nodes: Mapping[str, Node]) -> bool:
    return step.name in nodes and stops(step, nodes[step.name])


def _stop(name: str, nodes: Mapping[str, Node]) -> str:
    return f"{name} {_ended(nodes[name])}"


def _ended(node: Node) -> str:
    if node.stage is Stage.FAILED:
        return "failed"
    return f"was skipped ({node.why.partition(':')[0]})"


def outcome(plan: Plan, progress: Progress) -> str:
    """Return how a plan stands: `running`, `stopping`, or how it ended: `done`, `partial`, `failed`, `cancelled`.

    `done` means that every step that was wanted got done, `partial` that some did, `failed` that it was
    stopped by a step, or that none did.
    """
    if not progress.over:
        return "stopping" if progress.stopped else "running"
    if progress.stopped:
        return "cancelled" if progress.stopped.startswith(CANCELLED) else "failed"
    nodes = [progress.nodes[step.name] for step in plan.steps]
    wanted = [node for node in nodes if not is_chosen(node)]
    done = sum(node.stage is Stage.DONE for node in wanted)
    if done == len(wanted):
        return "done"
    return "partial" if done else "failed"


def retried(plan: Plan, progress: Progress, names: Iterable[str]) -> Progress:
    """Let steps be released once more, in a new run, with all that was skipped because of them.

    With them goes whatever else stopped the plan, and what that hangs on, for it would stop it again at once.
    """
    above = upstream(plan)
    stopping = {step.name for step in plan.steps if stops(step, progress.nodes.get(step.name, NEW))}
    missing = {name for name, node in progress.nodes.items() if is_missing(node)}
    hung = {name for name in stopping if progress.nodes[name].why.startswith(Why.UPSTREAM)}
    again = {*names} | stopping | (missing & {need for name in hung for need in above[name]})
    for step in ordered(plan.steps):
        node = progress.nodes.get(step.name)
        is_below = node is not None and node.why.startswith(Why.UPSTREAM) and bool(above[step.name] & again)
        if is_below or (node is not None and node.why.startswith(Why.STOPPED)):
            again.add(step.name)
    nodes = dict(progress.nodes)
    for name in again & nodes.keys():
        # What was never released needs no new run.
        nodes[name] = Node(Stage.WAITING, nodes[name].run + bool(nodes[name].task))
    return Progress(nodes, "", 0)


def critical_path(plan: Plan, progress: Progress, now: int) -> list[str]:
    """Return the chain of steps that took longest from the plan's start until now, in order."""
    took: dict[str, int] = {}
    best: dict[str, str] = {}
    for step in ordered(plan.steps):
        node = progress.nodes.get(step.name)
        before = max(step.after, key=lambda name: took[name], default="")
        if before:
            best[step.name] = before
        span = (node.ended or now) - node.released if node and node.released else 0
        took[step.name] = span + (took[before] if before else 0)
    path, name = list[str](), max(took, key=lambda item: took[item], default="")
    while name:
        path.append(name)
        name = best.get(name, "")
    return path[::-1]


def counts(plan: Plan, progress: Progress) -> dict[str, int]:
    """Return how many steps are at each stage."""
    made = dict.fromkeys(map(str, Stage), 0)
    for stage in _stages(plan, progress):
        made[stage] += 1
    return made


def _stages(plan: Plan, progress: Progress) -> Iterator[Stage]:
    return (progress.stage(step.name) for step in plan.steps)
