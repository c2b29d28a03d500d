"""Errors in the words a model can act on: what, why, next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.plain import clean, cut

if TYPE_CHECKING:
    from pydantic import ValidationError

    from mcp_bus.errors import BusError
    from mcp_bus.server.args import Args

MAX_ERROR = 600


def of_bus(error: BusError) -> str:
    """Return an error of the bus as one text, with its next step."""
    text = cut(clean(str(error)), MAX_ERROR)
    return f"{text}\nnext: {clean(error.hint)}" if error.hint else text


def of_arguments(tool: str, model: type[Args], error: ValidationError) -> str:
    """Return what is wrong with a call's arguments, naming the argument and the nearest known one."""
    known = list(model.model_fields)
    lines = []
    for fault in error.errors(include_url=False, include_context=False)[:3]:
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            nearest = _nearest(str(fault["loc"][-1]), known)
            lines.append(
                f"unknown argument {cut(clean(name), 60)!r}" + (f", did you mean {nearest!r}?" if nearest else "")
            )
        elif fault["type"] == "missing":
            lines.append(f"argument {name!r} is missing")
        else:
            got = cut(clean(repr(fault["input"])), 60)
            lines.append(f"argument {name!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, got {got}")
    return f"{tool}: " + "; ".join(lines) + f"\nnext: call it again; arguments: {', '.join(known) or 'none'}"


def unknown_tool(name: str, known: list[str]) -> str:
    """Return that there is no such tool, with the nearest one."""
    nearest = _nearest(name, known)
    hint = f"did you mean {nearest!r}?" if nearest else "tools: " + ", ".join(known)
    return f"there is no tool {cut(clean(name), 60)!r}\nnext: {hint}"


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  only after a mistake

    return next(iter(get_close_matches(name[:100], known, n=1, cutoff=0.5)), "")
