"""From what a person or a model wrote to a plan that can be run, or a refusal that names the step and the field.

Everything is checked before anything is posted: names, limits, cycles, references, conditions and schemas.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mcp_bus import contracts, draft, refs
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.names import RESERVED, check_channel
from mcp_bus.plain import clean, cut, near
from mcp_bus.plan import OnFailure, Plan, Step, cycle, upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STEP = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}\Z")
MAX_STEPS = 500
MAX_BODY = 64 * 1024
MAX_GOAL = 2000
# Numbers in a record are times in milliseconds, or smaller.
MOST = 10**15
# Where steps are posted unless they say otherwise.
CHANNEL = "work"
FIELDS = ("goal", "channel", "grace_s", "steps")
STEP_FIELDS = (
    "name", "body", "capability", "requires", "channel", "title", "after", "on_failure", "when", "priority",
    "max_attempts", "backoff_s", "timeout_s", "result_schema", "claims", "verify",
)  # fmt: skip


def parse(data: object, *, plan_id: str, owner: str, created: int) -> Plan:
    """Return the plan that JSON data describes.

    Args:
        data: an object with `goal`, `steps`, and optionally `channel` (for steps that name none) and `grace_s`;
            each step is an object with the fields of `Step`, where `capability` is one more of `requires`.

    Raises:
        InvalidRequest: says which step and field is wrong, and how.
    """
    if not isinstance(data, dict):
        msg = "a plan is an object with a goal and steps"
        raise InvalidRequest(msg, hint='for example {"goal": "…", "steps": [{"name": "scan", "body": "…"}]}')
    _check_known(data, FIELDS, "the plan")
    goal, listed = data.get("goal", ""), data.get("steps")
    if not isinstance(goal, str) or not goal.strip() or len(goal) > MAX_GOAL:
        msg = f"the goal is not a text of 1 to {MAX_GOAL} characters"
        raise InvalidRequest(msg, hint="say in a sentence what the plan is for")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_STEPS:
        count = f"{len(listed)} steps" if isinstance(listed, list) else "no list of steps"
        msg = f"the plan has {count}; 1 to {MAX_STEPS} are possible"
        raise InvalidRequest(msg, hint="split a larger goal into plans, each of which can be a step's work")
    channel = _channel(data.get("channel", CHANNEL))
    grace_s = draft.check_number("grace_s", data.get("grace_s", Plan._field_defaults["grace_s"]))
    steps = tuple(_step(item, number, channel) for number, item in enumerate(listed, 1))
    _check_graph(steps)
    return Plan(plan_id, goal, owner, created, steps, grace_s)


def _check_known(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    odd = next((str(name) for name in data if name not in known), None)
    if odd is not None:
        close = near(odd, known)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        msg = f"{where} has no field {cut(clean(odd), 60)!r}"
        raise InvalidRequest(msg, hint=hint)


def _step(item: object, number: int, channel: str) -> Step:
    if not isinstance(item, dict):
        msg = f"step {number} is no object"
        raise InvalidRequest(msg, hint='for example {"name": "scan", "body": "what is to be done"}')
    name = item.get("name")
    if not isinstance(name, str) or not STEP.match(name):
        msg = f"step {number}: {cut(clean(str(name)), 60)!r} is no name of a step"
        raise InvalidRequest(msg, hint="1 to 48 of a-z 0-9 _ -, beginning with a letter or digit")
    where = f"step {name!r}"
    _check_known(item, STEP_FIELDS, where)
    given = {field: value for field, value in item.items() if value is not None}
    made: dict[str, Any] = {"name": name, "channel": channel}
    try:
        for field, check in _CHECKS.items():
            if field in given:
                made[field] = check(given[field])
        needs = [*_words(given.get("requires", [])), *_words(given.get("capability", []))]
        made["requires"] = draft.check_words("requires", needs)
        contracts.check_both(made.get("result_schema"), claims=made.get("claims", False))
    except InvalidRequest as error:
        msg = f"{where}: {error}"
        raise InvalidRequest(msg, hint=error.hint) from None
    if "body" not in made:
        msg = f"{where} has no body"
        raise InvalidRequest(msg, hint="say what is to be done")
    return Step(**made)


def _words(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _body(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_BODY:
        msg = f"the body is not a text of 1 to {MAX_BODY} characters"
        raise InvalidRequest(msg, hint="put large data in a file and name its path")
    return draft.check_size(value, "body")


def _after(value: object) -> tuple[str, ...]:
    names = _words(value)
    odd = [name for name in names if not isinstance(name, str) or not STEP.match(name)]
    if odd:
        msg = f"{cut(clean(str(odd[0])), 60)!r} in after is no name of a step"
        raise InvalidRequest(msg, hint="name the steps that must be done first")
    return tuple(dict.fromkeys(str(name) for name in names))


def _on_failure(value: object) -> OnFailure:
    if value not in list(OnFailure):
        msg = f"on_failure is {cut(clean(str(value)), 40)!r}"
        raise InvalidRequest(msg, hint="stop ends the plan, skip skips what depends on it, continue goes on without it")
    return OnFailure(str(value))


def _when(value: object) -> str:
    if not isinstance(value, str) or len(value) > draft.MAX_TITLE:
        msg = f"when is not a text of at most {draft.MAX_TITLE} characters"
        raise InvalidRequest(msg, hint="for example lint.passed == true")
    refs.condition(value)
    return value


def _channel(value: object) -> str:
    channel = check_channel(value)
    if channel in RESERVED:
        msg = f"nobody works on {channel!r}"
        raise InvalidRequest(msg, hint="name another channel")
    return channel


def _title(value: object) -> str:
    return str(draft.check({"title": value})["title"])


def _verify(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= draft.MAX_WORDS:
        msg = f"verify is not a list of 1 to {draft.MAX_WORDS} words"
        raise InvalidRequest(msg, hint='a command and its arguments, for example ["pytest", "-q"]; no shell reads it')
    if not all(isinstance(word, str) and word and "\0" not in word for word in value):
        msg = "a word of verify is empty or no text"
        raise InvalidRequest(msg, hint='for example ["pytest", "-q"]')
    return tuple(value)


_CHECKS: dict[str, Callable[[Any], object]] = {
    "body": _body,
    "channel": _channel,
    "title": _title,
    "after": _after,
    "on_failure": _on_failure,
    "when": _when,
    "priority": draft.check_priority,
    "max_attempts": draft.check_attempts,
    "backoff_s": lambda value: draft.check_number("backoff_s", value),
    "timeout_s": lambda value: draft.check_number("timeout_s", value),
    "result_schema": contracts.check_schema,
    "claims": lambda value: draft.check_flag("claims", value),
    "verify": _verify,
}


def _check_graph(steps: Sequence[Step]) -> None:
    """Refuse what cannot be run: the same name twice, unknown steps, cycles, and references that are not upstream."""
    names = dict.fromkeys(step.name for step in steps)
    if len(names) < len(steps):
        listed = [step.name for step in steps]
        msg = f"two steps are called {next(name for name in names if listed.count(name) > 1)!r}"
        raise InvalidRequest(msg, hint="give each step a name of its own")
    for step in steps:
        missing = next((need for need in step.after if need not in names), None)
        if missing is not None:
            close = near(missing, names)
            msg = f"step {step.name!r} comes after {missing!r}, which is no step"
            raise InvalidRequest(msg, hint=f"did you mean {close[0]!r}?" if close else "name a step of this plan")
        if step.name in step.after:
            msg = f"step {step.name!r} comes after itself"
            raise InvalidRequest(msg, hint="take it out of its own after")
    ring = cycle(steps)
    if ring:
        msg = f"the steps wait for one another in a ring: {' -> '.join([*ring, ring[0]])}"
        raise InvalidRequest(msg, hint="take one of these out of an after")
    above = upstream(steps)
    for step in steps:
        try:
            asked = refs.references(step.body) + ([refs.condition(step.when).of] if step.when else [])
        except InvalidRequest as error:
            msg = f"step {step.name!r}: {error}"
            raise InvalidRequest(msg, hint=error.hint) from None
        odd = next((item.step for item in asked if item.step not in above[step.name]), "")
        if odd:
            is_step = odd in names
            what = "and does not come after it" if is_step else "which is no step"
            msg = f"step {step.name!r} refers to {odd!r}, {what}"
            hint = r"name a step of this plan, or write \{{ for braces that are meant as they are"
            raise InvalidRequest(msg, hint=f"add {odd!r} to its after" if is_step else hint)


# --- on disk ----------------------------------------------------------------------------------------


def dump(plan: Plan) -> dict[str, Any]:
    """Return a plan as the JSON data of its record; what says nothing is left out."""
    return {
        "id": plan.id,
        "goal": plan.goal,
        "owner": plan.owner,
        "created": plan.created,
        "grace_s": plan.grace_s,
        **({"parent": plan.parent, "depth": plan.depth} if plan.parent else {}),
        "steps": [_dumped(step) for step in plan.steps],
    }


def _dumped(step: Step) -> dict[str, Any]:
    made = {name: value for name, value in step._asdict().items() if value != Step._field_defaults.get(name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in made.items()}


def load(data: Mapping[str, Any]) -> Plan:
    """Read a record that `dump` made; whether its steps are a graph, `check` tells.

    Raises:
        CorruptRecord: it is something else.
    """
    try:
        steps = tuple(_loaded(item) for item in data["steps"])
        if not 0 < len(steps) <= MAX_STEPS:
            msg = f"it has {len(steps)} steps"
            raise ValueError(msg)  # noqa: TRY301  one place says what is no plan
        made = Plan(**{**data, "steps": steps})
        _check_types(made, ("id", "goal", "owner", "parent"), ("created", "depth"), ("grace_s",))
        if made.depth < 0 or (made.depth and not made.parent):
            msg = f"it is {made.depth} deep in nothing"
            raise ValueError(msg)  # noqa: TRY301  as above
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"this is no plan: {cut(clean(str(error)), 200)}"
        raise CorruptRecord(msg) from error
    return made


def check(plan: Plan) -> None:
    """Check a plan of which nobody says that it was checked.

    Raises:
        CorruptRecord: its steps cannot be run.
    """
    try:
        _check_graph(plan.steps)
    except (TypeError, InvalidRequest) as error:
        msg = f"this is no plan: {cut(clean(str(error)), 200)}"
        raise CorruptRecord(msg) from error


def _loaded(item: dict[str, Any]) -> Step:
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
    step = Step(**made | {"on_failure": OnFailure(item.get("on_failure", OnFailure.SKIP))})
    _check_types(
        step, ("name", "body", "channel", "title", "when"), ("priority", "max_attempts"), ("backoff_s", "timeout_s")
    )
    listed = [made.get(name, ()) for name in ("after", "requires", "verify")]
    is_schema = step.result_schema is None or isinstance(step.result_schema, dict)
    # A text in the place of a list would be read as a list of its letters.
    is_plain = isinstance(made.get("claims", False), bool) and all(isinstance(words, tuple) for words in listed)
    is_plain = is_plain and all(isinstance(word, str) for words in listed for word in words)
    is_plain = is_plain and all(re.match(draft.CAPABILITY, word) for word in step.requires)
    if not STEP.match(step.name) or not is_schema or not is_plain:
        msg = f"{step.name[:60]!r} is no step"
        raise ValueError(msg)
    return step


def _check_types(made: Plan | Step, texts: Sequence[str], whole: Sequence[str], numbers: Sequence[str]) -> None:
    """Refuse fields of another kind than they have.

    Raises:
        TypeError: names one.
        ValueError: a number is none that time can be counted with.
    """
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(texts, (str,))
    kinds |= dict.fromkeys(whole, (int,)) | dict.fromkeys(numbers, (int, float))
    for name, known in kinds.items():
        value = getattr(made, name)
        if isinstance(value, bool) or not isinstance(value, known):
            msg = f"{name} has the wrong type"
            raise TypeError(msg)
        if isinstance(value, int | float) and not abs(value) <= MOST:
            msg = f"{name} is out of range"
            raise ValueError(msg)
