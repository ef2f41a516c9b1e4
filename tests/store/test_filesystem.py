"""Where a database lies, by the kernel's list of mounts: lines as NFS, CIFS and FUSE really write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from batchopt.store.filesystem import network_filesystem

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
58 22 0:51 / /home rw,relatime shared:30 - nfs4 server:/export/home rw,vers=4.2,rsize=1048576,hard,proto=tcp
59 58 254:16 / /home/local rw,relatime - xfs /dev/vdb rw
60 22 0:52 / /mnt/my\\040share rw,relatime shared:31 - cifs //server/share rw,vers=3.1.1
61 22 0:53 / /mnt/ssh rw,nosuid,nodev,relatime shared:32 - fuse.sshfs user@server: rw,user_id=0
62 22 0:54 / /mnt/overlay rw - overlay overlay rw
63 22 0:55 / /mnt/twice rw - nfs server:/a rw
64 22 0:56 / /mnt/twice rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/studies.db", ""),
        ("/home/user/studies.db", "nfs4"),
        ("/home/local/studies.db", ""),
        ("/homestead/studies.db", ""),
        ("/mnt/my share/studies.db", "cifs"),
        ("/mnt/ssh/a/b/studies.db", "fuse.sshfs"),
        ("/mnt/overlay/studies.db", ""),
        ("/mnt/twice/studies.db", ""),
    ],
)
def test_the_deepest_mount_says_what_a_file_lies_on(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_filesystem(Path(path), mounts) == kind


def test_this_machines_own_disks_are_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path / "studies.db") == ""
    assert network_filesystem(tmp_path / "studies.db", tmp_path / "no such list") == ""


def test_on_a_network_file_system_there_is_no_write_ahead_log_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real database in a real file; the kernel's list says that its folder is an NFS mount."""
    from batchopt.store import database, filesystem

    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"{MOUNTS}70 22 0:60 / {tmp_path} rw - nfs4 server:/export rw\n")
    read = filesystem.network_filesystem
    monkeypatch.setattr(database, "network_filesystem", lambda path: read(path, mounts))
    opened = database.open_database(str(tmp_path / "studies.db"), create=True)
    assert "network file system (nfs4)" in opened.warning
    assert "\n" not in opened.warning
    with opened.db.connect() as connection:
        assert connection.execute(sa.text("pragma journal_mode")).scalar() == "delete"
    opened.db.dispose()
