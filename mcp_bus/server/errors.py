"""Errors in the words a model can act on: what, why, next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from mcp_bus.errors import InvalidRequest, NotFound
from mcp_bus.plain import clean, cut
from mcp_bus.server.words import ALL_WAYS, Ways

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError

    from mcp_bus.errors import BusError
    from mcp_bus.server.args import Args

MAX_ERROR = 600


def of_bus(error: BusError, ways: Ways = ALL_WAYS) -> str:
    """Return an error of the bus as one text, with its next step: one that the session offers."""
    text = cut(clean(str(error)), MAX_ERROR)
    hint = cut(clean(error.hint), MAX_ERROR)
    return f"{text}\nnext: {ways.first(*filter(None, [hint]), _otherwise(error))}"


def _otherwise(error: BusError) -> str:
    if isinstance(error, NotFound):
        return "give it as an answer showed it"
    if isinstance(error, InvalidRequest):
        return "correct that and call it again"
    return "repeat the call" if error.retryable else "ask a person to look at the bus"


def of_arguments(tool: str, model: type[Args], error: ValidationError) -> str:
    """Return what is wrong with a call's arguments, naming the argument and the nearest known one."""
    known = list(model.model_fields)
    lines = []
    for fault in error.errors(include_url=False, include_context=False)[:3]:
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            nearest = _nearest(str(fault["loc"][-1]), _places(model))
            lines.append(
                f"unknown argument {cut(clean(name), 60)!r}" + (f", did you mean {nearest!r}?" if nearest else "")
            )
        elif fault["type"] == "missing":
            lines.append(f"argument {name!r} is missing")
        else:
            got = cut(clean(repr(fault["input"])), 60)
            lines.append(f"argument {name!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, got {got}")
    return f"{tool}: " + "; ".join(lines) + f"\nnext: call it again; arguments: {', '.join(known) or 'none'}"


def _places(model: type[BaseModel]) -> dict[str, str]:
    """Return where each argument belongs, by its name: `priority` belongs at `options.priority`."""
    made: dict[str, str] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            made |= {key: f"{name}.{key}" for key in inner.model_fields}
        made[name] = name
    return made


def unknown_tool(name: str, known: list[str], all_tools: Collection[str], where: str) -> str:
    """Return that there is no such tool, or not here, with the nearest one.

    Args:
        where: what has the tools that are `known`: a profile.
    """
    if name in all_tools:
        return f"{name} is not offered {where}\nnext: use what is: {', '.join(known)}"
    nearest = _nearest(name, dict(zip(known, known, strict=True)))
    hint = f"did you mean {nearest!r}?" if nearest else "tools: " + ", ".join(known)
    return f"there is no tool {cut(clean(name), 60)!r}\nnext: {hint}"


def _nearest(name: str, known: dict[str, str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  only after a mistake

    return known.get(next(iter(get_close_matches(name[:100], known, n=1, cutoff=0.5)), ""), "")
