"""JSON with comments: what is read, what is refused, and that a change changes nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus.clients import jsonc

VALUE = {"command": "/x", "args": ["serve"]}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": [1, -2.5e3, true, null, "\\u00e9\\n"]}', {"a": [1, -2500.0, True, None, "\xe9\n"]}),
        ('// top\n{ /* in */ "a": 1, // end\n}\n// last', {"a": 1}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"url": "http://x // not a comment"}', {"url": "http://x // not a comment"}),
        ("[]", []),
        (' "text" ', "text"),
    ],
)
def test_what_people_write_is_read(text: str, data: object) -> None:
    assert jsonc.parse(text).data == data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1, column 1: a value is missing"),
        ('{"a": 1', "',' or '}' is missing"),
        ('{"a": 1} x', "line 1, column 10: something follows"),
        ('{\n  "a" 1}', "line 2, column 7: ':' is missing"),
        ("{a: 1}", "a name in quotes is missing"),
        ("{'a': 1}", "a name in quotes is missing"),
        ('{"a": 01}', "'01' is no number"),
        ('{"a": .5}', "'.' begins no value"),
        ('{"a": "x\ny"}', "a text has no end, or a line break in it"),
        ('{"a": "\\q"}', "an escape that JSON does not know"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("{,}", "a name in quotes is missing"),
        ("[1,,2]", "',' begins no value"),
        ("/* for ever", "a comment has no end"),
        ("[" * 200, "nested more than 100 deep"),
        ("NaN", "'N' begins no value"),
    ],
)
def test_what_is_none_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(jsonc.Malformed) as refused:
        jsonc.parse(text)
    assert why in str(refused.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)


@given(values, st.sampled_from([None, 2, "\t"]))
def test_all_that_is_json_is_read_as_json(value: object, indent: int | str | None) -> None:
    assert jsonc.parse(json.dumps(value, indent=indent)).data == value


@given(objects, st.sampled_from([None, 2, "\t"]), st.sampled_from(["s", "a"]))
def test_what_is_put_in_is_there_beside_all_else_and_can_be_taken_out(
    value: dict[str, object], indent: int | str | None, key: str
) -> None:
    value.pop(key, None)
    text = json.dumps(value, indent=indent)
    made = jsonc.put(text, [key, "bus"], VALUE)
    assert json.loads(made) == {**value, key: {"bus": VALUE}}
    again = jsonc.put(made, [key, "bus"], {"other": 1})
    assert json.loads(again) == {**value, key: {"bus": {"other": 1}}}
    assert json.loads(jsonc.drop(again, [key, "bus"])) == {**value, key: {}}
    assert json.loads(jsonc.drop(again, [key])) == value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "s": {\n    "bus": 1\n  }\n}'),
        ('{"a": 1}', '{"a": 1, "s": {"bus": 1}}'),
        ('{\n\t"a": 1 // why\n}\n', '{\n\t"a": 1, // why\n\t"s": {\n\t\t"bus": 1\n\t}\n}\n'),
        ('{\n    "a": 1, // why\n}', '{\n    "a": 1, // why\n    "s": {\n        "bus": 1\n    },\n}'),
        ('{\r\n  "s": {\r\n  }\r\n}', '{\r\n  "s": {\r\n    "bus": 1\r\n  }\r\n}'),
        ('{\n  "s": {\n    "x": {} /* k */\n  }\n}', '{\n  "s": {\n    "x": {}, /* k */\n    "bus": 1\n  }\n}'),
        ("{\n  // nothing yet\n}", '{\n  // nothing yet\n  "s": {\n    "bus": 1\n  }\n}'),
    ],
)
def test_what_is_put_in_is_laid_out_as_the_rest_is(before: str, after: str) -> None:
    assert jsonc.put(before, ["s", "bus"], 1) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{\n  "a": 1,\n  "bus": {\n    "x": 1\n  }\n}\n', '{\n  "a": 1\n}\n'),
        ('{\n  "bus": 1,\n  "a": 1\n}', '{\n  "a": 1\n}'),
        ('{"bus": 1, "a": 2}', '{"a": 2}'),
        ('{"a": 2, "bus": 1}', '{"a": 2}'),
        ('{\r\n  "a": 1, // why\r\n  "bus": 1,\r\n}', '{\r\n  "a": 1, // why\r\n}'),
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": 1, // foo\n"bus": {}, "docs": 2}', '{"a": 1, // foo\n"docs": 2}'),
        ('{"a": 1, // foo\n"bus": {} }', '{"a": 1 // foo\n}'),
        ('{\n  "a": 1, // foo\n  "bus": {}, /* k\n */ "b": 2\n}', '{\n  "a": 1, // foo\n  /* k\n */ "b": 2\n}'),
    ],
)
def test_what_is_taken_out_leaves_the_rest_as_it_was(before: str, after: str) -> None:
    assert jsonc.drop(before, ["bus"]) == after


def test_nothing_is_put_into_what_is_no_object() -> None:
    with pytest.raises(jsonc.Malformed, match="s is no object"):
        jsonc.put('{"s": [1]}', ["s", "bus"], 1)


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"s": [1]}', ["s", 1], '{"s": [1, 9]}'),
        ('{"s": []}', ["s", 0], '{"s": [\n  9\n]}'),
        ("{}", ["s", 0], '{\n  "s": [\n    9\n  ]\n}'),
        ('{\n\t"s": [\n\t\t1 // why\n\t]\n}', ["s", 1], '{\n\t"s": [\n\t\t1, // why\n\t\t9\n\t]\n}'),
        ('{\n  "s": [\n    1,\n  ]\n}', ["s", 1], '{\n  "s": [\n    1,\n    9,\n  ]\n}'),
        ('{"s": [1, 2, 3]}', ["s", 1], '{"s": [1, 9, 3]}'),
        ('{"s": [{"a": [1]}]}', ["s", 0, "a", 0], '{"s": [{"a": [9]}]}'),
    ],
)
def test_an_item_is_put_into_a_list_by_its_number(before: str, path: list[str | int], after: str) -> None:
    assert jsonc.put(before, path, 9) == after


@pytest.mark.parametrize(
    ("before", "number", "after"),
    [
        ("[1, 2, 3]", 0, "[2, 3]"),
        ("[1, 2, 3]", 1, "[1, 3]"),
        ("[1, 2, 3]", 2, "[1, 2]"),
        ("[1]", 0, "[]"),
        ("[1, 2]", 2, "[1, 2]"),
        ("[\n  1, // one\n  2\n]", 1, "[\n  1 // one\n]"),
        ("[\r\n  1,\r\n  2,\r\n]", 0, "[\r\n  2,\r\n]"),
    ],
)
def test_an_item_is_taken_out_of_a_list_by_its_number(before: str, number: int, after: str) -> None:
    assert jsonc.drop(before, [number]) == after


@given(st.lists(values, max_size=4), st.sampled_from([None, 2, "\t"]))
def test_an_item_that_was_added_to_a_list_is_its_last_and_can_be_taken_out(
    value: list[object], indent: int | str | None
) -> None:
    made = jsonc.put(json.dumps(value, indent=indent), [len(value)], VALUE, is_flat=indent == 2)
    assert json.loads(made) == [*value, VALUE]
    assert json.loads(jsonc.drop(made, [len(value)])) == value
    for number in range(len(value)):
        assert json.loads(jsonc.drop(made, [number])) == [*value[:number], *value[number + 1 :], VALUE]


@pytest.mark.parametrize(("text", "path"), [('{"s": {}}', ["s", 0]), ('{"s": []}', ["s", "0"]), ("[]", ["0"])])
def test_a_number_leads_into_lists_alone_and_a_name_into_objects(text: str, path: list[str | int]) -> None:
    with pytest.raises(jsonc.Malformed, match=r"is no (list|object)"):
        jsonc.put(text, path, 1)


@pytest.mark.parametrize("comment", ["// last", "/* last */", "/* a */ // last", "/* a */ /* b */"])
def test_a_member_goes_behind_what_is_said_of_the_one_before_it_with_the_line_ends_of_the_text(comment: str) -> None:
    text = f'{{\r\n  "a": 1 {comment}\r\n}}\r\n'
    made = jsonc.put(text, ["b"], 2)
    assert made == f'{{\r\n  "a": 1, {comment}\r\n  "b": 2\r\n}}\r\n'
    assert jsonc.drop(made, ["b"]) == text


@pytest.mark.timeout(20)
def test_comments_and_names_without_number_are_read_in_a_time_that_grows_with_the_text_alone() -> None:
    text = '{\n  "a": 1' + " /**/" * 60 + ' /* , */ "b": 2}'
    assert jsonc.parse(text.replace('"b"', ', "b"')).data == {"a": 1, "b": 2}
    made = jsonc.put('{\n  "a": 1' + " /**/" * 60 + " /* \n */ }", ["b"], 2)
    assert jsonc.parse(made).data == {"a": 1, "b": 2}
    names = {str(number): number for number in range(40_000)}
    assert jsonc.parse(json.dumps(names)).data == names
