"""The rendezvous check, with real sockets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from socket import getaddrinfo
from typing import Any

import pytest

from rft_trainer.errors import BadInputError, DrainedError, RendezvousError
from rft_trainer.launch.gang import Bounds, Gang, assemble, read_hostfile
from unit.trainer.factory import free_port, wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def gang(rank: int, *, port: int, ticket: str = "uid/1", hosts: tuple[str, ...] = HOSTS) -> Gang:
    return Gang(hosts=hosts, slots=(1,) * len(hosts), node_rank=rank, port=port, ticket=ticket)


def never() -> bool:
    return False


def within(seconds: float) -> Bounds:
    return Bounds(pending_seconds=seconds, startup_seconds=seconds)


def run_all(
    members: list[Gang], *, bounds: Bounds, late: Callable[[Gang], None] = lambda member: None
) -> dict[int, Exception | None]:
    ended: dict[int, Exception | None] = {}

    def one(member: Gang) -> None:
        late(member)
        try:
            assemble(member, bounds=bounds, stopping=never)
            ended[member.node_rank] = None
        except RendezvousError as error:
            ended[member.node_rank] = error

    threads = [threading.Thread(target=one, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return ended


def test_all_nodes_go_on_when_all_are_there() -> None:
    port = free_port()
    assert run_all([gang(rank, port=port) for rank in (2, 1, 0)], bounds=within(20)) == {0: None, 1: None, 2: None}


def test_gang_starts_when_a_node_comes_after_the_bound_on_the_start_but_in_time() -> None:
    port, bounds = free_port(), Bounds(pending_seconds=60, startup_seconds=0.2)
    due = time.monotonic() + 3 * bounds.startup_seconds

    def late(member: Gang) -> None:
        if member.node_rank > 0:
            wait_until(lambda: time.monotonic() > due, what="the time that a start may take")

    assert run_all([gang(rank, port=port) for rank in (0, 1, 2)], bounds=bounds, late=late) == {
        0: None,
        1: None,
        2: None,
    }


def test_gang_starts_when_a_name_comes_after_the_time_for_a_node_and_the_start_is_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound on the start counts from the last name on: also a node that came at the last moment has it."""
    port, bounds, tries, resolve = (
        free_port(),
        Bounds(pending_seconds=2, startup_seconds=60),
        Counter[str](),
        getaddrinfo,
    )

    def slow(host: str, *rest: Any, **named: Any) -> Any:
        tries[host] += 1
        if host == HOSTS[2] and tries[host] < 3:
            raise OSError("Name or service not known")
        return resolve(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    due = time.monotonic() + 1.5 * bounds.pending_seconds

    def late(member: Gang) -> None:
        if member.node_rank == 1:
            wait_until(lambda: time.monotonic() > due, what="the time that nodes may take")

    assert run_all([gang(rank, port=port) for rank in (0, 1, 2)], bounds=bounds, late=late) == {
        0: None,
        1: None,
        2: None,
    }


def test_every_node_fails_and_node_0_names_the_missing_when_one_is_absent() -> None:
    port = free_port()
    ended = run_all([gang(rank, port=port) for rank in (0, 1)], bounds=within(1.5))
    assert "127.0.0.3 did not reach 127.0.0.1" in str(ended[0])
    assert isinstance(ended[1], RendezvousError)


def test_node_fails_by_name_when_node_0_is_absent() -> None:
    port = free_port()
    with pytest.raises(RendezvousError, match=rf"127\.0\.0\.1:{port} cannot be reached \(Connection refused\)"):
        assemble(gang(1, port=port), bounds=within(0.5), stopping=never)


def test_node_fails_by_name_when_its_name_does_not_resolve() -> None:
    member = gang(0, port=free_port(), hosts=("no-such-host.invalid", "127.0.0.1"))
    with pytest.raises(RendezvousError, match=r"host no-such-host\.invalid does not resolve"):
        assemble(member, bounds=Bounds(pending_seconds=60, startup_seconds=0.3), stopping=never)


def test_node_fails_by_name_when_another_has_none_in_the_time_for_nodes() -> None:
    member = gang(0, port=free_port(), hosts=("127.0.0.1", "no-such-host.invalid"))
    with pytest.raises(RendezvousError, match=r"host no-such-host\.invalid does not resolve"):
        assemble(member, bounds=Bounds(pending_seconds=0.3, startup_seconds=60), stopping=never)


def test_pod_of_another_attempt_is_turned_away_when_it_reaches_node_0() -> None:
    port = free_port()
    members = [gang(0, port=port, hosts=HOSTS[:2]), gang(1, port=port, hosts=HOSTS[:2], ticket="uid/2")]
    ended = run_all(members, bounds=within(1.5))
    assert "127.0.0.2 did not reach" in str(ended[0])
    assert ended[1] is not None


def test_node_0_names_the_node_that_went_away_when_all_could_go() -> None:
    port = free_port()
    ended: dict[int, Exception | None] = {}
    first = threading.Thread(target=lambda: ended.update(run_all([gang(0, port=port)], bounds=within(20))))
    first.start()
    gone = connected(port)
    gone.sendall(b'{"rank": 1, "ticket": "uid/1"}\n')
    reset(gone)
    last = connected(port)
    last.sendall(b'{"rank": 2, "ticket": "uid/1"}\n')
    first.join(20)
    last.close()
    assert isinstance(ended[0], RendezvousError)
    assert "127.0.0.2 was there and went away" in str(ended[0])


def connected(port: int) -> socket.socket:
    """A connection to node 0, as soon as it listens."""
    found: list[socket.socket] = []

    def connect() -> bool:
        try:
            found.append(socket.create_connection((HOSTS[0], port), timeout=20))
        except ConnectionRefusedError:
            return False
        return True

    wait_until(connect, what="node 0 listens")
    return found[0]


def reset(connection: socket.socket) -> None:
    """Close it as a node does that lost its memory of it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_waiting_ends_at_once_when_a_stop_is_asked_for() -> None:
    started = time.monotonic()
    port = free_port()
    with pytest.raises(DrainedError, match=rf"127\.0\.0\.1:{port} cannot be reached"):
        assemble(gang(1, port=port), bounds=within(60), stopping=lambda: True)
    assert time.monotonic() - started < 10


def test_one_node_that_was_asked_to_stop_starts_no_ranks() -> None:
    with pytest.raises(DrainedError, match="stopped before the training began"):
        assemble(gang(0, port=1, hosts=HOSTS[:1]), bounds=within(60), stopping=lambda: True)


def test_hostfile_is_read_in_rank_order_when_it_has_comments(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text("# gang\nrun-0.svc slots=8\n\nrun-1.svc slots=4\n")
    assert read_hostfile(path) == (("run-0.svc", "run-1.svc"), (8, 4))


@pytest.mark.parametrize("text", ["run-0.svc\n", "run-0 slots=0\n", "", "a slots=1\na slots=1\n"])
def test_hostfile_is_refused_when_a_line_is_wrong(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostfile"
    path.write_text(text)
    with pytest.raises(BadInputError, match="hostfile"):
        read_hostfile(path)
