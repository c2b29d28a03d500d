"""What tools answer about tasks: one compact text, the same for every client, ending in what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import access, names
from mcp_bus.errors import BusError, Conflict, CorruptRecord
from mcp_bus.find import is_lost, public, short, step, why_empty
from mcp_bus.holders import holdings
from mcp_bus.model import ENDED, OPEN, Outcome, State
from mcp_bus.plain import clean, cut, duration
from mcp_bus.server import calls, planning
from mcp_bus.server.words import (
    BODY,
    MAX_ANSWER,
    Ways,
    before,
    due,
    event,
    history,
    line,
    proven,
    quoted,
    room,
    said,
    several,
    state,
    successor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.bus import Bus, Posted
    from mcp_bus.find import ChannelView, Ending
    from mcp_bus.model import Task
    from mcp_bus.presence import Seen

MAX_LINES = 22
MAX_ONLINE = 8
MAX_FILES = 5
# What to do about a result that is lost.
GIVE_UP = 'control_task action "discard" gives it up, and "retry" after that has it done once more'
PERSON_LOOKS = "a person looks for what is LOST, in quarantine/ and rejected/; nothing of it can be used"
# Ready tasks of a channel that are looked into, to say what they require.
LOOKED = 5


def posted(bus: Bus, done: Posted, ways: Ways) -> str:
    """Answer `post_task`."""
    if done.created and bus.store.policy(done.channel).kind == "topic":
        return calls.opened(bus, bus.get(done.id), ways)
    text = f"posted {short(done.id)} on {done.channel}"
    if not done.created:
        text = f"already posted under that key: {short(done.id)} on {done.channel}{_now(bus, done.id)}"
    if done.new_channel:
        others = [name for name in public(bus.store) if name != done.channel]
        text += "\nthis made a new channel" + (f"; others: {', '.join(others[:8])}" if others else "")
    if bus.store.away is not None and bus.store.away.unsent:
        text += "\nnot sent yet: the git remote does not answer; it is sent with the next thing that reaches it"
    waiting = bus.store.count(done.channel)[State.READY]
    following = ways.first(f'await_results(tasks=["{short(done.id)}"])', "go on with your own work")
    return f"{text}; {waiting} ready there\nnext: {following}"


def _now(bus: Bus, task_id: str) -> str:
    try:
        return f", it is {state(bus.get(task_id), bus.source.now())}"
    except BusError:
        return ""


def budget(bus: Bus, task: Task) -> int:
    """Return how many attempts a task may have."""
    return task.slot.budget or task.body.max_attempts or bus.store.policy(task.channel).max_attempts


def claimed(bus: Bus, task: Task, others: Sequence[Task], ways: Ways) -> str:
    """Answer `claim_next` with a task."""
    slot, body, now = task.slot, task.body, bus.source.now()
    lines = held(bus, others, ways)
    lines.append(
        f"task {short(task.id)} token {task.lease.token} on {task.channel}, attempt {slot.attempt} of "
        f"{budget(bus, task)}, lease {duration(task.lease.expires - now)}, renewed while you are connected"
    )
    lines.append(f"from {said(body.sender.agent)}, posted {duration(now - body.created)} ago{proven(task)}")
    if bus.store.away is not None and task.id in bus.store.away.tentative:
        lines.append("TENTATIVE: the git remote does not answer, and decides later; do nothing that cannot be undone")
    lines += _about(task)
    lines += before(bus, task)
    full = bus.store.get(task.id) if slot.attempt > 1 or slot.releases or slot.budget else None
    lines += [f"before: {entry}" for entry in history(full, 4)] if full else []
    mark = bus.source.token(6)
    lines += planning.contract(task, mark)
    lines += planning.inputs(task, mark, ways, lines)
    more = ways.rest(task.id)
    lines.append(quoted(body.content, task.lease.token, limit=min(BODY, room(lines)), more=more))
    lines.append(f'next: do it, then submit_result(task="{short(task.id)}", token="{task.lease.token}", result="…")')
    return "\n".join(lines)


def _about(task: Task) -> list[str]:
    """Return what else the sender said of a task."""
    body = task.body
    named = {"type": access.kind(body.type) if body.type != "task" else "", "title": body.title}
    lines = [f"{name}: {said(text, 200)}" for name, text in named.items() if text]
    if body.plan:
        lines.append(f"step {said(body.node, 60)} of plan {said(short(body.plan), 20)}")
    elif body.thread or body.reply_to:
        lines.append(f"thread {said(body.thread, 80)} reply to {said(body.reply_to, 80)}")
    return lines


def held(bus: Bus, tasks: Sequence[Task], ways: Ways) -> list[str]:
    """Return a line for each task the session holds already."""
    shows = ways.first("; get_task shows it", "")
    lines = [
        f"you already hold {short(task.id)} token {task.lease.token} on {task.channel} "
        f"(attempt {task.slot.attempt}, lease {duration(task.lease.expires - bus.source.now())}){shows}"
        for task in tasks[:5]
    ]
    return [*lines, f"and you hold {len(tasks) - 5} more"] if len(tasks) > 5 else lines


def empty(
    bus: Bus, channels: Sequence[str], capabilities: Sequence[str], waited_s: float, others: Sequence[Task], ways: Ways
) -> str:  # fmt: skip
    """Answer `claim_next` without a task: say why."""
    lines = held(bus, others, ways)
    lines.append(f"empty: {clean(why_empty(bus, channels, capabilities, others))}; waited {waited_s:.0f} s")
    if helps := step(bus, channels):
        lines.append(f"a person helps: {clean(helps)}")
    again = "submit what you hold first" if others else "call claim_next again to go on waiting, or stop"
    return "\n".join([*lines, f"next: {again}"])


def failed(bus: Bus, task: Task) -> str:
    """Say what becomes of a task whose attempt failed."""
    allowed, number = budget(bus, task), task.slot.attempt
    if task.state is State.DEAD:
        return f"{short(task.id)} failed for the last time: it is dead after {several(number, 'attempt')}"
    following = f"{short(task.id)} failed; attempt {number + 1} of {allowed} is due"
    return f"{following} {due(task, bus.source.now()) if task.state is State.SCHEDULED else 'now'}"


def awaited(bus: Bus, endings: Sequence[Ending], mark: str, waited_s: float, ways: Ways) -> str:
    """Answer `await_results`: what ended, and who has the rest."""
    over = [item for item in endings if item.is_over]
    rest = [item for item in endings if not item.is_over]
    lines = [f"{len(over)} of {len(endings)} ended, waited {waited_s:.0f} s"]
    share = max(200, (MAX_ANSWER - 1500) // max(1, len(over)))
    brief = [_brief(item) for item in (*over, *rest)]
    now = bus.source.now()
    full = [*(_ended(item, mark, share, ways, now) for item in over), *(_open(bus, item, now) for item in rest)]
    # What is cut off would leave its text without an end mark: an ending is told whole, or briefly.
    left = MAX_ANSWER - 1000 - sum(len(item) + 1 for item in brief)
    for long, little in zip(full, brief, strict=True):
        fits = len(long) - len(little) <= left
        lines.append(long if fits else little)
        left -= len(long) - len(little) if fits else 0
    text = "\n".join(lines)
    if rest:
        tasks = ", ".join(f'"{short(item.task.id if item.task else item.asked)}"' for item in rest)
        return f"{text}\nnext: await_results(tasks=[{tasks}]) for the rest"
    ended = [item.task for item in over if item.task]
    stuck = [task for task in ended if task.state is State.DEAD]
    if not stuck and (doubted := [short(task.id) for task in ended if task.doubt]):
        return f"{text}\nnext: use nothing of {', '.join(doubted)} before a person has looked at what is NOT VERIFIED"
    if not stuck and (lost := [short(task.id) for task in ended if is_lost(task)]):
        following = ways.first(f"there is no result of {', '.join(lost)}: {GIVE_UP}", PERSON_LOOKS)
        return f"{text}\nnext: {following}"
    if not stuck:
        return f"{text}\nnext: use the results"
    retry = f'control_task(task="{short(stuck[0].id)}", action="retry", note or body) or "discard"'
    return f"{text}\nnext: {ways.first(retry, 'a person decides about what is dead or blocked')}"


def _brief(item: Ending) -> str:
    if item.task is None:
        return f"{short(item.asked)}: {cut(clean(item.error), 60)}"
    return f"{short(item.task.id)} {item.task.state}; get_task shows it"


def _head(item: Ending, task: Task, now: int) -> str:
    """Return the task that has the last word, and of which one."""
    asked = f"{short(item.asked)} lives on as " if item.asked != task.id else ""
    return asked + line(task, now)


def _ended(item: Ending, mark: str, share: int, ways: Ways, now: int) -> str:
    task = item.task
    if task is None:
        return f"{short(item.asked)}: {cut(clean(item.error), 300)}"
    head = _head(item, task, now)
    if task.result is None:
        return "\n".join([head + proven(task), *history(task, 2)])
    text = quoted(task.result.content, mark, limit=share, more=ways.rest(task.id))
    return "\n".join([f"{head}, {_outcome(task)}", text, *_files(task)])


def _files(task: Task) -> list[str]:
    """Name the files of a result."""
    files = task.result.artifacts if task.result is not None else ()
    lines = [f"file {said(item.path, 200)}, {item.size} bytes, sha256 {item.sha256}" for item in files[:MAX_FILES]]
    return [*lines, f"and {len(files) - MAX_FILES} more files"] if len(files) > MAX_FILES else lines


def _outcome(task: Task) -> str:
    """Say how a result calls itself, and whose it is."""
    result = task.result
    assert result is not None
    status = result.status if result.status in ("success", "error") else said(result.status, 40)
    error = f", error {said(result.error, 200)}" if result.error else ""
    is_proven = task.proof is not None and task.proof.result
    return f"{status} by {said(result.sender.agent, 80)}{', verified' if is_proven else ''}{error}"


def _open(bus: Bus, item: Ending, now: int) -> str:
    task = item.task
    if task is None:
        return f"{short(item.asked)}: {cut(clean(item.error), 300)}"
    if calls.is_own(bus, task):
        return calls.standing(bus, task)
    progress = [entry for entry in task.history if entry.outcome is Outcome.PROGRESS]
    told = [entry for entry in task.history if entry.outcome is not Outcome.PROGRESS]
    note = ""
    if task.state is State.LEASED:
        note = f"; progress: {said(progress[-1].note)}" if progress else ""
    elif told:
        note = f"; {event(told[-1])}"
    return f"{_head(item, task, now)}{note}"


def shown(bus: Bus, task: Task, mark: str, offset: int, ways: Ways) -> str:
    """Answer `get_task`."""
    body, slot, now = task.body, task.slot, bus.source.now()
    lines = [line(task, now), f"id {task.id}, priority {slot.priority}, attempts {slot.attempt}"]
    lines.append(f"from {said(body.sender.agent)}, posted {duration(now - body.created)} ago{proven(task)}")
    # What was cancelled or taken away is not held, whatever the session remembers.
    is_mine = task.state is State.LEASED and any(claim.ticket == task.ticket for claim in bus.held())
    if is_mine:
        lines.append(f"you hold it: token {task.lease.token}")
        lines += [*planning.contract(task, mark), *planning.inputs(task, mark, ways, lines)]
    if body.requires:
        lines.append(f"requires {said(', '.join(body.requires), 500)}")
    if names.TASK_ID.match(body.retry_of):
        lines.append(f"replaces {short(body.retry_of)}")
    lines += before(bus, task)
    lines += history(task, 6)
    left, result = room(lines), task.result
    wanted = len(result.content) if result is not None and not offset else 0
    text = body.content + (f"\n\n=== result {mark} ===\n{result.content}" if result and offset else "")
    limit = left - min(wanted, left // 2)
    lines.append(quoted(text, mark, limit=limit, offset=offset, more=ways.rest(task.id)))
    if result is not None and not offset:
        lines.append(f"result, {_outcome(task)}:")
        more = ways.first(f'; get_task(task="{short(task.id)}", offset={len(body.content)})', ways.rest(task.id))
        lines += [quoted(result.content, mark, limit=room(lines), more=more), *_files(task)]
    return "\n".join([*lines, f"next: {_after(task, ways, is_mine=is_mine)}"])


def _after(task: Task, ways: Ways, *, is_mine: bool) -> str:
    following = successor(task)
    if following:
        return f'get_task(task="{short(following)}")'
    if is_mine:
        return "do it and submit_result"
    if task.state is State.DEAD:
        wish = 'control_task action "retry" (with note or body) or "discard"'
        return ways.first(wish, "a person decides what becomes of it")
    if task.state is State.DONE:
        return ways.first(GIVE_UP, PERSON_LOOKS) if is_lost(task) else "nothing, it has ended"
    if task.state in ENDED:
        return ways.first('control_task action "retry" brings it back', "nothing, it has ended")
    return ways.first(f'await_results(tasks=["{short(task.id)}"])', "nothing")


def controlled(bus: Bus, task: Task, action: str, ways: Ways) -> str:
    """Answer `control_task`."""
    undo = '; action "undo" takes that back' if action in ("discard", "cancel") else ""
    wish = f'await_results(tasks=["{short(task.id)}"])' if task.state in OPEN else "nothing"
    return f"{line(task, bus.source.now())}{undo}\nnext: {ways.first(wish, 'nothing')}"


def channels(bus: Bus, views: Sequence[ChannelView], seen: Sequence[Seen], ways: Ways) -> str:
    """Answer `list_channels`."""
    ordered = sorted(views, key=lambda view: (view.policy.kind == "topic", -view.counts[State.READY]))
    lines = [_channel(bus, view, ways) for view in ordered[:MAX_LINES]]
    if len(views) > MAX_LINES:
        lines.append(f"and {len(views) - MAX_LINES} more channels")
    lines += [*_online(bus, seen), *_working_unseen(bus, seen)]
    ready = sum(view.counts[State.READY] for view in views if view.policy.kind == "queue")
    if not views:
        lines.insert(0, "no channels yet; the first post_task makes one")
        following = ways.first("post_task(channel, body)", "nothing")
    elif ready:
        following = ways.first("claim_next to work", "find_tasks shows them", "nothing")
    else:
        following = ways.first("post_task, or claim_next to wait for work", "post_task", "nothing")
    return "\n".join([*lines, f"next: {following}"])


def _channel(bus: Bus, view: ChannelView, ways: Ways) -> str:
    counts = {str(state): number for state, number in view.counts.items() if number}
    if view.policy.kind == "topic":
        kept = several(view.counts[State.READY], "message")
        how = ways.first(f'; read_inbox(subscribe="{view.name}") reads it', "")
        return f"topic {view.name}: {kept}{how}"
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    waits = f"; oldest waits {duration(bus.source.now() - view.oldest)}" if view.oldest else ""
    return f"channel {view.name}: {told or 'empty'}{waits}{_needs(bus, view)}"


def _needs(bus: Bus, view: ChannelView) -> str:
    """Say what the next few ready tasks of a channel require."""
    words = set[str]()
    if view.counts[State.READY]:
        for slot in list(bus.store.scan(view.name, State.READY, limit=LOOKED)):
            try:
                task = bus.store.get(slot.id, at=slot)
            except (Conflict, CorruptRecord):
                continue
            words |= set(task.body.requires) if task else set()
    return f"; some require {said(', '.join(sorted(words)), 80)}" if words else ""


def _online(bus: Bus, seen: Sequence[Seen]) -> list[str]:
    """Say which agents are there, and what they are able to do."""
    able = dict[str, set[str]]()
    for item in seen:
        if item.is_live:
            able.setdefault(item.presence.agent, set()).update(item.presence.capabilities)
    if not able:
        return []
    told = []
    for agent, can in list(able.items())[:MAX_ONLINE]:
        you = " (you)" if agent == bus.identity.agent else ""
        told.append(said(agent, 60) + you + (f" can {said(', '.join(sorted(can)), 60)}" if can else ""))
    more = f", and {len(able) - MAX_ONLINE} more" if len(able) > MAX_ONLINE else ""
    return [f"agents here: {', '.join(told)}{more}"]


def _working_unseen(bus: Bus, seen: Sequence[Seen]) -> list[str]:
    """Say who holds tasks though no live session of that holder is seen: by name, or by its word where that is all."""
    agents = {item.presence.agent for item in seen} | {bus.identity.agent}
    live, now = {item.presence.holder for item in seen if item.is_live}, bus.source.now()
    away = [item for word, item in holdings(bus.store, agents).items() if word not in live]
    told = [
        f"{said(item.agent, 60) if item.agent else f'holder {said(item.holder, 64)}'} holds "
        f"{several(item.tasks, 'task')}, lease {_lease(item.until, now)}"
        for item in away[:MAX_ONLINE]
    ]
    more = f"; and {len(away) - MAX_ONLINE} more" if len(away) > MAX_ONLINE else ""
    return [f"at work, no live session seen: {'; '.join(told)}{more}"] if told else []


def _lease(until: int, now: int) -> str:
    return f"ends in {duration(until - now)}" if until > now else f"ran out {duration(now - until)} ago"


def found(bus: Bus, tasks: Sequence[Task], limit: int, ways: Ways) -> str:
    """Answer `find_tasks`."""
    if not tasks:
        return f"nothing found\nnext: {ways.first('list_channels shows what is there')}"
    now = bus.source.now()
    text = cut("\n".join(line(task, now) for task in tasks), MAX_ANSWER - 300)
    following = f'find_tasks(…, after="{tasks[-1].id}") for more' if len(tasks) == limit else "get_task for one of them"
    return f"{text}\nnext: {following}"
