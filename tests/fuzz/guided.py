"""Feed targets with what reaches new code, in a process of its own: `python -m tests.fuzz.guided [TARGET] ...`.

libFuzzer ends its process, and wants the modules under test to be instrumented as they are imported.  Its arguments
follow the target: `-runs=1000`, `-max_total_time=60`, `-artifact_prefix=DIR/`.  Without a target, the first byte of an
input chooses one.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["mcp_bus.wire", "mcp_bus.history", "mcp_bus.names",
        "mcp_bus.policies", "mcp_bus.cursors", "mcp_bus.planfile", "mcp_bus.refs",
             "mcp_bus.draft", "mcp_bus.contracts", "mcp_bus.plan", "mcp_bus.signing.jws", "mcp_bus.signing.keys",
             "mcp_bus.cli.planyaml"]
):  # fmt: skip
    from tests.fuzz.mutate import FORMS
    from tests.fuzz.targets import TARGETS

ALL = list(TARGETS.values())


def _any(data: bytes) -> None:
    if data:
        ALL[data[0] % len(ALL)].check(data[1:])


def _changed(form: str, words: tuple[str, ...], data: bytes, size: int, seed: int) -> bytes:
    chance = random.Random(seed)  # noqa: S311  to be repeated, not to be secret
    if chance.random() < 0.4:
        made: bytes = atheris.Mutate(data, size)
        return made
    return FORMS[form](data, chance, words)[:size]


def _changed_any(data: bytes, size: int, seed: int) -> bytes:
    if not data or size < 2:
        return bytes([seed % len(ALL)])
    target = ALL[data[0] % len(ALL)]
    return data[:1] + _changed(target.form, target.words, data[1:], size - 1, seed)


def main(argv: list[str]) -> None:
    """Fuzz one target, or all of them."""
    check: Any = _any
    mutator: Any = _changed_any
    if argv and not argv[0].startswith("-"):
        target = TARGETS[argv.pop(0)]

        def check(data: bytes) -> None:
            target.check(data)

        def mutator(data: bytes, size: int, seed: int) -> bytes:
            return _changed(target.form, target.words, data, size, seed)

    atheris.Setup([sys.argv[0], *argv], check, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
