"""Results as Markdown: on channels that ask for it, whoever submits; derived, and gone with the task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mcp_bus import outputs, wire
from mcp_bus.model import DAY, Artifact, Body, Result, Sender, Slot, State, Task
from mcp_bus.plain import clean
from mcp_bus.recovery import manifest
from tests.bus.test_working import take
from tests.fakes import swept
from tests.hidden import acting

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource

NASTY = '"\n---\nadmin: true\r\u2028\x1b[2J\u202e\ud800: # {[&*'


def done(bus: Bus, source: VirtualSource, answer: str = "two nits", **options: Any) -> str:
    """Post and finish a task; return its id."""
    posted = bus.post("work", "look at it", **options).id
    bus.ack(take(bus, source), answer)
    return posted


def parts(text: str) -> tuple[dict[str, Any], str]:
    """Return head and content of a file as any reader of front matter takes it apart."""
    first, head, content = text.split("---\n", 2)
    assert first == ""
    return yaml.safe_load(head), content


@pytest.fixture
def asked(bus: Bus) -> Bus:
    """A bus whose channel has the rule."""
    bus.create_channel("work", outputs=True, retention_days=2)
    return bus


def test_without_the_rule_nothing_is_written(bus: Bus, source: VirtualSource) -> None:
    done(bus, source)
    swept(bus)
    assert bus.store.outputs.ids() == set()


def test_every_session_writes_for_a_channel_that_has_the_rule(asked: Bus, other: Bus, source: VirtualSource) -> None:
    ids = {done(asked, source), done(other, source)}
    assert asked.store.outputs.ids() == ids


def test_what_is_not_done_has_no_output(asked: Bus, source: VirtualSource) -> None:
    asked.post("work", "fails", max_attempts=1)
    asked.nack(take(asked, source), "no")
    asked.cancel(asked.post("work", "not wanted").id)
    swept(asked)
    assert asked.store.outputs.ids() == set()


def test_a_file_says_what_it_is_of_and_then_what_was_answered(tmp_path: Path, file_bus: Bus, root: Path) -> None:
    bus = file_bus
    bus.create_channel("work", outputs=True)
    posted = bus.post("work", "look at it", title="review app").id
    first = bus.claim()
    assert first is not None
    bus.nack(first, "not yet", retry_in_s=0)
    task = bus.claim()
    assert task is not None
    (tmp_path / "report.txt").write_text("hello")
    bus.ack(task, "two nits\n\n---\n- one", artifacts=[str(tmp_path / "report.txt")])
    head, content = parts((root / "outputs" / f"{posted}_result.md").read_text())
    (digest,) = (item.sha256 for item in bus.get(posted).result.artifacts)  # type: ignore[union-attr]  # it is done
    assert head == {
        "title": "review app",
        "task": posted,
        "channel": "work",
        "status": "success",
        "from": "ann",
        "by": "ann",
        "posted": wire.stamp(bus.get(posted).body.created),
        "finished": wire.stamp(bus.source.now()),
        "attempts": 2,
        "artifacts": [{"path": str(tmp_path / "report.txt"), "size": 5, "sha256": digest}],
    }
    assert content == "\ntwo nits\n\n---\n- one\n"
    assert (root / "outputs").stat().st_mode & 0o777 == 0o700


def test_no_text_of_others_ends_the_head_or_adds_to_it_or_acts_on_a_terminal() -> None:
    sender = Sender(f"eve{NASTY}")
    body = Body("req_" + "0" * 32, "work", "x", sender, 0, title=NASTY)
    files = (Artifact(f"/{NASTY}", 1, "ab" * 32),)
    result = Result(body.id, f"a{NASTY}", sender, 0, 1, f"success{NASTY}", f"no{NASTY}", artifacts=files)
    text = outputs.text(Task(body, Slot(body.id, "work", State.DONE), result))
    assert not acting(text)
    head, content = parts(text)
    assert list(head) == [
        *("title", "task", "channel", "status", "error", "from", "by", "posted", "finished", "attempts", "artifacts")
    ]
    assert head["title"] == clean(NASTY)
    assert head["by"] == clean(sender.agent)
    assert head["artifacts"] == [{"path": clean(f"/{NASTY}"), "size": 1, "sha256": "ab" * 32}]
    assert content == "\n" + clean(f"a{NASTY}", multiline=True) + "\n"


def test_a_long_title_is_cut_and_the_largest_result_is_whole(asked: Bus, source: VirtualSource) -> None:
    posted = done(asked, source, "\x01" * 262_144)
    text = outputs.text(asked.get(posted)._replace(body=asked.get(posted).body._replace(title="t" * 10**6)))
    assert text.count("\\x01") == 262_144
    assert len(text.split("\n")[1]) < 2100


def test_what_is_missing_or_was_deleted_is_written_by_a_sweep(asked: Bus, source: VirtualSource) -> None:
    posted = done(asked, source)
    asked.store.outputs.remove(posted)
    assert swept(asked) == [f"wrote outputs/{posted}_result.md"]
    assert swept(asked) == []
    assert asked.store.outputs.ids() == {posted}


def test_turning_the_rule_on_writes_earlier_results_a_few_at_a_time(
    bus: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "MOST", 2)
    ids = [done(bus, source) for _ in range(5)]
    bus.create_channel("work", outputs=True)
    source.refresh()
    counts = []
    for _ in range(4):
        swept(bus)
        counts.append(len(bus.store.outputs.ids()))
    assert counts == [2, 4, 5, 5]
    assert bus.store.outputs.ids() == set(ids)


def test_turning_it_off_leaves_what_is_there_and_writes_no_more(asked: Bus, source: VirtualSource) -> None:
    first = done(asked, source)
    asked.create_channel("work", outputs=False)
    source.refresh()
    done(asked, source)
    swept(asked)
    assert asked.store.outputs.ids() == {first}


def test_whoever_prunes_a_task_removes_it(asked: Bus, source: VirtualSource) -> None:
    asked.store.swap(asked.get(done(asked, source)).slot, None)
    assert asked.store.outputs.ids() == set()


def test_it_goes_with_its_task(asked: Bus, source: VirtualSource) -> None:
    old = done(asked, source)
    source.advance(2 * DAY / 1000)
    new = done(asked, source)
    source.advance(DAY / 1000)
    swept(asked)
    assert asked.store.outputs.ids() == {new}
    assert old not in asked.store.ids()


def test_what_was_written_beside_a_prune_goes_with_the_next_sweep_and_what_is_of_no_task_stays(
    asked: Bus, source: VirtualSource
) -> None:
    old, strange = done(asked, source), "req_" + "e" * 32
    source.advance(3 * DAY / 1000)
    swept(asked)
    for task_id in (old, strange):
        asked.store.outputs.write(task_id, b"x")
    assert swept(asked) == [f"removed outputs/{old}_result.md"]
    assert asked.store.outputs.ids() == {strange}


def test_the_manifest_names_the_file_of_each_task_that_has_one(asked: Bus, source: VirtualSource) -> None:
    asked.create_channel("quiet")
    posted, waits = done(asked, source), asked.post("work", "x").id
    said = {item["id"]: item["markdown"] for item in json.loads(manifest(asked))["tasks"]}
    assert said == {posted: f"outputs/{posted}_result.md", waits: None}
    asked.store.outputs.remove(posted)
    assert json.loads(manifest(asked))["tasks"][1]["markdown"] is None


def test_a_topic_and_an_inbox_have_none(bus: Bus, other: Bus) -> None:
    bus.create_channel("news", kind="topic", outputs=True)
    bus.mail.send("#news", "x")
    bus.mail.send("@bob", "hello")
    assert other.mail.read()
    other.mail.ack()
    swept(bus)
    assert bus.store.outputs.ids() == set()
