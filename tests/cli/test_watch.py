"""watch: a command for each message, which is acked once it was handled, and not before."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus, trace
from mcp_bus.errors import Overloaded, StoreUnavailable
from mcp_bus.mail import Mail
from mcp_bus.workers import jobs, letters, runs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

# Adds what it is given to a file, and ends as the message says: a number is its exit code.
NOTES = """
import json, os, sys
whole = json.load(sys.stdin)
with open('seen', 'a') as file:
    file.write(json.dumps({'text': whole['content'], 'id': whole['id'], 'argv': len(sys.argv)}) + chr(10))
print('seen', whole['content'])
sys.exit(int(whole['content']) if whole['content'].isdigit() else 0)
"""
HANDLER = ("--", sys.executable, "-c", NOTES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PULSE_S", 0.02)
    monkeypatch.setattr(letters, "PAUSE_S", 0.05)


@pytest.fixture
def there(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    cli.main("init", str(cli.bus))
    return cli


def seen(tmp_path: Path) -> list[str]:
    path = tmp_path / "seen"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []


def watch(cli: Cli, name: str, *words: str) -> dict[str, Any]:
    """Handle what there is, and return what became of it."""
    made: dict[str, Any] = cli.json("watch", name, "--idle", "0.2s", *words, *HANDLER)["tasks"]
    return made


# --- a queue ------------------------------------------------------------------------------------------


def test_a_task_is_handled_and_what_the_command_prints_is_its_result(there: Cli, tmp_path: Path) -> None:
    task_id = there.post("app", "hello")
    assert watch(there, "app") == {"done": 1}
    assert there.json("show", task_id)["result"]["content"] == "seen hello"
    assert json.loads((tmp_path / "seen").read_text())["argv"] == 2, "the message is a file, too"


@pytest.mark.parametrize(
    ("code", "state", "attempts"), [("3", "scheduled", 1), ("75", "ready", 0), ("65", "dead", 1), ("0", "done", 1)]
)
def test_exit_codes_say_what_becomes_of_a_task(there: Cli, code: str, state: str, attempts: int) -> None:
    task_id = there.post("app", code)
    there.json("watch", "app", "--tasks", "1", *HANDLER)
    task = there.json("show", task_id)
    assert (task["state"], task["attempt"]) == (state, attempts)


def test_only_what_is_wanted_is_taken_and_the_rest_stays_where_it_is(there: Cli, tmp_path: Path) -> None:
    for text, kind in (('{"n": "1"}', "signal"), ('{"n": "2"}', "signal"), ('{"n": "1"}', "task")):
        there.post("app", text, "--type", kind)
    assert watch(there, "app", "--type", "signal", "--match", "n=1") == {"done": 1}
    assert seen(tmp_path) == ['{"n": "1"}']
    assert there.json("ls", "app")["counts"]["ready"] == 2


@pytest.mark.parametrize(
    ("allow", "is_run"), [((), False), (("--allow-eval", "boss"), False), (("--allow-eval", "test*"), True)]
)
def test_an_eval_is_run_only_for_whom_the_operator_allows_it(
    there: Cli, tmp_path: Path, allow: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, *, is_run: bool
) -> None:
    monkeypatch.setenv("MCP_BUS_ALLOW_EVAL", "yes")
    there.post("app", "print(1)", "--type", "eval")
    assert watch(there, "app", *allow) == ({"done": 1} if is_run else {"dead": 1})
    assert bool(seen(tmp_path)) == is_run


# --- topics and the inbox -----------------------------------------------------------------------------


def test_each_handler_of_a_topic_gets_every_message_once(there: Cli, tmp_path: Path) -> None:
    there.main("subscribe", "builds")
    there.main("send", "#builds", "one")
    for name, count in (("deploy", 1), ("notify", 1), ("deploy", 0)):
        made = watch(there, "builds", "--agent", name)
        assert made == ({"done": count} if count else {}), name
    there.main("send", "#builds", "two")
    assert watch(there, "builds", "--agent", "notify") == {"done": 1}
    assert seen(tmp_path) == ["one", "one", "two"]


def test_broadcast_is_a_topic_too_and_the_handler_s_name_tells_readers_apart(there: Cli, tmp_path: Path) -> None:
    there.main("--agent", "boss", "send", "broadcast", "all clear")
    scripts = []
    for name in ("deploy.py", "notify.py"):
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\n{NOTES}")
        script.chmod(0o755)
        scripts.append(script)
    env = {name: value for name, value in there.env.items() if name != "MCP_BUS_AGENT"}
    for script in [*scripts, scripts[0]]:
        run = there.run(
            "watch", "broadcast", "--handler", str(script), "--idle", "0.2s", env={**env, "MCP_BUS_AGENT": ""}
        )
        assert run.returncode == 0, run.stderr
    assert seen(tmp_path) == ["all clear", "all clear"]


def test_what_is_filtered_out_of_a_topic_is_not_handled(there: Cli, tmp_path: Path) -> None:
    there.main("subscribe", "builds")
    for signal in ("begun", "complete"):
        there.main("send", "#builds", json.dumps({"signal": signal}))
    assert watch(there, "builds", "--agent", "deploy", "--match", "signal=complete") == {"done": 1}
    assert seen(tmp_path) == ['{"signal": "complete"}']


def test_a_message_is_acked_once_it_was_handled_and_not_before(there: Cli, tmp_path: Path) -> None:
    message = there.json("--agent", "boss", "send", "@tester", "hello")["id"]
    script = tmp_path / "check.py"
    script.write_text(
        f"#!{sys.executable}\nimport os\nfrom mcp_bus import open_bus, trace\n"
        "with open_bus(os.environ['MCP_BUS_DIR']) as bus:\n"
        "    open('state', 'w').write(trace(bus, os.environ['MCP_BUS_TASK']).readers[0].state)\n"
    )
    script.chmod(0o755)
    run = there.run("watch", "@inbox", "--handler", str(script), "--idle", "0.2s", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "state").read_text() == "offered"
    with open_bus(there.bus, agent="boss") as bus:
        assert trace(bus, message).readers[0].state == "acked"


def test_one_that_fails_is_tried_again_and_given_up_and_the_human_is_told(there: Cli, tmp_path: Path) -> None:
    there.main("--agent", "boss", "send", "@tester", "3")
    there.main("--agent", "boss", "send", "@tester", "fine")
    assert watch(there, "@inbox") == {"failed": 2, "dead": 1, "done": 1}
    assert sorted(seen(tmp_path)) == ["3", "3", "3", "fine"], "and it held nobody up"
    (told,) = there.json("--agent", "human", "inbox")["messages"]
    assert "gave up on" in told["body"]
    assert "exit code 3: seen 3" in told["body"]
    assert watch(there, "@inbox") == {}


NOT_NOW = """
import json, os, sys
whole = json.load(sys.stdin)
times = whole['content'] + '.times'
with open(times, 'a') as file:
    file.write('x')
