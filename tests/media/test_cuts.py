"""The power of a mounted file system is cut under working processes: what was acknowledged is there (P1, P2, P7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.media.cuts import Cuts, NoSync
from tests.media.facts import is_whole, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.media.mounts import Medium

KINDS = ("ext4", "xfs")
# In each of four parts, which may run side by side: 200 in all.
CUTS = 25


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_acknowledged_survives_a_real_power_cut(mount: Callable[..., Medium], kind: str, part: int) -> None:
    made = Cuts(mount(kind), seed=part).run(CUTS)
    print(f"{kind}: {made.cuts} cuts, {made.acknowledged} acknowledgements before them")
    assert not made.problems, "\n".join(made.problems)
    assert made.cuts == CUTS
    assert made.acknowledged > 3 * CUTS, "hardly anything was tried"


@pytest.mark.parametrize("kind", KINDS)
def test_without_fsync_a_real_power_cut_is_seen(mount: Callable[..., Medium], kind: str) -> None:
    made = Cuts(mount(kind), fs=NoSync).run(10)
    print("\n".join(made.problems))
    assert any("is lost" in line or "is not there" in line or "half a text" in line for line in made.problems)


def test_a_text_knows_whether_it_is_whole() -> None:
    lengths = [len(text(seed)) for seed in range(400)]
    assert min(lengths) == 1
    assert max(lengths) > 200_000
    assert all(is_whole(text(seed)) for seed in range(50))
    long = next(text(seed) for seed in range(400) if len(text(seed)) > 1000)
    assert not is_whole(long[:-1])
    assert not is_whole(long[:500] + "\0" * (len(long) - 500))
    assert not is_whole("")
