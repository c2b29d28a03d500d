"""A command does a task: what its end means, what it sees, and that nothing of a message is ever run."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.errors import NotFound
from mcp_bus.identity import process
from mcp_bus.model import MAX_CONTENT, State
from mcp_bus.workers import jobs, prompts
from mcp_bus.workers.fates import Fate, Told
from mcp_bus.workers.jobs import Job, NotStarted

if TYPE_CHECKING:
    from tests.workers.conftest import Work

HELLO = "print('hello')"


# --- how it ends --------------------------------------------------------------------------------------


def test_what_it_prints_is_the_result(work: Work) -> None:
    work.post()
    task = work.do("import sys; print('hello'); print('a warning', file=sys.stderr)")
    assert task.state is State.DONE
    assert task.result is not None
    assert (task.result.content, task.result.sender.agent, task.result.artifacts) == ("hello", "worker", ())
    (log,) = (work.root / "runs").glob("*/output.log")
    assert sorted(log.read_text().splitlines()) == ["a warning", "hello"]


def test_a_plain_command_can_read_the_task_s_text_alone(work: Work) -> None:
    work.post("one two three", title="count")
    task = work.do("import sys; print(len(sys.stdin.read().split()))", is_plain=True)
    assert task.result is not None
    assert task.result.content == "3"


@pytest.mark.parametrize(
    ("code", "state", "fate", "attempt", "why"),
    [
        ("import sys; print('no'); sys.exit(3)", State.SCHEDULED, Fate.FAILED, 1, "exit code 3: no"),
        ("import sys; print('later'); sys.exit(75)", State.READY, Fate.RELEASED, 0, "not now (exit code 75): later"),
        ("import sys; print('bad'); sys.exit(65)", State.DEAD, Fate.DEAD, 1, "never (exit code 65): bad"),
        ("import os; os.kill(os.getpid(), 9)", State.SCHEDULED, Fate.FAILED, 1, "ended by signal 9"),
        ("print('MCP_BUS_BLOCKED: which one?')", State.DEAD, Fate.BLOCKED, 1, "which one?"),
        ("print('MCP_BUS_FAILED: no such file')", State.SCHEDULED, Fate.FAILED, 1, "no such file"),
    ],
)
def test_each_end_of_a_command_has_its_meaning(
    work: Work, code: str, state: State, fate: Fate, attempt: int, why: str
) -> None:
    work.post()
    task = work.do(code)
    assert (task.state, task.slot.attempt, task.result) == (state, attempt, None)
    assert work.told is not None
    assert (work.told.fate, work.told.why) == (fate, why)
    assert task.history[-1].note == why
    assert (task.question is not None) == (fate is Fate.BLOCKED)


def test_the_reason_of_a_failed_attempt_begins_with_the_last_line_of_its_output(work: Work) -> None:
    work.post()
    task = work.do("import sys; print('at a line of code\\n' * 200, flush=True); sys.exit('the cause')")
    first, _, rest = task.history[-1].note.partition("; before that: ")
    assert (first, set(rest.split(" | ")[1:-1])) == ("exit code 1: the cause", {"at a line of code"})
    with_it = prompts.render(work.bus.get(task.id), mark="00ff")
    assert "the cause" in with_it, "the next one who tries is told"


def test_the_last_attempt_that_fails_is_the_end_of_a_task(work: Work) -> None:
    work.post(max_attempts=1)
    task = work.do("import sys; sys.exit(1)")
    assert (task.state, work.told and work.told.fate) == (State.DEAD, Fate.DEAD)


def test_a_command_that_hangs_is_ended_and_costs_an_attempt(work: Work) -> None:
    work.post()
    task = work.do("import time; print('on', flush=True); time.sleep(600)", timeout_s=0.5)
    assert (task.state, task.history[-1].note) == (State.SCHEDULED, "it did not end within 0.5 s: on")


def test_a_worker_that_is_told_to_end_gives_its_task_back_unharmed(work: Work) -> None:
    work.post()
    task = work.do("import time; time.sleep(600)", stop="the worker was told to end")
    assert (task.state, task.slot.attempt) == (State.READY, 0)
    assert task.history[-1].note == "the worker was told to end"


def test_a_command_that_cannot_be_started_costs_the_task_nothing(work: Work) -> None:
    task_id = work.post()
    task = work.bus.claim()
    assert task is not None
    recipe = work.recipe("")._replace(words=("./no-such-program",))
    with pytest.raises(NotStarted, match="cannot be started: No such file"):
        Job(work.bus, task, recipe, work.root).do(lambda: "")
    kept = work.bus.get(task_id)
    assert (kept.state, kept.slot.attempt) == (State.READY, 0)


# --- the lease ----------------------------------------------------------------------------------------


def test_the_lease_is_renewed_while_the_command_runs(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PULSE_S", 0.05)
    work.post()
    task = work.bus.claim(lease_s=1)
    assert task is not None
    code = "import time, os\nend = time.monotonic() + 2.5\nwhile time.monotonic() < end: os.stat('.')\nprint('done')"
    Job(work.bus, task, work.recipe(code, lease_s=1.0), work.root).do(lambda: "")
    assert work.bus.get(task.id).state is State.DONE


@pytest.mark.parametrize("lease_s", [1.0, 3600.0], ids=["by the renewal", "by a look in between"])
@pytest.mark.parametrize("how", ["cancelled", "taken"])
def test_a_command_whose_task_was_taken_away_is_ended_and_nothing_is_submitted(
    work: Work, monkeypatch: pytest.MonkeyPatch, how: str, lease_s: float
) -> None:
    monkeypatch.setattr(jobs, "PULSE_S", 0.05)
    work.post()
    task = work.bus.claim(lease_s=60)
    assert task is not None
    pids: list[int] = []

    def taken_away() -> str:
        found = [line for path in work.root.glob("runs/*/output.log") for line in path.read_text().splitlines()]
        if found and not pids:
            pids.append(int(found[0]))
            work.bus.cancel(task.id) if how == "cancelled" else work.bus.requeue(task.id)
        return ""

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    told = Job(work.bus, task, work.recipe(code, lease_s=lease_s), work.root).do(taken_away)
    assert told.fate is Fate.LOST
    assert not process.started(pids[0])
    kept = work.bus.get(task.id)
    assert kept.state is (State.CANCELLED if how == "cancelled" else State.READY)
    assert kept.result is None
    assert not list((work.root / "rejected").iterdir())


# --- what it is asked ---------------------------------------------------------------------------------


EVIL = '"; touch pwned; $(touch pwned) `touch pwned` \n--- \x1b[2J ${IFS}touch${IFS}pwned #'


@pytest.mark.parametrize("is_handler", [False, True])
def test_nothing_of_a_message_is_on_the_command_line_or_run(work: Work, *, is_handler: bool) -> None:
    work.post(EVIL, title="$(touch pwned)", thread="`touch pwned`")
    code = "import json, sys; json.dump({'argv': sys.argv, 'stdin': sys.stdin.read()}, sys.stdout)"
    task = work.do(code, is_handler=is_handler)
    assert task.result is not None
    seen = json.loads(task.result.content)
    assert not any("touch" in word for word in seen["argv"])
    assert len(seen["argv"]) == 1 + is_handler
    assert "touch pwned" in seen["stdin"]
    assert not (work.root.parent / "pwned").exists()


def test_a_handler_is_given_the_message_as_json_as_a_file_and_in_its_environment(work: Work) -> None:
    task_id = work.post({"signal": "tests_passed"}, type="signal", title="t")
    code = (
        "import json, os, sys\n"
        "whole = json.loads(sys.stdin.read())\n"
        "assert whole == json.load(open(sys.argv[1]))\n"
        "names = ('ABQ_MSG_ID', 'ABQ_MSG_TYPE', 'ABQ_MSG_FROM', 'ABQ_MSG_CONTENT', 'ABQ_CHANNEL', 'MCP_BUS_TASK',\n"
        "         'MCP_BUS_TYPE', 'MCP_BUS_CHANNEL', 'MCP_BUS_TITLE', 'MCP_BUS_ATTEMPT', 'MINE')\n"
        "print(json.dumps({'id': whole['id'], 'to': whole['to']} | {name: os.environ[name] for name in names}))"
    )
    task = work.do(code, is_handler=True, environment={"MINE": "kept"})
    assert task.result is not None
    assert json.loads(task.result.content) == {
        "id": task_id, "to": "work", "ABQ_MSG_ID": task_id, "ABQ_MSG_TYPE": "signal", "ABQ_MSG_FROM": "worker",
        "ABQ_MSG_CONTENT": '{"signal":"tests_passed"}', "ABQ_CHANNEL": "work", "MCP_BUS_TASK": task_id,
        "MCP_BUS_TYPE": "signal", "MCP_BUS_CHANNEL": "work", "MCP_BUS_TITLE": "t", "MCP_BUS_ATTEMPT": "1",
        "MINE": "kept",
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ["a\0b", "x" * MAX_CONTENT, "\N{GRINNING FACE}" * 40_000, "\xe9" * 40_000],
    ids=["a NUL", "long", "four bytes each", "two bytes each"],
)
def test_a_message_that_fits_into_no_variable_is_handled_all_the_same(work: Work, content: str) -> None:
    work.post(content)
    code = (
        "import json, os, sys; assert len(os.environ.get('ABQ_MSG_CONTENT', '').encode()) <= 65536\n"
        "print(len(json.load(sys.stdin)['content']))"
    )
    task = work.do(code, is_handler=True)
    assert task.result is not None
    assert task.result.content == str(len(content))


def test_a_message_that_keeps_a_command_from_being_started_is_its_own_fault(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_VARIABLE", MAX_CONTENT)
    work.post("x" * 200_000)
    task = work.do(HELLO, is_handler=True)
    assert (task.state, task.slot.attempt) == (State.SCHEDULED, 1)
    assert "Argument list too long" in task.history[-1].note


def test_a_command_can_use_the_claim_it_works_under(work: Work) -> None:
    work.post()
    code = (
        "import os\nfrom mcp_bus import Ticket, open_bus\n"
        "with open_bus(os.environ['MCP_BUS_DIR'], create=False) as bus:\n"
        "    ticket = Ticket(os.environ['MCP_BUS_TASK'], os.environ['MCP_BUS_TOKEN'])\n"
        "    bus.renew(ticket, progress='half of it')\nprint('all of it')"
    )
    task = work.do(code, environment={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/"})
    assert task.result is not None
    assert task.result.content == "all of it"
    assert [line.note for line in task.history if line.outcome == "progress"] == ["half of it"]


# --- eval ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "allowed", "is_run"),
    [("worker", [], False), ("worker", ["work*"], True), ("worker", ["*"], True), ("worker", ["boss"], False)],
)
def test_an_eval_message_is_run_only_if_the_operator_allows_its_sender(
    work: Work, sender: str, allowed: list[str], *, is_run: bool
) -> None:
    work.bus.may_eval = True
    work.post("print(1)", type="eval")
    task = work.do("open('ran', 'w').close(); print('ran')", is_handler=True, evals=tuple(allowed))
    assert (work.root.parent / "ran").exists() == is_run
    if not is_run:
        assert task.state is State.DEAD
        assert task.history[-1].note.startswith(f"a message of type eval from '{sender}' is not run here")


def test_a_task_that_was_pruned_meanwhile_is_lost(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.post()
    task = work.bus.claim()
    assert task is not None
    job: Any = Job(work.bus, task, work.recipe(HELLO), work.root)

    def gone(*_: object, **__: object) -> None:
        msg = "there is no task"
        raise NotFound(msg)

    monkeypatch.setattr(work.bus, "nack", gone)
    assert job._end(Told(Fate.FAILED, "x")).fate is Fate.LOST
