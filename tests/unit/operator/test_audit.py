"""The audit: the bill computed anew from a dump of API objects, and every difference to the status found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_operator.api import KIND
from rft_operator.cli.main import main
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE, node
from support.objects import stored_child, stored_run
from support.stage import START, World

NOW = "2026-01-01T02:00:00Z"
CATALOGUE = """\
version: 1
prices:
- {name: local, match: {instanceType: rft-local}, usdPerHour: "2.95"}
- {name: dearer, match: {instanceType: rft-local}, usdPerHour: "5.90", effectiveFrom: "2026-01-01T01:30:00Z"}
"""


def pod(
    name: str = "demo-train-1-0",
    *,
    gpus: int = 8,
    bound: str = "00:00:00",
    started: str | None = "00:00:20",
    written: str | None = None,
    finished: str | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """Return a pod as kubectl prints it; ``written`` is the time of its terminal phase."""

    def at(clock: str | None) -> str:
        return f"2026-01-01T{clock}Z"

    state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
    if started is not None:
        state = {"running": {"startedAt": at(started)}}
    if finished is not None:
        state = {"terminated": {"exitCode": 1, "startedAt": at(started), "finishedAt": at(finished)}}
    managed = (
        [{"manager": "kubelet", "time": at(written), "fieldsV1": {"f:status": {"f:phase": {}}}}] if written else []
    )
    return stored_child(
        "Pod",
        name,
        uid=f"uid-{name}",
        metadata={"creationTimestamp": at("00:00:00"), "managedFields": managed, **metadata},
        spec={
            "nodeName": "node-1",
            "containers": [{"name": "trainer", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}],
        },
        status={
            "phase": "Failed" if finished else "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(bound)}],
            "containerStatuses": [{"name": "trainer", "state": state}],
        },
    )


class Desk:
    """Runs the command on a dump."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prices = folder / "prices.yaml"
        self.prices.write_text(CATALOGUE, encoding="utf-8")

    def run(self, *items: Any, arguments: tuple[str, ...] = (), prices: bool = True) -> Result:
        return self.audit(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}), arguments, prices=prices)

    def audit(self, text: str, arguments: tuple[str, ...] = (), *, prices: bool = True) -> Result:
        file = self.folder / "dump.json"
        file.write_text(text, encoding="utf-8")
        priced = ("--prices", str(self.prices)) if prices else ()
        return CliRunner().invoke(main, ["audit", "-f", str(file), "--now", NOW, *priced, *arguments])

    def report(self, *items: Any) -> Any:
        result = self.run(*items, arguments=("-o", "json"))
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_ended_pod_is_charged_from_its_binding_to_the_write_of_its_phase(desk: Desk) -> None:
    report = desk.report(pod(written="01:00:02", finished="01:00:01"), node())
    assert report["pods"] == [
        {
            "uid": "uid-demo-train-1-0",
            "namespace": NAMESPACE,
            "name": "demo-train-1-0",
            "finetune": NAME,
            "stage": "train",
            "attempt": 1,
            "node": "node-1",
            "gpus": 8,
            "start": "2026-01-01T00:00:00Z",
            "startBasis": "podScheduled",
            "end": "2026-01-01T01:00:02Z",
            "endBasis": "phaseWritten",
            "gpuSeconds": 28_816,
            "usdPerGpuHour": "2.950000",
            "microUSD": 23_613_112,
            "wasteGpuSeconds": {"pull": 160},
            "disputedGpuSeconds": 0,
            "estimatedGpuSeconds": 0,
        }
    ]


def test_totals_are_rounded_once_and_are_not_the_sum_of_rounded_rows(desk: Desk) -> None:
    pods = [pod(f"demo-train-1-{index}", gpus=1, written="00:00:01", finished="00:00:01") for index in range(3)]
    report = desk.report(*pods, node())
    assert [each["microUSD"] for each in report["pods"]] == [820, 820, 820]  # 819.44...
    assert (report["gpuSeconds"], report["microUSD"], report["spentUSD"]) == (3, 2_459, "0.002459")
    assert report["finetunes"] == [
        {"namespace": NAMESPACE, "name": NAME, "gpuSeconds": 3, "microUSD": 2_459, "spentUSD": "0.002459"}
    ]
    assert (report["version"], report["now"]) == (1, NOW)


