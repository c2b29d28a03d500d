"""The token of the HTTP endpoint is made once, for its user alone, and nothing else is taken for one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import InvalidRequest, Untrusted
from mcp_bus.server import token

if TYPE_CHECKING:
    from pathlib import Path


def test_a_token_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "http-token"
    made = token.ensure(path)
    assert len(made) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.ensure(path) == made
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    other = tmp_path / "other"
    assert token.ensure(other) != made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o602, 0o610, 0o601])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text("a-token-of-some-length\n")
    path.chmod(mode)
    with pytest.raises(Untrusted, match="others than you"):
        token.ensure(path)


@pytest.mark.parametrize("text", ["", "short", "with blank in it, long", "ümlaut-ümlaut-ümlaut", "x" * 600, "a\nb" * 9])
def test_what_is_no_token_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidRequest, match="holds no token"):
        token.ensure(path)
    assert path.read_text() == text


def test_a_token_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a-token-of-some-length")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("link", "nowhere", "fifo", "folder", "real/below"):
        with pytest.raises(InvalidRequest, match="token file"):
            token.ensure(tmp_path / name)
    assert not (tmp_path / "missing").exists()


def test_a_token_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    token.ensure(path)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(Untrusted, match="others than you"):
        token.ensure(path)


def test_the_folders_above_a_token_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    made = token.ensure(tmp_path / "link" / "token")
    assert token.ensure(tmp_path / "link" / "below" / "token") != made
    assert (tmp_path / "real" / "below" / "token").is_file()
