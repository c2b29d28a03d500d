"""How old may a listing be that another process, or another host, is shown?  Measured, for names of mounts lie too.

Two sides meet in one folder, which both list again and again, as those who use a bus do.  The asker gives a file its
name; the answerer does the same with one of its own once a listing shows it that, and the asker waits until a listing
shows it this.  Then both files get another name, and then they are removed.  All times are of the asker's clock, there
and back, so a listing of either side is at most so old.

    probe-<answerer>-answers             somebody answers here: host, pid, and when it started
    probe-<asker>-hello                  somebody asks here
    probe-<asker>-<answerer>-here        the answerer has seen that
    probe-<asker>-<answerer>-ask-<round>-new, -moved
    probe-<asker>-<answerer>-ans-<round>-new, -moved

Each name says who asks and who answers, so several of both are in nobody's way.
"""

from __future__ import annotations

import os
import re
import select
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import BusError, StoreUnavailable
from mcp_bus.identity import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.clock import Source
    from mcp_bus.stores.fsops import Fs

# What a listing may be behind, in seconds; leases and waits of a bus are made for less.
BOUND_S = 2.0
# How long an answer may take once it is known that somebody answers.
PATIENCE_S = 10.0
HELLO, LISTING, RENAME, REMOVAL = "hello", "listing", "rename", "removal"
WHAT = {HELLO: "a new file", LISTING: "a new file", RENAME: "the new name of a file", REMOVAL: "that a file is gone"}
# Who waits looks again after so long: at first, at most while somebody is there, at most while nobody is.
SOON_S, BUSY_S, IDLE_S = 0.001, 0.02, 0.25
# So many askers are greeted at once; one that did nothing for so long is in nobody's way, and is forgotten at last.
MOST, QUIET_S, GONE_S = 16, 0.5, 6 * PATIENCE_S
_LINES = 400
_HELLO = re.compile(r"probe-([0-9a-f]{8})-hello\Z")
_SIGN = re.compile(r"probe-([0-9a-f]{8})-answers\Z")
_HERE = re.compile(r"probe-([0-9a-f]{8})-([0-9a-f]{8})-here\Z")


def pause(seconds: float) -> None:
    """Wait until it is time to look again: listings cannot be waited for, which is what is measured."""
    select.select([], [], [], seconds)


class Place(NamedTuple):
    """The folder in which both sides meet, and how one of them looks at it.

    Attributes:
        at: the open folder; as on a bus it stays open, for some mounts list one anew only when it is opened.
        pause: waits so many seconds; raises to give up.
    """

    fs: Fs
    at: int
    source: Source
    pause: Callable[[float], None] = pause

    def names(self) -> set[str]:
        """List the folder."""
        return set(self.fs.names(self.at))

    def publish(self, name: str, data: bytes, me: str) -> None:
        """Let a file appear whole under its name."""
        draft = f"probe-{me}-draft-{self.source.token(4)}"
        self.fs.create(draft, self.at, data, sync=False)
        self.fs.rename(draft, self.at, name, self.at)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None if it cannot be read."""
        with suppress(OSError, BusError):
            return self.fs.read(name, self.at, 65_536).data
        return None

    def remove(self, name: str) -> None:
        """Remove a name, if it is there; a folder is of nobody who measures, and stays."""
        try:
            self.fs.unlink(name, self.at)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and not self.is_folder(name):
                raise

    def is_folder(self, name: str) -> bool:
        """Tell whether a name is a folder's."""
        about = self.fs.stat(name, self.at)
        return about is not None and stat.S_ISDIR(about.st_mode)

    def clear(self, start: str) -> None:
        """Remove all that begins so."""
        for name in self.names():
            if name.startswith(start):
                self.remove(name)


def _bytes(pair: str, number: int) -> bytes:
    """Return what stands in the file of a round, which is known to both."""
    return f"{pair} {number}\n".encode() * _LINES