def test_running_pod_is_charged_until_now_and_has_no_end(desk: Desk) -> None:
    (row,) = desk.report(pod(gpus=2), node())["pods"]
    assert (row["end"], row["endBasis"], row["gpuSeconds"]) == (None, None, 2 * 7_200)


def test_price_is_that_of_the_binding_when_it_rose_since(desk: Desk) -> None:
    early, late = pod("early", bound="01:29:59"), pod("late", bound="01:30:00")
    rows = {row["name"]: row["usdPerGpuHour"] for row in desk.report(early, late, node())["pods"]}
    assert rows == {"early": "2.950000", "late": "5.900000"}


def test_container_end_stands_in_when_the_dump_has_no_managed_fields(desk: Desk) -> None:
    result = desk.run(pod(finished="01:00:00"), node(), arguments=("-o", "json"))
    (row,) = json.loads(result.stdout)["pods"]
    assert (row["end"], row["endBasis"]) == ("2026-01-01T01:00:01Z", "finishedAt")
    assert "--show-managed-fields" in result.stderr


def test_end_reported_late_is_charged_and_disputed(desk: Desk) -> None:
    (row,) = desk.report(pod(written="01:00:40", finished="01:00:00"), node())["pods"]
    assert (row["gpuSeconds"], row["disputedGpuSeconds"]) == (8 * 3_640, 8 * 40)


def test_pod_on_a_silent_node_is_charged_until_now_and_disputed(desk: Desk) -> None:
    (row,) = desk.report(pod(), node(ready=False, since="2026-01-01T01:00:00Z"))["pods"]
    assert (row["gpuSeconds"], row["disputedGpuSeconds"]) == (8 * 7_200, 8 * 3_600)
    assert row["wasteGpuSeconds"]["nodeLost"] == 8 * 3_600


def test_pod_without_gpus_or_without_a_node_is_no_row(desk: Desk) -> None:
    waiting = pod("waiting")
    waiting["spec"].pop("nodeName")
    waiting["status"]["conditions"][0]["status"] = "False"
    assert desk.report(pod("launcher", gpus=0), waiting, node())["pods"] == []


def test_stranger_in_the_dump_is_left_alone(desk: Desk) -> None:
    stranger = pod()
    stranger["metadata"]["labels"] = {"app": "web"}
    assert desk.report(stranger, node())["pods"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "the dump is no JSON"),
        ("[]", "must be a List of objects"),
        ('{"kind": "Pod", "metadata": {"name": "a"}}', "but is 'Pod'"),
        ('{"kind": "List", "items": [3]}', "items[0] of the dump is no API object"),
        ('{"kind": "List", "items": [{"kind": "Node", "metadata": {}}]}', "Node items[0] of the dump cannot be read"),
        (
            '{"kind": "List", "items": [{"kind": "ReasoningFinetune", "metadata": {"name": "a", "namespace": "b"}}]}',
            "ReasoningFinetune a of the dump cannot be read",
        ),
    ],
)
def test_dump_that_is_none_is_refused_with_the_way_to_make_one(desk: Desk, text: str, words: str) -> None:
    result = desk.audit(text)
    assert result.exit_code == 2
    assert words in result.output
    assert "kubectl get pods,nodes,jobs,rft" in result.output


def test_missing_price_is_an_error_with_its_remedy_and_never_zero(desk: Desk) -> None:
    without = desk.run(pod(), node(), prices=False)
    assert (without.exit_code, "give the catalogue with --prices" in without.output) == (2, True)
    other = node()
    other["metadata"]["labels"] = {}
    unmatched = desk.run(pod(), other)
    assert (unmatched.exit_code, "no entry" in unmatched.output) == (2, True)
    assert "the dump has no such node" in desk.run(pod()).output
    desk.prices.write_text(CATALOGUE.replace('"2.95"', "2.95").replace('"5.90"', "5.90"), encoding="utf-8")
    assert "left out of the catalogue: prices[0].usdPerHour" in desk.run(pod(), node()).output


