"""Exit codes, and errors as JSON data."""

from __future__ import annotations

from mcp_bus.errors import BusError, Conflict, IllegalTransition, InvalidRequest, NotFound

OK, ERROR, USAGE, NOT_FOUND, NOTHING, CONFLICT, PERSON = range(7)
INTERRUPTED = 130
PIPE_BROKEN = 141


def code_of(error: BusError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, IllegalTransition):
        return CONFLICT  # The words were right; the task is not where they apply.
    if isinstance(error, InvalidRequest):
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    return CONFLICT if isinstance(error, Conflict) else ERROR


def problem(error: BusError) -> dict[str, object]:
    """Return an error as JSON data."""
    return {"code": error.code, "message": str(error), "hint": error.hint, "retryable": error.retryable}
