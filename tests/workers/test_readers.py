"""What the output of agent CLIs says: shapes taken down from the real programs, cut to what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_bus.command import Ended
from mcp_bus.workers import readers

TEXT = 'Here it is:\n```json\n{"passed": true}\n```'


def lines(*items: dict[str, Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


CLAUDE = {
    "type": "result", "subtype": "success", "is_error": False, "result": TEXT, "total_cost_usd": 0.0071,
    "usage": {"input_tokens": 1111, "cache_read_input_tokens": 333, "output_tokens": 77, "service_tier": "standard"},
}  # fmt: skip
GEMINI_MODEL = {"api": {"totalRequests": 1}, "tokens": {"prompt": 1111, "candidates": 77, "cached": 333, "thoughts": 0}}
OUTPUTS = {
    "claude": json.dumps(CLAUDE),
    "claude, a stream": lines(
        {"type": "system"}, {"type": "assistant", "message": {"usage": {"output_tokens": 1}}}, CLAUDE
    ),
    "codex": lines(
        {"type": "thread.started", "thread_id": "x"},
        {"type": "item.completed", "item": {"type": "error", "message": "Model metadata not found."}},
        {"type": "turn.started"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "I look first."}},
        {"type": "error", "message": "Reconnecting... 1/5"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": TEXT}},
        {"type": "turn.completed", "usage": {"input_tokens": 1111, "cached_input_tokens": 333, "output_tokens": 77}},
    ),
    "gemini": "Data collection is disabled.\n"
    + json.dumps({"session_id": "x", "response": TEXT, "stats": {"models": {"m": GEMINI_MODEL}}}, indent=2),
    "opencode": lines(
        {"type": "step_start", "sessionID": "s", "part": {"type": "step-start"}},
        {"type": "text", "sessionID": "s", "part": {"type": "text", "text": TEXT}},
        {"type": "step_finish", "sessionID": "s", "part": {"cost": 0.0071, "tokens": {"input": 1111, "output": 77}}},
    ),
    "qwen": json.dumps(
        [
            {"type": "system", "subtype": "init"},
            {
                "type": "result", "is_error": False, "result": TEXT,
                "usage": {"input_tokens": 2222, "output_tokens": 154},
                "stats": {"models": {"m": {"tokens": {"prompt": 2222}, "bySource": {"main": GEMINI_MODEL}}}},
            },
        ]
    ),
}  # fmt: skip


def read(case: str, output: str, *, code: int = 0, err: str = "", written: str | None = None) -> readers.Answer:
    data = output.encode()
    done = Ended(code, data, len(data), "")
    return readers.read(case.partition(",")[0], done, written, err + output)


@pytest.mark.parametrize("case", OUTPUTS)
def test_the_answer_and_what_it_took_are_found(case: str) -> None:
    answer = read(case, OUTPUTS[case])
    assert (answer.text, answer.error, answer.is_limited, answer.is_unable) == (TEXT, "", False, False)
    assert answer.usage["input_tokens"] == 1111
    assert answer.usage["output_tokens"] == 77
    assert answer.usage.get("cost_usd", 0.0071) == 0.0071


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_result_file_is_the_answer_and_what_it_took_is_kept(case: str) -> None:
    answer = read(case, OUTPUTS[case], written="from the file")
    assert (answer.text, answer.error, answer.usage["output_tokens"]) == ("from the file", "", 77)


@pytest.mark.parametrize("case", ["claude", "codex", "gemini", "opencode", "qwen"])
@pytest.mark.parametrize(
    "output", ["just a text", '{"just": "json"}', "[1, 2]", "{broken", '{"type": 7, "item": 7}', "[" * 9999]
)
def test_an_output_in_no_format_of_its_preset_is_the_answer_as_it_is(case: str, output: str) -> None:
    assert read(case, output) == readers.Answer(output)


@pytest.mark.parametrize("case", ["claude", "codex", "gemini", "opencode", "qwen"])
def test_one_that_says_nothing_has_answered_nothing(case: str) -> None:
    answer = read(case, "", err="Warning: no colours\n")
    assert answer.error == "it answered nothing: Warning: no colours"


def wrong(preset: str, words: str) -> tuple[str, str, int]:
    """Return how an agent CLI says that the service refused: stdout, stderr and exit code."""
    if preset == "claude":
        return json.dumps(CLAUDE | {"is_error": True, "result": f"API Error: {words}"}), "", 1
    if preset == "codex":
        return lines({"type": "turn.started"}, {"type": "turn.failed", "error": {"message": words}}), "", 1
    if preset == "opencode":
        return (
            lines({"type": "error", "sessionID": "s", "error": {"name": "APIError", "data": {"message": words}}}),
            "",
            1,
        )
    if preset == "qwen":
        return json.dumps([CLAUDE | {"result": f"[API Error: {words}]"}]), "", 0
    noise = "Ripgrep is not available.\n    at async main (file:///x.js:1:2)\n"
    return (
        "",
        noise + json.dumps({"session_id": "x", "error": {"type": "Error", "message": words, "code": 4}}, indent=2),
        145,
    )


@pytest.mark.parametrize("preset", readers.PRESETS)
@pytest.mark.parametrize(
    ("words", "is_limited", "is_unable"),
    [
        ("Request rejected (429)", True, False), ("Rate limit reached for gpt-5", True, False),
        ("You\u2019ve hit your usage limit.", True, False), ("Overloaded", True, False),
        ("You have exhausted your daily quota on this model.", True, False),
        ("Incorrect API key provided: none", False, True), ("Invalid API key · Fix external API key", False, True),
        ("Not logged in · Please run /login", False, True), ("the context is too long", False, False),
    ],
)  # fmt: skip
def test_what_is_the_service_s_fault_is_told_from_what_is_the_task_s(
    preset: str, words: str, *, is_limited: bool, is_unable: bool
) -> None:
    output, err, code = wrong(preset, words)
    answer = read(preset, output, code=code, err=err)
    assert words in answer.error
    assert (answer.is_limited, answer.is_unable) == (is_limited, is_unable)


@pytest.mark.parametrize("words", ["a rate limit of 429", "not logged in", "the quota is full"])
def test_an_answer_about_limits_is_an_answer(words: str) -> None:
    answer = read("claude", json.dumps(CLAUDE | {"result": words}))
    assert (answer.text, answer.error, answer.is_limited, answer.is_unable) == (words, "", False, False)
    assert not read("text", words, code=1).is_limited, "of a script nothing is known"


@pytest.mark.parametrize(
    ("words", "name"),
    [(["/opt/bin/claude", "-p"], "claude"), (["codex", "exec"], "codex"), (["./claude.sh"], "text"), (["sh"], "text")],
)
def test_the_preset_of_a_command_is_that_of_its_program(words: list[str], name: str) -> None:
    assert readers.named(words) == name


@pytest.mark.parametrize("usage", [{"input_tokens": -1}, {"input_tokens": "7"}, {"input_tokens": True}, 7, None])
def test_amounts_that_are_none_are_left_out(usage: Any) -> None:
    answer = read("claude", json.dumps(CLAUDE | {"usage": usage, "total_cost_usd": "free"}))
    assert (answer.text, dict(answer.usage)) == (TEXT, {})


def test_what_is_nested_without_end_is_no_answer_and_not_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    decode = json.JSONDecoder.raw_decode

    def counted(*args: Any) -> Any:
        nonlocal tries
        tries += 1
        return decode(*args)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    assert list(readers._objects("[\n" * 200_000)) == []
    assert tries == 1
