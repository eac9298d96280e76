"""Settings: read once, refused at once, with a message that names the variable, the value and the remedy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from rft_operator.config import Config
from rft_operator.errors import ConfigError

LEAST = {"RFT_TRAINER_IMAGE": "registry/rft-trainer:1"}


def read(**settings: str) -> Config:
    return Config.from_environment({**LEAST, **settings})


def test_defaults_hold_when_only_the_image_is_given() -> None:
    config, plain = read(), Config(trainer_image="registry/rft-trainer:1")
    for field in fields(Config):
        if field.name != "pod_name":
            assert getattr(config, field.name) == getattr(plain, field.name), field.name


def test_every_setting_is_read_from_its_variable() -> None:
    given = {
        "RFT_NAMESPACE": "ops",
        "RFT_POD_NAME": "rft-0",
        "RFT_WATCH_NAMESPACES": " team-a, team-b ,",
        "RFT_PROGRESS_URL": "https://rft.ops.svc:9443",
        "RFT_PROGRESS_PORT": "9443",
        "RFT_PROGRESS_SECRET": "tls",
        "RFT_METRICS_PORT": "0",
        "RFT_PRICES_FILE": "/etc/prices.yaml",
        "RFT_WORKERS": "4",
        "RFT_LEADER_ELECTION": "False",
        "RFT_LEASE_NAME": "rft-2",
        "RFT_LOG_FORMAT": "json",
        "RFT_LOG_LEVEL": "DEBUG",
        "RFT_IMAGE_PULL_POLICY": "Always",
        "RFT_SWEEP_SECONDS": "60",
        "RFT_PROGRESS_WRITE_SECONDS": "30",
        "RFT_RESTART_BACKOFF_SECONDS": "0",
        "RFT_NODE_LOST_SECONDS": "5",
        "RFT_EXPECTED_STARTUP_SECONDS": "300",
    }
    assert {f"RFT_{field.name.upper()}" for field in fields(Config)} == {*given, *LEAST}
    assert read(**given) == Config(
        trainer_image="registry/rft-trainer:1",
        namespace="ops",
        pod_name="rft-0",
        watch_namespaces=("team-a", "team-b"),
        progress_url="https://rft.ops.svc:9443",
        progress_port=9_443,
        progress_secret="tls",
        metrics_port=0,
        prices_file=Path("/etc/prices.yaml"),
        workers=4,
        leader_election=False,
        lease_name="rft-2",
        log_format="json",
        log_level="DEBUG",
        image_pull_policy="Always",
        sweep_seconds=60,
        progress_write_seconds=30,
        restart_backoff_seconds=0,
        node_lost_seconds=5,
        expected_startup_seconds=300,
    )


def test_empty_variable_is_as_good_as_none() -> None:
    assert read(RFT_WATCH_NAMESPACES="", RFT_WORKERS=" ").watch_namespaces == ()


@pytest.mark.parametrize("environment", [{}, {"RFT_TRAINER_IMAGE": "  "}])
def test_missing_image_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"RFT_TRAINER_IMAGE is not set.*rft-trainer"):
        Config.from_environment(environment)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("WORKERS", "0", "from 1 to 256"),
        ("WORKERS", "257", "from 1 to 256"),
        ("WORKERS", "four", "whole number"),
        ("WORKERS", "-1", "whole number"),
        ("WORKERS", "1.5", "whole number"),
        ("METRICS_PORT", "65536", "to 65535"),
        ("SWEEP_SECONDS", "1", "from 5"),
        ("LEADER_ELECTION", "yes", "true or false"),
        ("LOG_FORMAT", "xml", "json, text"),
        ("LOG_LEVEL", "info", "INFO"),
        ("IMAGE_PULL_POLICY", "Sometimes", "IfNotPresent"),
        ("WATCH_NAMESPACES", ",", "names no namespace"),
        ("PROGRESS_URL", "rft-operator:8443", "https"),
        ("PROGRESS_URL", "http://rft-operator:8443", "https"),
        ("PROGRESS_URL", "https://", "host"),
        ("PROGRESS_URL", "https://[::1", "RFT_PROGRESS_URL"),
    ],
)
def test_wrong_setting_is_refused_with_its_name_its_value_and_the_remedy(name: str, value: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{f"RFT_{name}": value})
    assert str(caught.value).startswith(f"RFT_{name}={value!r}: ")
    assert remedy in str(caught.value)


def test_two_operators_on_one_machine_never_share_an_identity() -> None:
    assert read().pod_name != read().pod_name
