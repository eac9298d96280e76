"""Makes the processes that tested programs run in, one at a time: ``python -m rft_trainer.sandbox.nursery``.

Why: a Python that has loaded what programs import is forked in milliseconds, and a sealed process can load nothing any
more. Invariants: nothing of a program, its input or its test ever passes through this process, so nothing of it can be
left in the memory of the next one; a child is sealed before it is given a line of code, and none outlives this process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from rft_trainer.sandbox import harness
from rft_trainer.sandbox.descriptors import know_descriptors
from rft_trainer.sandbox.isolation import die_with_parent, enter_namespaces, shut_in
from rft_trainer.sandbox.limits import Limits
from rft_trainer.sandbox.modules import MODULES
from rft_trainer.sandbox.seccomp import SealError, seal

MESSAGE_BYTES = 4_096
_ROLES = {"program": harness.run_program, "function": harness.serve_function, "examiner": harness.examine}
_DESCRIPTORS = 4
"""Standard input, output, error, and the channel to the judge."""


def main() -> int:
    """Serve the judge at the other end of standard input, which is a socket, until it hangs up."""
    die_with_parent()
    os.environ.pop("PYTHONPATH", None)
    namespaces = enter_namespaces()
    if namespaces:
        inner = os.fork()
        if inner:
            os.close(0)
            return os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        die_with_parent()
    control = socket.socket(fileno=os.dup(0))
    missing = _load()
    control.send(json.dumps({"namespaces": namespaces, "missing": missing, "python": sys.version.split()[0]}).encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, _DESCRIPTORS)
        if not data:
            return 0
        request = json.loads(data)
        if "role" in request:
            _serve(control, request, descriptors, alone="user" in namespaces)


def _load() -> list[str]:
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    gc.collect()
    gc.freeze()  # a child's collector then leaves these pages shared
    return missing


def _serve(control: socket.socket, request: dict[str, Any], descriptors: list[int], *, alone: bool) -> None:
    """Run one child to its end and say how it ended."""
    pid = os.fork()
    if pid == 0:
        _child(request, descriptors, alone=alone)
    for descriptor in descriptors:
        os.close(descriptor)
    watched = select.poll()
    ended = os.pidfd_open(pid)
    watched.register(ended, select.POLLIN)
    watched.register(control, select.POLLIN)
    try:
        while ended not in dict(watched.poll()):
            gone = not control.recv(MESSAGE_BYTES)  # the judge's only word meanwhile is to end it
            signal.pidfd_send_signal(ended, signal.SIGKILL)
            if gone:
                sys.exit(0)
    finally:
        os.close(ended)
    _, status, usage = os.wait4(pid, 0)
    seconds = usage.ru_utime + usage.ru_stime
    answer = {"code": os.waitstatus_to_exitcode(status), "cpu_seconds": seconds, "peak_kibibytes": usage.ru_maxrss}
    control.send(json.dumps(answer).encode())


def _child(
    request: dict[str, Any], descriptors: list[int], *, alone: bool, leave: Callable[[int], Any] = os._exit
) -> None:
    """Never returns; ``leave`` is kept from before the program could put something else in its place."""
    code = 1
    try:
        _take_descriptors(descriptors)
        lines = harness.Lines(harness.CHANNEL)
        try:
            shut_in(Limits(**request["limits"]), alone=alone, stranger=int(request["stranger"]))
            harness.fresh_streams()
            know_descriptors()
            seal()
        except (SealError, OSError, ValueError) as error:
            lines.write({"unsealed": f"{type(error).__name__}: {error}"})
        else:
            lines.write({"sealed": True})
            code = _ROLES[request["role"]](lines)
    except MemoryError:
        code = harness.MEMORY_EXIT_CODE
    finally:
        with contextlib.suppress(Exception):
            leave(code)


def _take_descriptors(descriptors: list[int]) -> None:
    """Put them at 0 to 3 and close all others: the way to the judge's socket among them."""
    high = [os.dup2(each, 100 + index) for index, each in enumerate(descriptors)]
    for index, each in enumerate(high):
        os.dup2(each, index)
    os.closerange(_DESCRIPTORS, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 256))


if __name__ == "__main__":
    sys.exit(main())
