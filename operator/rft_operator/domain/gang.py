"""The pods of one attempt, seen together: who is bound, who runs, who is lost, what is overdue.

Invariant: a pod on a node that does not answer is neither alive nor ended; it is *lost*, keeps being charged
(docs/metering.md M8), and no longer holds up the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api.status import Attempt, PodCounts
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import JobFacts, PodFacts, PodPhase
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """One attempt's Job and pods."""

    stage: Stage
    desired: int
    job: JobFacts | None
    pods: tuple[PodFacts, ...]
    lost: frozenset[str]
    """UIDs of lost pods."""

    @property
    def live(self) -> tuple[PodFacts, ...]:
        """Pods that run or may still run."""
        return tuple(pod for pod in self.pods if (pod.bindable or pod.holds_node) and pod.uid not in self.lost)

    @property
    def all_running(self) -> bool:
        """Whether every rank's container runs."""
        return len(self.pods) >= self.desired and all(pod.phase is PodPhase.RUNNING for pod in self.pods)

    @property
    def started_at(self) -> int | None:
        """When the container of the last rank started; None: not all have."""
        starts = [pod.started_at for pod in self.pods if pod.started_at is not None]
        return max(starts) if len(starts) >= self.desired else None

    @property
    def waits_for_admission(self) -> bool:
        """Whether its Job is suspended and nothing of it has held a GPU: it waits for its turn, and costs nothing."""
        return self.job is not None and self.job.suspended and not any(pod.scheduled_at for pod in self.pods)

    @property
    def waits_in_queue(self) -> bool:
        """Whether a queue has its Job and nothing of it has held a GPU: the money may change while it waits."""
        queued = self.job is not None and self.job.queue is not None
        return queued and not any(pod.scheduled_at for pod in self.pods)

    @property
    def evicted(self) -> bool:
        """Whether its Job was suspended after pods of it were bound, even if it was let in again since.

        Its pods were ended without a condition that says so. What ran before and what would run now are two attempts:
        the deadline of its pods was worked out for one.
        """
        job = self.job
        if job is None or job.complete or job.failed:
            return False
        bound = [pod for pod in self.pods if pod.scheduled_at is not None]
        again = any(pod.gated and pod.deleted_at is None for pod in self.pods)
        return bool(bound) and (job.suspended or (again and all(_is_ending(pod) for pod in bound)))

    @property
    def counts(self) -> PodCounts:
        """Return the numbers for status.pods."""
        ready = sum(pod.ready for pod in self.pods)
        return PodCounts(
            desired=self.desired,
            scheduled=sum(pod.scheduled_at is not None for pod in self.pods),
            running=sum(pod.phase is PodPhase.RUNNING for pod in self.pods),
            ready=ready,
            failed=sum(pod.phase is PodPhase.FAILED for pod in self.pods),
            display=f"{ready}/{self.desired}",
        )


def _is_ending(pod: PodFacts) -> bool:
    return pod.terminal or pod.deleted_at is not None


def gang_of(draft: Draft, attempt: Attempt) -> Gang:
    """Collect the Job and the pods of an attempt; none that a deleted namesake left on a node that does not answer.

    No clock tells them apart where the pod says whose it is: several API servers may have one each.
    """
    stage, begun = Stage(attempt.stage), epoch(attempt.start_time)
    children, uid = draft.view.children, draft.view.resource.metadata.uid
    mine = [pod for pod in children.pods if pod.stage is stage and pod.attempt == attempt.number]
    pods = tuple(
        sorted(
            (pod for pod in mine if (pod.run_uid == uid if pod.run_uid else pod.created_at >= begun)),
            key=lambda pod: (pod.rank, pod.created_at, pod.uid),
        )
    )
    job = next(
        (
            job
            for job in children.jobs
            if job.stage is stage and job.attempt == attempt.number and job.owner_uid in ("", uid)
        ),
        None,
    )
    lost = frozenset(pod.uid for pod in pods if _is_lost(draft, pod))
    desired = draft.spec.resources.nodes if stage is Stage.TRAIN else 1
    return Gang(stage=stage, desired=desired, job=job, pods=pods, lost=lost)


