"""All errors of the operator.

RftError
├── ConfigError            a setting of the operator is missing or wrong; it does not start
├── PriceCatalogueError    a price catalogue or one of its entries cannot be used
├── AuditError             a dump of API objects cannot be audited
├── ScoreError             a file of answers cannot be scored
├── InvalidResource        a resource that no reconcile can help until its spec changes
└── KubeError              a call to the API server failed
    ├── Conflict           409: somebody else wrote first; read again and repeat
    ├── NotFound           404
    ├── Rejected           400, 403, 422, or 500 of a schema mismatch: repeating the call cannot help
    └── Unavailable        429, 5xx, time-out, broken connection: repeat later
"""

from __future__ import annotations


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


class InvalidResource(RftError):  # noqa: N818 - named for the state, as Kubernetes does
    """A resource that no reconcile can help until its spec changes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class KubeError(RftError):
    """A call to the API server failed."""

    def __init__(self, message: str, *, status: int | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class Conflict(KubeError):  # noqa: N818 - named for the state
    """409: somebody else wrote first."""


class NotFound(KubeError):  # noqa: N818 - named for the state
    """404: it is not there (any more)."""


class Rejected(KubeError):  # noqa: N818 - named for the state
    """The API server will never accept this call as it is."""


class Unavailable(KubeError):  # noqa: N818 - named for the state
    """The API server cannot answer now."""
