"""A small world for the operator's core: fake API server, clock, cache, reconciler, and somebody who plays the
Job controller, the scheduler and the kubelet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Key, Report, Settings
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.errors import Conflict, KubeError
from rft_operator.metrics import Metrics
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.reconciler import Reconciler
from rft_operator.runtime.sweep import KINDS
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import EvaluateSummary, PrepareSummary, PublishSummary, Score, StageResult, TrainSummary
from support.builders import NAME, NAMESPACE, merged, node, resource
from support.fake_kube import FakeKube

WATCHED = {*KINDS, "Node"}
START = epoch("2026-01-01T00:00:00Z")
SUMMARIES: dict[Stage, dict[str, Any]] = {
    Stage.PREPARE: {
        "prepare": PrepareSummary(
            rows=100, dropped_rows=0, tokens=5_000, target_tokens=2_000, steps=50, parameters=1_000, dataset_sha256="ab"
        )
    },
    Stage.TRAIN: {
        "train": TrainSummary(
            step=50,
            total_steps=50,
            tokens=5_000,
            checkpoint_step=50,
            checkpoint_path="/rft/data/x",
            checkpoint_seconds=2,
        )
    },
    Stage.EVALUATE: {
        "evaluate": EvaluateSummary(
            scores=(
                Score(
                    benchmark="sums",
                    metric="accuracy",
                    value=0.9,
                    stderr=0.01,
                    interval=(0.826, 0.945),
                    questions=100,
                    samples=1,
                    no_answer=2,
                    baseline=0.0,
                    comparison="paired",
                    wins=90,
                    losses=0,
                    p_value=1e-20,
                    verdict="Improved",
                ),
            )
        )
    },
}

SUMMARIES[Stage.SCORE] = SUMMARIES[Stage.EVALUATE]
SUMMARIES[Stage.PUBLISH] = {
    "publish": PublishSummary(uri="hf://team/s1", revision="c0ffee", files=14, bytes=15_231_000_000)
}
ANSWERED = StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=EvaluateSummary(scores=(), pending=60))
"""An evaluation whose answers are programs."""
PART = Score(benchmark="code", metric="accuracy", value=0.5, stderr=0.2, questions=8, samples=1, of_answers=100)
SCORED_IN_PART = StageResult(
    stage=Stage.SCORE, outcome=Outcome.COMPLETED, evaluate=EvaluateSummary(scores=(PART,), stopped="deadline")
)
"""What came of the programs of an evaluation that its bound had ended."""


def answered_in_part(stopped: Literal["deadline", "asked"]) -> StageResult:
    """Such an evaluation, before its programs are run."""
    error = "evaluation.maxSeconds is used up: 8 answers are programs that wait to be run; the answers are kept"
    summary = EvaluateSummary(scores=(), pending=8, stopped=stopped)
    return StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, error=error, evaluate=summary)


class World:
    """A run in a fake cluster; ``key`` says which one, where a test has several."""

    kube_type: type[FakeKube] = FakeKube

    def __init__(self, *, nodes: int = 2, settings: Settings | None = None, **spec: Any) -> None:
        self.now = START
        self.kube = self.kube_type(lambda: self.now)
        self.key = Key(NAMESPACE, NAME)
        self.catalogue = PriceCatalogue()
        self.settings = settings or Settings(
            trainer_image="rft.local/trainer:dev", progress_url="https://rft:8443", progress_ca="PEM"
        )
        self.metrics = Metrics()
        for index in range(nodes):
            self.kube.put(node(f"node-{index + 1}"))
        self.kube.put(resource(**spec))
        self.restart_operator()

    def restart_operator(self) -> None:
        """Lose all memory, as a SIGKILL does; a sweep fills the cache again."""
        self.cache = Cache()
        self.kube.subscribers = [self._watch]
        for obj in list(self.kube.objects.values()):
            if obj["kind"] in WATCHED:
                self.cache.put(obj)
        self.reconciler = Reconciler(
            kube=self.kube,
            cache=self.cache,
            settings=lambda: self.settings,
            catalogue=lambda: self.catalogue,
            now=lambda: self.now,
            metrics=self.metrics,
        )

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if kind not in WATCHED:
            return
        if type_ == "DELETED":
            self.cache.drop(obj)
        else:
            self.cache.put(obj)

    async def settle(self, most: int = 20) -> int:
        """Reconcile until nothing is written any more; return the number of writes."""
        total = 0
        for _ in range(most):
            before = self.kube.writes
            try:
                await self.reconciler.reconcile(self.key)
            except Conflict:  # as the app does: somebody else wrote, so read again
                self.cache.put(await self.kube.get(kind="ReasoningFinetune", namespace=NAMESPACE, name=self.key.name))
            except KubeError:
                self.kube.writes += 1
            written = self.kube.writes - before
            total += written
            if written == 0:
                return total
        raise AssertionError(f"the run does not come to rest: {self.status}")

    async def after(self, seconds: int) -> None:
        """Let time pass, then reconcile to rest."""
        self.now += seconds
        await self.settle()

    @property
    def run(self) -> ReasoningFinetune:
        return ReasoningFinetune.parse(self.kube.objects["ReasoningFinetune", NAMESPACE, self.key.name])

    @property
    def status(self) -> Any:
        return self.run.status

    def condition(self, type_: str) -> Any:
        return next((each for each in self.status.conditions if each.type == type_), None)

    def reasons(self) -> list[str]:
        """Reasons of all Events, in order."""
        return [reason for _, reason, _ in self.kube.events]

    def edit(self, **change: Any) -> None:
        """Change the spec as a user does."""

        def write(obj: dict[str, Any]) -> None:
            obj["spec"] = merged(obj["spec"], change)
            obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1

        self.kube.patch("ReasoningFinetune", NAMESPACE, self.key.name, write)

    # -- the cluster's own controllers ------------------------------------------------------------------------

    def job(self, stage: Stage, attempt: int = 1) -> dict[str, Any]:
        return self.kube.objects["Job", NAMESPACE, f"{self.key.name}-{stage.value}-{attempt}"]

    def pods(self, stage: Stage, attempt: int = 1) -> list[dict[str, Any]]:
        wanted = {
            "rft.dev/finetune": self.key.name,
            "rft.dev/stage": stage.value,
            "rft.dev/attempt": str(attempt),
        }
        return [pod for pod in self.kube.find("Pod") if wanted.items() <= pod["metadata"]["labels"].items()]

    def create_pods(
        self, stage: Stage, attempt: int = 1, *, suffix: str = "x", ranks: Sequence[int] | None = None
    ) -> None:
        """The Job controller makes the pods, all or some ranks; their names end in ``suffix``."""
        job = self.job(stage, attempt)
        template = job["spec"]["template"]
        for index in ranks if ranks is not None else range(job["spec"]["parallelism"]):
            meta = {
                **template["metadata"],
                "name": f"{job['metadata']['name']}-{index}-{suffix}",
                "namespace": NAMESPACE,
                "ownerReferences": [{"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}],
            }
            meta["labels"] = {**meta["labels"], "batch.kubernetes.io/job-completion-index": str(index)}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
            self.kube.put({**pod, "status": {"phase": "Pending"}})

    def run_pods(self, stage: Stage, attempt: int = 1) -> None:
        """The scheduler binds the pods and the kubelet starts them."""
        self.create_pods(stage, attempt)
        for index, pod in enumerate(self.pods(stage, attempt)):
            self.bind(pod, f"node-{index + 1}")
            self.set_status(pod, phase="Running", running=True)

    def bind(self, pod: dict[str, Any], node_name: str) -> None:
        def write(obj: dict[str, Any]) -> None:
            obj["spec"] = {**obj["spec"], "nodeName": node_name}
            obj["status"]["conditions"] = [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(self.now)}
            ]

        self.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)

    def set_status(
        self,
        pod: dict[str, Any],
        *,
        phase: str,
        running: bool = False,
        exit_code: int | None = None,
        message: str = "",
        reason: str = "",
    ) -> None:
        def write(obj: dict[str, Any]) -> None:
            status = obj["status"]
            status["phase"] = phase
            stamp = rfc3339(self.now)
            before = (status.get("containerStatuses") or [{}])[0].get("state", {}).get("running", {})
            if running:
                status.setdefault("startTime", stamp)
                status["conditions"] = [*status.get("conditions", ()), {"type": "Ready", "status": "True"}]
                state: dict[str, Any] = {"running": {"startedAt": stamp}}
            else:
                state = {
                    "terminated": {
                        "exitCode": exit_code,
                        "finishedAt": stamp,
                        "startedAt": before.get("startedAt", stamp),
                        "message": message,
                        "reason": reason,
                    }
                }
            status["containerStatuses"] = [{"name": "trainer", "state": state}]
            if not running:
                field: dict[str, Any] = {"f:status": {"f:phase": {}}}
                obj["metadata"]["managedFields"] = [{"manager": "kubelet", "time": stamp, "fieldsV1": field}]

        self.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)

    def finish_pods(
        self, stage: Stage, attempt: int = 1, *, exit_code: int = 0, result: StageResult | None = None, reason: str = ""
    ) -> None:
        """All pods of an attempt end with the same code; the first one leaves the result."""
        for index, pod in enumerate(self.pods(stage, attempt)):
            message = result.model_dump_json(exclude_none=True) if result is not None and index == 0 else ""
            phase = "Succeeded" if exit_code == 0 else "Failed"
            self.set_status(
                pod,
                phase=phase,
                exit_code=exit_code,
                message=message,
                reason=reason or ("Completed" if exit_code == 0 else "Error"),
            )
        name = f"{self.key.name}-{stage.value}-{attempt}"
        if ("Job", NAMESPACE, name) in self.kube.objects:
            condition = {
                "type": "Complete" if exit_code == 0 else "Failed",
                "status": "True",
                "reason": "BackoffLimitExceeded",
            }
            self.kube.patch("Job", NAMESPACE, name, lambda obj: obj.update(status={"conditions": [condition]}))

    def complete(self, stage: Stage, attempt: int = 1) -> None:
        """The stage's pods complete with a result."""
        result = StageResult(stage=stage, outcome=Outcome.COMPLETED, **SUMMARIES[stage])
        self.finish_pods(stage, attempt, result=result)

    def drain(self, stage: Stage, attempt: int = 1, *, step: int = 20) -> None:
        """The stage's pods drain with a checkpoint."""
        train = TrainSummary(step=step, total_steps=50, tokens=1, checkpoint_step=step, checkpoint_seconds=1.5)
        self.finish_pods(
            stage, attempt, exit_code=75, result=StageResult(stage=stage, outcome=Outcome.DRAINED, train=train)
        )

    def job_gone(self, stage: Stage, attempt: int = 1) -> bool:
        return ("Job", NAMESPACE, f"{self.key.name}-{stage.value}-{attempt}") not in self.kube.objects

    async def settle_deleted(self, most: int = 30) -> None:
        """Reconcile until the resource and all of its objects are gone."""
        for _ in range(most):
            await self.reconciler.reconcile(self.key)
            if not self.kube.find("ReasoningFinetune") and not self.kube.find("Pod"):
                return
            self.now += 5
        raise AssertionError(f"still there: {sorted(self.kube.objects)}")

    def report(
        self,
        *,
        step: int,
        total: int = 50,
        attempt: int = 1,
        checkpoint: int | None = None,
        saved_in_seconds: str = "1.5",
        saved_at: int | None = None,
        eta_seconds: int = 10,
        phase: str = "train",
    ) -> None:
        """The trainer reports progress."""
        metrics = [("phase", phase), ("step", str(step)), ("total_steps", str(total)), ("loss", "1.5")]
        if checkpoint is not None:
            metrics += [("checkpoint_step", str(checkpoint)), ("checkpoint_seconds", saved_in_seconds)]
            metrics += [("checkpoint_time", rfc3339(saved_at if saved_at is not None else self.now))]
        self.cache.put_report(
            self.key,
            Report(
                stage=Stage.TRAIN,
                attempt=attempt,
                received_at=self.now,
                percent=100 * step // total,
                eta_seconds=eta_seconds,
                metrics=tuple(metrics),
            ),
        )

    async def to_prepared(self) -> None:
        """Bring the run to where its training is begun, and has no pods yet."""
        await self.settle()
        self.run_pods(Stage.PREPARE)
        await self.after(5)
        self.complete(Stage.PREPARE)
        await self.after(1)

    async def to_training_at_once(self) -> None:
        """Bring the run to a running training gang, without any time passing."""
        await self.settle()
        self.run_pods(Stage.PREPARE)
        self.complete(Stage.PREPARE)
        await self.settle()
        self.run_pods(Stage.TRAIN)
        await self.settle()

    async def to_training(self) -> None:
        """Bring the run to a running training gang."""
        await self.to_prepared()
        self.run_pods(Stage.TRAIN)
        await self.after(1)

    async def to_evaluation(self, *, seconds: int = 1) -> None:
        """Bring a run in training to an evaluation that has run for so long."""
        self.complete(Stage.TRAIN)
        await self.after(1)
        self.run_pods(Stage.EVALUATE)
        await self.after(seconds)
