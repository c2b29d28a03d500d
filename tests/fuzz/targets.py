"""What is fuzzed: each parser of untrusted bytes, and what must hold whatever it is given.

A target is a function of bytes that raises when something does not hold.  That is more than not to crash: only the
declared error is raised, and it is short; what was read is written so that it is read as the same again; a name and
its slot stand for one another.  The same functions are fed by atheris (`guided`), by the seeds, and by `grown`.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mcp_bus import cursors, history, planfile, policies, refs, wire
from mcp_bus.cli import planyaml
from mcp_bus.errors import BusError, CorruptRecord, InvalidRequest, Unverified
from mcp_bus.model import Policy
from mcp_bus.plan import OnFailure
from mcp_bus.signing import jws, keys
from tests.fuzz.naming import check_names

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
NOW = 1_800_000_000_000
# Characters of an error: it may quote what is wrong, and must not repeat all of it.
MAX_SAID = 1000
# A byte of JSON may become six when it is written (`\u0001`), and a reader's defaults are written out.
GROWTH, ROOM = 6, 4096


class Target(NamedTuple):
    """A parser: what checks it, how its inputs are mutated (`mutate`), and words that mean something to it."""

    name: str
    check: Callable[[bytes], bool]
    form: str = "json"
    words: tuple[str, ...] = ()


def read(load: Callable[[Any], T], data: object, *declared: type[BusError]) -> T | None:
    """Return what a parser makes of data; None when it refuses it as it should."""
    try:
        return load(data)
    except declared as error:
        said = str(error)
        assert said, "it does not say what is wrong"
        assert len(said) <= MAX_SAID, f"an error of {len(said)} characters: {said[:200]}"
        return None


def settled(load: Callable[[bytes], Any], dump: Callable[[Any], bytes], data: bytes) -> bool:
    """Check that what is read is written and read as the same, and that to write it once more changes no byte."""
    found = read(load, data, CorruptRecord)
    if found is None:
        return False
    written = dump(found)
    again = load(written)
    assert again == found, f"{found!r} became {again!r}"
    assert dump(again) == written, "it is written in two ways"
    assert len(written) <= GROWTH * len(data) + ROOM, f"{len(data)} bytes became {len(written)}"
    return True


def _strict(data: bytes) -> bool:
    if not settled(wire.loads, wire.dumps, data):
        return False
    # What a lenient reader drops, it drops before anything can be compared: another reader looks at the same bytes.
    found = json.loads(data, object_pairs_hook=_once)
    assert _depth(found) <= wire.MAX_DEPTH, "it is nested deeper than a reader has to go"
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key stands twice, and one of them was taken"
    return dict(pairs)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _result(data: bytes) -> bool:
    return settled(wire.load_result, wire.dump_result, data)


def _history(data: bytes) -> bool:
    return settled(history.load, lambda line: wire.dumps(history.fields(line)), data)


def _body(data: bytes) -> bool:
    return settled(wire.load_body, wire.dump_body, data)


def _policy(data: bytes) -> bool:
    load = partial(policies.load, channel="work")
    return settled(load, lambda policy: wire.dumps(policies.fields(policy)), data)


def _cursor(data: bytes) -> bool:
    def load(text: bytes) -> cursors.Cursor:
        return cursors.load(wire.loads(text), now=NOW)

    def dump(cursor: cursors.Cursor) -> bytes:
        return wire.dumps({name: _ordered(value) for name, value in cursors.fields(cursor).items()})

    return settled(load, dump, data)


def _ordered(value: Any) -> Any:
    """Put into one order what has none in a cursor: its messages and paths."""
    return {name: value[name] for name in sorted(value)} if isinstance(value, dict) else value


def _seal(data: bytes) -> bool:
    seal = read(jws.read, data, Unverified)
    if seal is None:
        return False
    assert seal.head + b".." + jws.b64(seal.signature).encode() == data, "two spellings are one signature"
    assert (seal.header["alg"], seal.header["typ"]) == (jws.ALG, jws.TYPE)
    return True


def _key(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    found = read(keys.read_rotation, text, InvalidRequest)
    if found is not None:
        made, said, signature = found
        assert f"{said}.{jws.b64(signature)}" == text
        assert keys.public_of(keys.jwk(made.public)) == made.public
    outer = read(wire.loads, data, CorruptRecord)
    public = None if outer is None else read(keys.public_of, outer, InvalidRequest)
    assert public is None or (len(public) == jws.PUBLIC and outer is not None and "d" not in outer)
    return found is not None or public is not None


def _plan(data: bytes) -> bool:
    """A plan that a person wrote, in JSON or YAML: what is accepted is written as a record that is read as the same."""
    outer = read(lambda text: planyaml.load(text, "plan"), data, InvalidRequest)
    parse = partial(planfile.parse, plan_id="plan_1", owner="ann", created=NOW)
    plan = read(parse, outer, InvalidRequest)
    if plan is None:
        return False
    planfile.check(plan)
    again = planfile.load(wire.loads(wire.dumps(planfile.dump(plan))))
    assert again == plan, f"{plan!r} became {again!r}"
    return True


def _record(data: bytes) -> bool:
    """A plan as it lies in the bus, where anything may lie."""
    outer = read(wire.loads, data, CorruptRecord)
    plan = None if outer is None else read(planfile.load, outer, CorruptRecord)
    if plan is None:
        return False
    for step in plan.steps:
        fields = (step.after, step.requires, step.verify)
        assert all(isinstance(words, tuple) for words in fields), f"{step!r} has a text for a list"
        assert isinstance(step.on_failure, OnFailure)
        assert isinstance(step.claims, bool), f"{step.claims!r} is no flag"
    assert planfile.load(wire.loads(wire.dumps(planfile.dump(plan)))) == plan
    read(planfile.check, plan, CorruptRecord)
    return True


def _refs(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    results = {"scan": '{"a": [1, {"b": "x"}], "c": ""}', "lint": r"\{{x}} {{scan}} \\"}
    found = read(refs.references, text, InvalidRequest)
    if found is not None:
        filled = read(lambda text: refs.fill(text, results), text, InvalidRequest)
        if filled is None:
            return True
        assert found or filled == text.replace(r"\{{", "{{"), "nothing was referred to, and it changed"
        assert refs.Reference("lint", ()) not in found or results["lint"] in filled, "a result was changed"
        for item in found:
            again = refs.references("{{" + ".".join((item.step, *item.path)) + "}}")
            assert again == [item], f"{item!r} became {again!r}"
    said = read(refs.condition, text, InvalidRequest)
    if said is not None:
        assert isinstance(refs.holds(text, results), bool)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", said.of.step)
    return found is not None or said is not None


_BODY = ("id", "to", "content", "from", "agent", "pid", "pwd", "type", "timestamp", "ttl", "reply_to", "bus")
_BUS = (*wire._WHEN_SET, "requires", "inputs", "max_attempts", "backoff_s", "token", "place", "artifacts", "usage")
_PLAN = (*planfile.FIELDS, *planfile.STEP_FIELDS, "{{scan}}", "scan.a == 1", "skip", "stop", "continue")
TARGETS = {
    target.name: target
    for target in (
        Target("strict", _strict, words=("NaN", "Infinity", "1e999", r'"\ud800"', "-0.0", "{", "[")),
        Target("body", _body, words=(*_BODY, *_BUS)),
        Target("result", _result, words=(*_BODY, *_BUS, "status", "error", "result", "path", "size", "sha256")),
        Target("history", _history, words=("attempt", "outcome", "at", "by", "note", "token", "successor", "failed")),
        Target("policy", _policy, words=(*Policy._fields, *policies.KINDS)),
        Target("cursor", _cursor, words=("agent", "watermark", "acked", "seen", "offered", "match", "active")),
        Target("seal", _seal, "parts", words=("jwk", "kid", "alg", "typ", "crit", *jws.CRITICAL)),
        Target("key", _key, "parts", words=("kty", "crv", "OKP", "Ed25519", "x", "d", "agent", "at", "jwk")),
        Target("plan", _plan, words=_PLAN),
        Target("record", _record, words=(*_PLAN, "id", "owner", "created", "parent", "depth")),
        Target("refs", _refs, "text", words=("{{", "}}", r"\{{", "scan", ".a", "not ", " == ", " ", "\n", "1", '"')),
        Target(
            "names", check_names, "text",
            words=("req_01234567", ".p-9", ".a1", ".m2", ".r3", ".t4", ".json", "_request", "_cancelled", "_discarded",
                   "_expired", "archive/2026-11-21/", "processing/", "delayed/", "requests/", "dead/", ".ann~7f3a90c2",
                   ".0123456789ab", ".5", "..", "\0", "\n", "@", "+", "~", "_result.md"),
        ),
    )
}  # fmt: skip
