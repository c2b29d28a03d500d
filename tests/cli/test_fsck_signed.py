"""fsck on signed buses: the names it knows, the id of the bus, what was refused, and whose keys it uses."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from examples import audit
from mcp_bus import open_bus

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def signed(cli: Cli) -> Cli:
    """A bus with a signed channel and a task on it, and a key of the agent `tester`."""
    cli.json("key", "new")
    cli.json("channel", "create", "deploy", "signed=yes")
    cli.post("deploy", "honest")
    return cli


def bus_id(cli: Cli) -> str:
    return str(json.loads((cli.bus / "bus.json").read_text())["id"])


def private(cli: Cli) -> Path:
    return cli.home / ".local" / "state" / "mcp-bus"


def anomalies(cli: Cli, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in cli.json("fsck", *words, code=code)["anomalies"]}


def test_a_signed_bus_is_clean_without_a_note(signed: Cli) -> None:
    assert signed.main("fsck", "-q") == (0, "1 tasks: clean\n", "")


# --- bus.json is lost -------------------------------------------------------------------------------


def test_the_id_of_a_signed_bus_is_taken_back_from_the_private_folder(signed: Cli) -> None:
    before = bus_id(signed)
    shutil.rmtree(signed.bus / "signatures")
    (signed.bus / "bus.json").unlink()
    said = anomalies(signed, code=6)["no-bus-json"]["detail"]
    assert said == f"it is missing; {before} is remembered for this place in your private folder, and is kept"
    code, out, _ = signed.main("fsck", "-q", "--repair")
    assert (code, bus_id(signed)) == (6, before), "its signature is gone all the same"
    assert f"repaired: bus.json: written anew; {before} is remembered" in out


def test_the_id_is_taken_back_from_the_signatures_where_nothing_is_remembered(signed: Cli) -> None:
    before = bus_id(signed)
    shutil.rmtree(private(signed) / "trust")
    (signed.bus / "signatures" / "mine.jws").write_text("no signature")
    (signed.bus / "bus.json").write_text('{"form')
    assert f"all signatures name {before}, which is kept" in anomalies(signed, code=1)["no-bus-json"]["detail"]
    assert signed.main("fsck", "-q", "--repair")[0] == 0
    assert bus_id(signed) == before


def test_a_new_id_is_said_with_what_it_costs(signed: Cli) -> None:
    before = bus_id(signed)
    shutil.rmtree(private(signed) / "trust")
    for path in (signed.bus / "signatures").iterdir():
        path.write_text("no signature")
    (signed.bus / "bus.json").unlink()
    said = anomalies(signed, code=1)["no-bus-json"]["detail"]
    assert "it gets a new id, for its signatures cannot be read: none of them holds then" in said
    signed.main("fsck", "-q", "--repair")
    assert bus_id(signed) != before


def test_a_new_id_is_given_where_nothing_names_the_old_one(cli: Cli) -> None:
    cli.post()
    (cli.bus / "bus.json").unlink()
    said = anomalies(cli, code=1)["no-bus-json"]["detail"]
    assert said.startswith("it is missing; it gets a new id, for nothing here names the old one")
    assert cli.main("fsck", "-q", "--repair")[0] == 0


@pytest.mark.parametrize("words", [("ls",), ("init",), ("post", "work", "x"), ("doctor",)], ids=lambda words: words[0])
def test_where_bus_json_is_lost_the_next_step_leads_somewhere(signed: Cli, words: tuple[str, ...]) -> None:
    (signed.bus / "bus.json").unlink()
    code, out, err = signed.main(*words)
    assert code == 1
    assert "has lost its bus.json" in out + err
    assert "mcp-bus fsck --repair" in (out + err).replace(f"mcp-bus --bus {signed.bus}", "mcp-bus")
    assert not (signed.bus / "bus.json").exists()


# --- what cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("post", "work", "x"), ("channel", "show", "work")], ids=lambda words: words[0])
def test_rules_that_cannot_be_read_are_named_with_the_next_step(cli: Cli, words: tuple[str, ...]) -> None:
    cli.post()
    (cli.bus / "channels" / "work" / "channel.json").write_text("")
    code, _, err = cli.main(*words)
    assert code == 1
    assert "the rules of 'work', 'channels/work/channel.json', cannot be read: it is not JSON" in err
    assert "mcp-bus fsck" in err


def test_a_bus_json_that_cannot_be_read_is_named_with_the_next_step(cli: Cli) -> None:
    (cli.bus / "bus.json").write_text("")
    code, _, err = cli.main("ls")
    assert code == 1
    assert f"bus.json of the bus {str(cli.bus)!r} cannot be read: it is not JSON" in err
    assert "mcp-bus fsck --repair" in err


# --- keys ---------------------------------------------------------------------------------------------


def test_a_repair_opens_a_signed_bus_with_the_user_s_keys(signed: Cli) -> None:
    with open_bus(signed.bus, agent="tester") as bus:
        bus.claim(["deploy"], lease_s=1)
    place = next((signed.bus / "channels" / "deploy" / "processing").iterdir())
    *head, _, _ = place.name.split(".")
    place.rename(place.with_name(".".join((*head, "1", "json"))))
    (signed.bus / "tasks" / "strange").write_text("x")
    (signed.bus / "channels" / "deploy" / "requests" / "strange").write_text("x")
    made = signed.json("fsck", "--repair")
    assert made["left"] == []
    assert not [line for line in made["done"] if "left" in line], made


def test_what_a_sweep_left_is_not_said_to_be_repaired(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.post()
    next((cli.bus / "tasks").iterdir()).unlink()
    monkeypatch.setattr("mcp_bus.fsck.mend._swept", lambda *_: ["left as it is: it is not to be had"])
    code, out, _ = cli.main("fsck", "-q", "--repair")
    assert code == 0
    assert "not repaired: left as it is: it is not to be had\n" in out
    assert "repaired: left" not in out.replace("not repaired: left", "")


# --- signatures -----------------------------------------------------------------------------------------


def place(cli: Cli, part: str = "requests") -> Path:
    [path] = (cli.bus / "channels" / "deploy" / part).glob("req_*.json")
    return path


def done(cli: Cli) -> str:
    """Answer the task; return its id."""
    claimed = cli.json("claim", "deploy")
    cli.json("submit", claimed["id"], "--token", claimed["ticket"]["token"], "--done", "swordfish")
    return str(claimed["id"])


def test_a_signature_that_is_gone_is_for_a_person_and_a_repair_moves_nothing(signed: Cli) -> None:
    next((signed.bus / "signatures").iterdir()).unlink()
    files = signed.files()
    for words in ((), ("--repair",)):
        item = anomalies(signed, *words, code=6)["not-signed"]
        assert (item["path"], item["detail"]) == (str(place(signed).relative_to(signed.bus)), "it is not signed")
    assert signed.files() == files
    assert len(audit.look(signed.bus).problems) == 1
    signed.main("claim", "deploy")
    assert {*anomalies(signed)} == {"put-aside", "quarantine"}, "the next claim puts it aside, and that ends it"


@pytest.mark.parametrize("state", ["dead", "waiting"])
def test_a_person_ends_what_is_not_signed(signed: Cli, state: str) -> None:
    task = place(signed).stem
    if state == "dead":
        _, token = signed.claim("deploy")
        signed.json("submit", task, "--token", token, "--blocked", "which?")
    (signed.bus / "signatures" / f"{task}.jws").unlink()
    assert anomalies(signed, code=6)["not-signed"]["id"] == task
    signed.json("discard" if state == "dead" else "cancel", task)
    assert anomalies(signed) == {}
    assert audit.look(signed.bus).problems == []


def test_an_altered_copy_of_what_was_posted_is_for_a_repair(signed: Cli) -> None:
    path = place(signed)
    data = path.read_text()
    path.unlink()
    path.write_text(data.replace("honest", "forged"))
    path.chmod(0o600)
    assert {*anomalies(signed, code=1)} == {"other-body"}
    assert {*anomalies(signed, "--repair")} == {"quarantine"}
    assert path.read_text() == data


def test_an_altered_message_is_for_a_person_and_a_repair_moves_nothing(signed: Cli) -> None:
    path = place(signed)
    path.write_text(path.read_text().replace("honest", "forged"))
    files = signed.files()
    for words in ((), ("--repair",)):
        item = anomalies(signed, *words, code=6)["unverified"]
        assert item["path"] == str(path.relative_to(signed.bus))
        assert item["detail"] == "its signature does not hold: it was altered"
    assert signed.files() == files


def test_a_message_that_is_shown_again_does_not_hold_here_and_now(signed: Cli) -> None:
    kept = place(signed).read_bytes()
    done(signed)
    for found in (*(signed.bus / "channels" / "deploy").rglob("req_*.json"), *(signed.bus / "tasks").iterdir()):
        found.unlink()
    path = signed.bus / "channels" / "deploy" / "requests" / f"{json.loads(kept)['id']}.json"
    path.write_bytes(kept)
    path.chmod(0o600)
    assert anomalies(signed, code=6)["unverified"]["detail"] == "it is shown again, and was finished before"


def test_a_task_whose_time_is_up_waits_for_a_sweep_and_not_for_a_person(signed: Cli) -> None:
    task = signed.json("post", "deploy", "soon over", "--ttl", "0.001s")["id"]
    assert anomalies(signed) == {}
    [path] = (signed.bus / "channels" / "deploy" / "requests").glob(f"{task}*")
    path.rename(path.with_name(f"{task}.json"))
    assert "its signature was good until" in anomalies(signed, code=6)["unverified"]["detail"]


def test_an_altered_result_is_not_what_was_signed(signed: Cli) -> None:
    task = done(signed)
    assert signed.main("fsck", "-q")[:2] == (0, "1 tasks: clean\n")
    path = place(signed, "responses")
    path.write_text(path.read_text().replace("swordfish", "marlin"))
    item = anomalies(signed, code=6)["result-unverified"]
    assert item["path"] == str(path.relative_to(signed.bus))
    assert item["detail"].startswith("it is not what was signed: it was altered")
    assert [line for line in audit.look(signed.bus).problems if task in line]
    for seal in (signed.bus / "signatures").glob(f"{task}.*.jws"):
        seal.unlink()
    assert anomalies(signed, code=6)["result-unverified"]["detail"] == "it is not signed"


def test_a_signature_of_a_result_that_does_not_hold_is_for_a_person(signed: Cli) -> None:
    task = done(signed)
    [seal] = (signed.bus / "signatures").glob(f"{task}.*.jws")
    shutil.copyfile(signed.bus / "signatures" / f"{task}.jws", seal)
    assert "it was signed for the use 'body'" in anomalies(signed, code=6)["result-unverified"]["detail"]


def test_a_key_that_is_not_known_here_is_worth_a_note(signed: Cli) -> None:
    shutil.rmtree(private(signed) / "keys")
    for pin in (private(signed) / "trust").glob("bus_*/keys/*"):
        pin.unlink()
    item = anomalies(signed)["unknown-key"]
    assert (item["level"], "nobody here trusts" in item["detail"]) == ("note", True)


def test_an_unsigned_bus_says_nothing_of_signatures(cli: Cli) -> None:
    cli.post()
    assert cli.json("fsck")["unchecked"] is None
    assert "signature" not in cli.main("fsck")[1]


def test_without_keys_it_is_said_that_no_signature_was_checked(signed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(signed)
    path.write_text(path.read_text().replace("honest", "forged"))
    monkeypatch.setattr("mcp_bus.config.guards", lambda *_: None)
    code, out, _ = signed.main("fsck", "-q")
    assert (code, out) == (
        0, "signatures were not checked: this user has no private folder with keys in it\n1 tasks: clean\n"
    )  # fmt: skip
    path.unlink()


def test_where_what_checks_is_not_installed_it_is_said_and_missing_ones_are_told(
    signed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    assert "cryptography, which is not installed" in str(signed.json("fsck")["unchecked"])
    next((signed.bus / "signatures").iterdir()).unlink()
    made = signed.json("fsck", code=6)
    assert [item["kind"] for item in made["anomalies"]] == ["not-signed"]


def test_a_result_that_does_not_hold_is_given_up_and_the_bus_is_clean_again(signed: Cli) -> None:
    task = done(signed)
    path = place(signed, "responses")
    path.write_text(path.read_text().replace("swordfish", "marlin"))
    code, _, err = signed.main("retry", task)
    assert (code, "its result is not verified" in err, "next: discard gives that result up" in err) == (5, True, True)
    assert signed.json("discard", task)["tasks"][0]["task"]["state"] == "cancelled"
    assert not path.exists()
    assert [found.read_text().count("marlin") for found in (signed.bus / "quarantine").iterdir() if found.suffix == ""]
    assert {*anomalies(signed)} == {"quarantine"}
    assert audit.look(signed.bus).problems == []
    code, _, err = signed.main("retry", task)
    assert (code, "it was finished before" in err, "post it anew" in err) == (5, True, True)


# --- results that nobody signed -------------------------------------------------------------------------


def forge(cli: Cli, task: str) -> Path:
    """Put a result of a task where results are, as somebody without a key."""
    forged = {"id": task, "result": "forged", "from": {"agent": "tester"}, "status": "success"}
    path = cli.bus / "channels" / "deploy" / "responses" / f"{task}.json"
    path.write_text(json.dumps(forged))
    path.chmod(0o600)
    return path


def test_a_result_that_nobody_signed_ends_no_task_that_is_worked_on(signed: Cli) -> None:
    claimed = signed.json("claim", "deploy")
    forge(signed, claimed["id"])
    assert {kind: item["detail"] for kind, item in anomalies(signed, code=1).items()} == {
        "forged-result": "it is not signed"
    }
    assert {*anomalies(signed, "--repair")} == {"quarantine"}
    signed.json("submit", claimed["id"], "--token", claimed["ticket"]["token"], "--done", "honest")
    shown = signed.json("show", claimed["id"])
    assert (shown["state"], shown["result"]["content"], shown["not_verified"]) == ("done", "honest", None)


def test_a_result_that_nobody_signed_ends_no_task_that_waits_or_has_lost_its_place(signed: Cli) -> None:
    path = place(signed)
    task = path.name.split(".")[0]
    forge(signed, task)
    assert {*anomalies(signed, "--repair")} == {"quarantine"}
    assert path.exists()
    forge(signed, task)
    path.unlink()
    assert {*anomalies(signed, code=1)} == {"orphan", "forged-result", "quarantine"}
    assert {*anomalies(signed, "--repair")} == {"quarantine"}
    assert signed.json("claim", "deploy")["id"] == task


def test_a_result_is_left_to_who_can_tell_whose_it_is(signed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = signed.json("claim", "deploy")
    path = forge(signed, claimed["id"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    (signed.bus / "signatures" / f"{claimed['id']}.{digest}.jws").write_text("a..b")
    held = place(signed, "processing")
    with monkeypatch.context() as patch:
        patch.setattr("mcp_bus.config.guards", lambda *_: None)
        assert {*anomalies(signed)} == {"unknown-result"}
        anomalies(signed, "--repair")
    assert (path.exists(), held.exists()) == (True, True)
    assert {*anomalies(signed, "--repair")} == {"quarantine"}
    assert held.exists()


def test_a_signed_result_whose_task_was_cut_off_is_carried_on(signed: Cli) -> None:
    claimed = signed.json("claim", "deploy")
    held = place(signed, "processing")
    signed.json("submit", claimed["id"], "--token", claimed["ticket"]["token"], "--done", "honest")
    next((signed.bus / "channels" / "deploy" / "archive").rglob("*_request.json")).rename(held)
    assert "result-not-done" in anomalies(signed, code=6)  # And shown again, which is for a person where it stays so.
    anomalies(signed, "--repair")
    assert signed.json("show", claimed["id"])["result"]["content"] == "honest"


# --- what was refused -----------------------------------------------------------------------------------


def test_what_was_refused_stays_put_aside_and_is_said_with_when_and_why(signed: Cli) -> None:
    next((signed.bus / "signatures").iterdir()).unlink()
    assert signed.main("claim", "deploy")[0] == 4
    [reason] = (signed.bus / "quarantine").glob("*.reason.json")
    said = json.loads(reason.read_text())
    files = signed.files()
    for words in ((), ("--repair",)):
        item = anomalies(signed, *words)["put-aside"]
        assert item["detail"] == f"{said['at']}: it is not signed"
        assert item["other"] == f"quarantine/{reason.name.removesuffix('.reason.json')}"
    assert signed.files() == files
    assert audit.look(signed.bus).problems == []
    assert [*audit.look(signed.bus).aside.values()] == ["it is not signed"]


def test_what_was_refused_and_is_gone_from_quarantine_is_without_a_place(signed: Cli) -> None:
    next((signed.bus / "signatures").iterdir()).unlink()
    signed.main("claim", "deploy")
    for path in (signed.bus / "quarantine").iterdir():
        path.unlink()
    assert "orphan" in anomalies(signed, code=1)
    assert audit.look(signed.bus).problems


def test_a_forged_result_does_not_bring_back_what_was_refused(signed: Cli) -> None:
    next((signed.bus / "signatures").iterdir()).unlink()
    signed.main("claim", "deploy")
    [task] = (signed.bus / "tasks").iterdir()
    forged = {"id": task.stem, "result": "forged", "from": {"agent": "tester"}, "status": "ok"}
    response = signed.bus / "channels" / "deploy" / "responses" / task.name
    response.write_text(json.dumps(forged))
    response.chmod(0o600)
    for words in ((), ("--repair",)):
        assert {*anomalies(signed, *words)} == {"put-aside", "quarantine"}
    assert audit.look(signed.bus).problems == []
    assert not any((signed.bus / "channels" / "deploy" / "archive").rglob("*.json"))
