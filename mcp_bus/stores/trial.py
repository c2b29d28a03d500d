"""Two processes of this host try a folder: whether each sees soon what the other one changes."""

from __future__ import annotations

import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.clock import System
from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.visibility import Answerer, Asker, Place

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.tree import Tree
    from mcp_bus.stores.visibility import Measured

# How long the other process may take to start, to answer, and to end by itself.
START_S, PATIENCE_S, END_S = 20.0, 3.0, 1.0
ROUNDS = 3


def between_processes(folder: Path, place: Place, *, rounds: int = ROUNDS) -> Measured:
    """Measure between this process and one that is started for it, in a folder that both open.

    Args:
        folder: the path of the place.

    Raises:
        StoreUnavailable: the other process did not start, or ended half-way.
    """
    other = place.source.token(4)
    with _started(folder, other) as child:

        def watching(seconds: float) -> None:
            if child.poll() is not None:
                msg = f"the process that should answer in {str(folder)!r} has ended, exit code {child.returncode}"
                raise StoreUnavailable(msg, hint="repeat the call")
            place.pause(seconds)

        try:
            # Told through a pipe: a listing that is old would not show that it is there.
            assert child.stdout is not None
            if not select.select([child.stdout], [], [], START_S)[0] or not child.stdout.readline():
                raise _not_started(folder)
            asker = Asker(place._replace(pause=watching), patience_s=PATIENCE_S, answerer=other)
            found = asker.measure(rounds, START_S)
            with suppress(subprocess.TimeoutExpired):  # It ends when it sees that nobody asks any more.
                child.wait(END_S)
        finally:
            child.kill()
            child.wait()
            place.remove(f"probe-{other}-answers")
            place.clear(f"probe-{other}-")
    assert found is not None
    return found


def _started(folder: Path, word: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "mcp_bus.stores.trial", str(folder), word]
    try:
        return subprocess.Popen(  # noqa: S603  this program
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:  # A Python that this user may not start, or none.
        raise _not_started(folder, error.strerror or "") from error


def _not_started(folder: Path, why: str = "") -> StoreUnavailable:
    msg = f"no second process could be started that answers in {str(folder)!r}" + (f": {why}" if why else "")
    return StoreUnavailable(msg, hint=f"see whether `{sys.executable} -m mcp_bus version` works")


def refusal(tree: Tree) -> str:
    """Say why the file system of a bus cannot carry it, as two processes see it; empty if it can."""
    place = Place(tree.fs, tree.fd("tmp", make=True), System())
    return between_processes(tree.root / "tmp", place).why()


def _answer(folder: str, me: str) -> None:
    """Answer the process that started this one, until it is killed or nobody can be there any more."""
    fs = Fs()
    place = Place(fs, fs.open_dir(folder, None), System())
    answerer = Answerer(place, me=me)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        answerer.serve(START_S * 2)
    finally:
        answerer.close()


if __name__ == "__main__":
    _answer(*sys.argv[1:3])
