"""What a result must be: complaints that name the place, words that are put right, and checks that end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing.exceptions import Unresolvable

from mcp_bus import checking, contracts
from mcp_bus.errors import InvalidRequest, ResultRejected

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["passed"],
    "additionalProperties": False,
    "properties": {
        "passed": {"type": "boolean"},
        "risk_level": {"enum": ["LOW", "HIGH", "not-known"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
    "$defs": {"item": {"type": "object", "properties": {"kind": {"enum": ["Bug", "Style"]}}}},
}


def accept(text: str, schema: dict[str, Any] | None = SCHEMA, *, claims: bool = False) -> Any:
    return json.loads(contracts.accept(text, schema, claims=claims))


@pytest.mark.parametrize(
    "text",
    [
        '{"passed": true}',
        '  {"passed": true}\n',
        '```json\n{"passed": true}\n```',
        'Here it is:\n\n```\n{"passed": true}\n```\nDone.',
    ],
)
def test_json_is_found_alone_or_in_the_one_block(text: str) -> None:
    assert accept(text) == {"passed": True}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("looks good", "the result is no JSON"),
        ('```\n{"passed": true}\n```\n```\n{"passed": false}\n```', "the result is no JSON"),
        ('{"passed": NaN}', "NaN is no JSON number"),
        ("{}", r"\$: 'passed' is a required property"),
        ('{"passed": "yes"}', r"\$\.passed: 'yes' is not of type 'boolean'"),
        ('{"passed": true, "items": [{"kind": "x"}]}', r"\$\.items\[0\]\.kind: 'x' is not one of"),
        ('{"passed": true, "odd": 1}', "Additional properties are not allowed"),
        ("[" * 3000 + "]" * 3000, "nested too deeply|no JSON"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_place_and_reason(text: str, complaint: str) -> None:
    with pytest.raises(ResultRejected, match=complaint):
        contracts.accept(text, SCHEMA, claims=False)


def test_a_result_with_many_faults_is_told_of_the_first_and_of_their_number() -> None:
    items = [{"kind": f"x{number}"} for number in range(9)]
    with pytest.raises(ResultRejected, match="and 4 more"):
        contracts.accept(json.dumps({"passed": True, "items": items}), SCHEMA, claims=False)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ({"Passed": True, "riskLevel": "high"}, {"passed": True, "risk_level": "HIGH"}),
        ({"PASSED": True, "Risk Level": "Not Known"}, {"passed": True, "risk_level": "not-known"}),
        ({"passed": True, "items": [{"KIND": "bug"}]}, {"passed": True, "items": [{"kind": "Bug"}]}),
    ],
)
def test_words_that_differ_only_in_their_spelling_are_put_right(given_: object, kept: object) -> None:
    assert accept(json.dumps(given_)) == kept


def test_a_name_that_is_there_is_not_overwritten_by_one_that_is_spelled_otherwise() -> None:
    with pytest.raises(ResultRejected, match="PASSED"):
        accept('{"passed": true, "PASSED": false}')


def test_of_two_words_that_could_be_meant_none_is() -> None:
    schema = {"enum": ["a-b", "a_b"]}
    with pytest.raises(ResultRejected):
        contracts.accept('"A B"', schema, claims=False)


def test_a_schema_of_text_takes_plain_text() -> None:
    schema = {"type": "string", "minLength": 3}
    assert contracts.accept("plain words", schema, claims=False) == "plain words"
    with pytest.raises(ResultRejected, match="too short"):
        contracts.accept("x", schema, claims=False)


# --- claims ---------------------------------------------------------------------------------------


def claim(**fields: object) -> str:
    return json.dumps({"claims": [{"text": "it works"} | fields]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (claim(), r"\$\.claims\[0\]\.label: one of FACT"),
        (claim(label="TRUTH"), "one of FACT"),
        (claim(label="FACT"), "a FACT names its evidence"),
        (claim(label="fact", evidence=[]), "a FACT names its evidence"),
        (claim(label="FACT", evidence=[""]), "a FACT names its evidence"),
        (claim(label="FACT", evidence="req_1"), "a FACT names its evidence"),
        ('{"claims": "none"}', "a list of claims is wanted"),
        ('{"claims": [7]}', "one of FACT"),
    ],
)
def test_a_claim_without_label_or_evidence_is_refused_also_where_none_is_asked_for(text: str, complaint: str) -> None:
    for wanted in (True, False):
        with pytest.raises(ResultRejected, match=complaint):
            contracts.accept(text, None, claims=wanted)


def test_labels_are_spelled_alike_and_other_claims_need_no_evidence() -> None:
    assert accept(claim(label=" Inference "), None, claims=True)["claims"][0]["label"] == "INFERENCE"
    assert accept(claim(label="fact", evidence=["run-1"]), None, claims=True)["claims"][0]["label"] == "FACT"


def test_claims_that_are_asked_for_must_be_there() -> None:
    for text in ("no claims here", '{"passed": true}'):
        with pytest.raises(ResultRejected):
            contracts.accept(text, None, claims=True)
    assert contracts.accept("free text", None, claims=False) == "free text"


# --- schemas --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        7, [], {}, "object", {"type": "objekt"}, {"required": "passed"}, {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "https://example.org/s.json"}}}, {"pattern": "["},
        {"patternProperties": {"(": {}}}, {"title": "a" * 33_000}, {"minimum": float("nan")}, {"x": {1, 2}},
    ],
)  # fmt: skip
def test_what_is_no_schema_or_looks_elsewhere_is_refused(schema: object) -> None:
    with pytest.raises(InvalidRequest):
        contracts.check_schema(schema)


def test_a_schema_that_refers_to_itself_is_one() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert contracts.check_schema(tree) == tree
    text = '{"Children": [{"children": []}]}'
    assert accept(text, tree) == {"children": [{"children": []}]}


def test_a_reference_that_leads_nowhere_or_round_in_circles_is_refused() -> None:
    circle = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    for schema in ({"$ref": "#/$defs/none"}, {"properties": {"a": {"$ref": "#anchor"}}}, {"$ref": "#/type"}, circle):
        with pytest.raises(InvalidRequest, match="no schema in it"):
            contracts.check_schema(schema)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_result_is_kept_as_a_fixed_point_or_refused(value: object) -> None:
    try:
        kept = contracts.accept(json.dumps(value), SCHEMA, claims=False)
    except ResultRejected:
        return
    assert contracts.accept(kept, SCHEMA, claims=False) == kept


@given(st.text(max_size=80))
def test_a_text_without_claims_is_free_where_nothing_is_asked_for(text: str) -> None:
    assert contracts.accept(text, None, claims=False) == text


def test_a_schema_of_another_program_that_looks_elsewhere_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *words, **_: asked.append(words))
    with pytest.raises(Unresolvable):
        contracts.accept("{}", {"$ref": "https://example.org/s.json"}, claims=False)
    assert asked == []


# --- checks that end ------------------------------------------------------------------------------

# Each leads to the next twice; each asks of the next what it did not look at.
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)} | {"d30": {}}
DEEP: dict[str, Any] = {"properties": {"a": True}}
for _ in range(40):
    DEEP = {"allOf": [DEEP], "unevaluatedProperties": False}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^" + "a?" * 40 + "a" * 40 + "$"}, "a" * 40),
        ({"pattern": "^(a+){12}$"}, "a" * 60 + "b"),
        ({"pattern": "(x+x+)+y"}, "x" * 60),
        ({"patternProperties": {"^(a|a)*$": {}}}, {"a" * 60 + "b": 1}),
        ({"$ref": "#/$defs/d0", "$defs": DOUBLING}, 1),
        (DEEP, {"a": 1}),
        ({"type": ["string", "number"], "allOf": [{"type": "number"}] * 1500}, "x" * 250_000),
    ],
    ids=["optional", "nested", "ambiguous", "names", "references", "unevaluated", "large"],
)
def test_a_check_that_takes_too_long_is_ended(
    schema: dict[str, Any], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "LIMIT_S", 1.0)
    monkeypatch.setattr(checking, "MAX_MEMORY", 256 * 1024**2)
    monkeypatch.setattr(
        checking, "_PROGRAM", checking._PROGRAM.replace("main()", "import mcp_bus.checking as c; c.LIMIT_S = 1; main()")
    )
    assert contracts.check_schema(schema)
    start = time.monotonic()
    with pytest.raises(ResultRejected, match=r"cannot be checked within 1 s|is not of type"):
        checking.accept(json.dumps(value), schema, claims=False)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("schema", "is_short"),
    [
        (SCHEMA, False), ({"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}, True),
        ({"pattern": "x"}, False), ({"properties": {"a": {"items": {"uniqueItems": True}}}}, False),
        ({"additionalProperties": {"anyOf": []}}, False), ({"items": False}, True), ({"properties": 7}, False),
    ],
)  # fmt: skip
def test_only_what_is_short_for_certain_is_checked_here(schema: dict[str, Any], *, is_short: bool) -> None:
    assert checking.is_short(schema) == is_short


@pytest.mark.parametrize("text", ['{"Passed": true, "risk-level": "high"}', '{"passed": 7}', "no", '{"passed": true}'])
def test_a_check_in_a_process_of_its_own_says_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(check: Any) -> object:
        try:
            return check(text, SCHEMA, claims=False)
        except ResultRejected as error:
            return str(error), error.hint

    here = said(contracts.accept)
    monkeypatch.setattr(contracts, "accept", None)
    assert said(checking.accept) == here


def test_a_large_result_is_checked_apart_though_its_schema_is_simple(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {f"p{n}": {} for n in range(100)}}}
    text = json.dumps([{}] * 10_000)
    monkeypatch.setattr(contracts, "accept", None)
    assert checking.accept(text, schema, claims=False)


@pytest.mark.parametrize("text", ["```" + " " * 200_000, "```json\n" * 30_000])
def test_fences_without_end_are_read_in_one_pass(text: str) -> None:
    with pytest.raises(ResultRejected):
        contracts.accept(text, SCHEMA, claims=False)


def test_numbers_that_json_cannot_write_and_results_that_grow_are_refused() -> None:
    with pytest.raises(ResultRejected):
        contracts.accept('{"a": 1e400}', {"type": "object"}, claims=False)
    with pytest.raises(ResultRejected, match="bytes once it is written out"):
        contracts.accept("[" + ",".join(["1e15"] * 52_000) + "]", {"type": "array"}, claims=False)
