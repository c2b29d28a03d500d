"""A file system is judged by its name, as the mount table has it, and then by what it does."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from mcp_bus import config
from mcp_bus.errors import StoreUnavailable
from mcp_bus.stores import layout, probe
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "ext4": "good", "xfs": "good", "btrfs": "good", "apfs": "good", "overlay": "good", "zfs": "good",
    "tmpfs": "nothing on this bus survives", "ramfs": "nothing on this bus survives",
    "nfs": "experimental", "nfs4": "experimental",
    "exfat": "refused", "vfat": "refused", "msdos": "refused", "cifs": "refused", "smb3": "refused", "smbfs": "refused",
    "9p": "refused", "drvfs": "refused", "afs": "refused", "vboxsf": "refused",
    "fuse": "refused", "fuse.sshfs": "refused", "fuse.s3fs": "refused",
    "unknown": "never tested", "virtiofs": "never tested", "hpfs": "never tested",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_good_warned_about_or_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    verdict, word = probe.judge(kind), KINDS[kind]
    assert verdict.kind == kind
    if word == "refused":
        with pytest.raises(StoreUnavailable, match="cannot carry a bus") as refusal:
            verdict.check(tmp_path)
        assert "local disk" in refusal.value.hint
        assert "`--bus git+REMOTE`" in refusal.value.hint
        assert verdict.refusal in str(refusal.value)
    else:
        verdict.check(tmp_path)
        assert verdict.refusal == ""
        assert (verdict.warning == "") == (word == "good")
        assert word == "good" or word in verdict.warning


def mount(point: str, kind: str, *tags: str) -> str:
    return " ".join(["36 35 98:0 /", point, "rw,noatime", *tags, "-", kind, "/dev/root", "rw,errors=continue"])


MOUNTS = "\n".join(
    [
        mount("/", "ext4", "master:1"),
        mount("/net", "nfs4", "shared:1", "master:2"),
        mount("/net/deep", "xfs"),
        mount("/with\\040space", "fuse.sshfs"),
        mount("/with\\134back\\011slash", "cifs"),
        mount("/stack", "ext4"),
        mount("/stack", "tmpfs"),
        "",
        "nonsense - ",
        "too short",
    ]
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"), ("/x/y", "ext4"), ("/net", "nfs4"), ("/net/x", "nfs4"), ("/network", "ext4"),
        ("/net/deep/x", "xfs"),
        ("/with space/x", "fuse.sshfs"), ("/with", "ext4"), ("/with\\back\tslash/x", "cifs"), ("/stack/x", "tmpfs"),
    ],
)  # fmt: skip
def test_the_nearest_mount_counts_and_of_two_at_one_place_the_later(path: str, kind: str) -> None:
    from pathlib import PurePosixPath

    class Somewhere:
        def resolve(self) -> PurePosixPath:
            return PurePosixPath(path)

    assert probe.kind_of(Somewhere(), MOUNTS) == kind  # type: ignore[arg-type]  # only `resolve` is asked


def test_an_empty_mount_table_tells_nothing(tmp_path: Path) -> None:
    assert probe.kind_of(tmp_path, "") == "unknown"


def test_a_refused_file_system_is_refused_at_init_and_at_start_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.create(tmp_path / "old")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(probe, "kind_of", lambda *_: "exfat")
    for name in ("old", "new"):
        settings = config.load({"bus": tmp_path / name}, env={"HOME": str(tmp_path)}, cwd=tmp_path)
        with pytest.raises(StoreUnavailable, match="exfat"):
            config.open_from(settings, create=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["tmpfs", "nfs", "ext4"])
def test_memory_and_nfs_come_with_a_banner_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr(probe, "kind_of", lambda *_: kind)
    settings = config.load({"bus": tmp_path / "bus"}, env={"HOME": str(tmp_path)}, cwd=tmp_path)
    config.open_from(settings, create=True).close()
    said = capsys.readouterr()
    assert said.out == ""
    assert ("WARNING" in said.err) == (kind != "ext4")


class Without(Fs):
    """A file system that lacks something."""

    def __init__(self, lack: str) -> None:
        self.lack = lack

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        if self.lack == "links":
            raise OSError(errno.EPERM, "not permitted")
        try:
            super().link(src, src_at, dst, dst_at)
        except FileExistsError:
            if self.lack != "refusal":
                raise

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        if self.lack == "rename":
            super().link(src, src_at, dst, dst_at)
        else:
            super().rename(src, src_at, dst, dst_at)


@pytest.mark.parametrize(
    ("lack", "why"), [("links", "no hard links"), ("refusal", "name that is in use"), ("rename", "keeps its old name")]
)
def test_what_the_protocol_needs_is_tried(tmp_path: Path, lack: str, why: str) -> None:
    with pytest.raises(StoreUnavailable, match=why):
        layout.create(tmp_path / "bus", fs=Without(lack))
    assert not (tmp_path / "bus" / "bus.json").exists()
    layout.create(tmp_path / "bus")
    assert list((tmp_path / "bus" / "tmp").iterdir()) == []
