"""Progress reports against a real HTTP server that speaks Kubeflow Trainer's contract."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rft_trainer.progress_report import Metric, MetricName, ProgressReport, TrainerStatus
from rft_trainer.report import Reporter, Work
from unit.trainer.factory import free_port, wait_until


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes: list[int] = []
        self.reports: list[ProgressReport] = []
        self.tokens: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/status"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.reports.append(ProgressReport.model_validate_json(body))
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(self.server.codes.pop(0) if self.server.codes else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def status(step: int) -> TrainerStatus:
    return TrainerStatus(
        last_updated_time="2026-01-01T00:00:00Z",
        progress_percentage=step,
        metrics=(Metric(name=MetricName.STEP, value=str(step)),),
    )


def test_reporter_sends_the_newest_status_with_the_token_when_it_is_closed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    reporter = Reporter(server.url, token_file=tmp_path / "token", ca_file=None, interval_seconds=60)
    reporter.update(status(1))
    wait_until(lambda: len(server.reports) == 1, timeout_seconds=10)
    for step in range(2, 50):
        reporter.update(status(step))
    reporter.close()
    sent = [report.trainer_status for report in server.reports]
    assert [s.progress_percentage for s in sent if s] == [1, 49]
    assert server.tokens == ["Bearer secret", "Bearer secret"]


def test_reporter_ends_when_the_server_wants_no_reports(server: Server) -> None:
    server.codes = [404]
    reporter = Reporter(server.url, token_file=None, ca_file=None, interval_seconds=0.01)
    reporter.update(status(1))
    wait_until(lambda: not reporter.active, timeout_seconds=10)
    reporter.update(status(2))
    reporter.close()
    assert len(server.reports) == 1


def test_reporter_reads_a_fresh_token_when_it_was_refused(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    server.codes = [403]
    reporter = Reporter(server.url, token_file=token, ca_file=None, interval_seconds=0.01)
    reporter.update(status(1))
    wait_until(lambda: len(server.reports) == 1, timeout_seconds=10)
    token.write_text("new")
    reporter.update(status(2))
    wait_until(lambda: len(server.reports) == 2, timeout_seconds=10)
    assert server.tokens == ["Bearer old", "Bearer new"]
    assert reporter.active
    reporter.close()


def test_reporter_asks_less_often_and_does_not_give_up_when_tokens_are_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = 0.5
    monkeypatch.setattr("rft_trainer.report.FORBIDDEN_INTERVAL_SECONDS", pause)
    server.codes = [403] * 4
    reporter = Reporter(server.url, token_file=None, ca_file=None, interval_seconds=0.01)
    times = []
    for step in range(6):
        reporter.update(status(step))
        wait_until(lambda wanted=step + 1: len(server.reports) == wanted, timeout_seconds=10)  # type: ignore[misc]
        times.append(time.monotonic())
    assert reporter.active
    waits = [later - earlier > pause / 2 for earlier, later in pairwise(times)]
    assert waits == [False, False, True, True, False], "seldom after the third no, and as ever after a yes"
    reporter.close()


def test_training_is_not_disturbed_when_no_server_answers(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    reporter = Reporter(url, token_file=tmp_path / "missing", ca_file=None, interval_seconds=0.01)
    reporter.update(status(1))
    reporter.close()
    assert reporter.active


class Kept:
    """Stands for a reporter, and keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[TrainerStatus] = []

    def update(self, status: TrainerStatus) -> None:
        self.said.append(status)


def test_time_to_go_is_that_of_this_attempt_when_an_earlier_one_did_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept = [100.0], Kept()
    monkeypatch.setattr("rft_trainer.report.time", SimpleNamespace(monotonic=lambda: now[0]))
    work = Work(cast(Reporter, kept))
    work.tell(done=80, total=100, phase="sums", known=80)
    now[0] = 150.0
    work.tell(done=85, total=100, phase="sums", known=80)
    assert [(each.progress_percentage, each.estimated_remaining_seconds) for each in kept.said] == [
        (80, None),
        (85, 150),
    ]


def test_reporter_is_absent_when_the_environment_names_no_server() -> None:
    assert Reporter.from_environment({}) is None
