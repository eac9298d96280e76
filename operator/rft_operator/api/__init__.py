"""The custom resources as pydantic models, and the generator that turns them into CRD YAML."""

from rft_operator.api.resource import ObjectMeta, OwnerReference, ReasoningFinetune
from rft_operator.api.team import FinetuneBudget

GROUP = "rft.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ReasoningFinetune"
PLURAL = "reasoningfinetunes"
SHORT_NAME = "rft"
BUDGET_KIND = "FinetuneBudget"
BUDGET_PLURAL = "finetunebudgets"
BUDGET_SHORT_NAME = "rftb"

__all__ = [
    "API_VERSION",
    "BUDGET_KIND",
    "BUDGET_PLURAL",
    "BUDGET_SHORT_NAME",
    "GROUP",
    "KIND",
    "PLURAL",
    "SHORT_NAME",
    "VERSION",
    "FinetuneBudget",
    "ObjectMeta",
    "OwnerReference",
    "ReasoningFinetune",
]
