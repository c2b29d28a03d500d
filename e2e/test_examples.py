"""Examples that start a real client, against a scripted model."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from e2e.clients import CLIENTS
from e2e.model import Step
from mcp_bus import State

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.conftest import Stage

pytestmark = pytest.mark.timeout(600)
WORKER = "claude-worker/worker.sh"


def repository(folder: Path) -> Path:
    """Make a folder a repository with one commit; return the worktree that the worker will make beside it."""
    (folder / "shed.txt").write_text("a brown shed\n")
    who = ["-c", "user.name=ann", "-c", "user.email=ann@git.example"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "begin"]):
        subprocess.run(["git", *words], cwd=folder, check=True, timeout=60)
    return folder.with_name(f"{folder.name}-claude")


@pytest.mark.parametrize("installed", CLIENTS[:1], indirect=True, ids=str)
def test_claude_code_edits_its_own_worktree_and_nothing_outside_of_it(stage: Stage) -> None:
    project = stage.folder / "project"
    tree = repository(project)
    inside, outside = str(tree / "shed.txt"), str(project / "shed.txt")
    change = {"old_string": "brown", "new_string": "green"}
    posted = stage.bus.post("work", "paint the shed", title="paint")
    stage.example(
        [WORKER, "work", "--tasks", "1"],
        Step("Read", lambda _: {"file_path": inside}),
        Step("Edit", lambda _: {"file_path": inside} | change),
        Step("Read", lambda _: {"file_path": outside}),
        Step("Edit", lambda _: {"file_path": outside} | change),
        Step("Write", lambda _: {"file_path": str(project / "new.txt"), "content": "new"}),
        Step(text="the shed is green"),
        marked_by="Edit",
    )
    assert "paint the shed" in stage.seen[0]
    task = stage.bus.get(posted.id)
    assert task.state is State.DONE
    assert task.result
    assert (task.result.content, task.result.sender.agent) == ("the shed is green", "claude")
    assert (tree / "shed.txt").read_text() == "a green shed\n"
    assert (project / "shed.txt").read_text() == "a brown shed\n"
    assert not (project / "new.txt").exists()
    assert sorted(stage.offers[-1].names) == ["Edit", "Glob", "Grep", "Read", "Write"], "it has no shell and no network"
