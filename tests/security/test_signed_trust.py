"""What is believed is said in the private folder, by a person, and nowhere else."""

from __future__ import annotations

import base64
import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.errors import (
    Conflict,
    CorruptRecord,
    InvalidRequest,
    NoKey,
    NotFound,
    StoreUnavailable,
    Untrusted,
    Unverified,
)
from mcp_bus.model import State
from mcp_bus.signing import jws, keys, switch
from mcp_bus.stores.fsops import Fs
from tests.security.conftest import CHANNEL, World, passed_over, refused, signed_by

if TYPE_CHECKING:
    from pathlib import Path


# --- the rule itself, and the private folder -------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"signed":false}', "{}", "not JSON", '{"signed":"no"}', None])
def test_whoever_edits_the_policy_gains_nothing(world: World, text: str | None) -> None:
    path = world.root / "channels" / CHANNEL / "channel.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    i, data = world.forged()
    world.place(i, data, None)
    try:
        assert world.work() == []
    except CorruptRecord:
        path.write_text("{}")
        assert world.work() == []
    assert "it is not signed" in world.reasons()


def test_a_rule_that_cannot_be_read_leaves_what_is_remembered(world: World) -> None:
    store = world.bus().store
    i, data = world.forged()
    world.place(i, data, None)
    (slot,) = store.scan(CHANNEL, State.READY)
    (world.root / "channels" / CHANNEL / "channel.json").write_text("not JSON")
    with pytest.raises(Unverified):
        store.get(i, at=slot)


def test_a_person_who_ends_it_and_thinks_again_loses_nothing_that_waits_there(world: World) -> None:
    bus = world.bus()
    bus.post(CHANNEL, "signed")
    world.source.advance(1)
    switch.off(bus.store, CHANNEL)
    bus.create_channel(CHANNEL, signed=True)
    assert world.work() == ["signed"]
    switch.off(bus.store, CHANNEL)
    world.source.advance(1)
    bus.post(CHANNEL, "signed by nobody")
    with pytest.raises(Conflict, match="not signed"):
        bus.create_channel(CHANNEL, signed=True)
    assert not bus.store.policy(CHANNEL).signed


def test_it_is_ended_also_where_the_channel_was_removed(world: World) -> None:
    shutil.rmtree(world.root / "channels" / CHANNEL)
    bus = world.bus()
    assert not switch.off(bus.store, CHANNEL).signed
    assert not bus.store.guarded(CHANNEL).signed


def test_a_program_cannot_switch_it_off_and_a_person_who_does_makes_nothing_old_good(world: World) -> None:
    bus = world.bus()
    with pytest.raises(InvalidRequest, match="person"):
        bus.create_channel(CHANNEL, signed=False)
    i, data = world.forged()
    world.place(i, data, None)
    world.source.advance(1)
    switch.off(bus.store, CHANNEL)
    assert not bus.store.policy(CHANNEL).signed
    assert bus.claim([CHANNEL]) is None
    assert world.reasons() == ["it is not signed"]
    plain = bus.post(CHANNEL, "from now on unsigned").id
    task = bus.claim([CHANNEL]) or pytest.fail("nothing to claim")
    assert (task.id, task.proof) == (plain, None)


def test_a_channel_where_unsigned_tasks_wait_is_not_made_signed(world: World) -> None:
    bus = world.bus()
    bus.post("plain", "x")
    with pytest.raises(Conflict, match="not signed"):
        bus.create_channel("plain", signed=True)
    assert bus.claim(["plain"]) is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_private_key_that_others_may_get_at_is_refused(world: World, mode: int) -> None:
    for path in (world.home / "keys").iterdir():
        path.chmod(mode)
    with pytest.raises(Untrusted, match="others may"):
        world.bus().post(CHANNEL, "x")


