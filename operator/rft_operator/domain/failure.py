"""What went wrong, in words: pods that wait and pods that ended, classified.

Invariant: what is not the training's fault (preemption, a node that is lost or refuses the pod, eviction, a drain)
never uses up a restart; bad input and a training that diverged are never tried again; everything else counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from rft_operator.domain.facts import TRAINER_CONTAINER, JobFacts, PodFacts, PodPhase
from rft_trainer.contract import ExitCode, Stage
from rft_trainer.stage_results import StageResult

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
CRASH_LOOP = "CrashLoopBackOff"
"""Of a sidecar or an init step: the trainer's own container is never started again."""
PREEMPTION = frozenset({"PreemptionByScheduler", "TerminationByKubelet", "EvictionByEvictionAPI"})
NODE_LOSS = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
NODE_SHUTDOWN = frozenset({"NodeShutdown", "Terminated", "NodeLost"})
RUNTIME_LOST = frozenset({"ContainerStatusUnknown", "Unknown"})
"""Reasons of a container of which kubelet and runtime know nothing more, because they, or the machine, were restarted;
its exit code (137, 255) is theirs, and not the trainer's."""
REFUSALS = frozenset({"UnexpectedAdmissionError", "TopologyAffinityError", "NodeAffinity"})
"""A kubelet's reasons to run nothing of a pod that was bound to it; so are those that begin with OUT_OF. One that was
restarted asks itself anew of pods that run already."""
OUT_OF = "OutOf"
"""OutOfcpu, OutOfnvidia.com/gpu: a kubelet that came back before its devices did, for instance."""
LAST_WORDS = 600
GRAVE = frozenset({ExitCode.BAD_INPUT, ExitCode.DIVERGED, ExitCode.STALLED})
"""Codes of ranks that know the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that went wrong."""

    reason: str
    message: str
    counted: bool = False
    """Whether it uses up one of retries.maxRestarts."""
    fatal: bool = False
    """Whether another attempt cannot help."""
    pod: PodFacts | None = None


def classify_pod(pod: PodFacts) -> Trouble | None:
    """Return why a pod does not run yet, if that needs attention."""
    if pod.terminal:
        return None
    if pod.unschedulable_message is not None:
        return Trouble(reason="Unschedulable", message=f"{pod.name}: {pod.unschedulable_message}", pod=pod)
    reason = pod.waiting_reason
    if reason is None:
        return None
    words = f"{pod.name} on {pod.node}: {reason}: {(pod.waiting_message or '').strip()}"[:LAST_WORDS]
    if reason in IMAGE_REASONS:
        advice = (
            _not_ours(pod) or "Check podTemplate.image, the chart's value trainer.image, and the image pull secrets."
        )
        return Trouble(reason="ImagePullBackOff", message=f"{words} {advice}", pod=pod)
    if reason in CONFIG_REASONS:
        return Trouble(reason="ContainerConfigError", message=f"{words} {_not_ours(pod)}".rstrip(), pod=pod)
    if reason == CRASH_LOOP and pod.phase is PodPhase.PENDING:
        return Trouble(reason=CRASH_LOOP, message=f"{words} {_not_ours(pod)}".rstrip(), pod=pod)
    return None


def _not_ours(pod: PodFacts) -> str:
    """Say whose container holds a pod up, where it is none of the operator's."""
    name = pod.waiting_container
    if name in (None, TRAINER_CONTAINER):
        return ""
    return (
        f"A webhook or a policy has put the container {name} into the pod: mend it there, or keep it off pods labelled "
        "app.kubernetes.io/managed-by=rft-operator."
    )


def parse_result(pod: PodFacts) -> StageResult | None:
    """Return what the stage said of itself in the termination message; None if it said nothing readable."""
    if not pod.termination_message:
        return None
    try:
        return StageResult.model_validate_json(pod.termination_message)
    except ValidationError:
        return None


def classify_end(pods: Sequence[PodFacts], job: JobFacts | None) -> Trouble:
    """Return why an attempt ended without a completed result; of many pods the one that failed first decides.

    When one rank fails, its peers end too (their collective breaks, or the Job controller stops them): they are
    effects, not causes.
    """
    if job is not None and job.suspended and not job.failed:
        return suspended_by_queue(job)
    failed = [pod for pod in pods if pod.phase is PodPhase.FAILED]
    if not failed:
        return _without_failed_pod(pods, job)
    for pod in failed:
        if pod.disruption_reason or pod.pod_reason in NODE_SHUTDOWN or pod.pod_reason == "Evicted":
            return _disrupted(pod)
        if pod.terminated_reason in RUNTIME_LOST and pod.pod_reason is None:
            words = f"{pod.name} on node {pod.node} is gone: the node or its container runtime was restarted"
            return Trouble(reason="NodeLost", message=f"{words} ({pod.terminated_reason}).", pod=pod)
        if _is_refused(pod):
            where = f"{pod.name} was bound to node {pod.node}, whose kubelet refused it"
            words = f"{where} ({pod.pod_reason}): {(pod.pod_message or '').strip()}"
            return Trouble(reason="NodeRefused", message=words[:LAST_WORDS], pod=pod)
    drained = [pod for pod in failed if pod.exit_code in (ExitCode.DRAINED, ExitCode.DRAINED_WITHOUT_CHECKPOINT)]
    causes = [pod for pod in failed if pod not in drained]
    overdue = next((pod for pod in failed if pod.pod_reason == "DeadlineExceeded"), None)
    if overdue is not None:
        message = f"{overdue.name} reached the deadline that the budget or the evaluation's bound allows."
        # An evaluation that takes longer than evaluation.maxSeconds would do so again, for the same money.
        counted = overdue.stage in (Stage.EVALUATE, Stage.SCORE, Stage.PUBLISH)
        return Trouble(reason="DeadlineExceeded", message=message, counted=counted, pod=overdue)
    if not causes:
        return _drained(drained)
    return _crashed(min(causes, key=_blame))


