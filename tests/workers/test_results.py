"""What a command hands in: its result and files, checked, its own, and nothing that anybody else wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import State
from mcp_bus.workers import jobs, runs
from mcp_bus.workers.fates import Fate
from mcp_bus.workers.jobs import Job

if TYPE_CHECKING:
    from tests.workers.conftest import Work

SCHEMA = {"type": "object", "required": ["passed"], "properties": {"passed": {"type": "boolean"}}}
HELLO = "print('hello')"


def test_a_result_that_breaks_its_contract_is_a_failed_attempt_that_says_how(work: Work) -> None:
    work.post(result_schema=SCHEMA)
    task = work.do("print('looks good')")
    assert (task.state, task.slot.attempt) == (State.SCHEDULED, 1)
    assert "the result is no JSON" in task.history[-1].note


CORRECTS = """
import os, sys
asked = sys.stdin.read()
with open('asked', 'a') as file:
    file.write(asked)
print('```json\\n{"passed": true}\\n```' if 'was refused' in asked else ANSWER)
"""


def test_an_agent_may_correct_its_result_once_and_is_told_what_was_wrong(work: Work) -> None:
    work.post(result_schema=SCHEMA)
    task = work.do(CORRECTS.replace("ANSWER", repr('{"passed": "yes"}')), corrects=True)
    assert task.result is not None
    assert (task.result.content, task.slot.attempt) == ('{"passed":true}', 1)
    asked = (work.root.parent / "asked").read_text()
    assert asked.count("# Your answer was refused") == 1
    assert "passed" in asked.partition("What is wrong with it:")[2]


def test_one_that_is_wrong_again_has_failed(work: Work) -> None:
    work.post(result_schema=SCHEMA)
    task = work.do("import sys; open('times', 'a').write('x'); print('no')", corrects=True)
    assert (task.state, task.slot.attempt) == (State.SCHEDULED, 1)
    assert (work.root.parent / "times").read_text() == "xx"


def test_a_result_file_wins_over_the_output_and_other_files_go_with_it(work: Work) -> None:
    work.post()
    code = (
        "import os\nopen(os.environ['MCP_BUS_RESULT'], 'w').write('from the file')\n"
        "files = os.environ['MCP_BUS_FILES']\nos.mkdir(files + '/a')\n"
        "open(files + '/a/report.txt', 'w').write('text')\nos.symlink('/etc/passwd', files + '/link')\nprint('chatter')"
    )
    task = work.do(code)
    assert task.result is not None
    assert task.result.content == "from the file"
    assert [Path(item.path).name for item in task.result.artifacts] == ["report.txt"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; open(os.environ['MCP_BUS_RESULT'], 'wb').write(b'\\xff\\xfe')", "is not UTF-8"),
        ("import os; open(os.environ['MCP_BUS_RESULT'], 'w').write('x' * 300000)", "the limit is"),
        ("import os; os.mkfifo(os.environ['MCP_BUS_RESULT'])", "is not a regular file"),
        ("import os; os.symlink('/etc/passwd', os.environ['MCP_BUS_RESULT'])", "is a symlink"),
        ("print('x' * 300000)", "the limit is"),
        ("print('x' * 3000000)", "write long results to the file"),
    ],
)
def test_a_result_that_is_none_is_a_failed_attempt(work: Work, code: str, why: str) -> None:
    work.post()
    task = work.do(code)
    assert (task.state, task.result) == (State.SCHEDULED, None)
    assert why in task.history[-1].note


def test_binary_output_is_kept_as_text_that_harms_nobody(work: Work) -> None:
    work.post()
    task = work.do("import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert task.result is not None
    assert "\ufffd" in task.result.content


def test_a_log_is_bounded_and_says_so(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_LOG", 1000)
    work.post()
    assert work.do("import sys; print('x' * 5000)").result is not None
    (log,) = (work.root / "runs").glob("*/output.log")
    assert log.read_text() == "x" * 1000 + "\n[more than 1000 bytes: the rest is not kept]\n"


def test_the_log_of_an_agent_goes_with_its_result(work: Work) -> None:
    work.post()
    task = work.do("import json; print(json.dumps({'type': 'result', 'result': 'hello'}))", reader="claude")
    assert task.result is not None
    assert (task.result.content, [Path(item.path).name for item in task.result.artifacts]) == ("hello", ["output.log"])


def test_a_result_that_is_too_long_is_refused_with_what_to_do(work: Work) -> None:
    work.post()
    task = work.do("print('x' * 300000)")
    assert "put large data in a file" in task.history[-1].note


def test_what_is_long_over_is_removed_and_nothing_else(work: Work, tmp_path: Path) -> None:
    work.post()
    task = work.do(f"import os; os.symlink({str(tmp_path)!r}, os.environ['MCP_BUS_FILES'] + '/away')")
    (tmp_path / "kept").touch()
    (run,) = (work.root / "runs").iterdir()
    with runs.Runs(work.root, work.bus.source) as kept:
        assert kept.forget() == 0
        os.utime(run, (1, 1))
        assert kept.forget() == 1
    assert not run.exists()
    assert (tmp_path / "kept").exists()
    assert work.bus.get(task.id).state is State.DONE


STALE = """
import os, sys
if not os.path.exists('first'):
    open('first', 'w').close()
    open(os.environ['MCP_BUS_RESULT'], 'w').write('stale')
    open(os.environ['MCP_BUS_FILES'] + '/stale.txt', 'w').close()
    sys.exit(75)
