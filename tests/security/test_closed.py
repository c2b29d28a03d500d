"""Files and folders whose mode keeps a user out: told, left where they are, and in nobody's way (rule F6)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import find, fsck
from mcp_bus.cli.main import main
from mcp_bus.clock import System
from mcp_bus.errors import InvalidRequest, StoreUnavailable, Unreadable
from mcp_bus.fsck import rights
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout, modes
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.tree import Tree
from tests.crash.victim import Steps, open_at
from tests.security.people import ALICE, BOB, GROUP, acting, filled, mended, needs_root, work, wrong

if TYPE_CHECKING:
    from mcp_bus.bus import Bus

pytestmark = needs_root
LATER = 120_000


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import now, as root, what other users could not find: Python itself may be where they may not go."""
    root = tmp_path_factory.mktemp("loaded") / "bus"
    layout.create(root)
    filled(root)
    mended(root)
    with acting(root, "ann") as bus:
        work(bus)
        sweep(bus)
    main(("--bus", str(root), "sweep"))


def ready(root: Path) -> list[Path]:
    return sorted((root / "channels" / "work" / "requests").iterdir())


def wrongs(root: Path) -> list[rights.Wrong]:
    tree = Tree(root, Fs(), System())
    try:
        return list(rights.wrong(tree, 10_000))
    finally:
        tree.close()


def passes_over(root: Path, closed: Path, owner: str) -> None:
    """Assert that a message that may not be read is told of, stays, and keeps nobody from the others."""
    with acting(root, "bob", LATER) as bus:
        assert work(bus) == ["task 1", "task 2"]
        (line,) = [line for line in sweep(bus) if line.startswith("left")]
        assert owner in line
        assert "`chmod" in line
        with pytest.raises(Unreadable, match="may not be read"):
            bus.get(closed.stem)
        assert bus.store.count("work")[State.READY] == 1
    assert closed.exists(), "it is not put aside"
    assert not any((root / "quarantine").iterdir())
    (found,) = {item.detail for item in fsck.check(root).anomalies if item.kind in ("mode", "others-mode")}
    assert owner in found
    assert {item.path.split("/")[0] for item in wrongs(root)} == {"tasks", "channels"}


def test_a_message_that_the_other_user_may_not_read_is_told_and_left_and_its_owner_mends_it(shared: Path) -> None:
    first = ready(shared)[0]
    ALICE.does(lambda: first.chmod(0o600))
    BOB.does(lambda: passes_over(shared, first, str(ALICE.uid)))

    def in_vain() -> None:
        report = mended(shared)
        assert report.worst is fsck.Level.PERSON
        assert "others-mode" in {item.kind for item in report.anomalies}, "bob does not own it"

    BOB.does(in_vain)
    ALICE.does(lambda: mended(shared))
    BOB.does(lambda: only(shared, ["task 0"]))
    assert wrong(shared, group=GROUP) == []


def only(root: Path, contents: list[str]) -> None:
    with acting(root, "bob") as bus:
        assert work(bus) == contents


def test_who_claims_is_told_who_keeps_them_out_and_nothing_else(shared: Path) -> None:
    def in_vain() -> None:
        with acting(shared, "bob") as bus:
            assert bus.claim() is None
            said = find.why_empty(bus, (), ())
            assert f"{ALICE.uid} owns it, mode 600: `chmod g+rw` lets the group in" in said
            assert "still being written" not in said

    for path in ready(shared):
        ALICE.does(lambda path=path: path.chmod(0o600))  # type: ignore[misc]  # mypy cannot infer it
    BOB.does(in_vain)


def test_a_message_that_even_its_owner_may_not_read_stays_in_a_private_bus_until_it_is_mended(place: Path) -> None:
    def act() -> None:
        root = place / "bus"
        layout.create(root, fs=Steps())
        filled(root)
        first = ready(root)[0]
        first.chmod(0)
        passes_over(root, first, str(ALICE.uid))
        assert mended(root).is_clean
        only(root, ["task 0"])

    ALICE.does(act)