@pytest.mark.parametrize("folder", ["keys", "signed"])
@pytest.mark.parametrize("how", ["mode", "link", "json", "fifo", "other", "folder"])
def test_a_hostile_private_folder_stops_everything_and_loses_nothing(world: World, folder: str, how: str) -> None:
    i = world.bus().post(CHANNEL, "x").id
    for path in (world.home / "trust").glob(f"bus_*/{folder}/*"):
        text = path.read_text()
        if how == "mode":
            path.chmod(0o666)
        elif how == "folder":
            path.parent.chmod(0o777)
        elif how == "json":
            path.write_text(text[:-2])
        elif how == "other":
            path.write_text(text.replace('"agent"', '"agnet"').replace('"until"', '"untl"'))
        else:
            path.unlink()
            kept = world.root / f"kept-{path.name}"  # The same, but where others can write.
            kept.write_text(text)
            kept.chmod(0o600)
            os.mkfifo(path) if how == "fifo" else path.symlink_to(kept)
    with pytest.raises(Untrusted):
        world.work()
    assert world.paths(i).body.exists()
    assert world.reasons() == []


@pytest.mark.parametrize("how", ["none", "no folder", "open to others", "unreadable"])
def test_a_home_that_is_none_keeps_nobody_from_unsigned_channels(world: World, disk: Path, how: str) -> None:
    home = disk / "strange"
    if how == "no folder":
        home.write_text("")
    elif how != "none":
        home.mkdir(mode=0o777 if how == "open to others" else 0o000)
        home.chmod(0o777 if how == "open to others" else 0o000)
    bus = world.bus(home=home)
    bus.post("plain", "x")
    assert bus.claim(["plain"]) is not None
    if home.is_dir():
        home.chmod(0o777)
        (home / "trust").mkdir()
        world.source.refresh()
        with pytest.raises(Untrusted):
            world.bus(home=home).claim(["plain"])


@pytest.mark.parametrize("code", ["EIO", "ESTALE"])
def test_a_home_that_cannot_be_asked_switches_no_signature_off(
    world: World, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    i, data = world.forged()
    world.place(i, data, None)
    (world.root / "channels" / CHANNEL / "channel.json").write_text('{"signed":false}')
    real, number = os.lstat, getattr(errno, code)

    def failing(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(world.home)):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, **options)

    def unopened(_self: Fs, name: str, at: int | None) -> int:
        if at is None and name.startswith(str(world.home)):
            raise OSError(number, os.strerror(number), name)
        return opened(_self, name, at)

    opened = Fs.open_dir
    with monkeypatch.context() as patch:
        patch.setattr(Fs, "open_dir", unopened)
        patch.setattr(os, "lstat", failing)
        with pytest.raises(StoreUnavailable, match="private folder"):
            world.bus("worker").claim([CHANNEL])
    assert world.paths(i).body.exists()
    assert world.work() == []


# --- trust -----------------------------------------------------------------------------------------------


def test_a_first_key_is_believed_only_where_that_was_asked_for_and_only_the_first(world: World, disk: Path) -> None:
    evil, late = disk / "one", disk / "two"
    world.guard().trust.expect("newcomer")
    first, data = world.forged("newcomer", "first")
    world.place(first, data, signed_by(world, evil, "newcomer", first, data))
    assert world.work() == ["first"]
    second, data = world.forged("newcomer", "second")
    world.place(second, data, signed_by(world, late, "newcomer", second, data))
    passed_over(world, "nobody here trusts")


def test_a_first_key_is_not_believed_where_one_is_known(world: World, disk: Path) -> None:
    world.guard().trust.expect("newcomer")
    world.guard(disk / "late").make("newcomer")
    world.guard().trust.pin("newcomer", world.guard(disk / "late").own("newcomer")[0].public, world.source.now())
    with pytest.raises(InvalidRequest, match="known here already"):
        world.guard().trust.expect("newcomer")
    assert world.guard().trust.expected() == []
    i, data = world.forged("newcomer")
    world.place(i, data, signed_by(world, disk / "evil", "newcomer", i, data))
    passed_over(world, "nobody here trusts")


