"""Each tool does what it says, in both eras, in this process and over the stdio of a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.model import Outcome, State
from tests.server.support import BLOCK, Desk, claim_in, desk, found, open_bus, process, serving, tasks

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio


async def story(ann: Desk) -> None:
    """Post, claim, keep, look, finish, read: the whole loop of two agents."""
    assert await ann.call("list_channels") == (
        'no channels yet; the first post_task makes one\nagents here: "ann" (you)\nnext: post_task(channel, body)'
    )
    text = await ann.call("post_task", channel="review", body="please\nlook", title="Look", options={"priority": 3})
    task = found(r"posted (\w{8}) on review", text)
    assert text.endswith(f'this made a new channel; 1 ready there\nnext: await_results(tasks=["{task}"])')
    assert "channel review: 1 ready; oldest waits" in await ann.call("list_channels")

    claim = await ann.claim("review")
    assert (claim.task, claim.attempt) == (task, 1)
    assert BLOCK.findall(claim.text) == [(claim.token, "please\nlook")]
    assert '\ntitle: "Look"\n' in claim.text
    assert claim.text.endswith(f'submit_result(task="{task}", token="{claim.token}", result="…")')

    assert "still yours for 5 min, attempt 1" in await ann.call("heartbeat", **claim.mine, progress="half way")
    waiting = await ann.call("await_results", tasks=[task], wait_s=0)
    assert waiting.startswith("0 of 1 ended")
    assert 'leased by "ann~' in waiting
    assert 'progress: "half way"' in waiting

    done = await ann.call("submit_result", **claim.mine, result="fine")
    assert done == f"{task} is done; its result is on disk for whoever posted it\nnext: claim_next"
    ended = await ann.call("await_results", tasks=[task])
    assert ended.startswith("1 of 1 ended")
    assert [text for _, text in BLOCK.findall(ended)] == ["fine"]
    shown = await ann.call("get_task", task=task)
    assert [text for _, text in BLOCK.findall(shown)] == ["please\nlook", "fine"]
    assert shown.endswith("next: nothing, it has ended")
    assert f'{task} review done "Look"' in await ann.call("find_tasks", text="LOOK please", state="done")
    assert (await ann.call("find_tasks", text="nowhere")).startswith("nothing found")
    assert (await ann.call("claim_next")).startswith("empty: nothing to do on any channel")


async def test_a_task_goes_from_post_to_result(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await story(ann)


async def test_a_task_goes_from_post_to_result_through_a_real_process(place: Path, era: str) -> None:
    async with serving(process(place, MCP_BUS_DURABILITY="full"), era) as ann:
        await story(ann)


async def test_a_bus_is_made_at_the_first_call_only(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await ann.client.list_tools()
        assert not (place / "bus").exists()
        await ann.call("list_channels")
        assert (place / "bus" / "bus.json").exists()


async def test_a_post_says_what_it_made_and_how_much_waits(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await ann.post("alpha")
        assert "this made a new channel; others: alpha" in await ann.call("post_task", channel="beta", body="x")
        text = await ann.call("post_task", channel="alpha", body="x")
        assert "new channel" not in text
        assert "2 ready there" in text


async def test_every_option_of_a_post_reaches_the_task(place: Path, era: str, bob: Bus) -> None:
    options = {"priority": -4, "delay_s": 50, "ttl_s": 90, "max_attempts": 7, "backoff_s": 1.5, "thread": "t"}
    async with desk(place, era) as ann:
        first = await ann.post(title="T", requires="gpu, rust", key="k", options={**options, "reply_to": "r"})
        second = await ann.post(body={"a": ["é", 1]})

    body = tasks(bob)[first].body
    assert (body.title, body.thread, body.reply_to) == ("T", "t", "r")
    assert (body.priority, body.max_attempts, body.backoff_s) == (-4, 7, 1.5)
    assert (body.not_before - body.created, body.deadline - body.not_before) == (50_000, 90_000)
    assert body.requires == ("gpu", "rust")
    assert body.sender.agent == "ann"
    plain = tasks(bob)[second].body
    assert plain.content == '{"a": ["é", 1]}'
    assert (plain.max_attempts, plain.backoff_s, plain.priority, plain.not_before, plain.key) == (None, None, 0, 0, "")


async def test_a_key_makes_a_repeated_post_harmless(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(key="once")
        again = await ann.call("post_task", channel="review", body="look at it", key="once")
        assert again.startswith(f"already posted under that key: {task} on review")
        other = await ann.refused("post_task", channel="review", body="something else", key="once")
        assert "has another body" in other
    async with desk(place, era) as ann:
        assert await ann.post(key="once") == task
    assert list(tasks(bob)) == [task]


async def test_a_failed_attempt_is_tried_again_and_then_dead(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(options={"max_attempts": 2, "backoff_s": 0})
        first = await ann.claim()
        text = await ann.call("submit_result", **first.mine, status="failed", result="no disk")
        assert text == f"{task} failed; attempt 2 of 2 is due now\nnext: claim_next"
        second = await ann.claim()
        assert second.attempt == 2
        assert 'before: attempt 1 failed by "ann": "no disk"' in second.text
        text = await ann.call("submit_result", **second.mine, status="failed", retry_in_s=60)
        assert text == f"{task} failed for the last time: it is dead after 2 attempts\nnext: claim_next"
        ended = await ann.call("await_results", tasks=[task])
        assert 'attempt 2 failed by "ann": "no reason given"' in ended
        assert f'next: control_task(task="{task}", action="retry"' in ended


async def test_a_wished_pause_is_kept(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        claim = await ann.claim()
        await ann.call("submit_result", **claim.mine, status="failed", result="busy", retry_in_s=3600)
        seen = tasks(bob)[task].slot
        assert seen.state is State.SCHEDULED
        assert 3_590_000 < seen.not_before - bob.source.now() <= 3_600_000
        assert "1 scheduled" in await ann.call("claim_next")


async def test_a_released_task_is_untouched(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        claim = await ann.claim()
        text = await ann.call("submit_result", **claim.mine, status="release", result="not mine to do")
        assert f"{task} was given back and is ready" in text
        assert (tasks(bob)[task].state, tasks(bob)[task].slot.attempt) == (State.READY, 0)
        again = await ann.claim()
        assert again.attempt == 1
        assert "not mine to do" in again.text


async def test_a_question_is_answered_and_the_next_worker_reads_the_answer(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(body="delete the table?")
        claim = await ann.claim()
        text = await ann.call("submit_result", **claim.mine, status="blocked", result="which table?")
        assert f"{task} is blocked: it waits for an answer, which is a retry with a note" in text
        assert f"{task} review blocked, waits for a person" in await ann.call("await_results", tasks=[task])
        assert (await ann.call("claim_next")).startswith("empty")
        text = await ann.call("control_task", task=task, action="retry", note="the one named tmp_2")
        assert text == f'{task} review ready "delete the table?"\nnext: await_results(tasks=["{task}"])'
        after = await ann.claim()
        assert 'before: attempt 1 blocked by "ann": "which table?"' in after.text
        assert 'before: attempt 1 retried by "ann": "the one named tmp_2"' in after.text


async def test_who_gets_an_edited_task_reads_what_became_of_the_first(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(body="frist", options={"max_attempts": 1})
        await ann.call("submit_result", **(await ann.claim()).mine, status="failed", result="typo")
        await ann.call("control_task", task=task, action="retry", body="first", note="corrected")
        claim = await ann.claim()
        said = [
            f"before, as {task}: attempt 1 {how}"
            for how in ('failed by "ann": "typo"', 'retried by "ann": "corrected"')
        ]
        shown = await ann.call("get_task", task=claim.task)
        for line in said:
            assert f"\n{line}\n" in claim.text
            assert f"\n{line}\n" in shown
        for tool, arguments in {"get_task": {"task": task}, "find_tasks": {"text": "frist"}}.items():
            text = await ann.call(tool, **arguments)
            assert f'{task} review edited, lives on as {claim.task} "frist"' in text
        assert (await ann.call("get_task", task=task)).endswith(f'next: get_task(task="{claim.task}")')
        waiting = await ann.call("await_results", tasks=[task])
        assert f"\n{task} lives on as {claim.task} review leased by" in waiting


async def test_what_waits_after_a_failure_says_when_and_why(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(body="\n\n  first line\nsecond")
        claim = await ann.claim()
        text = await ann.call("submit_result", **claim.mine, status="failed", result="busy", retry_in_s=3600)
        assert text.startswith(f"{task} failed; attempt 2 of 3 is due in 60 min\n")
        waiting = await ann.call("await_results", tasks=[task])
        assert f'\n{task} review scheduled, due in 60 min "first line"; attempt 1 failed by "ann": "busy"\n' in waiting
        assert f'{task} review scheduled, due in 60 min "first line"' in await ann.call("find_tasks")


async def test_a_list_names_a_task_without_title_by_how_it_begins_and_cuts_it(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await ann.post(body="w" * 300)
        assert f' review ready "{"w" * 79}…"\n' in await ann.call("find_tasks")
        await ann.post("blank", body=" \n ")
        assert " blank ready\n" in await ann.call("find_tasks", channel="blank")


async def test_a_repeated_post_says_how_its_task_stands(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        post = {"channel": "review", "body": "x", "key": "k"}
        task = await ann.post(**post)
        again = f"already posted under that key: {task} on review, it is "
        assert (await ann.call("post_task", **post)).startswith(f"{again}ready; 1 ready there\n")
        claim = await ann.claim()
        assert (await ann.call("post_task", **post)).startswith(f'{again}leased by "ann~')
        await ann.call("submit_result", **claim.mine, result="fine")
        assert (await ann.call("post_task", **post)).startswith(f"{again}done; 0 ready there\n")


async def test_an_edited_retry_is_followed_by_whoever_waits(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(body="frist", options={"max_attempts": 1})
        await ann.call("submit_result", **(await ann.claim()).mine, status="failed", result="typo")
        text = await ann.call("control_task", task=task, action="retry", body="first", note="corrected")
        successor = found(r"^(\w{8}) review ready", text)
        assert successor != task
        claim = await ann.claim()
        assert (claim.task, BLOCK.findall(claim.text)[0][1]) == (successor, "first")
        await ann.call("submit_result", **claim.mine, result="good")
        ended = await ann.call("await_results", tasks=[task])
        assert ended.startswith("1 of 1 ended")
        assert BLOCK.findall(ended)[0][1] == "good"
        assert f"replaces {task}" in await ann.call("get_task", task=successor)


async def test_an_operator_moves_a_task_and_takes_it_back(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post(options={"delay_s": 3600, "max_attempts": 1})

        async def control(action: str, **more: object) -> str:
            return await ann.call("control_task", task=task, action=action, **more)

        await control("reprioritise", priority=9)
        assert tasks(bob)[task].slot.priority == 9
        await control("requeue")
        assert tasks(bob)[task].state is State.READY
        assert '; action "undo" takes that back\nnext: nothing' in await control("cancel", note="not wanted")
        await control("undo")
        assert tasks(bob)[task].state is State.READY
        await ann.call("submit_result", **(await ann.claim()).mine, status="failed")
        assert '"undo" takes that back' in await control("discard")
        assert tasks(bob)[task].state is State.CANCELLED
        assert f"{task} review dead" in await control("undo")
        story = [(line.outcome, line.note) for line in tasks(bob)[task].history]
    assert (Outcome.CANCELLED, "not wanted") in story
    assert [outcome for outcome, _ in story][-2:] == [Outcome.DISCARDED, Outcome.UNDONE]


async def test_a_search_is_paged(place: Path, era: str, bob: Bus) -> None:
    posted = [bob.post("review", f"word {number}").id for number in range(45)]
    seen: list[str] = []
    async with desk(place, era) as ann:
        text = await ann.call("find_tasks", text="word", channel="review", state="ready")
        while "find_tasks(" in text:
            seen += text.split("\n")[:-1]
            text = await ann.call("find_tasks", text="word", after=found(r'after="(\w+)"', text))
        seen += text.split("\n")[:-1]
    assert [line[:8] for line in seen] == [task_id[-8:] for task_id in posted]


async def test_ids_are_taken_by_any_unique_end_or_beginning(place: Path, era: str, bob: Bus) -> None:
    full = bob.post("review", "x").id
    async with desk(place, era) as ann:
        for name in (full, full[-8:], full[-4:], full[:20], full[4:24], full[-8:].upper()):
            assert f"id {full}," in await ann.call("get_task", task=name)


async def test_work_goes_to_who_can_do_it(place: Path, era: str) -> None:
    async with desk(place, era, capabilities="python") as ann, desk(place, era, agent="gus") as gus:
        task = await ann.post(requires=["gpu"])
        text = await ann.call("claim_next")
        assert text.startswith("empty: 1 ready, but they need 'gpu' (this worker's capabilities: python)")
        text = await gus.call("claim_next", capabilities=["rust"])
        assert "they need 'gpu' (this worker's capabilities: rust)" in text
        assert 'channel review: 1 ready; oldest waits 0 s; some require "gpu"' in await gus.call("list_channels")
        assert (await gus.claim(capabilities="gpu python")).task == task


async def test_settings_choose_channels_and_capabilities(place: Path, era: str) -> None:
    async with desk(place, era, channels="alpha", capabilities="gpu") as ann:
        await ann.post("beta")
        assert "nothing to do on alpha; no such channel yet: alpha" in await ann.call("claim_next")
        task = await ann.post("alpha", requires="gpu")
        assert (await ann.claim()).task == task
        assert (await ann.claim("beta")).task != task


async def test_the_older_task_of_the_higher_priority_goes_first(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        last = await ann.post(options={"priority": -1})
        second = await ann.post("other")
        third = await ann.post()
        first = await ann.post(options={"priority": 1})
        assert [(await ann.claim()).task for _ in range(4)] == [first, second, third, last]


async def test_a_repeated_submit_finds_its_own_result(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        task = await ann.post()
        claim = await ann.claim()
        await ann.call("submit_result", **claim.mine, result={"ok": True})
        again = await ann.call("submit_result", **claim.mine, result={"ok": True})
        assert again.startswith(f"{task} is done; its result is on disk")
        other = await ann.call("submit_result", **claim.mine, result="changed my mind")
        assert "an earlier result of yours was final already" in other
    result = tasks(bob)[task].result
    assert result is not None
    assert result.content == '{"ok": true}'


async def test_the_agents_name_is_gits_and_the_clients_unless_given(place: Path, era: str) -> None:
    async with desk(place, era, agent="") as ann:
        task = await ann.post()
        text = await ann.call("get_task", task=task)
    name = found('^from "(\\S+)",', text)
    assert name.startswith(f"local/{place.name}"[:20])
    assert name.endswith("+mcp")


async def test_a_claim_of_another_bus_user_is_told_apart(place: Path, era: str, bob: Bus) -> None:
    bob.post("review", "x")
    assert bob.claim() is not None
    async with desk(place, era) as ann:
        assert "0 scheduled, 1 with other workers" in await ann.call("claim_next")
        with open_bus(place, agent="eve") as eve:
            eve.post("review", "from eve")
        text = await ann.call("claim_next")
        assert 'from "eve", posted 0 s ago' in text
        assert claim_in(text).attempt == 1