def test_bad_arguments_name_the_value_and_the_remedy(desk: Desk, tmp_path: Path) -> None:
    assert "--now 'noon' is no instant" in desk.run(arguments=("--now", "noon")).output
    absent = desk.run(arguments=("--prices", str(tmp_path / "absent.yaml")))
    assert (absent.exit_code, "cannot be read" in absent.output) == (2, True)


# -- against a status ---------------------------------------------------------------------------------------------


async def world_with_a_bill() -> World:
    """A run that was trained and is being evaluated."""
    world = World()
    await world.to_training()
    await world.after(600)
    await world.to_evaluation(seconds=100)
    return world


def dump_of(world: World) -> list[dict[str, Any]]:
    kinds = ("Pod", "Node", "Job", KIND)
    return [copy.deepcopy(obj) for kind in kinds for obj in world.kube.find(kind)]


def audited(desk: Desk, items: list[dict[str, Any]], world: World) -> Result:
    return desk.run(*items, arguments=("--now", rfc3339(world.now)), prices=False)


async def test_status_agrees_when_the_operator_wrote_it(desk: Desk) -> None:
    world = await world_with_a_bill()
    items = dump_of(world)
    result = audited(desk, items, world)
    assert result.exit_code == 0, result.output
    assert "status agrees" in result.output
    world.complete(Stage.EVALUATE)
    await world.after(60)
    finished = audited(desk, dump_of(world), world)
    assert finished.exit_code == 0, finished.output
    assert f"status agrees\n\nTotal: {world.status.usage.gpu_seconds} GPU-seconds" in finished.output


def labelled(capacity_type: str) -> Callable[[dict[str, Any]], None]:
    return lambda obj: obj["metadata"]["labels"].update({"karpenter.sh/capacity-type": capacity_type})


async def test_status_agrees_when_a_gang_runs_on_two_kinds_of_nodes(desk: Desk) -> None:
    world = World()
    world.kube.patch("Node", "", "node-1", labelled("spot"))
    world.kube.patch("Node", "", "node-2", labelled("on-demand"))
    await world.to_training()
    await world.after(600)
    running = audited(desk, dump_of(world), world)
    assert running.exit_code == 0, running.output
    world.complete(Stage.TRAIN)
    await world.after(60)
    assert len(world.status.ledger.totals) == 2
    ended = audited(desk, dump_of(world), world)
    assert ended.exit_code == 0, ended.output


