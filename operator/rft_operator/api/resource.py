"""The whole custom resource as it comes from the API server."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rft_operator.api.base import StatusModel
from rft_operator.api.spec import Spec
from rft_operator.api.status import Status


class OwnerReference(StatusModel):
    """Who owns an object."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class ObjectMeta(StatusModel):
    """The parts of metadata that the operator reads."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)


class ReasoningFinetune(StatusModel):
    """A ReasoningFinetune: metadata, spec and status."""

    metadata: ObjectMeta
    spec: Spec
    status: Status = Field(default_factory=Status)

    @property
    def key(self) -> tuple[str, str]:
        """Return (namespace, name)."""
        return self.metadata.namespace, self.metadata.name

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> ReasoningFinetune:
        """Read an API server object; raises pydantic.ValidationError for one the CRD would refuse."""
        return cls.model_validate(
            {"metadata": raw["metadata"], "spec": raw.get("spec", {}), "status": raw.get("status") or {}}
        )
