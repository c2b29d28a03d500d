"""P20: on a signed channel nothing that was forged, altered, replayed, moved or has expired is delivered as verified.

Each test plays someone who can write the bus, but not the private folder.  What counts is the effect: the message
is not handed out, it is put aside with a reason, and the honest one behind it is worked on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import CorruptRecord, InvalidRequest, NoKey, Untrusted
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.signing import jws, keys
from mcp_bus.stores.file import FileStore
from tests.fakes import bus_on
from tests.security.conftest import CHANNEL, World, passed_over, refused, signed_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def header_of(seal: bytes) -> dict[str, object]:
    made: dict[str, object] = json.loads(jws.unb64(seal.split(b".")[0].decode()))
    return made


# --- the honest way --------------------------------------------------------------------------------------


def test_a_signed_task_is_verified_from_post_to_result(world: World) -> None:
    bus, worker = world.bus(), world.bus("worker")
    i = bus.post(CHANNEL, "ship it").id
    task = worker.claim([CHANNEL]) or pytest.fail("nothing to claim")
    assert task.verified.startswith("planner (")
    worker.ack(task, "shipped")
    done = bus.get(i)
    assert done.result is not None
    assert done.proof is not None
    assert done.proof.result.startswith("worker (")
    assert not done.proof.doubt


def test_nothing_is_said_on_unsigned_channels_and_nothing_is_written(world: World) -> None:
    bus = world.bus()
    i = bus.post("plain", "x").id
    task = bus.claim(["plain"]) or pytest.fail("nothing to claim")
    bus.ack(task, "y")
    assert bus.get(i).proof is None
    assert not (world.root / "signatures").exists()


def test_who_has_no_key_cannot_post_and_is_told_how_to_make_one(world: World) -> None:
    with pytest.raises(NoKey, match="stranger") as error:
        world.bus("stranger").post(CHANNEL, "x")
    assert "mcp-bus key new" in error.value.hint
    assert list(world.bus().store.scan(CHANNEL, State.READY)) == []


def test_whose_key_is_gone_cannot_finish_and_keeps_the_task(world: World) -> None:
    world.bus().post(CHANNEL, "x")
    key = world.guard().make("stranger")
    stranger = world.bus("stranger")
    task = stranger.claim([CHANNEL]) or pytest.fail("nothing to claim")
    (world.home / "keys" / f"{key.kid}.json").unlink()
    with pytest.raises(NoKey):
        stranger.ack(task, "done")
    assert stranger.get(task.id).state is State.LEASED


def test_a_store_without_keys_refuses_signed_channels(world: World) -> None:
    store = FileStore(world.root, source=world.source, durable=False)
    with pytest.raises(Untrusted):
        bus_on(store, world.source).post(CHANNEL, "x")
    world.bus().post(CHANNEL, "x")
    with pytest.raises(Untrusted):
        bus_on(store, world.source).claim([CHANNEL])
    store.close()
    assert world.work() == ["x"]


def test_a_repeated_post_under_a_key_leaves_no_signature_over(world: World) -> None:
    bus = world.bus()
    i = bus.post(CHANNEL, "x", key="k").id
    assert bus.post(CHANNEL, "x", key="k").id == i
    assert [path.name for path in (world.root / "signatures").iterdir()] == [f"{i}.jws"]


# --- forged and altered ----------------------------------------------------------------------------------


def test_an_unsigned_message_is_put_aside(world: World) -> None:
    i, data = world.forged()
    world.place(i, data, None)
    refused(world, "not signed")
    with pytest.raises(CorruptRecord, match="put aside: it is not signed"):
        world.bus().get(i)


def test_a_message_dropped_in_by_another_program_is_put_aside(world: World) -> None:
    i, data = world.forged()
    (world.root / "channels" / CHANNEL / "requests" / "anything.json").write_bytes(data)
    sweep(world.bus())
    refused(world, "not signed")
    assert i


@pytest.mark.parametrize("part", ["seal", "body"])
def test_no_byte_can_be_changed(world: World, part: str) -> None:
    bus, worker = world.bus(), world.bus("worker")
    size = len(getattr(world.paths(bus.post(CHANNEL, "pay 10 to ann").id), part).read_bytes())
    assert world.work() == ["pay 10 to ann"]
    for at in range(size):
        i = bus.post(CHANNEL, "pay 10 to ann").id
        path: Path = getattr(world.paths(i), part)
        data = bytearray(path.read_bytes())
        data[at] ^= 1 << (at % 7)
        path.write_bytes(data)
        assert worker.claim([CHANNEL]) is None, f"byte {at} of the {part}"
        assert not world.paths(i).body.exists(), f"byte {at} was not put aside"
    assert len(world.reasons()) == size
    refused(world, "")


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"A",
        lambda data: data + b"\n",
        lambda data: data + b"=",
        lambda data: data * 200,
        lambda data: data.replace(b"..", b"."),
        lambda data: data.replace(b"..", b".e30."),
        lambda data: data.split(b"..")[0] + b"..",
        lambda data: b".." + data.split(b"..")[1],
        lambda data: b"\xff\xfe" + data,
        lambda _: b"{}",
    ],
    ids=[
        *("empty", "cut", "half", "longer", "newline", "padded", "huge"),
        *("one-dot", "payload", "no-signature", "no-header", "bytes", "json"),
    ],
)
def test_a_signature_file_that_is_none_is_refused(world: World, change: Callable[[bytes], bytes]) -> None:
    path = world.paths(world.bus().post(CHANNEL, "x").id).seal
    path.write_bytes(change(path.read_bytes()))
    refused(world, "signature")


def _symlink(path: Path) -> None:
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.symlink_to(kept)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("make", [_symlink, _fifo, _folder])
def test_a_signature_that_is_no_file_is_refused_and_blocks_nobody(world: World, make: Callable[[Path], None]) -> None:
    make(world.paths(world.bus().post(CHANNEL, "x").id).seal)
    refused(world, "cannot be read")


def _headed(seal: bytes, header: str, signature: bytes | None = None) -> bytes:
    tail = seal.split(b"..")[1] if signature is None else jws.b64(signature).encode()
    return jws.b64(header.encode()).encode() + b".." + tail


def test_no_other_algorithm_is_taken_from_a_message(world: World) -> None:
    bus = world.bus()
    for alg in ("none", "None", "HS256", "HS512", "ES256", "RS256", "eddsa", ""):
        i = bus.post(CHANNEL, "x").id
        path, data = world.paths(i).seal, world.paths(i).body.read_bytes()
        said = header_of(path.read_bytes()) | {"alg": alg}
        head = json.dumps(said, separators=(",", ":"))
        # HS256 with the public key as its secret, as libraries that believe the header would check it.
        public = jws.unb64(said["jwk"]["x"])  # type: ignore[index]  # of our own making
        mac = hmac.new(public, f"{jws.b64(head.encode())}.{jws.b64(data)}".encode(), hashlib.sha512).digest()
        for signature in (None, mac, b"", mac[:32]):
            path.write_bytes(_headed(path.read_bytes(), head, signature))
            with pytest.raises(CorruptRecord):
                bus.store.get(i, at=next(slot for slot in bus.store.scan(CHANNEL, State.READY) if slot.id == i))
            if not world.paths(i).body.exists():
                break
    refused(world, "signature is none")


@pytest.mark.parametrize(
    "extra", ['"kid":"x"', '"alg":"none"', '"exp":99999999999999', '"b64":false', '"x5u":"http://a"']
)
def test_a_header_with_a_member_twice_or_an_unknown_one_is_refused(world: World, extra: str) -> None:
    path = world.paths(world.bus().post(CHANNEL, "x").id).seal
    seal = path.read_bytes()
    head = jws.unb64(seal.split(b"..")[0].decode()).decode()
    path.write_bytes(_headed(seal, f"{head[:-1]},{extra}}}"))
    refused(world, "signature is none")


# --- somebody else's -------------------------------------------------------------------------------------


def test_an_unknown_key_is_nobodys(world: World, disk: Path) -> None:
    i, data = world.forged()
    world.place(i, data, signed_by(world, disk / "evil", "planner", i, data))
    passed_over(world, "nobody here trusts")


def test_the_kid_of_a_trusted_key_does_not_make_a_signature_its_own(world: World, disk: Path) -> None:
    i, data = world.forged()
    kid = world.guard().own("planner")[0].kid
    jwk = keys.jwk(world.guard().own("planner")[0].public)
    world.place(i, data, signed_by(world, disk / "evil", "planner", i, data, kid=kid, jwk=jwk))
    refused(world, "does not hold")


@pytest.mark.parametrize("kid", ["../../../etc/passwd", "", ".", "a" * 5000, "x/y", "\x00"])
def test_a_kid_is_a_thumbprint_and_no_path(world: World, disk: Path, kid: str) -> None:
    i, data = world.forged()
    world.place(i, data, signed_by(world, disk / "evil", "planner", i, data, kid=kid))
    refused(world, "")


def test_a_trusted_agent_cannot_speak_for_another(world: World) -> None:
    i, data = world.forged("planner")
    world.place(i, data, signed_by(world, world.home, "worker", i, data))
    passed_over(world, "signed by a key of 'worker'")


def test_a_revoked_key_counts_for_nothing(world: World) -> None:
    world.bus().post(CHANNEL, "x")
    old = world.guard().own("planner")[0].kid
    world.guard().trust.revoke(old, world.source.now())
    with pytest.raises(NoKey, match="revoked"):
        world.bus().post(CHANNEL, "y")
    world.key("planner")
    refused(world, "was revoked")


def test_of_a_key_that_was_revoked_from_a_time_on_only_what_is_older_counts(world: World) -> None:
    bus = world.bus()
    bus.post(CHANNEL, "before")
    world.source.advance(60)
    then = world.source.now()
    world.source.advance(60)
    bus.post(CHANNEL, "after")
    trust = world.guard().trust
    kid = world.guard().own("planner")[0].kid
    trust.revoke(kid, world.source.now(), before=then)
    assert world.work() == ["before"]
    trust.revoke(kid, world.source.now(), before=world.source.now() + 10**6)
    pin = trust.key(kid) or pytest.fail("the pin is gone")
    assert pin.before == then, "a later time must not make more of it good again"
    with pytest.raises(InvalidRequest, match="revoked"):
        trust.pin("planner", pin.public, world.source.now())
    world.key("planner")
    refused(world, "was revoked")


def test_what_was_signed_at_the_very_time_from_which_a_key_counts_no_more_is_refused(world: World) -> None:
    world.bus().post(CHANNEL, "too late")
    kid = world.guard().own("planner")[0].kid
    world.guard().trust.revoke(kid, world.source.now(), before=world.source.now())
    world.key("planner")
    refused(world, "was revoked")