def _card() -> bytes:
    """Return who this process is, for the other side."""
    pid = os.getpid()
    return f"{pid} {process.started(pid)} {process.host()}\n".encode()


def host_of(card: bytes | None) -> str:
    """Return the host that the other side says it is on; not cleaned."""
    words = (card or b"").decode(errors="replace").split(None, 2)
    return words[2].strip() if len(words) == 3 else "?"


def _is_over(card: bytes | None) -> bool:
    """Tell whether a process of this host left its sign and is gone."""
    words = (card or b"").split()
    if host_of(card) != process.host() or not all(word.isdigit() and len(word) < 20 for word in words[:2]):
        return False
    return not process.is_running(int(words[0]), int(words[1]))


# --- who answers ----------------------------------------------------------------------------------------


class _Peer:
    """One asker: what it was answered last, and when."""

    def __init__(self, host: str, now: float) -> None:
        self.host, self.last = host, now
        self.number, self.name, self.is_silent = 0, "", False


class Answerer:
    """Does what it sees an asker do.

    Attributes:
        served: hosts of the askers that were answered and have ended.
    """

    def __init__(self, place: Place, *, me: str = "", tell: Callable[[str], None] | None = None) -> None:
        """Leave a sign that somebody answers here.

        Args:
            me: eight hex digits that nobody else is called by.
            tell: takes what a person who waits may want to know; not cleaned.
        """
        self._place, self._me = place, me or place.source.token(4)
        self._tell = tell or (lambda _: None)
        self._peers, self._gone, self.served = dict[str, _Peer](), set[str](), list[str]()
        place.publish(f"probe-{self._me}-answers", _card(), self._me)

    @property
    def is_busy(self) -> bool:
        """Whether somebody asks."""
        return any(not peer.is_silent for peer in self._peers.values())

    def step(self) -> bool:
        """Look once, and answer what is there to be answered; tell whether something was."""
        names, did, now = self._place.names(), False, self._place.source.monotonic()
        words = {match[1] for match in map(_HELLO.match, names) if match is not None} - self._peers.keys() - self._gone
        free = MOST - sum(now - peer.last <= QUIET_S for peer in self._peers.values())
        for word in sorted(words)[: max(free, 0)]:
            did = True
            with suppress(IsADirectoryError):  # The asker says so.
                self._greet(word)
        for word, peer in list(self._peers.items()):
            if f"probe-{word}-hello" not in names:
                self.served.append(peer.host)
                self._end(word)
                did = True
            elif now - peer.last > GONE_S:  # It was killed, on another host.
                self._gone.add(word)
                self._end(word)
            else:  # It goes at this moment, and is forgotten at the next look.
                with suppress(FileNotFoundError, IsADirectoryError):
                    did = self._answer(word, names) or did
        return did

    def _greet(self, word: str) -> None:
        host = host_of(self._place.read(f"probe-{word}-hello"))
        self._peers[word] = _Peer(host, self._place.source.monotonic())
        self._place.publish(f"{self._pair(word)}-here", _card(), self._me)
        self._tell(f"answering {host}")

    def _pair(self, word: str) -> str:
        return f"probe-{word}-{self._me}"

    def _answer(self, word: str, names: set[str]) -> bool:
        peer, pair, now = self._peers[word], self._pair(word), self._place.source.monotonic()
        asks, answers = f"{pair}-ask-{peer.number}", f"{pair}-ans-{peer.number}"
        following = f"{pair}-ask-{peer.number + 1}-new"
        is_moved = f"{asks}-moved" in names
        if not peer.name and following in names:
            peer.number += 1
            is_whole = self._place.read(following) == _bytes(pair, peer.number)
            peer.name = f"{pair}-ans-{peer.number}-new"
            self._place.publish(peer.name, _bytes(pair, peer.number) if is_whole else b"torn\n", self._me)
        elif peer.name.endswith("-new") and is_moved and f"{asks}-new" not in names:
            peer.name = f"{answers}-moved"
            self._place.fs.rename(f"{answers}-new", self._place.at, peer.name, self._place.at)
        elif peer.name.endswith("-moved") and not is_moved and f"{asks}-new" not in names:
            self._place.remove(peer.name)
            peer.name = ""
        else:
            if now - peer.last > PATIENCE_S and not peer.is_silent:
                peer.is_silent = True
                self._tell(f"nothing came of the last answer to {peer.host} for {PATIENCE_S:g} s: what it says counts")
            return False
        peer.last, peer.is_silent = now, False
        return True

    def _end(self, word: str) -> None:
        """Forget an asker that has gone, and leave nothing of what it was answered."""
        del self._peers[word]
        self._place.clear(f"{self._pair(word)}-")

    def serve(self, within_s: float) -> bool:
        """Answer until nobody asks any more, or time is up; tell whether somebody was answered to the end."""
        clock, nap = self._place.source.monotonic, SOON_S
        end = clock() + within_s
        while (left := end - clock()) > 0 and (self.is_busy or not self.served):
            nap = SOON_S if self.step() else min(nap * 1.5, BUSY_S if self.is_busy else IDLE_S)
            self._place.pause(min(nap, left))
        return bool(self.served)

    def close(self) -> None:
        """Leave nothing behind."""
        for word in list(self._peers):
            self._place.clear(f"{self._pair(word)}-")
        self._place.clear(f"probe-{self._me}-")


