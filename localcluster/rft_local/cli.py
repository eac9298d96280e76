"""``rft local``: the embedded cluster from the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click

from rft_local.errors import LocalClusterError
from rft_local.proxy import has_proxy, no_proxy

EXTRA = "local"
LIBRARIES = frozenset({"cryptography", "kubernetes"})
"""What the extra has."""


class Problem(click.ClickException):
    """What could not be carried out; 1 is the answer no (``status``)."""

    exit_code = 2


class Commands(click.Group):
    """Says in words what a command could not carry out."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except LocalClusterError as error:
            raise Problem(str(error)) from error
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in LIBRARIES:
                raise
            words = f"{library} is not installed; rft local {ctx.invoked_subcommand} needs it"
            raise Problem(f"{words}: pip install 'reasoning-finetune-operator[{EXTRA}]'") from error


NAME = click.option("--name", default="default", show_default=True, help="Name of the cluster.")


@click.group(cls=Commands)
def local() -> None:
    """A real Kubernetes cluster on this machine, for trying and testing (Linux, root)."""


@local.command()
@NAME
@click.option("--nodes", default=2, show_default=True, help="Number of nodes; 0: the control plane alone.")
@click.option("--gpus", default=1, show_default=True, help="Fake GPUs of each node.")
@click.option("--audit", is_flag=True, help="Write the API server's audit log into the state folder (log/audit.jsonl).")
def up(name: str, nodes: int, gpus: int, audit: bool) -> None:
    """Start a cluster."""
    from rft_local.tools import require_checkout

    require_checkout()  # before what only an extra has: who installed the package alone is not told of that first
    from rft_local.cluster import ClusterOptions, start

    try:
        cluster = start(ClusterOptions(name=name, nodes=nodes, gpus=gpus, audit=audit))
    except subprocess.CalledProcessError as error:
        raise Problem(f"{error}\n{error.stderr}") from error
    click.echo(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    if has_proxy(os.environ):
        words = shlex.quote(no_proxy(os.environ))
        click.echo(f"export NO_PROXY={words} no_proxy={words}")


@local.command()
@NAME
def status(name: str) -> None:
    """Show the cluster's parts; exit code 1 if one of them is down."""
    from rft_local.cluster import Cluster

    cluster = Cluster.named(name)
    click.echo(f"{cluster.describe()}\n")
    rows = [("PART", "STATE", "PID"), *cluster.status()]
    for part, state, pid in rows:
        click.echo(f"{part:<26}{state:<10}{pid}".rstrip())
    sys.exit(any(state == "stopped" for _, state, _ in rows))


@local.command()
@NAME
def kubeconfig(name: str) -> None:
    """Print the path of the cluster's kubeconfig."""
    from rft_local.cluster import Cluster

    click.echo(str(Cluster.named(name).kubeconfig))


@local.command()
@NAME
@click.argument("kind")
@click.argument("node", required=False)
def fault(name: str, kind: str, node: str | None) -> None:
    """Break or mend something.

    KIND is kill-node, start-node, freeze-kubelet, thaw-kubelet, partition or heal (each with a NODE), or
    stop-apiserver or start-apiserver.
    """
    from rft_local.cluster import Cluster

    Cluster.named(name).fault(kind, node)


@local.command()
@NAME
@click.argument("archive", type=click.Path(path_type=Path))
def load(name: str, archive: Path) -> None:
    """Load the images of a docker archive into all nodes, as there is no registry to pull from."""
    from rft_local.cluster import Cluster

    Cluster.named(name).load_image(archive)


@local.command()
@NAME
def down(name: str) -> None:
    """End a cluster and remove every trace of it."""
    from rft_local.cluster import Cluster

    Cluster.named(name).down()
    click.echo(f"cluster {name!r} is gone")


@local.command()
@click.argument("family", nargs=-1)
def tools(family: tuple[str, ...]) -> None:
    """Build tool families into the cache (default: what a cluster needs) and print their folders."""
    from rft_local.tools import ensure

    for each in family or ("etcd", "kubernetes", "coredns"):
        click.echo(str(ensure(each)))
