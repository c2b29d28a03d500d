"""Flag before environment before project file before user file before default, and errors say where it was set."""

from __future__ import annotations

import os
import pwd
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from mcp_bus import config, open_bus, settings
from mcp_bus.config import load
from mcp_bus.errors import InvalidRequest, StoreUnavailable
from tests.conftest import is_disk


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    (path / "src").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(path)], check=True, timeout=30)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / ".config" / "mcp-bus").mkdir(parents=True)
    return tmp_path / "home"


def user_file(home: Path) -> Path:
    return home / ".config" / "mcp-bus" / "config.toml"


def test_the_nearest_word_wins_and_its_origin_is_told(project: Path, home: Path) -> None:
    env = {"HOME": str(home), "MCP_BUS_AGENT": "by-env", "MCP_BUS_WAIT_S": "3"}
    (project / "mcp-bus.toml").write_text('wait_s = 4\nprofile = "worker"\n')
    user_file(home).write_text('agent = "by-user"\nwait_s = 5\nprofile = "lead"\nmax_wait_s = 6\n')
    found = config.load({"agent": "by-flag", "wait_s": None}, env=env, cwd=project / "src")
    assert [found[name] for name in ("agent", "wait_s", "profile", "max_wait_s", "log_level")] == [
        "by-flag", 3.0, "worker", 6.0, "warning",
    ]  # fmt: skip
    assert [found.origins[name] for name in ("agent", "wait_s", "profile", "max_wait_s", "log_level")] == [
        "flag", "MCP_BUS_WAIT_S", str(project / "mcp-bus.toml"), str(user_file(home)), "default",
    ]  # fmt: skip


def test_an_empty_variable_counts_as_not_set(project: Path, home: Path) -> None:
    found = config.load(env={"HOME": str(home), "MCP_BUS_AGENT": "", "MCP_BUS_DIR": ""}, cwd=project)
    assert (found["agent"], found.origins["agent"]) == ("", "default")
    assert found.path == home / ".mcp-bus"


