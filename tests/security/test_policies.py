"""Who may post, claim and read: the rules of a channel, and that no way leads around them for who uses this program.

A process that writes the files itself is another matter: what it posts past the rule is not handed out, and put aside.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import access, find, plans, policies, wire
from mcp_bus.conductor import advance
from mcp_bus.conductor import post as post_plan
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest, NotAllowed, Overloaded, Unverified
from mcp_bus.model import Policy, State
from mcp_bus.plan import outcome
from mcp_bus.server import errors
from mcp_bus.stores.file import FileStore
from tests.fakes import bus_on, swept
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource

TOLD = "the combination is 8143"


def by_hand(root: Path, task_id: str, sender: str, channel: str = "work") -> Path:
    """Put a message into a bus as a program does that knows no rules."""
    path = root / "channels" / channel / "requests" / f"{task_id}.json"
    path.write_text(json.dumps({"id": task_id, "to": channel, "content": "x", "from": {"agent": sender}}))
    return path


# --- what may be said -------------------------------------------------------------------------------------


def test_patterns_survive_the_file_and_are_lists_in_json() -> None:
    policy = policies.make({"post_by": ["planner", "ci-*", "planner"], "read_by": []})
    assert policy.post_by == ("planner", "ci-*")
    assert policies.fields(policy)["post_by"] == ["planner", "ci-*"]
    assert policies.load(wire.dumps(policies.fields(policy)), "work") == policy


@pytest.mark.parametrize(
    "value",
    ["planner", None, 7, [7], [""], ["a b"], ["a,b"], ["[ab]"], ["a\n"], ["x" * 161], ["x"] * 51,
     [f"{number:02}" + "\U0001f600" * 150 for number in range(50)]],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_no_list_of_patterns_is_refused_and_corrupt_in_a_file(value: object) -> None:
    for name in ("post_by", "claim_by", "read_by"):
        with pytest.raises(InvalidRequest, match=name):
            policies.make({name: value})
        with pytest.raises(CorruptRecord):
            policies.load(wire.dumps({name: value}), "work")


def test_the_longest_rules_can_be_read_back() -> None:
    longest = [f"{number:02}" + "\U0001f600" * 39 for number in range(50)]
    policy = policies.make(dict.fromkeys(("post_by", "claim_by", "read_by"), longest) | {"description": "\x01" * 4000})
    data = wire.dumps(policies.fields(policy))
    assert len(data) < 65536
    assert policies.load(data, "work") == policy


@pytest.mark.parametrize(
    ("patterns", "agent", "lets"),
    [
        ((), "anyone", True), (("ci-*",), "ci-1", True), (("ci-*",), "xci-1", False), (("ci-*",), "CI-1", False),
        (("ci-?",), "ci-12", False), (("planner",), "planner2", False), (("a", "b*"), "bob", True),
        (("github.com/*/main",), "github.com/acme/app/main", True),
    ],
)  # fmt: skip
def test_a_pattern_is_the_whole_name(patterns: tuple[str, ...], agent: str, lets: bool) -> None:  # noqa: FBT001  a parameter
    assert policies.lets(patterns, agent) is lets


# --- posting ----------------------------------------------------------------------------------------------


def test_who_may_not_post_is_told_who_may_and_nothing_is_written(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", post_by=["ann", "ci-*"])
    with pytest.raises(NotAllowed) as error:
        other.post("work", "x")
    assert "'bob'" in str(error.value)
    assert "'ann', 'ci-*'" in str(error.value)
    assert "'ci-*'" in errors.of_bus(error.value)
    assert (error.value.code, bus.store.ids()) == ("not_allowed", [])
    assert bus.post("work", "x").created


def test_no_other_way_to_post_leads_around_it(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", post_by=["ann"])
    bus.create_channel("news", kind="topic", post_by=["ann"])
    task = bus.post("work", "x")
    bus.nack(bus.claim(["work"]) or pytest.fail("nothing to claim"), "no", final=True)
    ids = bus.store.ids()
    ways: list[Callable[[], object]] = [
        lambda: other.retry(task.id, body="mine"),
        lambda: other.mail.send("work", "mine"),
        lambda: other.mail.send("news", "mine"),
        lambda: other.post("news", "mine"),
    ]
    for way in ways:
        with pytest.raises(NotAllowed):
            way()
    assert bus.store.ids() == ids


def test_a_plan_posts_in_its_owners_name_and_its_step_says_why_it_could_not(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", post_by=["ann"])
    plan = post_plan(other, {"goal": "g", "steps": [{"name": "a", "channel": "work", "body": "x"}]})
    advance(bus, plan.id)  # Also when somebody moves it on who may post.
    _, progress = plans.progress(bus, plan.id)
    assert "may not post" in progress.nodes["a"].why
    assert bus.store.ids() == []
    assert outcome(plan, progress) == "failed"


def test_whom_the_rules_leave_out_does_not_change_them(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", claim_by=[bus.identity.agent], read_by=["reader"])
    before = bus.store.policy("work")
    for rule, names in (("claim_by", []), ("read_by", ["*"]), ("post_by", [other.identity.agent])):
        with pytest.raises(NotAllowed, match="may not change the settings") as told:
            other.create_channel("work", **{rule: names})
        assert told.value.hint
        assert bus.store.policy("work") == before
    bus.create_channel("work", read_by=[])
    other.is_person = True
    assert other.create_channel("work", claim_by=[]).claim_by == ()


STRANGERS = {
    "max_waiting": 0,
    "max_waiting_by_sender": 0,
    "retention_days": 1,
    "max_attempts": 1,
    "ttl_s": 1.0,
    "lease_s": 1.0,
    "max_lease_s": 1.0,
    "outputs": True,
    "signed": True,
    "encrypt_to": ["bob"],
    "description": "mine",
}


@pytest.mark.parametrize("setting", STRANGERS)
def test_whom_the_rules_leave_out_changes_no_setting_of_the_channel(bus: Bus, other: Bus, setting: str) -> None:
    bus.create_channel("work", post_by=["ann"], claim_by=["carl"], max_waiting=1, max_waiting_by_sender=1)
    before = bus.store.policy("work")
    with pytest.raises(NotAllowed, match="may not change the settings of 'work'") as told:
        other.create_channel("work", **{setting: STRANGERS[setting]})
    assert told.value.hint
    assert bus.store.policy("work") == before
    assert other.create_channel("work") == before  # Nothing is changed: who makes sure that it is there may ask.
    if setting not in ("signed", "encrypt_to"):  # For which keys are needed.
        bus.create_channel("work", **{setting: STRANGERS[setting]})
        assert bus.store.policy("work") != before


def test_a_quota_is_not_lifted_by_whom_the_rules_leave_out(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", post_by=["ann"], max_waiting=1)
    bus.post("work", "a")
    with pytest.raises(NotAllowed):
        other.create_channel("work", max_waiting=0)
    with pytest.raises(Overloaded):
        bus.post("work", "b")
    bus.create_channel("free", max_waiting=1)  # Without lists anybody sets what they like, as before.
    assert other.create_channel("free", max_waiting=0).max_waiting == 0


def test_a_rule_is_not_made_over_tasks_it_would_put_aside(bus: Bus, other: Bus) -> None:
    bus.create_channel("work")
    task = other.post("work", "x")
    with pytest.raises(Conflict, match="bob"):
        bus.create_channel("work", post_by=["ann"])
    assert bus.store.policy("work").post_by == ()
    bus.cancel(task.id)
    bus.create_channel("work", post_by=["ann"])
    for verb in (bus.retry, bus.undo):
        with pytest.raises(NotAllowed, match="bob"):
            verb(task.id)


# --- posted past the rule ---------------------------------------------------------------------------------


def test_what_was_put_there_past_the_rule_is_passed_over_and_put_aside_once_settled(
    root: Path, file_bus: Bus, source: VirtualSource
) -> None:
    file_bus.create_channel("work", post_by=["ann"])
    path = by_hand(root, "req_0000000000000001", "bob")
    source.time = int(path.stat().st_mtime * 1000)
    mine = file_bus.post("work", "honest").id
    task = file_bus.claim() or pytest.fail("nothing to claim")
    assert task.id == mine
    assert file_bus.claim(["work"]) is None
    assert path.exists()  # Somebody may be about to change the rule, or the file.
    source.advance(6)
    assert file_bus.claim(["work"]) is None
    swept(file_bus)
    assert not path.exists()
    reason = json.loads(next((root / "quarantine").glob("*.reason.json")).read_text())
    assert "'bob' may not post on 'work'" in reason["reason"]


def test_a_rule_that_was_widened_just_now_puts_nothing_aside(root: Path, source: VirtualSource) -> None:

    one, two = (
        bus_on(FileStore(root, source=source), source, name, f"{n:08x}") for n, name in enumerate(("ann", "bob"))
    )
    one.create_channel("work", post_by=["ann"])
    assert one.store.policy("work").post_by == ("ann",)
    two.is_person = True
    two.create_channel("work", post_by=[])
    two.post("work", "x")
    assert one.store.policy("work").post_by == ("ann",)  # Read at most once a second.
    assert one.claim(["work"]) is not None


def test_what_a_sweep_moves_is_not_held_up_by_it(root: Path, file_bus: Bus, source: VirtualSource) -> None:
    file_bus.post("work", "x", ttl_s=5)
    task = file_bus.claim(["work"], lease_s=1) or pytest.fail("nothing to claim")
    (root / "channels/work/channel.json").write_bytes(wire.dumps(policies.fields(Policy(post_by=("zoe",)))))
    source.advance(2)
    assert any("came back" in line for line in swept(file_bus))
    assert file_bus.get(task.id).state is State.SCHEDULED


def test_on_a_signed_channel_the_proven_name_decides(world: World) -> None:
    bus = world.bus()
    bus.create_channel(CHANNEL, post_by=["planner"])
    with pytest.raises(NotAllowed):
        world.bus("worker").post(CHANNEL, "x")
    past = world.bus("worker")
    past.store.add(past.get(bus.post(CHANNEL, "x").id).body._replace(id="req_00000000000000aa", sender=past.sender()))
    honest = bus.claim([CHANNEL]) or pytest.fail("nothing to claim")
    assert honest.body.sender.agent == "planner"
    assert bus.claim([CHANNEL]) is None
    with pytest.raises(Unverified, match="may not post"):
        bus.get("req_00000000000000aa")


# --- claiming ---------------------------------------------------------------------------------------------


def test_who_may_not_claim_passes_over_the_channel_and_is_refused_where_it_names_it(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", claim_by=["ann"])
    task = bus.post("work", "x")
    assert other.claim() is None
    assert other.claim(lease_s=9) is None
    assert "not for 'bob' to claim: work" in find.why_empty(other, (), ())
    with pytest.raises(NotAllowed, match="'ann'"):
        other.claim(["work"])
    with pytest.raises(NotAllowed):
        other.claim(["play", "work"])
    taken = bus.claim() or pytest.fail("nothing to claim")
    assert taken.id == task.id


def test_a_listing_made_before_the_rule_gives_nothing_out_after_it(bus: Bus, other: Bus, source: VirtualSource) -> None:
    for content in ("a", "b", "c"):
        bus.post("work", content)
    assert other.claim() is not None
    bus.create_channel("work", claim_by=["ann"])
    source.refresh()
    assert other.claim() is None


def test_a_rule_made_while_it_is_claimed_holds_all_the_same(
    bus: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.create_channel("work", claim_by=["ann"])
    bus.post("work", "x")
    monkeypatch.setattr(access, "claimable", lambda _store, channels, _agent: channels)
    assert other.claim() is None


def test_without_claim_by_only_who_may_read_may_claim(bus: Bus, other: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", read_by=["ann"])
    bus.post("work", "x")
    assert other.claim() is None
    with pytest.raises(NotAllowed, match="read_by"):
        other.claim(["work"])
    bus.create_channel("work", claim_by=["bob"])
    source.refresh()
    assert (other.claim() or pytest.fail("nothing to claim")).body.content == "x"
