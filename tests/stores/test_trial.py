"""A mount that nobody knows is tried by two processes before a bus is made on it, and a refusal leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.clock import System
from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores import layout, probe, trial
from mcp_bus.stores.fsops import Fs
from mcp_bus.stores.visibility import Asker, Measured, Place
from tests.stores.test_visibility import Cached

if TYPE_CHECKING:
    from pathlib import Path


def here(folder: Path, fs: Fs | None = None) -> Measured:
    fs = fs or Fs()
    at = fs.open_dir(str(folder), None)
    try:
        return trial.between_processes(folder, Place(fs, at, System()))
    finally:
        fs.close_dir(at)


def test_two_processes_of_this_host_see_each_other_on_an_honest_disk(tmp_path: Path) -> None:
    found = here(tmp_path)
    assert found.why() == ""
    assert len(found.lags["removal"]) == trial.ROUNDS
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_that_is_killed_half_way_is_told_as_that_and_not_as_a_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[Any]()

    class Child(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def killed(self: Asker, pair: str, number: int, so_far: Measured) -> Measured:
        if number == 2:
            started[0].kill()
            started[0].wait()
        return real(self, pair, number, so_far)

    real = Asker._round
    monkeypatch.setattr("mcp_bus.stores.trial.subprocess.Popen", Child)
    monkeypatch.setattr(Asker, "_round", killed)
    with pytest.raises(StoreUnavailable, match="has ended, exit code -9"):
        here(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("was", ["missing", "empty"])
def test_init_on_a_mount_that_nobody_knows_is_refused_if_it_lies_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str
) -> None:
    monkeypatch.setattr(probe, "kind_of", lambda *_: "lyingfs")
    monkeypatch.setattr(trial, "PATIENCE_S", 0.2)
    if was == "empty":
        (tmp_path / "bus").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreUnavailable, match=r"is on lyingfs, .*another process was not shown a new file") as refused:
        layout.create(tmp_path / "bus", fs=Cached(1800, System()))
    assert "`--bus git+REMOTE`" in refused.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_where_no_second_process_can_be_started_that_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "kind_of", lambda *_: "nfs")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(StoreUnavailable, match=r"no second process could be started .*: No such file"):
        layout.create(tmp_path / "new" / "bus")
    assert list(tmp_path.iterdir()) == []


def test_init_tries_only_what_its_name_does_not_tell_and_only_before_there_is_a_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[str]()

    def look(tree: Any) -> str:
        tried.append(tree.root.name)
        return ""

    for kind in ("nfs", "unknown", "ext4", "tmpfs"):
        monkeypatch.setattr(probe, "kind_of", lambda *_, kind=kind: kind)
        for _ in range(2):
            layout.create(tmp_path / kind, look=look)
    assert tried == ["nfs", "unknown"]
