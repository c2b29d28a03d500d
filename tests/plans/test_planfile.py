"""Plans as people and models write them: what is refused, before anything is posted, and in which words."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, planfile
from mcp_bus.cli import planyaml
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import PLANS
from mcp_bus.plan import OnFailure, Plan, Step

if TYPE_CHECKING:
    from mcp_bus.bus import Bus

GOOD: dict[str, Any] = {
    "goal": "check it",
    "channel": "checks",
    "grace_s": 5,
    "steps": [
        {"name": "scan", "body": "look", "capability": "python"},
        {
            "name": "lint", "body": "lint {{scan.files}}", "after": "scan", "requires": ["lint", "Python"],
            "on_failure": "stop", "when": "scan.count > 0", "priority": 3, "max_attempts": 5, "backoff_s": 1,
            "timeout_s": 60, "result_schema": {"type": "object"}, "claims": True, "title": "Lint", "channel": "lints",
        },
    ],
}  # fmt: skip


def parse(data: object) -> Plan:
    return planfile.parse(data, plan_id="plan_00", owner="ann", created=1)


def one(**fields: object) -> dict[str, Any]:
    return {"goal": "g", "steps": [{"name": "a", "body": "do a"} | fields]}


def two(**fields: object) -> dict[str, Any]:
    return {"goal": "g", "steps": [{"name": "a", "body": "do a"}, {"name": "b", "body": "do b"} | fields]}


def test_all_fields_are_read_and_the_rest_has_its_defaults() -> None:
    plan = parse(GOOD)
    assert (plan.goal, plan.grace_s, plan.owner, plan.created) == ("check it", 5.0, "ann", 1)
    scan, lint = plan.steps
    assert scan == Step("scan", "look", "checks", requires=("python",))
    assert lint.requires == ("lint", "python")
    assert (lint.channel, lint.on_failure, lint.after) == ("lints", OnFailure.STOP, ("scan",))
    assert (lint.priority, lint.max_attempts, lint.backoff_s, lint.timeout_s, lint.claims) == (3, 5, 1.0, 60.0, True)


def test_a_plan_written_and_read_is_the_same() -> None:
    plan = parse(GOOD)
    assert planfile.load(planfile.dump(plan)) == plan


WRONG: dict[str, tuple[object, str, str]] = {
    "no object": ([], "a plan is an object", "for example"),
    "no goal": ({"steps": []}, "the goal is not a text", ""),
    "no steps": ({"goal": "g"}, "no list of steps", ""),
    "empty": ({"goal": "g", "steps": []}, "0 steps; 1 to 500", ""),
    "501 steps": ({"goal": "g", "steps": [{"name": f"s{i}", "body": "x"} for i in range(501)]}, "501 steps", ""),
    "a slip in a field of the plan": (one() | {"gaol": 1}, "the plan has no field 'gaol'", "did you mean 'goal'?"),
    "a slip in a field of a step": (one(afer=["x"]), "step 'a' has no field 'afer'", "did you mean 'after'?"),
    "a step that is none": ({"goal": "g", "steps": ["a"]}, "step 1 is no object", ""),
    "no name": ({"goal": "g", "steps": [{"body": "x"}]}, "step 1: 'None' is no name", ""),
    "a bad name": (one(name="A b"), "'A b' is no name of a step", ""),
    "no body": ({"goal": "g", "steps": [{"name": "a"}]}, "step 'a' has no body", ""),
    "a large body": (one(body="x" * 70_000), "step 'a': the body is not a text of 1 to 65536", ""),
    "two of one name": ({"goal": "g", "steps": [one()["steps"][0]] * 2}, "two steps are called 'a'", ""),
    "after itself": (one(after=["a"]), "step 'a' comes after itself", "take it out"),
    "after what is not there": (two(after=["c"]), "step 'b' comes after 'c', which is no step", ""),
    "after a slip": (
        {"goal": "g", "steps": [{"name": "gather", "body": "x"}, {"name": "b", "body": "x", "after": "gahter"}]},
        "comes after 'gahter'", "did you mean 'gather'?",
    ),
    "a ring": (
        {"goal": "g", "steps": [
            {"name": "a", "body": "x", "after": ["c"]}, {"name": "b", "body": "x", "after": ["a"]},
            {"name": "c", "body": "x", "after": ["b"]}, {"name": "d", "body": "x"},
        ]},
        "in a ring: ", "take one of these out",
    ),
    "a reference that is not upstream": (two(body="{{a}}"), "refers to 'a', and does not come after it", "add 'a' to"),
    "a reference to nothing": (two(body="{{x}}"), "refers to 'x', which is no step", ""),
    "a reference to itself": (one(body="{{a}}"), "refers to 'a', and does not come after it", ""),
    "braces that are none": (one(body="{{ a b }}"), "'a b' in double braces is no reference", ""),
    "a condition that is none": (two(after=["a"], when="a ==="), "'a ===' is not a condition", "for example"),
    "a condition on what is not upstream": (two(when="a"), "refers to 'a'", ""),
    "a condition with code in it": (two(after=["a"], when="__import__('os')"), "is not a condition", ""),
    "on_failure": (one(on_failure="panic"), "step 'a': on_failure is 'panic'", "stop ends the plan"),
    "a schema that is none": (one(result_schema={"type": "objekt"}), "no JSON Schema at $.type: 'objekt'", ""),
    "a schema that is a text": (one(result_schema="object"), "is not a JSON Schema", ""),
    "a schema that looks elsewhere": (one(result_schema={"$ref": "https://example.org/x"}), "outside itself", ""),
    "a pattern": (one(result_schema={"pattern": "("}), "'(' is not a 'regex'", ""),
    "a large schema": (one(result_schema={"description": "x" * 33_000}), "the limit is 32768", ""),
    "attempts": (one(max_attempts=0), "step 'a': max_attempts is 0", ""),
    "time": (one(timeout_s=-1), "step 'a': timeout_s is -1", ""),
    "a capability": (one(capability="two words"), "step 'a': 'two words' is not a word", ""),
    "claims": (one(claims="yes"), "step 'a': claims is 'yes'", ""),
    "a channel": (one(channel="Not One"), "step 'a': ", ""),
    "verify": (one(verify="pytest"), "step 'a': verify is not a list", "no shell"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_run_is_refused_by_step_and_field_and_nothing_is_posted(bus: Bus, what: str) -> None:
    data, complaint, hint = WRONG[what]
    with pytest.raises(InvalidRequest) as caught:
        conductor.post(bus, data)
    assert complaint in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.hint, "it says what to do"
    assert bus.store.records.names(PLANS) == []
    assert list(bus.store.ids()) == []
    assert bus.store.channels() == []


def test_a_ring_is_named_in_its_order() -> None:
    data, complaint, _ = WRONG["a ring"]
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        parse(data)
    ring = str(caught.value).partition(complaint)[2].split(" -> ")
    assert sorted(ring[:-1]) == ["a", "b", "c"]
    assert ring[0] == ring[-1]
    needs = {"a": "c", "b": "a", "c": "b"}
    assert all(needs[after] == before for before, after in pairwise(ring))


def test_500_steps_in_a_chain_are_a_plan() -> None:
    steps = [{"name": f"s{i}", "body": "x", "after": [f"s{i - 1}"] if i else []} for i in range(500)]
    assert len(parse({"goal": "g", "steps": steps}).steps) == 500


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [{"name": "a"}]},
        {"steps": "x"},
        {"odd": 1},
        {"steps": [7]},
        {"depth": 1},
        {"depth": -1, "parent": "req_01234567"},
    ],
)
def test_a_record_that_is_no_plan_says_so(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptRecord, match="this is no plan"):
        planfile.load(planfile.dump(parse(GOOD)) | change)


@pytest.mark.parametrize(
    "fields", [{"after": "a"}, {"requires": "ab"}, {"verify": "rm"}, {"claims": 1}, {"claims": "no"}]
)
def test_a_record_with_a_text_for_a_list_or_a_number_for_a_flag_is_no_plan(fields: dict[str, object]) -> None:
    record = planfile.dump(parse(two()))
    record["steps"][1] |= fields
    with pytest.raises(CorruptRecord, match="'b' is no step"):
        planfile.load(record)


@pytest.mark.parametrize("name", ["", "nobody", "A", "x" * 120])
def test_a_record_whose_step_comes_after_none_of_its_steps_cannot_be_run(name: str) -> None:
    record = planfile.dump(parse(two()))
    record["steps"][1]["after"] = [name]
    plan = planfile.load(record)
    with pytest.raises(CorruptRecord, match="which is no step") as error:
        planfile.check(plan)
    assert len(str(error.value)) < 300


def test_what_is_said_of_a_record_is_short_and_acts_on_no_reader() -> None:
    with pytest.raises(CorruptRecord) as error:
        planfile.load(planfile.dump(parse(GOOD)) | {"\x1b[2J" + "x" * 10_000: 1})
    assert len(str(error.value)) < 300
    assert "\x1b" not in str(error.value)


# --- files ----------------------------------------------------------------------------------------


def test_yaml_and_json_say_the_same() -> None:
    yaml = "goal: g\nsteps:\n  - name: a\n    body: do a\n"
    assert planyaml.load(yaml.encode(), "f") == planyaml.load(
        b'{"goal": "g", "steps": [{"name": "a", "body": "do a"}]}', "f"
    )


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("1:30", "1:30"), ("1e3", 1000.0), ("-2.5", -2.5),
        (".5", 0.5), ("7", 7), ("-7", -7), ("010", 10), ("0o17", 15), ("2026-11-24", "2026-11-24"),
        ("~", None), ("null", None),
        ("", None), ("=", "="), ("v1.2.3", "v1.2.3"), ("0x1F", 31), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_a_plain_word_is_what_yaml_1_2_says(word: str, value: object) -> None:
    found = planyaml.load(f"a: {word}\n".encode(), "f")
    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(value)


def test_what_was_said_once_can_be_merged_into_steps() -> None:
    text = "x: &x {max_attempts: 2}\na:\n  <<: *x\n  name: a\n"
    assert planyaml.load(text.encode(), "f") == {"x": {"max_attempts": 2}, "a": {"max_attempts": 2, "name": "a"}}


def test_what_is_merged_may_be_said_otherwise() -> None:
    text = "x: &x {title: a, deep: &y {title: b}}\nz: {<<: *x, title: c}\nw: {<<: [*y, *x], title: d}\n"
    found = planyaml.load(text.encode(), "f")
    assert isinstance(found, dict)
    assert (found["z"], found["w"]) == ({"title": "c", "deep": {"title": "b"}}, {"title": "d", "deep": {"title": "b"}})


@pytest.mark.parametrize("text", ['{\n\t"a":\t[1]\n}', '{"a": [1]}', "a:\n- 1\n"])
def test_json_may_be_indented_with_tabs(text: str) -> None:
    assert planyaml.load(text.encode(), "f") == {"a": [1]}


# Nine times nine times nine …
BOMB = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("goal: [", "neither YAML nor JSON at line 1"),
        ("goal: a\ngoal: b\n", "found the name 'goal' twice"),
        ("goal: !!timestamp 2026-11-24\n", "no plain data"), ("a: .nan\n", "no plain data"),
        ("a: !!int ''\n", "'' is no int"), ("a: !!bool yes\n", "'yes' is no bool"),
        ("a: !!float 1:30\n", "is no float"),
        ("{true: a, True: b}\n", "'true' is no text; quote it"), ("1: a\n", "'1' is no text"),
        ("{~: a}\n", "is no text"),
        ("{{x}}: a\n", "found a name that is no text"), (b"goal: \xff\n", "is not UTF-8: invalid start byte at byte 6"),
        ("goal: " + "\u0436" * 600_000, "is larger than"),
        ("goal: !!python/object/apply:os.system [id]\n", "neither YAML nor JSON"),
        (BOMB, "unfolds to more than"),
        ("a: &a [*a]\n", "unfolds to more than"),
        ("x" * (1024 * 1024 + 1), "is larger than"),
                (f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 20)}]\n", "unfolds to more than"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plan_is_refused_with_the_place(text: str | bytes, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        planyaml.load(text if isinstance(text, bytes) else text.encode(), "plan.yaml")
