"""What a reconcile decides to do: data, executed by ``runtime.reconciler`` in order.

Invariant: every action is repeatable. Names are deterministic, applies are server-side applies, deletes carry
the uid of what was seen, so acting twice or on a slightly old view does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rft_operator.api.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply of a child's full manifest."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create a child that another controller changes afterwards: one that exists is never written again."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete a child, in the background, if it still has this uid."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFinalizers:
    """Replace the finalizers of a pod or of the resource, if it still has this resourceVersion."""

    kind: str
    namespace: str
    name: str
    resource_version: str
    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDeadline:
    """Lower the activeDeadlineSeconds of a pod, if it is still the same one."""

    namespace: str
    name: str
    uid: str
    deadline_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGate:
    """Take our scheduling gate off a pod, if it is still the same one; those of others stay."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepBaselines:
    """Add entries to the cache of a base model's answers; done once, for losing one costs a measurement only."""

    namespace: str
    name: str
    model: str
    entries: Mapping[str, str]


Action = Apply | Create | Delete | SetFinalizers | SetDeadline | OpenGate | KeepBaselines


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """A Kubernetes Event on the resource, sent only after the status write succeeded."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one look at a run.

    ``status`` is None when the resource must not be written (managed by another controller, or gone).
    Actions never depend on something that only this plan's status records: what must be on record before an
    action (an attempt, a closed ledger entry) is recorded first, and acted on by the next reconcile.
    """

    status: Status | None
    actions: tuple[Action, ...] = ()
    events: tuple[Emit, ...] = ()
    requeue_after_seconds: float | None = None
    claims_gpus: bool = False
    """The actions start a gang: the view must be made sure of first, because a watch may have lost another one."""