# --- who asks -------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What was found.

    Attributes:
        lags: of each kind of change the seconds there and back, one for each round.
        host: where the other side says it is; not cleaned.
        is_torn: whether a file was seen before its bytes were.
        missed: what was not seen in time, one of `WHAT`; empty if all was.
        waited_s: how long that was waited for.
    """

    lags: dict[str, list[float]]
    host: str = "?"
    is_torn: bool = False
    missed: str = ""
    waited_s: float = 0.0

    @property
    def worst(self) -> tuple[float, str]:
        """The longest of all, in seconds, and of what; 0 if there was none."""
        return max(((max(some), what) for what, some in self.lags.items() if some), default=(0.0, LISTING))

    def median(self, what: str) -> float:
        """Return the median of one kind, in seconds; 0 if there was none."""
        some = sorted(self.lags[what])
        return (some[len(some) // 2] + some[(len(some) - 1) // 2]) / 2 if some else 0.0

    def why(self) -> str:
        """Say why a mount that does so cannot carry a bus; empty if it can."""
        if self.is_torn:
            return "a file is seen before all of its bytes are there"
        if self.missed:
            return f"its listings lie: another process was not shown {WHAT[self.missed]} within {self.waited_s:.1f} s"
        lag, what = self.worst
        if lag > BOUND_S:
            return f"its listings lie: another process is shown {WHAT[what]} only after {lag * 1000:.0f} ms"
        return ""


class Asker:
    """Changes names, and sees how long it takes until the other side has seen that."""

    def __init__(self, place: Place, *, patience_s: float = PATIENCE_S, answerer: str = "") -> None:
        """Ask nothing yet.

        Args:
            patience_s: how long an answer may take once it is known that somebody answers.
            answerer: ask this one, which is there; else whoever comes first.
        """
        self._place, self._patience_s, self._answerer = place, patience_s, answerer
        self._me, self._left = place.source.token(4), list[str]()

    def measure(self, rounds: int, within_s: float) -> Measured | None:
        """Ask so many times, or until the answer is clear; nothing is left behind.

        Args:
            within_s: how long to wait for somebody who answers.

        Returns:
            None if nobody answers.

        Raises:
            StoreUnavailable: somebody's folder is in the way.
        """
        place = self._place
        try:
            place.names()  # A listing that was made before is what a cache gives again.
            place.publish(f"probe-{self._me}-hello", _card(), self._me)
            found = self._greeted(within_s)
            if found is None:
                return None
            measured = Measured({LISTING: [], RENAME: [], REMOVAL: []})
            if not found:
                return measured._replace(missed=HELLO, waited_s=min(self._patience_s, within_s))
            pair = f"probe-{self._me}-{found}"
            measured = measured._replace(host=host_of(place.read(f"{pair}-here")))
            for number in range(1, rounds + 1):
                measured = self._round(pair, number, measured)
                if measured.why():
                    break
            return measured
        finally:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        """Remove what is known to be there, which a listing that is old would not show; then what a listing shows."""
        here = f"probe-{self._me}-{self._answerer}-here"
        for name in (f"probe-{self._me}-hello", here, *self._left):
            self._place.remove(name)
        self._place.clear(f"probe-{self._me}-")

    def _greeted(self, within_s: float) -> str | None:
        """Return who answers; empty if somebody is there who does not see that it is asked, None if nobody is."""
        clock, nap = self._place.source.monotonic, SOON_S
        began, since = clock(), clock() if self._answerer else None
        while True:
            names, now = self._place.names(), clock()
            for match in map(_HERE.match, sorted(names)):
                if match is not None and match[1] == self._me and self._answerer in ("", match[2]):
                    return match[2]
            if since is None and any(_SIGN.match(name) and not _is_over(self._place.read(name)) for name in names):
                since = now
            if since is not None and now - since > min(self._patience_s, within_s):
                return ""
            if since is None and now - began > within_s:
                return None
            nap = min(nap * 1.5, IDLE_S if since is None else BUSY_S)
            self._place.pause(nap)

    def _round(self, pair: str, number: int, so_far: Measured) -> Measured:
        """Do one round; end it where the answer is clear."""
        place, name = self._place, f"{pair}-ask-{number}"
        new, moved = f"{pair}-ans-{number}-new", f"{pair}-ans-{number}-moved"
        self._left = [f"{pair}-here", f"{name}-new", f"{name}-moved", new, moved]
        steps: tuple[tuple[str, Callable[[], None], Callable[[set[str]], bool]], ...] = (
            (LISTING, lambda: place.publish(f"{name}-new", _bytes(pair, number), self._me), lambda it: new in it),
            (
                RENAME,
                lambda: place.fs.rename(f"{name}-new", place.at, f"{name}-moved", place.at),
                lambda it: moved in it and new not in it,
            ),
            (REMOVAL, lambda: place.remove(f"{name}-moved"), lambda it: not it & {new, moved}),
        )
        for what, do, is_seen in steps:
            took = self._timed(do, is_seen)
            if took is None:
                self._refuse_folders()
                return so_far._replace(missed=what, waited_s=self._patience_s)
            so_far.lags[what].append(took)
            if what == LISTING and place.read(new) != _bytes(pair, number):
                self._refuse_folders()
                return so_far._replace(is_torn=True)
            if took > BOUND_S:
                break
        return so_far

    def _refuse_folders(self) -> None:
        """Look whether it is a folder that is in the way; only now, for a look changes what a mount remembers."""
        for name in filter(self._place.is_folder, self._left):
            msg = f"there is a folder {name!r}, where this measurement has a file"
            raise StoreUnavailable(msg, hint="find out who makes such folders, remove it, and measure again")

    def _timed(self, do: Callable[[], None], is_seen: Callable[[set[str]], bool]) -> float | None:
        """Change something; return after how many seconds a listing shows the answer, None if that takes too long."""
        clock = self._place.source.monotonic
        self._place.names()
        began = clock()
        with suppress(IsADirectoryError):  # Then the answer does not come.
            do()
        while True:
            names, took = self._place.names(), clock() - began
            if is_seen(names):
                return took
            if took > self._patience_s:
                return None
            self._place.pause(min(max(took / 8, SOON_S), BUSY_S))
