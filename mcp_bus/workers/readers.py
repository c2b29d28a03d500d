"""How agent CLIs are run, and what their output says: the answer, what it took, and whether a limit was hit.

A preset is a command whose prompt comes by stdin and whose output a reader understands.  Formats were taken down from
the real programs (docs/workers.md says which versions).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.model import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mcp_bus.command import Ended

# Of what a command writes to stdout, so much is read: the end of it.
MAX_OUTPUT = 1024 * 1024
# Words by which agent CLIs and the services behind them say that no task would fare better: nobody is logged in, or the
# program does not want to work in this folder.
UNABLE = re.compile(
    r"not logged in|run /login|invalid api key|api key not valid|incorrect api key|missing api key|invalid auth method"
    r"|set an auth method|unauthenticated|401 unauthorized|missing environment variable|trusted directory",
    re.IGNORECASE,
)
# Words by which they say that there were too many requests.
LIMITED = re.compile(
    r"rate.?limit|too many requests|usage limit|quota|resource.?exhausted|overloaded|\b429\b|\b529\b", re.IGNORECASE
)


class Answer(NamedTuple):
    """What a command answered.

    Attributes:
        text: its result.
        usage: what it took, by its own word.
        error: why it has no result, by its own word; empty if it says nothing of the kind.
        is_limited: whether it failed because of a rate limit.
        is_unable: whether it failed because of what would make every task fail.
    """

    text: str
    usage: Mapping[str, float] = NOTHING
    error: str = ""
    is_limited: bool = False
    is_unable: bool = False


class Preset(NamedTuple):
    """An agent CLI.

    Attributes:
        words: the command.
        corrects: whether asking it once more is worth it when its result was refused.
    """

    words: tuple[str, ...]
    corrects: bool = True


PRESETS: dict[str, Preset] = {
    "claude": Preset(("claude", "-p", "--output-format", "json")),
    "codex": Preset(("codex", "exec", "--skip-git-repo-check", "--json")),
    "gemini": Preset(("gemini", "--output-format", "json")),
    "opencode": Preset(("opencode", "run", "--format", "json", "--title", "mcp-bus")),
    "qwen": Preset(("qwen", "--output-format", "json")),
}


def named(words: Sequence[str]) -> str:
    """Return the preset whose program a command is; `text` for any other."""
    program = words[0].rpartition("/")[2] if words else ""
    return program if program in PRESETS else "text"


def read(reader: str, done: Ended, written: str | None, tail: str) -> Answer:
    """Return what a command answered.

    Args:
        reader: a preset's name, or `text`.
        written: what it wrote to its result file, which is then its result; None for no such file.
        tail: the end of all it wrote.
    """
    output = done.output.decode(errors="replace")
    answer = _READERS.get(reader, _text)(output) if output.strip() else Answer("")
    if answer is None:
        answer = Answer(output.strip())  # It was not asked for the format of its preset.
    if reader in PRESETS and not output.strip():  # Gemini CLI tells an error on stderr alone.
        answer = _READERS[reader](tail) or answer
    if reader in PRESETS and not answer.text and written is None:
        answer = answer._replace(error=answer.error or f"it answered nothing: {tail.strip()[-500:]}".rstrip(": "))
    if written is not None:
        answer = answer._replace(text=written)
    elif done.size > len(done.output):
        size = f"{done.size} bytes of output, of which {MAX_OUTPUT} are read"
        answer = answer._replace(error=answer.error or f"{size}: write long results to the file MCP_BUS_RESULT names")
    if reader in PRESETS and (done.code or done.why or answer.error):
        said = f"{answer.error}\n{tail}"
        is_limited = LIMITED.search(said) is not None
        answer = answer._replace(is_limited=is_limited, is_unable=not is_limited and UNABLE.search(said) is not None)
    return answer


def _text(output: str) -> Answer:
    return Answer(output.strip())


def _claude(output: str) -> Answer | None:
    """One JSON object with `result`, or one a line with the last of type `result`."""
    found = next((item for item in reversed(list(_objects(output))) if item.get("type") == "result"), None)
    if found is None:
        return None
    text, usage = _word(found.get("result")), _map(found.get("usage"))
    took = _amounts(
        input_tokens=usage.get("input_tokens"),
        cached_tokens=usage.get("cache_read_input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cost_usd=found.get("total_cost_usd"),
    )
    error = (text or _word(found.get("subtype"))) if found.get("is_error") is True else ""
    return Answer(text, took, error)


def _qwen(output: str) -> Answer | None:
    """As Claude Code's; but an error of the service is a result, and its own housekeeping is in the sums."""
    answer = _claude(output)
    if answer is None:
        return None
    if answer.text.startswith("[API Error:"):
        answer = answer._replace(error=answer.error or answer.text)
    took = dict[str, float]()
    for item in _objects(output):
        for model in _map(_map(item.get("stats")).get("models")).values():
            took = _summed(took, _tokens(_map(_map(_map(model).get("bySource")).get("main"))))
    return answer._replace(usage=took or answer.usage)


