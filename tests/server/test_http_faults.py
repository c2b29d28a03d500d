"""Over HTTP each call to the system fails in turn: an error in words, never a false word, and service goes on (P14)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import mcp_bus.stores.file
from mcp_bus.errors import InvalidRequest, StoreUnavailable
from mcp_bus.model import State
from mcp_bus.server import http as serving
from mcp_bus.server import token
from mcp_bus.stores import tree
from tests.crash.victim import Faulty
from tests.server.http_process import TOKEN, reaching
from tests.server.support import settings
from tests.tally import FAULTS, tried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp_bus.bus import Bus
    from tests.server.support import Desk

pytestmark = pytest.mark.anyio
# Folders that stay open for the next call; more of them would hide a leak.
MOST_STEPS, KEPT = 60, 4
TOLD = {errno.EIO: "input/output error", errno.ENOSPC: "is full"}


def descriptors() -> int:
    """Return how many descriptors this process has; those of the event loop and of pytest are among them."""
    here = Path("/proc/self/fd")
    return len(list(here.iterdir())) if here.exists() else 0


def failing(code: int) -> Callable[..., Any]:
    """Return a call that fails."""

    def fail(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@asynccontextmanager
async def served(place: Path) -> AsyncIterator[str]:
    """Serve in this process, so that its calls can fail; yields the address."""
    listening, ready = serving.listen(0), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(serving.serve, settings(place), TOKEN, listening, ready=ready.set))
        await ready.wait()
        yield serving.address(listening)
        group.cancel_scope.cancel()


def _same(fs: Faulty) -> Faulty:
    return fs


# --- before anybody comes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_a_token_that_cannot_be_written_is_no_token_and_the_next_start_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before = descriptors()
    for step in range(MOST_STEPS):
        fs, path = Faulty(step, code), tmp_path / str(step) / "token"
        monkeypatch.setattr(token, "Fs", partial(_same, fs))
        refusal: InvalidRequest | None = None
        try:
            token.ensure(path)
        except InvalidRequest as error:
            refusal = error
        assert (refusal is None) == (not fs.failed), "it says that all is well"
        if refusal is not None:
            assert os.strerror(code) in str(refusal)
            assert "--token-file" in refusal.hint
        fs.mend()
        assert token.ensure(path) == token.read(path)
        assert {stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()} == {0o600}
        if not fs.failed:
            break
    else:
        pytest.fail("there is no end of it")
    assert step > 3
    assert descriptors() == before


@pytest.mark.parametrize("call", ["open", "fstat", "read"])
def test_a_token_that_cannot_be_read_is_said_to_be_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    made, before = token.ensure(tmp_path / "token"), descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.EIO))
        with pytest.raises(InvalidRequest, match="cannot be used") as error:
            token.ensure(tmp_path / "token")
    tried(FAULTS)
    assert made not in str(error.value)
    assert descriptors() == before
    assert token.ensure(tmp_path / "token") == made


@pytest.mark.parametrize("code", [errno.EADDRINUSE, errno.EACCES, errno.EMFILE, errno.ENOBUFS])
@pytest.mark.parametrize("call", ["bind", "listen"])
def test_a_port_that_cannot_be_had_is_said_to_be_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, call, failing(code))
        with pytest.raises(StoreUnavailable, match="cannot listen") as error:
            serving.listen(0)
    tried(FAULTS)
    assert os.strerror(code) in str(error.value)
    assert error.value.hint
    assert descriptors() == before
    serving.listen(0).close()


# --- once they come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM])
async def test_who_cannot_be_let_in_is_let_in_when_it_is_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real, left = socket.socket.accept, [3]

    def accept(here: socket.socket) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return real(here)

    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.02)
    told = list[str]()
    async with served(place) as url:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["message"])))
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with reaching(f"{url}/ann", "auto") as ann:
            assert await ann.post()
    assert not left[0]
    assert TOKEN not in "".join(told)
    tried(FAULTS, 3)


async def _post(ann: Desk, key: str, task: str) -> tuple[bool, str]:
    del task
    return await said(ann, "post_task", channel="review", body="x", key=key)


async def _claim(ann: Desk, key: str, task: str) -> tuple[bool, str]:
    del key, task
    return await said(ann, "claim_next", channels=["review"])


async def _cancel(ann: Desk, key: str, task: str) -> tuple[bool, str]:
    del key
    return await said(ann, "control_task", task=task, action="cancel")


async def said(ann: Desk, tool: str, **arguments: object) -> tuple[bool, str]:
    """Call a tool; return whether it was done, and what was said."""
    answer = await ann.client.call_tool(tool, arguments)
    text = "".join(getattr(part, "text", "") for part in answer.content)
    return not answer.is_error, text


VERBS = {
    "post_task": (_post, State.READY),
    "claim_next": (_claim, State.LEASED),
    "control_task": (_cancel, State.CANCELLED),
}


@pytest.mark.parametrize("tool", VERBS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_call_whose_disk_fails_says_so_and_what_was_done_is_there(
    place: Path, bob: Bus, monkeypatch: pytest.MonkeyPatch, era: str, tool: str, code: int
) -> None:
    call, state = VERBS[tool]
    fs = Faulty(-1, code)
    monkeypatch.setattr(mcp_bus.stores.file, "Fs", lambda: fs)
    monkeypatch.setattr(tree, "MAX_OPEN", KEPT)
    errors = 0
    async with served(place) as url, reaching(f"{url}/ann", era) as ann:
        await ann.call("claim_next")  # The first claim looks after the bus as well.
        before = descriptors()
        for step in range(MOST_STEPS):
            task = "" if tool == "post_task" else bob.post("review", str(step)).id
            known = set(bob.store.ids())
            fs.failed.clear()
            fs._step = fs.count + step
            is_done, text = await call(ann, f"key-{step}", task)
            fs.mend()
            failed = bool(fs.failed)
            if not is_done:
                errors += 1
                assert "next: " in text, text
                assert TOLD[code] in text, text
                again, text = await call(ann, f"key-{step}", task)
                assert again or "cancelled" in text, text
            new = task or next(iter(set(bob.store.ids()) - known))
            assert bob.get(new).state is state, f"step {step}: {text}"
            assert len(set(bob.store.ids()) - known) == (tool == "post_task"), "it was posted twice"
            if state is not State.CANCELLED:
                bob.cancel(new)
            if not failed:
                break
        else:
            pytest.fail("there is no end of it")
        assert errors, "no call failed"
        assert descriptors() <= before + 2 * KEPT + 2  # Of the server, and of the one beside it.
