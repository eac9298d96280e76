"""What ``helm test`` runs: it passes on an operator that leads, and says what is missing on any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer

import pytest

from rft_operator import smoke
from rft_operator.runtime.tls import make_authority, server_context


@dataclass(slots=True)
class Answers:
    """What the operator under test says."""

    readyz: tuple[int, str] = (200, "leading\n")
    leader: str = "1.0"
    report: int = 403
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers as an operator does."""

    server: Server

    def do_GET(self) -> None:
        answers = self.server.answers
        if self.path == "/readyz":
            self._answer(*answers.readyz)
        else:
            self._answer(200, f"# TYPE rft_leader gauge\nrft_leader {answers.leader}\n")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.server.answers.report, "{}")

    def _answer(self, code: int, text: str) -> None:
        self.server.answers.asked.append(self.path)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(HTTPServer):
    """A server of one test."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def server_bind(self) -> None:
        """Bind without asking for this machine's name, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.port

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def operator(answers: Answers) -> Iterator[tuple[Server, Server]]:
    """The metrics server, and the progress server with a certificate of an authority that nobody knows."""
    plain, secure = Server(answers), Server(answers)
    secure.socket = server_context(make_authority(), hostnames=("elsewhere",)).wrap_socket(
        secure.socket, server_side=True
    )
    for each in (plain, secure):
        each.thread.start()
    yield plain, secure
    for each in (plain, secure):
        each.shutdown()
        each.thread.join()
        each.server_close()


def words(operator: tuple[Server, Server], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Look at everything once; return what is said."""
    plain, secure = operator
    for check in smoke.checks("127.0.0.1", metrics_port=plain.port, progress_port=secure.port):
        smoke.passes(check, deadline=time.monotonic(), pause_seconds=0)
    return capsys.readouterr().out.splitlines()


def test_smoke_passes_on_an_operator_that_leads(
    operator: tuple[Server, Server], answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words(operator, capsys) == [
        "ok: a replica is ready",
        "ok: a replica leads",
        "ok: the progress server asks for a token",
    ]
    assert answers.asked[-1].endswith("/namespaces/nowhere/reasoningfinetunes/nobody/status")


def test_smoke_says_what_is_missing(
    operator: tuple[Server, Server], answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.readyz, answers.leader, answers.report = (503, "the first sweep is not done\n"), "0.0", 200
    assert words(operator, capsys) == [
        "failed: a replica is ready: /readyz answers 503: the first sweep is not done",
        "failed: a replica leads: no replica that was reached leads; look at its log and its Lease",
        "failed: the progress server asks for a token: a report without a token is answered with 200 instead of 403",
    ]


def test_smoke_looks_again_until_the_operator_leads(operator: tuple[Server, Server], answers: Answers) -> None:
    plain, secure = operator
    _, leads, _ = smoke.checks("127.0.0.1", metrics_port=plain.port, progress_port=secure.port)
    answers.leader = "0.0"
    seen: list[str] = []

    def look() -> str:
        seen.append(leads.look())
        answers.leader = "1.0"
        return seen[-1]

    check = smoke.Check(what="a replica leads", look=look)
    assert smoke.passes(check, deadline=time.monotonic() + 30, pause_seconds=0)
    assert [bool(each) for each in seen] == [True, False]


def test_smoke_fails_when_nobody_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "METRICS_PORT", 1)
    monkeypatch.setattr(smoke, "DEADLINE_SECONDS", 0.0)
    assert smoke.main(["127.0.0.1"]) == 1
    assert "failed: a replica is ready: " in capsys.readouterr().out


def test_smoke_wants_a_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main([]) == 2
    assert "usage:" in capsys.readouterr().err
