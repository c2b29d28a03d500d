"""A workers file is read whole or refused with the line and the key."""

from __future__ import annotations

import pytest

from mcp_bus.errors import InvalidRequest
from mcp_bus.workers import fleet

GOOD = """\
strategy = "rest_for_one"
max_restarts = 9
within = "2m"

[workers.review]
preset = "claude"
command = ["--model", "opus"]
role = "reviewer"
channels = ["review", "docs"]
capabilities = ["python"]
instances = 2
concurrency = 3
timeout = "10m"
lease = 30
drain = "1m"
cwd = "src"
allow_eval = ["boss*"]

[workers.signals]
watch = "builds"
command = ["./on-signal.sh"]
"""


def test_every_key_says_how_workers_are_run() -> None:
    made = fleet.parse(GOOD, "w.toml")
    assert (made.strategy, made.max_restarts, made.within_s) == ("rest_for_one", 9, 120.0)
    review, signals = made.workers
    assert review.names() == ["review-1", "review-2"]
    assert review.words() == [
        "worker", "run", "review", "docs", "--preset=claude", "--role=reviewer", "--capability=python",
        "--timeout=600", "--lease=30", "--drain=60", "--cwd=src", "--concurrency=3",
        "--allow-eval=boss*", "--", "--model", "opus",
    ]  # fmt: skip
    assert signals.names() == ["signals"]
    assert signals.words() == ["watch", "builds", "--", "./on-signal.sh"]


@pytest.mark.parametrize(
    ("said", "passed"),
    [('"30d"', "2592000"), ("0.25", "0.25"), ("0.00001", "0.00001"), ("1", "1"), ('"300h"', "1080000")],
)
def test_a_time_is_passed_on_in_digits(said: str, passed: str) -> None:
    made = fleet.parse(f'[workers.a]\ncommand = ["true"]\ntimeout = {said}\n', "w.toml")
    assert f"--timeout={passed}" in made.workers[0].words()


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ('preset = "claude"', 'preset = "gpt"', 6, "preset: 'gpt' is none of claude, codex"),
        ('channels = ["review", "docs"]', "channels = [7]", 9, "channels: it is not a text"),
        ('channels = ["review", "docs"]', 'channels = ["Not One"]', 9, "channels: "),
        ("instances = 2", "instances = 0", 11, "instances: it is not a whole number from 1 to 64"),
        ("instances = 2", "instances = true", 11, "instances: it is not a whole number"),
        ('timeout = "10m"', 'timeout = "soon"', 13, "timeout: 'soon' is not a time span"),
        ("lease = 30", "lease = 0.5", 14, "lease: a lease lasts at least a second"),
        ("lease = 30", "leese = 30", 14, "there is no key 'leese'"),
        ('strategy = "rest_for_one"', 'strategy = "all"', 1, "strategy: 'all' is none of one_for_one"),
        ('command = ["./on-signal.sh"]', 'command = "./on-signal.sh"', 21, "command: it is not a list"),
        ('command = ["./on-signal.sh"]', "", 19, "it has no command"),
        ('watch = "builds"', 'watch = "builds"\nchannels = ["x"]', 20, "a handler has no preset"),
        ("[workers.review]", "[workers.'no such name']", 5, "is no worker"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_key(old: str, new: str, line: int, why: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidRequest) as caught:
        fleet.parse(GOOD.replace(old, new, 1), "w.toml")
    assert str(caught.value).startswith(f"w.toml, line {line}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[workers", "is not TOML: Expected"),
        ("", "has no workers"),
        ("workers = 7", "has no workers"),
        ("x = 1", "no key 'x'"),
    ],
)  # fmt: skip
def test_what_is_no_workers_file_says_so(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        fleet.parse(text, "w.toml")
