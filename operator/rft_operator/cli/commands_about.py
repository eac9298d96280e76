"""Commands about the program itself: version and completion."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from rft_operator.cli.common import Where, carry_out, cluster_options, output_option
from rft_operator.errors import KubeError, RftError

if TYPE_CHECKING:
    from rft_operator.client.api import UserApi

DISTRIBUTION = "reasoning-finetune-operator"
SHELLS = ("bash", "zsh", "fish")
OPERATORS = "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fpart-of%3Drft-operator"
"""By the one label of the chart that no value changes: nameOverride changes app.kubernetes.io/name."""


@click.command("version", short_help="Say the versions of client and operator.")
@click.option("--client", "client_only", is_flag=True, help="Do not ask the cluster.")
@cluster_options
@output_option("text", "json", "yaml")
def version_command(where: Where, output: str, *, client_only: bool) -> None:
    """Say the version of this program, and of the operator in the cluster if it can be reached."""
    from rft_operator.api import API_VERSION
    from rft_operator.cli.output import structured

    mine = {"version": version(DISTRIBUTION), "api": API_VERSION, "python": platform.python_version()}
    found: dict[str, Any] = {"client": mine}
    if not client_only:
        found["cluster"] = carry_out(_cluster(where))
    if output != "text":
        click.echo(structured(found, output), nl=False)
        return
    click.echo(f"rft {mine['version']} ({mine['api']}, Python {mine['python']})")
    for line in () if client_only else _lines(found["cluster"]):
        click.echo(line)


async def _cluster(where: Where) -> dict[str, Any]:
    try:
        async with where.client() as client:
            kubernetes = (await client.api.look("/version")).get("gitVersion")
            served = await _served(client.api)
            return {"kubernetes": kubernetes, "served": served, **await _operators(client.api)}
    except RftError as error:
        return {"error": str(error)}


async def _served(api: UserApi) -> list[str]:
    """Return the versions of our API that the cluster serves."""
    from rft_operator.api import GROUP

    try:
        group = await api.look(f"/apis/{GROUP}")
    except KubeError:
        return []
    return [str(each["groupVersion"]) for each in group.get("versions", ())]


async def _operators(api: UserApi) -> dict[str, Any]:
    try:
        items = (await api.look(OPERATORS)).get("items", [])
    except KubeError as error:
        words = "may not list deployments" if error.status == 403 else str(error)
        return {"operators": None, "operatorsError": words}
    return {"operators": [_operator(each) for each in items]}


def _operator(raw: dict[str, Any]) -> dict[str, Any]:
    meta, status = raw["metadata"], raw.get("status") or {}
    containers = raw["spec"]["template"]["spec"]["containers"]
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "version": (meta.get("labels") or {}).get("app.kubernetes.io/version"),
        "image": containers[0]["image"],
        "ready": f"{status.get('readyReplicas', 0)}/{raw['spec'].get('replicas', 1)}",
    }


def _lines(cluster: dict[str, Any]) -> list[str]:
    if "error" in cluster:
        return [f"cluster: not reached: {cluster['error']}"]
    served = ", ".join(cluster["served"]) or "not installed (no CustomResourceDefinition)"
    lines = [f"cluster: Kubernetes {cluster['kubernetes']}, ReasoningFinetune {served}"]
    operators = cluster["operators"]
    if operators is None:
        lines.append(f"operator: not known: {cluster['operatorsError']}")
    elif not operators:
        lines.append("operator: none runs in this cluster; it may run elsewhere")
    for each in operators or ():
        which = f"{each['namespace']}/{each['name']}"
        lines.append(
            f"operator: {each['version'] or 'unknown version'}, {each['image']}, {which}, {each['ready']} ready"
        )
    return lines


@click.command("completion", short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print a script that completes commands, options and the names of runs.

    \b
    bash: source <(rft completion bash)
    zsh:  source <(rft completion zsh)
    fish: rft completion fish | source

    kubectl completes "kubectl rft" by itself: it calls kubectl_complete-rft, which is installed beside rft.
    """
    from click.shell_completion import get_completion_class

    from rft_operator.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "rft", "_RFT_COMPLETE").source())
