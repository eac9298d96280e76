"""The Python client: what it applies, how it waits, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rft_operator.api import KIND
from rft_operator.api.choices import DatasetFormat
from rft_operator.api.scheduling import Resources
from rft_operator.api.spec import Budget, Spec
from rft_operator.api.training import Dataset, Model
from rft_operator.client import (
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    NotInstalled,
    Refused,
    Rejected,
    Result,
    RunFailed,
    RunNotFound,
    Unavailable,
    WaitTimeout,
    watching,
)
from rft_operator.errors import ConfigError, InvalidResource
from rft_operator.runtime.tls import make_authority
from support.builders import NAME, NAMESPACE, resource
from support.fake_api import FakeApi
from support.polling import eventually
from support.stage import World
from support.team import team_budget


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(world: World, tmp_path: Path) -> Any:
    with FakeApi(tmp_path, world.kube) as found:
        yield found


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(kubeconfig=api.kubeconfig) as found:
        yield found


def limit(world: World) -> Any:
    return world.kube.objects[KIND, NAMESPACE, NAME]["spec"]["budget"]["limitUSD"]


# -- apply and create ----------------------------------------------------------------------------------------------


async def test_apply_says_created_configured_and_unchanged(client: AsyncClient) -> None:
    manifest = resource("other")
    assert [each.result for each in await client.apply(manifest)] == [Result.CREATED]
    assert [each.result for each in await client.apply(manifest)] == [Result.UNCHANGED]
    (changed,) = await client.apply(resource("other", budget={"limitUSD": 20}))
    assert (changed.result, changed.raw["spec"]["budget"]["limitUSD"]) == (Result.CONFIGURED, 20)


async def test_apply_takes_a_file_with_a_run_and_a_team_budget(client: AsyncClient, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump_all([resource("other"), team_budget()]))
    found = await client.apply(file)
    assert [(each.kind, each.name) for each in found] == [(KIND, "other"), ("FinetuneBudget", "team")]


async def test_apply_sends_only_what_a_typed_spec_says(client: AsyncClient, api: FakeApi) -> None:
    spec = Spec(
        model=Model(uri="hf://org/model"),
        dataset=Dataset(uri="hf://org/rows", format=DatasetFormat.S1),
        resources=Resources(nodes=1, gpus_per_node=8),
        budget=Budget(limit_usd="99.50"),
    )
    await client.apply(spec, name="typed")
    body = api.requests[-1][3]
    assert body["metadata"] == {"name": "typed", "namespace": NAMESPACE}
    assert body["spec"] == {
        "model": {"uri": "hf://org/model"},
        "dataset": {"uri": "hf://org/rows", "format": "s1"},
        "resources": {"nodes": 1, "gpusPerNode": 8},
        "budget": {"limitUSD": "99.50"},
    }


async def test_apply_takes_back_what_get_gave_out(client: AsyncClient, api: FakeApi) -> None:
    raw = await client.read(NAME)
    raw["metadata"]["managedFields"] = []
    raw["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "mine"}
    await client.apply({"kind": "List", "items": [raw]})
    body = api.requests[-1][3]
    assert body["metadata"] == {"name": NAME, "namespace": NAMESPACE, "annotations": {"note": "mine"}}
    assert sorted(body) == ["apiVersion", "kind", "metadata", "spec"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a: [", "no YAML"),
        ("spec: 1\nspec: 2", "spec is there twice; keep the one that is meant"),
        ("", "no resource in the file"),
        ("- 1", "not a resource"),
        ("kind: Secret", "kubectl apply takes the rest"),
        ("{kind: ReasoningFinetune, apiVersion: rft.dev/v1}", "write rft.dev/v1alpha1"),
        ("{kind: ReasoningFinetune, apiVersion: rft.dev/v1alpha1}", "metadata.name is missing"),
        (Path("/no/such/file.yaml"), "cannot be read"),
    ],
)
async def test_apply_refuses_what_is_no_resource_of_ours(client: AsyncClient, source: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        await client.apply(source)


async def test_apply_says_each_field_that_the_api_server_refuses(client: AsyncClient, api: FakeApi) -> None:
    causes = {"spec.budget": "Invalid value: must be below limitUSD", "spec.model.uri": "Invalid value: write hf://"}
    api.fail(422, "is invalid", method="PATCH", causes=causes)
    with pytest.raises(Rejected) as caught:
        await client.apply(resource())
    assert str(caught.value).splitlines() == [
        f"{KIND} {NAME} is not accepted:",
        "  spec.budget: Invalid value: must be below limitUSD",
        "  spec.model.uri: Invalid value: write hf://",
    ]


async def test_apply_names_the_field_that_a_typing_error_meant(client: AsyncClient, api: FakeApi) -> None:
    words = (
        "failed to create typed patch object (team/demo): errors: .spec.budget.limitUsd: field not declared in schema"
    )
    api.fail(500, words, method="PATCH")
    with pytest.raises(Rejected, match=r"spec.budget.limitUsd is no field of ReasoningFinetune; did you mean limitUSD"):
        await client.apply(resource())


async def test_apply_names_the_owner_of_a_field_that_was_set_since(client: AsyncClient, api: FakeApi) -> None:
    causes = {".spec.budget.limitUSD": 'conflict with "rft" using rft.dev/v1alpha1'}
    api.fail(409, "Apply failed with 1 conflict", method="PATCH", causes=causes)
    with pytest.raises(Conflict, match=r"spec.budget.limitUSD is set by rft\n.*--force-conflicts"):
        await client.apply(resource())


async def test_create_refuses_a_name_that_is_taken(client: AsyncClient) -> None:
    assert (await client.create(resource("other"))).metadata.name == "other"
    with pytest.raises(Conflict, match="team/other exists already"):
        await client.create(resource("other"))


async def test_create_takes_one_run_only(client: AsyncClient) -> None:
    with pytest.raises(Refused, match="one ReasoningFinetune is expected, but there are: FinetuneBudget"):
        await client.create(team_budget())
    with pytest.raises(Refused, match="give name="):
        await client.create(Spec.model_validate(resource()["spec"]))


# -- errors that help ----------------------------------------------------------------------------------------------


async def test_unknown_name_is_answered_with_the_nearest(client: AsyncClient) -> None:
    with pytest.raises(RunNotFound, match=r"no ReasoningFinetune 'dmeo' in namespace team; did you mean demo\?"):
        await client.get("dmeo")


async def test_unknown_name_is_found_in_another_namespace(client: AsyncClient) -> None:
    with pytest.raises(RunNotFound, match="there is one in namespace team: add -n team"):
        await client.get(NAME, namespace="elsewhere")


async def test_cluster_without_the_crd_is_answered_with_the_helm_command(client: AsyncClient, api: FakeApi) -> None:
    api.fail(404, "404 page not found", path="reasoningfinetunes")
    for act in (client.get(NAME), client.list(), client.apply(resource())):
        with pytest.raises(NotInstalled, match="helm install rft-operator"):
            await act


@pytest.mark.parametrize(
    ("verb", "resource_name", "role"),
    [
        ("list", "reasoningfinetunes", "view"),
        ("patch", "reasoningfinetunes", "edit"),
        ("patch", "finetunebudgets", "admin"),
    ],
)
async def test_forbidden_is_answered_with_verb_and_role(
    client: AsyncClient, api: FakeApi, verb: str, resource_name: str, role: str
) -> None:
    where = 'in API group "rft.dev" in the namespace "team"'
    api.fail(403, f'x is forbidden: User "jane" cannot {verb} resource "{resource_name}" {where}')
    with pytest.raises(Forbidden) as caught:
        await client.list()
    assert f"jane may not {verb} {resource_name}.rft.dev in namespace team" in str(caught.value)
    assert f"kubectl create rolebinding rft-{role} -n team --clusterrole={role} --user=jane" in str(caught.value)


async def test_who_is_not_known_is_told_to_log_in(client: AsyncClient, api: FakeApi) -> None:
    api.fail(401, "Unauthorized")
    with pytest.raises(Forbidden, match="log in to the cluster again"):
        await client.list()


async def test_run_of_another_schema_is_an_error_in_words(client: AsyncClient, world: World, api: FakeApi) -> None:
    api.do(lambda: world.kube.patch(KIND, NAMESPACE, NAME, lambda obj: obj["spec"].update(model={})))
    with pytest.raises(InvalidResource, match="team/demo does not fit this version of rft"):
        await client.get(NAME)


async def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable kubeconfig"):
        await AsyncClient.connect(kubeconfig=tmp_path / "none")


UNREADABLE = b64encode(b"no certificate").decode()


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({"certificate-authority-data": UNREADABLE}, {}),
        ({}, {"client-certificate-data": UNREADABLE, "client-key-data": UNREADABLE}),
        ({"server": 6443}, {}),
        ({}, {"auth-provider": {"name": "gcp"}}),
    ],
)
async def test_kubeconfig_with_values_that_cannot_be_read_is_an_error_in_words(
    tmp_path: Path, cluster: dict[str, object], user: dict[str, object]
) -> None:
    file = tmp_path / "config"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"no usable kubeconfig: .* Set KUBECONFIG to a file"):
        await AsyncClient.connect(kubeconfig=file)


async def test_client_inside_a_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "t"), ("ca.crt", make_authority().certificate), ("namespace", "notebooks\n")):
        (tmp_path / name).write_text(text)
    places = "kubernetes.aio.config.incluster_config"
    monkeypatch.setattr(f"{places}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{places}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("rft_operator.client.api.NAMESPACE_FILE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    async with await AsyncClient.connect() as found:
        assert found.namespace == "notebooks"
    with pytest.raises(ConfigError):
        await AsyncClient.connect(context="another")


async def test_name_that_several_namespaces_have_is_answered_with_all_of_them(
    client: AsyncClient, world: World, api: FakeApi
) -> None:
    api.do(lambda: world.kube.put(resource(NAME, namespace="other")))
    with pytest.raises(RunNotFound, match="there are runs of that name in team, other: choose one with -n"):
        await client.get(NAME, namespace="elsewhere")


async def test_unknown_name_is_said_plainly_where_nothing_may_be_listed(client: AsyncClient, api: FakeApi) -> None:
    api.fail(404, 'reasoningfinetunes "x" not found', path="/reasoningfinetunes/x")
    api.fail(403, "no", path="/namespaces/team/reasoningfinetunes")
    with pytest.raises(RunNotFound, match=r"^no ReasoningFinetune 'x' in namespace team$"):
        await client.get("x")


async def test_watch_goes_on_behind_an_event_that_is_cut(client: AsyncClient, api: FakeApi, world: World) -> None:
    api.extra_events.append(b'{"type": "MODI')
    waiting = asyncio.create_task(client.wait(NAME, lambda run: run.spec.suspend, timeout_seconds=60))
    await eventually(lambda: _true(sum("watch" in query for _, _, query, _ in api.requests) > 1), what="a new watch")
    api.do(lambda: world.edit(suspend=True))
    assert (await waiting).spec.suspend


async def test_unknown_context_is_named(api: FakeApi) -> None:
    with pytest.raises(ConfigError, match="prod"):
        await AsyncClient.connect(kubeconfig=api.kubeconfig, context="prod")


# -- edits ---------------------------------------------------------------------------------------------------------


async def test_suspend_and_resume_change_the_spec_once(client: AsyncClient, world: World) -> None:
    assert await client.suspend(NAME)
    assert not await client.suspend(NAME)
    assert world.run.spec.suspend
    assert await client.resume(NAME)
    assert not world.run.spec.suspend


async def test_top_up_sets_or_adds_and_says_what_it_buys(client: AsyncClient, world: World) -> None:
    found = await client.top_up(NAME, "+2.5")
    assert (found.before_micro_usd, found.after_micro_usd, found.bought_gpu_seconds) == (10_000_000, 12_500_000, 2_500)
    assert limit(world) == "12.5"
    await client.top_up(NAME, 20)
    assert limit(world) == 20


async def test_two_top_ups_at_once_both_count(api: FakeApi, client: AsyncClient, world: World) -> None:
    async with await AsyncClient.connect(kubeconfig=api.kubeconfig) as other:
        await asyncio.gather(*(each.top_up(NAME, "+5") for each in (client, other) for _ in range(3)))
    assert limit(world) == 40


async def test_top_up_goes_on_when_the_operator_writes_in_between(
    api: FakeApi, client: AsyncClient, world: World
) -> None:
    api.fail(409, "the object has been modified", method="PATCH", times=2)
    await client.top_up(NAME, "+1")
    assert limit(world) == 11


async def test_top_up_that_only_looks_changes_nothing(client: AsyncClient, world: World) -> None:
    assert (await client.top_up(NAME, "+1", dry_run=True)).after_micro_usd == 11_000_000
    assert limit(world) == 10


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("9.99", "only raises"),
        ("+0", "only raises"),
        ("ten", "is no amount"),
        ("+1.2345678", "is no amount"),
        ("+-1", "is no amount"),
        ("+999999999", "largest is"),
    ],
)
async def test_top_up_refuses_what_is_no_raise(client: AsyncClient, world: World, amount: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        await client.top_up(NAME, amount)
    assert limit(world) == 10


# -- waiting -------------------------------------------------------------------------------------------------------


async def test_wait_returns_when_the_condition_holds_and_tells_progress(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    seen: list[str] = []
    waiting = asyncio.create_task(
        client.wait(NAME, "Accepted", timeout_seconds=60, on_progress=lambda run: seen.append(str(run.status.stage)))
    )
    await eventually(lambda: _true(bool(seen)), what="the first look")
    await _settle(api, world)
    assert (await waiting).status.start_time is not None
    assert len(seen) >= 2


async def test_wait_goes_on_through_breaks_and_compacted_versions(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    waiting = asyncio.create_task(client.wait(NAME, "Suspended", timeout_seconds=60))

    def watches() -> int:
        return sum("watch" in query for _, _, query, _ in api.requests)

    await eventually(lambda: _true(watches() == 1), what="the first watch")
    api.cut()
    await eventually(lambda: _true(watches() > 1), what="the watch to go on")
    api.compact()
    api.fail(500, "etcdserver: leader changed", times=2)
    api.cut()
    await eventually(lambda: _true(watches() > 2), what="the watch to begin anew")
    api.do(lambda: world.edit(suspend=True))
    await _settle(api, world)
    assert (await waiting).spec.suspend


async def test_wait_for_the_end_of_a_run_that_failed_says_why_at_once(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    api.do(lambda: world.kube.patch(KIND, NAMESPACE, NAME, _failed))
    with pytest.raises(RunFailed, match="team/demo failed while Complete=True was waited for: Broken: No GPU left"):
        await client.wait(NAME, timeout_seconds=60)
    assert (await client.wait(NAME, "over", timeout_seconds=60)).status.conditions
    assert (await client.wait(NAME, "failed=true", timeout_seconds=60)).status.conditions


async def test_wait_does_not_take_a_status_from_before_an_edit_for_the_answer(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    api.do(lambda: world.kube.patch(KIND, NAMESPACE, NAME, _failed))
    api.do(lambda: world.edit(budget={"limitUSD": 99}))
    with pytest.raises(WaitTimeout):
        await client.wait(NAME, timeout_seconds=0.2)


async def test_wait_gives_up_after_its_time_and_says_that_the_run_goes_on(client: AsyncClient) -> None:
    with pytest.raises(WaitTimeout, match=r"did not come within 0.1 s \(it is (New|nothing yet)\); it goes on"):
        await client.wait(NAME, timeout_seconds=0.1)


async def test_wait_ends_when_the_run_is_deleted(client: AsyncClient, api: FakeApi, world: World) -> None:
    waiting = asyncio.create_task(client.wait(NAME, timeout_seconds=60))
    await eventually(lambda: _true(any("watch" in query for _, _, query, _ in api.requests)), what="the watch")
    api.do(lambda: world.kube.remove(KIND, NAMESPACE, NAME))
    with pytest.raises(RunNotFound, match="was deleted"):
        await waiting


@pytest.mark.parametrize(
    ("condition", "words"), [("Complet", "did you mean Complete"), ("Complete=maybe", "True, False or Unknown")]
)
async def test_wait_refuses_a_condition_that_no_run_has(client: AsyncClient, condition: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        await client.wait(NAME, condition)


async def test_wait_takes_any_function_of_the_run(client: AsyncClient) -> None:
    run = await client.wait(NAME, lambda run: run.spec.budget.limit_usd == 10, timeout_seconds=60)
    assert run.metadata.name == NAME


async def test_wait_ends_when_reading_is_forbidden_in_the_middle(client: AsyncClient, api: FakeApi) -> None:
    waiting = asyncio.create_task(client.wait(NAME, timeout_seconds=60))
    await eventually(lambda: _true(any("watch" in query for _, _, query, _ in api.requests)), what="the watch")
    api.fail(403, "no more")
    api.cut()
    with pytest.raises(Forbidden):
        await waiting


# -- the synchronous client ----------------------------------------------------------------------------------------


def test_synchronous_client_does_the_same_without_a_loop(api: FakeApi, world: World) -> None:
    with Client(kubeconfig=api.kubeconfig) as client:
        assert client.namespace == NAMESPACE
        assert client.apply(resource("other"))[0].result is Result.CREATED
        assert client.create(resource("third")).metadata.name == "third"
        assert [run.metadata.name for run in client.list(all_namespaces=True)] == [NAME, "other", "third"]
        assert client.suspend(NAME)
        assert client.resume(NAME)
        assert client.top_up(NAME, "+5").added_micro_usd == 5_000_000
        assert client.cost().total.share.micro_usd == 0
        assert client.wait(NAME, lambda run: True).metadata.name == NAME
        with pytest.raises(RunNotFound):
            client.get("nobody")
    client.close()


async def test_synchronous_client_works_inside_a_running_loop(api: FakeApi) -> None:
    with Client(kubeconfig=api.kubeconfig) as client:
        assert client.get(NAME).metadata.name == NAME


def test_synchronous_watch_yields_changes_and_ends_with_the_run(api: FakeApi, world: World) -> None:
    with Client(kubeconfig=api.kubeconfig) as client:
        seen = []
        for run in client.watch(NAME):
            seen.append(run.spec.suspend)
            if run.metadata.deletion_timestamp is not None:
                continue
            if run.spec.suspend:
                api.do(lambda: world.kube.remove(KIND, NAMESPACE, NAME))
            else:
                client.suspend(NAME)
    assert seen == [False, True, True]


def test_synchronous_client_leaves_no_thread_when_it_cannot_connect(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError):
        Client(kubeconfig=tmp_path / "none")
    assert threading.active_count() == before


async def test_api_server_that_is_away_is_said_at_once_when_nothing_was_seen_yet(
    client: AsyncClient, api: FakeApi
) -> None:
    api.fail(503, "shutting down")
    with pytest.raises(Unavailable, match="shutting down"):
        await client.wait(NAME, timeout_seconds=60)


async def _true(value: bool) -> bool:
    return value


async def _settle(api: FakeApi, world: World) -> None:
    """Let the operator work, in the server's own thread."""
    done = api.submit(world.settle())
    await asyncio.wrap_future(done)


def _failed(obj: dict[str, Any]) -> None:
    condition = {"type": "Failed", "status": "True", "reason": "Broken", "message": "No GPU left."}
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    obj["status"] = {"stage": "Failed", "observedGeneration": 1, "conditions": [condition]}
