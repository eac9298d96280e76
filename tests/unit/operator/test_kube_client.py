"""The client: time-outs, slots, the server's clock, and which of our errors each failure becomes."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from rft_operator.errors import ConfigError, Conflict, KubeError, NotFound, Rejected, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime import kube_client
from rft_operator.runtime.kube_client import KubeClient, load_configuration, map_error, read_kubeconfig
from support.web_api import Request, WebApi, answer, client_of, failure, serve

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "demo-train-1", "namespace": "team"}}
JOB_PATH = "/apis/batch/v1/namespaces/team/jobs/demo-train-1"


async def read(kube: KubeClient) -> Any:
    return await kube.get(kind="Job", namespace="team", name="demo-train-1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unavailable),
        (403, Rejected),
        (404, NotFound),
        (405, Rejected),
        (408, Unavailable),
        (409, Conflict),
        (410, Rejected),
        (413, Rejected),
        (422, Rejected),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_each_status_becomes_the_error_that_says_what_to_do(status: int, kind: type[KubeError]) -> None:
    async with client_of(WebApi([failure(status, "the words of the server")])) as kube:
        with pytest.raises(KubeError) as caught:
            await read(kube)
    assert type(caught.value) is kind
    assert caught.value.status == status
    for words in ("the words of the server", "Job", "demo-train-1", str(status)):
        assert words in str(caught.value)


def test_schema_mismatch_is_rejected_although_its_status_is_500() -> None:
    raw = json.dumps({"message": "failed to create typed patch object (...): .spec.x: field not declared in schema"})
    assert isinstance(map_error(500, raw.encode(), what="apply", headers={}), Rejected)


@pytest.mark.parametrize(("after", "seconds"), [("7", 7.0), ("0", 0.0), ("", None), ("Fri, 01 Jan 2027", None)])
def test_retry_after_is_kept_when_it_is_a_number_of_seconds(after: str, seconds: float | None) -> None:
    error = map_error(429, b"{}", what="list", headers={"Retry-After": after})
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ""),
        (b"<html>bad gateway</html>", "bad gateway"),
        (b'"text"', "text"),
        (b"[1]", "[1]"),
        (b"null", "null"),
        (b'{"message": null}', ""),
        (b'{"message": 5}', "5"),
        (b"\xff\xfe", "\ufffd"),
    ],
)
@pytest.mark.parametrize("status", [403, 500])
def test_failure_keeps_its_words_when_it_is_no_status_object(status: int, raw: bytes, words: str) -> None:
    error = map_error(status, raw, what="get", headers={})
    assert isinstance(error, Unavailable if status == 500 else Rejected)
    assert words in str(error)


@pytest.mark.parametrize("body", ["<html>log in</html>", '"text"', "[]"])
async def test_answer_of_a_proxy_is_no_object(body: str) -> None:
    async with client_of(WebApi([answer(body)])) as kube:
        with pytest.raises(Unavailable, match="no JSON object"):
            await read(kube)


async def test_call_ends_when_no_answer_comes_in_time() -> None:
    released = asyncio.Event()

    async def silence(_: Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    async with client_of(WebApi([silence])) as kube:
        with pytest.raises(Unavailable, match="Timeout"):
            await kube._call("GET", JOB_PATH, kind="Job", verb="get", timeout_seconds=0.05)
        released.set()


async def test_every_call_has_a_time_out_and_a_list_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    async with client_of(WebApi([answer({"items": [], "metadata": {}})])) as kube:
        call = kube._api.call_api

        async def record(*args: Any, _request_timeout: float, **kwargs: Any) -> Any:
            given.append(_request_timeout)
            return await call(*args, _request_timeout=_request_timeout, **kwargs)

        monkeypatch.setattr(kube._api, "call_api", record)
        await read(kube)
        await kube.apply(JOB)
        await kube.create(JOB)
        await kube.replace(JOB)
        await kube.delete(kind="Job", namespace="team", name="demo-train-1")
        await kube.list(kind="Job")
    assert given == [kube_client.TIMEOUT_SECONDS] * 5 + [kube_client.LIST_TIMEOUT_SECONDS]


async def test_broken_connection_is_unavailable() -> None:
    async def hang_up(_: Request) -> web.StreamResponse:
        raise ConnectionResetError

    async with client_of(WebApi([hang_up])) as kube:
        with pytest.raises(Unavailable):
            await read(kube)


async def test_refused_connection_is_unavailable() -> None:
    async with client_of(WebApi()) as kube:
        kube._host = "http://127.0.0.1:1"
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await read(kube)


async def test_token_that_cannot_be_read_now_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate(_: Any) -> None:
        raise config.ConfigException("Token file exists but empty.")

    async with client_of(WebApi()) as kube:
        monkeypatch.setattr(kube._api.configuration, "refresh_api_key_hook", rotate)
        with pytest.raises(Unavailable, match="Token file"):
            await read(kube)


async def test_clock_follows_the_date_of_every_answer() -> None:
    api = WebApi(
        [answer(Date=formatdate(1_900_000_000, usegmt=True)), failure(404, Date=formatdate(1_800_000_000, usegmt=True))]
    )
    async with client_of(api) as kube:
        await read(kube)
        assert abs(kube.clock.now() - 1_900_000_000) < 60
        with pytest.raises(NotFound):
            await read(kube)
        assert abs(kube.clock.now() - 1_800_000_000) < 60


async def test_calls_are_counted_by_their_code_and_broken_ones_as_errors() -> None:
    metrics = Metrics()
    async with client_of(WebApi([answer(), failure(404)]), metrics) as kube:
        await read(kube)
        with pytest.raises(NotFound):
            await read(kube)
        kube._host = "http://127.0.0.1:1"
        with pytest.raises(Unavailable):
            await read(kube)

    def count(code: str) -> float | None:
        labels = {"verb": "get", "kind": "Job", "code": code}
        return metrics.registry.get_sample_value("rft_api_requests_total", labels)

    assert (count("200"), count("404"), count("error")) == (1, 1, 1)
    assert metrics.registry.get_sample_value("rft_api_request_duration_seconds_count", {"verb": "get"}) == 3


async def test_no_more_calls_run_at_once_than_there_are_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_client, "CONCURRENT_REQUESTS", 3)
    running, most = 0, 0

    async def slow(_: Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.json_response({})

    async with client_of(WebApi([slow])) as kube:
        await asyncio.gather(*(read(kube) for _ in range(12)))
    assert most == 3


async def test_lease_does_not_wait_behind_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_client, "CONCURRENT_REQUESTS", 1)
    released = asyncio.Event()

    async def slow_but_for_the_lease(request: Request) -> web.StreamResponse:
        if "leases" not in request.path:
            await released.wait()
        return web.json_response({"kind": "Lease"})

    async with client_of(WebApi([slow_but_for_the_lease])) as kube:
        others = [asyncio.create_task(read(kube)) for _ in range(3)]
        await asyncio.sleep(0)
        lease = kube.read(kind="Lease", namespace="rft-system", name="rft-operator")
        assert (await asyncio.wait_for(lease, timeout=10))["kind"] == "Lease"
        released.set()
        await asyncio.gather(*others)


async def test_configuration_is_that_of_the_kubeconfig_outside_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(WebApi([answer({"kind": "Job"})])) as url:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = tmp_path / "config"
        file.write_text(json.dumps(content))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
        async with KubeClient(await load_configuration(), Metrics()) as kube:
            assert (await read(kube))["kind"] == "Job"


@pytest.mark.parametrize("content", [None, "", "{", "kind: Config\n"])
async def test_unusable_kubeconfig_is_an_error_of_the_configuration(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    with pytest.raises(ConfigError, match="KUBECONFIG"):
        await load_configuration()


async def test_kubeconfig_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"no usable kubeconfig: {tmp_path}/none not found"):
        await read_kubeconfig(Configuration(), tmp_path / "none")
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(ConfigError, match=f"{tmp_path}/a and {tmp_path}/b not found"):
        await read_kubeconfig(Configuration())


@pytest.mark.parametrize("variable", ["", "{home}/none:{home}/.kube/config"])
async def test_kubeconfig_is_found_as_kubectl_finds_it(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".kube" / "config"
    file.parent.mkdir()
    named = {"clusters": [{"name": "c", "cluster": {"server": "http://home"}}], "users": [{"name": "u", "user": {}}]}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "mine"}}
    file.write_text(json.dumps({**named, "contexts": [context], "current-context": "x"}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", variable.format(home=tmp_path))
    configuration = Configuration()
    assert await read_kubeconfig(configuration) == "mine"
    assert configuration.host == "http://home"
