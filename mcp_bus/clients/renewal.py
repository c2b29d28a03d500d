"""An entry that is there, changed key by key, so that comments in it and after it stay.  Pure."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from mcp_bus.clients import texts
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence


def renew(text: str, form: str, path: Sequence[str], wanted: Mapping[str, Any]) -> str:
    """Return settings in which the entry at a path says what is wanted.

    Raises:
        InvalidRequest: they cannot be read, or cannot be changed without changing more than that.
    """
    found: dict[str, Any] = texts.read(text, form)
    at = found
    for name in path[:-1]:
        at = at[name]
    known, at[path[-1]] = at[path[-1]], wanted
    if form == texts.JSON:
        gone = {name: texts.GONE for name in known if name not in wanted}
        some = {**wanted, **gone}.items()
        return texts.edit(text, [((*path, name), said) for name, said in some if known.get(name, texts.GONE) != said])
    plain = text.removeprefix(texts.BOM)
    made = (_toml if form == texts.TOML else _yaml)(plain, path, wanted)
    if "\r\n" in plain:
        made = made.replace("\r\n", "\n").replace("\n", "\r\n")
    if texts.read(made, form) != found:
        msg = "it cannot be changed without changing more than this entry"
        raise InvalidRequest(msg, hint="put the entry in by hand: --print shows it")
    return text[: len(text) - len(plain)] + made


def _toml(text: str, path: Sequence[str], wanted: Mapping[str, Any]) -> str:
    import tomlkit  # noqa: PLC0415  only one client keeps TOML

    document = tomlkit.parse(text)
    _set(_at(document, path), wanted)
    return tomlkit.dumps(document)


def _yaml(text: str, path: Sequence[str], wanted: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML as Yaml  # noqa: PLC0415, N811  only one client keeps YAML

    yaml, out = Yaml(typ="rt", pure=True), StringIO()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    document = yaml.load(text)
    _set(_at(document, path), wanted)
    yaml.dump(document, out)
    return out.getvalue()


def _at(document: Any, path: Sequence[str]) -> Any:  # noqa: ANN401  of two libraries
    for name in path:
        document = document[name]
    return document


def _set(table: MutableMapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Have a table say what is wanted, and touch nothing that says it already."""
    for name in [name for name in table if name not in wanted]:
        del table[name]
    for name, said in wanted.items():
        if isinstance(said, dict) and name in table:
            _set(table[name], said)
        elif name not in table or table[name] != said:
            table[name] = said
