"""init, config, channel, version, and where the bus is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.settings import SETTINGS

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_init_makes_a_bus_and_a_second_time_is_fine(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er"
    done = cli.run("init", str(place))
    assert (done.returncode, done.stdout) == (0, f"{place}\n")
    about = (place / "bus.json").read_text()
    assert (place / "PROTOCOL.md").exists()
    again = cli.run("init", str(place), "--json")
    made = json.loads(again.stdout)
    assert (again.returncode, made["bus"], made["created"]) == (0, str(place), False)
    assert made["filesystem"]["type"]
    assert (place / "bus.json").read_text() == about


def test_init_makes_no_bus_in_a_repository_and_none_for_an_address(cli: Cli, tmp_path: Path) -> None:
    for name in ("HEAD", "objects", "refs"):
        (tmp_path / "bare.git" / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for place, hint in (("bare.git", f"--bus git+{tmp_path}/bare.git "), ("git@host:x", "--bus git+git@host:x;")):
        code, out, err = cli.main("init", place)
        assert (code, out, hint in err) == (2, "", True), err
    assert sorted(tmp_path.rglob("*")) == before


def test_init_says_which_bus_is_used_when_it_made_another(cli: Cli, tmp_path: Path) -> None:
    _, _, err = cli.main("init", str(tmp_path / "other"))
    assert f"used from here is {cli.bus} (MCP_BUS_DIR)" in err


def test_init_warns_loudly_about_memory(cli: Cli) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or not os.access(shm, os.W_OK):
        pytest.skip("there is no /dev/shm to write to")
    place = shm / f"mcp-bus-{os.getpid()}"
    try:
        code, out, err = cli.main("init", str(place), "--quiet")
        assert (code, out) == (0, f"{place}\n")
        assert "WARNING: tmpfs is memory: nothing on this bus survives a reboot" in err
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_init_refuses_a_file_system_that_cannot_carry_a_bus(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_bus.stores import probe

    monkeypatch.setattr(probe, "kind_of", lambda _path: "exfat")
    code, out, err = cli.main("init", str(tmp_path / "new"))
    assert (code, out) == (1, "")
    assert "is on exfat, which cannot carry a bus: it has no hard links" in err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "app"
    for words in (["init", "-q", str(top)], ["-C", str(top), "commit", "-q", "--allow-empty", "-m", "x"]):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | {
            f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        subprocess.run(["git", *words], check=True, env=env, timeout=30)
    return top


def test_init_here_shares_a_bus_between_worktrees_and_git_does_not_see_it(cli: Cli, repository: Path) -> None:
    tree = repository.parent / "tree"
    subprocess.run(["git", "-C", str(repository), "worktree", "add", "-q", str(tree)], check=True, timeout=30)
    bus = repository / ".mcp-bus"
    for _ in range(2):
        done = cli.run("init", "--here", cwd=tree, env={"MCP_BUS_DIR": ""})
        assert (done.returncode, done.stdout) == (0, f"{bus}\n"), done.stderr
    exclude = (repository / ".git/info/exclude").read_text()
    assert exclude.splitlines().count("/.mcp-bus/") == 1
    seen = subprocess.run(
        ["git", "-C", str(repository), "status", "--porcelain"], check=True, capture_output=True, timeout=30
    )
    assert seen.stdout == b""
    for place in (repository, tree):
        done = cli.run("ls", cwd=place, env={"MCP_BUS_DIR": ""})
        assert done.stderr.startswith(f"bus: {bus} (repository)\n")


def test_init_here_warns_of_git_clean_which_would_delete_it(cli: Cli, repository: Path) -> None:
    done = cli.run("init", "--here", cwd=repository)
    assert "`git clean -fdx` would delete it" in done.stderr
    for options, is_left in (("-fdq", True), ("-fdxq", False)):
        subprocess.run(["git", "-C", str(repository), "clean", options], check=True, timeout=30)
        assert (repository / ".mcp-bus").exists() is is_left


def test_init_here_keeps_what_is_in_the_exclude_file(cli: Cli, repository: Path) -> None:
    exclude = repository / ".git/info/exclude"
    exclude.write_text("*.log")
    assert cli.run("init", "--here", cwd=repository).returncode == 0
    assert exclude.read_text() == "*.log\n/.mcp-bus/\n"


def test_init_here_outside_of_git_is_refused(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli.main("init", "--here")
    assert code == 2
    assert "is in no git repository" in err
    assert not (tmp_path / ".mcp-bus").exists()


def test_init_takes_one_place(cli: Cli, tmp_path: Path) -> None:
    assert cli.main("init", str(tmp_path / "x"), "--bus", str(tmp_path / "y"))[0] == 2
    assert cli.main("init", str(tmp_path / "x"), "--here")[0] == 2
    assert not (tmp_path / "x").exists()


def test_config_lists_values_with_their_origins(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mcp-bus.toml").write_text('capabilities = ["python"]\n')
    (tmp_path / ".config/mcp-bus").mkdir(parents=True)
    (tmp_path / ".config/mcp-bus/config.toml").write_text("wait_s = 7\n")
    made = cli.json("config", "list", "--agent", "me")
    assert made["bus"] == {"value": str(cli.bus), "origin": "MCP_BUS_DIR"}
    assert made["agent"] == {"value": "me", "origin": "flag"}
    assert made["capabilities"] == {"value": ["python"], "origin": str(tmp_path / "mcp-bus.toml")}
    assert made["wait_s"] == {"value": 7.0, "origin": str(tmp_path / ".config/mcp-bus/config.toml")}
    assert made["profile"]["origin"] == "default"
    _, out, _ = cli.main("config")
    assert len(out.splitlines()) == len(made) + 1


def test_config_get_prints_one_value(cli: Cli) -> None:
    assert cli.main("config", "get", "bus")[:2] == (0, f"{cli.bus}\n")
    assert cli.json("config", "get", "agent") == {"value": "tester", "origin": "MCP_BUS_AGENT", "name": "agent"}
    assert cli.main("config", "get", "nonsense")[0] == 2
    assert cli.main("config", "get")[0] == 2
    assert cli.main("config", "list", "bus")[0] == 2


def test_show_origin_says_as_git_does_exactly_where_each_setting_was_set(cli: Cli, tmp_path: Path) -> None:
    mine, project = tmp_path / ".config/mcp-bus/config.toml", tmp_path / "mcp-bus.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('wait_s = 7\nlog_level = "info"\n')
    project.write_text("wait_s = 8\n")
    code, out, _ = cli.main("config", "list", "--show-origin", "--agent", "me")
    made = {line: origin for origin, _, line in (line.partition("\t") for line in out.splitlines())}
    assert code == 0
    assert [line.partition("=")[0] for line in made] == list(SETTINGS)
    assert {line: made[line] for line in (f"bus={cli.bus}", "agent=me", "wait_s=8", "log_level=info", "session=")} == {
        f"bus={cli.bus}": "environment:MCP_BUS_DIR",
        "agent=me": "flag:--agent",
        "wait_s=8": f"file:{project}",
        "log_level=info": f"file:{mine}",
        "session=": "default:",
    }
    assert cli.main("config", "get", "wait_s", "--show-origin")[1] == f"file:{project}\t8\n"
    assert cli.json("config", "get", "wait_s", "--show-origin")["where"] == f"file:{project}"
    assert cli.json("config", "--show-origin")["profile"]["where"] == "default:"


def test_show_origin_says_why_the_bus_is_where_nothing_put_it(cli: Cli, repository: Path) -> None:
    def origin(name: str) -> str:
        words = ("config", "get", name, "--show-origin")
        return cli.run(*words, cwd=repository, env={"MCP_BUS_DIR": "", "MCP_BUS_AGENT": ""}).stdout.partition("\t")[0]

    assert (origin("bus"), origin("agent")) == ("default:one per user", "default:git")
    assert cli.run("init", "--here", cwd=repository).returncode == 0
    assert origin("bus") == "default:repository"


def test_config_tells_the_name_that_is_used_when_none_is_set(cli: Cli, repository: Path) -> None:
    env = {"MCP_BUS_AGENT": ""}
    branch = (repository / ".git/HEAD").read_text().strip().rpartition("/")[2]
    done = cli.run("config", "get", "agent", cwd=repository, env=env)
    assert (done.stdout, done.stderr) == (f"local/app/{branch}\n", "from git\n")
    listed = json.loads(cli.run("config", "--json", cwd=repository, env=env).stdout)
    assert listed["agent"] == {"value": f"local/app/{branch}", "origin": "git"}
    outside = cli.run("config", "get", "agent", env=env)
    assert (outside.stdout, outside.stderr) == (f"local/{cli.home.name}\n", "from directory\n")
    task = json.loads(cli.run("post", "work", "x", "--json", cwd=repository, env=env).stdout)["id"]
    assert cli.json("show", task)["from"]["agent"] == f"local/app/{branch}"


def test_a_wrong_setting_names_where_it_was_set(cli: Cli) -> None:
    done = cli.run("ls", env={"MCP_BUS_WAIT_S": "soon"})
    assert done.returncode == 2
    assert "MCP_BUS_WAIT_S sets wait_s to 'soon'" in done.stderr


def test_a_channel_is_made_shown_and_changed(cli: Cli) -> None:
    made = cli.json("channel", "create", "review", "lease_s=10m", "max_attempts=2", "description=code review")
    assert (made["created"], made["lease_s"], made["max_attempts"]) == (True, 600.0, 2)
    assert cli.json("channel", "create", "review")["created"] is False
    cli.json("channel", "set", "review", "ttl_s=1d")
    shown = cli.json("channel", "show", "review")
    assert (shown["lease_s"], shown["ttl_s"], shown["description"]) == (600.0, 86400.0, "code review")
    kept = json.loads((cli.bus / "channels/review/channel.json").read_text())
    assert kept["ttl_s"] == 86400.0
    assert cli.main("channel", "list")[1] == "review  code review\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["set", "nowhere", "lease_s=5"], 3), (["show", "nowhere"], 3), (["show"], 2), (["list", "x"], 2),
        (["create", "review", "nonsense=1"], 2), (["create", "review", "lease_s=soon"], 2),
        (["create", "review", "lease_s=0"], 2), (["create", "review", "max_attempts=1.5"], 2),
        (["create", "review", "lease_s"], 2), (["create", "review", "kind=stack"], 2), (["rename", "a"], 2),
    ],
)  # fmt: skip
def test_a_wrong_use_of_channel_makes_nothing(cli: Cli, words: list[str], code: int) -> None:
    assert cli.main("channel", *words)[:2] == (code, "")
    assert cli.json("channel", "list") == {"channels": []}


def test_set_needs_something_to_set(cli: Cli) -> None:
    cli.json("channel", "create", "review")
    assert cli.main("channel", "set", "review")[0] == 2


def test_version_is_told_in_three_ways(cli: Cli) -> None:
    version = cli.json("version")
    assert set(version) == {"version", "format", "python"}
    assert cli.main("version")[1].startswith(f"mcp-bus {version['version']}, ")
    assert cli.main("--version")[1] == f"mcp-bus {version['version']}\n"
    assert cli.json("--version") == {"version": version["version"]}


def test_common_options_stand_before_or_after_the_verb(cli: Cli, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    cli.json("init", other)
    for words in (["--bus", other, "status"], ["status", "--bus", other], [f"--bus={other}", "status"]):
        assert cli.json(*words)["bus"] == other
    assert cli.json("--agent", "me", "status")["agent"] == "me"
    assert cli.main("status", "--bus", other)[2] == f"bus: {other} (--bus)\n"
    assert cli.main("-q", "status")[2] == ""


def test_an_empty_bus_option_is_refused(cli: Cli) -> None:
    assert cli.main("--bus", "", "status")[0] == 2
    assert cli.main("--bus=", "status")[0] == 2


def test_reading_verbs_say_how_to_make_a_missing_bus(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for words in (
        ["status"],
        ["ls"],
        ["find"],
        ["show", "abcd"],
        ["claim"],
        ["wait", "abcd"],
        ["sweep"],
        ["cancel", "abcd"],
    ):
        code, out, err = cli.main(*words, "--bus", str(missing))
        assert (code, out) == (1, ""), words
        assert f"`mcp-bus --bus {missing} init`" in err, "another bus would not help"
    assert not missing.exists()


def test_post_makes_a_missing_bus_and_says_so(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    code, _, err = cli.main("post", "work", "x", "--bus", str(missing))
    assert code == 0
    assert f"made a new bus at {missing}" in err
    assert cli.json("ls", "--bus", str(missing))["channels"][0]["counts"]["ready"] == 1


def test_serve_ends_when_its_client_leaves_and_writes_only_protocol_to_stdout(cli: Cli) -> None:
    done = cli.run("serve", "--json", text="")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"bus: {cli.bus} (MCP_BUS_DIR)\n")


def test_serve_tells_a_person_at_a_terminal_that_it_is_for_programs(cli: Cli) -> None:
    ours, theirs = os.openpty()
    os.write(ours, b"\x04")  # As Ctrl-D.
    done = cli.run("serve", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout) == (0, "")
    assert "this speaks MCP on stdin and stdout" in done.stderr
    assert "this speaks MCP" not in cli.run("serve", text="").stderr


def test_serve_refuses_a_wrong_profile_on_stderr_only(cli: Cli) -> None:
    done = cli.run("serve", "--json", "--profile", "nonsense", text="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "it is one of worker, lead, full" in done.stderr


def test_a_bus_is_not_made_among_somebody_s_files(cli: Cli) -> None:
    place = cli.home / "source"
    place.mkdir()
    (place / "main.py").write_text("x", encoding="utf-8")
    for words in (["init", str(place)], ["--bus", str(place), "post", "work", "x"]):
        code, out, err = cli.main(*words)
        assert (code, out) == (2, "")
        assert "is not a bus, and not empty: it holds 'main.py'" in err
        assert [path.name for path in place.iterdir()] == ["main.py"]
