"""The judge's side: hands a program to a sealed process and takes what comes back, within bounds.

Invariant: no code is handed to a process before it has said that it is sealed; whatever happens, the process has ended
when a call returns; only the judge knows what was expected.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rft_trainer
from rft_trainer.errors import NurseryLostError, SandboxError
from rft_trainer.sandbox.child import START_SECONDS, Child, Ending, Run
from rft_trainer.sandbox.limits import Limits
from rft_trainer.sandbox.probe import PROBE

__all__ = ["Ending", "Report", "Run", "Sandbox", "Talk"]
STRANGER_UIDS = range(59_000, 60_000)
"""User ids that own nothing, for programs whose judge is root; each nursery has another."""
_MESSAGE_BYTES = 65_536
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": str(Path(rft_trainer.__file__).parents[1]),
    "LANG": "C.UTF-8",
    "HOME": "/",
    "PYTHONHASHSEED": "0",  # the order of a set must not decide a verdict
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Report:
    """What this machine's sandbox is made of."""

    namespaces: tuple[str, ...]
    missing_modules: tuple[str, ...]
    python: str


class Sandbox:
    """Runs one program at a time; a context manager that keeps a nursery of sealed processes."""

    def __init__(self) -> None:
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._report: Report | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the nursery and what runs in it."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.kill()
            nursery.wait()

    def report(self) -> Report:
        """What the sandbox is made of here; raises :class:`SandboxError` when there can be none."""
        self._started()
        assert self._report is not None
        return self._report

    def run(self, code: str, *, stdin: str, limits: Limits, prelude: str = "") -> Run:
        """Run a whole program with ``stdin`` as its input; ``prelude`` is run before it, by its names."""
        with self._child("program", limits, stdin=stdin.encode()) as child:
            child.send({"prelude": prelude, "code": code})
            return child.collect()

    @contextlib.contextmanager
    def talk(self, role: str, request: dict[str, Any], *, limits: Limits) -> Iterator[Talk]:
        """Start a ``function`` or an ``examiner`` and exchange messages with it."""
        with self._child(role, limits, stdin=b"") as child:
            child.send(request)
            yield Talk(child)

    @contextlib.contextmanager
    def _child(self, role: str, limits: Limits, *, stdin: bytes) -> Iterator[Child]:
        control = self._started()
        nursery = self._nursery
        assert nursery is not None
        child = Child(control, limits, stranger=STRANGER_UIDS[nursery.pid % len(STRANGER_UIDS)])
        try:
            child.start(role, stdin)
            yield child
        except NurseryLostError:
            self.close()
            raise
        finally:
            try:
                if self._control is not None:
                    child.end()
            except NurseryLostError:
                self.close()
                raise
            finally:
                child.close()

    def _started(self) -> socket.socket:
        if self._control is None:
            self._start()
            self._prove()
        assert self._control is not None
        return self._control

    def _start(self) -> None:
        if sys.platform != "linux":
            raise SandboxError(f"sandbox: needs Linux, this is {sys.platform}; score code on Linux or in the cluster")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-s", "-P", "-W", "ignore", "-m", "rft_trainer.sandbox.nursery"]
        with tempfile.TemporaryFile() as log, theirs:
            self._nursery = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=log, env=_ENVIRONMENT, cwd="/",
                start_new_session=True,
            )  # fmt: skip
            theirs.close()
            self._control = ours
            ours.settimeout(START_SECONDS)
            with contextlib.suppress(TimeoutError, ConnectionError):
                data = ours.recv(_MESSAGE_BYTES)
                if data:
                    it = json.loads(data)
                    self._report = Report(tuple(it["namespaces"]), tuple(it["missing"]), it["python"])
                    return
            self.close()
            log.seek(0)
            words = log.read().decode(errors="replace").strip()[-500:]
        raise SandboxError(f"sandbox: does not start; python -m rft_trainer.sandbox.nursery says: {words or 'nothing'}")

    def _prove(self) -> None:
        """Try from within what must not work."""
        run = self.run(PROBE, stdin="", limits=Limits())
        words = run.stdout.decode(errors="replace").strip()
        if run.ending is not Ending.DONE or words != "sealed":
            self.close()
            raise SandboxError(f"sandbox: a program in it can still {words or run.stderr}; nothing is scored with it")


class Talk:
    """Messages to and from a sealed function or test."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def hear(self) -> Any | None:
        """The next message; None when there is none any more."""
        return self._child.receive()

    def tell(self, value: Any) -> None:
        """Send a message; one to a process that has ended is lost."""
        self._child.send(value)

    def ended(self) -> Run:
        """How the process ended; one that goes on after it hung up is ended here."""
        return self._child.collect_after_hang_up()
