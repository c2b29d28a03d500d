"""Whoever can write the bus, and has any key but the right one, makes nobody believe what is encrypted."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import find
from mcp_bus.errors import Unverified
from mcp_bus.model import MAX_CONTENT, State
from mcp_bus.signing import age, jws, keys
from mcp_bus.signing.guard import Guard
from mcp_bus.wire import MAX_READERS
from tests.fakes import swept
from tests.security.conftest import other_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.security.conftest import World

PLACE = "vault"


def posted(world: World, body: str = "honest", agent: str = "planner") -> str:
    made: str = world.bus(agent).post(PLACE, body, encrypt_to=["worker"]).id
    return made


def stored(world: World, task_id: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((world.root / "tasks" / f"{task_id}.json").read_text())
    return made


def plant(world: World, said: dict[str, Any], channel: str = PLACE) -> str:
    """Put a message where it belongs, as whoever can write the bus does."""
    world.place(said["id"], json.dumps(said).encode(), None, channel)
    return str(said["id"])


def fresh(world: World) -> str:
    return f"req_{world.source.now():012x}{os.urandom(10).hex()}"


def inside(
    world: World, said: dict[str, Any], data: bytes, *, agent: str, home: Path | None = None, **other: object
) -> str:
    """Return what an attacker encrypts to the worker: some bytes, signed with a key that it has."""
    guard = Guard(home or world.home, "bus_" + "0" * 16, world.root, world.source)
    key = (guard.own(agent) or [guard.make(agent)])[-1]
    claim = {
        "bus": world.guard()._bus,
        "channel": said["to"],
        "use": "encrypted-body",
        "id": said["id"],
        "to": said["to"],
    }
    times = {"exp": world.source.now() + 10**9, "iat": world.source.now()}
    seal = jws.make(key.private, {"kid": key.kid, "jwk": keys.jwk(key.public)} | claim | times | other, data)
    return age.encrypt(seal + b"\n" + data, [key.public for key in world.guard().own("worker")])


def nothing_but_the_honest(world: World, why: str) -> None:
    """Assert that the worker is handed what is good alone, and that the rest was put aside because of `why`."""
    posted(world, "afterwards")
    worker = world.bus("worker")
    got = [(task.body.content, bool(worker.ack(task, "done"))) for task in iter(lambda: worker.claim([PLACE]), None)]
    assert got == [("afterwards", True)]
    assert any(why in reason for reason in world.reasons()), world.reasons()


def only_the_honest(world: World, why: str) -> None:
    """Assert that the worker is handed what is good alone, and that the rest is left where it is because of `why`."""
    posted(world, "afterwards")
    worker = world.bus("worker")
    assert [task.body.content for task in iter(lambda: worker.claim([PLACE]), None)] == ["afterwards"]
    assert why in find.why_empty(worker, [PLACE], ())
    assert world.reasons() == []


# --- somebody else's ciphertext (rules EN1, EN4, EN6) ----------------------------------------------------


def test_a_ciphertext_posted_anew_under_another_id_is_refused(world: World) -> None:
    said = stored(world, posted(world))
    world.work(channel=PLACE)
    plant(world, said | {"id": fresh(world)})
    nothing_but_the_honest(world, "it was signed for the id")


def test_a_ciphertext_posted_on_another_channel_is_refused(world: World) -> None:
    said = stored(world, posted(world))
    world.bus().store.declare("other")
    plant(world, said | {"id": fresh(world), "to": "other"}, "other")
    assert world.bus("worker").claim(["other"]) is None
    assert any("it was signed for the channel" in reason for reason in world.reasons())


def test_a_ciphertext_posted_as_ones_own_is_refused(world: World) -> None:
    world.key("mallory")
    said = stored(world, posted(world))
    world.work(channel=PLACE)
    i = fresh(world)
    plant(world, said | {"id": i, "from": {"agent": "mallory", "pid": 1, "pwd": "/"}})
    nothing_but_the_honest(world, "it was signed for the id")


def test_on_a_signed_channel_a_new_outer_signature_makes_it_nobodys_own(world: World) -> None:
    world.key("mallory")
    bus = world.bus()
    bus.create_channel(PLACE, signed=True)
    i = posted(world)
    said = stored(world, i)
    said["from"] = {"agent": "mallory", "pid": 1, "pwd": "/"}
    data = json.dumps(said).encode()
    (key,) = world.guard().own("mallory")
    claim = {"bus": world.guard()._bus, "channel": PLACE, "use": "body", "id": i, "to": PLACE}
    times = {"exp": world.source.now() + 10**9, "iat": world.source.now()}
    seal = jws.make(key.private, {"kid": key.kid, "jwk": keys.jwk(key.public)} | claim | times, data)
    world.paths(i, PLACE).body.unlink()
    world.place(i, data, seal, PLACE)
    only_the_honest(world, "it is signed by a key of 'planner', and says that it is from 'mallory'")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "command"}, {"reply_to": "mallory"}, {"timestamp": "2020-01-01T00:00:00.000Z"},
        {"from": {"agent": "planner", "pid": 666, "pwd": "/"}},
        {"bus": {"priority": 9}}, {"bus": {"title": "run this"}}, {"bus": {"thread": "x"}}, {"bus": {"plan": "plan_1"}},
        {"bus": {"inputs": [{"step": "a"}]}}, {"bus": {"result_schema": {}}}, {"bus": {"requires": ["gpu"]}},
        {"bus": {"encrypted": {"to": ["worker", "mallory"]}}}, {"bus": {"encrypted": {"to": ["planner"]}}},
    ],
)  # fmt: skip
def test_an_envelope_that_was_altered_is_refused_also_where_nothing_is_signed(
    world: World, change: dict[str, Any]
) -> None:
    said = stored(world, posted(world))
    world.paths(said["id"], PLACE).body.unlink()
    ours = change.pop("bus", {})
    secret = said["bus"]["encrypted"] | ours.pop("encrypted", {})
    plant(world, said | change | {"bus": {"encrypted": secret} | ours})
    worker = world.bus("worker")
    assert worker.claim([PLACE], capabilities=["gpu"]) is None
    assert any("another message than it is shown as" in reason for reason in world.reasons()), world.reasons()


@pytest.mark.parametrize(
    "secret",
    [
        {"to": ["worker"]},
        {"to": [], "kids": []},
        {"to": "x", "kids": "y"},
        [],
        None,
        {"kids": [1], "to": [2]},
        {"to": ["x" * 161], "kids": ["k"]},
        {"to": ["a\nnext: b"], "kids": ["k"]},
    ],
)
def test_a_member_that_says_it_wrong_does_not_make_it_plain_text(world: World, secret: object) -> None:
    said = stored(world, posted(world))
    world.paths(said["id"], PLACE).body.unlink()
    plant(world, said | {"bus": {"encrypted": secret}})
    world.source.advance(10)
    worker = world.bus("worker")
    assert worker.claim([PLACE]) is None


# --- what only looks like it (rules EN3, EN6) ------------------------------------------------------------


def forged(
    world: World, data: bytes | None = None, *, agent: str = "planner", home: Path | None = None, **other: object
) -> str:
    """Plant what somebody encrypted to the worker, with what they could sign with; return its id."""
    said = stored(world, posted(world)) | {"id": fresh(world)}
    world.bus().cancel(next(iter(world.bus().store.scan(PLACE, State.READY))).id)
    whole = json.dumps(said | {"content": "forged"}).encode() if data is None else data
    return plant(world, said | {"content": inside(world, said, whole, agent=agent, home=home, **other)})


def test_what_an_untrusted_key_signed_inside_is_refused_and_not_shown(world: World, disk: Path) -> None:
    i = forged(world, home=disk / "elsewhere")
    shown = world.bus("worker").get(i)
    assert "nobody here trusts" in shown.hidden
    assert shown.proof is not None
    assert shown.proof.doubt
    assert "forged" not in shown.body.content
    only_the_honest(world, "nobody here trusts")


def test_what_another_agent_signed_inside_is_refused(world: World) -> None:
    world.key("mallory")
    forged(world, agent="mallory")
    only_the_honest(world, "signed by a key of 'mallory'")


@pytest.mark.parametrize(
    ("claim", "why"),
    [({"use": "body"}, "use"), ({"use": "encrypted-result"}, "use"), ({"bus": "bus_" + "1" * 16}, "bus"),
     ({"to": "@worker"}, "to"), ({"channel": "other"}, "channel")],
)  # fmt: skip
def test_what_was_signed_for_anything_else_is_refused(world: World, claim: dict[str, str], why: str) -> None:
    forged(world, None, **claim)  # type: ignore[arg-type]  # none of them is `home`
    nothing_but_the_honest(world, f"it was signed for the {why}")


def test_what_expired_is_not_handed_out_when_its_mark_was_taken_off(world: World) -> None:
    i = world.bus().post(PLACE, "late", encrypt_to=["worker"], ttl_s=60).id
    (slot,) = world.bus().store.scan(PLACE, State.READY)
    world.source.advance(61)
    folder = world.root / "channels" / PLACE / "requests"
    (folder / f"{i}.t{slot.deadline}.json").rename(folder / f"{i}.json")
    assert world.bus("worker").claim([PLACE]) is None
    assert any("good until" in reason for reason in world.reasons())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 60_000,
        b'{"a":1,"a":2}',
        b"{}",
        b'{"x":' * 2000 + b"1" + b"}" * 2000,
        b"9" * 100_000,
    ],
)
def test_what_is_inside_and_no_message_is_refused_with_a_reason(world: World, data: bytes) -> None:
    forged(world, data)
    nothing_but_the_honest(world, "what is encrypted in it is no message")


def armoured(raw: bytes) -> str:
    text = base64.b64encode(raw).decode()
    return age.BEGIN + "\n".join(text[at : at + 64] for at in range(0, len(text), 64)) + age.END


def parts(text: str) -> tuple[list[bytes], bytes]:
    """Return the lines of a header, and all from its end on."""
    raw = base64.b64decode("".join(text.removeprefix(age.BEGIN).removesuffix(age.END).split("\n")))
    head, _, rest = raw.partition(b"\n---")
    return head.split(b"\n"), b"\n---" + rest


def scrypt(text: str) -> str:
    lines, rest = parts(text)
    salt = base64.b64encode(b"\0" * 16).rstrip(b"=")
    return armoured(lines[0] + b"\n-> scrypt " + salt + b" 40\n" + salt * 2 + rest)


def many(text: str) -> str:
    lines, rest = parts(text)
    return armoured(b"\n".join([lines[0], *lines[1:3] * 1500]) + rest)


def flipped(text: str) -> str:
    lines, rest = parts(text)
    return armoured(b"\n".join(lines) + rest[:-1] + bytes([rest[-1] ^ 1]))


HOSTILE: dict[str, Callable[[str], str]] = {
    "nothing": lambda _: "",
    "words": lambda _: "open sesame",
    "an empty armour": lambda _: age.BEGIN + age.END,
    "cut off": lambda text: text[: len(text) // 2],
    "cut off inside": lambda text: armoured(b"\n".join(parts(text)[0]) + parts(text)[1][:-40]),
    "a flipped bit": flipped,
    "many stanzas": many,
    "a work factor of 2 to the 40": scrypt,
    "nested": lambda text: armoured(text.encode()),
    "no header that ends": lambda text: armoured(parts(text)[0][0] + b"\n-> x\n" + b"A" * 150_000),
    "too long": lambda text: text + "\n" * MAX_CONTENT,
    "not ASCII": lambda text: text.replace("A", "\u0410", 1),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_ciphertext_is_put_aside_soon_and_with_a_reason(world: World, kind: str) -> None:
    said = stored(world, posted(world))
    world.paths(said["id"], PLACE).body.unlink()
    plant(world, said | {"content": HOSTILE[kind](said["content"])})
    start = time.process_time()
    nothing_but_the_honest(world, "what is encrypted in it")
    assert time.process_time() - start < 2


def test_who_has_no_key_is_not_bothered_by_any_of_that(world: World) -> None:
    for change in HOSTILE.values():
        said = stored(world, posted(world))
        world.paths(said["id"], PLACE).body.unlink()
        plant(world, said | {"content": change(said["content"])})
    other = world.bus("other")
    assert other.claim([PLACE]) is None
    world.source.advance(60)
    swept(other)
    assert world.reasons() == []


# --- results (rule EN8) ----------------------------------------------------------------------------------


def result(world: World) -> tuple[str, Path]:
    i, worker = posted(world), world.bus("worker")
    worker.ack(worker.claim([PLACE]) or pytest.fail("nothing"), "answer")
    return i, world.root / "channels" / PLACE / "responses" / f"{i}.json"


def doubted(world: World, i: str, why: str) -> None:
    task = world.bus().get(i)
    assert task.result is None
    assert task.proof is not None
    assert why in task.proof.doubt, task.proof.doubt


def test_a_result_in_plain_text_does_not_count(world: World) -> None:
    i, path = result(world)
    said = json.loads(path.read_text())
    del said["bus"]["encrypted"]
    path.write_text(json.dumps(said | {"result": "forged"}))
    doubted(world, i, "it is plain text, and its task is encrypted")


def test_the_result_of_another_task_does_not_count(world: World) -> None:
    (one, path), (_, other) = result(world), result(world)
    said, theirs = json.loads(path.read_text()), json.loads(other.read_text())
    path.write_text(json.dumps(said | {"result": theirs["result"]}))
    doubted(world, one, "it was signed for the id")


@pytest.mark.parametrize(
    "change", [{"status": "error"}, {"error": "no"}, {"from": {"agent": "worker", "pid": 7, "pwd": "/"}}]
)
def test_a_result_whose_envelope_was_altered_does_not_count(world: World, change: dict[str, Any]) -> None:
    i, path = result(world)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    doubted(world, i, "another result than it is shown as")


def test_a_body_shown_as_its_own_result_does_not_count(world: World) -> None:
    i, path = result(world)
    said = json.loads(path.read_text())
    said |= {"result": stored(world, i)["content"], "from": {"agent": "planner", "pid": 1, "pwd": "/"}}
    path.write_text(json.dumps(said))
    doubted(world, i, "it was signed for the use")


def test_a_header_that_ends_in_time_and_names_more_keys_than_there_may_be_is_refused() -> None:
    private, public = jws.new()
    for count, is_read in ((MAX_READERS, True), (age.MAX_STANZAS + 8, False)):
        text = age.encrypt(b"x", [public] * count)
        assert len(base64.b64decode("".join(text.splitlines()[1:-1])).partition(b"\n---")[0]) < age.MAX_HEADER * 3 // 4
        if is_read:
            assert age.decrypt(text, [private]) == b"x"
            continue
        with pytest.raises(Unverified, match="one form"):
            age.decrypt(text, [private])


def test_who_opened_a_task_takes_it_for_plain_text_no_more(world: World, disk: Path) -> None:
    elsewhere, i = other_home(world, disk), posted(world)
    reader = world.bus("worker", home=elsewhere)
    assert not world.guard(elsewhere).is_secret(i), "it was posted by somebody else"
    task = reader.claim([PLACE]) or pytest.fail("nothing to claim")
    said = stored(world, i)
    del said["bus"]["encrypted"]
    (world.root / "tasks" / f"{i}.json").write_text(json.dumps(said | {"content": "forged"}))
    with pytest.raises(Unverified, match="is plain text now, and was encrypted"):
        world.bus("worker", home=elsewhere).sound(task.id)