async def floating_world(desk: Desk, *, rise_after: int) -> World:
    """A run whose gang is bound 6 s after the start, and whose price rises as it was announced."""
    world = World(budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": 100})
    text = CATALOGUE.replace("2026-01-01T01:30:00Z", rfc3339(START + rise_after))
    desk.prices.write_text(text, encoding="utf-8")
    world.catalogue, problems = PriceCatalogue.parse(text)
    assert not problems
    await world.to_training()
    return world


@pytest.mark.parametrize("ended", [False, True])
async def test_status_agrees_when_a_floating_price_rose_as_announced(desk: Desk, ended: bool) -> None:
    world = await floating_world(desk, rise_after=107)
    await world.after(300)
    if ended:
        world.complete(Stage.TRAIN)
        await world.after(60)
    result = desk.run(*dump_of(world), arguments=("--now", rfc3339(world.now)))
    assert result.exit_code == 0, result.output
    assert world.status.cost.spent_micro_usd > world.status.usage.gpu_seconds * 2_950_000 / 3_600


async def test_status_agrees_when_the_price_rose_between_the_operators_last_look_and_the_dump(desk: Desk) -> None:
    world = await floating_world(desk, rise_after=107)
    await world.after(60)
    world.now += 55  # the dump is made 15 s after the rise
    result = desk.run(*dump_of(world), arguments=("--now", rfc3339(world.now)))
    assert result.exit_code == 0, result.output


async def test_floating_prices_of_a_node_that_is_gone_are_taken_from_the_record(desk: Desk) -> None:
    world = await floating_world(desk, rise_after=107)
    await world.after(300)
    world.complete(Stage.TRAIN)
    await world.after(60)
    items = [each for each in dump_of(world) if each["metadata"]["name"] != "node-2"]
    result = desk.run(*items, arguments=("--now", rfc3339(world.now)))
    assert result.exit_code == 0, result.output
    assert "on record of train 1, evaluate 1, whose pods or nodes are gone" in result.output


async def test_total_at_a_former_price_is_found_when_it_is_off_by_one(desk: Desk) -> None:
    world = await floating_world(desk, rise_after=107)
    await world.after(300)
    items = dump_of(world)
    fold_less(next(each["status"] for each in items if each["kind"] == KIND))
    result = desk.run(*items, arguments=("--now", rfc3339(world.now)))
    assert result.exit_code == 1
    assert "status.ledger.totals of stage train" in result.output


async def test_one_pod_of_a_gang_that_is_gone_is_taken_from_the_record(desk: Desk) -> None:
    world = await world_with_a_bill()
    items = [each for each in dump_of(world) if each["metadata"]["name"] != "demo-train-1-1-x"]
    assert len(items) == len(dump_of(world)) - 1
    result = audited(desk, items, world)
    assert result.exit_code == 0, result.output
    assert "on record of train 1, whose pods or nodes are gone" in result.output


Tamper = Callable[[dict[str, Any]], None]


def spend_less(status: dict[str, Any]) -> None:
    status["cost"]["spentMicroUSD"] -= 1


def hold_less(status: dict[str, Any]) -> None:
    status["usage"]["gpuSeconds"] -= 1


def fold_less(status: dict[str, Any]) -> None:
    (total,) = [each for each in status["ledger"]["totals"] if each["stage"] == "train"]
    total["gpuSeconds"] -= 1
    status["usage"]["gpuSeconds"] -= 1


def start_later(status: dict[str, Any]) -> None:
    status["ledger"]["open"][0]["startTime"] = "2026-01-01T00:30:00Z"


def forget(status: dict[str, Any]) -> None:
    status["ledger"]["open"] = []


@pytest.mark.parametrize("tamper", [spend_less, hold_less, fold_less, start_later, forget])
async def test_status_disagrees_when_one_of_its_sums_is_off_by_one(desk: Desk, tamper: Tamper) -> None:
    world = await world_with_a_bill()
    items = dump_of(world)
    tamper(next(each["status"] for each in items if each["kind"] == KIND))
    result = audited(desk, items, world)
    assert result.exit_code == 1, result.output
    assert "DISAGREES: " in result.output


async def test_pods_that_are_gone_are_named_and_taken_from_the_record(desk: Desk) -> None:
    world = World()
    await world.to_training()
    await world.after(100)
    world.edit(suspend=True)
    await world.after(1)
    world.drain(Stage.TRAIN)
    await world.after(60)
    assert not world.pods(Stage.TRAIN)
    world.edit(suspend=False)
    await world.after(1)
    world.run_pods(Stage.TRAIN, 2)
    await world.after(50)
    result = audited(desk, dump_of(world), world)
    assert result.exit_code == 0, result.output
    assert "on record of train 1, whose pods or nodes are gone" in result.output


def test_status_without_a_ledger_is_compared_by_its_sums(desk: Desk) -> None:
    ended = pod(written="01:00:00", finished="01:00:00")
    for spent, code in ((28_800_000, 0), (28_799_999, 1)):
        status = {"usage": {"gpuSeconds": 28_800}, "cost": {"spentMicroUSD": spent}}
        assert desk.run(ended, node(), stored_run(status=status)).exit_code == code


def test_pod_that_is_in_the_dump_twice_is_charged_once(desk: Desk) -> None:
    running, ended = pod(), pod(written="01:00:00", finished="01:00:00")
    running["metadata"]["resourceVersion"], ended["metadata"]["resourceVersion"] = "9", "10"
    for items in ((running, ended), (ended, running)):
        (row,) = desk.report(*items, node())["pods"]
        assert row["gpuSeconds"] == 8 * 3_600


def ended(clock: str) -> dict[str, Any]:
    state = {"startedAt": "2026-01-01T00:00:05Z", "finishedAt": f"2026-01-01T{clock}Z"}
    return {"name": "init", "state": {"terminated": state}}


def test_sidecar_that_ends_last_and_an_init_step_that_fails_bound_the_charge(desk: Desk) -> None:
    late = pod(finished="01:00:00")
    late["status"]["initContainerStatuses"] = [
        {
            "name": "sidecar",
            "state": {"terminated": {"startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T01:05:00Z"}},
        }
    ]
    failed = pod("failed", started=None)
    failed["status"] |= {"phase": "Failed", "containerStatuses": []}
    failed["status"]["initContainerStatuses"] = [
        {
            "name": "init",
            "state": {"terminated": {"startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T00:10:00Z"}},
        }
    ]
    rows = {row["name"]: row for row in desk.report(late, failed, node())["pods"]}
    assert rows["demo-train-1-0"]["end"] == "2026-01-01T01:05:01Z"
    assert rows["failed"]["end"] == "2026-01-01T00:10:01Z"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.update(status="x"),
        lambda raw: raw["metadata"].update(managedFields=[None]),
        lambda raw: raw["spec"].update(containers=[None]),
        lambda raw: raw["metadata"].pop("uid"),
    ],
)
def test_object_that_is_no_object_is_an_error_and_no_disagreement(desk: Desk, spoil: Callable[[Any], Any]) -> None:
    broken = pod(written="01:00:00", finished="01:00:00")
    spoil(broken)
    result = desk.run(broken, node())
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert "of the dump cannot be read" in result.output


