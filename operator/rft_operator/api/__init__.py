"""The custom resource as pydantic models, and the generator that turns them into CRD YAML."""

from rft_operator.api.resource import ObjectMeta, OwnerReference, ReasoningFinetune

GROUP = "rft.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ReasoningFinetune"
PLURAL = "reasoningfinetunes"
SHORT_NAME = "rft"

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "SHORT_NAME",
    "VERSION",
    "ObjectMeta",
    "OwnerReference",
    "ReasoningFinetune",
]
