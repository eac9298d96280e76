"""Takes from this process, for good, every system call that a tested program has no use for.

Invariant: after :func:`seal` the process can read and write the descriptors it has, compute, start threads and end. It
can open no file, start no program, reach no network, and signal nobody but itself. No privilege is needed for it, so it
works in a pod of the restricted profile. Answers on the volume are safe from it because ``open`` itself is gone.

The filter is a program of the kernel's classic BPF: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

from rft_trainer.sandbox.syscalls import CONDITIONAL, MACHINES, PATHS

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x00010000
_CLONE_NEW_ANYTHING = 0x7E020080
"""All flags of clone that make a namespace."""
_ALLOWED_ARGUMENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "socketpair": (0, (1,)),  # AF_UNIX, both ends are the program's own
    "prlimit64": (0, (0,)),  # its own limits, which it can only lower
    "fcntl": (1, (0, 1, 2, 3, 4, 1030, 1032, 1034)),  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, F(N)CLEX
    "prctl": (0, (15, 16)),  # PR_SET_NAME, PR_GET_NAME
}
"""By call: which argument, and its values."""


class SealError(OSError):
    """The kernel does not take the filter."""


def seal() -> None:
    """Apply the filter to this process and all its threads to come; raises :class:`SealError` when it cannot."""
    program = filter_program(platform.machine(), pid=os.getpid())
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, *arguments) != 0:
        raise SealError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    if (
        libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), head, ctypes.c_ulong(0), ctypes.c_ulong(0))
        != 0
    ):
        raise SealError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def filter_program(machine: str, *, pid: int) -> list[bytes]:
    """The filter's instructions for a machine; raises :class:`SealError` for one whose calls are not known."""
    if machine not in MACHINES:
        raise SealError(errno.ENOSYS, f"system calls of machine {machine!r} are not known; use {', '.join(MACHINES)}")
    it = MACHINES[machine]
    program = [
        _load(_ARCHITECTURE_OFFSET),
        _jump(_JUMP_IF_EQUAL, it.audit_arch, yes=1, no=0),
        _give(_KILL_PROCESS),
        _load(_NUMBER_OFFSET),
    ]
    for name, number in it.numbers.items():
        if name in PATHS:
            answer = [_give(_ERRNO | errno.ENOENT)]
        elif name in CONDITIONAL:
            answer = _conditional(name, pid=pid)
        else:
            answer = [_give(_ALLOW)]
        program += [_jump(_JUMP_IF_EQUAL, number, yes=0, no=len(answer)), *answer]
    return [*program, _give(_ERRNO | errno.EPERM)]


def _conditional(name: str, *, pid: int) -> list[bytes]:
    refuse = _give(_ERRNO | errno.EPERM)
    if name == "clone3":  # its flags lie in memory, where a filter cannot look; libc then takes clone
        return [_give(_ERRNO | errno.ENOSYS)]
    if name == "clone":
        return [
            _load(_argument(0)),
            _jump(_JUMP_IF_SET, _CLONE_NEW_ANYTHING, yes=2, no=0),
            _jump(_JUMP_IF_SET, _CLONE_THREAD, yes=0, no=1),
            _give(_ALLOW),
            refuse,
        ]
    if name == "tgkill":
        return _one_of(0, (pid,))
    return _one_of(*_ALLOWED_ARGUMENTS[name])


def _one_of(argument: int, values: Iterable[int]) -> list[bytes]:
    """Allow when the low word of an argument is one of these; the kernel ignores the high word of all of them."""
    checks = [step for value in values for step in (_jump(_JUMP_IF_EQUAL, value, yes=0, no=1), _give(_ALLOW))]
    return [_load(_argument(argument)), *checks, _give(_ERRNO | errno.EPERM)]


def _argument(index: int) -> int:
    """Where the low word of an argument is; both machines are little-endian."""
    return _ARGUMENTS_OFFSET + 8 * index


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", _LOAD_WORD, 0, 0, offset)


def _jump(kind: int, value: int, *, yes: int, no: int) -> bytes:
    return struct.pack("HBBI", kind, yes, no, value)


def _give(answer: int) -> bytes:
    return struct.pack("HBBI", _RETURN, 0, 0, answer)
