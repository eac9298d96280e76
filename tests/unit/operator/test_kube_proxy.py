"""How the client finds its proxy: the environment's, unless the kubeconfig names one or the server needs none."""

from __future__ import annotations

import pytest
from kubernetes.aio import client

from rft_operator.runtime.kube_client import settle_proxy

SERVER = "https://kube.example.com:6443"
PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("environment", "named", "expected"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": PROXY}, None, PROXY),
        ({"HTTP_PROXY": PROXY}, None, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".example.com"}, None, None),
        ({"HTTPS_PROXY": PROXY}, "http://other:1", "http://other:1"),
    ],
    ids=["none", "environment", "another scheme", "no proxy for this server", "the kubeconfig wins"],
)
def test_proxy_is_settled_once_when_the_configuration_is_read(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], named: str | None, expected: str | None
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configuration = client.Configuration(host=SERVER, proxy=named)

    settle_proxy(configuration)

    assert configuration.proxy == expected
    assert configuration.client_session_kwargs == {"trust_env": False}
