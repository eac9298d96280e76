"""The operator's settings, from environment variables that the Helm chart sets.

Invariant: a wrong setting stops the operator at once with a message that names the variable, the value and the remedy.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from rft_operator.errors import ConfigError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; the variable is ``RFT_`` and the field's name in capitals."""

    trainer_image: str
    namespace: str = "rft-system"
    """Where the operator itself lives: its Lease and its TLS Secret."""
    pod_name: str = ""
    """The identity in the Lease: two operators on one machine outside a cluster must not share it."""
    watch_namespaces: tuple[str, ...] = ()
    """Empty: the whole cluster."""
    progress_url: str | None = None
    """Base URL of the progress server as the trainers reach it; absent: no progress server."""
    progress_port: int = 8443
    progress_secret: str = "rft-operator-progress"  # noqa: S105 - a name
    metrics_port: int = 8080
    prices_file: Path | None = None
    workers: int = 16
    leader_election: bool = True
    lease_name: str = "rft-operator"
    log_format: Literal["json", "text"] = "text"
    log_level: str = "INFO"
    image_pull_policy: str = "IfNotPresent"
    sweep_seconds: int = 300
    """How often everything is listed again, to repair what a watch lost."""
    progress_write_seconds: int = 60
    restart_backoff_seconds: int = 10
    node_lost_seconds: int = 30
    expected_startup_seconds: int = 120

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read the settings; raises ConfigError."""
        read = _Reader(environment)
        nowhere: tuple[str, ...] = ()
        namespaces = read("WATCH_NAMESPACES", _names, nowhere)
        log_format = read("LOG_FORMAT", _choice("json", "text"), "text")
        prices = read("PRICES_FILE", Path, None)
        return cls(
            trainer_image=read.required("TRAINER_IMAGE", "the trainer's image, for example registry/rft-trainer:0.1.0"),
            namespace=read("NAMESPACE", str, "rft-system"),
            pod_name=read("POD_NAME", str, f"{socket.gethostname()}-{secrets.token_hex(4)}"),
            watch_namespaces=namespaces,
            progress_url=read("PROGRESS_URL", _https_url, None),
            progress_port=read("PROGRESS_PORT", _whole(0, 65_535), 8_443),
            progress_secret=read("PROGRESS_SECRET", str, "rft-operator-progress"),
            metrics_port=read("METRICS_PORT", _whole(0, 65_535), 8_080),
            prices_file=prices,
            workers=read("WORKERS", _whole(1, 256), 16),
            leader_election=read("LEADER_ELECTION", _switch, True),
            lease_name=read("LEASE_NAME", str, "rft-operator"),
            log_format="json" if log_format == "json" else "text",
            log_level=read("LOG_LEVEL", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
            image_pull_policy=read("IMAGE_PULL_POLICY", _choice("Always", "IfNotPresent", "Never"), "IfNotPresent"),
            sweep_seconds=read("SWEEP_SECONDS", _whole(5, 86_400), 300),
            progress_write_seconds=read("PROGRESS_WRITE_SECONDS", _whole(1, 3_600), 60),
            restart_backoff_seconds=read("RESTART_BACKOFF_SECONDS", _whole(0, 300), 10),
            node_lost_seconds=read("NODE_LOST_SECONDS", _whole(5, 3_600), 30),
            expected_startup_seconds=read("EXPECTED_STARTUP_SECONDS", _whole(0, 7_200), 120),
        )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, name: str, parse: Callable[[str], Value], default: Value) -> Value:
        text = self._environment.get(f"RFT_{name}", "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            msg = f"RFT_{name}={text!r}: {error}"
            raise ConfigError(msg) from error

    def required(self, name: str, what: str) -> str:
        text = self._environment.get(f"RFT_{name}", "").strip()
        if not text:
            msg = f"RFT_{name} is not set: it must name {what}"
            raise ConfigError(msg)
        return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        msg = "names no namespace; leave it out to watch all of them"
        raise ValueError(msg)
    return names


def _https_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        msg = "must be an https URL with a host, for example https://rft-operator.rft-system.svc:8443"
        raise ValueError(msg)
    return text


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            msg = f"must be one of {', '.join(allowed)}"
            raise ValueError(msg)
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            msg = f"must be a whole number from {low} to {high}"
            raise ValueError(msg)
        return int(text)

    return parse


def _switch(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        msg = "must be true or false"
        raise ValueError(msg)
    return words[text.lower()]
