"""A file system of a given size that only the calling process and its children see."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000


def mount_small(path: Path, size: int) -> None:
    """Mounts a tmpfs of `size` bytes on a directory. It is gone when the process ends.

    For a forked child: it moves the process into a mount namespace of its own. Needs root or
    user namespaces.

    Raises:
        OSError: The system allows neither.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _check(libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        # Without a mapping no file could be made. Groups are to be given up before theirs.
        for file, text in _mapping(user, group).items():
            Path("/proc/self", file).write_text(text)
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "make / private")
    options = f"size={size}".encode()
    _check(libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options), "mount tmpfs")


def _mapping(user: int, group: int) -> dict[str, str]:
    return {"uid_map": f"0 {user} 1", "setgroups": "deny", "gid_map": f"0 {group} 1"}


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