def test_a_message_put_there_by_hand_waits_for_its_owner_where_others_may_read_it_but_not_link_it(shared: Path) -> None:
    if Path("/proc/sys/fs/protected_hardlinks").read_text("ascii").strip() != "1":
        pytest.skip("this kernel lets everyone link what they may read: fs.protected_hardlinks is 0")
    task = f"req_{'0' * 12}{'a' * 20}"
    named = {name: shared / "channels" / "work" / "requests" / name for name in (f"{task}.json", "by hand.json")}

    def drop() -> None:
        for number, path in enumerate(named.values()):
            body = {"id": task[:-1] + "ab"[number], "to": "work", "content": "by hand", "from": {"agent": "alice"}}
            path.write_text(json.dumps(body))

    def passed() -> None:
        with acting(shared, "bob", LATER) as bus:
            assert len(work(bus)) == 3
            left = [line for line in sweep(bus) if "left" in line]
            assert all(any(name in line or name[:-5] in line for line in left) for name in named), left

    ALICE.does(drop, 0o022)
    BOB.does(passed)
    assert all(path.exists() for path in named.values()), "neither was lost"

    def takes() -> None:
        with acting(shared, "alice", LATER) as bus:
            sweep(bus)
            assert work(bus) == ["by hand", "by hand"]

    ALICE.does(takes)


def test_a_result_and_a_record_that_may_not_be_read_are_left_to_their_writer(shared: Path) -> None:
    def leave() -> None:
        with acting(shared, "alice") as bus:
            bus.roster.arrive()
            task = bus.claim(["work"])
            assert task is not None
            (held,) = (shared / "channels" / "work" / "processing").iterdir()
            staged = shared / "staged" / (held.name.rsplit(".", 2)[0] + ".json")
            staged.write_text("{}")
            staged.chmod(0o600)
            for path in (shared / "agents").iterdir():
                path.chmod(0o600)

    def passed() -> None:
        before = sorted(shared.glob("agents/*")), sorted(shared.glob("staged/*"))
        with acting(shared, "bob", LATER) as bus:
            lines = sweep(bus)
            assert any("left the result" in line for line in lines), lines
            assert bus.roster.all() == []
        assert before == (sorted(shared.glob("agents/*")), sorted(shared.glob("staged/*")))
        assert not any((shared / "quarantine").iterdir())
        kinds = {item.kind for item in fsck.check(shared).anomalies}
        assert "record" not in kinds
        assert "others-mode" in kinds

    ALICE.does(leave)
    BOB.does(passed)


def test_a_closed_folder_and_a_result_that_may_not_be_linked_stop_no_other_thing(shared: Path) -> None:
    staged, inbox = shared / "staged", shared / "channels" / "work" / "requests"

    def leave() -> None:
        with open_at(shared, Steps(), agent="alice", durable=False) as bus:
            for task in [bus.claim(["work"]), bus.claim(["work"])]:
                assert task is not None
                with pytest.raises(ValueError, match="cut off"):
                    cut_off(bus, task)
        (inbox / "a folder").mkdir(mode=0o700)
        (inbox / "b.json").write_text("{")
        (inbox / "b.json").chmod(0o660)
        min(staged.iterdir()).chmod(0o640)

    def passed() -> None:
        with acting(shared, "bob", LATER) as bus:
            lines = sweep(bus)
            assert len([line for line in lines if line.startswith("published")]) == 1, lines
            assert len([line for line in lines if line.startswith("left a staged result")]) == 1, lines
            assert "quarantined 'b.json'" in lines
        assert (inbox / "a folder").is_dir()

    ALICE.does(leave, 0o077)
    BOB.does(passed)

    def finish() -> None:
        with acting(shared, "alice", LATER) as bus:
            sweep(bus)
            assert bus.store.count("work")[State.DONE] == 2

    ALICE.does(finish)
    assert list(staged.iterdir()) == []


def cut_off(bus: Bus, task: Any) -> None:
    """Finish a task, and be cut off once its result is staged."""

    def cut(*_: object, **__: object) -> bool:
        msg = "cut off"
        raise ValueError(msg)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcp_bus.stores.publish.fence", cut)
        bus.ack(task, "done")


