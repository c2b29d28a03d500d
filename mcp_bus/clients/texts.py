"""Settings as text: an entry, or an item of a list, is put in or taken out, and nothing else changes.  Pure.

Line ends, a byte order mark, comments and the order of things stay.  Every change is read back: what is not exactly
the old settings with that one difference is not offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus.clients import jsonc, tomltext, yamltext
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JSON, TOML, YAML = "JSON", "TOML", "YAML"
BOM = "\ufeff"
# As a value: what is at that path goes.
GONE = object()


def read(text: str, form: str) -> dict[str, Any]:
    """Return what settings say; of an empty text, nothing.

    Raises:
        InvalidRequest: the text is not of that form, or not a table of names and values.
    """
    text = text.removeprefix(BOM)
    if not text.strip():
        return {}
    try:
        found = _parse(text, form)
    except (ValueError, RecursionError) as error:
        msg = f"it is not {form}: {error}"
        raise InvalidRequest(msg[:300], hint="mend it, or put the entry in by hand: --print shows it") from None
    if found is None and form == YAML:
        return {}  # Comments alone.
    if not isinstance(found, dict):
        msg = f"it is {form}, but not a table of names and values"
        raise InvalidRequest(msg, hint="mend it, or put the entry in by hand: --print shows it")
    return found


def _parse(text: str, form: str) -> object:
    if form == JSON:
        return jsonc.parse(text).data
    if form == TOML:
        import tomllib  # noqa: PLC0415  one client's

        return tomllib.loads(text)
    from ruamel.yaml import YAML as Yaml  # noqa: PLC0415, N811  only one client keeps YAML
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415  as above

    try:
        return Yaml(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def entry(found: Mapping[str, Any], path: Sequence[str]) -> object:
    """Return what settings say at a path; None if they say nothing there.

    Raises:
        InvalidRequest: something on the way is no table.
    """
    at: object = found
    for depth, name in enumerate(path):
        if at is None:
            return None
        if not isinstance(at, dict):
            msg = f"{'.'.join(path[:depth])!r} in it is no table"
            raise InvalidRequest(msg, hint="mend it, or put the entry in by hand: --print shows it")
        if name not in at:
            return None
        at = at[name]
    return at


def put(text: str, form: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return settings with an entry, in place of an older one.

    Raises:
        InvalidRequest: the settings cannot be read, or cannot be changed without changing more than that.
    """
    before = read(text, form)
    entry(before, path)
    made = _changed(text, lambda plain: _put(plain, form, path, value))
    _check(before, read(made, form), path, value)
    return made


def drop(text: str, form: str, path: Sequence[str]) -> str:
    """Return settings without an entry.

    Raises:
        InvalidRequest: as of `put`.
    """
    before = read(text, form)
    if entry(before, path) is None:
        return text
    made = _changed(text, lambda plain: _drop(plain, form, path))
    _check(before, read(made, form), path, None)
    return made


def edit(text: str, changes: Sequence[tuple[jsonc.Path, object]]) -> str:
    """Return JSON settings after changes, done in this order: a path, and what is there then, or `GONE`.

    A number in a path is the place in a list; the one after the last adds an item.

    Raises:
        InvalidRequest: as of `put`.
    """
    wanted: Any = read(text, JSON)
    made = text if text.removeprefix(BOM).strip() else text.removesuffix("\n") + "{}\n"
    for path, value in changes:
        made = _changed(made, lambda plain, path=path, value=value: _edited(plain, path, value))
        at = wanted
        for name in path[:-1]:
            at = at[name]
        if value is GONE:
            del at[path[-1]]
        elif isinstance(at, list) and path[-1] == len(at):
            at.append(value)
        else:
            at[path[-1]] = value
    if not _is_same(read(made, JSON), wanted):
        _refuse()
    return made


def _edited(text: str, path: jsonc.Path, value: object) -> str:
    return jsonc.drop(text, path) if value is GONE else jsonc.put(text, path, value, is_flat=True)


def _changed(text: str, change: Any) -> str:  # noqa: ANN401  a function of a text
    mark = BOM if text.startswith(BOM) else ""
    plain = text.removeprefix(BOM)
    try:
        made: str = change(plain)
    except (ValueError, RecursionError) as error:
        msg = f"it cannot be changed: {error}"
        raise InvalidRequest(msg[:300], hint="put the entry in by hand: --print shows it") from None
    return mark + made


def _put(text: str, form: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    if form == JSON:
        return jsonc.put(text if text.strip() else "{}\n", path, value)
    return tomltext.put(text, path, value) if form == TOML else yamltext.put(text, path, value)


def _drop(text: str, form: str, path: Sequence[str]) -> str:
    if form == JSON:
        return jsonc.drop(text, path)
    return tomltext.drop(text, path) if form == TOML else yamltext.drop(text, path)


def _check(before: Mapping[str, Any], after: Mapping[str, Any], path: Sequence[str], value: object) -> None:
    """Refuse a change that changed more than it was to; the tables on the way may be new."""
    if not _is_same(entry(after, path), value) or not _is_same(_without(before, path), _without(after, path)):
        _refuse()


def _is_same(one: object, other: object) -> bool:
    """Tell whether two values say the same: NaN is NaN, and 1 is neither 1.0 nor true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(said, other[name]) for name, said in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))  # noqa: PLR0124  NaN


def _refuse() -> None:
    msg = "it cannot be changed without changing more than this entry"
    raise InvalidRequest(msg, hint="put the entry in by hand: --print shows it")


def _without(found: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return settings without an entry, and without tables on the way to it that hold nothing else."""
    made = dict(found)
    if len(path) == 1:
        made.pop(path[0], None)
        return made
    inner = made.pop(path[0], None)
    if isinstance(inner, dict) and (rest := _without(inner, path[1:])):
        made[path[0]] = rest
    elif inner is not None and not isinstance(inner, dict):
        made[path[0]] = inner
    return made
