"""``python -m rft_operator.smoke HOST``: does the installed operator answer (the chart's ``helm test``).

Invariant: it needs no right and changes nothing. It succeeds once the Service reaches a replica that leads and the
progress server asks a stranger for a token; after a deadline it says what is missing and ends with 1.
"""

from __future__ import annotations

import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families

from rft_operator.domain.pods import status_path

METRICS_PORT = 8_080
PROGRESS_PORT = 8_443
DEADLINE_SECONDS = 120.0
PAUSE_SECONDS = 2.0
REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold."""

    what: str
    look: Callable[[], str]
    """Return what is wrong, or nothing."""


def request(url: str, *, data: bytes | None = None) -> tuple[int, str]:
    """Return code and body of an answer; raises OSError if there is none.

    The progress server's authority is the operator's own, which trainers know from their run: here it is not checked.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    no_proxy = urllib.request.ProxyHandler({})  # a Service of the cluster is behind none
    opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, data=data, timeout=REQUEST_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def checks(host: str, *, metrics_port: int | None = None, progress_port: int | None = None) -> tuple[Check, ...]:
    """Return what is looked at, at the Service's ports if no others are given."""
    metrics_port, progress_port = metrics_port or METRICS_PORT, progress_port or PROGRESS_PORT
    metrics, progress = f"http://{host}:{metrics_port}", f"https://{host}:{progress_port}"

    def ready() -> str:
        code, body = request(f"{metrics}/readyz")
        return "" if code == HTTPStatus.OK else f"/readyz answers {code}: {body.strip()}"

    def leads() -> str:
        _, body = request(f"{metrics}/metrics")
        values = [
            sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if sample.name == "rft_leader"
        ]
        return "" if values == [1.0] else "no replica that was reached leads; look at its log and its Lease"

    def guarded() -> str:
        code, _ = request(f"{progress}{status_path('nowhere', 'nobody')}", data=b"{}")
        return (
            "" if code == HTTPStatus.FORBIDDEN else f"a report without a token is answered with {code} instead of 403"
        )

    return (
        Check(what="a replica is ready", look=ready),
        Check(what="a replica leads", look=leads),
        Check(what="the progress server asks for a token", look=guarded),
    )


def passes(check: Check, *, deadline: float, pause_seconds: float = PAUSE_SECONDS) -> bool:
    """Look until it holds or the deadline (of the monotonic clock) has passed; say which."""
    while True:
        try:
            wrong = check.look()
        except (OSError, ValueError) as error:
            wrong = str(error)
        if not wrong:
            _say(f"ok: {check.what}")
            return True
        if time.monotonic() >= deadline:
            _say(f"failed: {check.what}: {wrong}")
            return False
        time.sleep(pause_seconds)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 if all holds, 1 if not, 2 without a host."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m rft_operator.smoke HOST\n")
        return 2
    deadline = time.monotonic() + DEADLINE_SECONDS
    outcomes = [passes(check, deadline=deadline) for check in checks(arguments[0])]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