print('fresh')
"""


def test_a_run_hands_in_nothing_of_an_earlier_run_of_the_same_attempt(work: Work) -> None:
    work.post()
    assert work.do(STALE).slot.attempt == 0
    task = work.do(STALE)
    assert task.result is not None
    assert (task.result.content, task.result.attempt) == ("fresh", 1)
    assert task.result.artifacts == ()


def test_a_corrected_result_is_not_the_file_that_was_refused_and_other_files_go_with_it(work: Work) -> None:
    work.post(result_schema=SCHEMA)
    code = (
        "import os, sys\n"
        "if 'was refused' in sys.stdin.read():\n    print('{\"passed\": true}')\n"
        "else:\n    open(os.environ['MCP_BUS_RESULT'], 'w').write('looks good')\n"
        "    open(os.environ['MCP_BUS_FILES'] + '/kept.txt', 'w').close()"
    )
    task = work.do(code, corrects=True)
    assert task.result is not None
    assert task.result.content == '{"passed":true}'
    assert [Path(item.path).name for item in task.result.artifacts] == ["kept.txt"]


def test_two_runs_of_one_message_have_a_folder_each(work: Work) -> None:
    with runs.Runs(work.root, work.bus.source) as kept:
        places = []
        for _ in range(2):
            place, log = kept.begin("req_00000001", 1, b"the same")
            with log:
                places.append(place)
    assert places[0].folder != places[1].folder


def test_where_runs_cannot_be_kept_a_task_is_given_back(work: Work, tmp_path: Path) -> None:
    task_id = work.post()
    (work.root / "runs").symlink_to(tmp_path)
    with pytest.raises(StoreUnavailable, match="runs' is no folder"):
        work.do(HELLO)
    task = work.bus.get(task_id)
    assert (task.state, task.slot.attempt) == (State.READY, 0)
    assert list(tmp_path.glob("req_*")) == []


def test_a_folder_of_files_that_became_a_symlink_is_not_looked_into(work: Work, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    work.post()
    code = (
        "import os\nfiles = os.environ['MCP_BUS_FILES']\nos.rmdir(files)\n"
        f"os.symlink({str(tmp_path / 'private')!r}, files)\nprint('done')"
    )
    task = work.do(code)
    assert task.result is not None
    assert task.result.artifacts == ()


def test_of_many_files_some_are_named_and_the_rest_is_told_of(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_DEEP", 2)
    work.post()
    code = (
        "import os\nfiles = os.environ['MCP_BUS_FILES']\nos.makedirs(files + '/z/2/3')\n"
        "open(files + '/z/2/3/deep', 'w').close()\nopen(files + '/z/2/near', 'w').close()\n"
        "for number in range(45): open(f'{files}/{number:02}', 'w').close()\nprint('done')"
    )
    task = work.do(code)
    assert task.result is not None
    names = [Path(item.path).name for item in task.result.artifacts]
    assert names == [f"{number:02}" for number in range(40)]
    assert work.told is not None
    assert work.told.why == "6 of its files are not named in the result", "one that is near, none that is deep"
    monkeypatch.setattr(runs, "MAX_LOOKED", 10)
    work.post()
    task = work.do(code)
    assert task.result is not None
    assert len(task.result.artifacts) <= 10


def test_a_lease_lasts_while_large_files_are_read(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SOON_READ", 100)
    monkeypatch.setattr(jobs, "READ_PER_S", 1)
    left: list[float] = []
    ack = work.bus.ack

    def looked(ticket: Any, *args: Any, **options: Any) -> Any:
        left.append((work.bus.get(ticket.id).lease.expires - work.bus.source.now()) / 1000)
        return ack(ticket, *args, **options)

    monkeypatch.setattr(work.bus, "ack", looked)
    work.post()
    work.do("import os; open(os.environ['MCP_BUS_FILES'] + '/large', 'w').write('x' * 1000); print('done')")
    work.post()
    work.do("import os; open(os.environ['MCP_BUS_FILES'] + '/small', 'w').write('x'); print('done')")
    assert left[0] > 1000
    assert left[1] <= 60


def test_an_answer_that_open_children_forbid_is_a_failed_attempt_and_not_the_end_of_the_worker(work: Work) -> None:
    work.post()
    task = work.bus.claim(lease_s=60)
    assert task is not None
    work.bus.post("other", "a child", parent=task.id)
    told = Job(work.bus, task, work.recipe("import sys; sys.exit(3)", answers=True), work.root).do(lambda: "")
    assert told.fate is Fate.FAILED
    kept = work.bus.get(task.id)
    assert (kept.state, kept.result) == (State.SCHEDULED, None)
    assert "exit code 3" in kept.history[-1].note
    assert "have not ended" in kept.history[-1].note
