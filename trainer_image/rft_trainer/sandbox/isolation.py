"""What a process can do to shut itself in, beside the filter of system calls.

Invariant: limits are set before a line of the tested program is read. Namespaces are taken where the kernel gives
them, and reported; nothing relies on them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path

from rft_trainer.sandbox.limits import Limits

_NAMESPACES = {"network": 0x40000000, "ipc": 0x08000000, "pid": 0x20000000, "uts": 0x04000000}
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_CAPSET_VERSION = 0x20080522
_SHARED_THREADS = 4_096
"""RLIMIT_NPROC counts all that a user id runs on the machine, in a pod also strangers' processes of the same id."""


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def enter_namespaces() -> tuple[str, ...]:
    """Leave the machine's network, processes and shared memory behind; returns what was given, or nothing.

    The process ids apply to the next child, which is process 1 of its own: when it ends, all below it end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    flags = sum(_NAMESPACES.values()) | (_CLONE_NEWUSER if uid else 0)
    if libc.unshare(ctypes.c_int(flags)) != 0:
        return ()
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text)
    return (*_NAMESPACES, *(("user",) if uid else ()))


def shut_in(limits: Limits, *, alone: bool, stranger: int) -> None:
    """Give up identity, privileges and resources.

    ``alone``: no other process has this user id here; ``stranger``: the user id to take in the place of root's.
    """
    os.setsid()
    _be_first_to_go()  # before the identity goes, and with it the right to write there
    was_root = os.geteuid() == 0
    if was_root:
        os.setgroups([])
        os.setresgid(stranger, stranger, stranger)
        os.setresuid(stranger, stranger, stranger)
    _drop_capabilities()
    die_with_parent()
    threads = limits.threads if alone or was_root else _SHARED_THREADS
    bounds = {
        resource.RLIMIT_AS: _address_space() + limits.memory_bytes,
        resource.RLIMIT_NPROC: threads,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        lower = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (lower, lower))
    # One second more for the hard bound, which ends even a program that ignores the signal of the soft one.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _drop_capabilities() -> None:
    """A user namespace gives its first process every capability within."""
    head = ctypes.create_string_buffer(struct.pack("Ii", _CAPSET_VERSION, 0))
    ctypes.CDLL(None).capset(head, ctypes.create_string_buffer(24))


def _be_first_to_go() -> None:
    """When memory runs out, the kernel ends this process and not the judge."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:  # a machine without /proc entries for it
        return
