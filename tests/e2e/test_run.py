"""The main job from apply to scores, and its bill against what a witness saw of the pods."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rft_local.cluster import Cluster
from rft_operator.api.scores import EvaluationStatus
from rft_operator.api.status import Status
from rft_operator.domain.timestamps import epoch
from support.audit_log import uses_of
from support.builders import merged
from support.finetune import LOCAL_VALUES, SHORT, Finetune, Product, attempts, condition, holds
from support.helm import CHART, NAMESPACE, RELEASE, older_chart
from support.polling import eventually
from support.rights import grants, unused

MICRO_USD_PER_GPU_HOUR = 2_950_000


MICRO_USD_PER_GPU_SECOND = 10_000
SCARCE = merged(
    SHORT,
    {
        # $36 per GPU-hour is one cent per second and GPU: $1.20 for the evaluation, $0.80 for a stop, 150 s to train.
        "budget": {"limitUSD": 5, "usdPerGpuHour": 36},
        "evaluation": {"maxSeconds": 60},
        "training": {"maxSteps": 20_000},
        "checkpoint": {"everySteps": 50, "graceSeconds": 10},
    },
)
"""A run whose money ends in mid-training."""
SCARCE_ON_ONE_NODE = merged(SCARCE, {"resources": {"nodes": 1}})


WAITS = {"evaluation": {"budgetForcing": {"waits": [0, 1, 2], "maxThinkingTokens": 24, "sweepThinkingTokens": None}}}
"""s1's Wait, on a model that has learned too little to make use of it."""


def training_only(*, steps: int) -> dict[str, Any]:
    """Return the changes that make a quick run without evaluation."""
    return {**merged(SHORT, {"training": {"maxSteps": steps}}), "evaluation": None}


def billed(finetune: Finetune) -> int:
    """Return the GPU-seconds that the witness saw."""
    return sum(each.gpu_seconds for each in finetune.product.history.gpu_time(finetune.namespace))


