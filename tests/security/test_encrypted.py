"""P20: what is encrypted is read by whom it is for, and by nobody else who has only the bus."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_bus import bidding, conductor, find
from mcp_bus.errors import DuplicateTask, InvalidRequest, NoKey, NotAllowed, ResultRejected, Untrusted
from mcp_bus.model import MAX_CONTENT, PLANS, State
from mcp_bus.signing import keys, switch
from tests.fakes import swept

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from tests.security.conftest import World

SECRET = "swordfish"  # noqa: S105  what the tests look for, and nobody's password
PLACE = "vault"
NO_KEY = "encrypted to 'worker'; this agent has no key for it"


def post(world: World, body: object = SECRET, *, agent: str = "planner", to: str = "worker", **options: object) -> str:
    made: str = world.bus(agent).post(PLACE, body, encrypt_to=[to], **options).id  # type: ignore[arg-type]  # passed on
    return made


def take(bus: Bus) -> Task:
    return bus.claim([PLACE]) or pytest.fail("nothing to claim")


# --- who reads it (rules EN2, EN5 to EN7) ----------------------------------------------------------------


def test_the_poster_and_the_recipient_read_it_and_the_result_and_nobody_else_does(world: World) -> None:
    i = post(world, title=f"about {SECRET}", result_schema={"const": {"ok": SECRET}})
    worker = world.bus("worker")
    task = take(worker)
    assert (task.body.content, task.body.title) == (SECRET, f"about {SECRET}")
    assert task.verified.startswith("planner (")
    worker.ack(task, {"ok": SECRET})
    for agent in ("planner", "worker"):
        done = world.bus(agent).get(i)
        assert done.result is not None
        assert (done.body.content, done.result.content, done.hidden) == (SECRET, f'{{"ok":"{SECRET}"}}', "")
        assert done.proof is not None
        assert done.proof.result.startswith("worker (")
    other = world.bus("other").get(i)
    assert other.result is not None
    assert (other.hidden, other.body.content, other.body.title) == (NO_KEY, f"({NO_KEY})", "")
    assert other.result.content == "(encrypted to 'planner'; this agent has no key for it)"
    assert world.holds(SECRET) == []


def test_on_the_disk_is_what_age_opens_and_in_clear_who_can(world: World) -> None:
    i = post(world)
    kept = json.loads((world.root / "tasks" / f"{i}.json").read_text())
    assert kept["content"].startswith("-----BEGIN AGE ENCRYPTED FILE-----\n")
    kids = sorted(key.kid for key in world.guard().own() if key.agent in ("planner", "worker"))
    assert kept["bus"] == {"encrypted": {"to": ["worker"], "kids": kids}}


def test_who_cannot_read_it_passes_over_it_and_is_told_and_it_stays_for_who_can(world: World) -> None:
    post(world, priority=9)
    other = world.bus("other")
    plain = other.post(PLACE, "plain").id
    assert [task.id for task in iter(lambda: other.claim([PLACE]), None)] == [plain]
    assert NO_KEY in find.why_empty(other, [PLACE], ())
    swept(other)
    assert take(world.bus("worker")).body.content == SECRET
    assert world.reasons() == []


def test_a_key_that_comes_later_opens_what_was_passed_over(world: World, disk: Path) -> None:
    post(world)
    home = disk / "late"
    late = world.bus("worker", home=home)
    assert late.claim([PLACE]) is None
    shutil.copytree(world.home, home, dirs_exist_ok=True)
    world.source.advance(11)
    assert take(late).body.content == SECRET


def test_words_are_found_only_by_who_can_read_them(world: World) -> None:
    i = post(world)
    assert [task.id for task in find.tasks(world.bus("worker"), text=SECRET)] == [i]
    assert list(find.tasks(world.bus("other"), text=SECRET)) == []


def test_a_topic_is_read_by_the_subscribers_it_is_for(world: World) -> None:
    world.key("second")
    bus, readers = world.bus(), [world.bus(agent) for agent in ("worker", "second", "other")]
    bus.create_channel("news", kind="topic", encrypt_to=["worker", "second"])
    for reader in readers:
        reader.mail.topics.subscribe("news")
    bus.mail.send("news", SECRET)
    got = [[item.body.content for item in reader.mail.read()] for reader in readers]
    assert got == [[SECRET], [SECRET], ["(encrypted to 'worker', 'second'; this agent has no key for it)"]]
    assert world.holds(SECRET) == []


def test_an_answer_to_an_encrypted_message_is_encrypted_to_its_sender(world: World) -> None:
    bus, worker = world.bus(), world.bus("worker")
    i = bus.mail.send("@worker", SECRET, encrypt_to=["worker"]).id
    assert [item.body.content for item in worker.mail.read()] == [SECRET]
    worker.mail.send("", f"again: {SECRET}", reply_to=i)
    assert [body.content for body in bus.mail.answers(i)] == [f"again: {SECRET}"]
    assert world.holds(SECRET) == []


def test_an_inbox_is_encrypted_by_its_rule_and_so_is_that_of_a_session(world: World) -> None:
    bus, worker = world.bus(), world.bus("worker")
    bus.create_channel("@worker", encrypt_to=["worker"])
    worker.roster.arrive(())
    bus.mail.send("worker", SECRET)
    bus.mail.send(f"worker~{worker.identity.session}", SECRET)
    assert [item.body.content for item in worker.mail.read()] == [SECRET, SECRET]
    assert world.holds(SECRET) == []


def test_a_call_its_bids_and_the_award_are_encrypted(world: World) -> None:
    bus, worker = world.bus(), world.bus("worker")
    bus.create_channel("calls", kind="topic", encrypt_to=["worker"])
    call = bus.post("calls", SECRET).id
    bid = worker.mail.send("", {SECRET: 1}, type="bid", reply_to=call).id
    assert [dict(item.terms) for item in bidding.bids(bus, call)] == [{SECRET: 1}]
    won = bidding.award(bus, bid)
    assert (worker.claim(["awards"]) or pytest.fail("nothing")).body.content == SECRET
    assert world.bus("other").get(won.id).hidden == NO_KEY
    assert world.holds(SECRET) == []


def test_an_agent_whose_name_has_blanks_posts_reads_and_is_answered(world: World) -> None:
    world.key("local/My Project, v2")
    bus, worker = world.bus("local/My Project, v2"), world.bus("worker")
    i = bus.post(PLACE, SECRET, encrypt_to=["worker", "local/My Project, v2"]).id
    worker.ack(take(worker), f"{SECRET}!")
    assert (bus.get(i).result or pytest.fail("no result")).content == f"{SECRET}!"


# --- what is posted twice, or anew (rules EN8, EN10) -----------------------------------------------------


def test_the_same_key_twice_is_one_task_though_no_two_ciphertexts_are_alike(world: World) -> None:
    bus = world.bus()
    bus.create_channel(PLACE, encrypt_to=["worker"])
    first, again = bus.post(PLACE, SECRET, key="k"), bus.post(PLACE, SECRET, key="k")
    assert (first.created, again.created, again.id) == (True, False, first.id)
    world.key("planner")
    assert world.bus().post(PLACE, SECRET, key="k", encrypt_to=["worker"]).id == first.id
    with pytest.raises(DuplicateTask):
        bus.post(PLACE, "something else", key="k")
    with pytest.raises(DuplicateTask):
        bus.post(PLACE, SECRET, key="k", encrypt_to=["planner"])


def test_a_dead_one_is_retried_as_it_is_and_edited_and_read_by_who_waits_for_it(world: World) -> None:
    world.key("second")
    first = world.bus()
    i = first.post(PLACE, SECRET, max_attempts=1, encrypt_to=["worker", "second"]).id
    worker, editor = world.bus("worker"), world.bus("second")
    for _ in range(2):
        worker.nack(take(worker), "no")
        if worker.get(i).state is State.DEAD:
            editor.retry(i)
    worker.nack(take(worker), "no") if worker.get(i).state is not State.DEAD else None
    with pytest.raises(NotAllowed, match="no key"):
        world.bus("other").retry(i, body="mine")
    new = editor.retry(i, body=f"{SECRET} 2").id
    task = take(worker)
    assert (task.id, task.body.content) == (new, f"{SECRET} 2")
    worker.ack(task, f"{SECRET} 3")
    ended = find.ending(first, i).task or pytest.fail("gone")
    assert ended.result is not None
    assert ended.result.content == f"{SECRET} 3"
    assert world.holds(SECRET) == []


# --- what may leak by the way ----------------------------------------------------------------------------


def test_neither_a_broken_contract_nor_a_reason_nor_an_output_tells_the_result(world: World) -> None:
    world.bus().create_channel(PLACE, outputs=True, encrypt_to=["worker"])
    i = world.bus().post(PLACE, "x", result_schema={"const": [SECRET]}).id
    worker = world.bus("worker")
    task = take(worker)
    with pytest.raises(ResultRejected):
        worker.ack(task, [SECRET, SECRET])
    worker.ack(worker.held()[0], [SECRET])
    swept(worker)
    assert world.bus().get(i).result is not None
    assert world.holds(SECRET) == []
    assert not list((world.root / "outputs").glob("*"))


def test_an_answer_that_it_cannot_be_done_is_encrypted_with_its_reason_and_files(world: World, disk: Path) -> None:
    i = post(world)
    (disk / SECRET).write_text(SECRET)
    worker = world.bus("worker")
    worker.ack(take(worker), "", error=f"no {SECRET}", artifacts=[str(disk / SECRET)])
    done = world.bus().get(i).result or pytest.fail("no result")
    assert (done.status, done.error, done.artifacts[0].path) == ("error", f"no {SECRET}", str(disk / SECRET))
    assert world.holds(SECRET) == []


def test_a_plan_never_has_a_step_on_an_encrypted_channel(world: World) -> None:
    bus = world.bus()
    bus.create_channel(PLACE, encrypt_to=["worker"])
    steps = [
        {"name": "a", "channel": "open", "body": "x"},
        {"name": "b", "channel": PLACE, "body": SECRET, "after": ["a"]},
    ]
    with pytest.raises(InvalidRequest, match="plans are plain text"):
        conductor.post(bus, {"goal": "g", "steps": steps})
    assert world.holds(SECRET) == []
    assert bus.store.records.names(PLANS) == []


def test_a_step_whose_channel_became_encrypted_is_not_posted(world: World) -> None:
    bus = world.bus()
    made = conductor.post(bus, {"goal": "g", "steps": [
        {"name": "a", "channel": "open", "body": "x"}, {"name": "b", "channel": PLACE, "body": "y", "after": "a"},
    ]})  # fmt: skip
    bus.create_channel(PLACE, encrypt_to=["worker"])
    bus.ack(bus.claim(["open"]) or pytest.fail("nothing"), "done")
    node = conductor.advance(bus, made.id)[1].nodes["b"]
    assert (str(node.stage), "plans are plain text" in node.why) == ("failed", True)


def test_who_cannot_read_it_cannot_answer_it(world: World) -> None:
    i = post(world)
    task = take(world.bus("worker"))
    with pytest.raises(NotAllowed, match="cannot read it"):
        world.bus("other").ack(task.ticket, "whatever")
    assert world.bus().get(i).state is State.LEASED


# --- for whom there is no key ----------------------------------------------------------------------------


@pytest.mark.parametrize(("agent", "to", "why"), [("planner", "nobody", "nobody"), ("stranger", "worker", "stranger")])
def test_without_a_key_nothing_is_posted_and_the_next_step_is_told(world: World, agent: str, to: str, why: str) -> None:
    with pytest.raises(NoKey, match=why) as error:
        post(world, agent=agent, to=to)
    assert "mcp-bus key" in error.value.hint
    assert list(world.bus().store.scan(PLACE, State.READY)) == []
    assert world.holds(SECRET) == []


def test_a_revoked_key_is_encrypted_to_no_more_and_still_opens_what_it_could(world: World) -> None:
    i = post(world)
    (old,) = world.guard().own("worker")
    new = world.key("worker")
    world.guard().trust.revoke(old.kid, world.source.now())
    kept = json.loads((world.root / "tasks" / f"{post(world)}.json").read_text())
    assert old.kid not in kept["bus"]["encrypted"]["kids"]
    assert new in kept["bus"]["encrypted"]["kids"]
    assert world.bus("worker").get(i).body.content == SECRET


def test_after_a_rotation_both_keys_open_what_is_posted(world: World) -> None:
    (old,) = world.guard().own("worker")
    new = world.key("worker")
    kept = json.loads((world.root / "tasks" / f"{post(world)}.json").read_text())
    assert {old.kid, new} < set(kept["bus"]["encrypted"]["kids"])
    assert keys.short(new)


def test_the_limit_counts_what_is_stored_and_says_so(world: World) -> None:
    with pytest.raises(InvalidRequest, match="once it is encrypted"):
        post(world, "x" * (MAX_CONTENT - 1000))
    i = post(world, "x" * (MAX_CONTENT * 7 // 10))
    worker = world.bus("worker")
    with pytest.raises(InvalidRequest, match="once it is encrypted"):
        worker.ack(take(worker), "x" * (MAX_CONTENT - 1000))
    assert worker.get(i).state is State.LEASED


# --- the rule of a channel (rule EN9) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [("{}", False), ('{"encrypt_to":[]}', False), ('{"encrypt_to":["mallory"]}', True),
     ('{"encrypt_to":["worker","mallory"]}', True), (None, False)],
)  # fmt: skip
def test_whoever_edits_the_policy_gets_neither_plain_text_nor_another_reader(
    world: World, text: str | None, *, is_refused: bool
) -> None:
    mallory = world.key("mallory")
    world.bus().create_channel(PLACE, encrypt_to=["worker"])
    path = world.root / "channels" / PLACE / "channel.json"
    path.write_text(text) if text is not None else path.unlink()
    if is_refused:
        with pytest.raises(Untrusted, match="mallory") as error:
            world.bus().post(PLACE, SECRET)
        assert "channel set" in error.value.hint
    else:
        i = world.bus().post(PLACE, SECRET).id
        assert mallory not in (world.root / "tasks" / f"{i}.json").read_text()
    assert world.holds(SECRET) == []


def test_a_program_cannot_change_the_readers_and_a_person_can(world: World) -> None:
    world.key("second")
    bus = world.bus()
    bus.create_channel(PLACE, encrypt_to=["worker"])
    for to in (["worker", "second"], []):
        with pytest.raises(InvalidRequest, match="only a person"):
            bus.create_channel(PLACE, encrypt_to=to)
    bus.create_channel(PLACE, encrypt_to=["worker"], lease_s=60)
    switch.readdress(bus.store, PLACE, ["second"])
    bus.post(PLACE, SECRET)
    assert take(world.bus("second")).body.content == SECRET
    switch.readdress(bus.store, PLACE, [])
    bus.post(PLACE, "plain")
    assert world.holds("plain")


@pytest.mark.parametrize("to", [["*"], ["a b"], "worker", [""]])
def test_a_rule_names_agents_and_no_patterns(world: World, to: object) -> None:
    with pytest.raises(InvalidRequest):
        world.bus().create_channel(PLACE, encrypt_to=to)


def test_without_keys_or_the_extra_it_is_neither_posted_nor_read_and_the_rest_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(world)
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(NoKey) as error:
        post(world)
    assert f"{sys.executable} -m pip install pyrage" in error.value.hint
    worker = world.bus("worker")
    worker.post(PLACE, "plain")
    assert take(worker).body.content == "plain"
    assert worker.claim([PLACE]) is None
    assert "not installed" in find.why_empty(worker, [PLACE], ())