def test_the_user_file_moves_with_xdg(project: Path, home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "xdg" / "mcp-bus"
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.toml").write_text('agent = "xdg"\n')
    user_file(home).write_text('agent = "home"\n')
    env = {"HOME": str(home), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert config.load(env=env, cwd=project)["agent"] == "xdg"


@pytest.mark.parametrize("place", ["../elsewhere", "/elsewhere", "a/../../x", "out/x"])
def test_a_project_s_file_cannot_put_the_bus_outside_the_project(project: Path, home: Path, place: str) -> None:
    (project / "out").symlink_to(home)
    (project / "mcp-bus.toml").write_text(f'bus = "{place}"\n')
    with pytest.raises(InvalidRequest, match="outside the project"):
        config.load(env={"HOME": str(home)}, cwd=project / "src")


def test_a_project_s_file_may_put_the_bus_inside_and_is_relative_to_it(project: Path, home: Path) -> None:
    (project / "mcp-bus.toml").write_text('bus = "var/bus"\n')
    found = config.load(env={"HOME": str(home)}, cwd=project / "src")
    assert found.path == project / "var" / "bus"
    assert found.origins["bus"] == str(project / "mcp-bus.toml")


def test_a_bus_beside_the_repository_is_found_from_any_worktree(project: Path, home: Path, tmp_path: Path) -> None:
    (project / ".mcp-bus").mkdir()
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["commit", "-q", "--allow-empty", "-m", "x"], ["worktree", "add", "-q", str(tmp_path / "side")]):
        subprocess.run(["git", *names, *words], cwd=project, check=True, timeout=30, capture_output=True)
    for cwd in (project / "src", tmp_path / "side"):
        found = config.load(env={"HOME": str(home)}, cwd=cwd)
        assert (found.path, found.origins["bus"]) == (project.resolve() / ".mcp-bus", "repository")


@pytest.mark.parametrize(
    "line", ['agent = "boss"', 'session = "1"', 'durability = "none"', 'durability = "full"', "pipes = true"]
)
def test_a_project_s_file_cannot_speak_for_a_person_or_switch_off_fsync_or_open_pipes(
    project: Path, home: Path, line: str
) -> None:
    path, name = project / "mcp-bus.toml", line.partition(" ")[0]
    path.write_text(line + "\n")
    with pytest.raises(InvalidRequest) as refusal:
        config.load(env={"HOME": str(home)}, cwd=project)
    assert str(refusal.value) == f"{str(path)!r} sets {name!r}, which a project's file may not"
    assert settings.SETTINGS[name].env in refusal.value.hint
    path.unlink()
    user_file(home).write_text(line + "\n")
    assert config.load(env={"HOME": str(home)}, cwd=project)[name]


def test_a_file_that_never_ends_or_never_answers_is_refused_at_once(project: Path, home: Path) -> None:
    path = project / "mcp-bus.toml"

    def refused(why: str) -> None:
        with pytest.raises(InvalidRequest, match=why) as refusal:
            config.load(env={"HOME": str(home)}, cwd=project)
        assert str(path) in str(refusal.value)
        path.unlink()

    path.symlink_to("/dev/zero")
    refused("is not a regular file")
    os.mkfifo(path)
    refused("is not a regular file")
    (project / "real").write_text("wait_s = 4\n")
    path.symlink_to("real")
    refused("is not a regular file")
    path.write_text("# " + "x" * 65_535)
    refused("has more than 65536 bytes")
    path.write_text("#" + "x" * 65_524 + "\nwait_s = 4")
    assert config.load(env={"HOME": str(home)}, cwd=project)["wait_s"] == 4


def test_the_user_s_file_may_be_a_link_but_not_to_a_device(project: Path, home: Path) -> None:
    (home / "dotfile").write_text("wait_s = 4\n")
    user_file(home).symlink_to(home / "dotfile")
    assert config.load(env={"HOME": str(home)}, cwd=project)["wait_s"] == 4
    user_file(home).unlink()
    user_file(home).symlink_to("/dev/zero")
    with pytest.raises(InvalidRequest, match="is not a regular file"):
        config.load(env={"HOME": str(home)}, cwd=project)


@pytest.mark.parametrize("env", [{"HOME": ""}, {}])
def test_an_empty_home_is_not_the_root_directory(
    project: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "")
    real = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert config.load(env=env, cwd=project).path == real / ".mcp-bus"
    assert config.load({"bus": "~/x"}, env=env, cwd=project).path == real / "x"


def test_a_tilde_is_the_home_of_the_settings_and_that_of_a_stranger_is_refused(project: Path, home: Path) -> None:
    env = {"HOME": str(home)}
    assert config.load({"bus": "~/x"}, env=env, cwd=project).path == home / "x"
    with pytest.raises(InvalidRequest, match="a user who is not known"):
        config.load({"bus": "~no-such-user-here/x"}, env=env, cwd=project)


WRONG = {
    "wait_s": ["x", "-1", "nan", "inf", "86401"],
    "read_only": ["maybe", "2"],
    "profile": ["boss"],
    "durability": ["FULL", "some"],
    "log_level": ["loud"],
    "channels": ["UPPER", "a/b"],
    "capabilities": ["b@d"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_variable_is_refused_with_its_name_and_value(project: Path, home: Path, name: str, value: str) -> None:
    variable = settings.SETTINGS[name].env
    with pytest.raises(InvalidRequest) as refusal:
        config.load(env={"HOME": str(home), variable: value}, cwd=project)
    assert str(refusal.value).startswith(f"{variable} sets {name} to {value!r}")
    assert refusal.value.hint


@pytest.mark.parametrize(
    "line",
    ["wait_s = [1]", "wait_s = {a = 1}", "channels = 5", "channels = [1]", "capabilities = 5", "no_color = 5",
     "no_color = ['a']", "read_only = 'perhaps'", "profile = 1", "wait_s = 'soon'"],
)  # fmt: skip
def test_a_wrong_line_is_refused_with_its_file(project: Path, home: Path, line: str) -> None:
    (project / "mcp-bus.toml").write_text(line + "\n")
    with pytest.raises(InvalidRequest) as refusal:
        config.load(env={"HOME": str(home)}, cwd=project)
    assert str(project / "mcp-bus.toml") in str(refusal.value)
    assert line.split(maxsplit=1)[0] in str(refusal.value)


@pytest.mark.parametrize("data", [b"agent = ", b"color = 'red'", b"\xff\xfe", b"[table\n"])
def test_a_broken_file_is_refused_with_its_path(project: Path, home: Path, data: bytes) -> None:
    user_file(home).write_bytes(data)
    with pytest.raises(InvalidRequest) as refusal:
        config.load(env={"HOME": str(home)}, cwd=project)
    assert str(user_file(home)) in str(refusal.value)


@pytest.mark.parametrize(("word", "is_on"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)])
def test_lists_and_switches_can_be_words(project: Path, home: Path, word: str, *, is_on: bool) -> None:
    env = {
        "HOME": str(home),
        "MCP_BUS_READ_ONLY": word,
        "MCP_BUS_CHANNELS": "b, a",
        "MCP_BUS_CAPABILITIES": "Python gpu",
    }
    found = config.load(env=env, cwd=project)
    assert (found["read_only"], found["channels"], found["capabilities"]) == (is_on, ("b", "a"), ("gpu", "python"))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("git@host:me/bus.git", "--bus git+git@host:me/bus.git; a directory of that name is ./git@host:me/bus.git"),
        ("host:bus.git#other", "--bus git+host:bus.git#other;"),
        ("ssh://git@host/me/bus.git", "--bus git+ssh://git@host/me/bus.git;"),
        ("https://me:geheim@host/bus.git", "--bus git+https://***@host/bus.git;"),
        ("file:///srv/bus.git", "--bus git+file:///srv/bus.git;"),
        ("s3://bucket/bus", "git+ and ssh://, https://,"),
    ],
)
def test_an_address_without_git_is_no_name_of_a_directory(project: Path, home: Path, said: str, hint: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load({"bus": said}, env={"HOME": str(home)}, cwd=project)
    assert refused.value.hint.startswith(hint)
    assert "geheim" not in str(refused.value) + refused.value.hint
    (project / "mcp-bus.toml").write_text(f'bus = "{said}"\n')
    with pytest.raises(InvalidRequest, match="puts the bus at a remote"):
        load(env={"HOME": str(home)}, cwd=project)


def test_a_directory_with_a_colon_in_its_name_is_named_by_its_path_or_by_being_a_bus(project: Path, home: Path) -> None:
    for said in ("./a:b", "x/a:b", f"{project}/a:b"):
        assert load({"bus": said}, env={"HOME": str(home)}, cwd=project).path == (project / said).absolute()
    (project / "aa:b").mkdir()
    with pytest.raises(InvalidRequest):
        load({"bus": "aa:b"}, env={"HOME": str(home)}, cwd=project)
    (project / "aa:b" / "bus.json").touch()
    assert load({"bus": "aa:b"}, env={"HOME": str(home)}, cwd=project).path == project / "aa:b"


def test_where_this_host_s_part_of_a_bus_at_a_remote_was_no_bus_of_files_is_made(tmp_path: Path) -> None:
    path = tmp_path / "data" / "mcp-bus" / "git" / "shared-4b70ad160ad3"
    for place in (path, tmp_path / "link" / path.name):
        (tmp_path / "data" / "mcp-bus").mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (tmp_path / "link").symlink_to(path.parent)
        with pytest.raises(StoreUnavailable, match="was this host's part of a bus at a git remote, and is gone"):
            open_bus(place)
        assert not path.exists()
    open_bus(path.parent / "mine").close()


def test_a_repository_is_no_bus_and_the_hint_names_the_bus_in_it(tmp_path: Path) -> None:
    bare, top = tmp_path / "bare.git", tmp_path / "top"
    for folder in (bare / "objects", bare / "refs", top / ".git"):
        folder.mkdir(parents=True)
    (bare / "HEAD").touch()
    before = sorted(tmp_path.rglob("*"))
    for place, create in ((bare, True), (bare, False), (top, True)):
        with pytest.raises(InvalidRequest, match=r"is .*a git repository, and not a bus") as refused:
            open_bus(place, create=create)
        assert f"--bus git+{place} " in refused.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_opening_makes_a_bus_once_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreUnavailable):
        open_bus(tmp_path / "bus", create=False)
    assert not (tmp_path / "bus").exists()
    with open_bus(tmp_path / "bus", agent="ann", capabilities=["GPU"]) as bus:
        assert (bus.identity.agent, bus.capabilities) == ("ann", ("gpu",))
        bus.post("work", "x", requires=["gpu"])
        assert bus.claim() is not None
    said = capsys.readouterr()
    assert said.out == ""
    assert "made a new bus" in said.err
    with open_bus(tmp_path / "bus", create=False) as bus:
        assert bus.store.channels() == ["work"]
    assert capsys.readouterr().err == "" or not is_disk(tmp_path)


def test_two_openings_are_two_sessions(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus", agent="ann") as one, open_bus(tmp_path / "bus", agent="ann") as two:
        assert one.identity.agent == two.identity.agent
        assert one.identity.holder != two.identity.holder


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'color'"):
        open_bus(tmp_path / "bus", color="red")
    assert list(tmp_path.iterdir()) == []
