"""A channel's rules as JSON: what may be said, and what is refused."""

from __future__ import annotations

import pytest

from mcp_bus import policies, wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import Policy


def test_a_policy_written_and_read_is_the_same_and_later_settings_are_passed_over() -> None:
    policy = Policy(max_attempts=9, backoff_s=0.5, description="x")
    data = wire.dumps(policies.fields(policy) | {"later": 1})
    assert policies.load(data, "work") == policy


@pytest.mark.parametrize(
    "setting",
    [
        {"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": 1.5}, {"max_attempts": True}, {"max_attempts": "3"},
        {"lease_s": 0}, {"max_lease_s": 0}, {"lease_s": float("nan")}, {"lease_s": float("inf")}, {"ttl_s": 10**9},
        {"kind": "stack"}, {"kind": 7}, {"description": 7}, {"description": "x" * 4001}, {"retention_days": None},
        {"outputs": 1}, {"outputs": "yes"}, {"outputs": None},
    ],
    ids=lambda setting: str(setting)[:40],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_and_corrupt_in_a_file(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        policies.make(setting)
    if "nan" not in str(setting) and "inf" not in str(setting):
        with pytest.raises(CorruptRecord, match="'work'"):
            policies.load(wire.dumps(setting), "work")


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        policies.make({"color": 1})
    assert "max_attempts" in refusal.value.hint


def test_the_longest_description_can_be_read_back() -> None:
    data = wire.dumps(policies.fields(policies.make({"description": "\x01" * 4000})))
    assert len(data) < 65536
    assert policies.load(data, "work").description == "\x01" * 4000


@pytest.mark.parametrize("setting", [{"description": ["x" * 60_000]}, {"kind": "x" * 4000}, {"lease_s": "x" * 60_000}])
def test_what_is_said_of_a_long_value_is_short(setting: dict[str, object]) -> None:
    with pytest.raises(CorruptRecord) as error:
        policies.load(wire.dumps(setting), "work")
    assert len(str(error.value)) < 400