def strange(name: str, **status: Any) -> dict[str, Any]:
    """Return a run that another version wrote."""
    run = stored_run(name=name, uid=f"uid-{name}", status=status)
    return {**run, "spec": {**run["spec"], "shape": "round"}}


def test_run_of_another_version_hides_neither_the_bill_of_the_others_nor_its_own(desk: Desk) -> None:
    ended = pod(written="01:00:00", finished="01:00:00")
    result = desk.run(ended, node(), stored_run(), strange("other"))
    assert "$28.800000 by the pods of the dump" in result.stdout
    assert "shape" in result.stderr
    readable = desk.run(ended, node(), strange(NAME, cost={"spentMicroUSD": 1}))
    assert (readable.exit_code, "DISAGREES: status.cost.spentMicroUSD is 1" in readable.stdout) == (1, True)


def test_run_whose_ledger_cannot_be_read_is_a_finding_and_no_agreement(desk: Desk) -> None:
    result = desk.run(node(), strange("other", ledger={"open": "many"}))
    assert result.exit_code == 1
    assert "its bill cannot be read" in result.stdout
    assert "status agrees" not in result.stdout


def test_edited_catalogue_is_named_when_it_differs_from_the_price_on_record(desk: Desk) -> None:
    entry = {
        "uid": "uid-demo-train-1-0",
        "pod": "demo-train-1-0",
        "stage": "train",
        "attempt": 1,
        "node": "node-1",
        "gpus": 8,
        "microUSDPerGpuHour": 1_000_000,
        "priceSource": "local",
        "startTime": "2026-01-01T00:00:00Z",
    }
    run = stored_run(status={"startTime": "2026-01-01T00:00:00Z", "ledger": {"open": [entry]}})
    run["spec"]["budget"].pop("usdPerGpuHour")
    result = desk.run(pod(), node(), run)
    assert result.exit_code == 1
    assert "was it edited since the pod was bound?" in result.output


def show_less_of_a_stage(status: dict[str, Any]) -> None:
    status["usage"]["byStage"][0]["spentUSD"] = "0.000001"


def show_no_stage(status: dict[str, Any]) -> None:
    status["usage"]["byStage"].pop()


@pytest.mark.parametrize("tamper", [show_less_of_a_stage, show_no_stage])
async def test_status_disagrees_when_the_split_by_stage_is_not_the_ledgers(desk: Desk, tamper: Tamper) -> None:
    world = await world_with_a_bill()
    items = dump_of(world)
    tamper(next(each["status"] for each in items if each["kind"] == KIND))
    result = audited(desk, items, world)
    assert (result.exit_code, "status.usage.byStage" in result.output) == (1, True), result.output


TWO_PRICES = """\
version: 1
prices:
- {name: spot, match: {labels: {karpenter.sh/capacity-type: spot}}, usdPerHour: "1"}
- {name: on-demand, match: {labels: {karpenter.sh/capacity-type: on-demand}}, usdPerHour: "3"}
"""


