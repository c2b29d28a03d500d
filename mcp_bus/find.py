"""Looking tasks up: short ids, searches, counts per channel, and how waited-for tasks ended."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus import access, names
from mcp_bus.errors import (
    BusError,
    Conflict,
    CorruptRecord,
    Gone,
    InvalidRequest,
    LeaseLost,
    NotFound,
    StoreUnavailable,
    UnknownKey,
    Unreadable,
)
from mcp_bus.model import ENDED, MAX_CONTENT, PLANS, Policy, State, Task
from mcp_bus.plain import cut
from mcp_bus.routing import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.model import Slot
    from mcp_bus.operate import Operator
    from mcp_bus.stores.base import Store

# Ready tasks that are looked into to say why nobody gets them.
EXAMINED = 50
LOST = "its result is gone: somebody removed it, or it was damaged and put aside"
# Digits shown of an id: its random end.
SHORT = 8
MIN_SHORT = 4
# Characters of a whole id, ours and abq's.
FULL, FULL_ABQ = 36, 26


class ChannelView(NamedTuple):
    """One channel at a glance; `oldest` is when the oldest ready task was posted, 0 for none."""

    name: str
    counts: dict[State, int]
    oldest: int
    policy: Policy


class Ending(NamedTuple):
    """How a waited-for task stands: the task that has the last word, or why there is none.

    `task` is the successor when the one asked for was edited and retried.  `is_over` means that
    waiting longer brings nothing by itself.
    """

    asked: str
    task: Task | None
    is_over: bool
    error: str = ""


def short(task_id: str) -> str:
    """Return the last digits of an id, which any verb accepts in its place."""
    return task_id[-SHORT:]


def is_lost(task: Task) -> bool:
    """Tell whether a task was done and its result is gone; messages, and tasks of abq, may be done without one."""
    lease = task.slot.lease
    if task.state is not State.DONE or task.result is not None or task.doubt or lease is None or not lease.token:
        return False
    is_kept_back = (
        bool(task.hidden) and task.body.encrypted is None
    )  # By a rule of the channel, and not for lack of it.
    return not is_kept_back and not names.is_inbox(task.channel)


def unsound(task: Task) -> str:
    """Return why there is no result to be used of a task that is done; empty if there is one, or it is not done."""
    if task.state is State.DONE and task.doubt:
        return f"its result is not verified: {task.doubt}"
    return LOST if is_lost(task) else ""


def unknown(task_id: str) -> str:
    """Say that there is no such task, without echoing a whole document back."""
    return f"there is no task {task_id[:60]!r}"


def resolve(store: Store, text: object) -> str:
    """Return the full id for any unique beginning or end of one, or beginning of its short form.

    Raises:
        InvalidRequest: it cannot be part of an id, or is too short to be unique by more than luck.
        NotFound: no task, or several tasks, have it.
    """
    if isinstance(text, str) and text.startswith("plan_"):
        raise NotFound(unknown(text), hint=_instead(store, text[:60]))
    if not isinstance(text, str) or not text.isascii() or not text.replace("req_", "", 1).isalnum() or len(text) > 64:
        msg = f"{str(text)[:60]!r} is not a task id"
        raise InvalidRequest(msg, hint="ids look like req_0193…; any unique beginning or end will do")
    text = text.lower()
    if names.TASK_ID.match(text) and len(text) == FULL:
        return text
    if len(text.removeprefix("req_")) < MIN_SHORT:
        msg = f"{text!r} is too short for a task id"
        raise InvalidRequest(msg, hint=f"give at least {MIN_SHORT} of its digits")
    head = text if text.startswith("req_") else "req_" + text
    found = [i for i in store.ids() if i.endswith(text) or i.startswith(head) or short(i).startswith(text)]
    if len(found) == 1 or text in found:
        return text if text in found else found[0]
    if not found:
        if names.TASK_ID.match(text) and len(text) >= FULL_ABQ:
            return text  # It may have been pruned: the store can say so.
        raise NotFound(unknown(text), hint=_instead(store, text))
    some = ", ".join(sorted(found)[:3])
    msg = f"{text!r} could be any of {len(found)} tasks: {some}{'' if len(found) <= 3 else ', …'}"
    raise NotFound(msg, hint="give more digits")


def _instead(store: Store, text: str) -> str:
    """Say what to do about an id that no task has: it may be that of a plan."""
    if any(name.endswith(text.removeprefix("plan_")) for name in store.records.names(PLANS)):
        return f"it is a plan: `mcp-bus plan show {text}` shows it; plan cancel, retry and resume do the rest"
    return "search for it; the id of a pruned one must be given in full"


def why_empty(bus: Bus, channels: Sequence[str], capabilities: Sequence[str], mine: Sequence[Task] = ()) -> str:
    """Say why there is nothing to claim: nothing ready, nothing one is able to do, no such channel.

    Args:
        mine: what the one who asks holds already.
    """
    known = queues(bus.store)
    looked = [name for name in channels if name in known] if channels else known
    may = access.claimable(bus.store, looked, bus.identity.agent)
    others = [name for name in looked if name not in may]
    barred = f"; not for {bus.identity.agent!r} to claim: {cut(', '.join(others), 300)}" if others else ""
    looked = may
    counts = [bus.store.count(name) for name in looked]
    ready, later, out = (sum(c[s] for c in counts) for s in (State.READY, State.SCHEDULED, State.LEASED))
    out -= sum(task.channel in looked for task in mine)
    why = f"nothing to do on {cut(', '.join(channels), 300) if channels else 'any channel'}"
    if ready:
        why = f"{ready} ready, but {_obstacle(bus, looked, capabilities)}"
    unknown = [name for name in channels if name not in known]
    missing = f"; no such channel yet: {cut(', '.join(unknown), 300)}" if unknown else ""
    aside = put_aside(bus)
    aside = f"; {aside}" if aside else ""
    return f"{why}{aside}{missing}{barred}; {later} scheduled, {out} with other workers"


def put_aside(bus: Bus) -> str:
    """Say how many tasks were refused since this was last told and are where they were no longer, and why the last."""
    refused = bus.passed.refused()
    there = {slot for name in {slot.channel for slot in refused} for slot in bus.store.scan(name, State.READY)}
    aside = [why for slot, why in refused.items() if slot not in there]
    last = ", the last" if len(aside) > 1 else ""
    return f"{len(aside)} put aside just now{last}: {cut(aside[-1], 300)}" if aside else ""


def closed(bus: Bus, slot: Slot) -> tuple[Task | None, str, str]:
    """Return a ready task, why it is closed to this agent, and what would open it; empty where it is not, or nothing.

    Raises:
        Conflict, CorruptRecord: it moved, or is no message.
    """
    try:
        task = bus.store.get(slot.id, at=slot)
    except (UnknownKey, Unreadable) as error:
        return None, str(error), error.hint
    if task is None or task.hidden:
        return task, task.hidden if task is not None else "", ""
    why = access.keyless(bus, task.channel, bus.store.policy(task.channel))
    return task, why, ""  # Which is said in it.


def step(bus: Bus, channels: Sequence[str]) -> str:
    """Return what would let this agent take a task that is ready and signed by a key not known here; else nothing."""
    known = queues(bus.store)
    looked = access.claimable(bus.store, [name for name in channels or known if name in known], bus.identity.agent)
    for slot in islice((slot for name in looked for slot in bus.store.scan(name, State.READY)), EXAMINED):
        with suppress(Conflict, CorruptRecord):
            task, _, helps = closed(bus, slot)
            if task is None and helps:
                return helps
    return ""


def _obstacle(bus: Bus, channels: Sequence[str], capabilities: Sequence[str]) -> str:
    """Say why a worker gets none of the tasks that are ready, as far as a look at the first of them tells."""
    needed, unread, able = set[str](), 0, bus.able(capabilities)
    reasons: dict[str, int] = {}
    looked = list(islice((slot for name in channels for slot in bus.store.scan(name, State.READY)), EXAMINED))
    for slot in looked:
        try:
            task, why, _ = closed(bus, slot)
        except (Conflict, CorruptRecord):
            unread += 1
            continue
        if why:
            reasons[why] = reasons.get(why, 0) + 1
            continue
        needed.update(missing(task.body.requires, able) if task else ())
    others = {word for word in needed if word.startswith(names.ADDRESSED)}
    if needed and needed == others:
        whom = sorted(repr(word.removeprefix(names.ADDRESSED)) for word in others)
        return f"they were awarded to {cut(', '.join(whom), 300)}"
    if needed:
        said = cut(", ".join(capabilities), 300) or "none"
        return f"they need {cut(', '.join(map(repr, sorted(needed))), 300)} (this worker's capabilities: {said})"
    if reasons:
        is_all = len(reasons) == 1 and sum(reasons.values()) == len(looked)
        told = [why if is_all else f"{count} of them ({why})" for why, count in sorted(reasons.items())]
        return cut(", ".join(told), 400)
    if unread:
        return f"{unread} cannot be read: still being written, or about to be put aside"
    return "others are taking them"


def lost(task: Task, agent: str, token: str, *, is_result: bool, is_tentative: bool = False) -> LeaseLost:
    """Return the error for a worker whose token is not that of the lease: who has the task now, and what to do.

    Args:
        is_result: whether the worker brought a result, which is kept aside.
        is_tentative: whether it claimed without the remote, which has decided otherwise.
    """
    lease = task.slot.lease
    now = f"it is {task.state}"
    if task.state is State.LEASED and lease is not None:
        now = f"it is leased by {lease.holder!r}, attempt {task.slot.attempt}"
    kept = "; the result is kept in rejected/" if is_result else ""
    if is_tentative:
        msg = f"the claim of {task.id!r} was tentative, and it was lost: {now}{kept}"
        return LeaseLost(
            msg, hint="drop the work: whoever reached the git remote first has the task; claim the next one"
        )
    if task.state is State.LEASED and all(line.token != token for line in task.history):
        msg = f"{token!r} is not the token of any claim on {task.id!r}: {now}{kept}"
        return LeaseLost(msg, hint="check the token and repeat the call; it is the one that the claim returned")
    hint = "stop working on it, and claim the next task"
    if task.state is State.CANCELLED:
        hint = f"it was cancelled: {hint}"
    return LeaseLost(f"{agent!r} no longer holds {task.id!r} under that token: {now}{kept}", hint=hint)


def queues(store: Store) -> list[str]:
    """Return the channels that tasks are claimed from: not inboxes, and not topics."""
    return [name for name in public(store) if _policy(store, name).kind == "queue"]


def topics(store: Store) -> list[str]:
    """Return the channels that are read by all who subscribed."""
    return [name for name in public(store) if _policy(store, name).kind == "topic"]


def public(store: Store) -> list[str]:
    """Return the channels that are not somebody's inbox."""
    return [name for name in store.channels() if not names.is_inbox(name)]


