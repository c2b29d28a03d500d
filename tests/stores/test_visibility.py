"""Mounts that lie: how old a listing may be that another is shown is measured, and what is too old is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.visibility import BOUND_S, GONE_S, MOST, PATIENCE_S, Answerer, Asker, Measured, Place
from tests.fakes import VirtualSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.clock import System


class Cached(Fs):
    """A mount that gives a listing again for so many seconds, as object stores behind FUSE do."""

    def __init__(self, for_s: float, clock: VirtualSource | System) -> None:
        self.for_s, self.clock = for_s, clock
        self.last: list[str] | None = None
        self.at = 0.0

    def names(self, fd: int) -> list[str]:
        now = self.clock.monotonic()
        if self.last is None or now - self.at >= self.for_s:
            self.last, self.at = super().names(fd), now
        return self.last


class Keeping(Fs):
    """A mount whose listings go on to show what is gone: for removed names, or for what was renamed too."""

    def __init__(self, what: str) -> None:
        self.what, self.was = what, set[str]()

    def names(self, fd: int) -> list[str]:
        now = super().names(fd)
        kept = {name for name in self.was - {*now} if self.what == "new" or name.endswith("-moved")}
        self.was = {*now, *kept}
        return sorted(self.was)


class Vanishing(Fs):
    """A mount on which somebody removes an answer just before it is renamed."""

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        if "-ans-" in src:
            self.unlink(src, src_at)
        super().rename(src, src_at, dst, dst_at)


class Torn(Fs):
    """A mount that shows a file's name before its last bytes."""

    def read(self, name: str, at: int, limit: int) -> Any:
        found = super().read(name, at, limit)
        return found._replace(data=found.data[:-1]) if "-ask-" in name or "-ans-" in name else found


