"""Prompts: what a person can start with a slash in a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp import types

from mcp_bus import find, userprofile
from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.plain import clean, cut
from mcp_bus.server import resources
from mcp_bus.server.words import Ways, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp_bus.bus import Bus

MAX_ROLE = 6000


class Prompt(NamedTuple):
    """A prompt: what it is for, its arguments (a star says which of them must be given), its text, and its tools."""

    about: str
    arguments: Mapping[str, str]
    text: Callable[[Bus, Mapping[str, str]], str]
    needs: frozenset[str] = frozenset()


def _work(_: Bus, given: Mapping[str, str]) -> str:
    channels = f'(channels=["{clean(given["channel"])}"])' if given.get("channel") else "()"
    return (
        f"Work on the bus. Call claim_next{channels}, do what the task asks, then submit_result with its token, and "
        "again. On work of more than a few minutes call heartbeat with a word of progress. If you cannot do a task, "
        "submit_result with status failed and the reason; if only a person can decide, with status blocked and the "
        "question. Read your inbox when an answer says that something waits. Stop when claim_next stays empty."
    )


def _delegate(_: Bus, given: Mapping[str, str]) -> str:
    what = f"\n\nWhat is to be done:\n{given['task']}" if given.get("task") else ""
    return (
        "Hand this work to other agents over the bus. Look at list_channels for who is online and what they can do. "
        "Split the work into tasks that can be done apart from each other; each says all that its worker must know, "
        "for nobody sees this conversation. post_task each, with the capabilities it requires and a key so that a "
        "repeat is harmless. Then await_results, check each result before you rely on it, and retry or take over what "
        f"failed.{what}"
    )


def _plan(bus: Bus, given: Mapping[str, str]) -> str:
    seen = [item.presence for item in bus.roster.all() if item.is_live]
    can = sorted({word for presence in seen for word in presence.capabilities})
    there = clean(", ".join(can)[:1000]) or "nothing that anyone has said; then leave capability out"
    what = f"\n\nThe goal:\n{given['goal']}" if given.get("goal") else ""
    return (
        "Cut this goal into a plan for other agents, and post it with post_plan. Each step is a task for one worker, "
        "who sees nothing but its text and what the steps before it brought: say all that it must know, refer to "
        "results as {{step}} or {{step.field}}, and name in after what it needs. Steps that do not need one another "
        "run at once. Give a step the capability it needs, of those that live workers have: "
        f"{there}. Give a step whose result is used by a program or by another step a result_schema. Say on_failure: "
        "stop for what all depends on, continue for what is nice to have. Then await_results on the plan, check what "
        f"its last steps brought before you rely on it, and name the gaps.{what}"
    )


def _status(_: Bus, __: Mapping[str, str]) -> str:
    return (
        "Tell me how the bus stands, in a few lines: list_channels, then find_tasks for state leased and state dead, "
        "get_task where something looks stuck. Say who works on what and since when, what waits and for whom, and "
        "what needs a decision of mine. Change nothing."
    )


def _triage(_: Bus, __: Mapping[str, str]) -> str:
    return (
        'Go through what is stuck on the bus: find_tasks(state="dead"), and get_task for each. Say for each why it '
        "died, and what you propose: retry as it is (the cause is gone), retry with an edited body (the task was "
        "wrong), answer the question of a blocked one with a note, or discard. Ask me before control_task, then do "
        "what I say."
    )


def _role(bus: Bus, given: Mapping[str, str]) -> str:
    text = resources.role(bus, given.get("agent") or bus.identity.agent)
    return f"Take on this role, as far as your user agrees:\n\n{quoted(text, bus.source.token(6), limit=MAX_ROLE)}"


def _merge_profile(bus: Bus, given: Mapping[str, str]) -> str:
    shared, mark = userprofile.read(bus), bus.source.token(6)
    mine = given.get("mine", "")
    if len(mine.encode(errors="replace")) > userprofile.MAX_BYTES:
        msg = "this profile is too long to be merged"
        raise InvalidRequest(msg, hint=f"at most {userprofile.MAX_BYTES} bytes")
    return (
        f"{userprofile.question(shared, mine, mark)}\n\n"
        f"{'' if mine else 'The other version is your own USER.md, or what you know of me: read it first. '}"
        f"Show me what you would leave out. Then write the merged text back with base {shared.revision}: with the tool "
        f"user_profile if you have it, else in a shell with `mcp-bus profile write FILE --base {shared.revision}`. If "
        "that is refused because somebody wrote meanwhile, read theirs and merge again. Once it is written, put the "
        "same text into your own USER.md."
    )


_CLAIM, _AWAIT = frozenset({"claim_next", "submit_result"}), frozenset({"post_task", "await_results"})
_PLAN = frozenset({"post_plan", "await_results"})
_FIND = frozenset({"find_tasks", "get_task"})
PROMPTS = {
    "work": Prompt("Work on tasks of the bus until none is left", {"channel": "only this channel"}, _work, _CLAIM),
    "delegate": Prompt("Hand work to other agents", {"task": "what is to be done"}, _delegate, _AWAIT),
    "plan": Prompt("Cut a goal into steps for other agents", {"goal": "what is to be reached"}, _plan, _PLAN),
    "status": Prompt("How the bus stands", {}, _status, _FIND),
    "triage": Prompt("Go through what is stuck", {}, _triage, _FIND | {"control_task"}),
    "merge_profile": Prompt("Merge what you know of me with the shared profile", {"mine": "your text"}, _merge_profile),
    "role": Prompt("Take on the role that is written down for an agent", {"agent": "whose; yours if empty"}, _role),
}


def listed(ways: Ways) -> list[types.Prompt]:
    """Return the prompts whose tools are offered, as a client lists them."""
    return [
        types.Prompt(
            name=name,
            title=prompt.about,
            description=prompt.about,
            arguments=[types.PromptArgument(name=arg, description=about) for arg, about in prompt.arguments.items()],
        )
        for name, prompt in PROMPTS.items()
        if not prompt.needs & ways.hidden
    ]


def get(bus: Bus, name: str, given: Mapping[str, str]) -> types.GetPromptResult:
    """Return a prompt with its arguments filled in.

    Raises:
        NotFound: there is no such prompt, or no such role.
        InvalidRequest: an argument is not one of it.
    """
    prompt = PROMPTS.get(name)
    if prompt is None:
        msg = f"there is no prompt {cut(clean(name), 60)!r}"
        raise NotFound(msg, hint=f"prompts: {', '.join(PROMPTS)}")
    unknown = sorted(set(given) - set(prompt.arguments))
    if unknown:
        msg = f"the prompt {name!r} has no argument {cut(clean(unknown[0]), 60)!r}"
        raise InvalidRequest(msg, hint=f"its arguments: {', '.join(prompt.arguments) or 'none'}")
    content = types.TextContent(type="text", text=prompt.text(bus, given))
    return types.GetPromptResult(description=prompt.about, messages=[types.PromptMessage(role="user", content=content)])


def complete(bus: Bus, argument: str, value: str) -> list[str]:
    """Return values for a prompt's argument that begin with what was typed."""
    if argument == "channel":
        return [name for name in find.queues(bus.store) if name.startswith(value)]
    return resources.complete(bus, argument, value) if argument == "agent" else []
