"""Numbers of the system calls that a tested program may make, by machine.

Why a list of what is allowed: a call that nobody thought of is refused, not let through. Numbers are those of Linux'
``asm/unistd_64.h`` and ``asm-generic/unistd.h``; a call that a machine does not have is absent.
"""

from __future__ import annotations

from dataclasses import dataclass

_X86_64 = """
    read=0 write=1 readv=19 writev=20 pread64=17 close=3 fstat=5 lseek=8 mmap=9 mprotect=10 munmap=11 mremap=25 brk=12
    madvise=28 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 rt_sigsuspend=130 rt_sigpending=127 rt_sigtimedwait=128
    sigaltstack=131 pause=34 alarm=37 setitimer=38 getitimer=36 dup=32 dup2=33 dup3=292 pipe=22 pipe2=293 poll=7
    ppoll=271 select=23 pselect6=270 epoll_create=213 epoll_create1=291 epoll_ctl=233 epoll_wait=232 epoll_pwait=281
    eventfd2=290 sched_yield=24 sched_getaffinity=204 sched_getparam=143 sched_getscheduler=145 nanosleep=35
    clock_nanosleep=230 clock_gettime=228 clock_getres=229 gettimeofday=96 time=201 times=100 getrusage=98 sysinfo=99
    uname=63 getpid=39 gettid=186 getppid=110 getuid=102 geteuid=107 getgid=104 getegid=108 getpgrp=111 getpgid=121
    getsid=124 getgroups=115 getcwd=79 umask=95 getrlimit=97 setrlimit=160 futex=202 set_robust_list=273
    get_robust_list=274 rseq=334 set_tid_address=218 arch_prctl=158 membarrier=324 exit=60 exit_group=231 wait4=61
    restart_syscall=219 getrandom=318
    clone=56 clone3=435 tgkill=234 prlimit64=302 socketpair=53 fcntl=72 ioctl=16 prctl=157 newfstatat=262 statx=332
    open=2 openat=257 openat2=437 stat=4 lstat=6 access=21 faccessat=269 faccessat2=439 readlink=89 readlinkat=267
    chdir=80 mkdir=83 mkdirat=258 unlink=87 unlinkat=263 rename=82 renameat=264 renameat2=316
"""
_AARCH64 = """
    read=63 write=64 readv=65 writev=66 pread64=67 close=57 fstat=80 lseek=62 mmap=222 mprotect=226 munmap=215
    mremap=216 brk=214 madvise=233 rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139 rt_sigsuspend=133
    rt_sigpending=136 rt_sigtimedwait=137 sigaltstack=132 setitimer=103 getitimer=102 dup=23 dup3=24 pipe2=59 ppoll=73
    pselect6=72 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 eventfd2=19 sched_yield=124 sched_getaffinity=123
    sched_getparam=121 sched_getscheduler=120 nanosleep=101 clock_nanosleep=115 clock_gettime=113 clock_getres=114
    gettimeofday=169 times=153 getrusage=165 sysinfo=179 uname=160 getpid=172 gettid=178 getppid=173 getuid=174
    geteuid=175 getgid=176 getegid=177 getpgid=155 getsid=156 getgroups=158 getcwd=17 umask=166 getrlimit=163
    setrlimit=164 futex=98 set_robust_list=99 get_robust_list=100 rseq=293 set_tid_address=96 membarrier=283 exit=93
    exit_group=94 wait4=260 restart_syscall=128 getrandom=278
    clone=220 clone3=435 tgkill=131 prlimit64=261 socketpair=199 fcntl=25 ioctl=29 prctl=167 newfstatat=79 statx=291
    openat=56 openat2=437 faccessat=48 faccessat2=439 readlinkat=78
    chdir=49 mkdirat=34 unlinkat=35 renameat=38 renameat2=276
"""
CONDITIONAL = frozenset({"clone", "clone3", "tgkill", "prlimit64", "socketpair", "fcntl", "ioctl", "prctl"})
"""Allowed with some arguments only, or answered with an error of their own."""
PATHS = frozenset(
    {
        *(
            "newfstatat",
            "statx",
        ),  # also of a descriptor, for whose sake they take an empty name: a filter sees no names
        *("open", "openat", "openat2", "stat", "lstat", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
        *("chdir", "mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2"),
    }
)
"""Answered as if no file existed."""


@dataclass(frozen=True)
class Machine:
    """A machine's word for itself in a filter, and its numbers."""

    audit_arch: int
    numbers: dict[str, int]


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (each.split("=") for each in text.split())}


MACHINES = {
    "x86_64": Machine(0xC000003E, _numbers(_X86_64)),
    "aarch64": Machine(0xC00000B7, _numbers(_AARCH64)),
}
"""By ``os.uname().machine``."""