def test_a_key_that_was_followed_signs_nothing_again_when_the_one_that_followed_it_is_revoked(world: World) -> None:
    guard = world.guard()
    old, new = guard.own("planner")[-1], guard.make("planner")
    guard.trust.pin("planner", new.public, world.source.now())
    guard.trust.revoke(new.kid, world.source.now())
    with pytest.raises(NoKey, match="was revoked"):
        world.bus().post(CHANNEL, "x")
    assert not world.guard().signs("planner")
    assert not world.guard().trust.keys()[old.kid].revoked
    third = guard.make("planner")
    world.bus().post(CHANNEL, "y")
    assert world.guard().newest("planner") == third
    assert world.work() == ["y"]


def test_a_pin_is_forgotten_and_a_revocation_is_not(world: World, disk: Path) -> None:
    other, trust = world.guard(disk / "other").make("mate"), world.guard().trust
    trust.pin("mat", other.public, world.source.now())
    with pytest.raises(InvalidRequest, match="speaks for 'mat' here"):
        trust.pin("mate", other.public, world.source.now())
    assert trust.forget(other.kid).agent == "mat"
    assert trust.key(other.kid) is None
    trust.pin("mate", other.public, world.source.now())
    trust.revoke(other.kid, world.source.now())
    with pytest.raises(InvalidRequest, match="not forgotten"):
        trust.forget(other.kid)
    pin = trust.key(other.kid)
    assert pin is not None
    assert pin.revoked
    with pytest.raises(NotFound):
        trust.forget("x" * 43)


def test_the_key_in_a_header_is_the_one_that_its_kid_names(world: World, disk: Path) -> None:
    world.guard().trust.expect("newcomer")
    i, data = world.forged("newcomer")
    kid = world.guard().own("worker")[0].kid + ""
    seal = signed_by(world, disk / "evil", "newcomer", i, data, kid=kid[:-1] + ("A" if kid[-1] != "A" else "E"))
    world.place(i, data, seal)
    refused(world, "does not hold")


def test_base64_has_one_spelling() -> None:
    for data in (b"", b"a", b"ab", b"abc", bytes(range(64))):
        text = jws.b64(data)
        assert jws.unb64(text) == data
        for other in (text + "=", text + "\n", " " + text, text + "A"):
            try:
                assert jws.unb64(other) != data
            except ValueError:
                continue
    with pytest.raises(ValueError, match="otherwise"):
        jws.unb64("YR")  # `YQ` with a bit set that counts for nothing.
    with pytest.raises(ValueError, match=r"."):
        jws.unb64(base64.b64encode(b"\xff\xfe\xfd").decode())


def test_a_key_is_named_as_the_rfc_says() -> None:
    # RFC 8037, appendix A.3: the thumbprint of the key of A.2.
    public = jws.unb64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert keys.kid_of(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_signature_is_the_one_of_the_rfc() -> None:
    # RFC 8037, appendix A.4: deterministic, so that the bytes are known.
    private = jws.unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    said = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    assert jws.b64(jws.sign(private, said)) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


def test_a_first_key_has_to_sign_before_it_is_believed(world: World, disk: Path) -> None:
    world.guard().trust.expect("newcomer")
    i, data = world.forged("newcomer")
    seal = signed_by(world, disk / "evil", "newcomer", i, data + b" ")
    world.place(i, data, seal)
    refused(world, "does not hold")
    assert "newcomer" not in [pin.agent for pin in world.guard().trust.keys().values()]


def test_a_pin_under_the_name_of_another_key_is_damaged(world: World) -> None:
    world.bus().post(CHANNEL, "x")
    one, two = sorted((world.home / "trust").glob("bus_*/keys/*"))
    one.write_text(two.read_text())
    two.write_text(one.read_text())
    with pytest.raises(Untrusted, match="damaged"):
        world.work()
