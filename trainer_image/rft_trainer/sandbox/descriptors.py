"""Gives a sealed program the size and kind of the descriptors it has.

Why: glibc may ask for them by ``newfstatat`` with an empty name. A filter has to refuse that call whole, for it cannot
see that the name is empty. Python's own ``os.fstat`` and ``mmap`` fail then, and programs use both to read
their input. Invariant: what is asked for here is a descriptor, never a name.

The kernel's layouts: arch/x86/include/uapi/asm/stat.h and include/uapi/asm-generic/stat.h.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from typing import Any

from rft_trainer.sandbox.syscalls import MACHINES

_TIMES = ("atime", "atime_nanoseconds", "mtime", "mtime_nanoseconds", "ctime", "ctime_nanoseconds")
_LAYOUTS: dict[str, tuple[struct.Struct, tuple[str, ...]]] = {
    "x86_64": (
        struct.Struct("<QQQIII4xQqqq6q24x"),
        ("dev", "ino", "nlink", "mode", "uid", "gid", "rdev", "size", "blksize", "blocks", *_TIMES),
    ),
    "aarch64": (
        struct.Struct("<QQIIIIQ8xqi4xq6q8x"),
        ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", *_TIMES),
    ),
}
"""By machine: the kernel's ``struct stat``."""
_BILLION = 1_000_000_000


def know_descriptors() -> None:
    """Have this process's ``os.fstat``, ``os.stat`` and ``mmap`` ask the kernel by the call that takes no name."""
    machine = platform.machine()
    if machine not in _LAYOUTS:  # nothing is sealed there
        return
    layout, fields = _LAYOUTS[machine]
    number = MACHINES[machine].numbers["fstat"]
    libc = ctypes.CDLL(None, use_errno=True)
    of_names = os.stat

    def fstat(fd: int) -> os.stat_result:
        """As ``os.fstat``."""
        content = ctypes.create_string_buffer(layout.size)
        if libc.syscall(ctypes.c_long(number), ctypes.c_int(fd), content) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return stat_result(dict(zip(fields, layout.unpack(content.raw), strict=True)))

    def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        """As ``os.stat``."""
        if isinstance(path, int):
            return fstat(path)
        return of_names(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    class WholeFile(mmap.mmap):
        """A map whose length 0 stands for the whole file."""

        def __new__(cls, fileno: int, length: int, *arguments: Any, **named: Any) -> WholeFile:
            if length == 0 and fileno != -1:
                length = fstat(fileno).st_size - int(named.get("offset", 0))
                if length <= 0:
                    raise ValueError("cannot mmap an empty file")
            return super().__new__(cls, fileno, length, *arguments, **named)

    WholeFile.__name__ = WholeFile.__qualname__ = "mmap"
    os.fstat, os.stat = fstat, stat
    mmap.mmap = WholeFile  # type: ignore[misc]


def stat_result(it: dict[str, int]) -> os.stat_result:
    """Python's form of it."""
    seconds = [it["atime"], it["mtime"], it["ctime"]]
    nanoseconds = [it[name] * _BILLION + it[f"{name}_nanoseconds"] for name in ("atime", "mtime", "ctime")]
    names = ("mode", "ino", "dev", "nlink", "uid", "gid", "size")
    return os.stat_result(
        (
            *(it[name] for name in names),
            *seconds,
            *(each / _BILLION for each in nanoseconds),
            *nanoseconds,
            it["blksize"],
            it["blocks"],
            it["rdev"],
        )
    )
