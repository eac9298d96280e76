"""What a user's manifest meets at the API server: accepted as stored, or refused with causes."""

from __future__ import annotations

import contextlib
import copy
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rft_operator.api import GROUP, PLURAL, VERSION
from support.api_server import ApiServer

UNCHECKED = "some validation rules were not checked because the object was invalid"
"""The API server's note beside an error of the schema; it blames no field."""


class Cause(NamedTuple):
    """One reason of a refusal."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The API server's no."""

    status: int
    message: str
    causes: tuple[Cause, ...]


class Admission:
    """Sends resources of one kind and namespace to the API server as kubectl does: with strict fields."""

    def __init__(self, api: client.ApiClient, namespace: str, *, plural: str = PLURAL) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": plural}
        self.namespace = namespace

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = True) -> dict[str, Any] | Refusal:
        """Create a resource; a dry run is validated and filled with defaults, but not stored."""
        body = copy.deepcopy(dict(manifest))
        body["metadata"]["namespace"] = self.namespace
        try:
            done: dict[str, Any] = self._objects.create_namespaced_custom_object(
                **self._place, body=body, field_validation="Strict", **_dry(dry_run)
            )
        except ApiException as error:
            return _refusal(error)
        return done

    def replace(self, obj: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        """Edit a resource, as a dry run."""
        try:
            done: dict[str, Any] = self._objects.replace_namespaced_custom_object(
                **self._place, name=obj["metadata"]["name"], body=dict(obj), field_validation="Strict", **_dry(True)
            )
        except ApiException as error:
            return _refusal(error)
        return done

    def patch_status(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Write a status as the operator does."""
        done: dict[str, Any] = self._objects.patch_namespaced_custom_object_status(
            **self._place, name=name, body={"status": dict(status)}
        )
        return done


def _dry(wanted: bool) -> dict[str, str]:
    return {"dry_run": "All"} if wanted else {}


def _refusal(error: ApiException) -> Refusal:
    body = json.loads(error.body)
    causes = (body.get("details") or {}).get("causes") or ()
    return Refusal(
        status=error.status,
        message=body["message"],
        causes=tuple(
            Cause(each.get("field", ""), each["message"]) for each in causes if UNCHECKED not in each["message"]
        ),
    )


@contextlib.contextmanager
def admitting(server: ApiServer, *, plural: str = PLURAL) -> Iterator[Admission]:
    """Send to a namespace of the caller's own, which goes at the end."""
    file = None if server.kubeconfig is None else str(server.kubeconfig)
    with config.new_client_from_config(config_file=file) as api:
        core, name = client.CoreV1Api(api), f"t-{uuid.uuid4().hex[:10]}"
        core.create_namespace({"metadata": {"name": name}})
        yield Admission(api, name, plural=plural)
        core.delete_namespace(name)
