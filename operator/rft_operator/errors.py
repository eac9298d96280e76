"""All errors of the operator.

RftError
├── ConfigError            a setting of the operator is missing or wrong; it does not start
├── PriceCatalogueError    a price catalogue or one of its entries cannot be used
├── AuditError             a dump of API objects cannot be audited
├── ScoreError             a file of answers cannot be scored
├── ReportError            a report cannot be made of what there is
├── InvalidResource        a resource that no reconcile can help until its spec changes
├── Refused                what a user asks for is wrong or buys nothing; nothing was changed
├── NamespacesChanged      other namespaces can be read now than when the operator started; it starts anew
├── RunFailed              a run that is waited for failed, or can no longer become what it is waited for
├── WaitTimeout            what is waited for did not happen in time; the run goes on
└── KubeError              a call to the API server failed
    ├── Conflict           409: somebody else wrote first; read again and repeat
    ├── NotFound           404
    │   ├── RunNotFound    no run of that name; the message names the nearest
    │   └── NotInstalled   the cluster does not serve our resources
    ├── Rejected           400, 403, 422, or 500 of a schema mismatch: repeating the call cannot help
    │   └── Forbidden      401, 403: the message names the verb, and the role that grants it
    └── Unavailable        429, 5xx, time-out, broken connection: repeat later
"""

from __future__ import annotations

from collections.abc import Sequence


class RftError(Exception):
    """Base of all errors of the operator."""


class ConfigError(RftError):
    """A setting of the operator is missing or wrong."""


class PriceCatalogueError(RftError):
    """A price catalogue, or one of its entries, cannot be used."""


class AuditError(RftError):
    """A dump of API objects cannot be audited."""


class ScoreError(RftError):
    """A file of answers cannot be scored."""


class EvaluateError(RftError):
    """A model cannot be evaluated as it was asked for."""


class ReportError(RftError):
    """A report cannot be made of what there is."""


class Refused(RftError):  # noqa: N818 - named for the state
    """What a user asks for is wrong, or buys nothing; nothing was changed."""


class NamespacesChanged(RftError):  # noqa: N818 - named for the state
    """Other namespaces can be read now than when the operator started: it must start anew to watch them."""


class RunFailed(RftError):  # noqa: N818 - named for the state
    """A run that is waited for failed, or can no longer become what it is waited for."""


class WaitTimeout(RftError, TimeoutError):  # noqa: N818 - named for the state
    """What is waited for did not happen in time; the run goes on."""


class InvalidResource(RftError):  # noqa: N818 - named for the state, as Kubernetes does
    """A resource that no reconcile can help until its spec changes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class KubeError(RftError):
    """A call to the API server failed."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.causes = tuple(causes)
        self.look_again_seconds: float | None = None
        """When the run wanted to be looked at again, whatever became of this call: at a stop line, above all."""
        """(field, what is wrong with it), where the API server names fields."""


class Conflict(KubeError):  # noqa: N818 - named for the state
    """409: somebody else wrote first."""


class NotFound(KubeError):  # noqa: N818 - named for the state
    """404: it is not there (any more)."""


class RunNotFound(NotFound):
    """No run of that name."""


class NotInstalled(NotFound):
    """The cluster does not serve our resources."""


class Rejected(KubeError):  # noqa: N818 - named for the state
    """The API server will never accept this call as it is."""


class Forbidden(Rejected):
    """Who asks may not do this, or is nobody whom the API server knows."""


class Unavailable(KubeError):  # noqa: N818 - named for the state
    """The API server cannot answer now."""


class PublishError(RftError):
    """A model cannot be published."""
