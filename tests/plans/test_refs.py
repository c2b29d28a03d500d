"""References and conditions: what they find in results, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import refs
from mcp_bus.errors import InvalidRequest

RESULTS = {
    "scan": '{"n": 3, "ok": true, "no": false, "files": [{"name": "a.py"}, {"name": "b.py"}], "empty": [], "t": "x"}',
    "text": "plain words",
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{text}}", "plain words"),
        ("{{ scan.n }}/{{scan.files.1.name}}", "3/b.py"),
        ("{{scan.files}}", '[{"name": "a.py"}, {"name": "b.py"}]'),
        ("{{scan.ok}}", "true"),
        ("{{scan.files.9}}", "(nothing: scan has no files.9)"),
        ("{{text.field}}", "(nothing: the result of text is no JSON)"),
        ("{{gone}}", "(nothing: gone has no result)"),
        (r"\{{text}} and \{{", "{{text}} and {{"),
        ("{ {text} } {text}", "{ {text} } {text}"),
    ],
)
def test_a_reference_stands_for_what_it_names(text: str, filled: str) -> None:
    assert refs.fill(text, RESULTS) == filled


def test_a_result_is_not_read_for_references() -> None:
    assert refs.fill("{{a}}", {"a": "{{b}}", "b": "secret"}) == "{{b}}"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("scan.n > 2", True), ("scan.n >= 3", True), ("scan.n < 3", False), ("scan.n == 3", True),
        ("scan.n != 3", False),
        ("scan.n == 3.0", True), ("scan.ok == true", True), ("scan.ok == 1", False), ("scan.n == true", False),
        ("scan.ok", True), ("not scan.ok", False), ("scan.no", False), ("not scan.no", True), ("scan.empty", False),
        ("scan.missing", False), ("not scan.missing", True), ("scan.missing == null", False), ('scan.t == "x"', True),
        ("scan.t > 3", False), ('scan.t > "a"', True), ("text", True), ('text == "plain words"', True),
        ("gone", False), ("not gone", True), ("scan.files == []", False), ("scan.empty == []", True),
    ],
)  # fmt: skip
def test_a_condition_holds_or_does_not(text: str, *, holds: bool) -> None:
    assert refs.holds(text, RESULTS) is holds


@pytest.mark.parametrize("text", ["", "a b", "a ==", "== 1", "a == x", "not a == 1", "a; b", "a or b", "a()", "A == 1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a condition"):
        refs.condition(text)


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=20)))
def test_any_text_is_filled_or_refused(text: str, results: dict[str, str]) -> None:
    try:
        found = refs.references(text)
    except InvalidRequest:
        return
    filled = refs.fill(text, results)
    if not found and "{{" not in text:
        assert filled == text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_a_condition_never_fails_whatever_a_result_is(value: object) -> None:
    import json

    for sign in ("==", "!=", "<", ">", "<=", ">="):
        assert refs.holds(f"a.b {sign} {json.dumps(value)}", {"a": json.dumps({"b": value})}) in (True, False)


def test_what_references_unfold_to_has_an_end() -> None:
    with pytest.raises(InvalidRequest, match="more than 262144 characters"):
        refs.fill("{{a.x}}" * 9000, {"a": '{"x": "' + "y" * 200_000 + '"}'})


def test_a_large_part_is_a_place_like_a_large_whole() -> None:
    results = {"a": '{"x": "' + "y" * refs.INLINE + 'z", "n": 1}'}
    assert refs.fill("{{a.n}} {{a.x}}", results, {"a": "(the result of a: elsewhere)"}) == (
        "1 (x of the result of a: elsewhere)"
    )


def test_braces_that_are_meant_as_they_are_refer_to_nothing() -> None:
    assert refs.references(r"\{{text}} {{scan.n}}") == [refs.Reference("scan", ("n",))]


@pytest.mark.parametrize(
    ("condition", "result", "holds"),
    [
        ("a == true", "true", True), ("a == 3", "3", True), ('a == "3"', "3", True), ('a == "done"', "done", True),
        ("a == 3", "three", False), ("not a", "false", True), ("a", "[]", False), ("a", "some words", True),
        ("a", "", False), ("a > 2", "3", True), ("a > 2", "words", False), ('a == "true"', "true", True),
    ],
)  # fmt: skip
def test_a_whole_result_is_compared_as_what_it_is(condition: str, result: str, *, holds: bool) -> None:
    assert refs.holds(condition, {"a": result}) == holds


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{a}}", r"\{{b}} {{a}} \{{"), (r"\{{a}} {{a}}", r"{{a}} \{{b}} {{a}} \{{"), (r"\\{{a}}", r"\{{a}}"),
        (r"\{{{a}}", r"{{{a}}"), (r"\{{ and \{{", "{{ and {{"), (r"\{ {a}}", r"\{ {a}}"),
    ],
)  # fmt: skip
def test_a_result_is_put_in_as_it_is_and_a_backslash_stands_for_one_pair_of_braces(text: str, filled: str) -> None:
    assert refs.fill(text, {"a": r"\{{b}} {{a}} \{{"}) == filled


@pytest.mark.parametrize("text", [r"\{{{a}}", r"\{{a}}", r"\\{{a}}", "{{{a}}", "{{a}}{{a}}"])
def test_what_is_looked_for_and_what_is_filled_in_are_the_same(text: str) -> None:
    assert refs.fill(text, {"a": "RESULT"}).count("RESULT") == len(refs.references(text))


@pytest.mark.parametrize(
    "text", ["a" + " " * 10**6 + "!", "a ==" + " " * 10**6 + "x\ny", "a == 1" + " " * 10**6 + "\nx"]
)
def test_a_condition_with_a_long_run_of_blanks_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a condition"):
        refs.condition(text)  # In its square of time it would take hours, and the run has a limit.