def channels(store: Store) -> list[ChannelView]:
    """Return every channel with its counts, as far as listings can tell; inboxes are their owners' affair."""
    views = []
    for name in public(store):
        first = min(store.scan(name, State.READY), key=lambda slot: slot.id, default=None)
        oldest = int(first.id[4:16], 16) if first else 0
        views.append(ChannelView(name, store.count(name), oldest, _policy(store, name)))
    return views


def _policy(store: Store, channel: str) -> Policy:
    try:
        return store.policy(channel)
    except (CorruptRecord, NotFound) as error:
        return Policy(description=str(error))


def tasks(
    bus: Bus, *, text: str = "", channel: str = "", state: str = "", after: str = "", limit: int = 20
) -> Iterator[Task]:
    """Search tasks by words in title, body or thread, by state and by channel; ordered by id in each channel.

    Args:
        text: every word must occur, whatever its case.
        after: only ids greater than this one, for the next page.
    """
    states = [State(state)] if check_state(state) else list(State)
    words, count = text.lower().split(), 0
    for name in [names.check_place(channel)] if channel else bus.store.channels():
        ids = sorted({slot.id for one in states for slot in bus.store.scan(name, one, after=after)})
        for task_id in ids:
            try:
                found = bus.store.get(task_id)
            except (CorruptRecord, NotFound, Conflict):
                continue
            task = access.shown(bus, found) if found is not None else None  # What is hidden is not found by its words.
            if task is None or task.state not in states or not _has(task, words):
                continue
            yield task
            count += 1
            if count >= limit:
                return


