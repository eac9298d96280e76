"""Progress reports to the operator in Kubeflow Trainer's wire contract.

Invariant: reporting never blocks and never fails the work. One background thread sends the newest status only, at most
every few seconds; 404 means nobody wants reports and ends them. After some 403 in a row it asks less often, and goes on
all the same: a control plane that cannot look a token up refuses it, and a training that is not heard ends as stalled.
"""

from __future__ import annotations

import datetime
import http.client
import logging
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from rft_trainer.contract import ENV_PROGRESS_CA_CERT, ENV_PROGRESS_TOKEN, ENV_PROGRESS_URL
from rft_trainer.progress_report import Metric, MetricName, ProgressReport, TrainerStatus

MINIMUM_INTERVAL_SECONDS = 3.0
TIMEOUT_SECONDS = 10.0
FORBIDDEN_LIMIT = 3
FORBIDDEN_INTERVAL_SECONDS = 60.0
"""Between reports after so many were forbidden in a row; each tells the newest status with a token read anew."""

_log = logging.getLogger(__name__)


class Reporter:
    """Sends the newest status in the background; use :meth:`from_environment`."""

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None,
        ca_file: Path | None,
        interval_seconds: float = MINIMUM_INTERVAL_SECONDS,
    ) -> None:
        self._url, self._token_file, self._ca_file = url, token_file, ca_file
        self._interval_seconds = interval_seconds
        self._newest: TrainerStatus | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._forbidden = 0
        self.active = True
        """False once the server has said that it wants no reports."""
        self._thread = threading.Thread(target=self._send_loop, name="progress-report", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Reporter | None:
        """The reporter that the pod's environment asks for; None when it asks for none."""
        values = os.environ if environment is None else environment
        url = values.get(ENV_PROGRESS_URL)
        if not url:
            return None
        token, ca_cert = values.get(ENV_PROGRESS_TOKEN), values.get(ENV_PROGRESS_CA_CERT)
        return cls(url, token_file=Path(token) if token else None, ca_file=Path(ca_cert) if ca_cert else None)

    def update(self, status: TrainerStatus) -> None:
        """Replace the status to send; returns at once."""
        with self._changed:
            self._newest = status
            self._changed.notify()

    def close(self, *, timeout_seconds: float = 5.0) -> None:
        """Send what is left and stop, within ``timeout_seconds``."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=timeout_seconds)

    def _send_loop(self) -> None:
        while self.active:
            with self._changed:
                while self._newest is None and not self._closing.is_set():
                    self._changed.wait()
                status, self._newest = self._newest, None
            if status is None:
                return
            self._send(status)
            if self._closing.wait(self._pause_seconds()) and self._newest is None:
                return

    def _pause_seconds(self) -> float:
        return FORBIDDEN_INTERVAL_SECONDS if self._forbidden >= FORBIDDEN_LIMIT else self._interval_seconds

    def _send(self, status: TrainerStatus) -> None:
        body = ProgressReport(trainer_status=status).model_dump_json(by_alias=True, exclude_none=True).encode()
        try:
            with urllib.request.urlopen(self._request(body), timeout=TIMEOUT_SECONDS, context=self._tls()):  # noqa: S310 - our address
                self._forbidden = 0
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(error.code)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.warning("progress report failed, the next one will be tried: %s", error)

    def _refused(self, code: int) -> None:
        if code == http.HTTPStatus.FORBIDDEN:
            self._forbidden += 1
        if code == http.HTTPStatus.NOT_FOUND:
            self.active = False
            _log.warning("the progress server answered %d: reports end here", code)
        else:
            _log.warning("the progress server answered %d", code)

    def _request(self, body: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        return urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310 - our address

    def _tls(self) -> ssl.SSLContext | None:
        if not self._url.startswith("https:"):
            return None
        return ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)


class Work:
    """Progress of a stage that counts pieces of work instead of steps (prepare, evaluate)."""

    def __init__(self, reporter: Reporter | None) -> None:
        self._reporter = reporter
        self._started = time.monotonic()

    def tell(self, *, done: int, total: int, phase: str, known: int = 0) -> None:
        """Report that ``done`` of ``total`` pieces are done; the rest is estimated to go on at the same speed.

        ``known`` of them were done by an earlier attempt and say nothing about the speed of this one.
        """
        if self._reporter is None:
            return
        remaining = None
        if done > known:
            remaining = int((time.monotonic() - self._started) * (total - done) / (done - known))
        self._reporter.update(
            TrainerStatus(
                last_updated_time=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                progress_percentage=100 * done // max(1, total),
                estimated_remaining_seconds=remaining,
                metrics=(Metric(name=MetricName.PHASE, value=phase[:64]),),
            )
        )

    def close(self) -> None:
        """Send what is left."""
        if self._reporter is not None:
            self._reporter.close()
