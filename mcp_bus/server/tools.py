"""The tools: small functions of a call, each answering with one text.

Descriptions are static: no name of a channel or an agent ever enters one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio

from mcp_bus import bidding, encrypted, find, report, userprofile
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import Ticket
from mcp_bus.plain import duration
from mcp_bus.server import answers, args, letters, messaging, piping, planning, words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mcp_bus.find import Ending
    from mcp_bus.model import PostOptions, Task
    from mcp_bus.server.call import Call

# A page of `find_tasks`.
PAGE = 20
MAX_AWAITED = 50
PROFILE_SHOWN = 7000


class Tool(NamedTuple):
    """A tool as it is offered: what it takes, says and changes."""

    name: str
    description: str
    model: type[args.Args]
    run: Callable[[Call, Any], Awaitable[str]]
    profiles: tuple[str, ...] = ("full",)
    read_only: bool = False
    destructive: bool = False
    core: bool = False
    # What the schema shows in the profile that must be small; it takes the rest all the same.
    brief: tuple[str, ...] = ()


async def post_task(call: Call, given: args.PostTask) -> str:
    """Post a task."""
    # Only what was said: the channel's policy fills in the rest.
    named = {name: getattr(given.options, name) for name in given.options.model_fields_set}
    options: dict[str, Any] = named | {"title": given.title, "requires": given.requires, "key": given.key or None}
    done = call.bus.post(given.channel, given.body, **cast("PostOptions", options))
    return answers.posted(call.bus, done, call.ways)


async def claim_next(call: Call, given: args.ClaimNext) -> str:
    """Claim the next task, waiting for one."""
    config = call.session.config
    channels = given.channels or list(config["channels"])
    capabilities = given.capabilities or config["capabilities"]
    start, wait_s = anyio.current_time(), call.wait_s(given.wait_s)

    async def progress(waited: float) -> None:
        await call.progress(waited, wait_s, "waiting for a task")

    def look() -> Task | None:
        return call.session.bus().claim(channels, capabilities=capabilities)

    task = await call.session.waker.wait_for(
        call.session.bus, look, channels=channels, wait_s=wait_s, progress=progress
    )
    waited_s = anyio.current_time() - start
    if task is None:
        return answers.empty(
            call.session.bus(), channels, capabilities, waited_s, call.session.holding(), call.ways
        )  # fmt: skip
    call.session.claimed(task, call.request_id, waited_s)
    try:
        await anyio.lowlevel.checkpoint()
    except anyio.get_cancelled_exc_class():
        call.session.give_back(task, "its claim was cancelled")
        raise
    others = [held for held in call.session.holding() if held.id != task.id]
    return answers.claimed(call.session.bus(), task, others, call.ways)


async def heartbeat(call: Call, given: args.Heartbeat) -> str:
    """Keep a task and report progress."""
    task = call.bus.renew(_ticket(call, given.task, given.token), progress=given.progress)
    call.session.spoke_of(task.id)
    left = duration(task.lease.expires - call.bus.source.now())
    return f"still yours for {left}, attempt {task.slot.attempt}\nnext: go on, then submit_result"


async def submit_result(call: Call, given: args.SubmitResult) -> str:
    """End an attempt."""
    bus, ticket = call.bus, _ticket(call, given.task, given.token)
    call.session.spoke_of(ticket.id)
    short = find.short(ticket.id)
    if given.status == "done":
        start = bus.source.now()
        result = bus.ack(ticket, given.result, artifacts=given.artifacts)
        is_earlier = result.content != given.result and result.at < start
        again = " (an earlier result of yours was final already)" if is_earlier else ""
        where = "on disk" if bus.store.away is None else "at the git remote"
        said = f"{short} is done{again}; its result is {where} for whoever posted it"
        task = bus.store.get(ticket.id)
        plan = report.moved(bus, task) if task is not None and task.body.plan else ""
        said += f"\n{plan}" if plan else ""
    elif given.status == "failed":
        task = bus.nack(ticket, given.result or "no reason given", retry_in_s=given.retry_in_s)
        said = answers.failed(bus, task)
    elif given.status == "release":
        task = bus.release(ticket, given.result)
        said = f"{short} was given back and is {words.state(task, bus.source.now())}"
    else:
        if not given.result:
            msg = "a blocked task needs a question"
            raise InvalidRequest(msg, hint="say in result what a person must answer")
        task = bus.block(ticket, given.result)
        said = f"{short} is blocked: it waits for an answer, which is a retry with a note"
    if given.status != "done" and given.result and task is not None and task.body.encrypted is not None:
        said += f"; {encrypted.CLEAR}"
    return f"{said}\nnext: claim_next"


async def await_results(call: Call, given: args.AwaitResults) -> str:
    """Wait for tasks to end."""
    bus, wait_s, start = call.bus, call.wait_s(given.wait_s), anyio.current_time()
    if not 0 < len(given.tasks) <= MAX_AWAITED:
        msg = f"{len(given.tasks)} tasks were named"
        raise InvalidRequest(msg, hint=f"name 1 to {MAX_AWAITED}, as post_task returned them")
    if plan := next(filter(None, (planning.find(bus, name) for name in given.tasks)), ""):
        if len(given.tasks) > 1:
            msg = "a plan is waited for alone"
            raise InvalidRequest(msg, hint=f'await_results(tasks=["{find.short(plan)}"])')
        return await planning.wait(call, plan, wait_s)
    names = [find.resolve(bus.store, name) for name in dict.fromkeys(given.tasks)]
    latest: list[Ending] = []

    def look() -> bool | None:
        call.session.tend()
        now = call.session.bus()
        latest[:] = [find.safe_ending(now, name) for name in names]
        return True if all(item.is_over for item in latest) else None

    async def progress(waited: float) -> None:
        over = sum(item.is_over for item in latest)
        await call.progress(waited, wait_s, f"{over} of {len(latest)} ended")

    channels = sorted({task.channel for item in (find.safe_ending(bus, name) for name in names) if (task := item.task)})
    await call.session.waker.wait_for(call.session.bus, look, channels=channels, wait_s=wait_s, progress=progress)
    return answers.awaited(call.session.bus(), latest, bus.source.token(6), anyio.current_time() - start, call.ways)


async def list_channels(call: Call, given: args.ListChannels) -> str:
    """List channels with their counts."""
    del given
    return answers.channels(call.bus, find.channels(call.bus.store), call.bus.roster.all(), call.ways)


async def get_task(call: Call, given: args.GetTask) -> str:
    """Show one task, or a plan."""
    if plan := planning.find(call.bus, given.task):
        return planning.shown(call.bus, plan, call.ways)
    task = call.bus.get(given.task)
    shown = letters.traced if letters.is_message(call.bus, task) else answers.shown
    return shown(call.bus, task, call.bus.source.token(6), given.offset, call.ways)


async def find_tasks(call: Call, given: args.FindTasks) -> str:
    """Search tasks."""
    after = find.resolve(call.bus.store, given.after) if given.after else ""
    matching = find.tasks(call.bus, text=given.text, channel=given.channel, state=given.state, after=after, limit=PAGE)
    return answers.found(call.bus, list(matching), PAGE, call.ways)


async def control_task(call: Call, given: args.ControlTask) -> str:
    """Do what a person does to a task."""
    bus, name, note = call.bus, given.task, given.note
    if given.body is not None and given.action != "retry":
        msg = "body goes with action 'retry' only"
        raise InvalidRequest(msg, hint="leave it out")
    if (given.priority is None) == (given.action == "reprioritise"):
        msg = "priority goes with action 'reprioritise', and that needs it"
        raise InvalidRequest(msg, hint="give both or neither")
    if plan := planning.find(bus, name):
        return planning.controlled(bus, plan, given.action, note, call.ways)
    if given.action == "retry":
        task = bus.retry(name, body=given.body, note=note)
    elif given.action == "award":
        task = bidding.award(bus, name)
    elif given.action == "reprioritise":
        task = bus.reprioritise(name, given.priority if given.priority is not None else 0)
    else:
        verb: Callable[[str, str], Any] = getattr(bus, given.action)
        task = verb(name, note)
    return answers.controlled(bus, task, given.action, call.ways)


async def user_profile(call: Call, given: args.UserProfile) -> str:
    """Read the shared profile of the user, or replace it."""
    bus = call.bus
    if given.text and given.base is None:
        msg = "text needs base, the revision that you read"
        raise InvalidRequest(msg, hint="user_profile() reads it; merge, then write with its revision")
    if given.text and given.base is not None:
        made = userprofile.write(bus, given.text, base=given.base)
        return f"the shared profile is at revision {made.revision}\nnext: put the same text into your own USER.md"
    found = userprofile.read(bus)
    if not found.revision:
        return 'there is no shared profile yet\nnext: user_profile(text="…", base=0) writes one, if your user agrees'
    about = f"revision {found.revision}, by {words.said(found.by)} {duration(bus.source.now() - found.at)} ago"
    text = words.quoted(found.text, bus.source.token(6), limit=PROFILE_SHOWN, more="; bus://profile has them")
    return f"{about}\n{text}\nnext: user_profile(text=…, base={found.revision}) replaces it"


def _ticket(call: Call, task: str, token: str) -> Ticket:
    return Ticket(find.resolve(call.bus.store, task), token)


TOOLS = (
    Tool(
        "post_task",
        "Hand a task to any agent that can take it. Durable. Returns its id.",
        args.PostTask,
        post_task,
        ("worker", "lead", "full"),
        core=True,
        brief=("channel", "body"),
    ),
    Tool(
        "post_plan",
        "Post steps, each a task once those in after are done.",
        args.PostPlan,
        planning.post_plan,
        ("lead", "full"),
    ),
    Tool(
        "claim_next",
        "Worker loop: claim_next, do the task, submit_result, again. Waits up to wait_s for a task you can do; "
        "returns it with its token, or why there is none.",
        args.ClaimNext,
        claim_next,
        ("worker", "full"),
        core=True,
    ),
    Tool(
        "heartbeat",
        "Keep a claimed task and report progress. Tells you if it was cancelled or lost.",
        args.Heartbeat,
        heartbeat,
        ("worker", "full"),
    ),
    Tool(
        "submit_result",
        "End your attempt: done with a result; failed (tried again, then dead-lettered); release (untouched); "
        "blocked (a person must answer).",
        args.SubmitResult,
        submit_result,
        ("worker", "full"),
        core=True,
        brief=("task", "token", "status", "result"),
    ),
    Tool(
        "send_message",
        "Queue a message. Queued is not read.",
        args.SendMessage,
        messaging.send_message,
        ("worker", "lead", "full"),
        brief=("to", "body", "type", "reply_to"),
    ),
    Tool(
        "read_inbox",
        "Unread messages; they come again until acked.",
        args.ReadInbox,
        messaging.read_inbox,
        ("worker", "lead", "full"),
        brief=("ack", "wait_s"),
    ),
    Tool(
        "await_results",
        "Wait until posted tasks have ended; returns results, and who holds the rest.",
        args.AwaitResults,
        await_results,
        ("lead", "full"),
        read_only=True,
    ),
    Tool(
        "list_channels",
        "Channels: what waits, how long, what is in work.",
        args.ListChannels,
        list_channels,
        ("worker", "lead", "full"),
        read_only=True,
    ),
    Tool(
        "get_task", "One task: text, state, history, result.", args.GetTask, get_task, ("lead", "full"), read_only=True
    ),
    Tool("find_tasks", "Search tasks.", args.FindTasks, find_tasks, ("lead", "full"), read_only=True),
    Tool(
        "control_task",
        "Cancel, retry (also edited), requeue, discard, undo or reprioritise a task; award a bid.",
        args.ControlTask,
        control_task,
        ("lead", "full"),
        destructive=True,
    ),
)


# Offered only where the operator says so.
PIPE = Tool(
    "pipe",
    "Stream to or from another agent, or `mcp-bus pipe`, that is there now. Not durable: what is not read is lost. "
    "Close ends the stream.",
    args.Pipe,
    piping.pipe,
    ("worker", "lead", "full"),
)

USER_PROFILE = Tool(
    "user_profile",
    "Read the user's profile that all agents share (USER.md); with text, replace it. base is the revision you read: if "
    "others wrote since, nothing is changed.",
    args.UserProfile,
    user_profile,
    ("worker", "lead", "full"),
)

# The profile whose schemas show little.
BRIEF = "worker"


def offered(profile: str, *, read_only: bool, more: Sequence[Tool] = ()) -> tuple[Tool, ...]:
    """Return a profile's tools, and `more` that the operator allows; with `read_only`, those that change nothing."""
    known = (*TOOLS, *more)
    return tuple(tool for tool in known if profile in tool.profiles and (tool.read_only or not read_only))
