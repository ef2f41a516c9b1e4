"""Who holds a lease: a process, named so that its death can be seen from the same machine."""

from __future__ import annotations

import os
import secrets
import socket
import uuid
from pathlib import Path

import psutil


def place() -> str:
    """This running system as processes see it: two with the same name see each other's process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        # Two machines may have one name, and not one address.
        return f"{socket.gethostname()}-{uuid.getnode():x}"
    return f"{socket.gethostname()}-{boot}-{namespace}"


def new_owner() -> str:
    """A name for this process as an owner of leases, unlike any before."""
    return f"{place()}:{os.getpid()}:{secrets.token_hex(4)}"


def is_dead(owner: str) -> bool:
    """Whether an owner was a process of this system and is gone; False where that cannot be seen from here."""
    where, _, rest = owner.partition(":")
    number = rest.partition(":")[0]
    return where == place() and number.isdigit() and not _runs(int(number))


def _runs(pid: int) -> bool:
    try:
        # It may be there, and hidden from us, where another user's processes are (`hidepid`).
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        # Where nobody reaps the dead, as in a container without an init, they keep their numbers.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
