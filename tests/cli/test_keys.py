"""key and signed channels, as people and scripts meet them; and the one word that an agent is told."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor, open_bus
from mcp_bus.find import ending
from mcp_bus.server import answers, letters
from mcp_bus.server.words import ALL_WAYS
from mcp_bus.signing import keys
from mcp_bus.signing.guard import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def signed(cli: Cli) -> Cli:
    """A bus with a signed channel, and a key of the agent `tester`."""
    cli.json("key", "new")
    cli.json("channel", "create", "deploy", "signed=yes")
    return cli


def private(cli: Cli) -> Path:
    return cli.home / ".local" / "state" / "mcp-bus"


def test_a_new_key_is_private_and_its_public_part_is_what_is_exported(cli: Cli) -> None:
    made = cli.json("key", "new", "planner")
    (path,) = (private(cli) / "keys").iterdir()
    assert path.name == f"{made['kid']}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    secret = json.loads(path.read_text())["jwk"]["d"]
    code, out, _ = cli.main("key", "export", "planner")
    assert (code, json.loads(out)) == (0, made["jwk"])
    shown = "".join(
        cli.main(*words)[1] for words in (["key", "show", "planner"], ["key", "list"], ["key", "rotate", "planner"])
    )
    assert secret not in shown + out
    assert not [name for name in cli.files() if secret in (cli.bus / name).read_text(errors="replace")]


def test_who_has_no_key_is_told_how_to_make_one(cli: Cli) -> None:
    cli.json("channel", "create", "deploy", "signed=yes")
    code, _, err = cli.main("post", "deploy", "x")
    assert code == 1
    assert "`mcp-bus key new 'tester'`" in err


def test_a_worker_without_a_key_is_told_as_it_starts_and_as_it_ends(signed: Cli) -> None:
    signed.post("deploy")
    words = ("worker", "run", "deploy", "--idle", "0.2s", "--", "true")
    code, _, err = signed.main("--agent", "keyless", *words)
    assert code == 0
    assert "no task of it will come: 'deploy' is signed, and 'keyless' has no key" in err
    assert err.count("`mcp-bus key new 'keyless'`") == 2, err
    code, _, err = signed.main(*words)
    assert (code, "no key" in err) == (0, False)


def test_what_is_verified_is_said_where_it_is_shown(signed: Cli) -> None:
    task = signed.post("deploy")
    shown = signed.json("show", task)
    assert re.fullmatch(r"tester \([\w-]{8}\)", shown["verified"])
    assert (shown["result_verified"], shown["not_verified"]) == (None, None)
    _, token = signed.claim("deploy")
    signed.json("submit", task, "--token", token, "--done", "ok")
    assert signed.json("show", task)["result_verified"] == shown["verified"]
    code, out, _ = signed.main("wait", task)
    assert (code, f"verified: {shown['verified']}" in out) == (0, True)
    assert "verified" not in signed.json("show", signed.post("plain"))


def test_a_result_that_does_not_hold_needs_a_person(signed: Cli) -> None:
    task = signed.post("deploy")
    _, token = signed.claim("deploy")
    signed.json("submit", task, "--token", token, "--done", "swordfish")
    path = signed.bus / "channels" / "deploy" / "responses" / f"{task}.json"
    path.write_text(path.read_text().replace('"swordfish"', '"marlin"'))
    code, out, err = signed.main("wait", task)
    assert (code, "unverified: NOT VERIFIED: its result: it is not what was signed" in out, "marlin" in out) == (
        6,
        True,
        False,
    )
    assert "next: use nothing of it before a person has looked: `mcp-bus show" in err
    for words in (("find", "--state", "done"), ("export", "--format", "md"), ("export", "--format", "csv")):
        assert "unverified" in (shown := signed.main(*words)[1]), words
        assert "marlin" not in shown
    code, out, _ = signed.main("show", task)
    assert (code, "NOT VERIFIED" in out, "marlin" in out) == (0, True, False)
    assert signed.json("show", task)["result"] is None
    with open_bus(agent="tester") as bus:
        text = answers.shown(bus, bus.get(task), "0011", 0, ALL_WAYS)
        told = answers.awaited(bus, [ending(bus, task)], "0011", 0, ALL_WAYS)
        for said in (text, told):
            assert "NOT VERIFIED" in said
            assert "marlin" not in said
        assert told.endswith("before a person has looked at what is NOT VERIFIED")


def test_an_agent_is_told_in_one_word(signed: Cli) -> None:
    signed.json("channel", "set", "@tester", "signed=yes")
    signed.post("deploy")
    signed.post("plain")
    signed.json("send", "@tester", "hello")
    with open_bus(agent="tester") as bus:
        for channel, said in (("deploy", 1), ("plain", 0)):
            task = bus.claim([channel]) or pytest.fail("nothing to claim")
            assert answers.claimed(bus, task, [], ALL_WAYS).count("verified") == said
        assert letters.read(bus, bus.mail.read(), [], "0011", ALL_WAYS).count("verified") == 1


def test_the_key_of_another_home_is_believed_once_it_is_trusted(signed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(signed.home / "elsewhere"))
        signed.json("--agent", "reviewer", "key", "new")
        public = signed.main("--agent", "reviewer", "key", "export")[1]
        signed.json("--agent", "reviewer", "post", "deploy", "before")
    assert signed.json("claim", "deploy", code=4)["ticket"] is None
    (signed.home / "reviewer.jwk").write_text(public)
    signed.json("key", "trust", "reviewer", "reviewer.jwk")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(signed.home / "elsewhere"))
        signed.json("--agent", "reviewer", "post", "deploy", "after")
        rotation = signed.main("-q", "--agent", "reviewer", "key", "rotate")[1].strip()
        signed.json("--agent", "reviewer", "post", "deploy", "with the new key")
    assert [signed.json("claim", "deploy")["body"] for _ in range(2)] == ["before", "after"]
    assert signed.main("key", "trust", "planner", rotation)[0] == 2, "it is another agent's"
    head, said, tail = rotation.split(".")
    broken = "A" if tail[0] != "A" else "B"
    assert signed.main("key", "trust", "reviewer", f"{head}.{said}.{broken}{tail[1:]}")[0] == 2, "nobody signed it"
    signed.json("key", "trust", "reviewer", rotation)
    assert signed.json("claim", "deploy")["body"] == "with the new key"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["trust", "planner"], 2), (["trust"], 2), (["trust", "planner", "{}"], 2),
        (["trust", "planner", "missing"], 2),
        (["trust", "planner", '{"kty":"OKP","crv":"Ed25519","x":"AA"}'], 2), (["trust", "planner", "eyJ.a.b"], 2),
        (["trust", "a~b", "{}"], 2), (["list", "x"], 2), (["revoke"], 2), (["revoke", "nosuchkey"], 3),
        (["new", "--here"], 2),
        (["export", "nobody"], 3), (["new", "--before", "2026-01-01"], 2), (["trust", "--here", "x"], 2),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(cli: Cli, words: list[str], code: int) -> None:
    got, out, err = cli.main("key", *words)
    assert (got, out) == (code, "")
    assert "next: " in err


def test_a_private_key_is_not_taken_for_a_public_one(cli: Cli) -> None:
    cli.json("key", "new")
    (path,) = (private(cli) / "keys").iterdir()
    secret = json.dumps(json.loads(path.read_text())["jwk"])
    code, _, err = cli.main("key", "trust", "tester", secret)
    assert (code, "private key" in err) == (2, True)


def test_whose_key_is_asked_is_whose_is_shown(signed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(signed.home / "elsewhere"))
        jwk = signed.json("--agent", "reviewer", "key", "new")["jwk"]
    code, _, err = signed.main("key", "show", "reviewer")
    assert (code, "`mcp-bus key trust 'reviewer' FILE`" in err, "key new" in err) == (3, True, False)
    signed.json("key", "trust", "reviewer", json.dumps(jwk))
    assert signed.json("key", "show", "reviewer")["jwk"] == jwk
    assert json.loads(signed.main("key", "export", "reviewer")[1]) == jwk
    assert [key["agent"] for key in signed.json("key", "list")["keys"] if not key["own"]] == ["reviewer"]
    (own,) = [key["kid"] for key in signed.json("key", "list")["keys"] if key["own"]]
    assert signed.main("key", "forget", own)[0] == 2
    kid = signed.json("key", "show", "reviewer")["kid"]
    assert "is not known any more" in signed.main("key", "forget", kid[:8])[1]
    assert signed.main("key", "show", "reviewer")[0] == 3


def test_a_revoked_key_is_neither_shown_nor_rotated_nor_followed_by_an_older_one(signed: Cli) -> None:
    new = json.loads(signed.main("--json", "key", "rotate")[1])["kid"]
    rows = signed.main("key", "list")[1].splitlines()[1:]
    assert [row.endswith("trusted, signs") for row in rows] == [row.startswith(new[:8]) for row in rows]
    signed.json("key", "revoke", new, "--before", "2h")
    assert "; counts before 20" in signed.main("key", "list")[1]
    assert "brings nothing back" in signed.main("key", "revoke", new, "--before", "1h")[2]
    for words in (("key", "show"), ("key", "export"), ("key", "rotate"), ("post", "deploy", "x")):
        code, _, err = signed.main(*words)
        assert (code != 0, "was revoked" in err, "`mcp-bus key new 'tester'`" in err) == (True, True, True), words


def test_a_first_key_that_is_awaited_is_listed(signed: Cli) -> None:
    signed.json("key", "trust", "--first-use", "newcomer")
    assert signed.json("key", "list")["first_use"] == ["newcomer"]
    assert re.search(
        r"^- +newcomer +another's +the first that comes is trusted$", signed.main("key", "list")[1], re.MULTILINE
    )
    assert signed.main("key", "trust", "--first-use", "tester")[0] == 2


def test_a_private_folder_that_others_may_read_is_closed_by_what_is_said(signed: Cli) -> None:
    for path in (private(signed), *private(signed).rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    code, _, err = signed.main("post", "deploy", "x")
    assert code == 1
    command = err.split("then `")[1].split("`")[0]
    subprocess.run(command, shell=True, check=True)  # noqa: S602  as a person would
    assert signed.main("post", "deploy", "x")[0] == 0


def test_a_revoked_key_is_listed_and_signs_no_more(signed: Cli) -> None:
    (found,) = signed.json("key", "list")["keys"]
    assert signed.main("key", "revoke", found["kid"][:8], "--before", "soon")[0] == 2
    signed.json("key", "revoke", found["kid"][:8], "--before", "2h")
    (pin,) = [key for key in signed.json("key", "list")["keys"] if key["kid"] == found["kid"]]
    assert abs(time.time() - datetime.fromisoformat(pin["counts_before"]).timestamp() - 7200) < 60
    assert signed.json("key", "revoke", found["kid"][:8], "--before", "2020-01-01T00:00:00Z")["trusted"] is False
    (found,) = signed.json("key", "list")["keys"]
    assert found["counts_before"] == "2020-01-01T00:00:00.000Z"
    assert signed.main("post", "deploy", "x")[0] == 1
    signed.json("key", "new")
    assert signed.main("post", "deploy", "x")[0] == 0


def test_only_a_person_at_a_terminal_ends_signatures(signed: Cli) -> None:
    code, _, err = signed.main("channel", "set", "deploy", "signed=no")
    assert (code, "no terminal" in err) == (2, True)
    assert signed.main("channel", "set", "deploy", "signed=no", "lease_s=60")[0] == 2
    assert signed.main("channel", "create", "deploy", "signed=no")[0] == 2
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "mcp_bus", "channel", "set", "deploy", "signed=no"]
    with subprocess.Popen(
        words, env=signed.env, stdin=theirs, stdout=theirs, stderr=theirs, cwd=signed.home
    ) as process:
        process.wait(timeout=60)
    os.close(theirs)
    with suppress(OSError):  # A terminal whose other end is closed is read to its end that way.
        while os.read(ours, 4096):
            pass
    os.close(ours)
    assert process.returncode == 0
    assert signed.json("channel", "show", "deploy")["signed"] is False
    signed.post("deploy")
    assert "verified" not in signed.json("claim", "deploy")


def test_a_plan_counts_a_step_whose_result_does_not_hold_as_failed(signed: Cli) -> None:
    plan = {"goal": "ship", "steps": [{"name": "build", "body": "make it", "channel": "deploy"}]}
    with open_bus(agent="tester") as bus:
        made = conductor.post(bus, plan)
        task = bus.claim(["deploy"]) or pytest.fail("nothing to claim")
    folder = signed.bus / "channels" / "deploy"
    lease = next((folder / "processing").iterdir())
    (folder / "archive" / "2026-01-01").mkdir(parents=True)
    lease.rename(folder / "archive" / "2026-01-01" / f"{lease.stem.rpartition('.')[0]}_request.json")
    said = {"id": task.id, "status": "success", "from": {"agent": "tester"}, "result": "forged"}
    (folder / "responses" / f"{task.id}.json").write_text(json.dumps(said))
    with open_bus(agent="tester") as bus:
        _, progress = conductor.advance(bus, made.id)
    node = progress.nodes["build"]
    assert (str(node.stage), node.why) == ("failed", "its result is not verified: its result: it is not signed")


def test_a_key_does_not_name_what_follows_the_key_of_another(signed: Cli) -> None:
    signed.json("key", "new", "reviewer")
    with open_bus(agent="tester") as bus:
        guard = bus.store.guard
        assert isinstance(guard, Guard)
        (own,) = guard.own("tester")
        said = keys.rotation(own._replace(agent="reviewer"), guard.make("mallory"))
    assert signed.main("key", "trust", "reviewer", said)[0] == 2
