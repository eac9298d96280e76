"""How the client finds its proxy: the environment's, unless the kubeconfig names one or the server needs none."""

from __future__ import annotations

import pytest
from kubernetes.aio import client

from rft_operator.runtime.proxies import settle_proxy

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


@pytest.mark.parametrize(
    ("server", "no_proxy", "asked"),
    [
        ("https://127.0.0.1:6443", "", False),
        ("https://localhost:6443", "", False),
        ("https://[::1]:6443", "", False),
        ("https://10.96.0.1:443", ".svc, 10.0.0.0/8", False),
        ("https://[fd00::1]:443", "fd00::/8", False),
        ("https://11.0.0.1:443", ".svc, 10.0.0.0/8", True),
        ("https://kube.example.com:6443", "10.0.0.0/8", True),
    ],
    ids=["loopback", "localhost", "IPv6 loopback", "network", "IPv6 network", "another network", "a name"],
)
def test_proxy_is_asked_for_what_kubectl_asks_it_for(
    monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, asked: bool
) -> None:
    for name, value in {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}.items():
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv(name, value)
    configuration = client.Configuration(host=server, proxy=None)

    settle_proxy(configuration)

    assert configuration.proxy == (PROXY if asked else None)
