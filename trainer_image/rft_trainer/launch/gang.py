"""The training gang: who it is, and the check that all of it is there before DeepSpeed starts.

Invariant: every supervisor of the gang leaves the check together or fails with the names of those that are missing.
It never gives up before the operator would: a node may come, and pull its image, within ``pending_seconds``, and only
from then on, or from the last name on, does ``startup_seconds`` count. Node 0 listens on the training port, the others
say who they are; a pod of another attempt is turned away.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.errors import BadInputError, DrainedError, RendezvousError

_LINE = re.compile(r"^(?P<host>\S+)\s+slots=(?P<slots>[1-9][0-9]*)$")
_POLL_SECONDS = 0.2
_HELLO_LIMIT_BYTES = 1_024


@dataclass(frozen=True)
class Gang:
    """The hosts in rank order, and which of them this pod is."""

    hosts: tuple[str, ...]
    slots: tuple[int, ...]
    node_rank: int
    port: int
    ticket: str
    """Unique to the run's attempt."""

    @property
    def ranks(self) -> range:
        """The ranks of this pod."""
        first = sum(self.slots[: self.node_rank])
        return range(first, first + self.slots[self.node_rank])

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return sum(self.slots)


@dataclass(frozen=True)
class Bounds:
    """``timeouts.pendingSeconds`` and ``timeouts.startupSeconds`` of the finetune."""

    pending_seconds: float
    startup_seconds: float


def read_hostfile(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Hosts and slots; raises :class:`BadInputError` naming the line that is wrong."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read ({error.strerror}); the operator writes it for training"
        ) from error
    matches = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = _LINE.match(text)
        if match is None:
            raise BadInputError(f"{path}:{number}: {line!r} is not 'host slots=N'")
        matches.append(match)
    hosts = tuple(match["host"] for match in matches)
    if not hosts or len(set(hosts)) != len(hosts):
        raise BadInputError(f"{path}: needs one line for each node, each host once; found {len(hosts)}")
    return hosts, tuple(int(match["slots"]) for match in matches)


def assemble(gang: Gang, *, bounds: Bounds, stopping: Callable[[], bool]) -> None:
    """Wait until every node of the gang is there.

    Raises :class:`RendezvousError` at a bound, :class:`DrainedError` when a stop is asked for;
    both say what was missing. Ranks of several nodes that have gathered stop together, once they have loaded.
    """
    if len(gang.hosts) == 1:
        if stopping():
            raise DrainedError("stopped before the training began")
        return
    own = gang.hosts[gang.node_rank]
    started = time.monotonic()
    all_bound_by = started + bounds.pending_seconds
    # The own name is there as soon as the pod runs: without it the DNS is at fault, not a node that is to come.
    _wait_for_name(own, wait=_Wait(started + bounds.startup_seconds, stopping))
    for host in gang.hosts:
        _wait_for_name(host, wait=_Wait(all_bound_by, stopping))
    # A name says that a pod has an address, not yet that its image is there.
    wait = _Wait(max(all_bound_by, time.monotonic() + bounds.startup_seconds), stopping)
    if gang.node_rank == 0:
        _gather(gang, wait=wait)
    else:
        _join(gang, wait=wait)


@dataclass(frozen=True)
class _Wait:
    """The end of a wait: by the monotonic clock, or when the pod is to stop."""

    deadline: float
    stopping: Callable[[], bool]

    def check(self, missing: str) -> None:
        if self.stopping():
            raise DrainedError(f"stopped while waiting for the training gang: {missing}")
        if time.monotonic() > self.deadline:
            raise RendezvousError(
                f"rendezvous: {missing}; check the pods' logs, DNS and network policies, "
                "or raise timeouts.pendingSeconds and timeouts.startupSeconds"
            )


def _wait_for_name(host: str, *, wait: _Wait) -> None:
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            wait.check(f"host {host} does not resolve ({error})")
        time.sleep(_POLL_SECONDS)


def _gather(gang: Gang, *, wait: _Wait) -> None:
    """Node 0: collect a hello from every other node, then let them all go."""
    waiting: dict[int, socket.socket] = {}
    try:
        with _listen(gang, wait=wait) as server:
            while len(waiting) < len(gang.hosts) - 1:
                missing = [host for rank, host in enumerate(gang.hosts) if rank > 0 and rank not in waiting]
                wait.check(f"{', '.join(missing)} did not reach {gang.hosts[0]}:{gang.port}")
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                rank = _read_hello(connection, gang)
                if rank is not None:
                    waiting[rank] = connection
            for rank, connection in waiting.items():
                _let_go(connection, host=gang.hosts[rank])
    finally:
        for connection in waiting.values():
            connection.close()


def _let_go(connection: socket.socket, *, host: str) -> None:
    try:
        connection.sendall(b"go\n")
    except OSError as error:
        raise RendezvousError(
            f"rendezvous: {host} was there and went away ({error.strerror}); check its pod's log"
        ) from error
    connection.settimeout(2)
    _drain(connection)


def _listen(gang: Gang, *, wait: _Wait) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(gang.hosts[0], gang.port, type=socket.SOCK_STREAM)[0]
    while True:
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(address)
            server.listen(len(gang.hosts))
        except OSError as error:
            server.close()
            wait.check(f"cannot listen on {gang.hosts[0]}:{gang.port} ({error.strerror})")
            time.sleep(_POLL_SECONDS)
            continue
        server.settimeout(_POLL_SECONDS)
        return server


def _read_hello(connection: socket.socket, gang: Gang) -> int | None:
    connection.settimeout(2)
    try:
        line = connection.makefile("rb").readline(_HELLO_LIMIT_BYTES)
        hello = json.loads(line)
        rank = int(hello["rank"])
        if hello["ticket"] == gang.ticket and 0 < rank < len(gang.hosts):
            return rank
        connection.sendall(b"stranger\n")
    except (OSError, ValueError, KeyError, TypeError):
        pass
    connection.close()
    return None


def _drain(connection: socket.socket) -> None:
    """Let the other side close first, so the port is free for DeepSpeed at once."""
    try:
        connection.recv(1)
    except OSError:
        return


def _join(gang: Gang, *, wait: _Wait) -> None:
    """The other nodes: say hello to node 0 and wait for its go."""
    hello = json.dumps({"rank": gang.node_rank, "ticket": gang.ticket}).encode() + b"\n"
    problem = "no answer"
    while True:
        wait.check(f"{gang.hosts[0]}:{gang.port} cannot be reached ({problem})")
        try:
            with socket.create_connection((gang.hosts[0], gang.port), timeout=2) as connection:
                connection.sendall(hello)
                answer = _wait_for_go(connection, wait=wait)
                if answer == b"go":
                    return
                problem = "it belongs to another attempt" if answer == b"stranger" else "it closed the connection"
        except OSError as error:
            problem = error.strerror or str(error) or "no answer"
        time.sleep(_POLL_SECONDS)


def _wait_for_go(connection: socket.socket, *, wait: _Wait) -> bytes:
    connection.settimeout(_POLL_SECONDS)
    received = b""
    while not received.endswith(b"\n"):
        wait.check("node 0 answered, but other nodes are still missing")
        try:
            chunk = connection.recv(64)
        except TimeoutError:
            continue
        if not chunk:
            break
        received += chunk
    return received.strip()