def test_a_channel_that_is_closed_keeps_nobody_from_the_others_and_who_names_it_is_told_whose_it_is(
    shared: Path,
) -> None:
    def close() -> None:
        with acting(shared, "alice") as bus:
            bus.create_channel("closed")
        (shared / "channels" / "closed").chmod(0o700)

    def passed() -> None:
        with acting(shared, "bob", LATER) as bus:
            assert set(bus.store.channels()) == {"other", "work"}
            assert len(work(bus)) == 3
            sweep(bus)
            with pytest.raises(StoreUnavailable, match=f"'channels/closed.*{ALICE.uid} owns it, mode 700: `chmod"):
                bus.post("closed", "x")

    ALICE.does(close)
    BOB.does(passed)
    ALICE.does(lambda: only(shared, []))  # Who owns it mends it by opening it.
    assert wrong(shared, group=GROUP) == []


def test_init_shares_with_a_group_of_the_caller_alone_and_says_which_there_are(place: Path) -> None:
    def act() -> None:
        for name, why in (("71999", "is not in group"), ("no-such-group", "there is no group")):
            with pytest.raises(InvalidRequest, match=why) as refusal:
                modes.group_of(name)
            assert str(GROUP) in refusal.value.hint
        assert modes.group_of(str(GROUP)) == GROUP
        assert modes.group_of("") == os.getegid()
        layout.create(place / "own", fs=Steps())
        with pytest.raises(InvalidRequest, match="which is not shared"):
            layout.create(place / "own", group=GROUP)
        layout.create(place / "bus", group=GROUP)
        layout.create(place / "bus", group=GROUP)
        with pytest.raises(InvalidRequest, match="is missing"):
            layout.create(place / "deep" / "bus", group=GROUP)

    ALICE.does(act, 0o077)
    assert wrong(place / "bus", group=GROUP) == []
    with pytest.raises(InvalidRequest, match="theirs alone"):
        modes.group_of("")  # Root's, whose primary group has its name.


def test_a_private_bus_is_shared_by_what_the_refusal_says(place: Path) -> None:
    root = place / "bus"

    def act() -> None:
        layout.create(root, fs=Steps())
        filled(root)

    def share() -> None:
        for path in (root, *root.rglob("*")):
            os.chown(path, -1, GROUP)
        root.chmod(0o2770)
        assert {item.kind for item in fsck.check(root).anomalies} == {"mode"}
        assert mended(root).is_clean

    ALICE.does(act)
    ALICE.does(share)
    assert wrong(root, group=GROUP) == []
    BOB.does(lambda: only(root, ["task 0", "task 1", "task 2"]))


def test_the_command_line_makes_a_shared_bus_and_doctor_mends_it(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, group = place / "bus", str(GROUP)
    monkeypatch.setenv("MCP_BUS_DIR", str(root))
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    place.chmod(0o700)
    assert main(("init", "--group", group)) == 0
    said = capfd.readouterr().err
    assert f"shared with group {group}" in said
    assert f"cannot get there: {place} does not let it in" in said
    (root / "tasks").chmod(0o777)
    (root / "PROTOCOL.md").chmod(0o600)
    assert found(capfd, 0)["rights"]["said"].startswith("2 with a wrong mode, group or owner")
    assert found(capfd, 0, "--fix")["rights"]["said"] == f"shared with group {group}"
    assert wrong(root, group=GROUP) in ([], ["tasks: 2775 of group 71100"])


def test_a_shared_bus_is_private_again_once_what_others_own_is_chowned_and_fsck_and_doctor_agree(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setenv("MCP_BUS_DIR", str(shared))
    monkeypatch.setenv("HOME", str(shared.parent))

    def by_bob() -> None:
        with acting(shared, "bob") as bus:
            bus.post("work", "by bob")

    def agree(kinds: set[str], code: int) -> None:
        report = fsck.check(shared)
        assert {item.kind for item in report.anomalies} == kinds
        assert report.is_clean == (wrongs(shared) == [])
        assert main(("doctor", "-q")) == code

    BOB.does(by_bob)
    ALICE.does(lambda: shared.chmod(0o700))
    ALICE.does(lambda: agree({"owner"}, 6))
    for path in shared.rglob("*"):
        os.chown(path, ALICE.uid, -1)
    ALICE.does(lambda: agree(set(), 0))


def found(capfd: pytest.CaptureFixture[str], code: int, *words: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main(("doctor", "--json", *words)) == code
    return {item["about"]: item for item in json.loads(capfd.readouterr().out)["findings"]}
