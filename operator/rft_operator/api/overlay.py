"""``spec.podTemplate``: what a user adds to the pods of a run.

Invariant: an overlay can add, never take away or raise privileges.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel
from rft_operator.api.texts import (
    DnsSubdomain,
    EnvName,
    Image,
    LabelKey,
    LabelValue,
    MountPath,
    SecretKey,
    VolumeName,
    text,
)


class SecretKeySelector(ApiModel):
    """A key of a Secret."""

    name: DnsSubdomain
    """Name of the Secret."""
    key: SecretKey
    """Key in the Secret."""


class EnvVarSource(ApiModel):
    """Source of an environment variable."""

    secret_key_ref: SecretKeySelector
    """A key of a Secret in the same namespace."""


class EnvVar(ApiModel):
    """An environment variable of the trainer's container."""

    name: EnvName
    """Name; RFT_, KUBEFLOW_TRAINER_ and JOB_COMPLETION_ are reserved."""
    value: Annotated[str, text(4_096)] | None = None
    """Literal value."""
    value_from: EnvVarSource | None = None
    """Or a key of a Secret."""


class LocalReference(ApiModel):
    """A named object in the resource's own namespace."""

    name: DnsSubdomain
    """Name of the object."""


class ConfigMapVolume(ApiModel):
    """A ConfigMap as files."""

    name: DnsSubdomain
    """Name of the ConfigMap."""


class SecretVolume(ApiModel):
    """A Secret as files."""

    secret_name: DnsSubdomain
    """Name of the Secret."""


class ClaimVolume(ApiModel):
    """An existing claim."""

    claim_name: DnsSubdomain
    """Name of the PersistentVolumeClaim."""
    read_only: bool = True
    """Mount without write access."""


class ExtraVolume(ApiModel):
    """A volume mounted into the trainer's container; exactly one source."""

    name: VolumeName
    """Name of the volume; names that start with rft- are reserved."""
    mount_path: MountPath
    """Where it is mounted; not under /rft."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""
    secret: SecretVolume | None = None
    """A Secret."""
    persistent_volume_claim: ClaimVolume | None = None
    """A claim."""


class PodTemplate(ApiModel):
    """Overlay on every pod of the run; it can add, never take away or raise privileges."""

    image: Image | None = None
    """Trainer image; absent means the operator's setting."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Extra labels; keys of rft.dev and app.kubernetes.io are reserved."""
    annotations: Annotated[dict[LabelKey, Annotated[str, text(4_096)]], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Extra annotations."""
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(default_factory=list)
    """Extra environment variables."""
    volumes: Annotated[list[ExtraVolume], Field(max_length=16)] = Field(default_factory=list)
    """Extra volumes."""
    image_pull_secrets: Annotated[list[LocalReference], Field(max_length=8)] = Field(default_factory=list)
    """Secrets for pulling the image."""
