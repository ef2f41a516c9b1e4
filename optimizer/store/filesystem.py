"""Where a database file lies: SQLite's write-ahead log needs memory that all its processes share."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

NETWORK_FILESYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|ncpfs|coda|ocfs2|gfs2?|virtiofs|"
    r"fuse\.(sshfs|s3fs|gcsfuse|glusterfs|ceph\S*|rclone|davfs2?|juicefs|goofys|blobfuse2?|mount-s3)"
)
"""As the kernel names them."""


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
