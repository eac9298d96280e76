"""What no run needs any more: Jobs that nobody asked for, pods without a Job, finalizers of pods whose bill is closed.

Invariant: a pod is let go only when its bill is closed on record; one of an open attempt also when its result is read.
"""

from __future__ import annotations

from rft_operator.api.status import Status
from rft_operator.domain.actions import Delete, SetDeadline, SetFinalizers
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import FINALIZER, PASSED_SECONDS, ChildKind, JobFacts, PodFacts
from rft_operator.domain.gang import stray_jobs
from rft_operator.domain.ledger import releasable


def remove_strays(draft: Draft) -> None:
    """Delete unfinished Jobs of attempts that are closed on record."""
    for job in stray_jobs(draft):
        draft.actions.append(deletion_of(job))


def end_orphans(draft: Draft, *, every: bool) -> None:
    """End pods that are not to go on (or every one) and whose Job was deleted without them (--cascade=orphan).

    A deadline that has passed sends them SIGTERM and gives them their grace, as a deletion would.
    """
    going_on = {
        (each.stage, each.number)
        for each in draft.recorded.attempts
        if each.end_time is None and each.stop_reason is None
    }
    for pod in draft.view.children.pods:
        wanted = not every and (pod.stage.value, pod.attempt) in going_on
        alive = (pod.bindable or pod.holds_node) and pod.deleted_at is None
        if pod.orphaned and alive and not wanted and pod.deadline_seconds != PASSED_SECONDS:
            draft.actions.append(
                SetDeadline(namespace=pod.namespace, name=pod.name, uid=pod.uid, deadline_seconds=PASSED_SECONDS)
            )


def release_pods(draft: Draft) -> None:
    """Take our finalizer off pods whose bill is closed on record and whose result is no longer needed."""
    free = _free_pods(draft, draft.recorded)
    draft.actions.extend(letting_go_of(pod) for pod in free)
    if len(_free_pods(draft, draft.status)) > len(free):  # once this status is on record, which nobody else will tell
        draft.wake(draft.now)


def _free_pods(draft: Draft, status: Status) -> list[PodFacts]:
    still_open = {(attempt.stage, attempt.number) for attempt in status.attempts if attempt.end_time is None}
    deleting = draft.view.resource.metadata.deletion_timestamp is not None
    pods = draft.view.children.pods
    free = [
        pod
        for pod in releasable(status.ledger, pods)
        if pod.scheduled_at is None or deleting or (pod.stage.value, pod.attempt) not in still_open
    ]
    return [*free, *(pod for pod in pods if deleting and pod.doomed and pod.has_finalizer and pod not in free)]


def deletion_of(job: JobFacts) -> Delete:
    """Return the action that deletes a Job, which sends SIGTERM to its pods."""
    return Delete(kind=ChildKind.JOB.value, namespace=job.namespace, name=job.name, uid=job.uid)


def letting_go_of(pod: PodFacts) -> SetFinalizers:
    """Return the action that lets go of a pod."""
    return SetFinalizers(
        kind=ChildKind.POD.value,
        namespace=pod.namespace,
        name=pod.name,
        resource_version=pod.resource_version,
        finalizers=tuple(each for each in pod.finalizers if each != FINALIZER),
    )