if whole['content'].startswith('busy') and os.path.getsize(times) < 6:
    sys.exit(75)
print('done')
"""


def test_not_now_is_no_try_and_holds_nobody_up(there: Cli, tmp_path: Path) -> None:
    for number in range(22):
        there.main("--agent", "boss", "send", "@tester", f"busy{number}")
    there.main("--agent", "boss", "send", "@tester", "other")
    made = there.json("watch", "@inbox", "--idle", "0.2s", "--concurrency", "4", "--", sys.executable, "-c", NOT_NOW)
    assert made["tasks"] == {"released": 22 * 5, "done": 23}
    assert (tmp_path / "other.times").read_text() == "x"
    assert there.json("--agent", "human", "inbox", code=4)["messages"] == []


@pytest.mark.parametrize(("name", "to"), [("@inbox", "@tester"), ("builds", "#builds")])
def test_a_command_that_cannot_be_started_ends_the_watch_and_leaves_its_message_unread(
    there: Cli, tmp_path: Path, name: str, to: str
) -> None:
    there.main("subscribe", "builds")
    there.main("--agent", "boss", "send", to, "hello")
    script = tmp_path / "check.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    code, _, err = there.main("watch", name, "--agent", "tester", "--handler", str(script))
    assert code == 1
    assert "cannot be started: No such file or directory" in err
    assert there.json("--agent", "human", "inbox", code=4)["messages"] == []
    assert watch(there, name, "--agent", "tester") == {"done": 1}
    assert seen(tmp_path) == ["hello"]


def test_trouble_with_the_medium_is_no_try(there: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there.main("--agent", "boss", "send", "@tester", "hello")
    begin, fails = runs.Runs.begin, iter(range(letters.TRIES + 2))

    def failing(self: runs.Runs, *args: Any) -> Any:
        if next(fails, None) is not None:
            msg = "the disk that holds the bus is full"
            raise StoreUnavailable(msg)
        return begin(self, *args)

    monkeypatch.setattr(runs.Runs, "begin", failing)
    assert watch(there, "@inbox") == {"released": letters.TRIES + 2, "done": 1}
    assert seen(tmp_path) == ["hello"]


@pytest.mark.parametrize("code", ["1", "75"])
def test_one_that_was_to_be_the_last_is_tried_again_as_any_other(there: Cli, tmp_path: Path, code: str) -> None:
    there.main("--agent", "boss", "send", "@tester", "x")
    script = f"import os, sys; n = len(os.listdir('.')); open(str(n), 'w').close(); sys.exit({code} if n < 6 else 0)"
    made = there.json("watch", "@inbox", "--tasks", "1", "--", sys.executable, "-c", script)
    assert made["tasks"] == ({"failed": 2, "dead": 1} if code == "1" else {"released": released(tmp_path), "done": 1})


def released(folder: Path) -> int:
    """Return how often a script was run before the last time: it leaves a file each time."""
    return len([path for path in folder.iterdir() if path.name.isdecimal()]) - 1


def test_an_answer_that_cannot_be_sent_is_a_failed_try_and_the_human_is_told(there: Cli) -> None:
    there.main("--agent", "boss", "send", "@tester", "how is it?")
    code = "print('x' * 300_000)"
    made = there.json("watch", "@inbox", "--reply", "--idle", "0.2s", "--", sys.executable, "-c", code)
    assert made["tasks"] == {"failed": 2, "dead": 1}
    (told,) = there.json("--agent", "human", "inbox")["messages"]
    assert "its answer cannot be sent" in told["body"]


@pytest.mark.parametrize("code", ["print('yes')", "raise SystemExit(3)"], ids=["an answer", "giving up"])
def test_what_cannot_be_said_now_is_said_later_and_the_command_is_not_run_again_for_it(
    there: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    message = there.json("--agent", "boss", "send", "@tester", "hello")["id"]
    send, refusals = Mail.send, iter(range(3))

    def limited(self: Mail, *args: Any, **options: Any) -> Any:
        with open_bus(there.bus, agent="onlooker") as bus:
            assert trace(bus, message).readers[0].state == "offered", "acked once it was said, and not before"
        if next(refusals, None) is not None:
            msg = "too many messages a minute"
            raise Overloaded(msg)
        return send(self, *args, **options)

    monkeypatch.setattr(Mail, "send", limited)
    script = f"open('runs', 'a').write('x')\n{code}"
    made = there.json("watch", "@inbox", "--reply", "--idle", "0.2s", "--", sys.executable, "-c", script)
    runs_of = (tmp_path / "runs").read_text()
    if "yes" in code:
        assert (made["tasks"], runs_of) == ({"done": 1}, "x")
        assert there.json("--agent", "boss", "inbox")["messages"][0]["body"] == "yes"
    else:
        assert (made["tasks"], runs_of) == ({"failed": 2, "dead": 1}, "xxx")
        assert "gave up on" in there.json("--agent", "human", "inbox")["messages"][0]["body"]


def test_a_topic_that_is_not_there_yet_is_made_if_it_is_said_to_be_one(there: Cli, tmp_path: Path) -> None:
    assert watch(there, "#builds", "--agent", "deploy") == {}
    there.main("send", "#builds", "one")
    assert watch(there, "#builds", "--agent", "deploy") == {"done": 1}
    assert seen(tmp_path) == ["one"]
    code, _, err = there.main("watch", "nowhere", *HANDLER)
    assert (code, "a topic is made by '#nowhere'" in err) == (3, True), err


def test_where_runs_cannot_be_kept_nothing_is_taken(there: Cli, tmp_path: Path) -> None:
    there.main("--agent", "boss", "send", "@tester", "hello")
    (there.bus / "runs").symlink_to(tmp_path)
    code, _, err = there.main("watch", "@inbox", *HANDLER)
    assert (code, "runs' is no folder" in err) == (1, True), err
    assert there.json("inbox")["messages"][0]["body"] == "hello"


def test_one_whose_supervisor_is_gone_says_so_once_and_lets_its_command_end(there: Cli, tmp_path: Path) -> None:
    there.main("--agent", "boss", "send", "@tester", "hello")
    code = "import time; open('on', 'w').close(); time.sleep(1.2); print('done')"  # It is looked at every half second.
    leash, held = os.pipe()
    words = ("watch", "@inbox", "--leash", str(leash), "--", sys.executable, "-c", code)
    running = there.start(*words, cwd=tmp_path, pass_fds=(leash,))
    os.close(leash)
    end = time.monotonic() + 30
    while not (tmp_path / "on").exists():
        assert time.monotonic() < end
    os.close(held)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "1 done\n"), err
    assert err.count("ending") == 1, err


def test_what_the_command_prints_may_be_the_answer(there: Cli) -> None:
    there.main("--agent", "boss", "send", "@tester", "how is it?")
    watch(there, "@inbox", "--reply")
    (answer,) = there.json("--agent", "boss", "inbox")["messages"]
    assert (answer["body"], answer["from"]["agent"]) == ("seen how is it?", "tester")


def test_a_handler_that_is_told_to_end_leaves_its_message_unread(there: Cli, tmp_path: Path) -> None:
    there.main("--agent", "boss", "send", "@tester", "hello")
    code = "import time; open('on', 'w').close(); time.sleep(600)"
    running = there.start("watch", "@inbox", "--drain", "0", "--", sys.executable, "-c", code, cwd=tmp_path)
    end = time.monotonic() + 30
    while not (tmp_path / "on").exists():
        assert time.monotonic() < end
    running.terminate()
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "1 released\n"), err
    assert watch(there, "@inbox") == {"done": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere", "--handler", "true"], "there is no channel 'nowhere'"),
        (["app"], "there is no command to run"),
        (["app", "--handler", "true", "--", "true"], "there are two commands"),
        (["app", "--handler", "./missing.sh"], "there is no command './missing.sh'"),
        (["human", "--handler", "true"], "the human's inbox"),
        (["@inbox", "--match", "a=b", "--handler", "true"], "an inbox is read whole"),
        (["app", "--reply", "--handler", "true"], "--reply goes with messages"),
        (["app", "--match", "x", "--handler", "true"], "'x' is not a field and its value"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_taken(there: Cli, words: list[str], why: str) -> None:
    task_id = there.post("app", "x")
    code, _, err = there.main("watch", *words)
    assert (code in (2, 3), why in err) == (True, True), err
    assert there.state(task_id) == "ready"
