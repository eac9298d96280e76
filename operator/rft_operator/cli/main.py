"""``rft``: plan, follow, report and audit runs, score answers; ``rft local`` where that package is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

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
    from rft_operator.domain.draft import has_failed

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


@main.command("plan")
@click.option(
    "-f", "--file", "file", type=click.File(encoding="utf-8"), required=True, help="The resource; - is stdin."
)
@click.option("--prices", type=click.Path(path_type=Path), help="Price catalogue, where the resource names no price.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="config.json of a model that is not known.")
@click.option("--gpu", help="GPU product, as its nodes' label nvidia.com/gpu.product says.")
@click.option("--rows", type=click.IntRange(1), help="Rows of the dataset.")
@click.option("--mean-tokens", type=click.IntRange(1), help="Tokens of a row on average, prompt included.")
def plan_command(file: TextIO, output: str, **options: Any) -> None:
    """Estimate memory, time and cost of a run, without a cluster; exit code 1 if it does not fit or is too dear."""
    from rft_operator.cli.plan import Options, make_plan, page, to_json

    try:
        plan = make_plan(file.read(), Options(**options), now=int(time.time()))
    except (RftError, UnicodeDecodeError) as error:
        raise Problem(str(error)) from error
    click.echo(page(plan) if output == "text" else to_json(plan), nl=False)
    for note in plan.notes if output == "json" else ():
        click.echo(f"Note: {note}", err=True)
    if not plan.estimate.works:
        sys.exit(1)


@main.command("audit")
@click.option("-f", "--file", "file", type=click.File(encoding="utf-8"), required=True, help="The dump; - is stdin.")
@click.option("--prices", type=click.Path(path_type=Path), help="Price catalogue, where resources name no price.")
@click.option("--now", "now_text", help="Instant of the dump (RFC 3339), for pods that still run. Default: now.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def audit_command(file: TextIO, prices: Path | None, now_text: str | None, output: str) -> None:
    """Compute the bill anew from a dump of API objects; exit code 1 if a status in it says something else.

    The dump is a List: kubectl get pods,nodes,jobs,rft -A -o json --show-managed-fields
    """
    from rft_operator.cli.audit import page, run_audit, to_json
    from rft_operator.domain.timestamps import epoch

    try:
        now = epoch(now_text) if now_text is not None else int(time.time())
    except ValueError as error:
        raise Problem(f"--now {now_text!r} is no instant; write for example 2026-01-01T00:00:00Z") from error
    try:
        found = run_audit(file.read(), prices, now=now)
    except (RftError, UnicodeDecodeError) as error:
        raise Problem(str(error)) from error
    click.echo(page(found) if output == "text" else to_json(found), nl=False)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if output == "json":
        for key, verdict in found.verdicts.items():
            for each in verdict.findings:
                click.echo(f"{key} DISAGREES: {each}", err=True)
    if not found.agrees:
        sys.exit(1)


@main.command("score")
@click.argument("file", type=click.File("rb"))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: stdout.")
def score_command(file: BinaryIO, output: Path | None) -> None:
    """Judge answers with the evaluation's own scorers; exit code 2 if a row cannot be judged. FILE - is stdin.

    Rows are JSON, one a line: {"id", "scorer": "math|integer|letter|gsm8k", "answer": the right one, "text": the
    model's}; out come, in order, {"id", "extracted", "correct", "reason"}.
    """
    from rft_operator.cli.score import judge_rows, read_rows, summary, to_jsonl

    try:
        rows = read_rows(file)
        verdicts = judge_rows(rows)
        if output is None:
            click.echo(to_jsonl(rows, verdicts), nl=False)
        else:
            output.write_text(to_jsonl(rows, verdicts))
    except RftError as error:
        raise Problem(str(error)) from error
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}") from error
    click.echo(summary(verdicts), err=True)


def _await(work: Coroutine[Any, Any, Value]) -> Value:
    """Run it; an expected error becomes one line and exit code 2."""
    try:
        return asyncio.run(work)
    except (RftError, TimeoutError) as error:
        raise Problem(str(error)) from error