def _is_lost(draft: Draft, pod: PodFacts) -> bool:
    if not pod.holds_node:
        return False
    silent_since = silence_of(draft, pod)
    if silent_since is None:
        return False
    lost_at = silent_since + draft.view.settings.node_lost_seconds
    if draft.now < lost_at:
        draft.wake(lost_at)
        return False
    return True


def silence_of(draft: Draft, pod: PodFacts) -> int | None:
    """Return since when the node of a bound pod does not answer, as far as one can know; None if it does.

    Pods and nodes are separate streams: of a node that is not in view, only its pod's binding is known to have been. A
    node that came back may be seen to answer only after a pod was bound to it, for which it must have answered.
    A kubelet that says itself that its node is not ready answers: it ends pods that are deleted, and until it has, they
    run. Only where it has not by the end of their grace (its container runtime is gone) is nothing to be waited for.
    """
    if not draft.view.nodes:
        return None
    node = next((each for each in draft.view.nodes if each.name == pod.node), None)
    if node is None:
        return pod.scheduled_at
    if node.silent_since is None and node.not_ready_since is not None and pod.deleted_at is not None:
        return max(node.not_ready_since, pod.deleted_at)
    if node.silent_since is None:
        return None
    return max(node.silent_since, pod.scheduled_at or 0)


def others_alive(draft: Draft, attempt: Attempt | None) -> bool:
    """Return whether anything but an open attempt may still run: pods that end, a Job that will make some.

    Two gangs would write to one volume and pay twice, so the next one waits. A lost pod is not waited for.
    """
    own = (attempt.stage, attempt.number) if attempt is not None else None
    pods = [pod for pod in draft.view.children.pods if (pod.stage.value, pod.attempt) != own]
    alive = any((pod.bindable or pod.holds_node) and not _is_lost(draft, pod) for pod in pods)
    return alive or bool(stray_jobs(draft))


def stray_jobs(draft: Draft) -> tuple[JobFacts, ...]:
    """Return unfinished Jobs of attempts that are closed on record.

    One can appear when the answer to its creation was lost and its attempt was ended meanwhile. A Job whose pods have
    all ended is finished by its controller, with its pods kept for their logs.
    """
    meta = draft.view.resource.metadata
    open_ = {(each.stage, each.number) for each in draft.recorded.attempts if each.end_time is None}
    pods = draft.view.children.pods

    def at_an_end(job: JobFacts) -> bool:
        own = [pod for pod in pods if (pod.stage, pod.attempt) == (job.stage, job.attempt)]
        # A suspended one only waits to make its pods anew.
        return job.complete or job.failed or (bool(own) and all(pod.terminal for pod in own) and not job.suspended)

    return tuple(
        job
        for job in draft.view.children.jobs
        if job.owner_uid in ("", meta.uid)
        and job.deleted_at is None
        and (job.stage.value, job.attempt) not in open_
        and not at_an_end(job)
    )


def ended(draft: Draft, attempt: Attempt, gang: Gang) -> bool:
    """Return whether no pod of the attempt runs or will run.

    A finished Job whose pods are not in view yet is waited for: the watches of Jobs and pods are separate
    streams, and the result is in the pod.
    """
    if gang.live:
        return False
    job = gang.job
    gone = job is None or job.deleted_at is not None
    if attempt.stop_reason is not None and gone:
        return True
    terminal = [pod for pod in gang.pods if pod.terminal]
    if job is None:
        return bool(terminal)
    if not (job.complete or job.failed):  # one that is being deleted makes no more pods, and may wait for ours to go
        return len(terminal) >= gang.desired or (gone and bool(terminal))
    if terminal:
        return True
    due = epoch(attempt.start_time) + 120
    draft.wake(max(due, draft.now + 5))
    return draft.now >= due