def check_state(state: str) -> bool:
    """Tell whether a state was named.

    Raises:
        InvalidRequest: there is no such state.
    """
    if state and state not in list(State):
        msg = f"{state[:40]!r} is not a state"
        raise InvalidRequest(msg, hint="states: " + ", ".join(State))
    return bool(state)


def _has(task: Task, words: Sequence[str]) -> bool:
    if not words:
        return True
    body = task.body
    text = f"{body.title}\n{body.thread}\n{body.content[:MAX_CONTENT]}\n{body.sender.agent}\n{task.id}".lower()
    return all(word in text for word in words)


def ending(bus: Bus, task_id: str) -> Ending:
    """Return how a task ended or who has it, following edited retries to the task that counts."""
    try:
        task = latest(bus, task_id)
    except Gone as error:
        return Ending(task_id, None, is_over=True, error=str(error))
    return Ending(task_id, access.shown(bus, task), is_over=task.state in ENDED)


def latest(bus: Operator, task_id: str) -> Task:
    """Return a task, or the one that took its place when it was edited or awarded; for no eyes, as `whole`.

    Raises:
        NotFound, Gone: it is not there.
    """
    task, seen = bus.whole(task_id), set[str]()
    while task.state is State.CANCELLED and task.id not in seen:
        seen.add(task.id)
        following = next((line.successor for line in reversed(task.history) if line.successor), "")
        later = bus.whole(following) if following else task
        task = later if _replaces(later, task) else task
    return task


def _replaces(new: Task, old: Task) -> bool:
    """Tell whether a task says itself that it takes another's place: that one's history may be anyone's."""
    is_next = new.channel == old.channel and new.body.retry_of == old.id
    is_award = old.body.type == names.CALL and new.channel == names.AWARDS and new.body.extra.get("call") == old.id
    is_proven = new.proof is None or bool(new.proof.body)
    return (is_next or is_award) and is_proven and (old.body.encrypted is None or new.body.encrypted is not None)


def safe_ending(bus: Bus, task_id: str) -> Ending:
    """Return `ending`, with an unreadable or unknown task as an ending of its own kind.

    Raises:
        StoreUnavailable: the medium failed, which says nothing about the task.
    """
    try:
        return ending(bus, task_id)
    except StoreUnavailable:
        raise
    except Conflict:
        return Ending(task_id, None, is_over=False, error="it is on the move")
    except BusError as error:
        return Ending(task_id, None, is_over=True, error=str(error))
