"""How the clients speak to a model over HTTP: four vendors' formats, as much of each as a scripted model needs.

A dialect finds in a request which tools are offered and what those that were called have answered, and words an answer:
a call of a tool, or a text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "scripted"


class Say(NamedTuple):
    """What a model answers: a text, or the call of a tool by its full name as offered; and how many tokens it had."""

    text: str = ""
    tool: str = ""
    args: dict[str, Any] | None = None
    number: int = 0
    tokens: int = 1


class Dialect(Protocol):
    """One vendor's format."""

    def tools(self, body: dict[str, Any]) -> list[str]:
        """Return the names of the tools that a request offers; one in a namespace is `namespace/name`."""
        ...

    def listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what a request says of its tools, as it says it: each tool, or each namespace with those in it."""
        ...

    def results(self, body: dict[str, Any]) -> list[str]:
        """Return what the tools have answered so far, as the model gets to read it."""
        ...

    def events(self, say: Say) -> Iterator[tuple[str, Any]]:
        """Return an answer as events of a stream: name (empty for none) and data."""
        ...

    def whole(self, say: Say) -> Any:
        """Return an answer to a request that wants no stream."""
        ...


class Anthropic:
    """`POST /v1/messages`."""

    def tools(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        return [tool["name"] for tool in body.get("tools") or () if "name" in tool]

    def listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Dialect`."""
        return list(body.get("tools") or ())

    def results(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        blocks = [block for said in body["messages"] if isinstance(said["content"], list) for block in said["content"]]
        return [_text(block.get("content")) for block in blocks if block["type"] == "tool_result"]

    def _block(self, say: Say) -> dict[str, Any]:
        if say.tool:
            return {"type": "tool_use", "id": f"toolu_{say.number:08}", "name": say.tool, "input": say.args}
        return {"type": "text", "text": say.text}

    def whole(self, say: Say) -> Any:
        """See `Dialect`."""
        return {
            "id": f"msg_{say.number:08}", "type": "message", "role": "assistant", "model": NAME,
            "content": [self._block(say)], "stop_reason": "tool_use" if say.tool else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }  # fmt: skip

    def events(self, say: Say) -> Iterator[tuple[str, Any]]:
        """See `Dialect`."""
        whole = self.whole(say)
        start = {**whole, "content": [], "stop_reason": None}
        yield "message_start", {"type": "message_start", "message": start}
        if say.tool:
            block = {**self._block(say), "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(say.args)}
        else:
            block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": say.text}
        yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": 0}
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield "message_delta", {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}}
        yield "message_stop", {"type": "message_stop"}


class Responses:
    """`POST /v1/responses` of OpenAI."""

    def tools(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        found = []
        for tool in body.get("tools") or ():
            if tool.get("type") == "namespace":
                found += [f"{tool['name']}/{inner['name']}" for inner in tool["tools"]]
            elif "name" in tool:
                found.append(tool["name"])
        return found

    def listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Dialect`."""
        return list(body.get("tools") or ())

    def results(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        return [_text(item["output"]) for item in body["input"] if item.get("type") == "function_call_output"]

    def _item(self, say: Say) -> dict[str, Any]:
        if not say.tool:
            content = [{"type": "output_text", "text": say.text, "annotations": []}]
            return {"type": "message", "id": f"msg_{say.number}", "role": "assistant", "content": content}
        space, _, name = say.tool.rpartition("/")
        call = {"type": "function_call", "id": f"fc_{say.number}", "call_id": f"call_{say.number}", "name": name}
        return {**call, "arguments": json.dumps(say.args)} | ({"namespace": space} if space else {})

    def whole(self, say: Say) -> Any:
        """See `Dialect`."""
        usage = {"input_tokens": say.tokens, "output_tokens": 1, "total_tokens": say.tokens + 1}
        return {
            "id": f"resp_{say.number}", "object": "response", "status": "completed", "model": NAME,
            "output": [self._item(say)], "usage": usage,
        }  # fmt: skip

    def events(self, say: Say) -> Iterator[tuple[str, Any]]:
        """See `Dialect`."""
        item, whole = self._item(say), self.whole(say)
        started = {**whole, "status": "in_progress", "output": []}
        for kind, more in (
            ("response.created", {"response": started}),
            ("response.output_item.added", {"output_index": 0, "item": item}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": whole}),
        ):
            yield kind, {"type": kind, **more}


class Chat:
    """`POST /v1/chat/completions` of OpenAI and those who imitate it."""

    def tools(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        return [tool["function"]["name"] for tool in body.get("tools") or ()]

    def listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Dialect`."""
        return list(body.get("tools") or ())

    def results(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        return [_text(said["content"]) for said in body["messages"] if said["role"] == "tool"]

    def _message(self, say: Say) -> dict[str, Any]:
        if not say.tool:
            return {"role": "assistant", "content": say.text}
        function = {"name": say.tool, "arguments": json.dumps(say.args)}
        call = {"index": 0, "id": f"call_{say.number}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def whole(self, say: Say) -> Any:
        """See `Dialect`."""
        choice = {"index": 0, "message": self._message(say), "finish_reason": "tool_calls" if say.tool else "stop"}
        return self._head(say, "chat.completion") | {"choices": [choice]}

    def _head(self, say: Say, kind: str) -> dict[str, Any]:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {"id": f"chat_{say.number}", "object": kind, "created": 1, "model": NAME, "usage": usage}

    def events(self, say: Say) -> Iterator[tuple[str, Any]]:
        """See `Dialect`."""
        head, end = self._head(say, "chat.completion.chunk"), "tool_calls" if say.tool else "stop"
        yield "", head | {"choices": [{"index": 0, "delta": self._message(say), "finish_reason": None}]}
        yield "", head | {"choices": [{"index": 0, "delta": {}, "finish_reason": end}]}
        yield "", "[DONE]"


class Gemini:
    """`POST /v1beta/models/<model>:generateContent` and `:streamGenerateContent`."""

    def tools(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        return [one["name"] for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]

    def listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Dialect`."""
        return [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]

    def results(self, body: dict[str, Any]) -> list[str]:
        """See `Dialect`."""
        parts = [part for said in body["contents"] for part in said["parts"]]
        return [_text(part["functionResponse"]["response"]) for part in parts if "functionResponse" in part]

    def whole(self, say: Say) -> Any:
        """See `Dialect`."""
        part = {"functionCall": {"name": say.tool, "args": say.args}} if say.tool else {"text": say.text}
        content = {"role": "model", "parts": [part]}
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
        candidate = {"content": content, "finishReason": "STOP", "index": 0}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": NAME}

    def events(self, say: Say) -> Iterator[tuple[str, Any]]:
        """See `Dialect`."""
        yield "", self.whole(say)


def _text(content: Any) -> str:
    """Return a tool's answer: a text, blocks with texts, or whatever a client makes of them, as JSON."""
    if isinstance(content, dict) and [*content] == ["output"]:
        content = content["output"]
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(block, dict) and "text" in block for block in content):
        return "\n".join(block["text"] for block in content)
    return json.dumps(content, ensure_ascii=False)


def of(path: str) -> tuple[Dialect, bool] | None:
    """Return the dialect of a request's path, and whether the path itself asks for a stream; None for another path."""
    if path.endswith("/messages"):
        return Anthropic(), False
    if path.endswith("/responses"):
        return Responses(), False
    if path.endswith("/chat/completions"):
        return Chat(), False
    if path.endswith("enerateContent"):
        return Gemini(), path.endswith(":streamGenerateContent")
    return None
