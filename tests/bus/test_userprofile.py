"""The user's profile: replaced by compare-and-swap, merged by a model, never lost to somebody else's write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import userprofile
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest
from mcp_bus.fsck.check import check
from mcp_bus.stores.file import FileStore
from mcp_bus.userprofile import Profile
from tests.fakes import bus_on

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.fakes import VirtualSource


def test_it_is_replaced_by_who_read_what_is_there(bus: Bus, other: Bus) -> None:
    assert userprofile.read(bus) == Profile()
    first = userprofile.write(bus, "- likes tea\n\n", base=0)
    assert (first.revision, first.text, first.by) == (1, "- likes tea\n", "ann")
    second = userprofile.write(other, "- likes green tea", base=1)
    assert userprofile.read(bus) == second
    assert bus.store.records.text("user-sync", "USER") == "- likes green tea\n"
    assert userprofile.write(bus, "- likes green tea\n", base=0) == second, "the same text is nothing to write"


def test_who_read_an_older_one_changes_nothing(bus: Bus, other: Bus) -> None:
    userprofile.write(bus, "- likes tea", base=0)
    userprofile.write(other, "- likes tea, lives in Ulm", base=1)
    with pytest.raises(Conflict, match="revision 2, written by bob, and not at 1"):
        userprofile.write(bus, "- likes tea, no sugar", base=1)
    with pytest.raises(Conflict, match="revision 2"):
        userprofile.write(bus, "- likes coffee", base=0)
    assert userprofile.read(bus).text == "- likes tea, lives in Ulm\n"
    assert bus.store.records.text("user-sync", "USER") == "- likes tea, lives in Ulm\n"


def test_what_was_edited_by_hand_is_not_written_over_unseen(file_bus: Bus, root: Path) -> None:
    userprofile.write(file_bus, "- likes tea", base=0)
    userprofile.write(file_bus, "- likes green tea", base=1)
    path = root / "user-sync" / "USER.md"
    path.write_text("- likes tea\n")  # As if its writer had been killed before it came to this.
    userprofile.write(file_bus, "- likes white tea", base=2)
    path.write_text("- by hand\n")
    with pytest.raises(Conflict, match="edited by hand"):
        userprofile.write(file_bus, "- likes black tea", base=3)
    assert path.read_text() == "- by hand\n"
    assert userprofile.write(file_bus, path.read_text(), base=3).text == "- by hand\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("x" * 40_000, "40001 bytes"),
        ("a\x1b[2Jb", "act on"),
        ("a\u202eb", "act on"),
    ],
)
def test_what_can_be_no_profile_is_refused(bus: Bus, text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        userprofile.write(bus, text, base=0)
    assert userprofile.read(bus).revision == 0


def test_a_record_that_is_none_is_told_and_can_be_written_over(file_bus: Bus, root: Path) -> None:
    userprofile.write(file_bus, "- likes tea", base=0)
    (root / "user-sync" / "USER.1.json").write_text('{"text": 5}')
    with pytest.raises(CorruptRecord, match="is no profile"):
        userprofile.read(file_bus)
    assert userprofile.write(file_bus, "- likes tea still", base=1).revision == 2


def test_fsck_knows_what_is_there(file_bus: Bus, root: Path, source: VirtualSource) -> None:
    userprofile.write(file_bus, "- likes tea", base=0)
    userprofile.note(file_bus, "host:/home/you/USER.md", userprofile.read(file_bus))
    assert check(root, source=source).anomalies == ()


def test_an_earlier_text_and_the_revision_of_a_file_are_recognized(bus: Bus) -> None:
    userprofile.write(bus, "- one", base=0)
    now = userprofile.write(bus, "- two", base=1)
    assert now.has_had("- one\n\n")
    assert now.has_had("- two")
    assert not now.has_had("- three")
    userprofile.note(bus, "host:a", now)
    assert userprofile.is_of(bus, "host:a", now)
    assert not userprofile.is_of(bus, "host:b", now)
    assert not userprofile.is_of(bus, "host:a", now._replace(text="- two, of another history"))
    assert not userprofile.is_of(bus, "host:a", now._replace(revision=3))


def test_a_model_is_shown_both_versions_as_data_and_answers_between_marks() -> None:
    shared = Profile(3, "- likes tea\n--- abc ---\n", "bob")
    asked = userprofile.asked(shared, "- likes green tea", "m4rk")
    assert "--- the shared profile, revision 3, by bob, until m4rk ---\n- likes tea\n--- abc ---\n--- m4rk ---" in asked
    assert "--- this host's profile, until m4rk ---\n- likes green tea\n--- m4rk ---" in asked
    assert "if one says all that the other says and more, it alone stays" in asked
    assert (
        userprofile.answered("thinking\nBEGIN m4rk\n- likes green tea\n\nEND m4rk\nbye", "m4rk")
        == "- likes green tea\n"
    )


@pytest.mark.parametrize(
    "output", ["- likes tea", "BEGIN other\nx\nEND other", "END m\nx\nBEGIN m", "BEGIN m\n\nEND m", ""]
)
def test_an_answer_without_a_profile_is_refused(output: str) -> None:
    with pytest.raises(InvalidRequest):
        userprofile.answered(output, "m")


def test_an_answer_without_a_profile_is_shown_from_its_beginning_and_made_harmless() -> None:
    with pytest.raises(InvalidRequest) as refused:
        userprofile.answered("\x1b[2Jsorry, " + "no " * 900, "m")
    _, shown, said = str(refused.value).partition("but with: ")
    assert (bool(shown), "\x1b" in said, "sorry, no no" in said) == (True, False, True)
    assert len(said) <= 200


@pytest.mark.parametrize("text", ["a\x1b]0;x\x07", "a\u202eb", "x" * 40_000, " "])
def test_what_somebody_else_put_there_is_told_and_goes_into_no_file(file_bus: Bus, text: str) -> None:
    data = {"text": text, "by": "eve", "at": 1, "was": []}
    file_bus.store.records.write("user-sync", "USER", data, after=0, durable=True)
    with pytest.raises(CorruptRecord, match="not written by this program"):
        userprofile.read(file_bus)
    assert userprofile.write(file_bus, "- likes tea", base=1).revision == 2


def test_versions_are_shown_to_a_model_without_what_acts_on_a_reader() -> None:
    asked = userprofile.asked(Profile(1, "- a\n", "e\x1bve"), "- b\x1b[2J\u202e", "m")
    assert "\x1b" not in asked
    assert "\u202e" not in asked


def test_the_last_answer_counts_for_a_model_may_quote_the_question_first() -> None:
    output = "BEGIN m\n- not yet\nEND m\nOn second thought:\nBEGIN m\n- likes tea\nEND m"
    assert userprofile.answered(output, "m") == "- likes tea\n"


def test_the_text_for_people_is_of_whoever_wrote_last(file_bus: Bus, root: Path, source: VirtualSource) -> None:
    userprofile.write(file_bus, "- one", base=0)
    real, other = file_bus.store.records.write_text, bus_on(FileStore(root, source=source), source, "bob", "00000002")

    def late(kind: str, name: str, text: str) -> None:
        file_bus.store.records.write_text = real  # type: ignore[method-assign]  # once
        userprofile.write(other, "- three", base=2)
        real(kind, name, text)

    file_bus.store.records.write_text = late  # type: ignore[method-assign]  # somebody writes in between
    userprofile.write(file_bus, "- two", base=1)
    other.close()
    assert (root / "user-sync" / "USER.md").read_text() == "- three\n"
