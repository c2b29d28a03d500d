"""sync: ask the git remote of a bus now, send what waits for it, and tell what came."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import timers
from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import ERROR, OK
from mcp_bus.cli.output import clean
from mcp_bus.errors import InvalidRequest, StoreUnavailable

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.stores.git.store import GitStore
    from mcp_bus.stores.git.unsent import Unsent

WATCH_S = 5.0
SHOWN = 50


def declare(parser: Parser) -> None:
    """Declare the options of `sync`."""
    often = parser.add_mutually_exclusive_group()
    often.add_argument("--every", type=seconds, default=0.0, metavar="TIME", help="again and again, as 5m or 12h")
    often.add_argument("--watch", action="store_true", help=f"again every {WATCH_S:g} s")
    parser.add_argument(
        "--timer", choices=timers.KINDS, help="print what does so by itself --every so often, and do nothing"
    )
    parser.add_argument(
        "--accept-rewritten", action="store_true", help="take the branch as it is though it lost what it had"
    )


def sync(call: Call) -> int:
    """Ask the remote, send and fetch; by itself once."""
    args, out = call.args, call.out
    if call.config.remote is None:
        msg = f"the bus {str(call.config.path)!r} is at no git remote"
        raise InvalidRequest(msg, hint="`mcp-bus --bus git+REMOTE init` makes one; a bus of files needs no sync")
    if args.timer:
        return timers.tell(call, timers.words(call), "sync")
    if args.accept_rewritten:
        _accept(call)
    pause = WATCH_S if args.watch else args.every
    known = _known(call)
    with call.bus() as bus:
        store, unsent = _store(bus), _unsent(bus)
        while True:
            code, known = _once(call, store, unsent, known, must=not pause)
            out.flush()
            if not pause:
                return code
            threading.Event().wait(pause)  # The rhythm that was asked for; a signal ends it.


def _store(bus: Bus) -> GitStore:
    from mcp_bus.stores.git.store import GitStore

    assert isinstance(bus.store, GitStore)
    return bus.store


def _unsent(bus: Bus) -> Unsent:
    from mcp_bus.stores.git.unsent import Unsent

    return Unsent(_store(bus).local.tree, bus.source)


def _accept(call: Call) -> None:
    from mcp_bus.config import environment
    from mcp_bus.stores.git.place import CLONE
    from mcp_bus.stores.git.repo import Repo

    where = call.config.remote
    assert where is not None
    lost = Repo(call.config.path / CLONE, where.remote, where.branch, environment=environment()).forget()
    if lost:
        call.out.warn(f"mcp-bus: {lost[:12]} and what came before it are no longer expected there")


def _known(call: Call) -> str:
    """Return the head that this host knew before this verb, empty for none: to open the bus asks the remote already."""
    from mcp_bus.stores.git.place import CLONE
    from mcp_bus.stores.git.repo import OID, SEEN

    with suppress(OSError):
        head = (call.config.path / CLONE / SEEN).read_bytes().decode("ascii", errors="replace").strip()
        return head if OID.match(head) else ""
    return ""


def _once(call: Call, store: GitStore, unsent: Unsent, known: str, *, must: bool) -> tuple[int, str]:
    """Ask once; tell what came since `known` and what went; return the exit code, and what is known now.

    Raises:
        StoreUnavailable: the remote does not answer, and this is not one of many times.
    """
    from mcp_bus.stores.git.unsent import FOLDER

    out, waited = call.out, unsent.names()
    try:
        after = store.sync()
    except StoreUnavailable as error:
        if must:
            raise
        out.warn(f"mcp-bus: {clean(str(error))}")
        return ERROR, known
    left = set(unsent.names())
    stuck = [str(call.config.path / FOLDER / name) for name in waited if name in left]
    sent, came = len(waited) - len(stuck), store.repo.told(known, after)
    for path in stuck:
        out.warn(f"mcp-bus: a post cannot be sent: it is damaged, or its channel takes it no more: {clean(path)}")
        out.warn("  next: read that file, post anew what is in it, and remove it")
    if out.as_json:
        made: dict[str, Any] = {"remote": store.address, "head": after, "came": came, "sent": sent, "unsendable": stuck}
        out.json(made)
        return OK, after
    if len(came) > SHOWN:
        out.line(f"{len(came) - SHOWN} more before these")
    for line in came[-SHOWN:]:
        out.line(clean(line))
    told = f"; sent {sent} post{'' if sent == 1 else 's'} that waited" if sent else ""
    out.note(f"{len(came) or 'no'} change{'' if len(came) == 1 else 's'} since it was last asked{told}")
    return OK, after


VERBS = {
    "sync": Verb(declare, sync, "mcp-bus sync\nmcp-bus sync --every 12h\nmcp-bus sync --timer systemd --every 12h")
}
