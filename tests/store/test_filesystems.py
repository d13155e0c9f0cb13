"""A disk of our own is told from what lists as it likes; when in doubt, it is not ours."""

import sys
from pathlib import Path

import pytest

from mcp_backup.store import filesystems
from mcp_backup.store.filesystems import filesystem_of, is_own_disk

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /mnt rw - nfs4 nas:/export rw,vers=4.2
31 30 8:2 / /mnt/disk rw shared:7 master:2 - xfs /dev/sdb rw
32 22 0:41 / /media/my\\040share rw - cifs //nas/share rw
33 22 0:42 / /over rw - ext4 /dev/sdc rw
34 33 0:43 / /over rw - fuse.sshfs nas: rw
35 22 0:44 / /var/lib/app rw - overlay overlay rw,lowerdir=/a
a line that says nothing
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4"),
        ("/home/ann/backups", "ext4"),
        ("/mnt", "nfs4"),
        ("/mnt/backups", "nfs4"),
        ("/mnt/disk/backups", "xfs"),
        ("/mnt/disks", "nfs4"),
        ("/mntx", "ext4"),
        ("/media/my share/backups", "cifs"),
        ("/over/backups", "fuse.sshfs"),
        ("/var/lib/app/backups", "overlay"),
    ],
)
def test_the_mount_that_is_deepest_and_last_counts(path: str, expected: str) -> None:
    assert filesystem_of(path, MOUNTS) == expected


def test_nothing_is_known_of_a_table_without_mounts() -> None:
    assert filesystem_of("/home", "") == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("home", True), ("mnt/backups", False), ("var/lib/app", False), ("link", False)],
)
def test_only_known_disks_are_ours_and_links_are_followed(
    path: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path.resolve())
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"1 1 0:1 / {root}{line}" for line in _below_root()))
    monkeypatch.setattr(filesystems, "_MOUNTS", table)
    (tmp_path / "link").symlink_to(tmp_path / "mnt")
    assert is_own_disk(tmp_path / path) is expected


def _below_root() -> list[str]:
    return [
        " rw - ext4 /dev/sda1 rw\n",
        "/mnt rw - nfs4 nas:/ rw\n",
        "/var/lib/app rw - overlay o rw\n",
    ]


def test_where_the_system_tells_nothing_no_disk_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "_MOUNTS", tmp_path / "missing")
    assert not is_own_disk(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="procfs is Linux's")
def test_procfs_is_not_a_disk() -> None:
    assert not is_own_disk(Path("/proc/self"))
