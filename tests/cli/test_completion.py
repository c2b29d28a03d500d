"""completion: what shells offer, which is what is there, and never a trace, an error or a trick."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.completion import SCRIPTS
from mcp_bus.cli.main import VERBS
from mcp_bus.model import State
from tests.cli.conftest import ROOT

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

FILES = ["<files>"]


def offered(cli: Cli, *words: str) -> list[str]:
    """Return what may follow, without what it is."""
    code, out, err = cli.main("complete", "zsh", words[-1], *words)
    assert (code, err) == (0, "")
    return [line.partition("\t")[0] for line in out.splitlines()]


def shell(cli: Cli, name: str, text: str) -> list[str]:
    """Run a script in a shell that has loaded the completion; return the lines it prints, and nothing else."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    bin_ = cli.home / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "mcp-bus").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mcp_bus "$@"\n')
    (bin_ / "mcp-bus").chmod(0o755)
    env = cli.env | {"PATH": f"{bin_}:{cli.env['PATH']}", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    (cli.home / "load").write_text(SCRIPTS[name])
    words = {"zsh": ["zsh", "-f", "-c"]}.get(name, [name, "-c"])
    done = subprocess.run(
        [*words, text], env=env, cwd=cli.home, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def bash(cli: Cli, *words: str) -> list[str]:
    """Complete the last word as bash does, which breaks words at `=`, `:` and `@`."""
    quoted = " ".join(f"'{word}'" for word in words)
    return shell(
        cli,
        "bash",
        f'. ./load; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mcp_bus; printf "%s\\n" "${{COMPREPLY[@]}}"',
    )


def everything(root: Path) -> dict[str, tuple[int, ...]]:
    """Return all that is below a folder, and what would change if it were touched."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [root, *root.rglob("*")]:
        about = path.lstat()
        found[str(path)] = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_nlink)
    return found


# --- what is offered ----------------------------------------------------------------------------------


def test_verbs_are_offered_and_what_each_does(cli: Cli) -> None:
    assert set(offered(cli, "")) == {*VERBS, "help"}
    assert offered(cli, "--bus", "x", "-q", "requ") == ["requeue"]
    assert set(offered(cli, "help", "re")) == {"retry", "requeue", "reprioritise"}
    assert offered(cli, "no-verb", "") == []
    assert cli.main("complete", "zsh", "ret", "ret")[1] == f"retry\t{VERBS['retry'][1]}\n"
    assert cli.main("complete", "bash", "ret", "ret")[1] == "retry\n"
    assert {"--json", "--bus", "--agent"} <= set(offered(cli, "--"))


def test_every_option_of_every_verb_is_offered(cli: Cli) -> None:
    for verb in VERBS.keys() - {"abq"}:
        known = set(offered(cli, verb, "--"))
        assert {"--bus", "--json", "--help"} <= known, verb
    assert set(offered(cli, "log", "--f")) == {"--follow"}
    assert "-f" in offered(cli, "log", "-")
    assert offered(cli, "submit", "1234", "--token", "x", "--do") == ["--done"]
    assert "--handler" in offered(cli, "watch", "x", "--h")
    assert offered(cli, "worker", "run", "--", "make", "--") == FILES


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("show", "ready leased scheduled dead done"), ("wait", "ready leased scheduled"), ("heartbeat", "leased"),
        ("submit", "leased"), ("retry", "dead"), ("requeue", "leased scheduled"), ("discard", "dead"),
        ("undo", "cancelled"), ("cancel", "ready leased scheduled"), ("reprioritise", "ready scheduled"),
        ("reprioritize", "ready scheduled"),
    ],
)  # fmt: skip
def test_an_id_is_offered_where_its_state_makes_sense(cli: Cli, verb: str, states: str) -> None:
    ids = {State.DEAD: cli.dead(), State.READY: cli.post("other")}
    cli.post("held")
    ids[State.LEASED], token = cli.claim("held")
    ids[State.SCHEDULED] = cli.post("later", "x", "--delay", "1h")
    ids[State.CANCELLED] = cli.post("work")
    cli.json("cancel", ids[State.CANCELLED])
    cli.post("ended")
    ids[State.DONE], done_token = cli.claim("ended")
    cli.json("submit", ids[State.DONE], "--token", done_token, "--done", "x")
    expected = {ids[State(state)] for state in states.split()}
    assert set(offered(cli, verb, "")) == {task_id[-8:] for task_id in expected}
    assert set(offered(cli, verb, "req_")) == expected
    one = min(expected)
    assert offered(cli, verb, one[-8:-2]) == [one[-8:]]
    assert token not in cli.main("complete", "zsh", "", verb, "")[1]


def test_an_option_takes_its_value_and_what_follows_is_a_word_of_the_verb_again(cli: Cli) -> None:
    cli.post()
    task_id, _ = cli.claim()
    for before in (["--done", "x"], ["--token", "retry"], ["--failed", "--token"], ["--artifact", "a", "--token=x"]):
        assert offered(cli, "submit", *before, "") == [task_id[-8:]], before
    for before in (["--done"], ["--token"], [task_id]):
        assert offered(cli, "submit", *before, "") == [], before
    assert offered(cli, "submit", "--", "--to") == []


def test_what_a_task_is_stands_beside_its_id(cli: Cli) -> None:
    dead = cli.dead()
    assert cli.main("complete", "fish", "", "retry", "")[1] == f"{dead[-8:]}\tdead on work\n"


def test_names_on_the_bus_are_offered_where_they_belong(cli: Cli) -> None:
    cli.post("alpha")
    cli.json("--agent", "planner", "subscribe", "news")
    cli.json("--agent", "local/app/main", "inbox", code=4)
    cli.json("--agent", "planner", "inbox", code=4)
    cli.main("pipe", "open", "stream")
    (cli.bus / "agents/reviewer.md").write_text("be kind")
    (cli.bus / "fleets").mkdir()
    (cli.bus / "fleets/1234abcd.1.json").write_text(json.dumps({"workers": [{"name": "builder"}, 3], "host": "x"}))
    (cli.bus / "logs/workers").mkdir(parents=True)
    for name in ("builder.log", "builder.1.log", "tester.log"):
        (cli.bus / "logs/workers" / name).write_text("")
    for words in (["post", ""], ["claim", "x", ""], ["export", "al"], ["find", "--channel", ""], ["channel", "set", ""],
                  ["log", "--channel", ""], ["worker", "run", ""]):  # fmt: skip
        assert offered(cli, *words) == ["alpha"], words
    assert set(offered(cli, "send", "")) >= {"planner", "local/app/main", "news", "alpha", "human", "broadcast"}
    assert offered(cli, "send", "@pl") == ["@planner"]
    assert set(offered(cli, "--agent", "")) >= {"planner", "local/app/main"}
    assert offered(cli, "ls", "--agent=pl") == ["--agent=planner"]
    assert offered(cli, "subscribe", "n") == ["news"]
    assert offered(cli, "watch", "@") == ["@inbox"]
    assert set(offered(cli, "worker", "logs", "")) == {"builder", "tester"}
    assert offered(cli, "worker", "stop", "") == ["builder"]
    assert offered(cli, "worker", "run", "--role", "") == ["reviewer"]
    assert offered(cli, "pipe", "read", "") == ["stream"]
    assert set(offered(cli, "pipe", "r")) == {"read", "rm"}


def test_plans_are_offered_and_files_of_plans(cli: Cli) -> None:
    (cli.home / "plan.yaml").write_text("goal: g\nsteps:\n  - {name: a, body: x}\n")
    assert cli.main("plan", "run", "plan.yaml", "--no-wait")[0] == 0
    (plan_id,) = (path.name.split(".")[0] for path in (cli.bus / "plans").iterdir())
    assert offered(cli, "plan", "show", "") == [plan_id[-8:]]
    assert offered(cli, "plan", "run", "") == FILES
    assert "cancel" in offered(cli, "plan", "")


def test_words_of_ours_are_offered_and_files_where_files_go(cli: Cli) -> None:
    assert set(offered(cli, "find", "--state", "")) == set(State)
    assert offered(cli, "find", "--state=de") == ["--state=dead"]
    assert offered(cli, "config", "get", "wait") == ["wait_s"]
    assert offered(cli, "hook", "claude-code", "Sess") == ["SessionStart"]
    assert offered(cli, "install", "claude-c") == ["claude-code"]
    assert offered(cli, "export", "--format", "") == ["jsonl", "csv", "md"]
    assert offered(cli, "completion", "") == ["bash", "zsh", "fish"]
    for words in (["--bus", ""], ["ls", "--bus=./x"], ["--bus=./x"], ["export", "--output", ""], ["init", ""]):
        assert offered(cli, *words) == FILES, words
    assert offered(cli, "post", "work", "") == []


def test_the_bus_that_the_line_names_is_looked_at(cli: Cli) -> None:
    other = str(cli.home / "other bus")
    cli.json("--bus", other, "post", "elsewhere", "x")
    for words in (["--bus", other, "ls", ""], ["ls", f"--bus={other}", ""], ["--bus", f"'{other}'", "ls", ""]):
        assert offered(cli, *words) == ["elsewhere"]
    assert offered(cli, "ls", "") == []


# --- no trace, no error, no trick ----------------------------------------------------------------------


def hostile(cli: Cli) -> None:
    """Leave on the bus what most readers would mend, put aside, or choke on."""
    cli.post("work")
    cli.claim()
    (held,) = (cli.bus / "channels/work/processing").iterdir()
    held.rename(held.with_name(".".join([*held.name.split(".")[:-2], "1000", "json"])))  # Its lease ran out.
    (cli.bus / "channels/work/requests/garbage.json").write_text("x")
    (cli.bus / f"channels/work/requests/req_{7:032x}.json").write_text("{")
    for folder in ("agents", "fleets", "plans", "pipes", "logs/workers"):
        (cli.bus / folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(("\x1b[2J", "-rf", "$(touch x)", "a b", "~root", "a\nb", "\u202e", "`x`", "'")):
            text = json.dumps({"agent": name, "workers": [{"name": name}]})
            (cli.bus / folder / f"h{number}.1.json").write_text(text)
            (cli.bus / folder / f"{name}.log").write_text("")
            (cli.bus / folder / f"{name}.md").write_text("")
        (cli.bus / folder / "torn.1.json").write_text("{")
        os.mkfifo(cli.bus / folder / "fifo.1.json")
        os.mkfifo(cli.bus / folder / "\x1b[2Jfifo")
        (cli.bus / folder / "link.1.json").symlink_to(cli.home / "secret.json")
    (cli.home / "secret.json").write_text(json.dumps({"agent": "secret", "workers": [{"name": "secret"}]}))


LINES = (
    [""], ["--agent", ""], ["show", ""], ["retry", ""], ["submit", "req"], ["post", ""], ["send", ""], ["send", "@"],
    ["watch", ""], ["worker", "logs", ""], ["worker", "stop", ""], ["worker", "run", "--role", ""],
    ["plan", "show", ""], ["pipe", ""], ["subscribe", ""], ["unsubscribe", ""], ["inbox", "--ack", ""],
)  # fmt: skip


def test_completing_changes_nothing_and_offers_no_name_that_could_act(cli: Cli) -> None:
    hostile(cli)
    before = everything(cli.bus)
    for words in LINES:
        for word in offered(cli, *words):
            assert word.isascii(), words
            assert word.isprintable(), words
            assert not set(word) & set(" $`'\"\\;&|<>()*?[]{}!#"), (words, word)
            assert word[0] not in "~-", (words, word)
            assert word != "secret", words
    assert everything(cli.bus) == before


def test_completing_leaves_nothing_open(cli: Cli) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("there is no /proc here to count descriptors in")
    cli.dead()
    offered(cli, "retry", "")
    before = len(list(folder.iterdir()))
    for words in LINES:
        offered(cli, *words)
    assert len(list(folder.iterdir())) == before


@pytest.mark.parametrize("kind", ["missing", "file", "fifo", "folder", "format", "settings", "variable"])
def test_a_bus_that_is_none_is_neither_made_nor_complained_about(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = cli.home / "place"
    monkeypatch.setenv("MCP_BUS_DIR", str(place))
    if kind == "file":
        place.write_text("x")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind in ("folder", "format"):
        place.mkdir()
    if kind == "format":
        (place / "bus.json").write_text('{"format": 99}')
    elif kind == "settings":
        (cli.home / "mcp-bus.toml").write_text("not toml")
    elif kind == "variable":
        monkeypatch.setenv("MCP_BUS_WAIT_S", "soon")
    before = everything(cli.home)
    for words in LINES[1:]:
        for shell_name in ("bash", "fish"):
            code, out, err = cli.main("complete", shell_name, words[-1], *words)
            assert (code, err) == (0, "")
            assert not {"work"} & set(out.split())
    assert offered(cli, "ret") == ["retry"]
    assert everything(cli.home) == before


@pytest.mark.parametrize("words", [[], ["bash"], ["bash", "x"], ["tcsh", "", ""], ["--help"], ["bash", "", "--", "--"]])
def test_a_wrong_call_of_the_hidden_verb_says_nothing(cli: Cli, words: list[str]) -> None:
    code, _, err = cli.main("complete", *words)
    assert (code, err) == (0, "")


def test_the_hidden_verb_is_in_no_help(cli: Cli) -> None:
    assert "\n  complete " not in cli.main("--help")[1]
    assert "complete" not in offered(cli, "comple")


# --- in shells ----------------------------------------------------------------------------------------


def test_bash_completes_verbs_ids_and_words_that_it_breaks(cli: Cli) -> None:
    dead = cli.dead()
    cli.post("other")
    cli.json("--agent", "planner", "inbox", code=4)
    assert bash(cli, "mcp-bus", "retr") == ["retry"]
    assert bash(cli, "mcp-bus", "retry", "") == [dead[-8:]]
    assert bash(cli, "mcp-bus", "submit", "") == [""], "nothing is leased"
    assert bash(cli, "mcp-bus", "find", "--state", "=", "dea") == ["dead"]
    assert bash(cli, "mcp-bus", "find", "--format", "=") == [""]
    assert sorted(bash(cli, "mcp-bus", "export", "--format", "=")) == ["csv", "jsonl", "md"]
    assert bash(cli, "mcp-bus", "--agent", "=", "pl") == ["planner"]
    assert bash(cli, "mcp-bus", "export", "--output", "") == [""], "readline looks for files"


def test_bash_is_given_what_it_replaces(cli: Cli) -> None:
    cli.json("--agent", "planner", "inbox", code=4)
    text = '. ./load; COMP_WORDS=(mcp-bus send @ pla); COMP_CWORD=3; _mcp_bus mcp-bus @pla @; echo "${COMPREPLY[@]}"'
    assert shell(cli, "bash", text) == ["@planner"]


def test_no_shell_runs_the_word_that_is_typed_nor_says_that_the_command_is_missing(cli: Cli) -> None:
    trap = cli.home / "mcp-bus"
    trap.write_text("#!/bin/sh\ntouch sprung\n")
    trap.chmod(0o755)
    assert bash(cli, "./mcp-bus", "retr") == ["retry"]
    assert not (cli.home / "sprung").exists()
    text = 'PATH=/nowhere; . ./load; COMP_WORDS=(mcp-bus x); COMP_CWORD=1; _mcp_bus; echo "${#COMPREPLY[@]}"'
    assert shell(cli, "bash", text) == ["0"]


def test_zsh_completes_verbs_ids_and_files(cli: Cli) -> None:
    dead = cli.dead()
    # What zsh would show is printed.
    doubles = 'compdef() { echo "for $2"; }; compadd() { print -rl -- $names $shown; }; _files() { echo files; }'
    start = f"{doubles}; compset() {{ :; }}; . ./load;"
    assert shell(cli, "zsh", f"{start} words=(mcp-bus retr); CURRENT=2; _mcp_bus") == [
        "for mcp-bus", "retry", f"retry  -- {VERBS['retry'][1]}",
    ]  # fmt: skip
    assert shell(cli, "zsh", f"{start} words=(mcp-bus retry ''); CURRENT=3; _mcp_bus") == [
        "for mcp-bus", dead[-8:], f"{dead[-8:]}  -- dead on work",
    ]  # fmt: skip
    assert shell(cli, "zsh", f"{start} words=(mcp-bus --bus ''); CURRENT=3; _mcp_bus")[1:] == ["files"]


def test_fish_completes_verbs_ids_and_files(cli: Cli) -> None:
    dead = cli.dead()
    assert shell(cli, "fish", 'source load; complete -C "mcp-bus retr"') == [f"retry\t{VERBS['retry'][1]}"]
    assert shell(cli, "fish", 'source load; complete -C "mcp-bus -q retry "') == [f"{dead[-8:]}\tdead on work"]
    assert shell(cli, "fish", 'source load; complete -C "mcp-bus find --state=dea"') == ["--state=dead"]
    assert "load" in shell(cli, "fish", 'source load; complete -C "mcp-bus export --output lo"')


def test_the_script_is_printed_and_help_says_how_to_install_it(cli: Cli) -> None:
    for name, script in SCRIPTS.items():
        assert cli.main("completion", name)[1] == script
        assert cli.json("completion", name) == {"shell": name, "script": script}
        assert f"mcp-bus completion {name}" in cli.main("completion", "--help")[1]
    assert cli.main("completion", "tcsh")[0] == 2
