"""What was found once, and what is typical, is tried by every run, with or without atheris; and it could fail."""

from __future__ import annotations

import json
import signal
import sys
import tracemalloc
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import history, names, wire
from mcp_bus.errors import InvalidRequest
from tests.fuzz.campaign import SEEDS, seed
from tests.fuzz.mutate import FORMS
from tests.fuzz.targets import TARGETS
from tests.tally import INPUTS, tried

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.targets import Target

# How much more may be done for four times the input; the square would be 16.
MOST_GROWN = 6
# Bytes of memory for a byte of input: an empty list of JSON takes three bytes, and 56 in Python.
MOST_MEMORY, ROOM = 400, 2_000_000
CPU_S = 5.0
# A reader of YAML that is written in Python takes a hundred times as long as the others.
SIZES = {"plan": 2000}
# What parsers may be slow on: inserted into seeds, again and again.
GROWING = {
    "json": (" ", "[],", '"a":{},', "x", "\\\\", "\\u0001", '["x"],', '"x",', "1"),
    "parts": ("A", ".", "AA", "_"),
    "text": (" ", "a", "{{", "}}", "\\{{", ".a", "{{a", "{", ".p1", "_request", "~", "\\"),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_of_the_corpus_breaks_a_rule_and_some_of_it_is_read(target: Target) -> None:
    is_read = [target.check(seed(text)) for text in SEEDS[target.name]]
    assert any(is_read)
    tried(INPUTS, len(SEEDS[target.name]))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_near_the_corpus_breaks_a_rule(target: Target) -> None:
    for number in range(60):
        chance = Random(number)  # noqa: S311  to be repeated, not to be secret
        data = seed(chance.choice(SEEDS[target.name]))
        for _ in range(3):
            data = FORMS[target.form](data, chance, target.words)
            target.check(data)
            tried(INPUTS)


# --- how much is done, counted ----------------------------------------------------------------------------


def steps(target: Target, data: bytes) -> int:
    """Return how many lines a check runs through, each as often as it is come to."""
    count = 0

    def step(_frame: Any, _event: str, _arg: object) -> Any:
        nonlocal count
        count += 1
        return step

    sys.settrace(step)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return count


@contextmanager
def bounded() -> Iterator[None]:
    """Allow seconds of processor time for what takes milliseconds: an engine in C can be counted by no line."""

    def late(*_: object) -> None:
        msg = f"it takes more than {CPU_S:g} s of processor time"
        raise AssertionError(msg)

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def grown(target: Target, count: int) -> Iterator[bytes]:
    """Return a seed or two with something in it, in the middle, at three quarters or at the end, so many times."""
    texts = SEEDS[target.name]
    for text in (texts[0], texts[len(texts) // 2]) if target.form == "text" else texts[:1]:
        data = seed(text)
        for more in GROWING[target.form]:
            for at in (len(data) // 2, 3 * len(data) // 4, len(data)):
                yield data[:at] + more.encode() * count + data[at:]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_work_and_memory_grow_with_the_input_and_not_with_its_square(target: Target) -> None:
    target.check(seed(SEEDS[target.name][0]))  # What is imported and compiled once is no growth.
    for small, large in zip(grown(target, 100), grown(target, 400), strict=True):
        before, after = steps(target, small), steps(target, large)
        assert after <= MOST_GROWN * before, f"{before} steps became {after}: {small[:200]!r}"
        tried(INPUTS, 2)
    for data in grown(target, SIZES.get(target.name, 20_000)):
        tracemalloc.start()
        try:
            with bounded():
                target.check(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= MOST_MEMORY * len(data) + ROOM, f"{len(data)} bytes took {peak}: {data[:200]!r}"
        tried(INPUTS)


# --- it could fail ----------------------------------------------------------------------------------------


def test_a_reader_of_double_keys_and_of_numbers_that_are_none_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_decode", json.JSONDecoder().decode)
    with pytest.raises(AssertionError, match="stands twice"):
        TARGETS["strict"].check(b'{"a":1,"a":2}')
    with pytest.raises(InvalidRequest):
        TARGETS["strict"].check(b'{"a":NaN}')


def test_a_name_of_which_a_part_is_passed_over_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_WAITING", names._WAITING.replace(r"\.json\Z", r"(?:\.[a-z]+)?\.json\Z"))
    with pytest.raises(AssertionError, match="is Slot"):
        TARGETS["names"].check(b"requests/req_01234567.tmp.json")


def test_an_error_that_is_not_declared_and_one_without_end_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(data: bytes) -> dict[str, Any]:
        wire._refuse(repr(data) * 2000)

    monkeypatch.setattr(wire, "loads", endless)
    with pytest.raises(AssertionError, match="an error of"):
        TARGETS["policy"].check(b"{}")
    monkeypatch.setattr(wire, "loads", lambda data: {b"": {}}[data])
    with pytest.raises(KeyError):
        TARGETS["policy"].check(b"{}")


def test_what_takes_its_square_of_steps_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = wire.loads

    def slow(data: bytes) -> dict[str, Any]:
        for _ in range(len(data)):
            for _ in range(len(data)):
                pass
        return real(data)

    monkeypatch.setattr(history, "loads", slow)
    target, data = TARGETS["history"], seed(SEEDS["history"][0])
    assert steps(target, data + b" " * 400) > MOST_GROWN * steps(target, data[:-1])
