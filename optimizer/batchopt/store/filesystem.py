"""Where a database file lies: SQLite's log needs memory that all its processes share; and what is no file at all."""

from __future__ import annotations

import re
import stat
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

NETWORK_FILESYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|ncpfs|coda|ocfs2|gfs2?|virtiofs|"
    r"fuse\.(sshfs|s3fs|gcsfuse|glusterfs|ceph\S*|rclone|davfs2?|juicefs|goofys|blobfuse2?|mount-s3)"
)
"""As the kernel names them."""

SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def special_file(path: Path) -> str:
    """What a path names that is neither a file nor a folder, and may be waited for for ever; empty where it is none."""
    try:
        return SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError:
        return ""


def network_filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of network file system on which a file lies, or will lie; empty where it is a local one.

    Args:
        path: the file; it need not be there yet.
        mounts: the kernel's list of mounts; where there is none, every file counts as local.

    Source: proc_pid_mountinfo(5).
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    where, found, deepest = path.resolve(), "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # Blanks in a path are written as \\040.
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        # Of two mounts on one point, the later one hides the earlier.
        if (point == where or point in where.parents) and len(point.parts) >= deepest:
            found, deepest = after.split()[0], len(point.parts)
    return found if NETWORK_FILESYSTEMS.fullmatch(found) else ""
