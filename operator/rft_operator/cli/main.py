"""``rft``: follow and report runs; ``rft local`` for the embedded cluster where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click

from rft_operator.errors import RftError

Value = TypeVar("Value")


class Problem(click.ClickException):
    """An expected error: not the end of a run, which has exit code 1."""

    exit_code = 2


class LazyGroup(click.Group):
    """Adds ``local`` when its package is installed, without importing it for other commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names."""
        extra = ["local"] if importlib.util.find_spec("rft_local") is not None else []
        return sorted([*super().list_commands(ctx), *extra])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        if cmd_name == "local" and importlib.util.find_spec("rft_local") is not None:
            module = importlib.import_module("rft_local.cli")
            command: click.Command = module.local
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("reasoning-finetune-operator"), prog_name="rft")
def main() -> None:
    """Train and evaluate reasoning models on Kubernetes within a budget."""


def _run_options(command: Any) -> Any:
    kubeconfig = click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: KUBECONFIG.")
    namespace = click.option("-n", "--namespace", help="Namespace of the run. Default: the kubeconfig's context's.")
    return click.argument("name")(namespace(kubeconfig(command)))


@main.command()
@_run_options
@click.option("--timeout", "timeout_seconds", default=86_400, show_default=True, help="Give up after so many seconds.")
def watch(name: str, namespace: str | None, kubeconfig: Path | None, timeout_seconds: int) -> None:
    """Follow a run until it ends; exit code 1 if it failed, 2 if it cannot be followed."""
    from rft_operator.cli.report import report
    from rft_operator.cli.watch import connect, follow
    from rft_operator.domain.ending import has_failed

    async def go() -> bool:
        kube, home = await connect(kubeconfig)
        async with kube:
            where = namespace or home
            run = await follow(kube, namespace=where, name=name, say=click.echo, timeout_seconds=float(timeout_seconds))
            click.echo("\n" + report(run), nl=False)
            return has_failed(run.status)

    if _await(go()):
        sys.exit(1)


@main.command("report")
@_run_options
def report_command(name: str, namespace: str | None, kubeconfig: Path | None) -> None:
    """Print what a run did, what it cost and what it is worth."""
    from rft_operator.cli.report import report
    from rft_operator.cli.watch import connect, fetch

    async def go() -> str:
        kube, home = await connect(kubeconfig)
        async with kube:
            return report(await fetch(kube, namespace=namespace or home, name=name))

    click.echo(_await(go()), nl=False)


def _await(work: Coroutine[Any, Any, Value]) -> Value:
    """Run it; an expected error becomes one line and exit code 2."""
    try:
        return asyncio.run(work)
    except (RftError, TimeoutError) as error:
        raise Problem(str(error)) from error