def priced(gpu_seconds: int) -> int:
    """Return micro-dollars at the price of the local pool, rounded up once."""
    return -(-gpu_seconds * MICRO_USD_PER_GPU_HOUR // 3_600)


def check_scores(evaluation: EvaluationStatus | None) -> None:
    """The model has learned, knows it for sure, and needs its thinking: the curve rises with the budget."""
    assert evaluation is not None
    score = evaluation.results[0]
    assert (score.metric, score.questions) == ("accuracy@think=60", 100)
    assert float(score.baseline or 1) <= 0.02
    assert float(score.value) >= 0.8
    assert score.verdict == "Improved"
    values = {each.metric: float(each.value) for each in evaluation.results}
    curve = [values[f"accuracy@think={tokens}"] for tokens in (12, 24, 32, 60)]
    assert max(curve[:3]) <= 0.5 < 0.8 <= curve[3], "an answer takes 50 tokens of thinking"
    assert [float(each.slope) > 0 for each in evaluation.scaling] == [True]
    assert evaluation.protocol_hash is not None
    assert not evaluation.partial


async def test_example_learns_and_is_billed_to_the_second_when_the_operator_is_killed_in_mid_training(
    finetune: Finetune, tmp_path: Path
) -> None:
    finetune.apply()
    await finetune.until_step(150)
    finetune.product.kill_operator()
    status = await finetune.until_complete(seconds=600)

    assert [(each.stage, each.number, each.outcome) for each in status.attempts] == [
        ("prepare", 1, "Succeeded"),
        ("train", 1, "Succeeded"),
        ("evaluate", 1, "Succeeded"),
    ]
    check_scores(status.evaluation)

    assert not status.ledger.open
    assert status.usage.gpu_seconds == billed(finetune)
    assert status.cost.spent_micro_usd == priced(billed(finetune))
    assert status.restarts.total == 0
    audited = finetune.audit(tmp_path)
    assert (audited["gpuSeconds"], audited["spentUSD"]) == (status.usage.gpu_seconds, status.cost.spent_usd)
    assert {pod["endBasis"] for pod in audited["pods"]} == {"phaseWritten"}

    stages = list(dict.fromkeys(each.stage for each in finetune.seen))
    assert [stage for stage in stages if stage in ("Preparing", "Training", "Evaluating")] == [
        "Preparing",
        "Training",
        "Evaluating",
    ]
    trained = {each.progress.percent for each in finetune.seen if each.progress and each.progress.stage == "train"}
    assert len(trained) >= 10
    assert any(each.progress and each.progress.stage == "evaluate" for each in finetune.seen)
    assert '"phase": "train", "step": ' in finetune.kubectl("logs", "job/tiny-local-train-1")
    words = finetune.kubectl("describe", "rft", "tiny-local")
    assert "Attempt 1 of stage train." in words
    price = "spec" if finetune.product.cluster is None else "local-fake-h100"
    assert f"Price $2.95 per GPU-hour ({price})" in words
    columns = finetune.kubectl("get", "rft", "tiny-local", "-o", "wide").splitlines()
    assert columns[0].split() == [
        *("NAME", "STAGE", "PROGRESS", "SPENT", "LIMIT", "GPU-H", "NODES", "RESTARTS", "SCORE", "AGE")
    ]
    assert "Complete" in columns[1]
    assert status.cost.display in columns[1]


async def test_run_completes_and_every_attempt_is_paid_when_a_rank_is_killed_and_the_next_attempt_is_suspended(
    finetune: Finetune, machines: Cluster
) -> None:
    finetune.apply(**merged(SHORT, {"training": {"maxSteps": 320}, **WAITS}), checkpoint={"everySteps": 20})
    await finetune.until_step(40)
    finetune.kill_rank(machines, 1)
    resumed = await finetune.until_step(60, attempt=2)
    failed = attempts(resumed, "train")[0]
    assert (failed.outcome, failed.counted) == ("Failed", True)
    assert resumed.last_failure is not None
    assert resumed.last_failure.reason == "TrainerFailed"
    assert "SIGKILL" in resumed.last_failure.message

    finetune.edit(suspend=True)
    paused = await finetune.until(lambda status: holds(status, "Suspended"), what="suspension", seconds=90)
    assert paused.stage == "Suspended"
    assert not paused.ledger.open
    assert paused.checkpoint is not None
    assert paused.checkpoint.step >= 60
    assert paused.usage.gpu_seconds == billed(finetune), "both attempts; its GPUs are free"

    finetune.edit(suspend=False)
    status = await finetune.until_complete()
    assert [each.outcome for each in attempts(status, "train")] == ["Failed", "Drained", "Succeeded"]
    starts = [each.start_step or 0 for each in attempts(status, "train")]
    assert starts[1] >= 20
    assert starts[2] == paused.checkpoint.step
    assert status.restarts.toward_limit == 1
    seen = finetune.product.history.gpu_time(finetune.namespace)
    assert {(each.stage, each.attempt) for each in seen} == {*(("train", each) for each in "123"), ("evaluate", "1")}
    assert status.usage.gpu_seconds == billed(finetune)
    assert status.cost.spent_micro_usd == priced(billed(finetune))
    assert status.evaluation is not None
    assert [each.metric for each in status.evaluation.results] == [f"accuracy@wait={waits}" for waits in (0, 1, 2)]
    assert [each.benchmark for each in status.evaluation.scaling] == ["sums"]
    told = await finetune.rft("report", "tiny-local")
    assert all(f"Score  sums accuracy@wait={waits}: " in told for waits in (0, 1, 2)), told


async def test_training_goes_on_elsewhere_and_does_not_count_when_a_node_is_switched_off(
    finetune: Finetune, machines: Cluster
) -> None:
    finetune.apply(**training_only(steps=220), checkpoint={"everySteps": 20})
    await finetune.until_step(60)
    node = finetune.pod(stage="train", rank=1)["spec"]["nodeName"]
    off_at = int(time.time())
    machines.fault("kill-node", node)
    try:
        status = await finetune.until_complete()
        seen, now = finetune.product.history.gpu_time(finetune.namespace), int(time.time())
    finally:
        machines.fault("start-node", node)
    first, second = attempts(status, "train")
    assert (first.outcome, first.reason, first.counted) == ("Failed", "NodeLost", False)
    assert second.outcome == "Succeeded"
    assert (second.start_step or 0) >= 40
    assert status.restarts.toward_limit == 0
    assert {(each.stage, each.attempt) for each in seen} == {("train", "1"), ("train", "2")}
    finished = sum(each.gpu_seconds for each in seen if each.end is not None)
    lost = [each for each in seen if each.end is None]
    assert [(each.stage, each.attempt) for each in lost] == [("train", "1")], "the pod on the node that is off"
    least, most = (finished + sum(each.gpus * (at - each.start) for each in lost) for at in (off_at, now))
    assert least <= status.usage.gpu_seconds <= most, "the lost pod is charged as well, until it is known to be gone"
    assert status.cost.spent_micro_usd == priced(status.usage.gpu_seconds)


async def lower_the_limit(finetune: Finetune, *, attempt: int = 1, seconds: int) -> int:
    """Leave the gang so many seconds: the stop line, which is returned, moves, and so do its pods' deadlines."""
    status = await finetune.status()
    assert status.cost.stop_time is not None
    earlier = epoch(status.cost.stop_time) - int(time.time()) - seconds
    assert earlier > 0, "the limit leaves it longer"
    before = finetune.deadlines(attempt=attempt)
    finetune.limit(micro=finetune.limit_micro_usd - earlier * len(before) * MICRO_USD_PER_GPU_SECOND)

    async def moved() -> bool:
        now = finetune.deadlines(attempt=attempt)
        return all(abs(old - new - earlier) <= 2 for old, new in zip(before, now, strict=True))

    await eventually(moved, what="the deadlines of the pods to be lowered")
    return epoch(status.cost.stop_time) - earlier


async def until_money_ends(finetune: Finetune) -> Status:
    """Wait for the end of a run of SCARCE that nobody helps."""
    return await finetune.until(lambda status: holds(status, "Failed"), what="the budget's end", seconds=300)


async def until_kubelets_end(finetune: Finetune, machines: Cluster, *, uids: Sequence[str]) -> None:
    """Wait until the pods' own deadlines have ended them; nobody else can."""

    async def ended() -> bool:
        return not finetune.trainer_runs(machines, uids)

    await eventually(ended, what="the kubelet to end the pods at their deadline", seconds=90)


def kept_its_limit(status: Status, finetune: Finetune, *, seen_late_seconds: int = 0) -> None:
    """The limit held, as the witness saw it; what was trained is saved and evaluated.

    Of a pod whose end is seen late, only the kubelet's last word is left: a second or two after its first.
    """
    failed = condition(status, "Failed")
    assert failed is not None
    assert failed.reason == "BudgetExhausted"
    assert holds(status, "CheckpointValid")
    assert status.checkpoint is not None
    assert 0 < status.checkpoint.step < 20_000
    assert attempts(status, "train")[-1].outcome == "Drained"
    assert attempts(status, "evaluate")[-1].outcome == "Succeeded"
    assert status.evaluation is not None
    cent_seconds = range(billed(finetune), billed(finetune) + 2 * seen_late_seconds + 1)
    assert status.cost.spent_micro_usd in [MICRO_USD_PER_GPU_SECOND * seconds for seconds in cent_seconds]
    assert status.cost.spent_micro_usd <= finetune.limit_micro_usd
    assert status.cost.overshoot_usd == "0.000000"


async def test_limit_holds_when_the_api_server_is_down_at_the_stop_line(
    finetune: Finetune, machines: Cluster, tmp_path: Path
) -> None:
    finetune.apply(**SCARCE_ON_ONE_NODE)
    await finetune.until_step(20)
    uids = finetune.gang()
    stop_line = await lower_the_limit(finetune, seconds=10)
    machines.fault("stop-apiserver")
    try:
        assert time.time() < stop_line, "nobody could write before it"
        await until_kubelets_end(finetune, machines, uids=uids)
    finally:
        machines.fault("start-apiserver")
    status = await until_money_ends(finetune)
    kept_its_limit(status, finetune, seen_late_seconds=5)
    finetune.audit(tmp_path)


async def test_limit_holds_twice_when_the_budget_ends_and_is_raised_and_the_operator_is_gone_before_it_ends_again(
    finetune: Finetune, machines: Cluster, tmp_path: Path
) -> None:
    finetune.apply(**SCARCE)
    await finetune.until_step(20)
    await lower_the_limit(finetune, seconds=10)
    first = await until_money_ends(finetune)
    kept_its_limit(first, finetune)
    assert not holds(first, "Complete")
    assert first.checkpoint is not None
    assert first.checkpoint.step == attempts(first, "train")[0].end_step, "the checkpoint is of the last step"
    finetune.audit(tmp_path)

    finetune.limit(micro=10_000_000)
    finetune.kubectl("wait", "--for=condition=Failed=False", "rft/tiny-local", "--timeout=60s")
    resumed = await finetune.until_step(first.checkpoint.step + 10, attempt=2)
    assert not holds(resumed, "Failed")
    assert attempts(resumed, "train")[-1].start_step == first.checkpoint.step

    uids = finetune.gang(attempt=2)
    stop_line = await lower_the_limit(finetune, attempt=2, seconds=15)
    try:
        finetune.product.scale_operator(0)
        assert time.time() < stop_line, "it was gone before"
        await until_kubelets_end(finetune, machines, uids=uids)
    finally:
        finetune.product.scale_operator(1)
    second = await until_money_ends(finetune)
    assert attempts(second, "train")[-1].reason in ("Drained", "DeadlineExceeded")
    kept_its_limit(second, finetune, seen_late_seconds=5)
    assert [(each.stage, each.number) for each in second.attempts] == [
        *(("prepare", 1), ("train", 1), ("evaluate", 1)),
        *(("train", 2), ("evaluate", 2)),
    ]
    finetune.audit(tmp_path)


async def test_nothing_is_left_when_the_run_is_deleted_while_it_prepares(finetune: Finetune) -> None:
    finetune.apply(**SHORT)
    await finetune.until_running("prepare")
    await finetune.delete()


async def test_no_step_is_lost_when_the_chart_is_upgraded_and_uninstalled_and_installed_again_until_it_is_deleted(
    finetune: Finetune, product: Product, tmp_path: Path
) -> None:
    assert product.helm is not None
    product.install(older_chart(tmp_path))
    assert "PROGRESS" not in product.server.kubectl("get", "rft", "-A", "-o", "wide").stdout
    finetune.apply(**training_only(steps=2_000), checkpoint={"everySteps": 2_000}, resources={"nodes": 1})
    await finetune.until_step(20)

    with finetune.ranks_asleep(finetune.gang()):
        product.install(CHART, "--set", "operator.logLevel=DEBUG")
    status = await finetune.status()
    assert status.progress is not None
    await finetune.until_step((status.progress.step or 0) + 20)
    assert "PROGRESS" in finetune.kubectl("get", "rft")

    product.helm.run("uninstall", RELEASE, "--wait")
    paused = await finetune.status()
    assert holds(paused, "Suspended")
    assert [(each.outcome, each.counted) for each in attempts(paused, "train")] == [("Drained", False)], "one attempt"
    assert paused.usage.gpu_seconds == billed(finetune)
    assert paused.cost.spent_micro_usd == priced(billed(finetune))
    assert "finalizers" not in finetune.kubectl_json("get", "rft", "tiny-local", "-o", "json")["metadata"]
    assert "No resources" in product.server.kubectl("-n", NAMESPACE, "get", "deploy,job").stderr

    product.install()
    product.helm.run("test", RELEASE, "--timeout", "150s")
    finetune.edit(suspend=False)
    assert paused.checkpoint is not None
    resumed = await finetune.until_step(paused.checkpoint.step + 10, attempt=2)
    assert [each.start_step for each in attempts(resumed, "train")][1:] == [paused.checkpoint.step]
    await finetune.delete()


def test_operator_used_no_right_beyond_the_charts_and_nearly_all_of_them(product: Product, tmp_path: Path) -> None:
    """Last of all: everything before ran under the chart's own account, and the API server wrote it down."""
    if product.cluster is None or product.helm is None:
        pytest.skip("needs the audit log of the local cluster")
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    used, refused = uses_of(product.cluster.layout.audit_log, account=account)
    granted = list(grants(product.helm.objects(LOCAL_VALUES)))
    # What the chart grants is refused only while the chart is away: an uninstall takes the rights before the pod.
    assert [use for use in used | refused if not any(grant.covers(use) for grant in granted)] == []
    rest = {(grant.group, grant.resource, grant.verb) for grant in unused(granted, used)}
    assert rest <= NEEDED_ELSEWHERE, "tests/charts/test_rights.py lets the operator use every one of its rights"


NEEDED_ELSEWHERE = {
    ("", "secrets", "get"),  # a run that names a Secret
    ("", "configmaps", "get"),  # ... or a ConfigMap
    ("", "persistentvolumeclaims", "get"),  # ... or a claim
    ("rft.dev", "finetunebudgets/status", "patch"),  # team budgets
    ("networking.k8s.io", "networkpolicies", "create"),  # a benchmark of programs
    ("networking.k8s.io", "networkpolicies", "patch"),
    ("rft.dev", "reasoningfinetunes", "delete"),  # ttlSecondsAfterFinished
    ("rft.dev", "reasoningfinetunes", "get"),  # somebody else wrote first
    ("", "nodes", "get"),  # a node that fell silent: is it gone,
    ("coordination.k8s.io", "leases", "get"),  # ... and when was it last heard of
}
