"""What was typed wrong is refused with what it was taken for, and with a step that helps in that very case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import InvalidRequest
from mcp_bus.identity import process
from mcp_bus.policies import make

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

REFUSED = {
    "a setting with a slip": (["channel", "create", "r", "pots_by=a"], "did you mean post_by?"),
    "a word for a number": (
        ["channel", "create", "r", "max_waiting=lots"], "'lots' is not a value for max_waiting: it is a whole number"
    ),
    "too few words for a key": (["key", "revoke"], "key revoke takes 1 word, not 0"),
    "too many for another": (["key", "new", "a", "b"], "key new takes 0 to 1 word, not 2"),
    "a key that is no file": (["key", "trust", "ann", "no.jwk"], "name a file that has the key"),
    "a body that is no file": (["post", "r", "@no.txt"], "a text that starts with @ begins with @@"),
    "a path for a group": (["init", "--group", "/srv/x"], "`mcp-bus init /srv/x --group`"),
    "a token where no folder is": (["serve", "--http", "0", "--token-file", "no/tok"], "'no' is no folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_told_from_others_that_look_alike(cli: Cli, case: str) -> None:
    words, said = REFUSED[case]
    before = cli.files()
    code, _, err = cli.main(*words)
    assert (code, said in err) == (2, True), err
    assert "  next: " in err
    assert cli.files() == before
    assert not (cli.home / "no").exists()


def test_a_token_file_that_is_a_link_is_said_to_be_one(cli: Cli) -> None:
    (cli.home / "real").write_text("a-token-of-some-length")
    (cli.home / "tok").symlink_to(cli.home / "real")
    code, _, err = cli.main("serve", "--http", "0", "--token-file", "tok")
    assert (code, "is a symbolic link, and is not followed" in err) == (2, True)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("max_waiting", "x", "it is a whole number from 0, for example 0"),
        ("lease_s", "x", "it is a number from 0, for example 300.0"),
        ("outputs", "x", "it is true or false, for example False"),
        ("leas_s", 1, "did you mean 'lease_s'?"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_words_what_it_is(setting: str, value: object, said: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        make({setting: value})
    assert error.value.hint == said


def test_a_hint_for_a_terminal_names_the_bus_and_only_a_channel_that_is_there(cli: Cli) -> None:
    cli.json("channel", "create", "work")
    code, _, err = cli.main("--bus", str(cli.bus), "channel", "set", "work", "signed=no")
    assert (code, f"in a terminal: `mcp-bus --bus {cli.bus} channel set work signed=no`" in err) == (2, True)
    code, _, err = cli.main("channel", "set", "nowhere", "signed=no")
    assert (code, "in a terminal" in err, "there is no channel 'nowhere'" in err) == (3, False, True)
    code, _, err = cli.main("--bus", str(cli.bus), "channel", "set", "@ann", "lease_s=3")
    assert (code, f"`mcp-bus --bus {cli.bus} channel set @ann signed=yes`" in err) == (2, True)


def test_an_inbox_with_unread_mail_is_to_be_read_before_it_is_signed(cli: Cli) -> None:
    cli.json("send", "@bob", "x")
    code, _, err = cli.main("channel", "set", "@bob", "signed=yes")
    assert (code, "next: let them be read and acked first" in err, "new channel" in err) == (5, True, False)


def test_what_is_over_is_not_to_be_cancelled_before_it_is_posted_anew(cli: Cli) -> None:
    cancelled, waits = cli.post(), cli.post()
    cli.json("cancel", cancelled)
    assert cli.main("retry", cancelled, "--body", "y")[2].endswith("next: post a new task\n")
    assert cli.main("retry", waits, "--body", "y")[2].endswith("next: cancel it and post a new task\n")


def test_one_task_waits_and_two_wait(cli: Cli) -> None:
    for most, said in ((1, "1 task waits on 'work'"), (2, "2 tasks wait on 'work'")):
        cli.json("channel", "create", "work", f"max_waiting={most}")
        cli.post()
        assert said in cli.main("post", "work", "x")[2]


def test_a_message_without_a_time_is_shown_without_a_comma_for_it(cli: Cli) -> None:
    cli.json("channel", "create", "work")
    name = f"req_{1:012x}{1:020x}"
    path = cli.bus / "channels" / "work" / "requests" / f"{name}.json"
    path.write_text(f'{{"id": "{name}", "to": "work", "content": "x", "from": {{"agent": "script"}}}}')
    _, out, _ = cli.main("claim", "work")
    assert "from    script\n" in out


def test_doctor_says_of_a_bus_below_a_closed_folder_which_it_is(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setattr("mcp_bus.cli.checkups.os.access", lambda path, _: path != cli.home)  # Root may enter any.
    code, out, _ = cli.main("doctor")
    assert code == 1
    assert f"is below a folder that this user may not enter: {cli.home}" in out
    assert f"next: ls -ld {cli.home}" in out


def test_what_is_to_be_installed_goes_to_the_python_that_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "a b" / "python"
    monkeypatch.setattr(process, "sys", SimpleNamespace(executable=str(python)))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert process.to_install("pyrage") == f"`'{python}' -m pip install pyrage`"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # As uv makes environments.
    assert process.to_install("pyrage") == f"`uv pip install --python '{python}' pyrage`"