class Both:
    """Two sides of one folder under a clock that stands still: while the asker waits, others do what they do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, VirtualSource()
        self.meanwhile: list[Callable[[], object]] = []
        self._open = list[tuple[Fs, int]]()

    def place(self, fs: Fs | None = None) -> Place:
        fs = fs or Fs()
        at = fs.open_dir(str(self.folder), None)
        self._open.append((fs, at))
        return Place(fs, at, self.clock, self.pause)

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for do in self.meanwhile:
            do()

    def answerer(self, fs: Fs | None = None) -> Answerer:
        made = Answerer(self.place(fs))
        self.meanwhile.append(made.step)
        return made

    def ask(self, fs: Fs | None = None, *, within_s: float = 60.0, **options: Any) -> Measured | None:
        return Asker(self.place(fs), **options).measure(3, within_s)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def close(self) -> None:
        for fs, at in self._open:
            fs.close_dir(at)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def test_an_honest_folder_passes_and_nothing_is_left_in_it(both: Both) -> None:
    (both.folder / "theirs").write_text("x")
    answerer = both.answerer()
    found = both.ask()
    assert found is not None
    assert (found.why(), found.host) == ("", os.uname().nodename)
    assert {what: len(some) for what, some in found.lags.items()} == {"listing": 3, "rename": 3, "removal": 3}
    assert found.worst[0] < 0.1
    answerer.step()
    assert len(answerer.served) == 1
    answerer.close()
    assert both.names() == ["theirs"]


@pytest.mark.parametrize("side", ["asks", "answers"])
def test_listings_that_are_seconds_old_are_refused_with_the_lag_that_was_measured(both: Both, side: str) -> None:
    fs = Cached(4.0, both.clock)
    both.answerer(fs if side == "answers" else None)
    found = both.ask(fs if side == "asks" else None)
    assert found is not None
    assert 2.0 < found.worst[0] < 9.0
    assert found.lags["rename"] == [], "that is enough"
    assert (
        found.why()
        == f"its listings lie: another process is shown a new file only after {found.worst[0] * 1000:.0f} ms"
    )


def test_what_is_a_little_late_is_measured_and_carries_a_bus(both: Both) -> None:
    both.answerer(Cached(0.5, both.clock))
    found = both.ask()
    assert found is not None
    assert found.why() == ""
    assert 0.4 < found.worst[0] < BOUND_S


def test_listings_that_never_come_are_found_out_in_time_if_it_is_known_that_somebody_answers(both: Both) -> None:
    fs = Cached(1800.0, both.clock)
    place = both.place(fs)
    place.names()  # Somebody has looked there before: the sign of who answers is not shown either.
    answerer = Answerer(both.place(), me="0123abcd")
    both.meanwhile.append(answerer.step)
    assert Asker(place).measure(3, 60.0) is None, "nobody can tell it from a folder where nobody answers"
    found = Asker(place, answerer="0123abcd").measure(3, 60.0)
    assert found is not None
    assert "was not shown a new file within 10.0 s" in found.why()
    began = both.clock.monotonic()
    found = Asker(place, answerer="0123abcd").measure(3, 2.0)
    assert found is not None
    assert "within 2.0 s" in found.why()
    assert both.clock.monotonic() - began < 3.0, "nobody waits longer than was said"
    answerer.step()
    answerer.close()
    assert both.names() == []


@pytest.mark.parametrize(
    ("what", "missed", "said"),
    [
        ("new", "rename", "shown the new name of a file within"),
        ("moved", "removal", "shown that a file is gone within"),
    ],
)
def test_a_listing_that_goes_on_to_show_what_is_gone_is_refused(both: Both, what: str, missed: str, said: str) -> None:
    answerer = both.answerer()
    found = both.ask(Keeping(what))
    assert found is not None
    assert (found.missed, said in found.why()) == (missed, True)
    answerer.step()
    answerer.close()
    assert both.names() == []


@pytest.mark.parametrize("side", ["asks", "answers"])
def test_a_file_that_is_shown_before_it_is_whole_is_refused(both: Both, side: str) -> None:
    both.answerer(Torn() if side == "answers" else None)
    found = both.ask(Torn() if side == "asks" else None)
    assert found is not None
    assert found.why() == "a file is seen before all of its bytes are there"


def test_one_that_answers_no_more_is_waited_for_no_longer_than_was_said(both: Both) -> None:
    answerer, killed = (Answerer(both.place(), me=word) for word in ("00000000", "ffffffff"))
    both.meanwhile.append(lambda: "-ask-2-moved" in str(both.names()) or answerer.step())
    both.meanwhile.append(lambda: killed.is_busy or killed.step())  # No more than that it is here.
    found = both.ask()
    assert found is not None
    assert (found.missed, len(found.lags["listing"])) == ("rename", 2)
    assert PATIENCE_S < both.clock.running < PATIENCE_S + 1
    assert both.names() == [path for path in both.names() if path.endswith("-answers")], "its answers are removed too"


def test_where_nobody_answers_it_waits_as_long_as_it_was_told_and_leaves_nothing(both: Both) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as gone:
        gone.wait()
    sign = both.folder / "probe-00000000-answers"
    sign.write_text(f"{gone.pid} 1 {os.uname().nodename}\n")  # Of one that was killed.
    answer = both.folder / "probe-00000001-00000000-here"  # Of the same, to another one.
    answer.write_text("x")
    assert both.ask(within_s=30.0) is None
    assert 30 < both.clock.running < 31
    assert both.names() == [sign.name, answer.name]


def test_two_that_ask_at_once_and_two_that_answer_are_in_nobodys_way(both: Both) -> None:
    answerers = [both.answerer(), both.answerer()]
    second = list[Measured | None]()

    def asks_too() -> None:
        both.meanwhile.remove(asks_too)
        second.append(both.ask())

    both.meanwhile.append(asks_too)
    for found in (both.ask(), *second):
        assert found is not None
        assert (found.why(), len(found.lags["removal"])) == ("", 3)
    assert len(second) == 1
    for answerer in answerers:
        answerer.step()
        assert len(answerer.served) == 2
        answerer.close()
    assert both.names() == []


def test_of_several_that_answer_the_one_is_asked_whose_word_is_given(both: Both) -> None:
    for word, fs in (("00000000", Fs()), ("ffffffff", Cached(1800, both.clock))):
        answerer = Answerer(both.place(fs), me=word)
        answerer.step()
        both.meanwhile.append(answerer.step)
    for word, missed in (("00000000", ""), ("ffffffff", "hello")):
        found = both.ask(answerer=word)
        assert found is not None
        assert found.missed == missed


def test_an_asker_that_goes_at_any_moment_is_no_trouble_for_who_answers(both: Both) -> None:
    answerer = both.answerer(Vanishing())
    found = both.ask()
    assert found is not None
    assert found.missed == "rename"
    answerer.step()
    assert len(answerer.served) == 1
    answerer.close()
    assert both.names() == []


def test_what_others_lay_there_is_answered_by_nobody_and_stays(both: Both) -> None:
    answerer = both.answerer()
    for name in ("probe-zz-hello", "probe-00000001-hello.json", "probe-00000002-ask-1-new"):
        (both.folder / name).write_text("{")
    (both.folder / "probe-00000003-hello").symlink_to("/etc/passwd")
    (both.folder / "probe-00000004-hello").mkdir()
    before = both.names()
    answerer.step()
    assert answerer.is_busy
    assert len(both.names()) == len(before) + 2, (
        "a name is all that an asker is known by; what it is, is never followed"
    )
    found = both.ask()
    assert found is not None
    assert found.why() == ""
    answerer.close()
    assert both.names() == [name for name in before if not name.endswith("-answers")]


def test_askers_of_other_hosts_that_were_killed_do_not_make_a_good_mount_lie(both: Both) -> None:
    for number in range(3 * MOST):
        (both.folder / f"probe-{number:08x}-hello").write_text("77 1 otherhost\n")
    answerer = both.answerer()
    answerer.step()
    answerer.step()
    assert sum(name.endswith("-here") for name in both.names()) == MOST
    found = both.ask(patience_s=3.0)
    assert found is not None
    assert (found.why(), len(found.lags["removal"])) == ("", 3)
    answerer.step()
    assert answerer.served == [os.uname().nodename]
    assert answerer.is_busy
    both.clock.advance(GONE_S + 1)
    answerer.step()
    answerer.step()
    assert not answerer.is_busy
    assert not [name for name in both.names() if name.endswith("-here")], "who is forgotten is not greeted again"
    assert len(answerer.served) == 1


@pytest.mark.parametrize("what", ["ans-1-new", "ans-1-moved", "ask-1-new", "ask-1-moved"])
def test_a_folder_with_the_name_of_a_file_is_told_as_that_and_stays(both: Both, what: str) -> None:
    answerer = both.answerer()
    asker = Asker(both.place())
    folder = both.folder / f"probe-{asker._me}-{answerer._me}-{what}"
    folder.mkdir()
    with pytest.raises(StoreUnavailable, match=f"there is a folder '{folder.name}'"):
        asker.measure(3, 60.0)
    (both.folder / f"probe-{answerer._me}-x").mkdir()
    answerer.step()
    found = both.ask()
    assert found is not None
    assert found.why() == "", "others are answered all the same"
    answerer.close()
    assert both.names() == sorted([folder.name, f"probe-{answerer._me}-x"])


def test_a_folder_in_place_of_a_greeting_is_in_nobodys_way(both: Both) -> None:
    answerer = both.answerer()
    asker = Asker(both.place())
    (both.folder / f"probe-{asker._me}-{answerer._me}-here").mkdir()
    found = asker.measure(3, 60.0)
    assert found is not None
    assert (found.why(), found.host) == ("", "?")
