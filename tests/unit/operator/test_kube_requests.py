"""The client's requests: what the API server is asked for, word by word, and how lists are paged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rft_operator.errors import KubeError
from rft_operator.runtime.kube_client import PAGE
from rft_operator.runtime.namespaces import check_readable
from support.web_api import WebApi, answer, client_of, failure

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "demo-train-1", "namespace": "team"}}
JOB_PATH = "/apis/batch/v1/namespaces/team/jobs/demo-train-1"


async def test_apply_is_a_forced_server_side_apply_in_our_name() -> None:
    api = WebApi([answer({"kind": "Job"})])
    async with client_of(api) as kube:
        assert await kube.apply(JOB) == {"kind": "Job"}
    (seen,) = api.requests
    assert (seen.method, seen.path) == ("PATCH", JOB_PATH)
    assert seen.query == {"fieldManager": "rft-operator", "force": "true", "fieldValidation": "Ignore"}
    assert seen.headers["Content-Type"].startswith("application/apply-patch+yaml")
    assert seen.headers["Authorization"] == "bearer secret"
    assert json.loads(seen.body) == JOB


async def test_status_is_applied_at_the_version_that_was_read_in_a_name_of_its_own() -> None:
    api = WebApi()
    async with client_of(api) as kube:
        await kube.apply_status(namespace="team", name="demo", status={"stage": "Training"}, resource_version="7")
    (seen,) = api.requests
    assert seen.path == "/apis/rft.dev/v1alpha1/namespaces/team/reasoningfinetunes/demo/status"
    assert seen.query == {"fieldManager": "rft-operator-status", "force": "true", "fieldValidation": "Ignore"}
    body = json.loads(seen.body)
    assert body["metadata"]["resourceVersion"] == "7"
    assert body["status"] == {"stage": "Training"}
    assert "spec" not in body


async def test_finalizers_are_replaced_at_the_version_that_was_read() -> None:
    api = WebApi()
    async with client_of(api) as kube:
        await kube.set_finalizers(kind="Pod", namespace="team", name="p", finalizers=("a/b",), resource_version="7")
    (seen,) = api.requests
    assert (seen.method, seen.path) == ("PATCH", "/api/v1/namespaces/team/pods/p")
    assert seen.headers["Content-Type"].startswith("application/merge-patch+json")
    assert json.loads(seen.body) == {"metadata": {"resourceVersion": "7", "finalizers": ["a/b"]}}


async def test_delete_is_in_the_background_and_of_the_one_that_was_seen() -> None:
    api = WebApi()
    async with client_of(api) as kube:
        await kube.delete(kind="Job", namespace="team", name="demo-train-1", uid="u")
    (seen,) = api.requests
    assert seen.method == "DELETE"
    body = json.loads(seen.body)
    assert body["propagationPolicy"] == "Background"
    assert body["preconditions"] == {"uid": "u"}


@pytest.mark.parametrize("status", [404, 409])
async def test_delete_is_content_when_the_object_is_gone_or_another(status: int) -> None:
    api = WebApi([failure(status)])
    async with client_of(api) as kube:
        await kube.delete(kind="Job", namespace="team", name="demo-train-1", uid="u")
    assert len(api.requests) == 1


@pytest.mark.parametrize(("kind", "partial"), [("Secret", True), ("ConfigMap", False)])
async def test_only_the_metadata_of_a_secret_is_asked_for(kind: str, partial: bool) -> None:
    api = WebApi()
    async with client_of(api) as kube:
        await kube.get(kind=kind, namespace="team", name="token")
    assert ("PartialObjectMetadata" in api.requests[0].headers["Accept"]) is partial


async def test_list_reads_all_pages_and_names_the_kind_of_every_item() -> None:
    def page(names: list[str], token: str | None) -> dict[str, Any]:
        return {
            "items": [{"metadata": {"name": name}} for name in names],
            "metadata": {"continue": token} if token else {},
        }

    api = WebApi([answer(page(["a", "b"], "t 1&2")), answer(page(["c"], None))])
    async with client_of(api) as kube:
        items = await kube.list(kind="Job", namespace="team", label_selector="x=y")
    assert [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in items] == [
        ("batch/v1", "Job", "a"),
        ("batch/v1", "Job", "b"),
        ("batch/v1", "Job", "c"),
    ]
    first, second = api.requests
    assert first.path == "/apis/batch/v1/namespaces/team/jobs"
    assert first.query == {"limit": str(PAGE), "labelSelector": "x=y"}
    assert second.query == {"limit": str(PAGE), "labelSelector": "x=y", "continue": "t 1&2"}


async def test_one_object_is_asked_for_when_all_that_matters_is_whether_they_can_be_read() -> None:
    api = WebApi([answer({"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "t"}})])
    async with client_of(api) as kube:
        await check_readable(kube, kind="ReasoningFinetune", namespace="team")
    (only,) = api.requests
    assert only.query == {"limit": "1"}


async def test_list_of_all_namespaces_has_no_namespace_in_its_path() -> None:
    api = WebApi([answer({"items": [], "metadata": {}})])
    async with client_of(api) as kube:
        assert await kube.list(kind="ReasoningFinetune") == []
        assert await kube.list(kind="Node") == []
    assert [seen.path for seen in api.requests] == ["/apis/rft.dev/v1alpha1/reasoningfinetunes", "/api/v1/nodes"]


async def test_list_fails_as_a_whole_when_a_page_fails() -> None:
    first = answer({"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "t"}})
    async with client_of(WebApi([first, failure(410, "the token expired")])) as kube:
        with pytest.raises(KubeError, match="expired"):
            await kube.list(kind="Job")


async def test_token_review_is_created_outside_of_any_namespace() -> None:
    api = WebApi([answer({"status": {}}, status=201)])
    async with client_of(api) as kube:
        await kube.create({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {}})
    assert api.requests[0].path == "/apis/authentication.k8s.io/v1/tokenreviews"


async def test_event_is_written_and_counted_up_when_it_exists() -> None:
    stored = {"metadata": {"name": "e", "namespace": "team", "resourceVersion": "3"}, "kind": "Event"}
    api = WebApi([failure(409), answer(stored), answer()])
    regarding = {**JOB, "metadata": {**JOB["metadata"], "uid": "u"}}  # type: ignore[dict-item]
    async with client_of(api) as kube:
        await kube.emit(regarding=regarding, type_="Normal", reason="Trained", message="50 steps.")
    assert [seen.method for seen in api.requests] == ["POST", "GET", "PUT"]
    assert json.loads(api.requests[2].body)["series"]["count"] == 2
