"""Logs: one record a line, with the run it speaks of, in JSON or for people."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rft_operator.logs import JsonFormatter, TextFormatter, configure_logging


def record(message: str = "trained %s", *args: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.getLogger("rft_operator.x").makeRecord(
        "rft_operator.x", level, __file__, 1, message, args or ("demo",), None, extra=extra
    )
    made.created = 1_767_225_600.5
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    it = logging.getLogger()
    handlers, level = it.handlers[:], it.level
    yield it
    it.handlers[:] = handlers
    it.setLevel(level)


def test_json_line_has_time_level_logger_message_and_what_was_given() -> None:
    line = JsonFormatter().format(record(namespace="team", finetune="demo", seconds=1.5))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.500+00:00",
        "level": "info",
        "logger": "rft_operator.x",
        "message": "trained demo",
        "namespace": "team",
        "finetune": "demo",
        "seconds": 1.5,
    }


def test_json_line_stays_one_line_and_readable_whatever_is_logged() -> None:
    line = JsonFormatter().format(record("two\nlines of %s", "ü", thing=object(), error=ValueError("x")))
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines of ü"
    assert json.loads(line)["error"] == "x"


@pytest.mark.parametrize(("formatter", "one_line"), [(JsonFormatter(), True), (TextFormatter(), False)])
def test_exception_is_told_with_its_traceback(formatter: logging.Formatter, one_line: bool) -> None:
    try:
        int("broken")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    text = formatter.format(made)
    assert "ValueError: invalid literal" in text
    assert "Traceback" in text
    assert (len(text.splitlines()) == 1) is one_line


def test_text_line_has_level_message_and_what_was_given() -> None:
    line = TextFormatter().format(record(level=logging.WARNING, namespace="team"))
    assert line == "00:00:00.500 WARNING trained demo namespace=team"


def test_kopfs_own_fields_are_left_out() -> None:
    fields = json.loads(JsonFormatter().format(record(k8s_ref={"uid": "u"}, settings=object(), k8s_skip=True)))
    assert set(fields) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize(("log_format", "starts"), [("json", "{"), ("text", "")])
def test_all_logs_go_to_standard_error_in_one_format(
    log_format: Any, starts: str, root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(log_format=log_format, level="INFO")
    configure_logging(log_format=log_format, level="INFO")
    logging.getLogger("anything").info("said once")
    logging.getLogger("anything").debug("not said")
    logging.getLogger("kopf.activities").info("chatter")
    logging.getLogger("aiohttp.access").info("chatter")
    assert len(root.handlers) == 1
    (line,) = stream.getvalue().splitlines()
    assert line.startswith(starts)
    assert "said once" in line
