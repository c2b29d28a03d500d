"""What tools answer: one compact text, the same for every client, ending in what to do next.

Words of other agents stand between two lines that carry a token their author could not know, and
with everything in them that acts on a reader made visible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.find import Ending, short, why_empty
from mcp_bus.model import ENDED, Outcome, State
from mcp_bus.plain import clean, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.find import ChannelView
    from mcp_bus.model import Attempt, Posted, Task

# Every answer stays below this, in characters: clients cut or hide longer ones.
MAX_ANSWER = 8000
BODY = 5000
MAX_LINES = 22


def quoted(text: str, mark: str, *, limit: int = BODY, offset: int = 0, more: str = "") -> str:
    """Return untrusted text between two marked lines, one part of it if it is long."""
    part, end = _fitting(text, offset, limit)
    rest = f"\n({len(text) - end} more characters{more.format(end=end)})" if end < len(text) else ""
    return f"--- text of another agent, until {mark} ---\n{part}\n--- {mark} ---{rest}"


def _fitting(text: str, offset: int, limit: int) -> tuple[str, int]:
    """Return what fits, made harmless, and where it ends: what stands for a character can be longer than it."""
    part = text[offset : offset + limit]
    shown = clean(part, multiline=True)
    if len(shown) <= limit:
        return shown, offset + len(part)
    pieces, room = list[str](), limit
    for char in part:
        piece = clean(char, multiline=True)
        room -= len(piece)
        if room < 0:
            break
        pieces.append(piece)
    return "".join(pieces), offset + len(pieces)


def line(task: Task) -> str:
    """Return a task in one line."""
    words = [short(task.id), task.channel, _state(task)]
    if task.body.title:
        words.append(repr(cut(clean(task.body.title), 80)))
    return " ".join(words)


def _state(task: Task) -> str:
    slot = task.slot
    if task.state is State.LEASED and slot.lease is not None:
        return f"leased by {slot.lease.holder} (attempt {slot.attempt})"
    if task.state is State.DEAD and _last(task) is Outcome.BLOCKED:
        return "blocked, waits for a person"
    return str(task.state) + (f" after {slot.attempt} attempts" if task.state is State.DEAD else "")


def _last(task: Task) -> Outcome | None:
    return task.history[-1].outcome if task.history else None


def history(task: Task, limit: int = 5) -> list[str]:
    """Return the last lines of a task's history."""
    return [_event(entry) for entry in task.history[-limit:]]


def _event(entry: Attempt) -> str:
    note = f": {cut(clean(entry.note), 200)}" if entry.note else ""
    return f"attempt {entry.attempt} {entry.outcome} by {cut(clean(entry.by), 60)}{note}"


def seconds(ms: int) -> str:
    """Return a duration for people: `40 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= 2 * size:
            return f"{round(ms / size)} {unit}"
    return f"{round(max(0, ms) / 1000)} s"


def posted(bus: Bus, done: Posted) -> str:
    """Answer `post_task`."""
    waiting = bus.store.count(done.channel)[State.READY]
    text = f"{'posted' if done.created else 'already posted under that key:'} {short(done.id)} on {done.channel}"
    if done.new_channel:
        others = [name for name in bus.store.channels() if name != done.channel]
        text += "\nthis made a new channel" + (f"; others: {', '.join(others[:8])}" if others else "")
    return f'{text}; {waiting} ready there\nnext: await_results(tasks=["{short(done.id)}"])'


def claimed(bus: Bus, task: Task, others: Sequence[Task]) -> str:
    """Answer `claim_next` with a task."""
    slot, body, now = task.slot, task.body, bus.source.now()
    policy = bus.store.policy(task.channel)
    allowed = slot.budget or body.max_attempts or policy.max_attempts
    lines = held(bus, others)
    lines.append(
        f"task {short(task.id)} token {task.lease.token} on {task.channel}, attempt {slot.attempt} of {allowed}, "
        f"lease {seconds(task.lease.expires - now)}, renewed while you are connected"
    )
    lines.append(f"from {cut(clean(body.sender.agent), 120)}, posted {seconds(now - body.created)} ago")
    if body.type != "task":
        lines.append(f"type {cut(clean(body.type), 60)}")
    if body.title:
        lines.append(f"title: {cut(clean(body.title), 200)}")
    if body.thread or body.reply_to:
        lines.append(f"thread {cut(clean(body.thread), 80)!r} reply to {cut(clean(body.reply_to), 80)!r}")
    full = bus.store.get(task.id) if slot.attempt > 1 or slot.releases or slot.budget else None
    lines += [f"before: {entry}" for entry in history(full)] if full else []
    more = f'; get_task(task="{short(task.id)}", offset={{end}})'
    lines.append(quoted(body.content, task.lease.token, limit=min(BODY, _room(lines)), more=more))
    lines.append(f'next: do it, then submit_result(task="{short(task.id)}", token="{task.lease.token}", result="…")')
    return "\n".join(lines)


def _room(lines: Sequence[str]) -> int:
    """Return how much of others' text an answer can still take; some is kept for marks and for what comes last."""
    return max(1000, MAX_ANSWER - 700 - sum(len(item) + 1 for item in lines))


