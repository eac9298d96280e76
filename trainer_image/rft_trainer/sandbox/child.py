"""One sealed process and the judge's ends of its pipes.

Invariant: what it prints and sends is bounded while it is read; when :meth:`Child.end` returns it has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rft_trainer.errors import NurseryLostError, SandboxError
from rft_trainer.sandbox.limits import Limits

START_SECONDS = 120.0
END_SECONDS = 20.0
"""After a kill; longer means that the kernel cannot end the process."""
HANG_UP_SECONDS = 1.0
MEMORY_EXIT_CODE = 113
_CHUNK = 65_536
_MESSAGE_BYTES = 65_536


class Ending(StrEnum):
    """How a program ended."""

    DONE = "done"
    ERROR = "runtime error"
    TIME = "time limit"
    MEMORY = "memory limit"
    OUTPUT = "output limit"


@dataclass(frozen=True)
class Run:
    """What became of a program."""

    ending: Ending
    code: int
    """Exit code, or the negative number of the signal."""
    cpu_seconds: float
    stdout: bytes = b""
    stderr: str = ""


class Child:
    """One sealed process."""

    def __init__(self, control: socket.socket, limits: Limits, *, stranger: int) -> None:
        self._control, self._limits, self._stranger = control, limits, stranger
        self._deadline = time.monotonic() + limits.wall_seconds
        self._channel, self._far = socket.socketpair()
        self._outputs: dict[int, bytearray] = {}
        self._received = bytearray()
        self._started = False
        self._stopped_for: Ending | None = None
        self._usage: dict[str, Any] | None = None

    def start(self, role: str, stdin: bytes) -> None:
        """Have the nursery make the process; returns when it is sealed."""
        with contextlib.ExitStack() as theirs:
            theirs.enter_context(self._far)
            given = [_input_file(stdin)]
            theirs.callback(os.close, given[0])
            for _ in ("stdout", "stderr"):
                if role == "program":
                    reading, writing = os.pipe()
                    os.set_blocking(reading, False)
                    self._outputs[reading] = bytearray()
                else:
                    writing = os.open(os.devnull, os.O_WRONLY)
                theirs.callback(os.close, writing)
                given.append(writing)
            request = {"role": role, "limits": self._limits.to_json(), "stranger": self._stranger}
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [*given, self._far.fileno()])
            except OSError as error:
                raise NurseryLostError(f"sandbox: is gone ({error})") from error
            self._started = True
        self._channel.setblocking(False)
        self._deadline = time.monotonic() + START_SECONDS
        first = self.receive()
        self._deadline = time.monotonic() + self._limits.wall_seconds
        if first != {"sealed": True}:
            raise SandboxError(
                f"sandbox: a process cannot be sealed ({_unsealed(first)}); nothing is scored without. The kernel must "
                "allow seccomp filters (CONFIG_SECCOMP_FILTER), also in the pod's runtime"
            )

    def send(self, value: Any) -> None:
        """Send a message within the deadline."""
        data = json.dumps(value).encode() + b"\n"
        while data and self._usage is None:
            events = self._wait({self._channel.fileno(): select.POLLOUT})
            if events is None:
                return
            if self._channel.fileno() in events:
                try:
                    data = data[self._channel.send(data) :]
                except BlockingIOError:
                    continue
                except OSError:  # the process closed its end, or ended
                    return

    def receive(self) -> Any | None:
        """The next message, or None when the process ended, ran out of a limit or wrote what is none."""
        while b"\n" not in self._received:
            if len(self._received) > self._limits.output_bytes:
                self._kill(Ending.OUTPUT)
                return None
            events = self._wait({self._channel.fileno(): select.POLLIN})
            if events is None:
                return None
            data = self._read_channel()
            if data == b"" or (data is None and self._usage is not None):
                return None
            self._received += data or b""
        line, _, self._received = self._received.partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return None

    def _read_channel(self) -> bytes | None:
        try:
            return self._channel.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def collect_after_hang_up(self) -> Run:
        """The same for a process that said no more, and should end by itself at once."""
        self._deadline = min(self._deadline, time.monotonic() + HANG_UP_SECONDS)
        return self.collect(late=Ending.ERROR)

    def collect(self, *, late: Ending = Ending.TIME) -> Run:
        """Wait for the end of the process, reading what it prints."""
        while self._usage is None and self._wait({}, late=late) is not None:
            pass
        self.end()
        for descriptor in self._outputs:
            self._read(descriptor)
        usage = self._usage
        assert usage is not None
        stdout, stderr = (*(bytes(each) for each in self._outputs.values()), b"", b"")[:2]
        ending = self._stopped_for or self._judged(usage)
        return Run(
            ending, int(usage["code"]), float(usage["cpu_seconds"]), stdout, stderr.decode(errors="replace")[-2_000:]
        )

    def _judged(self, usage: dict[str, Any]) -> Ending:
        code = int(usage["code"])
        if any(len(each) > self._limits.output_bytes for each in self._outputs.values()):
            return Ending.OUTPUT
        if code == 0:
            return Ending.DONE
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and usage["cpu_seconds"] >= self._limits.cpu_seconds):
            return Ending.TIME
        if code == -signal.SIGKILL:  # a program cannot do that to itself: the kernel took memory that the pod lacks
            raise NurseryLostError("sandbox: a program was ended from outside; is the pod's memory limit too low?")
        return Ending.MEMORY if code == MEMORY_EXIT_CODE else Ending.ERROR

    def _wait(self, wanted: dict[int, int], *, late: Ending = Ending.TIME) -> set[int] | None:
        """Poll once, taking output and the end of the process on the way; None when time or output is used up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._kill(late)
            return None
        watched = select.poll()
        watched.register(self._control, select.POLLIN)
        for descriptor in self._outputs:
            watched.register(descriptor, select.POLLIN)
        for descriptor, events in wanted.items():
            watched.register(descriptor, events)
        ready = {descriptor for descriptor, _ in watched.poll(min(left, 60.0) * 1000)}
        for descriptor in ready & self._outputs.keys():
            if not self._read(descriptor):
                self._kill(Ending.OUTPUT)
                return None
        if self._control.fileno() in ready:
            self._take_end()
        return ready

    def _read(self, descriptor: int) -> bool:
        """Take what is there; False when it is more than allowed."""
        taken = self._outputs[descriptor]
        while len(taken) <= self._limits.output_bytes:
            try:
                data = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return True
            taken += data
        return False

    def _take_end(self) -> None:
        try:
            data = self._control.recv(_MESSAGE_BYTES)
        except OSError as error:
            raise NurseryLostError(f"sandbox: is gone ({error})") from error
        if not data:
            raise NurseryLostError("sandbox: its nursery was ended from outside; is the pod's memory limit too low?")
        self._usage = json.loads(data)

    def _kill(self, why: Ending) -> None:
        if self._usage is None and self._stopped_for is None:
            self._stopped_for = why
        self.end()

    def end(self) -> None:
        """Kill the process if it still runs, and wait for its end."""
        if self._usage is not None or not self._started:
            return
        try:
            self._control.send(b'{"end": true}')
            watched = select.poll()
            watched.register(self._control, select.POLLIN)
            if not watched.poll(END_SECONDS * 1000):
                raise NurseryLostError(f"sandbox: a process could not be ended within {END_SECONDS:.0f} s")
        except OSError as error:
            raise NurseryLostError(f"sandbox: is gone ({error})") from error
        self._take_end()

    def close(self) -> None:
        """Close our ends."""
        self._channel.close()
        self._far.close()
        for descriptor in self._outputs:
            os.close(descriptor)
        self._outputs = {}


def _input_file(data: bytes) -> int:
    """The input as a file that cannot be changed: programs ask its size, and it never makes a writer wait."""
    descriptor = os.memfd_create("input", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _unsealed(message: Any) -> str:
    return str(message.get("unsealed")) if isinstance(message, dict) else "it said nothing"