def _is_refused(pod: PodFacts) -> bool:
    reason = pod.pod_reason or ""
    return reason in REFUSALS or reason.startswith(OUT_OF)


def suspended_by_queue(job: JobFacts) -> Trouble:
    """Return what became of a Job that was suspended while its pods ran: the work of a queue, never a failure."""
    by = f"Kueue took its quota in queue {job.queue} back" if job.queue is not None else "somebody set its spec.suspend"
    return Trouble(reason="Preempted", message=f"Job {job.name} was suspended: {by}.")


def _blame(pod: PodFacts) -> tuple[int, int, int]:
    grave = 0 if pod.terminated_reason == "OOMKilled" or pod.exit_code in GRAVE else 1
    return pod.finished_at or pod.phase_written_at or 2**62, grave, pod.rank


def _without_failed_pod(pods: Sequence[PodFacts], job: JobFacts | None) -> Trouble:
    if any(pod.phase is PodPhase.SUCCEEDED for pod in pods):
        names = ", ".join(pod.name for pod in pods[:4])
        return Trouble(reason="ResultsUnavailable", message=f"{names} ended without a readable result.", counted=True)
    why = f"{job.failed_reason}: {job.failed_message}" if job is not None and job.failed else "its pods are gone"
    return Trouble(reason="PodsLost", message=f"The attempt left no result: {why}.", counted=True)


def _disrupted(pod: PodFacts) -> Trouble:
    where = f"{pod.name} on node {pod.node}"
    reason = pod.disruption_reason or pod.pod_reason or ""
    detail = f": {pod.pod_message}" if pod.pod_message else ""
    if reason in NODE_LOSS or reason in NODE_SHUTDOWN:
        return Trouble(reason="NodeLost", message=f"{where} was lost with its node ({reason}){detail}.", pod=pod)
    if reason in PREEMPTION:
        return Trouble(reason="Preempted", message=f"{where} was preempted ({reason}){detail}.", pod=pod)
    # Without a disruption the kubelet evicted the pod for what the pod itself did, such as filling its volumes.
    own_fault = pod.disruption_reason is None
    return Trouble(reason="Evicted", message=f"{where} was evicted ({reason}){detail}.", counted=own_fault, pod=pod)


def _drained(pods: Sequence[PodFacts]) -> Trouble:
    saved = any(pod.exit_code == ExitCode.DRAINED for pod in pods)
    if saved:
        return Trouble(reason="Drained", message="The pods were asked to stop and saved a checkpoint.")
    return Trouble(
        reason="DrainedWithoutCheckpoint",
        message="The pods were asked to stop and could not save a checkpoint.",
    )


def _crashed(pod: PodFacts) -> Trouble:
    result = parse_result(pod)
    words = (result.error if result is not None else pod.termination_message) or ""
    where = f"{pod.name} on node {pod.node}"
    tail = f": {words.strip()[-LAST_WORDS:]}" if words.strip() else ""
    if pod.terminated_reason == "OOMKilled":
        advice = "Raise resources.memory, or lower training.microBatchSize or maxSequenceLength."
        return Trouble(reason="OOMKilled", message=f"{where} ran out of memory{tail}. {advice}", counted=True, pod=pod)
    if pod.exit_code == ExitCode.BAD_INPUT:
        return Trouble(reason="BadInput", message=f"{where} refused its input{tail}", counted=True, fatal=True, pod=pod)
    if pod.exit_code == ExitCode.DIVERGED:
        return Trouble(
            reason="Diverged", message=f"{where} found no finite numbers{tail}", counted=True, fatal=True, pod=pod
        )
    if pod.exit_code == ExitCode.RENDEZVOUS_FAILED:
        return Trouble(
            reason="RendezvousFailed", message=f"{where} did not find its peers{tail}", counted=True, pod=pod
        )
    if pod.exit_code == ExitCode.STALLED:
        return Trouble(reason="Stalled", message=f"{where} hung{tail}", counted=True, pod=pod)
    code = "no exit code" if pod.exit_code is None else f"exit code {pod.exit_code}"
    return Trouble(
        reason="TrainerFailed",
        message=f"{where} failed with {code} ({pod.terminated_reason or pod.pod_reason or 'Error'}){tail}",
        counted=True,
        pod=pod,
    )