def held(bus: Bus, tasks: Sequence[Task]) -> list[str]:
    """Return a line for each task the session holds already."""
    lines = [
        f"you already hold {short(task.id)} token {task.lease.token} on {task.channel} "
        f"(attempt {task.slot.attempt}, lease {seconds(task.lease.expires - bus.source.now())}); get_task shows it"
        for task in tasks[:5]
    ]
    return [*lines, f"and you hold {len(tasks) - 5} more"] if len(tasks) > 5 else lines


def empty(
    bus: Bus, channels: Sequence[str], capabilities: Sequence[str], waited_s: float, others: Sequence[Task]
) -> str:
    """Answer `claim_next` without a task: say why."""
    lines = held(bus, others)
    lines.append(f"empty: {why_empty(bus, channels, capabilities, others)}; waited {waited_s:.0f} s")
    again = "submit what you hold first" if others else "call claim_next again to go on waiting, or stop"
    return "\n".join([*lines, f"next: {again}"])


def awaited(endings: Sequence[Ending], mark: str, waited_s: float) -> str:
    """Answer `await_results`: what ended, and who has the rest."""
    over = [item for item in endings if item.is_over]
    rest = [item for item in endings if not item.is_over]
    lines = [f"{len(over)} of {len(endings)} ended, waited {waited_s:.0f} s"]
    room = max(200, (MAX_ANSWER - 1500) // max(1, len(over)))
    brief = [_brief(item) for item in (*over, *rest)]
    full = [*(_ended(item, mark, room) for item in over), *(_open(item) for item in rest)]
    # What is cut off would leave its text without an end mark: an ending is told whole, or briefly.
    left = MAX_ANSWER - 1000 - sum(len(item) + 1 for item in brief)
    for long, little in zip(full, brief, strict=True):
        fits = len(long) - len(little) <= left
        lines.append(long if fits else little)
        left -= len(long) - len(little) if fits else 0
    text = "\n".join(lines)
    if rest:
        names = ", ".join(f'"{short(item.task.id if item.task else item.asked)}"' for item in rest)
        return f"{text}\nnext: await_results(tasks=[{names}]) for the rest"
    stuck = [item for item in over if item.task and item.task.state is State.DEAD]
    if stuck and stuck[0].task:
        return (
            f'{text}\nnext: control_task(task="{short(stuck[0].task.id)}", action="retry", note or body) or "discard"'
        )
    return f"{text}\nnext: use the results"


def _brief(item: Ending) -> str:
    if item.task is None:
        return f"{short(item.asked)}: {cut(clean(item.error), 60)}"
    return f"{short(item.task.id)} {item.task.state}; get_task shows it"


def _ended(item: Ending, mark: str, room: int) -> str:
    if item.task is None:
        return f"{clean(item.asked)}: {clean(item.error)}"
    task = item.task
    head = line(task)
    if task.result is not None:
        who = f"{head}, {cut(clean(task.result.status), 40)} by {cut(clean(task.result.sender.agent), 80)}"
        more = f'; get_task(task="{short(task.id)}")'
        return f"{who}\n{quoted(task.result.content, mark, limit=room, more=more)}"
    return "\n".join([head, *history(task, 2)])


def _open(item: Ending) -> str:
    if item.task is None:
        return f"{clean(item.asked)}: {clean(item.error)}"
    progress = [entry for entry in item.task.history if entry.outcome is Outcome.PROGRESS]
    note = f"; progress: {cut(clean(progress[-1].note), 120)}" if progress else ""
    return f"{line(item.task)}{note}"


def shown(bus: Bus, task: Task, mark: str, offset: int) -> str:
    """Answer `get_task`."""
    body, slot = task.body, task.slot
    lines = [line(task), f"id {task.id}, priority {slot.priority}, attempts {slot.attempt}"]
    lines.append(f"from {cut(clean(body.sender.agent), 120)}, posted {seconds(bus.source.now() - body.created)} ago")
    # What was cancelled or taken away is not held, whatever the session remembers.
    is_mine = task.state is State.LEASED and any(held.ticket == task.ticket for held in bus.held())
    if is_mine:
        lines.append(f"you hold it: token {task.lease.token}")
    if body.requires:
        lines.append(f"requires {cut(', '.join(clean(word) for word in body.requires), 500)}")
    if body.retry_of:
        lines.append(f"replaces {short(body.retry_of)}")
    lines += history(task, 8)
    room = _room(lines)
    wanted = len(task.result.content) if task.result is not None and not offset else 0
    more = f'; get_task(task="{short(task.id)}", offset={{end}})'
    text = body.content + (f"\n\n=== result {mark} ===\n{task.result.content}" if task.result and offset else "")
    lines.append(quoted(text, mark, limit=room - min(wanted, room // 2), offset=offset, more=more))
    if task.result is not None and not offset:
        lines.append(f"result, {cut(clean(task.result.status), 40)} by {cut(clean(task.result.sender.agent), 80)}:")
        more = f'; get_task(task="{short(task.id)}", offset={len(body.content)})'
        lines.append(quoted(task.result.content, mark, limit=_room(lines), more=more))
    return "\n".join([*lines, f"next: {_after(task, is_mine=is_mine)}"])


def _after(task: Task, *, is_mine: bool) -> str:
    if is_mine:
        return "do it and submit_result"
    if task.state is State.DEAD:
        return 'control_task action "retry" (with note or body) or "discard"'
    if task.state in ENDED:
        return "nothing, it has ended" if task.state is State.DONE else 'control_task action "retry" brings it back'
    return f'await_results(tasks=["{short(task.id)}"])'


def channels(bus: Bus, views: Sequence[ChannelView]) -> str:
    """Answer `list_channels`."""
    if not views:
        return "no channels yet; the first post_task makes one\nnext: post_task(channel, body)"
    now, lines = bus.source.now(), []
    for view in sorted(views, key=lambda item: -item.counts[State.READY])[:MAX_LINES]:
        counts = ", ".join(f"{number} {state}" for state, number in view.counts.items() if number)
        waits = f"; oldest waits {seconds(now - view.oldest)}" if view.oldest else ""
        lines.append(f"{view.name}: {counts or 'empty'}{waits}")
    if len(views) > MAX_LINES:
        lines.append(f"and {len(views) - MAX_LINES} more channels")
    ready = sum(view.counts[State.READY] for view in views)
    return "\n".join(
        [*lines, "next: claim_next to work" if ready else "next: post_task, or claim_next to wait for work"]
    )


def found(tasks: Sequence[Task], limit: int) -> str:
    """Answer `find_tasks`."""
    if not tasks:
        return "nothing found\nnext: list_channels shows what is there"
    text = cut("\n".join(line(task) for task in tasks), MAX_ANSWER - 200)
    following = f'find_tasks(…, after="{tasks[-1].id}") for more' if len(tasks) == limit else "get_task for one of them"
    return f"{text}\nnext: {following}"