def _codex(output: str) -> Answer | None:
    """One JSON object a line: messages, and what each turn took."""
    text, error, took, is_codex = "", "", dict[str, float](), False
    for item in _objects(output):
        kind = item.get("type")
        is_codex = is_codex or kind in ("thread.started", "turn.started", "turn.completed")
        made = _map(item.get("item"))
        if kind == "item.completed" and made.get("type") == "agent_message":
            text = _word(made.get("text"))
        elif kind == "turn.completed":
            usage = _map(item.get("usage"))
            names = {"input_tokens": "input_tokens", "cached_tokens": "cached_input_tokens"}
            names["output_tokens"] = "output_tokens"
            took = _summed(took, _amounts(**{name: usage.get(field) for name, field in names.items()}))
            error = ""
        elif kind in ("turn.failed", "error"):
            error = _word(_map(item.get("error")).get("message")) or _word(item.get("message")) or "the turn failed"
    return Answer(text, took, error) if is_codex else None


def _gemini(output: str) -> Answer | None:
    """One JSON object with `response` and `stats`, perhaps after other lines."""
    found = next((item for item in _objects(output) if "response" in item or "error" in item), None)
    if found is None:
        return None
    took = dict[str, float]()
    for model in _map(_map(found.get("stats")).get("models")).values():
        took = _summed(took, _tokens(_map(model)))
    error = _word(_map(found.get("error")).get("message"))
    return Answer(_word(found.get("response")), took, error)


def _tokens(model: Mapping[str, Any]) -> dict[str, float]:
    tokens = _map(model.get("tokens"))
    names = {"input_tokens": "prompt", "cached_tokens": "cached", "output_tokens": "candidates"}
    return _amounts(**{name: tokens.get(field) for name, field in names.items()})


def _opencode(output: str) -> Answer | None:
    """One JSON object a line: parts of text, and what each step took."""
    texts, error, took, is_opencode = list[str](), "", dict[str, float](), False
    for item in _objects(output):
        kind, part = item.get("type"), _map(item.get("part"))
        is_opencode = is_opencode or "sessionID" in item
        if kind == "text":
            texts.append(_word(part.get("text")))
        elif kind == "step_finish":
            tokens = _map(part.get("tokens"))
            more = _amounts(
                input_tokens=tokens.get("input"), output_tokens=tokens.get("output"), cost_usd=part.get("cost")
            )
            took = _summed(took, more)
        elif kind == "error":
            about = _map(item.get("error"))
            error = _word(_map(about.get("data")).get("message")) or _word(about.get("name")) or "it failed"
    return Answer("\n".join(texts).strip(), took, error) if is_opencode else None


_READERS: dict[str, Callable[[str], Answer | None]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    "qwen": _qwen,
}


def _objects(output: str) -> Iterator[dict[str, Any]]:
    """Return the JSON objects in an output: the whole of it, one a line, or one that begins a line and goes on."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(output):
        line_end = output.find("\n", at)
        line_end = len(output) if line_end < 0 else line_end
        start = at + len(output[at:line_end]) - len(output[at:line_end].lstrip())
        if output[start : start + 1] in ("{", "["):
            try:
                value, end = decoder.raw_decode(output, start)
            except RecursionError:
                return  # No answer is nested so deeply, and each line of this would be as long in the reading.
            except ValueError:
                at = line_end + 1
                continue
            yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict))
            at = end
            continue
        at = line_end + 1


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _amounts(**found: object) -> dict[str, float]:
    """Return those that are amounts."""
    return {name: value for name, value in found.items() if type(value) in (int, float) and value >= 0}  # type: ignore[operator, misc]  # only numbers are left


def _summed(first: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0) + more.get(name, 0) for name in {**first, **more}}
