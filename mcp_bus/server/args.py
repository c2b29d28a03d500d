"""What each tool takes, as pydantic models; the schemas a model sees are made from these.

Every name and word here costs each session of each agent tokens, so descriptions are there only
where a name does not say enough.  Lenient where models err without harm (a number as text, a list as
one word, data as a body), strict where a mistake would be silent (unknown names).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence


def _words(value: Any) -> Any:  # noqa: ANN401  whatever a model sent
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _text(value: Any) -> Any:  # noqa: ANN401  whatever a model sent
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)


Words = Annotated[list[str], BeforeValidator(_words)]
Text = Annotated[str, BeforeValidator(_text)]


class Args(BaseModel):
    """Base of all arguments: an unknown name is an error, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Options(Args):
    """What a post may say besides the usual."""

    priority: int = Field(default=0, description="-9..9, higher first")
    delay_s: float = 0
    ttl_s: float = 0
    max_attempts: int = 3
    backoff_s: float = 5
    thread: str = ""
    reply_to: str = ""
    parent: str = ""


class PostTask(Args):
    """Arguments of `post_task`."""

    channel: str
    body: Text
    title: str = ""
    requires: Words = Field(default=[], description="needed capabilities")
    key: str = Field(default="", description="idempotency key")
    options: Options = Options()


class PlanStep(BaseModel):
    """A step of `post_plan`: these, and whatever else `planfile` knows; it names what it does not."""

    model_config = ConfigDict(extra="allow")

    name: str
    body: str
    capability: Words = []
    after: Words = Field(default=[], description="steps to wait for; {{step.field}} in body is their result")
    on_failure: Literal["stop", "skip", "continue"] = "skip"
    when: str = Field(default="", description="scan.count > 0")
    result_schema: dict[str, Any] | None = None


class PostPlan(Args):
    """Arguments of `post_plan`."""

    goal: str
    steps: list[PlanStep]
    channel: str = ""
    key: str = ""
    grace_s: float | None = None
    parent: str = ""


class ClaimNext(Args):
    """Arguments of `claim_next`."""

    channels: Words = Field(default=[], description="default: all")
    capabilities: Words = []
    wait_s: float | None = None


class Heartbeat(Args):
    """Arguments of `heartbeat`."""

    task: str
    token: str
    progress: str = ""


class SubmitResult(Args):
    """Arguments of `submit_result`."""

    task: str
    token: str
    status: Literal["done", "failed", "release", "blocked"] = "done"
    result: Text = Field(default="", description="result, reason or question")
    artifacts: Words = []
    retry_in_s: float | None = None


class AwaitResults(Args):
    """Arguments of `await_results`."""

    tasks: Words
    wait_s: float | None = None


class Letter(Args):
    """What a message may say besides the usual."""

    priority: int = 0
    ttl_s: float = 0
    thread: str = ""
    title: str = ""
    key: str = ""


class SendMessage(Args):
    """Arguments of `send_message`."""

    to: str = Field(default="", description="agent, topic or human")
    body: Text
    type: str = "note"
    reply_to: str = ""
    supersedes: str = ""
    options: Letter = Letter()


class ReadInbox(Args):
    """Arguments of `read_inbox`."""

    ack: bool = Field(default=False, description="all shown so far")
    ids: Words = Field(default=[], description="ack only these")
    wait_s: float | None = None
    subscribe: str = Field(default="", description="topic, or topic field=value")
    unsubscribe: str = ""


class ListChannels(Args):
    """Arguments of `list_channels`: none."""


class GetTask(Args):
    """Arguments of `get_task`."""

    task: str
    offset: int = Field(default=0, ge=0, description="next part of a long text")


class FindTasks(Args):
    """Arguments of `find_tasks`."""

    text: str = ""
    channel: str = ""
    state: str = Field(default="", description="scheduled ready leased done dead cancelled expired")
    after: str = Field(default="", description="id from the previous page")


class ControlTask(Args):
    """Arguments of `control_task`."""

    task: str
    action: Literal["cancel", "retry", "requeue", "discard", "undo", "reprioritise", "award"]
    note: Text = Field(default="", description="reason, or answer to a blocked task")
    body: Text | None = Field(default=None, description="edited body, for retry")
    priority: int | None = None


class Pipe(Args):
    """Arguments of `pipe`."""

    action: Literal["read", "write", "close"]
    name: str
    data: Text = ""
    base64: bool = Field(default=False, description="exact bytes")
    wait_s: float | None = None


class UserProfile(Args):
    """Arguments of `user_profile`."""

    text: Text = ""
    base: int | None = None


def schema(model: type[Args], only: Sequence[str] = ()) -> dict[str, Any]:
    """Return a model's JSON schema as briefly as it can be said.

    Args:
        only: the arguments to show; all if empty.
    """
    made = model.model_json_schema()
    shared = made.pop("$defs", {})
    slim: dict[str, Any] = _slim(made, shared)
    if only:
        slim["properties"] = {name: slim["properties"][name] for name in only}
    return slim


def _slim(node: Any, shared: dict[str, Any]) -> Any:  # noqa: ANN401  JSON
    if isinstance(node, list):
        return [_slim(item, shared) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _slim(shared[node["$ref"].rpartition("/")[2]], shared)
    choices = [item for item in node.get("anyOf", ()) if item != {"type": "null"}]
    if len(choices) == 1:
        node = {key: value for key, value in node.items() if key != "anyOf"} | choices[0]
    made = {key: _slim(value, shared) for key, value in node.items() if key not in ("title", "default")}
    if made.get("additionalProperties") is True:
        del made["additionalProperties"]  # It says nothing.
    if "properties" in node:
        made["properties"] = {key: _slim(value, shared) for key, value in node["properties"].items()}
        made.pop("description", None)
    return made
