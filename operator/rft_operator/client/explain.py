"""Errors of the API server in words that help: nearest names, the command that installs, the role that grants.

Invariant: an explanation costs at most two more reads, and what cannot be explained leaves as it came.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rft_operator.api import BUDGET_KIND, GROUP, KIND
from rft_operator.api.crd import RESOURCES, custom_resource_definition
from rft_operator.client.api import UserApi
from rft_operator.errors import Conflict, Forbidden, KubeError, NotFound, NotInstalled, Rejected, RunNotFound

INSTALL = "helm install rft-operator helm/rft-operator --namespace rft-system --create-namespace"
NAMES_SHOWN = 3
_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_UNDECLARED = re.compile(r"(?P<path>\.[\w.\[\]]+): field not declared in schema|unknown field \"(?P<strict>[^\"]+)\"")
_OWNED = re.compile(r'conflict with "(?P<owner>[^"]+)"')
_READS = frozenset({"get", "list", "watch"})


@contextlib.asynccontextmanager
async def explaining(api: UserApi, *, namespace: str, name: str | None = None, kind: str = KIND) -> AsyncIterator[None]:
    """Give the errors of a block about one object, or about all of a namespace, their explanation."""
    try:
        yield
    except (RunNotFound, NotInstalled, Forbidden):
        raise
    except KubeError as error:
        explained = await explain(api, error, namespace=namespace, name=name, kind=kind)
        if explained is error:
            raise
        raise explained from error


async def explain(api: UserApi, error: KubeError, *, namespace: str, name: str | None, kind: str = KIND) -> KubeError:
    """Return the error with its remedy, or the error itself."""
    if isinstance(error, NotFound):
        return await _missing(api, error, namespace=namespace, name=name, kind=kind)
    if error.status == 401:
        words = "the API server does not know you (401): log in to the cluster again, or use another --context"
        return Forbidden(words, status=401)
    if isinstance(error, Conflict) and error.causes:
        return Conflict(_owned(error, kind=kind, name=name), status=409, causes=error.causes)
    if isinstance(error, Rejected):
        return _forbidden(error) if error.status == 403 else _invalid(error, kind=kind, name=name)
    return error


async def _missing(api: UserApi, error: NotFound, *, namespace: str, name: str | None, kind: str) -> KubeError:
    """A name that is not there, or a kind that the cluster does not serve: only a list can tell."""
    if f'namespaces "{namespace}" not found' in str(error):
        words = f"there is no namespace {namespace}; choose another with -n, or kubectl create namespace {namespace}"
        return NotFound(words, status=404)
    try:
        items, _ = await api.listing(kind=kind, namespace=namespace)
    except NotFound:
        words = f"the cluster has no {kind} (CustomResourceDefinition missing); install the operator: {INSTALL}"
        return NotInstalled(words, status=404)
    except KubeError:
        return RunNotFound(f"no {kind} {name!r} in namespace {namespace}", status=404) if name else error
    if name is None:
        return error
    names = [str(each["metadata"]["name"]) for each in items]
    hint = _hint(name, names) or await _elsewhere(api, name, kind=kind, namespace=namespace, is_empty=not names)
    return RunNotFound(f"no {kind} {name!r} in namespace {namespace}{hint}", status=404)


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that are most like one."""
    lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), lower, n=NAMES_SHOWN, cutoff=0.5)
    starts = [each for each in names if each.startswith(name) or name.startswith(each)]
    return list(dict.fromkeys([*starts, *(lower[each] for each in close)]))[:NAMES_SHOWN]


def _hint(name: str, names: Sequence[str]) -> str:
    close = nearest(name, names)
    return f"; did you mean {' or '.join(close)}?" if close else ""


async def _elsewhere(api: UserApi, name: str, *, kind: str, namespace: str, is_empty: bool) -> str:
    """Look for the name in other namespaces, if that is allowed."""
    nothing = "; there is none at all there, see rft get -A" if is_empty else "; see rft get"
    try:
        items, _ = await api.listing(kind=kind, namespace=None, selectors={"fieldSelector": f"metadata.name={name}"})
    except KubeError:
        return nothing
    found = [str(each["metadata"]["namespace"]) for each in items if each["metadata"]["namespace"] != namespace]
    if len(found) > 1:
        return f"; there are runs of that name in {', '.join(found[:NAMES_SHOWN])}: choose one with -n"
    return f"; there is one in namespace {found[0]}: add -n {found[0]}" if found else nothing


def _forbidden(error: Rejected) -> Forbidden:
    match = _FORBIDDEN.search(str(error))
    if match is None:
        return Forbidden(f"forbidden: {error}", status=403)
    user, verb, resource = match["user"], match["verb"], match["resource"]
    where = f"in namespace {match['namespace']}" if match["namespace"] else "in all namespaces"
    role = _role(verb, resource, match["group"])
    flag = f"-n {match['namespace']} " if match["namespace"] else ""
    binding = "rolebinding" if match["namespace"] else "clusterrolebinding"
    grant = f"kubectl create {binding} rft-{role} {flag}--clusterrole={role} --user={user}"
    group = f".{match['group']}" if match["group"] else ""
    return Forbidden(
        f"{user} may not {verb} {resource}{group} {where}; the cluster's role {role} grants it (the chart's value "
        f"rbac.aggregate): {grant}",
        status=403,
    )


def _role(verb: str, resource: str, group: str) -> str:
    if verb in _READS:
        return "view"
    return "admin" if group == GROUP and resource.startswith("finetunebudgets") else "edit"


def _owned(error: Conflict, *, kind: str, name: str | None) -> str:
    lines = [f"{kind} {name}: fields that somebody else has set since:"]
    for field, words in error.causes:
        owner = _OWNED.search(words)
        lines.append(f"  {field.removeprefix('.')} is set by {owner['owner'] if owner else words}")
    lines.append("take them out of the file, or give them its values: --force-conflicts")
    return "\n".join(lines)


def _invalid(error: Rejected, *, kind: str, name: str | None) -> KubeError:
    """A line for each field, as the API server's rules say it, with the name that an unknown field may have meant."""
    unknown = [match["path"] or match["strict"] for match in _UNDECLARED.finditer(str(error))]
    if unknown:
        lines = [f"  {path.removeprefix('.')} is no field of {kind}{_nearest_field(path, kind)}" for path in unknown]
    elif error.causes:
        lines = [f"  {field}: {words}" for field, words in error.causes]
    else:
        return error
    title = f"{kind} {name} is not accepted:" if name else f"{kind} is not accepted:"
    return Rejected("\n".join([title, *dict.fromkeys(lines)]), status=error.status, causes=error.causes)


def _nearest_field(path: str, kind: str) -> str:
    *parents, field = [re.sub(r"\[.*?\]", "", part) for part in path.strip(".").split(".")]
    schema = _schema(kind)
    for part in parents:
        schema = schema.get("properties", {}).get(part, {})
        schema = schema.get("items", schema)
    close = nearest(field, sorted(schema.get("properties", {})))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _schema(kind: str) -> dict[str, Any]:
    if kind not in (KIND, BUDGET_KIND):
        return {}
    resource = next(each for each in RESOURCES if each.kind == kind)
    root: dict[str, Any] = custom_resource_definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root
