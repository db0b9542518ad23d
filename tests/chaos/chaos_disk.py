"""A small disk for PostgreSQL: a file system of its own that can be made full and free again.

It is a tmpfs in a mount namespace of this process and its children, so that nobody else sees it and it is gone with
them, also after a `kill -9`. Root may mount there; others may in a user namespace of their own, where the machine lets
them. Full means full: the file system is made as small as what is on it (mount(8), tmpfs: size= can be changed).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of linux/sched.h
REMOUNT, RECURSIVE, PRIVATE = 0x20, 0x4000, 0x40000  # MS_REMOUNT, MS_REC, MS_PRIVATE of sys/mount.h
DETACH = 2  # MNT_DETACH of sys/mount.h
SIZE = 4 * 1024**3
"""The most that may be on it; only what is there takes memory."""


def enter_namespace() -> str | None:
    """Gives this process mounts of its own; why that is not possible here, or None. To be called before any thread."""
    if sys.platform != "linux":
        return "only Linux has mount namespaces"
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS | (NEW_USERS if user else 0)):
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None):
        return f"the mounts can't be made private: {os.strerror(ctypes.get_errno())}"
    return None


class SmallDisk:
    """The file system at a directory; `full` and `free` take effect at once for whoever writes there."""

    def __init__(self, at: Path) -> None:
        """Mounts it; raises OSError."""
        at.mkdir()
        self._at = at
        self._mount(0, SIZE)
        at.chmod(0o711)

    def full(self) -> None:
        """No space is left, to the page."""
        found = os.statvfs(self._at)
        self._mount(REMOUNT, (found.f_blocks - found.f_bfree) * found.f_frsize)

    def free(self) -> None:
        """There is space again."""
        self._mount(REMOUNT, SIZE)

    def close(self) -> None:
        """Takes it away, with what is on it."""
        ctypes.CDLL(None).umount2(os.fsencode(self._at), DETACH)

    def _mount(self, flags: int, size: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"farebox", os.fsencode(self._at), b"tmpfs", flags, f"size={size}".encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self._at))
