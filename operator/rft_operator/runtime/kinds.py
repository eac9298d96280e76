"""Where each kind lives in the API: the operator needs a dozen kinds, so no discovery is needed."""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api import API_VERSION, BUDGET_KIND, BUDGET_PLURAL, KIND, PLURAL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """API version and plural of a kind."""

    api_version: str
    plural: str
    namespaced: bool = True


ENDPOINTS = {
    KIND: Endpoint(API_VERSION, PLURAL),
    BUDGET_KIND: Endpoint(API_VERSION, BUDGET_PLURAL),
    "Pod": Endpoint("v1", "pods"),
    "Service": Endpoint("v1", "services"),
    "ConfigMap": Endpoint("v1", "configmaps"),
    "Secret": Endpoint("v1", "secrets"),
    "PersistentVolumeClaim": Endpoint("v1", "persistentvolumeclaims"),
    "Job": Endpoint("batch/v1", "jobs"),
    "NetworkPolicy": Endpoint("networking.k8s.io/v1", "networkpolicies"),
    "Event": Endpoint("events.k8s.io/v1", "events"),
    "Lease": Endpoint("coordination.k8s.io/v1", "leases"),
    "Node": Endpoint("v1", "nodes", namespaced=False),
    "Namespace": Endpoint("v1", "namespaces", namespaced=False),
    "TokenReview": Endpoint("authentication.k8s.io/v1", "tokenreviews", namespaced=False),
}


def path_of(kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the URL path of an object, or of all objects of a kind (of a namespace, if given)."""
    endpoint = ENDPOINTS[kind]
    root = "/api/v1" if endpoint.api_version == "v1" else f"/apis/{endpoint.api_version}"
    where = f"/namespaces/{namespace}" if endpoint.namespaced and namespace else ""
    return f"{root}{where}/{endpoint.plural}" + (f"/{name}" if name else "")