@pytest.mark.parametrize("off", [False, True])
async def test_money_is_not_compared_when_the_dump_does_not_say_what_an_ended_pod_was_bound_at(
    desk: Desk, off: bool
) -> None:
    world = World(budget={"usdPerGpuHour": None})
    world.kube.patch("Node", "", "node-1", labelled("spot"))
    world.kube.patch("Node", "", "node-2", labelled("on-demand"))
    world.catalogue, problems = PriceCatalogue.parse(TWO_PRICES)
    assert not problems
    await world.to_training()
    await world.after(600)
    world.complete(Stage.TRAIN)
    await world.after(60)
    items = dump_of(world)
    if off:
        status = next(each["status"] for each in items if each["kind"] == KIND)
        status["ledger"]["totals"][0]["gpuSeconds"] -= 1
    result = audited(desk, items, world)
    assert result.exit_code == int(off), result.output
    assert "give the catalogue with --prices" in result.output
    desk.prices.write_text(TWO_PRICES, encoding="utf-8")
    told = desk.run(*items, arguments=("--now", rfc3339(world.now)))
    assert told.exit_code == int(off), told.output
    assert "give the catalogue with --prices" not in told.output


@pytest.mark.parametrize("folded", [False, True])
async def test_end_that_no_timestamp_proves_is_taken_from_the_record(desk: Desk, folded: bool) -> None:
    """The node went with all that its kubelet could say, and the operator saw the end when it looked."""
    world = World(evaluation=None)
    await world.to_training()
    await world.after(600)
    world.complete(Stage.TRAIN)
    for pod in world.pods(Stage.TRAIN):
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], forget_times)
    for _ in range(20 if folded else 1):
        await world.reconciler.reconcile(world.key)
    assert bool(world.status.ledger.totals) is folded
    world.now += 100
    result = audited(desk, dump_of(world), world)
    assert result.exit_code == 0, result.output


def forget_times(obj: dict[str, Any]) -> None:
    obj["metadata"].pop("managedFields")
    for status in obj["status"]["containerStatuses"]:
        status["state"]["terminated"].pop("finishedAt")


async def test_end_of_a_pod_whose_node_went_is_the_operators_when_its_collection_is_written_later(desk: Desk) -> None:
    world = World()
    await world.to_training()
    await world.after(100)
    world.kube.remove("Node", "", "node-2")
    await world.reconciler.reconcile(world.key)
    assert [each.end_basis for each in world.status.ledger.uncounted] == ["nodeGone"]
    world.now += 40
    world.set_status(world.pods(Stage.TRAIN)[1], phase="Failed", exit_code=137)
    result = audited(desk, dump_of(world), world)
    assert result.exit_code == 0, result.output


def test_pod_of_a_deleted_namesake_is_left_out_and_named(desk: Desk) -> None:
    """Its node does not answer, and its bill was closed when its run was deleted."""
    stranger = pod()
    run = stored_run(metadata={"creationTimestamp": "2026-01-01T01:00:00Z"}, status={"ledger": {}, "startTime": NOW})
    result = desk.run(stranger, node(ready=False), run)
    assert result.exit_code == 0, result.output
    assert f"on the bill of a deleted one: {NAMESPACE}/demo-train-1-0" in result.stderr
    assert "No pod of a ReasoningFinetune in the dump held a GPU." in result.stdout


async def test_pod_that_somebody_took_away_is_taken_from_the_record_when_its_job_made_it_anew(desk: Desk) -> None:
    world = World()
    await world.to_training()
    await world.after(100)
    name = world.pods(Stage.TRAIN)[1]["metadata"]["name"]
    world.kube.patch("Pod", NAMESPACE, name, lambda obj: obj["metadata"].update(finalizers=[]))
    world.kube.remove("Pod", NAMESPACE, name)
    world.create_pods(Stage.TRAIN, suffix="y", ranks=[1])
    world.bind(world.pods(Stage.TRAIN)[1], "node-2")
    await world.after(20)
    assert world.status.usage.estimated_gpu_seconds
    result = audited(desk, dump_of(world), world)
    assert result.exit_code == 0, result.output
    assert "on record of train (" in result.output
